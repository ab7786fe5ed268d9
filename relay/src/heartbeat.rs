//! One small task of a running relay with one connection: looks at what is paused, says that the relay is there, and measures what
//! waits.

use crate::{
    board::{Board, Counts, LaneEntry, LaneState},
    outbox::{self, Backlog, Floors, OTHERS},
    pauses,
    workers::{self, Identity, LaneReport, Lanes},
};
use deadpool_postgres::{Client as Connection, Pool};
use shared::{
    message::Operation,
    postgres::{abandon, pool_reason, reason},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

/// A pause stops a lane within this and the length of a claim.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The row is renewed every so many looks; `relay status` takes a relay for alive that was there within 30 s.
const RENEW_EVERY: u64 = 5;
/// The backlog is measured every so many looks.
const MEASURE_EVERY: u64 = 15;
/// How long a measurement may walk through the table; a new relay without anybody's marks needs several.
const MEASURE_BUDGET: Duration = Duration::from_millis(500);
/// Nothing of this is worth a wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// Beyond it a shutdown does not wait for the row to go: it will be taken for a crashed relay's, and removed after a day.
const GOODBYE: Duration = Duration::from_secs(1);
/// Rates are those of a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// What the task keeps from look to look.
struct Heartbeat {
    pool: Pool,
    board: Board,
    identity: Identity,
    /// Operations that have a lane here.
    configured: Vec<Operation>,
    floors: Floors,
    /// The counts of the last minute, one entry per renewal.
    history: VecDeque<(Instant, HashMap<Operation, LaneEntry>)>,
    /// So that trouble is told once.
    in_trouble: bool,
}

/// Until the token is cancelled, and takes the relay's row away then. Trouble with Postgres is told once and waited out.
pub async fn run(
    pool: Pool,
    board: Board,
    identity: Identity,
    configured: Vec<Operation>,
    stop: CancellationToken,
) {
    let history = VecDeque::from([(Instant::now(), HashMap::new())]);
    let mut heartbeat =
        Heartbeat { pool, board, identity, configured, floors: Floors::new(), history, in_trouble: false };
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match stop.run_until_cancelled(heartbeat.beat(round)).await {
            Some(Ok(())) => {
                heartbeat.in_trouble = false;
                round += 1;
            }
            Some(Err(text)) => {
                if !std::mem::replace(&mut heartbeat.in_trouble, true) {
                    tracing::warn!("cannot look at what is paused, nor say that this relay is there: {text}");
                }
            }
            None => break,
        }
    }
    let goodbye = async {
        if let Ok(connection) = heartbeat.pool.get().await {
            let _ = workers::leave(&connection, &heartbeat.identity.worker).await;
        }
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

impl Heartbeat {
    async fn beat(&mut self, round: u64) -> Result<(), String> {
        let pool = self.pool.clone();
        let connection = pool.get().await.map_err(|error| pool_reason(&error))?;
        match timeout(PATIENCE, self.look(&connection, round)).await {
            Ok(result) => result.map_err(|error| reason(&error)),
            Err(_) => {
                abandon(connection).await;
                Err("no answer".into())
            }
        }
    }

    async fn look(&mut self, connection: &Connection, round: u64) -> Result<(), tokio_postgres::Error> {
        let paused = pauses::paused(connection).await?;
        for operation in Operation::ALL {
            let is_paused = if paused.contains(&operation) { 1.0 } else { 0.0 };
            metrics::gauge!("relay_paused", "operation" => operation.name()).set(is_paused);
        }
        let names: Vec<_> = paused.iter().map(|operation| operation.name()).collect();
        if self.board.pause(paused) && !(round == 0 && names.is_empty()) {
            tracing::info!(paused = names.join(", "), "what is paused has changed");
        }
        if round.is_multiple_of(MEASURE_EVERY) {
            if round == 0 {
                self.floors = workers::floors(&workers::list(connection).await?);
            }
            let look = outbox::look(connection, &self.floors, MEASURE_BUDGET).await?;
            self.floors = look.floors;
            publish(&look.backlog);
        }
        if round.is_multiple_of(RENEW_EVERY) {
            let lanes = self.lanes(Instant::now());
            workers::renew(connection, &self.identity, &lanes).await?;
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
        let report = |operation: Operation| {
            let lane = current.get(&operation);
            let is_configured = self.configured.contains(&operation);
            let idle = if is_configured { LaneState::Idle } else { LaneState::NotConfigured };
            let counts = lane.map_or_else(Counts::default, |lane| lane.counts);
            LaneReport {
                state: lane.map_or(idle, |lane| lane.state),
                since: lane.map_or(self.identity.started_at, |lane| lane.since),
                counts,
                last_minute: counts.since(earlier(operation)),
                low_water_mark: self.floors.get(operation.name()).copied().unwrap_or(0),
                failure: lane.and_then(|lane| lane.failure.clone()),
            }
        };
        let lanes =
            Operation::ALL.into_iter().map(|operation| (operation.name().to_owned(), report(operation)));
        let mut lanes: Lanes = lanes.collect();
        lanes.insert(OTHERS.to_owned(), self.others());
        self.history.push_back((now, current));
        lanes
    }

    /// Operations of newer relays have no lane here, but a mark.
    fn others(&self) -> LaneReport {
        LaneReport {
            state: LaneState::NotConfigured,
            since: self.identity.started_at,
            counts: Counts::default(),
            last_minute: Counts::default(),
            low_water_mark: self.floors.get(OTHERS).copied().unwrap_or(0),
            failure: None,
        }
    }
}

/// The backlog as metrics.
fn publish(backlog: &BTreeMap<String, Backlog>) {
    for (operation, entry) in backlog {
        metrics::gauge!("relay_lag_seconds", "operation" => operation.clone())
            .set(entry.lag_seconds.unwrap_or(0.0));
        let states = [
            ("waiting", entry.waiting),
            ("due", entry.due),
            ("held", entry.held),
            ("parked", entry.parked),
            ("retrying", entry.retrying),
            ("dead", entry.dead),
        ];
        for (state, count) in states {
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 messages")]
            let count = count as f64;
            metrics::gauge!("relay_backlog", "operation" => operation.clone(), "state" => state).set(count);
        }
    }
}
