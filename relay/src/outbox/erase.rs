//! The end of messages whose mails are erased: they are removed, whatever their state, unless somebody is working on one.

use shared::columns::typed;
use shared::message::{EmailId, MessageId};
use tokio_postgres::Transaction;

/// The messages of these mails, held until the end of the transaction. Walks the outbox, since the mail's id has no index: for people,
/// not for loops. A claim that has not ended is somebody's.
const HOLD: &str = "
select id, coalesce(claimed_until > now(), false) from outbox_messages
where aggregate_id = any($1::bigint[]::text[]) order by id for update";

/// Messages that have come since.
const NEW: &str = "
select id from outbox_messages where aggregate_id = any($1::bigint[]::text[]) and id <> all($2) limit 1";

/// By primary key. Of mails that concern others too ($2) only those that name the client, by number ($3) or `_id` ($4).
const REMOVE: &str = "
delete from outbox_messages where id = any($1)
    and (aggregate_id <> all($2::bigint[]::text[]) or payload ->> 'client_aktenzeichen' = any($3) or payload ->> 'client_id' = any($4))";

/// Holds the messages of these mails. Err names one that somebody is working on.
pub(crate) async fn hold(
    transaction: &Transaction<'_>,
    emails: &[EmailId],
) -> Result<Result<Vec<MessageId>, MessageId>, tokio_postgres::Error> {
    let rows = transaction.query_typed(HOLD, &typed(&[&emails])).await?;
    let claimed = rows.iter().find(|row| row.get(1)).map(|row| row.get(0));
    Ok(claimed.map_or_else(|| Ok(rows.iter().map(|row| row.get(0)).collect()), Err))
}

/// A message of these mails beside those that are held.
pub(crate) async fn newcomer(
    transaction: &Transaction<'_>,
    emails: &[EmailId],
    held: &[MessageId],
) -> Result<Option<MessageId>, tokio_postgres::Error> {
    Ok(transaction.query_typed_opt(NEW, &typed(&[&emails, &held])).await?.map(|row| row.get(0)))
}

/// Removes held messages; how many. A worker that still believes in an old claim finds nothing to finish.
pub(crate) async fn remove(
    transaction: &Transaction<'_>,
    held: &[MessageId],
    shared_mails: &[EmailId],
    numbers: &[String],
    client_ids: &[String],
) -> Result<u64, tokio_postgres::Error> {
    transaction.execute_typed(REMOVE, &typed(&[&held, &shared_mails, &numbers, &client_ids])).await
}
