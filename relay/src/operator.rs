//! What a person asks of the relay and decides: the mails that are held for review.
//!
//! Reads, and enqueues ordinary messages; never changes a message or a document itself.

use deadpool_postgres::Client as Connection;
use serde::Serialize;
use serde_json::Value;
use shared::{
    message::{CreditorDebtUpdate, EmailId, MessageId, Operation, Origin},
    money::Amount,
    outbox::{INSERT, ONCE},
};
use std::sync::LazyLock;
use tokio_postgres::types::Json;

/// The mails that wait for a person, the oldest first, each with its latest decision. Walks all mails: for people, not for loops.
const LIST: &str = "
select m.id, d.message_id, d.old_amount::text, d.new_amount::text, d.reason, d.candidates, d.at::text
from incoming_emails m cross join lateral (
    select * from decisions where email_id = m.id order by id desc limit 1
) d
where m.match_status = 'needs_review' and d.decision = 'held_for_review'
order by m.id limit $1";

/// The latest debt update of a mail, if it is held. By `decisions_email`, then by primary key.
const HELD: &str = "
select o.id, o.payload from decisions d join outbox_messages o on o.id = d.message_id
where d.email_id = $1 and d.decision = 'held_for_review' and o.outcome = 'held_for_review'
    and d.id = (select max(id) from decisions where email_id = $1)";

/// The decision and the message that carries it out, in one commit; nothing if the same revision is enqueued already.
static ACCEPT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with message as (
    {INSERT}
    values ($2, $1::bigint::text, $3, $4, $5, null)
    {ONCE}
    returning id
)
insert into decisions (email_id, message_id, new_amount, decision, reason, actor)
select $1, message.id, $6::text::numeric, 'accepted', 'a person accepts the amount', $7 from message
returning message_id"
    )
});

/// One mail that waits for a person.
#[derive(Debug, Serialize)]
pub struct Held {
    /// The mail.
    pub email_id: EmailId,
    /// The message that ended as held for review.
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

/// The mails that wait for a person.
///
/// # Errors
/// [`ReviewError::Postgres`].
pub async fn held(connection: &Connection, limit: i64) -> Result<Vec<Held>, ReviewError> {
    let rows = connection.query(LIST, &[&limit]).await?;
    let read = |row: &tokio_postgres::Row| Held {
        email_id: row.get(0),
        message_id: row.get(1),
        old_amount: row.get(2),
        new_amount: row.get(3),
        reason: row.get(4),
        candidates: row.get(5),
        at: row.get(6),
    };
    Ok(rows.iter().map(read).collect())
}

/// A person takes the held amount, or another, for right: enqueues an ordinary debt update of the same mail, next revision, which
/// the write guard lets pass. If something newer is stored by then, the message ends as superseded. Returns the message's id.
///
/// # Errors
/// [`ReviewError`]; nothing was changed.
pub async fn accept(
    connection: &Connection,
    email_id: EmailId,
    amount: Option<Amount>,
    by: &str,
) -> Result<MessageId, ReviewError> {
    let row = connection.query_opt(HELD, &[&email_id]).await?.ok_or(ReviewError::NotHeld(email_id))?;
    let mut update: CreditorDebtUpdate = serde_json::from_value(row.get(1))?;
    update.new_debt_amount = amount.or(update.new_debt_amount);
    let amount = update.new_debt_amount.ok_or(ReviewError::NoAmount(email_id))?;
    update.stamp = update.stamp.next_revision().ok_or(ReviewError::Decided(email_id))?;
    update.origin = Origin::Decision;
    update.decided_by = Some(by.to_owned());
    let operation = Operation::CreditorDebtUpdate;
    let key = operation.key(email_id, update.stamp.revision());
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &email_id,
        &operation.aggregate_type(),
        &operation.name(),
        &Json(&update),
        &key,
        &amount.to_string(),
        &by,
    ];
    let row = connection.query_opt(ACCEPT.as_str(), &parameters).await?;
    row.map(|row| row.get(0)).ok_or(ReviewError::Decided(email_id))
}
