//! The end of a parked message that a person has decided on otherwise.

use shared::columns::typed;
use shared::message::MessageId;
use tokio_postgres::Transaction;

/// By primary key. Waits for nobody: a row that a worker has locked is being claimed or finished. The claim count fences off a
/// worker whose lease has ended.
const DISCARD: &str = "
with parked as materialized (
    select id from outbox_messages
    where id = $1 and processed_at is null and dead_at is null and (claimed_until is null or claimed_until <= now())
    for update skip locked
)
update outbox_messages o set claim_count = o.claim_count + 1, unfinished_claims = 0, claimed_until = null, claimed_by = null,
    deferred = false, processed_at = now(), outcome = 'discarded', error_class = null, error_message = null
from parked where o.id = parked.id";

/// Ends a waiting message as discarded, in the transaction of what takes its place. False if a worker has it right now, or if it
/// waits no more.
///
/// # Errors
/// The statement's.
pub async fn discard(
    transaction: &Transaction<'_>,
    message_id: MessageId,
) -> Result<bool, tokio_postgres::Error> {
    Ok(transaction.execute_typed(DISCARD, &typed(&[&message_id])).await? == 1)
}
