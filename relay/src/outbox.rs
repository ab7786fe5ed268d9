//! The messages' rows: claim, finish, and every other change of a message after its insertion.
//!
//! A claim is a value; its row changes only through the finish, which names the claim count it was given. A row that has moved on
//! (the lease ended, somebody else claimed it) is not touched, and nothing else of that message is written either.

mod low_water_mark;

use crate::{
    columns::{Column, column},
    ledger::{Decision, EmailChange, INSERT_DECISIONS, LedgerRow, UPDATE_EMAILS, UPSERT_DEBTS},
    outcome::{Failure, FailureClass, Outcome, Past, Transition, decide},
};
use deadpool_postgres::Client as Connection;
use low_water_mark::Found;
pub use low_water_mark::LowWaterMark;
use serde::de::DeserializeOwned;
use shared::{
    message::{EmailId, MessageId, Operation, Revision},
    outbox::{INSERT, ONCE},
    process::bounded_error,
};
use std::{
    collections::HashSet,
    sync::LazyLock,
    time::{Duration, Instant},
};
use tokio_postgres::types::{Json, ToSql, Type};

/// Takes up to $4 messages of one operation. Hot ones walk the primary key over the ids $2 to $3; deferred ones that are due have
/// `outbox_messages_deferred` and take at most a quarter of the batch. Each part is MATERIALIZED, else the planner may run it again
/// and ignore its limit. Locks rows in that order, skipping those that others hold, so claims never wait for each other. A message
/// with $7 unfinished claims is taken alone. Always returns a row, with the highest id of the table.
const CLAIM: &str = "
with due as materialized (
    select id, unfinished_claims from outbox_messages
    where deferred and operation = $1 and available_at <= now() and processed_at is null and dead_at is null
        and (claimed_until is null or claimed_until <= now())
    order by available_at limit greatest($4::bigint / 4, 1) for update skip locked
), hot as materialized (
    select id, unfinished_claims from outbox_messages
    where id >= $2 and id < $3 and operation = $1 and not deferred and available_at <= now()
        and processed_at is null and dead_at is null and (claimed_until is null or claimed_until <= now())
    order by id limit $4::bigint - (select count(*) from due) for update skip locked
), found as materialized (
    select *, false as is_hot from due union all select *, true from hot
), claimed as (
    update outbox_messages o set claimed_until = now() + $5 * interval '1 millisecond', claimed_by = $6,
        claim_count = o.claim_count + 1, unfinished_claims = o.unfinished_claims + 1
    from found where o.id = found.id
        and coalesce(o.id = (select min(id) from found where unfinished_claims >= $7), true)
    returning o.id, o.claim_count, o.aggregate_id, o.payload::text, o.retry_count, o.max_retries,
        extract(epoch from now() - o.first_missing_at)::float8, o.unfinished_claims, found.is_hot
)
select claimed.*, highest.id from (select coalesce(max(id), 0) as id from outbox_messages) highest left join claimed on true";

/// The lowest id of the table; retention has removed what was below.
const LOWEST: &str = "select coalesce(min(id), 0) from outbox_messages";

