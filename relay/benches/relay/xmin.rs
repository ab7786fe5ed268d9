//! What a session that keeps an old snapshot open costs: nothing that is updated meanwhile can be vacuumed.

use crate::{
    feed::{Feed, Inserter, poker},
    meter::Meter,
    process::{Relay, Usage, until},
    report::{Line, joined, percentile, print, ratio, rounded, say},
    stock,
    verify::Kept,
    world::World,
};
use serde_json::json;
use std::time::{Duration, Instant};
use testkit::Database;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seconds: u32,
    pub(crate) rate: u32,
    pub(crate) drain: u32,
}

struct Phase {
    rate: f64,
    age: f64,
    drain_rate: f64,
}

pub(crate) async fn run(plan: Plan) -> anyhow::Result<()> {
    let clean = phase(plan, false).await?;
    let held = phase(plan, true).await?;
    print(&json!({
        "bench": "xmin", "held_to_clean": {
            "rate": ratio(held.rate, clean.rate), "drain_rate": ratio(held.drain_rate, clean.drain_rate),
            "oldest_waiting_p95": ratio(held.age, clean.age),
        },
    }))
}

async fn phase(plan: Plan, held: bool) -> anyhow::Result<Phase> {
    let variant = if held { "held" } else { "clean" };
    say(&format!("{variant}: {} s at {}/s", plan.seconds, plan.rate));
    let pairs = stock::pairs_of(plan.seconds.saturating_mul(plan.rate)).min(stock::MOST_PAIRS);
    let mut world = World::with(Database::new().await, 0, pairs).await?;
    let sql = stock::connect(&world.database).await?;
    sql.batch_execute("analyze").await?;
    let holder = stock::connect(&world.database).await?;
    if held {
        holder
            .batch_execute("begin isolation level repeatable read; select from outbox_messages limit 1")
            .await?;
    }
    let meter = Meter::start(&world.database).await?;
    let mut relays = [Relay::start(&world, &["run"]).await?];
    let feed = Feed::start(&world.database, pairs, plan.rate).await?;
    let (mut feed, started, mut ages, mut done) = (feed, Instant::now(), Vec::new(), 0);
    while started.elapsed().as_secs() < plan.seconds.into() {
        tokio::time::sleep(LOOK_EVERY.min(Duration::from_secs(plan.seconds.into()) / 10)).await;
        feed.must_run().await?;
        let mut usage = Usage::default();
        for relay in &mut relays {
            done = relay.counts().await?.done();
            usage = Usage::of(relay.pid()).unwrap_or_default();
        }
        let age = oldest_waiting(&sql, done).await?;
        ages.push(age);
        let backlog = i64::from(feed.fed()) - i64::try_from(done)?;
        let sample = json!({ "bench": "xmin", "variant": format!("{variant}, sample"), "at_seconds": rounded(started.elapsed().as_secs_f64()),
            "ended": done, "backlog": backlog, "oldest_waiting_seconds": rounded(age), "dead_rows": dead_rows(&sql).await? });
        print(&joined([sample, usage.json("relay")]))?;
    }
    let fed = feed.stop().await?;
    let seconds = started.elapsed().as_secs_f64();
    let dead_rows = dead_rows(&sql).await?;
    until(&mut relays, |counts| counts.done() + counts.dead() >= fed.into(), |_| ()).await?;

    world.n = fed + plan.drain;
    let stop = CancellationToken::new();
    let poker = poker(&world.database, &stop);
    Inserter::new(&world.database, pairs, false).await?.commit(fed + 1, world.n).await?;
    let committed = Instant::now();
    poker.poke();
    let all = u64::from(world.n);
    until(&mut relays, |counts| counts.done() + counts.dead() >= all, |_| ()).await?;
    let drain_rate = f64::from(plan.drain) / committed.elapsed().as_secs_f64();
    stop.cancel();
    let [relay] = relays;
    let usage = relay.stop().await?;
    #[expect(clippy::cast_precision_loss, reason = "millions at most")]
    let rate = done as f64 / seconds;
    let age = percentile(&ages, 0.95);
    let oldest = json!({ "p50": rounded(percentile(&ages, 0.5)), "p95": rounded(age), "max": rounded(percentile(&ages, 1.0)) });
    let rest = joined([
        world.result(meter, Kept::InMongoAndLedger).await?,
        usage.json("relay"),
        json!({ "fed": fed, "backlog_at_end": i64::from(fed) - i64::try_from(done)?, "dead_rows_at_end": dead_rows,
            "oldest_waiting_seconds": oldest, "drain_n": plan.drain, "drain_rate": drain_rate.round() }),
    ]);
    Line { bench: "xmin", variant, run: 1, n: fed.into(), seconds, rate, rest }.print()?;
    Ok(Phase { rate, age, drain_rate })
}

/// Age of the oldest waiting message in seconds; 0 if none waits. Messages are worked off about in order, so the rows before
/// those that have ended last need not be looked at.
async fn oldest_waiting(sql: &Client, done: u64) -> anyhow::Result<f64> {
    let statement = "select coalesce(max(extract(epoch from clock_timestamp() - created_at)), 0)::float8 from (
        select created_at from outbox_messages where id > $1 and processed_at is null and dead_at is null order by id limit 1) oldest";
    let from = i64::try_from(done)? - 5000;
    Ok(sql.query_one(statement, &[&from]).await?.get(0))
}

async fn dead_rows(sql: &Client) -> anyhow::Result<i64> {
    let statement = "select n_dead_tup from pg_stat_user_tables where relname = 'outbox_messages'";
    Ok(sql.query_one(statement, &[]).await?.get(0))
}
