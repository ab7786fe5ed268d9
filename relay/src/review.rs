//! What a person decides: the mails that are held for review, and those that are parked since their client is missing.
//!
//! Reads, and enqueues ordinary messages; never changes a message or a document itself.

use crate::ledger::{self, RECONCILIATION};
use crate::{matching::CLIENT_MISSING, outbox};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{
    columns::{Typed, typed},
    message::{CreditorDebtUpdate, EmailId, MessageId, Operation, Origin},
    money::Amount,
    postgres::Connection,
};
use std::sync::LazyLock;
use tokio_postgres::Transaction;
use tokio_postgres::{Row, types::Json};

/// A debt update whose client is missing, by the last look or because MongoDB was away at it; one that may have been written, or was
/// tried, is none. By `outbox_messages_deferred`.
const PARKED: &str = "
o.deferred and o.operation = 'creditor_debt_update' and o.processed_at is null and o.dead_at is null
    and o.first_missing_at is not null and o.error_class in ('target_missing', 'sink_down', 'sink_misconfigured')";

/// The mails that wait for a person or for their client, the oldest first, with the latest decision. Walks all mails: for people, not
/// for loops.
static LIST: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
select m.id as email_id, 'held' as state, d.message_id, d.old_amount::text, d.new_amount::text, d.reason, d.candidates, d.at::text
from incoming_emails m cross join lateral (
    select * from decisions where email_id = m.id and actor <> '{RECONCILIATION}' order by id desc limit 1
) d
where m.match_status = 'needs_review' and d.decision = 'held_for_review'
union all
select o.aggregate_id::bigint, 'parked', o.id, null, o.payload ->> 'new_debt_amount', $2, '[]', o.first_missing_at::text
from outbox_messages o where {PARKED} and o.aggregate_id ~ '^[0-9]{{1,18}}$'
order by email_id limit $1"
    )
});

/// Holds the mail's row, so that of two people one decides. By primary key.
const LOCK: &str = "select id from incoming_emails where id = $1 for update";

/// The latest debt update of a mail, if it is held, and what it could have meant. By `decisions_email`, then by primary key.
static HELD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
select o.id, o.payload, d.candidates, d.new_amount::text from decisions d join outbox_messages o on o.id = d.message_id
where d.email_id = $1 and d.decision = 'held_for_review' and o.outcome = 'held_for_review'
    and d.id = (select max(id) from decisions where email_id = $1 and actor <> '{RECONCILIATION}')"
    )
});

/// The debt update of a mail, if it is parked.
static PARKED_UPDATE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
select o.id, o.payload, '[]'::jsonb, o.payload ->> 'new_debt_amount' from outbox_messages o
where {PARKED} and o.aggregate_id = $1::bigint::text order by o.id desc limit 1"
    )
});

/// The decision that nothing is to be written, and a mail that waits no more.
const REJECT: &str = "
with settled as (
    update incoming_emails set match_status = null, sync_status = 'not_applicable', sync_error = null,
        processing_status = 'completed', processed_at = coalesce(processed_at, now()), updated_at = now()
    where id = $1
)
insert into decisions (email_id, message_id, new_amount, decision, reason, actor)
values ($1, $2, $3::text::numeric, 'rejected', $4, $5)";

/// What the ledger has for an entry that is newer than a stamp. By primary key.
const NEWER: &str = "
select email_id, amount::text from creditor_debts where client_id = $1 and entry_key = $2 and stamp > $3";

/// One mail that a person may decide on.
#[derive(Debug, Serialize)]
pub struct Held {
    /// The mail.
    pub email_id: EmailId,
    /// `held`: for a person alone; `parked`: its client is missing, and looked for again.
    pub state: String,
    /// The message that ended as held for review, or is parked.
    pub message_id: MessageId,
    /// What MongoDB had.
    pub old_amount: Option<String>,
    /// What the mail says.
    pub new_amount: Option<String>,
    /// Why it is held.
    pub reason: String,
    /// The client and the entries that it may mean.
    pub candidates: Value,
    /// Since when.
    pub at: String,
}