/// One statement for everything that a batch came to, column by column: $1 to $7 = transitions, then mails, ledger, decisions, and
/// from $36 on the next messages. The outbox rows go by primary key; a success changes no indexed column of theirs, so it stays a HOT update.
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
        available_at = case when r.transition in ('retry', 'postponed')
            then now() + random() * r.delay_ms * interval '1 millisecond' when r.transition = 'parked' then now() + r.delay_ms * interval '1 millisecond' else o.available_at end,
        retry_count = o.retry_count + (r.transition in ('retry', 'dead'))::int,
        error_class = case r.transition when 'given_back' then coalesce(r.error_class, o.error_class) else r.error_class end,
        error_message = case r.transition when 'given_back' then coalesce(r.error_message, o.error_message)
            else r.error_message end,
        first_missing_at = case r.error_class when 'target_missing' then coalesce(o.first_missing_at, now())
            else o.first_missing_at end
    from unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
        as r(id, claim_count, transition, outcome, error_class, error_message, delay_ms), settings
    where o.id = r.id and o.claim_count = r.claim_count and o.processed_at is null and o.dead_at is null
    returning o.id, o.traceparent
),{UPDATE_EMAILS},{UPSERT_DEBTS},{INSERT_DECISIONS},
next as (
    {INSERT}
    select n.aggregate_type, n.aggregate_id, n.operation, n.payload, n.idempotency_key, fenced.traceparent
    from unnest($36::bigint[], $37::text[], $38::text[], $39::text[], $40::jsonb[], $41::text[])
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
from unnest($1::bigint[], $2::bigint[]) as r(id, claim_count)
where o.id = r.id and o.claim_count = r.claim_count and o.processed_at is null and o.dead_at is null
returning o.id";

/// A message that this process holds until its lease ends.
#[derive(Debug)]
pub struct Claim {
    /// Its id.
    pub id: MessageId,
    /// The mail it is about.
    pub email_id: EmailId,
    /// Its payload as JSON, not yet decoded.
    payload: String,
    /// What its earlier attempts came to.
    pub past: Past,
    claim_count: i64,
    is_hot: bool,
    /// Claims in a row that nobody finished, without this one.
    unfinished_before: i32,
}

/// So many claims in a row without any finish, and the message may be what crashes its workers: it runs alone from then on.
const SUSPECT_AFTER: i32 = 3;
/// So many, the later ones alone, and it is.
const CONDEMNED_AFTER: i32 = 6;

/// A message to enqueue in the commit of the finish.
#[derive(Debug)]
pub struct Next {
    message_id: MessageId,
    aggregate_type: &'static str,
    aggregate_id: String,
    operation: &'static str,
    payload: serde_json::Value,
    idempotency_key: String,
}

/// What one claimed message came to, with everything that is to be committed with it.
#[derive(Debug)]
pub struct Finished {
    claim: Claim,
    /// What becomes of the row.
    pub transition: Transition,
    /// What its mail shows; None = as it was.
    pub email: Option<EmailChange>,
    /// What MongoDB carries now.
    pub ledger: Option<LedgerRow>,
    /// The decision to keep.
    pub decision: Option<Decision>,
    /// The next step.
    pub next: Option<Next>,
}

impl Claim {
    /// Ends the claim. `stamp` orders the changes of one mail within a batch; an operation that is not about debts passes 0.
    #[must_use]
    pub fn finish(self, transition: Transition, stamp: i64) -> Finished {
        let email = Some(EmailChange::after(self.id, self.email_id, stamp, &transition))
            // At shutdown nothing has been learnt about the mail.
            .filter(|_| transition != Transition::GivenBack(None));
        Finished { claim: self, transition, email, ledger: None, decision: None, next: None }
    }

    /// The message has ended well.
    #[must_use]
    pub fn done(self, outcome: Outcome, stamp: i64) -> Finished {
        self.finish(Transition::Done(outcome), stamp)
    }

    /// The attempt has failed; its class and the message's past say what follows.
    #[must_use]
    pub fn failed(self, failure: Failure, stamp: i64) -> Finished {
        let transition = decide(failure, self.past);
        self.finish(transition, stamp)
    }

    /// The payload; if this binary cannot read it, and waiting will not make it readable, why. The text never repeats a value.
    ///
    /// # Errors
    /// A permanent [`Failure`].
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.payload).map_err(|_| {
            // Once more, slowly, for the name of the field.
            let mut deserializer = serde_json::Deserializer::from_str(&self.payload);
            let text = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
                Err(error) if error.inner().to_string().starts_with("missing field") => {
                    let text = error.inner().to_string();
                    text.split(" at line ").next().unwrap_or_default().to_owned()
                }
                Err(error) => format!("{} is not as expected", error.path()),
                Ok(_) => "something follows it".to_owned(),
            };
            Failure::new(FailureClass::Permanent, format!("the payload cannot be read: {text}"))
        })
    }

    /// Whether nothing else may be in flight in this process while the message runs.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.unfinished_before >= SUSPECT_AFTER
    }

    /// Whether the message must not run again.
    #[must_use]
    pub fn is_condemned(&self) -> bool {
        self.unfinished_before >= CONDEMNED_AFTER
    }

    /// Ends a condemned message.
    #[must_use]
    pub fn condemn(self) -> Finished {
        let text = format!(
            "{CONDEMNED_AFTER} workers in a row ended without finishing it, the last ones with nothing else to do"
        );
        self.failed(Failure::new(FailureClass::CrashedWorker, text), 0)
    }

    /// Ends the claim as if it had never been.
    #[must_use]
    pub fn give_back(self) -> Finished {
        self.finish(Transition::GivenBack(None), 0)
    }

    /// The next step of this message's saga, about the same mail.
    #[must_use]
    pub fn next(&self, operation: Operation, revision: Revision, payload: serde_json::Value) -> Next {
        Next {
            message_id: self.id,
            aggregate_type: operation.aggregate_type(),
            aggregate_id: self.email_id.to_string(),
            operation: operation.name(),
            payload,
            idempotency_key: operation.key(self.email_id, revision),
        }
    }
}

impl Finished {
    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.claim.id
    }

    /// Whether it will be found from its own id on again, and not by its time.
    #[must_use]
    pub fn returns_hot(&self) -> bool {
        self.claim.is_hot && matches!(self.transition, Transition::GivenBack(_))
    }

    /// Why the whole lane has to wait, if that is what came of it.
    #[must_use]
    pub fn sinks_failure(&self) -> Option<&Failure> {
        match &self.transition {
            Transition::GivenBack(failure) => failure.as_ref().filter(|failure| failure.class.is_the_sinks()),
            Transition::Done(_)
            | Transition::Retry(_, _)
            | Transition::Parked(_, _)
            | Transition::Postponed(_, _)
            | Transition::Dead(_) => None,
        }
    }
}

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

/// How long one claim looks through ids without finding anything.
const CLAIM_LOOK: Duration = Duration::from_secs(1);

