//! The table `reconciliation_reports`, and what a reconciliation reads and enqueues in Postgres. Owns their SQL.

use super::plan::Debt;
use crate::outcome::Failure;
use crate::{ledger, outcome::FailureClass};
use jiff::Timestamp;
use serde_json::Value;
use shared::{
    columns::{Typed, column, typed},
    message::{EmailId, Operation},
    outbox::{INSERT, ONCE, trace_of_mail},
    postgres::{AdvisoryLock, Connection},
    process::bounded_error,
};
use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
    time::Duration,
};
use tokio_postgres::{Transaction, types::Json};

/// A page of the ledger in the order of its primary key, which serves it. With $4 only what was written since then: the rest of the
/// table is read all the same, since an index on `applied_at` would cost every update its HOT path.
const PAGE: &str = "
select client_id, entry_key, amount::text, stamp, message_id, email_id from creditor_debts
where (client_id, entry_key) > ($1, $2) and ($4::timestamptz is null or applied_at >= $4)
order by client_id, entry_key limit $3";

/// The rows of these entries. By primary key.
const AGAIN: &str = "
select client_id, entry_key, amount::text, stamp, message_id, email_id
from unnest($1::text[], $2::text[]) as k(client_id, entry_key) join creditor_debts using (client_id, entry_key)";

/// Which of these messages are not finished. Through the unique index on `idempotency_key`.
const UNFINISHED: &str = "
select idempotency_key from outbox_messages where idempotency_key = any($1) and processed_at is null and dead_at is null";

/// The same with the stamps that they would write. A message of that key and another stamp is another mail's, whose number a lost mail
/// had before Postgres was restored.
const ON_THEIR_WAY: &str = "
select idempotency_key, payload ->> 'stamp' from outbox_messages
where idempotency_key = any($1) and processed_at is null and dead_at is null and payload ->> 'stamp' is not null";

/// Which of these entries ($1, $2), by place in the list, the ledger does not have, and their mails ($3) were not erased. By primary keys.
const NOT_IN_LEDGER: &str = "
select place from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality as k(client_id, entry_key, email_id, place)
where not exists (select from creditor_debts d where d.client_id = k.client_id and d.entry_key = k.entry_key)
    and not exists (select from incoming_emails m where m.id = k.email_id and m.text_removed_by = 'erasure')";

/// What the mails say beyond the ledger; an erased one is as good as gone. By primary key.
const MAILS: &str = "select id, from_email, received_at, extracted_data from incoming_emails
where id = any($1) and (text_removed_by is distinct from 'erasure' or extracted_data is not null)";

/// The last runs before $1 that have enqueued repairs, for those that still wait. By primary key, downwards.
const REPAIRING: &str = "
select id from reconciliation_reports where id < $1 and (auto_repaired > 0 or status = 'running' or status = 'failed')
order by id desc limit 20";

/// The repairs of one page, as far as the ledger still has the entries: they may have been erased since. A run enqueues each entry once.
/// The unique index decides; nothing else is locked.
static ENQUEUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
{INSERT}
select $1, r.email_id::text, $2, r.payload, r.key, {}
from unnest($3::bigint[], $4::jsonb[], $5::text[]) as r(email_id, payload, key)
join creditor_debts c on c.client_id = r.payload ->> 'client_id' and c.entry_key = r.payload ->> 'entry_key'
{ONCE}
returning idempotency_key",
        trace_of_mail("r.email_id")
    )
});

/// Two relays that are due at the same moment decide one after the other: a statement of its own, so that the next one sees what the
/// other has committed.
const GATE: &str = "select pg_advisory_xact_lock($1)";

/// Begins a run, unless another relay has begun one of this scope within $2 seconds. A skipped run is tried again after a tenth of the
/// time. Served by `reconciliation_reports_run`.
const BEGIN: &str = "
insert into reconciliation_reports (scope, actor) select $1, 'relay' where not exists (
    select from reconciliation_reports
    where scope = $1 and run_at > now() - case status when 'skipped' then $2::float8 / 10 else $2 end * interval '1 second'
) returning id, run_at";

/// Begins a run that somebody asked for, behind an erasure ($3 = the gate).
const BEGIN_BY: &str = "
with gate as materialized (select pg_advisory_xact_lock($3))
insert into reconciliation_reports (scope, actor) select $1, $2 from gate returning id, run_at";

/// Whether a run is under way. One whose process was killed says so for a day; no run takes an hour.
const RUNNING: &str = "
select exists (select from reconciliation_reports where status = 'running' and run_at > now() - interval '1 hour')";

/// By primary key.
const END: &str = "
update reconciliation_reports set completed_at = now(), records_checked = $2, mismatches_found = $3, auto_repaired = $4,
    failed_repairs = $5, details = $6, status = $7, error_message = $8
where id = $1 and status = 'running' returning completed_at";

/// Runs whose process is gone. No run takes a day. Served by `reconciliation_reports_run`; few rows are running.
const ABANDONED: &str = "
update reconciliation_reports set status = 'failed', completed_at = now(), error_message = 'the process ended before the run did'
where status = 'running' and run_at < now() - interval '1 day'";

