//! What messages that can never be delivered cost the others.

use crate::{
    meter::Meter,
    process::{Relay, until},
    report::{Figures, Line, joined, print, ratio},
    stock,
    verify::Kept,
    world::World,
};
use mongodb::bson::doc;
use serde_json::{Value, json};
use std::{process::Stdio, time::Instant};
use testkit::Database;

const NONE: &str = "0 %";

/// What is wrong with a message, on this many of a hundred.
#[derive(Debug, Clone, Copy)]
enum Poison {
    /// Its payload has no stamp.
    Undecodable(u32),
    /// The collection's validator refuses every update of its document.
    Refused(u32),
}

impl Poison {
    fn name(self) -> String {
        match self {
            Poison::Undecodable(0) | Poison::Refused(0) => NONE.into(),
            Poison::Undecodable(share) => format!("undecodable {share} %"),
            Poison::Refused(share) => format!("refused by MongoDB {share} %"),
        }
    }

    async fn stock(self, n: u32) -> anyhow::Result<Database> {
        match self {
            Poison::Undecodable(share) => {
                let payload = format!(
                    "case when (hashint8(i) & 1048575) % 100 < {share} then payload - 'stamp' else payload end"
                );
                stock::waiting_with(n, &payload).await
            }
            Poison::Refused(_) => stock::waiting(n).await,
        }
    }

    /// Spoils documents of the world; how many messages can be delivered.
    async fn spoil(self, world: &World) -> anyhow::Result<u64> {
        let healthy = match self {
            Poison::Undecodable(_) => "payload ? 'stamp'".into(),
            Poison::Refused(share) => {
                let clients = world.mongo.clients.count_documents(doc! {}).await?;
                let spoilt: Vec<_> = (0..u32::try_from(clients)?)
                    .filter(|client| client % 100 < share)
                    .map(|client| stock::client_id(client * stock::ENTRIES))
                    .collect();
                let change = doc! { "$set": { "spoilt": true } };
                world.mongo.clients.update_many(doc! { "_id": { "$in": spoilt } }, change).await?;
                let database = world.mongo.clients.client().database(&world.mongo.name);
                let validator =
                    doc! { "collMod": "clients", "validator": { "spoilt": { "$exists": false } } };
                database.run_command(validator).await?;
                let client =
                    format!("substr(payload -> 'reference_numbers' ->> 0, 4)::int / {}", stock::ENTRIES);
                format!("{client} % 100 >= {share}")
            }
        };
        let sql = stock::connect(&world.database).await?;
        let row =
            sql.query_one(&format!("select count(*) from outbox_messages where {healthy}"), &[]).await?;
        Ok(u64::try_from(row.get::<_, i64>(0))?)
    }
}

pub(crate) async fn run(n: u32, shares: &[u32], runs: u32) -> anyhow::Result<()> {
    let mut kinds = vec![Poison::Undecodable(0)];
    kinds.extend(shares.iter().flat_map(|share| [Poison::Undecodable(*share), Poison::Refused(*share)]));
    let mut stocks = Vec::new();
    for kind in kinds {
        stocks.push((kind, kind.stock(n).await?));
    }
    let mut rates = Figures::default();
    for run in 1..=runs {
        for (kind, stock) in &stocks {
            rates.add(&kind.name(), measured(*kind, stock, n, run).await?);
        }
    }
    let to_none =
        |(kind, _): &(Poison, _)| (kind.name(), ratio(rates.median(&kind.name()), rates.median(NONE)));
    let to_none: Value = stocks.iter().map(to_none).collect();
    print(&json!({ "bench": "poison", "summary": rates.spread(), "ratio_to_none": to_none }))
}

/// The rate of the healthy messages until the last of them is done.
async fn measured(kind: Poison, stock: &Database, n: u32, run: u32) -> anyhow::Result<f64> {
    let world = World::of(stock, n).await?;
    let healthy = kind.spoil(&world).await?;
    let meter = Meter::start(&world.database).await?;
    let started = Instant::now();
    // Each dead message is a line of the log: written, but not read by anybody here.
    let relay = Relay::start_with(&world, &["run"], &world.mongo.url, Stdio::null()).await?;
    let mut relays = [relay];
    until(&mut relays, |counts| counts.done() >= healthy, |_| ()).await?;
    let seconds = started.elapsed().as_secs_f64();
    until(&mut relays, |counts| counts.done() + counts.dead() >= n.into(), |_| ()).await?;
    let until_all = started.elapsed().as_secs_f64();
    let [relay] = relays;
    let usage = relay.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "millions at most")]
    let rate = healthy as f64 / seconds;
    let all = json!({ "healthy": healthy, "seconds_until_all_ended": crate::report::rounded(until_all) });
    let rest = joined([world.result(meter, Kept::InMongoAndLedger).await?, usage.json("relay"), all]);
    Line { bench: "poison", variant: &kind.name(), run, n: n.into(), seconds, rate, rest }.print()?;
    Ok(rate)
}
