//! The acts of persons: owns `operator_actions`, which only grows.
//!
//! An act is recorded in the transaction of what it does, so neither is there without the other. About amounts there are decisions
//! besides (`ledger.rs`).

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared::message::{EmailId, MessageId};
use shared::{columns::typed, postgres::Connection};
use tokio_postgres::Transaction;

/// An insert at the end of the table; locks nothing that others wait for.
const RECORD: &str = "
insert into operator_actions (actor, action, message_id, email_id, detail)
select $1, $2, message_id, email_id, detail from unnest($3::bigint[], $4::bigint[], $5::jsonb[]) as a(message_id, email_id, detail)";

/// As [`RECORD`], of one act about no mail.
const RECEIPT: &str = "insert into operator_actions (actor, action, detail) values ($1, $2, $3) returning id";

/// Acts about the mails $1, and those about the mails $2 that name one of the clients $3: who did what and when stays. Walks the table:
/// for people, not for loops. Rewritten by new rows of the old ids, since the table only grows (`refuse_delete_but_by_erasure`).
const FORGET: &str = "
with gone as (
    delete from operator_actions
    where (email_id = any($1) or email_id = any($2) and detail ->> 'client_id' = any($3)) and detail <> '{}' returning *
)
insert into operator_actions (id, at, actor, action, message_id, email_id) overriding system value
select id, at, actor, action, message_id, email_id from gone order by id";

/// Through `operator_actions_message`.
const ACTS: &str = "select at, actor, action, detail from operator_actions where message_id = $1 order by id";

/// What one act was about.
#[derive(Debug)]
pub struct Act {
    /// The message.
    pub message_id: Option<MessageId>,
    /// The mail.
    pub email_id: Option<EmailId>,
    /// A JSON object: why, and what was there before. No names, addresses, amounts.
    pub detail: Value,
}

/// An act that is on record.
#[derive(Debug, Serialize)]
pub struct PastAct {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// Why, and what was there before.
    pub detail: Value,
}

/// Keeps one act. `action` is one of the names in the table's check.
///
/// # Errors
/// The statement's.
pub async fn record(
    transaction: &Transaction<'_>,
    actor: &str,
    action: &str,
    message_id: Option<MessageId>,
    email_id: Option<EmailId>,
    detail: Value,
) -> Result<(), tokio_postgres::Error> {
    record_all(transaction, actor, action, &[Act { message_id, email_id, detail }]).await
}

/// Keeps the acts of one command.
///
/// # Errors
/// The statement's.
pub async fn record_all(
    transaction: &Transaction<'_>,
    actor: &str,
    action: &str,
    acts: &[Act],
) -> Result<(), tokio_postgres::Error> {
    let messages: Vec<_> = acts.iter().map(|act| act.message_id).collect();
    let emails: Vec<_> = acts.iter().map(|act| act.email_id).collect();
    let details: Vec<_> = acts.iter().map(|act| &act.detail).collect();
    transaction.execute_typed(RECORD, &typed(&[&actor, &action, &messages, &emails, &details])).await?;
    Ok(())
}

/// Keeps one act about no mail; its id.
///
/// # Errors
/// The statement's.
pub async fn receipt(
    transaction: &Transaction<'_>,
    actor: &str,
    action: &str,
    detail: &Value,
) -> Result<i64, tokio_postgres::Error> {
    Ok(transaction.query_typed_one(RECEIPT, &typed(&[&actor, &action, detail])).await?.get(0))
}

/// Forgets what acts about these mails were about; how many.
///
/// # Errors
/// The statement's.
pub async fn forget(
    transaction: &Transaction<'_>,
    own: &[EmailId],
    shared: &[EmailId],
    client_ids: &[String],
) -> Result<u64, tokio_postgres::Error> {
    transaction.execute_typed(FORGET, &typed(&[&own, &shared, &client_ids])).await
}

/// What persons have done with a message, in order.
///
/// # Errors
/// The statement's.
pub async fn acts_of(
    connection: &Connection,
    message_id: MessageId,
) -> Result<Vec<PastAct>, tokio_postgres::Error> {
    let rows = connection.query_typed(ACTS, &typed(&[&message_id])).await?;
    let read = |row: &tokio_postgres::Row| PastAct {
        at: row.get(0),
        actor: row.get(1),
        action: row.get(2),
        detail: row.get(3),
    };
    Ok(rows.iter().map(read).collect())
}
