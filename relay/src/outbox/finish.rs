//! The end of a batch: one statement for everything it came to, halved where the database refuses it or holds its rows locked.

use super::{Claim, Finished, Next};
use crate::{
    ledger::{Decision, EmailChange, INSERT_DECISIONS, LedgerRow, UPDATE_EMAILS, UPSERT_DEBTS},
    outcome::{Failure, FailureClass, Transition},
};
use shared::{
    columns::{Column, column},
    message::MessageId,
    outbox::{INSERT, ONCE},
    postgres::Connection,
    process::bounded_error,
};
use std::{collections::HashSet, sync::LazyLock, time::Duration};
use tokio_postgres::types::Json;

/// One statement for everything that a batch came to, column by column: $1 to $7 = transitions, then mails, ledger, decisions, and
/// from $42 on the next messages; $48 = the messages' beginnings. The outbox rows go by primary key; a success changes no indexed column of theirs, so it stays a HOT update.
static FINISH: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with settings as materialized (
    select set_config('lock_timeout', '200ms', true)
), fenced as (
    update outbox_messages o set
        claim_count = o.claim_count + 1, unfinished_claims = 0, claimed_until = null, claimed_by = null,
        processed_at = case r.transition when 'done' then now() end,
        outcome = r.outcome,
        dead_at = case r.transition when 'dead' then now() end,
        deferred = case when r.transition in ('retry', 'parked', 'postponed') then true when r.transition = 'given_back'
            then o.deferred else false end,
        available_at = case r.transition when 'retry' then now() + (1 + random()) / 2 * r.delay_ms * interval '1 millisecond'
            when 'postponed' then now() + random() * r.delay_ms * interval '1 millisecond'
            when 'parked' then now() + r.delay_ms * interval '1 millisecond' else o.available_at end,
        retry_count = o.retry_count + (r.transition in ('retry', 'dead'))::int,
        error_class = case r.transition when 'given_back' then coalesce(r.error_class, o.error_class) else r.error_class end,
        error_message = case r.transition when 'given_back' then coalesce(r.error_message, o.error_message)
            else r.error_message end,
        first_missing_at = case r.error_class when 'target_missing' then coalesce(o.first_missing_at, now())
            else o.first_missing_at end
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $48::timestamptz[])
        as r(id, claim_count, transition, outcome, error_class, error_message, delay_ms, created_at), settings
    where o.id = r.id and o.claim_count = r.claim_count and o.created_at = r.created_at and o.processed_at is null and o.dead_at is null
    returning o.id, o.traceparent
),{UPDATE_EMAILS},{UPSERT_DEBTS},{INSERT_DECISIONS},
next as (
    {INSERT}
    select n.aggregate_type, n.aggregate_id, n.operation, n.payload, n.idempotency_key, fenced.traceparent
    from unnest($42::bigint[], $43::text[], $44::text[], $45::text[], $46::jsonb[], $47::text[])
        as n(message_id, aggregate_type, aggregate_id, operation, payload, idempotency_key)
    join fenced on fenced.id = n.message_id
    {ONCE}
)
select id from fenced"
    )
});

/// Lets messages go whose finish does not get its locks: touches this table alone. Nothing is counted; they wait a little behind
/// the others.
const RELEASE: &str = "
update outbox_messages o set claim_count = o.claim_count + 1, unfinished_claims = 0, claimed_until = null, claimed_by = null,
    deferred = true, available_at = now() + random() * interval '10 seconds'
from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) as r(id, claim_count, created_at)
where o.id = r.id and o.claim_count = r.claim_count and o.created_at = r.created_at and o.processed_at is null and o.dead_at is null
returning o.id";

/// A transition as the columns of [`FINISH`].
struct TransitionRow<'a> {
    id: MessageId,
    claim_count: i64,
    transition: &'static str,
    outcome: Option<&'static str>,
    failure: Option<&'a Failure>,
    delay_ms: Option<i64>,
}

impl TransitionRow<'_> {
    fn of(finished: &Finished) -> TransitionRow<'_> {
        let milliseconds = |delay: &Duration| i64::try_from(delay.as_millis()).ok();
        let (transition, outcome, failure, delay_ms) = match &finished.transition {
            Transition::Done(outcome) => ("done", Some(outcome.name()), None, None),
            Transition::Retry(delay, failure) => ("retry", None, Some(failure), milliseconds(delay)),
            Transition::Parked(delay, failure) => ("parked", None, Some(failure), milliseconds(delay)),
            Transition::Postponed(delay, failure) => ("postponed", None, Some(failure), milliseconds(delay)),
            Transition::GivenBack(failure) => ("given_back", None, failure.as_ref(), None),
            Transition::Dead(failure) => ("dead", None, Some(failure), None),
        };
        let Claim { id, claim_count, .. } = finished.claim;
        TransitionRow { id, claim_count, transition, outcome, failure, delay_ms }
    }

    fn columns<'a>(rows: &[&'a TransitionRow<'_>]) -> Vec<Column<'a>> {
        vec![
            column(rows, |row| row.id),
            column(rows, |row| row.claim_count),
            column(rows, |row| row.transition),
            column(rows, |row| row.outcome),
            column(rows, |row| row.failure.map(|failure| failure.class.name())),
            column(rows, |row| row.failure.map(|failure| bounded_error(&failure.text))),
            column(rows, |row| row.delay_ms),
        ]
    }
}

