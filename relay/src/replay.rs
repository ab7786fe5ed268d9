//! Makes new messages from what is known of mails now, for those that an operator selects.
//!
//! A replay carries the stamp that the mail has already: it brings back what has been lost and can never overtake anything. Enqueues
//! only; the mail's own columns stay as they are.

use crate::{
    current_update::{self, CurrentError, Mail},
    debt_update,
    legacy::IMPORTED,
    matching::spellings,
    operator,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    columns::{Typed, typed},
    message::{CreditorDebtUpdate, EmailExtraction, EmailId, MessageId, Operation, Origin},
    outbox::{INSERT, ONCE, trace_of_mail},
    postgres::Connection,
};
use std::{collections::HashSet, num::NonZeroU32, sync::LazyLock, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};

const UNKNOWN: &str = "select given.id from unnest($1::bigint[]) given(id)
    where not exists (select from incoming_emails m where m.id = given.id)";

/// The selected mails, with their number. Walks all mails, but for $1 alone: for people, not for loops. A client's are those that
/// name it, those that the ledger has of it (`creditor_debts_aktenzeichen`), and those that were written to it.
const SELECT: &str = "
select m.id, count(*) over () from incoming_emails m
where ($2::timestamptz is null or m.created_at >= $2) and ($3::timestamptz is null or m.created_at < $3)
    and ($1::bigint[] is null or m.id = any($1))
    and ($4::boolean is null or (m.extracted_data is not null) = $4)
    and ($5::text[] is null or m.extracted_data ->> 'client_aktenzeichen' = any($5)
        or m.id in (select email_id from creditor_debts where aktenzeichen = any($5)
            union select d.email_id from decisions d where d.candidates @> any($6::jsonb[])
                and d.decision in ('applied', 'already', 'superseded')))
order by m.id limit $7";

/// What waits and what was never fetched, by the unique index on `idempotency_key`: the extraction that has still to run, the fetch that
/// has not come to its end.
const UNREAD: &str = "
select id, operation from outbox_messages
where idempotency_key = any($1) and (processed_at is null and dead_at is null or operation = 'email_fetch' and processed_at is null)
order by operation desc limit 1";

/// By `decisions_email`.
const LATEST_DECISION: &str = "select decision from decisions where email_id = $1 order by id desc limit 1";

/// By the unique index on `idempotency_key`.
const TAKEN: &str = "select idempotency_key from outbox_messages where idempotency_key = any($1)";

static ENQUEUE: LazyLock<String> = LazyLock::new(|| {
    let trace = trace_of_mail("$2::bigint");
    format!("{INSERT} values ($1, $2::bigint::text, $3, $4, $5, {trace}) {ONCE} returning id")
});

/// Which mails; all that is given has to hold.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These.
    pub emails: Vec<EmailId>,
    /// Those of the client of this number.
    pub client: Option<String>,
    /// Those that ingest has stored since then.
    pub since: Option<Timestamp>,
    /// And before then.
    pub until: Option<Timestamp>,
    /// Those whose replay is of this operation: a debt update of what has been read, an extraction of what has not.
    pub operation: Option<Operation>,
}

/// How.
#[derive(Debug, Clone)]
pub struct Manner {
    /// More mails than this, and none is replayed.
    pub cap: u32,
    /// Messages per second, at most.
    pub rate: NonZeroU32,
    /// Says what would be, and changes nothing.
    pub is_dry: bool,
    /// Who.
    pub by: String,
}

/// What became of a selection: what `relay replay --json` prints.
#[derive(Debug, Default, Serialize)]
pub struct Replayed {
    /// Whether it only says what would be.
    pub dry_run: bool,
    /// How many messages are new.
    pub enqueued: usize,
    /// How many mails were left alone.
    pub skipped: usize,
    /// Every selected mail, in the order of the ids.
    pub mails: Vec<ReplayedMail>,
}

/// What became of one mail.
#[derive(Debug, Serialize)]
pub struct ReplayedMail {
    /// The mail.
    pub email_id: EmailId,
    /// The new message's operation; null where there is none.
    pub operation: Option<&'static str>,
    /// The new message; null in a dry run, and where there is none.
    pub message_id: Option<MessageId>,
    /// Why there is none.
    pub skipped: Option<String>,
}