/// Why a decision cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// Nothing of this mail waits for a decision.
    #[error("email {0} is not held for review: see `relay review list`")]
    NotHeld(EmailId),
    /// A relay looks for its client at this moment.
    #[error("email {0} is being worked on: try again in a moment")]
    Busy(EmailId),
    /// The mail has no amount and none was given.
    #[error("email {0} states no amount: give the right one with --amount")]
    NoAmount(EmailId),
    /// Decided already, by somebody else or fifteen times.
    #[error("email {0} has been decided already")]
    Decided(EmailId),
    /// Postgres failed; nothing was changed.
    #[error("Postgres: {}", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The message's payload is from another version.
    #[error("the held message cannot be read: {0}")]
    Payload(#[from] serde_json::Error),
}

/// The mails that a person may decide on.
///
/// # Errors
/// [`ReviewError::Postgres`].
pub async fn held(connection: &Connection, limit: i64) -> Result<Vec<Held>, ReviewError> {
    let rows = connection.query_typed(LIST.as_str(), &typed(&[&limit, &CLIENT_MISSING])).await?;
    let read = |row: &Row| Held {
        email_id: row.get(0),
        state: row.get(1),
        message_id: row.get(2),
        old_amount: row.get(3),
        new_amount: row.get(4),
        reason: row.get(5),
        candidates: row.get(6),
        at: row.get(7),
    };
    Ok(rows.iter().map(read).collect())
}

/// What a person says about a held mail beyond yes.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The right amount, if it is not the mail's.
    pub amount: Option<Amount>,
    /// The client: its case number, or the `_id` of its document.
    pub client: Option<String>,
    /// The key of the creditor entry.
    pub creditor: Option<String>,
}

/// A decision on its way.
#[derive(Debug, Serialize)]
pub struct Accepted {
    /// The mail.
    pub email_id: EmailId,
    /// The message that will write it.
    pub message_id: MessageId,
    /// The newer mail whose amount is stored for the entry, as far as Postgres knows: the message will end as superseded.
    pub newer_email_id: Option<EmailId>,
    /// That amount.
    pub newer_amount: Option<String>,
    /// Whether the entry is known, so that something newer would have been found. It is not where a person names a client or an
    /// entry that is not among the candidates, nor where several are left.
    pub entry_is_known: bool,
}

/// A person takes the held amount, or another, for right: enqueues an ordinary debt update of the same mail, next revision, which
/// the write guard lets pass. If something newer is stored by then, the message ends as superseded. A parked one ends: the new
/// message takes its place.
///
/// # Errors
/// [`ReviewError`]; nothing was changed.
pub async fn accept(
    connection: &mut Connection,
    email_id: EmailId,
    choice: Choice,
    by: &str,
) -> Result<Accepted, ReviewError> {
    let transaction = connection.transaction().await?;
    let row = take_up(&transaction, email_id).await?;
    let mut update: CreditorDebtUpdate = serde_json::from_value(row.get(1))?;
    let candidates: Value = row.get(2);
    update.new_debt_amount = choice.amount.or(update.new_debt_amount);
    let amount = update.new_debt_amount.ok_or(ReviewError::NoAmount(email_id))?;
    update.stamp = update.stamp.next_revision().ok_or(ReviewError::Decided(email_id))?;
    update.origin = Origin::Decision;
    update.decided_by = Some(by.to_owned());
    let mut chosen = json!({});
    if let Some(client) = choice.client {
        name_client(&mut update, client, &candidates);
        chosen = match &update.client_id {
            Some(id) => json!({ "client_id": id }),
            None => json!({ "aktenzeichen": update.client_aktenzeichen }),
        };
    }
    if let (Some(creditor), Some(chosen)) = (&choice.creditor, chosen.as_object_mut()) {
        chosen.insert("entries".into(), json!([{ "entry_key": creditor }]));
    }
    update.entry_key = choice.creditor.or(update.entry_key);
    let operation = Operation::CreditorDebtUpdate;
    let key = update.key_of(operation);
    let chosen = json!(Some(chosen).into_iter().filter(|chosen| *chosen != json!({})).collect::<Vec<_>>());
    let parameters: [&dyn Typed; 11] = [
        &email_id,
        &operation.aggregate_type(),
        &operation.name(),
        &Json(&update),
        &key,
        &None::<&str>, // what it replaces is not known yet
        &amount.to_string(),
        &"accepted",
        &"a person accepts the amount",
        &by,
        &chosen,
    ];
    let row = transaction.query_typed_opt(ledger::DECIDE.as_str(), &typed(&parameters)).await?;
    let message_id = row.map(|row| row.get(0)).ok_or(ReviewError::Decided(email_id))?;
    let target = target(&update, &candidates);
    let newer = match target {
        Some((client, entry)) => {
            transaction.query_typed_opt(NEWER, &typed(&[&client, &entry, &update.stamp.number()])).await?
        }
        None => None,
    };
    transaction.commit().await?;
    let (newer_email_id, newer_amount) = newer.map(|row| (row.get(0), row.get(1))).unzip();
    Ok(Accepted { email_id, message_id, newer_email_id, newer_amount, entry_is_known: target.is_some() })
}

