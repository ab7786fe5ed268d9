//! What operators have done: the rows of `operator_actions`, beside `decisions`, which are about amounts. Append-only.

use deadpool_postgres::Transaction;
use shared::message::{EmailId, MessageId};

const RECORD: &str =
    "insert into operator_actions (actor, action, message_id, email_id, detail) values ($1, $2, $3, $4, $5)";

/// Keeps one act of a person, in the transaction of the act itself.
///
/// # Errors
/// The statement's.
pub async fn record(
    transaction: &Transaction<'_>,
    actor: &str,
    action: &'static str,
    message_id: Option<MessageId>,
    email_id: Option<EmailId>,
    detail: &serde_json::Value,
) -> Result<(), tokio_postgres::Error> {
    transaction.execute(RECORD, &[&actor, &action, &message_id, &email_id, detail]).await?;
    Ok(())
}
