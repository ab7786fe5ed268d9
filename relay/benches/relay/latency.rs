//! From the return of a message's commit to MongoDB's acknowledgement of its update, under load and out of idleness.

use crate::{
    feed::{Inserter, poker},
    process::{Relay, cpu_seconds},
    report::{percentile, print, ratio, rounded, say},
    stock,
    tap::Tap,
    verify::{self, Kept},
    world::World,
};
use anyhow::{Context as _, bail};
use ingest::poke::Poker;
use mongodb::bson::doc;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use testkit::{Database, PgBouncer};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Connections that commit; each commits one message after the other.
const COMMITTERS: usize = 8;
/// Commits that wait for their connection, before the feed itself waits.
const WAITING: usize = 1000;
/// Nothing to do, before idleness is measured.
const QUIET: Duration = Duration::from_secs(2);
/// For one message.
const LOST: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) idle_times: u32,
    pub(crate) idle_seconds: u32,
    /// The relay has no other way to Postgres than a pooler in transaction mode: it hears no poke.
    pub(crate) pgbouncer: bool,
}

pub(crate) async fn run(plan: Plan) -> anyhow::Result<()> {
    // Every message has a pair of its own: none is superseded, so each is acknowledged itself.
    let pairs = plan.rate.saturating_mul(plan.seconds).saturating_add(2 * plan.idle_times);
    let mut world = World::with(Database::new().await, 0, pairs).await?;
    if plan.pgbouncer {
        world.pooler = Some(PgBouncer::before(&world.database.url, 4).await);
    }
    let mut tap = Tap::before(&world.mongo.url).await?;
    let stop = CancellationToken::new();
    let poker = poker(&world.database, &stop);
    let mut bench = Bench { committers: Vec::new(), next: 1, dice: Dice(0x9E37_79B9_7F4A_7C15) };
    for _ in 0..COMMITTERS {
        bench.committers.push(Arc::new(Inserter::new(&world.database, pairs, true).await?));
    }
    tap_delay(&world, &tap).await?;
    let relay = Relay::start_with(&world, &["run"], &tap.url, Stdio::inherit()).await?;
    sleep(QUIET).await;

    let loaded = bench.loaded(plan, &mut tap, &poker).await?;
    let poked = bench.idle("idle, with poke", plan.idle_times, &mut tap, Some(&poker)).await?;
    let polled = bench.idle("idle, without poke", plan.idle_times, &mut tap, None).await?;
    let idle = idle_cost(&world, &relay, plan.idle_seconds).await?;
    relay.stop().await?;
    let sql = stock::connect(&world.database).await?;
    print(&json!({
        "bench": "latency", "pgbouncer": plan.pgbouncer, "outcomes": verify::outcomes(&sql).await?,
        "wrong": verify::wrong_pairs(&world, &sql, Kept::InMongoAndLedger).await?,
        "summary": { "loaded_ms": loaded, "idle_with_poke_ms": poked, "idle_without_poke_ms": polled, "idle": idle },
    }))
}

struct Bench {
    committers: Vec<Arc<Inserter>>,
    next: u32,
    dice: Dice,
}

impl Bench {
    /// At the rate, in exponential spacing, whatever the relay does.
    async fn loaded(&mut self, plan: Plan, tap: &mut Tap, poker: &Poker) -> anyhow::Result<Value> {
        let count = plan.rate.saturating_mul(plan.seconds);
        say(&format!("{count} messages at {}/s", plan.rate));
        let mut commits = JoinSet::new();
        let mut committed = HashMap::new();
        let started = Instant::now();
        let mut due = 0.0;
        for message in self.next..self.next + count {
            due -= (1.0 - self.dice.roll()).ln() / f64::from(plan.rate);
            sleep(Duration::from_secs_f64(due).saturating_sub(started.elapsed())).await;
            let committer =
                self.committers.get(message as usize % COMMITTERS).context("a committer")?.clone();
            let poker = poker.clone();
            commits.spawn(async move {
                committer.commit(message, message).await?;
                let at = Instant::now();
                poker.poke();
                anyhow::Ok((message, at))
            });
            while let Some(done) = commits.try_join_next() {
                committed.extend([done??]);
            }
            if commits.len() >= WAITING {
                bail!("Postgres does not commit {} messages a second", plan.rate);
            }
        }
        while let Some(done) = commits.join_next().await {
            committed.extend([done??]);
        }
        let seconds = started.elapsed().as_secs_f64();
        self.next += count;
        let mut latencies = Vec::new();
        while let Some(at) = committed.len().checked_sub(1) {
            let (message, acknowledged) =
                next(tap).await.with_context(|| format!("{} are missing", at + 1))?;
            if let Some(commit) = committed.remove(&message) {
                latencies.push(milliseconds(commit, acknowledged));
            }
        }
        let spread = spread(&latencies);
        let rate = rounded(f64::from(count) / seconds);
        print(
            &json!({ "bench": "latency", "variant": "loaded", "run": 1, "n": count, "seconds": rounded(seconds), "rate": rate,
            "ms": spread }),
        )?;
        Ok(spread)
    }