/// Why nothing, or not all, was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// Some ids are none of mails.
    #[error("there is no email {0}; nothing was replayed")]
    NoMail(String),
    /// No selected mail is the client's.
    #[error("no mail of this selection is known to be of the client {0}; nothing was replayed")]
    NoClient(String),
    /// Too many.
    #[error(
        "the selection has {size} mails, more than --cap {cap}; nothing was replayed. Narrow it, or raise the cap"
    )]
    TooMany {
        /// So many.
        size: i64,
        /// And so many may be.
        cap: u32,
    },
    /// Postgres failed on the way.
    #[error(
        "Postgres: {reason}; {enqueued} messages had been enqueued. The same command again leaves those alone that still wait"
    )]
    Interrupted {
        /// What it says.
        reason: String,
        /// What is done stays.
        enqueued: usize,
    },
    /// Postgres failed before anything was done.
    #[error("Postgres: {}", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// Replays every selected mail, each in a transaction of its own.
///
/// # Errors
/// [`ReplayError`]; what has been enqueued until then stays.
pub async fn replay(
    connection: &mut Connection,
    selection: &Selection,
    manner: &Manner,
) -> Result<Replayed, ReplayError> {
    let ids = select(connection, selection, manner.cap).await?;
    let mut replayed = Replayed { dry_run: manner.is_dry, ..Replayed::default() };
    let mut pace = interval(Duration::from_secs(1) / manner.rate.get());
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for email_id in ids {
        let enqueued = replayed.enqueued;
        let interrupted = |error: tokio_postgres::Error| ReplayError::Interrupted {
            reason: shared::postgres::reason(&error),
            enqueued,
        };
        let mail = match replay_mail(connection, email_id, manner).await {
            Ok(mail) => mail,
            Err(CurrentError::Postgres(error)) => return Err(interrupted(error)),
            Err(error @ CurrentError::Unreadable(..)) => skipped(email_id, error.to_string()),
        };
        if mail.skipped.is_some() {
            replayed.skipped += 1;
        } else {
            replayed.enqueued += 1;
            if !manner.is_dry {
                pace.tick().await;
            }
        }
        replayed.mails.push(mail);
    }
    Ok(replayed)
}

async fn select(
    connection: &Connection,
    selection: &Selection,
    cap: u32,
) -> Result<Vec<EmailId>, ReplayError> {
    let unknown = connection.query_typed(UNKNOWN, &[(&selection.emails, Type::INT8_ARRAY)]).await?;
    if !unknown.is_empty() {
        let ids: Vec<String> = unknown.iter().map(|row| row.get::<_, EmailId>(0).to_string()).collect();
        return Err(ReplayError::NoMail(ids.join(", ")));
    }
    let emails = (!selection.emails.is_empty()).then_some(&selection.emails);
    let is_read = selection.operation.map(|operation| operation == Operation::CreditorDebtUpdate);
    let numbers: Option<Vec<String>> = selection.client.as_deref().map(spellings);
    let patterns: Option<Vec<Value>> = numbers
        .as_ref()
        .map(|numbers| numbers.iter().map(|number| json!([{ "aktenzeichen": number }])).collect());
    let limit = i64::from(cap) + 1;
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (&emails, Type::INT8_ARRAY),
        (&selection.since, Type::TIMESTAMPTZ),
        (&selection.until, Type::TIMESTAMPTZ),
        (&is_read, Type::BOOL),
        (&numbers, Type::TEXT_ARRAY),
        (&patterns, Type::JSONB_ARRAY),
        (&limit, Type::INT8),
    ];
    let rows = connection.query_typed(SELECT, &parameters).await?;
    let size = rows.first().map_or(0, |row| row.get(1));
    if size > i64::from(cap) {
        return Err(ReplayError::TooMany { size, cap });
    }
    let ids: Vec<EmailId> = rows.iter().map(|row| row.get(0)).collect();
    match &selection.client {
        Some(client) if ids.is_empty() => Err(ReplayError::NoClient(client.clone())),
        Some(_) | None => Ok(ids),
    }
}

