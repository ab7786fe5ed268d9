//! Beside the lanes of a running relay: looks at what is paused, says that the relay is there, and measures what waits.
//!
//! At most two connections of the pool, each for some milliseconds; a measurement that takes long does not hold a pause up.

use crate::{
    board::{Board, Counts, LaneEntry, LaneState},
    mode,
    outbox::{self, Backlog, Floors, OTHERS},
    pauses,
    workers::{self, Identity, LaneReport, Lanes},
};
use shared::{
    message::Operation,
    postgres::{Connection, Pool, abandon, pool_reason, reason},
};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// A pause stops a lane within this and the length of a claim.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The row is renewed every so many looks; `relay status` takes a relay for alive that was there within 30 s.
const RENEW_EVERY: u64 = 5;
/// The backlog is measured this often.
const MEASURE_EVERY: Duration = Duration::from_secs(15);
/// How long a measurement may walk through the table; a new relay without anybody's marks needs several.
const MEASURE_BUDGET: Duration = Duration::from_millis(500);
/// Nothing of this is worth a longer wait: a look, and a measurement.
const PATIENCE: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(10)];
/// Beyond it a shutdown does not wait for the row to go: it will be taken for a crashed relay's, and removed after a day.
const GOODBYE: Duration = Duration::from_secs(1);
/// Rates are those of a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// What is kept from look to look.
struct Heartbeat {
    pool: Pool,
    board: Board,
    identity: Identity,
    /// Operations that have a lane here.
    configured: Vec<Operation>,
    floors: Arc<Mutex<Floors>>,
    /// Whether this relay only watches, and whether such a one may work in this database; until that is known all lanes wait.
    is_shadow: bool,
    is_admitted: Option<bool>,
    /// As of the last look.
    paused: HashSet<Operation>,
    /// The counts of the last minute, one entry per renewal.
    history: VecDeque<(Instant, HashMap<Operation, LaneEntry>)>,
}

/// Until the token is cancelled, and takes the relay's row away then. Trouble with Postgres is told once and waited out.
pub async fn run(
    pool: Pool,
    board: Board,
    identity: Identity,
    configured: Vec<Operation>,
    is_shadow: bool,
    stop: CancellationToken,
) {
    let history = VecDeque::from([(Instant::now(), HashMap::new())]);
    let floors = Arc::default();
    let worker = identity.worker.clone();
    let measuring = measure_all(&pool, Arc::clone(&floors));
    let paused = HashSet::new();
    let mut heartbeat = Heartbeat {
        pool: pool.clone(),
        board,
        identity,
        configured,
        floors,
        is_shadow,
        is_admitted: None,
        paused,
        history,
    };
    stop.run_until_cancelled(async { tokio::join!(heartbeat.beat_all(), measuring) }).await;
    let goodbye = async {
        if let Ok(connection) = pool.get().await {
            let _ = workers::leave(&connection, &worker).await;
        }
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

/// Measures again and again.
async fn measure_all(pool: &Pool, floors: Arc<Mutex<Floors>>) {
    let mut trouble = Trouble::default();
    loop {
        let known = floors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let measure = ask(pool, PATIENCE[1], async |connection| {
            let known =
                if known.is_empty() { workers::floors(&workers::list(connection).await?) } else { known };
            outbox::look(connection, &known, MEASURE_BUDGET).await
        });
        match measure.await {
            Ok(look) => {
                publish(Some(&look.backlog));
                *floors.lock().unwrap_or_else(PoisonError::into_inner) = look.floors;
                trouble.is_over();
            }
            Err(text) => {
                publish(None); // an alert must not live on what was
                trouble.tell("cannot measure what waits", &text);
            }
        }
        sleep(MEASURE_EVERY).await;
    }
}

/// Asks Postgres something, by a connection that is not used again if the answer does not come in time.
async fn ask<T>(
    pool: &Pool,
    patience: Duration,
    work: impl AsyncFnOnce(&Connection) -> Result<T, tokio_postgres::Error>,
) -> Result<T, String> {
    let connection = pool.get().await.map_err(|error| pool_reason(&error))?;
    match timeout(patience, work(&connection)).await {
        Ok(result) => result.map_err(|error| reason(&error)),
        Err(_) => {
            abandon(connection).await;
            Err("no answer".into())
        }
    }
}

/// Told once, until it is over.
#[derive(Default)]
struct Trouble {
    is_told: bool,
}

impl Trouble {
    fn tell(&mut self, what: &str, why: &str) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!("{what}: {why}");
        }
    }

    fn is_over(&mut self) {
        self.is_told = false;
    }
}

