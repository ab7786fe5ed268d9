//! How long the comparison of a whole ledger with MongoDB takes, and how much memory: of one that is equal, and of one with drift.

use crate::{
    process::Relay,
    report::{Figures, Line, joined, print, rounded},
    stock,
    world::World,
};
use mongodb::bson::{Bson, Document, doc};
use serde_json::json;
use testkit::Database;

/// The update that every entry carries.
const STAMP: i64 = 1_853_083_607_040_000_016;
/// One entry of so many has lost its mark, in the drifted variant.
const DRIFTED: u32 = 100;

pub(crate) async fn run(n: u32, runs: u32) -> anyhow::Result<()> {
    let database = Database::new().await;
    let world = World::with(database, n, n).await?;
    let sql = stock::connect(&world.database).await?;
    let mails = "insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint)
        values ('api', 'bench', 'konto@kontor.example', '', now(), sha256(''))";
    sql.batch_execute(mails).await?;
    let ledger = format!(
        "insert into creditor_debts (client_id, entry_key, aktenzeichen, amount, stamp, message_id, email_id)
        select lpad(to_hex(pair / {}), 24, '0'), 'cr_' || pair, '2024_' || pair / {}, 100.25, {STAMP}, 1, 1
        from generate_series(0, {n} - 1) pair",
        stock::ENTRIES,
        stock::ENTRIES
    );
    sql.batch_execute(&ledger).await?;
    sql.batch_execute("vacuum analyze creditor_debts").await?;
    let mark = doc! { "stamp": format!("{STAMP:020}"), "email": 1_i64, "previous": Bson::Null };
    everywhere(&world, doc! { "current_debt_amount": 100.25, "_relay": mark }).await?;

    let mut rates = Figures::default();
    for run in 1..=runs {
        for variant in ["equal", "drifted"] {
            let is_drifted = variant == "drifted";
            if is_drifted {
                let filter = doc! { "$expr": { "$eq": [{ "$mod": [{ "$toLong": { "$substrCP": ["$aktenzeichen", 5, 20] } }, i64::from(DRIFTED)] }, 0_i64] } };
                let lost = doc! { "$unset": { "final_creditor_list.0._relay": "" }, "$set": { "final_creditor_list.0.current_debt_amount": 5.0 } };
                world.mongo.clients.update_many(filter, lost).await?;
            }
            let arguments = ["reconcile", "--json", "--reconcile-rows-per-second", "1000000"];
            let (elapsed, usage) = Relay::start(&world, &arguments).await?.ended().await?;
            let row = sql
                .query_one("select records_checked, mismatches_found from reconciliation_reports order by id desc limit 1", &[])
                .await?;
            let found = json!({ "checked": row.get::<_, i32>(0), "mismatches": row.get::<_, i32>(1) });
            let rate = f64::from(n) / elapsed.as_secs_f64();
            rates.add(variant, rate);
            let rest = joined([found, usage.json("relay")]);
            Line {
                bench: "reconcile",
                variant,
                run,
                n: n.into(),
                seconds: elapsed.as_secs_f64(),
                rate: rounded(rate),
                rest,
            }
            .print()?;
        }
        let mark = doc! { "stamp": format!("{STAMP:020}"), "email": 1_i64, "previous": Bson::Null };
        everywhere(&world, doc! { "current_debt_amount": 100.25, "_relay": mark }).await?;
    }
    print(&json!({ "bench": "reconcile", "rates": rates.spread() }))
}

/// Sets these fields in every entry.
async fn everywhere(world: &World, fields: Document) -> anyhow::Result<()> {
    let entry = doc! { "$mergeObjects": ["$$entry", fields] };
    let list = doc! { "$map": { "input": "$final_creditor_list", "as": "entry", "in": entry } };
    let change = vec![doc! { "$set": { "final_creditor_list": list } }];
    world.mongo.clients.update_many(doc! {}, change).await?;
    Ok(())
}
