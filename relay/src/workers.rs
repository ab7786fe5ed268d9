//! The relays that are alive: owns `relay_workers`. Each relay renews its own row (`heartbeat.rs`); `relay status` reads all.

use crate::board::{Counts, LaneState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::message::MessageId;
use shared::{
    columns::{Typed, typed},
    postgres::Connection,
};
use std::collections::BTreeMap;
use tokio_postgres::{
    Row,
    types::{Json, Type},
};

/// By primary key; room on the page keeps it a HOT update.
const RENEW: &str = "
insert into relay_workers (worker, host, version, started_at, lanes) values ($1, $2, $3, $4, $5)
on conflict (worker) do update set host = excluded.host, version = excluded.version, started_at = excluded.started_at,
    seen_at = now(), lanes = excluded.lanes";

/// By primary key.
const LEAVE: &str = "delete from relay_workers where worker = $1";

/// A row per relay of the last day.
const LIST: &str = "
select worker, host, version, started_at, seen_at, seen_at > now() - interval '30 seconds',
    greatest(extract(epoch from seen_at - started_at), 0)::float8, lanes
from relay_workers order by started_at, worker";

/// What stood still for a day. The table has a row per relay.
const REMOVE: &str = "delete from relay_workers where seen_at < now() - interval '1 day'";

/// What a lane does, as `relay_workers.lanes` keeps it by operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// What it is doing.
    pub state: LaneState,
    /// Since when.
    pub since: Timestamp,
    /// Since the relay began.
    #[serde(flatten)]
    pub counts: Counts,
    /// In the last minute, or since the relay began if that is shorter.
    #[serde(default)]
    pub last_minute: Counts,
    /// No hot message of the operation was waiting below this id when the relay looked last.
    #[serde(default)]
    pub low_water_mark: MessageId,
    /// Why its breaker is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// The lanes of a relay, by operation.
pub type Lanes = BTreeMap<String, LaneReport>;

/// Who a relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `host:pid`, as in `outbox_messages.claimed_by`.
    pub worker: String,
    /// Its machine, container or pod.
    pub host: String,
    /// When it began.
    pub started_at: Timestamp,
}

/// The version that this build is.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Identity {
    /// This process, as of now.
    #[must_use]
    pub fn of_this_process() -> Identity {
        let host = host();
        Identity { worker: format!("{host}:{}", std::process::id()), host, started_at: Timestamp::now() }
    }
}

/// systemd sets no HOSTNAME, so the kernel is asked too.
fn host() -> String {
    let named = |name: String| Some(name.trim().to_owned()).filter(|name| !name.is_empty());
    std::env::var("HOSTNAME")
        .ok()
        .and_then(named)
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok().and_then(named))
        .unwrap_or_else(|| "relay".into())
}

/// A relay, as the table knows it.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// `host:pid`.
    pub worker: String,
    /// Its machine, container or pod.
    pub host: String,
    /// The version of its build.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it was there last.
    pub seen_at: Timestamp,
    /// Whether that is at most 30 s ago. A clean stop takes the row away, so one that is not alive has crashed or cannot reach Postgres.
    pub alive: bool,
    /// From its beginning until it was there last.
    pub uptime_seconds: f64,
    /// Its lanes by operation; empty if a newer relay writes them otherwise.
    pub lanes: Lanes,
}

/// Says that this relay is there, and what its lanes do.
///
/// # Errors
/// The statement's.
pub async fn renew(
    connection: &Connection,
    identity: &Identity,
    lanes: &Lanes,
) -> Result<(), tokio_postgres::Error> {
    let Identity { worker, host, started_at } = identity;
    let parameters: [&dyn Typed; 5] = [worker, host, &VERSION, started_at, &Json(lanes)];
    connection.query_often(RENEW, &typed(&parameters)).await?;
    Ok(())
}

/// Takes a relay's row away.
///
/// # Errors
/// The statement's.
pub async fn leave(connection: &Connection, worker: &str) -> Result<(), tokio_postgres::Error> {
    connection.query_typed(LEAVE, &[(&worker, Type::TEXT)]).await.map(drop)
}

/// Every relay that was there during the last day, the oldest first.
///
/// # Errors
/// The statement's.
pub async fn list(connection: &Connection) -> Result<Vec<Worker>, tokio_postgres::Error> {
    let rows = connection.query_typed(LIST, &[]).await?;
    let read = |row: &Row| Worker {
        worker: row.get(0),
        host: row.get(1),
        version: row.get(2),
        started_at: row.get(3),
        seen_at: row.get(4),
        alive: row.get(5),
        uptime_seconds: row.get(6),
        lanes: serde_json::from_value(row.get(7)).unwrap_or_default(),
    };
    Ok(rows.iter().map(read).collect())
}

/// Removes the rows of relays that have not been there for a day.
///
/// # Errors
/// The statement's.
pub async fn remove_old(connection: &Connection) -> Result<(), tokio_postgres::Error> {
    connection.query_typed(REMOVE, &[]).await.map(drop)
}

/// Where a look at the backlog may begin, by what the relays have seen: below the highest mark of an operation nothing waits.
#[must_use]
pub fn floors(workers: &[Worker]) -> BTreeMap<String, MessageId> {
    let mut floors = BTreeMap::new();
    for (operation, lane) in workers.iter().flat_map(|worker| &worker.lanes) {
        let floor: &mut MessageId = floors.entry(operation.clone()).or_default();
        *floor = (*floor).max(lane.low_water_mark);
    }
    floors
}
