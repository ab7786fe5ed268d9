//! A long time at half of what the relay can do: what grows, and what levels off.

use crate::{
    drain,
    feed::Feed,
    meter::{Counters, Meter},
    process::{Relay, Usage, until},
    report::{Line, joined, percentile, print, ratio, rounded, say},
    stock,
    verify::Kept,
    world::World,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::Database;
use tokio_postgres::Client;

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Messages of the drain at the start.
const FIRST_DRAIN: u32 = 50_000;

/// The sizes of the outbox.
const SIZES: &str =
    "select pg_table_size(relid), pg_indexes_size(relid), n_dead_tup, n_live_tup, autovacuum_count
    from pg_stat_user_tables where relname = 'outbox_messages'";

/// What is watched for levelling off.
#[derive(Debug, Default)]
struct Watched {
    table_bytes_per_row: Vec<f64>,
    index_bytes_per_row: Vec<f64>,
    dead_rows: Vec<f64>,
    relay_rss_mib: Vec<f64>,
    wal_bytes_per_message: Vec<f64>,
}

pub(crate) async fn run(seconds: u32, rate: Option<u32>) -> anyhow::Result<()> {
    let rate = match rate {
        Some(rate) => rate,
        None => half_a_drain().await?,
    };
    say(&format!("{seconds} s at {rate}/s"));
    let pairs = stock::pairs_of(seconds.saturating_mul(rate)).min(stock::MOST_PAIRS);
    let mut world = World::with(Database::new().await, 0, pairs).await?;
    let sql = stock::connect(&world.database).await?;
    let meter = Meter::start(&world.database).await?;
    let mut relays = [Relay::start(&world, &["run"]).await?];
    let mut feed = Feed::start(&world.database, pairs, rate).await?;
    let (started, mut watched, mut done) = (Instant::now(), Watched::default(), 0);
    let mut before = Counters::read(&sql).await?;
    while started.elapsed().as_secs() < seconds.into() {
        let pause = SAMPLE_EVERY.min(Duration::from_secs(seconds.into()) / 9);
        tokio::time::sleep(pause).await;
        feed.must_run().await?;
        let done_before = done;
        let mut usage = Usage::default();
        for relay in &mut relays {
            done = relay.counts().await?.done();
            usage = Usage::of(relay.pid()).unwrap_or_default();
        }
        let now = Counters::read(&sql).await?;
        #[expect(clippy::cast_precision_loss, reason = "millions at most")]
        let counted = now.since(before, (done - done_before) as f64);
        before = now;
        let at = rounded(started.elapsed().as_secs_f64());
        let backlog = i64::from(feed.fed()) - i64::try_from(done)?;
        watched.wal_bytes_per_message.extend(counted.get("wal_bytes_per_message").and_then(Value::as_f64));
        let sizes = watched.sizes(&sql, done, usage).await?;
        let head = json!({ "bench": "soak", "variant": "sample", "at_seconds": at, "ended": done, "backlog": backlog });
        print(&joined([head, counted, sizes, usage.json("relay")]))?;
    }
    let fed = feed.stop().await?;
    until(&mut relays, |counts| counts.done() + counts.dead() >= fed.into(), |_| ()).await?;
    let seconds = started.elapsed().as_secs_f64();
    world.n = fed;
    let [relay] = relays;
    let usage = relay.stop().await?;
    let rest = joined([
        world.result(meter, Kept::InMongoAndLedger).await?,
        usage.json("relay"),
        json!({ "fed_rate": rate }),
    ]);
    Line {
        bench: "soak",
        variant: "all",
        run: 1,
        n: fed.into(),
        seconds,
        rate: f64::from(fed) / seconds,
        rest,
    }
    .print()?;
    print(&json!({ "bench": "soak", "last_third_to_middle_third": watched.levelling() }))
}

async fn half_a_drain() -> anyhow::Result<u32> {
    let stock = stock::waiting(FIRST_DRAIN).await?;
    let (seconds, _) = drain::relay_once(&stock, FIRST_DRAIN).await?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "messages a second")]
    Ok((f64::from(FIRST_DRAIN) / seconds / 2.0) as u32)
}

impl Watched {
    async fn sizes(&mut self, sql: &Client, rows: u64, usage: Usage) -> anyhow::Result<Value> {
        let row = sql.query_one(SIZES, &[]).await?;
        let count = |column: usize| row.get::<_, i64>(column);
        #[expect(clippy::cast_precision_loss, reason = "gigabytes at most")]
        let number = |column: usize| count(column) as f64;
        let mib = |column: usize| rounded(number(column) / 1_048_576.0);
        // The statistics' row count is an estimate until the next vacuum; a row that has ended is there for certain.
        let rows = f64::from(u32::try_from(rows)?).max(1.0);
        self.table_bytes_per_row.push((number(0) / rows).round());
        self.index_bytes_per_row.push((number(1) / rows).round());
        self.dead_rows.push(number(2));
        self.relay_rss_mib.push(usage.peak_rss_mib);
        Ok(json!({ "table_mib": mib(0), "index_mib": mib(1), "dead_rows": count(2), "live_rows": count(3),
            "autovacuums": count(4) }))
    }

    /// The median of the last third of the samples for the median of the third before it: 1 has levelled off.
    fn levelling(&self) -> Value {
        let level = |samples: &[f64]| {
            let third = samples.len() / 3;
            let part = |from: usize, to: usize| percentile(samples.get(from..to).unwrap_or_default(), 0.5);
            ratio(part(2 * third, samples.len()), part(third, 2 * third))
        };
        json!({
            "table_bytes_per_row": level(&self.table_bytes_per_row),
            "index_bytes_per_row": level(&self.index_bytes_per_row), "dead_rows": level(&self.dead_rows),
            "relay_peak_rss": level(&self.relay_rss_mib), "wal_bytes_per_message": level(&self.wal_bytes_per_message),
        })
    }
}