impl Next {
    fn columns<'a>(rows: &[&'a Next]) -> Vec<Column<'a>> {
        vec![
            column(rows, |row| row.message_id),
            column(rows, |row| row.aggregate_type),
            column(rows, |row| row.aggregate_id.as_str()),
            column(rows, |row| row.operation),
            column(rows, |row| Json(&row.payload)),
            column(rows, |row| row.idempotency_key.as_str()),
        ]
    }
}

/// What a finish achieved.
#[derive(Debug, Default)]
pub struct Receipt {
    /// The messages whose end was committed.
    pub committed: HashSet<MessageId>,
    /// Those of them that the database refused to finish as asked, and that are dead instead.
    pub refused: HashSet<MessageId>,
    /// Those whose finish did not get its locks, and that wait instead.
    pub released: HashSet<MessageId>,
}

/// Commits what a batch came to, into the receipt. A message that is not among its `committed` had lost its lease: somebody else
/// has it. What is not known to be committed stays in `batch` and may be tried again: what was committed is fenced off. At most
/// `most` messages go into one statement.
///
/// # Errors
/// The statement's.
pub async fn finish(
    connection: &Connection,
    batch: &mut Vec<Finished>,
    most: usize,
    receipt: &mut Receipt,
) -> Result<(), tokio_postgres::Error> {
    // How many from the end are tried together: one bad row never holds the others, so a refused part is halved until it is alone.
    let mut size = most;
    while !batch.is_empty() {
        let start = batch.len() - size.clamp(1, batch.len());
        let part = batch.get(start..).unwrap_or_default();
        match finish_at_once(connection, part).await {
            Ok(ids) => {
                receipt.committed.extend(ids);
                batch.truncate(start);
                size = most;
            }
            Err(error) if is_conflict(&error) => {}
            Err(error) if (is_refusal(&error) || is_locked(&error)) && part.len() > 1 => {
                size = part.len() / 2
            }
            Err(error) if is_locked(&error) => {
                receipt.released.extend(release(connection, part).await?);
                batch.truncate(start);
                size = most;
            }
            Err(error) if is_refusal(&error) && !is_buried(part) => {
                let failure = Failure::new(FailureClass::FinishRefused, shared::postgres::reason(&error));
                if let Some(refused) = batch.pop() {
                    receipt.refused.insert(refused.id());
                    batch.push(refused.claim.finish(Transition::Dead(failure), 0));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lets these go without their results; returns those that were still ours. A message that was let go is done again later, which
/// the fence makes harmless.
///
/// # Errors
/// The statement's.
pub async fn release(
    connection: &Connection,
    batch: &[Finished],
) -> Result<Vec<MessageId>, tokio_postgres::Error> {
    let claims: Vec<&Claim> = batch.iter().map(|finished| &finished.claim).collect();
    let columns = [
        column(&claims, |claim| claim.id),
        column(&claims, |claim| claim.claim_count),
        column(&claims, |claim| claim.created_at),
    ];
    let parameters: Vec<_> = columns.iter().map(|column| column.parameter()).collect();
    let rows = connection.query_typed(RELEASE, &parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn finish_at_once(
    connection: &Connection,
    batch: &[Finished],
) -> Result<Vec<MessageId>, tokio_postgres::Error> {
    let transitions: Vec<_> = batch.iter().map(TransitionRow::of).collect();
    let columns: Vec<Column<'_>> = [
        TransitionRow::columns(&transitions.iter().collect::<Vec<_>>()),
        EmailChange::columns(&rows_of(batch, |finished| finished.email.as_ref())),
        LedgerRow::columns(&rows_of(batch, |finished| finished.ledger.as_ref())),
        Decision::columns(&rows_of(batch, |finished| finished.decision.as_ref())),
        Next::columns(&rows_of(batch, |finished| finished.next.as_ref())),
        vec![column(&rows_of(batch, |finished| Some(&finished.claim)), |claim| claim.created_at)],
    ]
    .into_iter()
    .flatten()
    .collect();
    let parameters: Vec<_> = columns.iter().map(|column| column.parameter()).collect();
    let rows = connection.query_often(&FINISH, &parameters).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

fn rows_of<Row>(batch: &[Finished], row: impl Fn(&Finished) -> Option<&Row>) -> Vec<&Row> {
    batch.iter().filter_map(row).collect()
}

/// Deadlock or serialization: the same statement passes the next time.
fn is_conflict(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code(), "40P01" | "40001"))
}

/// A value or a constraint: the same row will be refused each time.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| matches!(code.code().get(..2), Some("21" | "22" | "23")))
}

/// Somebody holds a lock on a mail, a ledger row or a table.
fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}

fn is_buried(part: &[Finished]) -> bool {
    part.iter().all(|finished| {
        matches!(&finished.transition, Transition::Dead(failure) if failure.class == FailureClass::FinishRefused)
    })
}
