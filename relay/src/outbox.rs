//! The messages' rows: claim, finish, and every other change of a message after its insertion.
//!
//! A claim is a value; its row changes only through the finish, which names the claim count it was given. A row that has moved on
//! (the lease ended, somebody else claimed it) is not touched, and nothing else of that message is written either. Nor is another
//! message of the same id, which there is once Postgres has been restored under a running relay.

mod backlog;
mod dead_letters;
mod discard;
pub(crate) mod erase;
mod finish;
mod label;
mod low_water_mark;

use crate::{
    ledger::{Decision, EmailChange, LedgerRow},
    outcome::{Failure, FailureClass, Outcome, Past, Transition, decide, patience},
};
pub use backlog::{Backlog, Floors, OTHERS, look};
pub use dead_letters::{
    DeadLetter, DeadLetterFilter, MessageRow, dead_among, discard_dead, each_dead_letter, message_row,
    requeue,
};
pub use discard::discard;
pub use finish::{Receipt, finish, release};
use jiff::Timestamp;
pub use label::Label;
use low_water_mark::Found;
pub use low_water_mark::LowWaterMark;
use serde::de::DeserializeOwned;
use shared::{
    columns::{Typed, typed},
    message::{EmailId, MessageId, Operation, Revision},
    postgres::Connection,
    trace::TraceParent,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
        extract(epoch from now() - o.first_missing_at)::float8, o.unfinished_claims, found.is_hot, o.idempotency_key, o.traceparent,
        o.created_at
)
select claimed.*, highest.id from (select coalesce(max(id), 0) as id from outbox_messages) highest left join claimed on true";

/// The lowest id of the table; retention has removed what was below.
const LOWEST: &str = "select coalesce(min(id), 0) from outbox_messages";

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
    /// What it is called in logs.
    pub label: Arc<Label>,
    operation: Operation,
    claim_count: i64,
    /// Tells it from another message that got its id after Postgres was restored to an earlier point.
    created_at: Timestamp,
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
            // At shutdown nothing has been learnt about the mail, nor by telling somebody about it.
            .filter(|_| transition != Transition::GivenBack(None) && !self.operation.is_notification());
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

    /// Whether a worker may have carried it out already and ended before it could say so.
    #[must_use]
    pub fn may_be_repeat(&self) -> bool {
        self.unfinished_before > 0
    }

    /// Whether it has waited for its time: it was tried before, or put off.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        !self.is_hot
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

    /// The same with a key of its own.
    #[must_use]
    pub fn next_of_key(
        &self,
        operation: Operation,
        idempotency_key: String,
        payload: serde_json::Value,
    ) -> Next {
        Next { idempotency_key, ..self.next(operation, Revision::FIRST, payload) }
    }
}

impl Finished {
    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.claim.id
    }

    /// What the message is called in logs.
    #[must_use]
    pub fn label(&self) -> Arc<Label> {
        self.claim.label.clone()
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
        let rows = connection.query_often(LOWEST, &[]).await?;
        mark.look_below(rows.first().map_or(0, |row| row.get(0)), began);
    }
    let lease_ms = lease.as_secs_f64() * 1000.0;
    loop {
        let now = Instant::now();
        let walk = mark.next_walk(now);
        let parameters: [&dyn Typed; 7] =
            [&operation.name(), &walk.start, &walk.end, &limit, &lease_ms, &worker, &SUSPECT_AFTER];
        let rows = connection.query_often(CLAIM, &typed(&parameters)).await?;
        let mut claims: Vec<Claim> = rows.iter().filter_map(|row| read_claim(row, operation)).collect();
        claims.sort_unstable_by_key(|claim| claim.id); // RETURNING has no order
        let is_suspect = claims.iter().any(Claim::is_suspect);
        let hot =
            || rows.iter().filter(|row| row.get::<_, Option<bool>>(8) == Some(true)).map(|row| row.get(0));
        let found = Found {
            // A suspect is taken alone, with others left above and below it.
            hot: hot().min().zip(hot().max()).filter(|_| !is_suspect),
            may_have_more: is_suspect || i64::try_from(claims.len()) == Ok(limit),
            highest: rows.first().map_or(0, |row| row.get(12)),
        };
        mark.walked(walk, found, now.elapsed(), Instant::now());
        if !claims.is_empty() || !mark.is_behind() || began.elapsed() >= CLAIM_LOOK {
            return Ok(claims);
        }
    }
}

fn read_claim(row: &tokio_postgres::Row, operation: Operation) -> Option<Claim> {
    let id = row.get::<_, Option<MessageId>>(0)?;
    let missing_for =
        row.get::<_, Option<f64>>(6).and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    // Every message is about a mail; an id that is none is none of a mail.
    let email_id = row.get::<_, &str>(2).parse().unwrap_or(0);
    let traceparent = row.get::<_, Option<&str>>(10).and_then(|text| text.parse::<TraceParent>().ok());
    let label = Label {
        message_id: id,
        email_id,
        operation,
        idempotency_key: row.get(9),
        trace_id: traceparent.map(TraceParent::trace_id),
    };
    Some(Claim {
        id,
        claim_count: row.get(1),
        created_at: row.get(11),
        email_id,
        label: Arc::new(label),
        operation,
        payload: row.get(3),
        past: Past {
            retry_count: row.get(4),
            max_retries: row.get(5),
            missing_for,
            patience: patience(operation),
        },
        unfinished_before: row.get::<_, i32>(7) - 1,
        is_hot: row.get(8),
    })
}