/// Reports that nobody will ask for any more; some 300 are written a day. Served by `reconciliation_reports_run`.
const REMOVE: &str = "delete from reconciliation_reports where run_at < now() - interval '90 days'";

/// What a run checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole ledger.
    All,
    /// What was written lately.
    Recent(Duration),
    /// What was written since then.
    Since(Timestamp),
}

impl Scope {
    /// The name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::All => "all",
            Scope::Recent(_) => "recent",
            Scope::Since(_) => "since",
        }
    }

    /// From when on; None = from the beginning.
    pub(super) fn since(self) -> Option<Timestamp> {
        match self {
            Scope::All => None,
            Scope::Recent(window) => Timestamp::now().checked_sub(window).ok(),
            Scope::Since(since) => Some(since),
        }
    }
}

/// A run that has begun.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Its row.
    pub id: i64,
    /// When it began.
    pub run_at: Timestamp,
}

/// How a run ended.
pub(super) struct Ending<'a> {
    pub(super) checked: i32,
    pub(super) mismatches: i32,
    pub(super) repaired: i32,
    pub(super) failed: i32,
    pub(super) details: &'a Value,
    pub(super) status: &'static str,
    pub(super) error: Option<&'a str>,
}

/// Begins the run of this scope that is due every `every`; None = another relay has it, or it is not due.
///
/// # Errors
/// The statement's.
pub async fn begin_if_due(
    connection: &mut Connection,
    scope: Scope,
    every: Duration,
) -> Result<Option<Run>, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    transaction.execute_typed(GATE, &typed(&[&AdvisoryLock::Reconciliation.number()])).await?;
    transaction.execute_typed(ABANDONED, &[]).await?;
    let row = transaction.query_typed_opt(BEGIN, &typed(&[&scope.name(), &every.as_secs_f64()])).await?;
    transaction.commit().await?;
    Ok(row.map(|row| Run { id: row.get(0), run_at: row.get(1) }))
}

/// Begins a run for somebody.
///
/// # Errors
/// The statement's.
pub async fn begin(connection: &Connection, scope: Scope, actor: &str) -> Result<Run, tokio_postgres::Error> {
    let gate = AdvisoryLock::Reconciliation.number();
    let row = connection.query_typed_one(BEGIN_BY, &typed(&[&scope.name(), &actor, &gate])).await?;
    Ok(Run { id: row.get(0), run_at: row.get(1) })
}

/// Lets no run begin until the end of this transaction; whether one is under way.
///
/// # Errors
/// The statement's.
pub async fn hold_off(transaction: &Transaction<'_>) -> Result<bool, tokio_postgres::Error> {
    transaction.execute_typed(GATE, &typed(&[&AdvisoryLock::Reconciliation.number()])).await?;
    Ok(transaction.query_typed_one(RUNNING, &[]).await?.get(0))
}

/// Ends a run; when.
pub(super) async fn end(
    connection: &Connection,
    run: Run,
    ending: &Ending<'_>,
) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    let error = ending.error.map(bounded_error);
    let parameters: [&dyn Typed; 8] = [
        &run.id,
        &ending.checked,
        &ending.mismatches,
        &ending.repaired,
        &ending.failed,
        &Json(ending.details),
        &ending.status,
        &error,
    ];
    Ok(connection.query_typed_opt(END, &typed(&parameters)).await?.map(|row| row.get(0)))
}

/// Ends a run whose process stops.
pub(super) async fn stopped(connection: &Connection, run: Run) -> Result<(), tokio_postgres::Error> {
    let (details, error) = (Value::Null, Some("the relay was stopped"));
    let ending = Ending {
        checked: 0,
        mismatches: 0,
        repaired: 0,
        failed: 0,
        details: &details,
        status: "failed",
        error,
    };
    end(connection, run, &ending).await.map(drop)
}

/// Removes reports of more than 90 days.
///
/// # Errors
/// The statement's.
pub async fn remove_old(connection: &Connection) -> Result<(), tokio_postgres::Error> {
    connection.execute_typed(REMOVE, &[]).await.map(drop)
}

/// The next page of the ledger after this key.
pub(super) async fn page(
    connection: &Connection,
    after: (&str, &str),
    limit: i64,
    since: Option<Timestamp>,
) -> Result<Vec<Debt>, Failure> {
    let rows = connection.query_often(PAGE, &typed(&[&after.0, &after.1, &limit, &since])).await;
    Ok(rows.map_err(|error| ledger::unreadable(&error))?.iter().filter_map(debt).collect())
}

/// These rows as they are now.
pub(super) async fn again(connection: &Connection, debts: &[Debt]) -> Result<Vec<Debt>, Failure> {
    let (clients, entries): (Vec<&str>, Vec<&str>) =
        debts.iter().map(|debt| (debt.client_id.as_str(), debt.entry_key.as_str())).unzip();
    let rows = connection.query_typed(AGAIN, &typed(&[&clients, &entries])).await;
    Ok(rows.map_err(|error| ledger::unreadable(&error))?.iter().filter_map(debt).collect())
}