/// A person decides that nothing is written. Returns the id of the message that was held or parked.
///
/// # Errors
/// [`ReviewError`]; nothing was changed.
pub async fn reject(
    connection: &mut Connection,
    email_id: EmailId,
    reason: &str,
    by: &str,
) -> Result<MessageId, ReviewError> {
    let transaction = connection.transaction().await?;
    let row = take_up(&transaction, email_id).await?;
    let (message_id, amount): (MessageId, Option<String>) = (row.get(0), row.get(3));
    transaction.execute_typed(REJECT, &typed(&[&email_id, &message_id, &amount, &reason, &by])).await?;
    transaction.commit().await?;
    Ok(message_id)
}

/// The debt update that a person decides on, as [`HELD`] has it. A parked one ends here, so that its client is looked for no more.
async fn take_up(transaction: &Transaction<'_>, email_id: EmailId) -> Result<Row, ReviewError> {
    transaction.query_typed_opt(LOCK, &typed(&[&email_id])).await?;
    if let Some(held) = transaction.query_typed_opt(HELD.as_str(), &typed(&[&email_id])).await? {
        return Ok(held);
    }
    let parked = transaction.query_typed_opt(PARKED_UPDATE.as_str(), &typed(&[&email_id])).await?;
    let parked = parked.ok_or(ReviewError::NotHeld(email_id))?;
    let is_discarded = outbox::discard(transaction, parked.get(0)).await?;
    if is_discarded { Ok(parked) } else { Err(ReviewError::Busy(email_id)) }
}

/// An `_id` is told from a case number by the candidates, or by its form.
fn name_client(update: &mut CreditorDebtUpdate, client: String, candidates: &Value) {
    let mut clients = candidates.as_array().into_iter().flatten();
    let is_candidate = clients.any(|candidate| text(candidate, "client_id") == Some(&client));
    if is_candidate || (client.len() == 24 && client.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        update.client_id = Some(client);
    } else {
        // The number that a person names counts alone.
        (update.client_id, update.client_aktenzeichen, update.client_name) = (None, Some(client), None);
        update.reference_numbers.clear();
    }
}

/// The one entry that the update will mean, as far as the candidates tell it: client id and entry key.
fn target<'a>(update: &CreditorDebtUpdate, candidates: &'a Value) -> Option<(&'a str, &'a str)> {
    let spelling = |number: &str| number.replace('_', "/");
    let is_meant = |client: &Value, entry: &Value| {
        let is_client = match (&update.client_id, &update.client_aktenzeichen) {
            (Some(id), _) => text(client, "client_id") == Some(id),
            (None, Some(number)) => {
                text(client, "aktenzeichen").is_none_or(|other| spelling(other) == spelling(number))
            }
            (None, None) => true,
        };
        is_client && update.entry_key.as_deref().is_none_or(|key| text(entry, "entry_key") == Some(key))
    };
    let mut meant = pairs(candidates).filter(|(client, entry)| is_meant(client, entry));
    let (client, entry) = meant.next()?;
    let is_only = meant.next().is_none();
    text(client, "client_id").zip(text(entry, "entry_key")).filter(|_| is_only)
}

/// Every entry of every candidate, with its client.
pub fn pairs(candidates: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    candidates.as_array().into_iter().flatten().flat_map(|client| {
        let entries = client.get("entries").and_then(Value::as_array).into_iter().flatten();
        entries.map(move |entry| (client, entry))
    })
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}