    /// One message at a time, where nothing else happens.
    async fn idle(
        &mut self,
        variant: &str,
        times: u32,
        tap: &mut Tap,
        poker: Option<&Poker>,
    ) -> anyhow::Result<Value> {
        say(&format!("{variant}: {times} messages"));
        sleep(QUIET).await;
        let committer = self.committers.first().context("a committer")?.clone();
        let mut latencies = Vec::new();
        for message in self.next..self.next + times {
            sleep(Duration::from_secs_f64(0.3 + 0.7 * self.dice.roll())).await;
            committer.commit(message, message).await?;
            let commit = Instant::now();
            if let Some(poker) = poker {
                poker.poke();
            }
            let (found, acknowledged) = next(tap).await?;
            if found != message {
                bail!("message {found} was acknowledged twice");
            }
            latencies.push(milliseconds(commit, acknowledged));
        }
        self.next += times;
        let spread = spread(&latencies);
        print(&json!({ "bench": "latency", "variant": variant, "run": 1, "n": times, "ms": spread }))?;
        Ok(spread)
    }
}

async fn next(tap: &mut Tap) -> anyhow::Result<(u32, Instant)> {
    let acknowledged =
        timeout(LOST, tap.acknowledged.recv()).await.context("a message is not acknowledged in time")?;
    acknowledged.context("the tap has ended")
}

/// What the tap itself adds: a ping through it, beside one that goes directly.
async fn tap_delay(world: &World, tap: &Tap) -> anyhow::Result<()> {
    let base = world.mongo.url.split('?').next().unwrap_or_default().trim_end_matches('/');
    let direct = mongodb::Client::with_uri_str(format!("{base}/?directConnection=true")).await?;
    let tapped = mongodb::Client::with_uri_str(&tap.url).await?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..300 {
        for (client, times) in [&direct, &tapped].into_iter().zip(&mut times) {
            let sent = Instant::now();
            client.database("admin").run_command(doc! { "ping": 1 }).await?;
            times.push(milliseconds(sent, Instant::now()));
        }
    }
    let delays = times.map(|times| rounded(percentile(&times, 0.5)));
    print(&json!({ "bench": "latency", "variant": "ping, directly and through the tap", "ms": delays }))
}

/// Processor time of a relay that has nothing to do, and of its Postgres connections.
async fn idle_cost(world: &World, relay: &Relay, seconds: u32) -> anyhow::Result<Value> {
    say(&format!("idle for {seconds} s"));
    sleep(QUIET).await;
    let sql = stock::connect(&world.database).await?;
    let statement = "select pid from pg_stat_activity where datname = current_database() and application_name like 'relay%'";
    let backends: Vec<u32> =
        sql.query(statement, &[]).await?.iter().map(|row| row.get::<_, i32>(0).unsigned_abs()).collect();
    // Only where Postgres runs on this machine and its processes may be looked at.
    let postgres = || backends.iter().map(|pid| cpu_seconds(*pid)).sum::<Option<f64>>();
    let before = (cpu_seconds(relay.pid()), postgres());
    sleep(Duration::from_secs(seconds.into())).await;
    let after = (cpu_seconds(relay.pid()), postgres());
    let percent = |before: Option<f64>, after: Option<f64>| match (before, after) {
        (Some(before), Some(after)) => ratio((after - before) * 100.0, f64::from(seconds)),
        (_, _) => Value::Null,
    };
    let cost = json!({
        "relay_percent_of_a_core": percent(before.0, after.0),
        "postgres_percent_of_a_core": percent(before.1, after.1), "postgres_connections": backends.len(),
    });
    print(&json!({ "bench": "latency", "variant": "idle", "run": 1, "seconds": seconds, "cost": cost }))?;
    Ok(cost)
}

/// An acknowledgement before the commit's return is one at once.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

fn spread(latencies: &[f64]) -> Value {
    let at = |share: f64| rounded(percentile(latencies, share));
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
}

/// The same numbers in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    /// 0 to below 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = u32::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32).unwrap_or(0);
        f64::from(bits) / 4_294_967_296.0
    }
}