fn debt(row: &tokio_postgres::Row) -> Option<Debt> {
    Some(Debt {
        client_id: row.get(0),
        entry_key: row.get(1),
        amount: row.get::<_, &str>(2).parse().ok()?,
        stamp: row.get::<_, i64>(3).try_into().ok()?,
        message_id: row.get(4),
        email_id: row.get(5),
    })
}

/// Which of these messages are still on their way, by their keys.
pub(super) async fn unfinished(connection: &Connection, keys: &[String]) -> Result<HashSet<String>, Failure> {
    let rows = connection
        .query_typed(UNFINISHED, &typed(&[&keys]))
        .await
        .map_err(|error| ledger::unreadable(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Those of these messages that are still on their way, by key, with the stamps that they write.
pub(super) async fn on_their_way(
    connection: &Connection,
    keys: &[String],
) -> Result<HashMap<String, String>, Failure> {
    let rows = connection
        .query_typed(ON_THEIR_WAY, &typed(&[&keys]))
        .await
        .map_err(|error| ledger::unreadable(&error))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// An entry, and the mail of its mark.
pub(super) type MarkedBy<'a> = (&'a str, &'a str, Option<EmailId>);

/// Those that Postgres knows nothing of, by their places in the list, the first of which is 1.
pub(super) async fn not_in_ledger(
    connection: &Connection,
    marked: &[MarkedBy<'_>],
) -> Result<HashSet<i64>, Failure> {
    let marked: Vec<&MarkedBy<'_>> = marked.iter().collect();
    let columns = [column(&marked, |by| by.0), column(&marked, |by| by.1), column(&marked, |by| by.2)];
    let parameters: Vec<_> = columns.iter().map(|column| column.parameter()).collect();
    let rows = connection.query_typed(NOT_IN_LEDGER, &parameters).await;
    Ok(rows.map_err(|error| ledger::unreadable(&error))?.iter().map(|row| row.get(0)).collect())
}

/// What a repair takes from its mail.
pub(super) struct MailPart {
    pub(super) email_id: EmailId,
    pub(super) from_email: String,
    pub(super) received_at: Timestamp,
    pub(super) extracted: Option<Value>,
}

pub(super) async fn mails(connection: &Connection, ids: &[EmailId]) -> Result<Vec<MailPart>, Failure> {
    let rows =
        connection.query_typed(MAILS, &typed(&[&ids])).await.map_err(|error| ledger::unreadable(&error))?;
    let read = |row: &tokio_postgres::Row| MailPart {
        email_id: row.get(0),
        from_email: row.get(1),
        received_at: row.get(2),
        extracted: row.get(3),
    };
    Ok(rows.iter().map(read).collect())
}

/// A repair as a message.
pub(super) struct Repair {
    pub(super) email_id: EmailId,
    pub(super) payload: Value,
    pub(super) key: String,
}

/// The ids of earlier runs whose repairs may still wait.
pub(super) async fn repairing_runs(connection: &Connection, before: i64) -> Result<Vec<i64>, Failure> {
    let rows = connection
        .query_typed(REPAIRING, &typed(&[&before]))
        .await
        .map_err(|error| ledger::unreadable(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Enqueues repairs; the keys of those that are. One that the table refuses does not keep the others from it.
pub(super) async fn enqueue(connection: &Connection, repairs: &[Repair]) -> Result<HashSet<String>, Failure> {
    let mut enqueued = HashSet::new();
    let mut parts = vec![repairs];
    while let Some(part) = parts.pop() {
        match enqueue_at_once(connection, part).await {
            Ok(keys) => enqueued.extend(keys),
            Err(failure) if failure.class == FailureClass::Permanent => {
                tracing::warn!(%failure, repairs = part.len(), "repairs are refused: trying each half");
                if part.len() > 1 {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([first, second]);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(enqueued)
}

async fn enqueue_at_once(connection: &Connection, repairs: &[Repair]) -> Result<Vec<String>, Failure> {
    let operation = Operation::CreditorDebtUpdate;
    let ids: Vec<EmailId> = repairs.iter().map(|repair| repair.email_id).collect();
    let payloads: Vec<Json<&Value>> = repairs.iter().map(|repair| Json(&repair.payload)).collect();
    let keys: Vec<&str> = repairs.iter().map(|repair| repair.key.as_str()).collect();
    let parameters: [&dyn Typed; 5] =
        [&operation.aggregate_type(), &operation.name(), &ids, &payloads, &keys];
    let rows = connection.query_typed(ENQUEUE.as_str(), &typed(&parameters)).await.map_err(|error| {
        // A value or a constraint of one of them, or Postgres itself.
        let is_theirs = error.code().is_some_and(|code| matches!(code.code().get(..2), Some("22" | "23")));
        let class = if is_theirs { FailureClass::Permanent } else { FailureClass::SinkDown };
        Failure::new(class, format!("Postgres: {}", shared::postgres::reason(&error)))
    })?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
