//! Whether the messages had the effect that they should have had.

use crate::{stock, world::World};
use futures_util::TryStreamExt;
use mongodb::bson::doc;
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::Client;

/// Who has to know the amounts after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A bare loop keeps no ledger.
    InMongo,
    /// The relay does.
    InMongoAndLedger,
}

/// Messages by outcome; one without is `dead` or `waiting`.
pub(crate) async fn outcomes(sql: &Client) -> anyhow::Result<BTreeMap<String, u32>> {
    let statement =
        "select coalesce(outcome, case when dead_at is null then 'waiting' else 'dead' end), count(*)::int4
        from outbox_messages group by 1";
    let rows = sql.query(statement, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i32>(1).unsigned_abs())).collect())
}

/// Pairs whose entry (or ledger row) has another amount than their done message of the highest stamp: which is the highest amount,
/// since the amounts of a pair rise in the order of the stamps.
pub(crate) async fn wrong_pairs(world: &World, sql: &Client, kept: Kept) -> anyhow::Result<usize> {
    let statement = "select pair, cents, (amount * 100)::int8 from (
            select payload -> 'reference_numbers' ->> 0 as pair, max((payload ->> 'new_debt_amount')::numeric * 100)::int8 as cents
            from outbox_messages where processed_at is not null group by 1
        ) done left join creditor_debts on entry_key = 'cr_' || substr(pair, 4)";
    let mut stored = HashMap::new();
    let projection = doc! { "final_creditor_list.id": 1, "final_creditor_list.current_debt_amount": 1 };
    let mut clients = world.mongo.clients.find(doc! {}).projection(projection).await?;
    while let Some(client) = clients.try_next().await? {
        for entry in client.get_array("final_creditor_list")?.iter().filter_map(|entry| entry.as_document()) {
            if let (Ok(id), Ok(amount)) = (entry.get_str("id"), entry.get_f64("current_debt_amount")) {
                #[expect(clippy::cast_possible_truncation, reason = "amounts of the stock are small")]
                stored.insert(stock::pair_of(id)?, (amount * 100.0).round() as i64);
            }
        }
    }
    let mut wrong = 0;
    for row in sql.query(statement, &[]).await? {
        let cents: i64 = row.get(1);
        let in_mongo = stored.remove(&stock::pair_of(row.get(0))?) == Some(cents);
        let in_ledger = kept == Kept::InMongo || row.get::<_, Option<i64>>(2) == Some(cents);
        wrong += usize::from(!(in_mongo && in_ledger));
    }
    // What is left was written without a message that is done.
    Ok(wrong + stored.len())
}