async fn replay_mail(
    connection: &mut Connection,
    email_id: EmailId,
    manner: &Manner,
) -> Result<ReplayedMail, CurrentError> {
    let transaction = connection.transaction().await?;
    let Some(mail) = current_update::lock(&transaction, email_id).await? else {
        return Ok(skipped(email_id, "it is not there any more"));
    };
    let planned = match (&mail.extracted_data, &mail.text_removed) {
        (None, Some((at, by))) => {
            Err(format!("its text was removed on {at:.0} ({by}): nothing is left to be made again"))
        }
        (None, None) => unread(&transaction, email_id, mail.is_imported).await?,
        (Some(_), _) => read(&transaction, email_id, &mail).await?,
    };
    let (operation, payload) = match planned {
        Ok(planned) => planned,
        Err(reason) => return Ok(skipped(email_id, reason)),
    };
    let keys: Vec<String> = operation.replay_keys(email_id).collect();
    let taken = transaction.query_typed(TAKEN, &typed(&[&keys])).await?;
    let taken: HashSet<&str> = taken.iter().map(|row| row.get(0)).collect();
    let Some(key) = keys.iter().find(|key| !taken.contains(key.as_str())) else {
        let text = format!("the outbox still holds {} replays of it", Operation::REPLAYS);
        return Ok(skipped(email_id, text));
    };
    let mut message_id = None;
    if !manner.is_dry {
        let parameters: [&dyn Typed; 5] =
            [&operation.aggregate_type(), &email_id, &operation.name(), &payload, key];
        let Some(row) = transaction.query_typed_opt(ENQUEUE.as_str(), &typed(&parameters)).await? else {
            return Ok(skipped(email_id, "somebody else replays it"));
        };
        message_id = Some(row.get(0));
        let detail = json!({ "operation": operation.name(), "idempotency_key": key });
        operator::record(&transaction, &manner.by, "replay", message_id, Some(email_id), detail).await?;
        transaction.commit().await?;
    }
    Ok(ReplayedMail { email_id, operation: Some(operation.name()), message_id, skipped: None })
}

/// The operation and its payload, or why there is nothing to replay.
type Planned = Result<(Operation, Value), String>;

/// A mail that nobody has read is to be read; but not before its body is there.
async fn unread(
    transaction: &Transaction<'_>,
    email_id: EmailId,
    is_imported: bool,
) -> Result<Planned, CurrentError> {
    let Some(waiting) =
        transaction.query_typed_opt(UNREAD, &typed(&[&Operation::possible_keys(email_id)])).await?
    else {
        let payload = json!(EmailExtraction { email_id, hold: is_imported.then(|| IMPORTED.to_owned()) });
        return Ok(Ok((Operation::EmailExtraction, payload)));
    };
    let (message_id, operation): (MessageId, &str) = (waiting.get(0), waiting.get(1));
    Ok(Err(match operation {
        "email_fetch" => format!(
            "its body has not been fetched: message {message_id} has to come to its end, see `relay explain {email_id}`"
        ),
        _ => format!("it is still to be read: message {message_id} waits"),
    }))
}

/// The debt update of a mail that has been read, with its stamp and whatever a person has decided about it.
async fn read(
    transaction: &Transaction<'_>,
    email_id: EmailId,
    mail: &Mail,
) -> Result<Planned, CurrentError> {
    let decision = transaction.query_typed_opt(LATEST_DECISION, &typed(&[&email_id])).await?;
    if decision.is_some_and(|row| row.get::<_, &str>(0) == "rejected") {
        return Ok(Err("a person has rejected it".into()));
    }
    let update = match current_update::newest(transaction, email_id).await? {
        Some(newest) if newest.is_waiting => {
            return Ok(Err(format!("its debt update waits: message {}", newest.message_id)));
        }
        Some(newest) if newest.is_discarded => {
            return Ok(Err(format!("a person has discarded it: message {}", newest.message_id)));
        }
        Some(newest) => Some(newest.update),
        None => current_update::rebuilt(transaction, mail).await?,
    };
    let Some(update) = update else { return Ok(Err("it is no creditor's reply".into())) };
    Ok(again(update).map(|payload| (Operation::CreditorDebtUpdate, payload)))
}

fn again(mut update: CreditorDebtUpdate) -> Result<Value, String> {
    if update.client_id.is_none() && update.client_aktenzeichen.is_none() && update.client_name.is_none() {
        return Err("it names no client: see `relay review list`".into());
    }
    (update.origin, update.expected) = (Origin::Replay, None);
    debt_update::make_fit(&mut update);
    Ok(json!(update))
}

fn skipped(email_id: EmailId, reason: impl Into<String>) -> ReplayedMail {
    ReplayedMail { email_id, operation: None, message_id: None, skipped: Some(reason.into()) }
}