impl Heartbeat {
    /// Looks and renews again and again.
    async fn beat_all(&mut self) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = Trouble::default();
        for round in 0_u64.. {
            ticks.tick().await;
            let pool = self.pool.clone();
            let beat = ask(&pool, PATIENCE[0], async |connection| {
                self.look(connection).await?;
                if round.is_multiple_of(RENEW_EVERY) {
                    let lanes = self.lanes(Instant::now());
                    workers::renew(connection, &self.identity, &lanes).await?;
                }
                Ok(())
            });
            let end = beat.await;
            self.board.beat();
            match end {
                Ok(()) => trouble.is_over(),
                Err(text) => {
                    trouble.tell("cannot look at what is paused, nor say that this relay is there", &text)
                }
            }
        }
    }

    async fn look(&mut self, connection: &Connection) -> Result<(), tokio_postgres::Error> {
        if self.is_admitted != Some(true) {
            let refusal = mode::admit(connection, self.is_shadow, &self.identity.worker).await?;
            let was_told = self.is_admitted.replace(refusal.is_none()).is_some();
            if let Some(text) = refusal {
                if !was_told {
                    tracing::error!("this relay claims nothing: {text}");
                }
                return Ok(());
            }
        }
        let paused = pauses::paused(connection).await?;
        for operation in Operation::ALL {
            let is_paused = if paused.contains(&operation) { 1.0 } else { 0.0 };
            metrics::gauge!("relay_paused", "operation" => operation.name()).set(is_paused);
        }
        self.board.pause(paused.clone());
        if self.paused != paused {
            let names: Vec<_> = paused.iter().map(|operation| operation.name()).collect();
            let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
            tracing::info!("paused: {names}");
            self.paused = paused;
        }
        Ok(())
    }

    /// What the lanes do, and what each got through in the last minute.
    fn lanes(&mut self, now: Instant) -> Lanes {
        let current = self.board.lanes();
        while self.history.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            self.history.pop_front();
        }
        let earlier = |operation| {
            let first = self.history.front().and_then(|(_, lanes)| lanes.get(&operation));
            first.map_or_else(Counts::default, |lane| lane.counts)
        };
        let floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let report = |operation: Operation| {
            let lane = current.get(&operation);
            let is_configured = self.configured.contains(&operation);
            let idle = if is_configured { LaneState::Idle } else { LaneState::NotConfigured };
            let is_so = |state: &LaneState| *state != LaneState::Paused || self.board.is_paused(operation);
            let counts = lane.map_or_else(Counts::default, |lane| lane.counts);
            LaneReport {
                // Before the first look all lanes wait; this is no pause that anybody has made.
                state: lane.map(|lane| lane.state).filter(is_so).unwrap_or(idle),
                since: lane.map_or(self.identity.started_at, |lane| lane.since),
                counts,
                last_minute: counts.since(earlier(operation)),
                low_water_mark: floors.get(operation.name()).copied().unwrap_or(0),
                failure: lane.and_then(|lane| lane.failure.as_ref()).map(ToString::to_string),
            }
        };
        let lanes =
            Operation::ALL.into_iter().map(|operation| (operation.name().to_owned(), report(operation)));
        let mut lanes: Lanes = lanes.collect();
        lanes.insert(OTHERS.to_owned(), self.others(&floors));
        self.history.push_back((now, current));
        lanes
    }

    /// Operations of newer relays have no lane here, but a mark.
    fn others(&self, floors: &Floors) -> LaneReport {
        LaneReport {
            state: LaneState::NotConfigured,
            since: self.identity.started_at,
            counts: Counts::default(),
            last_minute: Counts::default(),
            low_water_mark: floors.get(OTHERS).copied().unwrap_or(0),
            failure: None,
        }
    }
}

/// The backlog as metrics; None = not known. Operations that this binary does not know are one: a label is no place for whatever
/// the table holds, and one that has gone would keep its last value for ever.
fn publish(backlog: Option<&BTreeMap<String, Backlog>>) {
    let known = Operation::ALL.map(Operation::name);
    let of = |name: &str| backlog.and_then(|backlog| backlog.get(name)).into_iter().collect::<Vec<_>>();
    let others = backlog.into_iter().flatten().filter(|(name, _)| !known.contains(&name.as_str()));
    let others = others.map(|(_, entry)| entry).collect::<Vec<_>>();
    for (operation, entries) in known.map(|name| (name, of(name))).into_iter().chain([("other", others)]) {
        let number = |value: f64| if backlog.is_some() { value } else { f64::NAN };
        let lag = entries.iter().filter_map(|entry| entry.lag_seconds).fold(0.0, f64::max);
        metrics::gauge!("relay_lag_seconds", "operation" => operation).set(number(lag));
        let sum = |count: fn(&Backlog) -> i64| entries.iter().map(|entry| count(entry)).sum::<i64>();
        let states = [
            ("waiting", sum(|entry| entry.waiting)),
            ("due", sum(|entry| entry.due)),
            ("held", sum(|entry| entry.held)),
            ("parked", sum(|entry| entry.parked)),
            ("retrying", sum(|entry| entry.retrying)),
            ("dead", sum(|entry| entry.dead)),
        ];
        for (state, count) in states {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
            let count = number(count as f64);
            metrics::gauge!("relay_backlog", "operation" => operation, "state" => state).set(count);
        }
    }
}
