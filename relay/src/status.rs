//! `relay status`: what waits, who works, what is in the way. Reads Postgres only, changes nothing, and stays cheap however long the
//! outbox is.

mod attention;

use crate::{
    board::Counts,
    mode,
    outbox::{self, Backlog, Floors},
    pauses::{self, Pause},
    workers::{self, Worker},
};
pub use attention::{Attention, attention};
use jiff::Timestamp;
use serde::Serialize;
use shared::message::MessageId;
use shared::postgres::Connection;
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::Row;

/// What keeps vacuum from removing old row versions for more than five minutes: sessions of this database, prepared transactions,
/// replication slots. Reads memory, a row per session. A role without `pg_read_all_stats` sees its own sessions only.
const XMIN_HOLDERS: &str = "
select 'session', coalesce(nullif(application_name, ''), backend_type, '?') || ' (' || coalesce(state, '-') || ', pid ' || pid || ')',
    extract(epoch from now() - xact_start)::float8 as seconds
from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type <> 'autovacuum worker' and (backend_xmin is not null or backend_xid is not null)
    and xact_start < now() - interval '5 minutes'
union all
select 'prepared transaction', gid, extract(epoch from now() - prepared)::float8
from pg_prepared_xacts where database = current_database() and prepared < now() - interval '5 minutes'
union all
select 'replication slot', slot_name || case when active then ' (active)' else ' (inactive)' end, null
from pg_replication_slots where xmin is not null and not active
order by seconds desc nulls last limit 20";

/// The last run over everything that has ended, else the last of any kind: a look at what is recent says little about the rest. Walks
/// `reconciliation_reports_run` down to it, some dozen rows.
const RECONCILIATION: &str = "
select id, run_at, completed_at, scope, status, records_checked, mismatches_found, auto_repaired, failed_repairs, error_message
from reconciliation_reports where id = coalesce(
    (select id from reconciliation_reports where scope = 'all' and status <> 'running' order by run_at desc, id desc limit 1),
    (select id from reconciliation_reports order by run_at desc, id desc limit 1))";

/// What `relay status --json` prints; with `--watch` one such object per line, or `{"at", "error"}` where Postgres is away.
#[derive(Debug, Serialize)]
pub struct Status {
    /// When.
    pub at: Timestamp,
    /// What an operator should look at, the most urgent first; empty = all is well.
    pub attention: Vec<Attention>,
    /// Every operation, by name.
    pub operations: BTreeMap<String, OperationStatus>,
    /// The relays of the last day, the oldest first.
    pub workers: Vec<Worker>,
    /// What keeps vacuum from its work for more than five minutes.
    pub hurts_vacuum: Vec<XminHolder>,
    /// The last run of the reconciliation over everything, else the last of any kind.
    pub last_reconciliation: Option<Reconciliation>,
    #[serde(skip)]
    floors: Floors,
}

/// One operation.
#[derive(Debug, Default, Serialize)]
pub struct OperationStatus {
    /// What waits.
    #[serde(flatten)]
    pub backlog: Backlog,
    /// What the living relays got through in the last minute.
    pub last_minute: Counts,
    /// Living relays that have a lane for it.
    pub relays: usize,
    /// Who has paused it, since when, and why.
    pub paused: Option<Pause>,
}

/// Something that old row versions are kept for.
#[derive(Debug, Serialize)]
pub struct XminHolder {
    /// session, prepared transaction, or replication slot.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// For how long; None = not known.
    pub seconds: Option<f64>,
}

/// One run of the reconciliation.
#[derive(Debug, Serialize)]
pub struct Reconciliation {
    /// Its report.
    pub id: i64,
    /// When it began.
    pub run_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// all, recent, or since.
    pub scope: String,
    /// running, completed, failed, or skipped.
    pub status: String,
    /// Entries compared.
    pub records_checked: i32,
    /// Of these, different.
    pub mismatches_found: i32,
    /// Repairs enqueued.
    pub auto_repaired: i32,
    /// Repairs that could not be.
    pub failed_repairs: i32,
    /// Why it failed or was skipped.
    pub error_message: Option<String>,
}

impl Status {
    /// Where the next look may begin.
    #[must_use]
    pub fn floors(&self) -> &Floors {
        &self.floors
    }
}

/// One look. `floors`: where the look before it ended; the relays' marks are taken where they are higher. `budget`: how long the walk
/// through the outbox may take; counts that it did not come to the end of are marked.
///
/// # Errors
/// The statements'.
pub async fn look(
    connection: &Connection,
    floors: &Floors,
    budget: Duration,
) -> Result<Status, tokio_postgres::Error> {
    let workers = workers::list(connection).await?;
    let floors = higher(floors.clone(), workers::floors(&workers));
    let found = outbox::look(connection, &floors, budget).await?;
    let mut operations: BTreeMap<String, OperationStatus> = found
        .backlog
        .into_iter()
        .map(|(name, backlog)| (name, OperationStatus { backlog, ..OperationStatus::default() }))
        .collect();
    for worker in workers.iter().filter(|worker| worker.alive) {
        for (name, lane) in &worker.lanes {
            if let Some(operation) = operations.get_mut(name).filter(|_| lane.state.is_served()) {
                operation.relays += 1;
                operation.last_minute = operation.last_minute.plus(lane.last_minute);
            }
        }
    }
    for pause in pauses::list(connection).await? {
        let name = pause.operation.clone();
        operations.entry(name).or_default().paused = Some(pause);
    }
    let holders = connection.query_typed(XMIN_HOLDERS, &[]).await?;
    let holder = |row: &Row| XminHolder { kind: row.get(0), name: row.get(1), seconds: row.get(2) };
    let report = connection.query_typed(RECONCILIATION, &[]).await?;
    let mut status = Status {
        at: Timestamp::now(),
        attention: Vec::new(),
        operations,
        workers,
        hurts_vacuum: holders.iter().map(holder).collect(),
        last_reconciliation: report.first().map(reconciliation),
        floors: found.floors,
    };
    status.attention = attention(&status);
    if mode::is_shadow(connection).await? == Some(true) {
        let what =
            "a shadow's database: nothing of it is written to MongoDB, and \"synced\" means it would be";
        let command = Some("relay audit --shadow".to_owned());
        status.attention.insert(0, Attention { what: what.into(), command });
    }
    Ok(status)
}

fn higher(mut floors: Floors, others: BTreeMap<String, MessageId>) -> Floors {
    for (name, floor) in others {
        let known = floors.entry(name).or_insert(floor);
        *known = (*known).max(floor);
    }
    floors
}

fn reconciliation(row: &Row) -> Reconciliation {
    Reconciliation {
        id: row.get(0),
        run_at: row.get(1),
        completed_at: row.get(2),
        scope: row.get(3),
        status: row.get(4),
        records_checked: row.get(5),
        mismatches_found: row.get(6),
        auto_repaired: row.get(7),
        failed_repairs: row.get(8),
        error_message: row.get(9),
    }
}