/// Claims up to `limit` messages of an operation for `lease`. None found, and the mark is not behind: there are none.
///
/// # Errors
/// The statement's; nothing is claimed then, or what was comes back when the lease ends.
pub async fn claim(
    connection: &Connection,
    operation: Operation,
    mark: &mut LowWaterMark,
    limit: i64,
    lease: Duration,
    worker: &str,
) -> Result<Vec<Claim>, tokio_postgres::Error> {
    let began = Instant::now();
    if mark.wants_lowest(began) {
        let statement = connection.prepare_cached(LOWEST).await?;
        mark.look_below(connection.query_one(&statement, &[]).await?.get(0), began);
    }
    let statement = connection.prepare_cached(CLAIM).await?;
    let lease_ms = lease.as_secs_f64() * 1000.0;
    loop {
        let now = Instant::now();
        let walk = mark.next_walk(now);
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&operation.name(), &walk.start, &walk.end, &limit, &lease_ms, &worker, &SUSPECT_AFTER];
        let rows = connection.query(&statement, &parameters).await?;
        let mut claims: Vec<Claim> = rows.iter().filter_map(read_claim).collect();
        claims.sort_unstable_by_key(|claim| claim.id); // RETURNING has no order
        let is_suspect = claims.iter().any(Claim::is_suspect);
        let hot =
            || rows.iter().filter(|row| row.get::<_, Option<bool>>(8) == Some(true)).map(|row| row.get(0));
        let found = Found {
            // A suspect is taken alone, with others left above and below it.
            hot: hot().min().zip(hot().max()).filter(|_| !is_suspect),
            may_have_more: is_suspect || i64::try_from(claims.len()) == Ok(limit),
            highest: rows.first().map_or(0, |row| row.get(9)),
        };
        mark.walked(walk, found, now.elapsed(), Instant::now());
        if !claims.is_empty() || !mark.is_behind() || began.elapsed() >= CLAIM_LOOK {
            return Ok(claims);
        }
    }
}

fn read_claim(row: &tokio_postgres::Row) -> Option<Claim> {
    let id = row.get::<_, Option<MessageId>>(0)?;
    let missing_for =
        row.get::<_, Option<f64>>(6).and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    Some(Claim {
        id,
        claim_count: row.get(1),
        // Every message is about a mail; an id that is none is none of a mail.
        email_id: row.get::<_, &str>(2).parse().unwrap_or(0),
        payload: row.get(3),
        past: Past { retry_count: row.get(4), max_retries: row.get(5), missing_for },
        unfinished_before: row.get::<_, i32>(7) - 1,
        is_hot: row.get(8),
    })
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
/// has it. What is not known to be committed stays in `batch` and may be tried again: what was committed is fenced off.
///
/// # Errors
/// The statement's.
pub async fn finish(
    connection: &Connection,
    batch: &mut Vec<Finished>,
    receipt: &mut Receipt,
) -> Result<(), tokio_postgres::Error> {
    // How many from the end are tried together: one bad row never holds the others, so a refused part is halved until it is alone.
    let mut size = batch.len();
    while !batch.is_empty() {
        let start = batch.len() - size.clamp(1, batch.len());
        let part = batch.get(start..).unwrap_or_default();
        match finish_at_once(connection, part).await {
            Ok(ids) => {
                receipt.committed.extend(ids);
                batch.truncate(start);
                size = batch.len();
            }
            Err(error) if is_conflict(&error) => {}
            Err(error) if (is_refusal(&error) || is_locked(&error)) && part.len() > 1 => {
                size = part.len() / 2
            }
            Err(error) if is_locked(&error) => {
                receipt.released.extend(release(connection, part).await?);
                batch.truncate(start);
                size = batch.len();
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
    let (ids, counts): (Vec<_>, Vec<_>) =
        batch.iter().map(|finished| (finished.claim.id, finished.claim.claim_count)).unzip();
    let rows =
        connection.query_typed(RELEASE, &[(&ids, Type::INT8_ARRAY), (&counts, Type::INT8_ARRAY)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn finish_at_once(
    connection: &Connection,
    batch: &[Finished],
) -> Result<Vec<MessageId>, tokio_postgres::Error> {
    let statement = connection.prepare_cached(&FINISH).await?;
    let transitions: Vec<_> = batch.iter().map(TransitionRow::of).collect();
    let columns: Vec<Column<'_>> = [
        TransitionRow::columns(&transitions.iter().collect::<Vec<_>>()),
        EmailChange::columns(&rows_of(batch, |finished| finished.email.as_ref())),
        LedgerRow::columns(&rows_of(batch, |finished| finished.ledger.as_ref())),
        Decision::columns(&rows_of(batch, |finished| finished.decision.as_ref())),
        Next::columns(&rows_of(batch, |finished| finished.next.as_ref())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let parameters: Vec<&(dyn ToSql + Sync)> =
        columns.iter().map(|column| column.as_ref() as &(dyn ToSql + Sync)).collect();
    let rows = connection.query(&statement, &parameters).await?;
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
