//! What an import writes here. Owns that SQL. Each page is one transaction: mails and their messages, or neither.

use serde_json::{Value, json};
use shared::{
    columns::typed,
    message::EmailId,
    outbox::{INSERT, ONCE},
    postgres::Connection,
};
use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};
use tokio_postgres::Transaction;

/// Which of the mails are here already: imported ($1 = their old ids, `incoming_emails_legacy`), or received by the new ingest
/// ($2 = the providers' ids, `incoming_emails_webhook_unique`).
const KNOWN: &str = "
select legacy_id, webhook_id from incoming_emails where legacy_id = any($1)
union all select legacy_id, webhook_id from incoming_emails where source = 'zendesk' and webhook_id = any($2)";

const IDS: &str =
    "select nextval(pg_get_serial_sequence('incoming_emails', 'id')) from generate_series(1, $1::bigint)";

/// A mail that has arrived in the meantime stays as it is; nothing waits for it but the unique index.
const MAILS: &str = "
insert into incoming_emails (id, source, webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, attachments,
    headers, received_at, received_at_note, cleaned_body, extracted_data, processing_status, processing_error, match_status,
    match_confidence, sync_status, idempotency_key, created_at, processed_at, matched_at, legacy_id)
select id, 'zendesk', webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, attachments,
    headers, received_at, received_at_note, cleaned_body, extracted_data, processing_status, processing_error, match_status,
    match_confidence, sync_status, idempotency_key, created_at, processed_at, matched_at, legacy_id
from jsonb_to_recordset($1) as r(id bigint, webhook_id text, ticket_id text, from_email text, from_name text, subject text,
    body_text text, body_html text, attachments jsonb, headers jsonb, received_at timestamptz, received_at_note text,
    cleaned_body text, extracted_data jsonb, processing_status text, processing_error text, match_status text,
    match_confidence numeric, sync_status text, idempotency_key text, created_at timestamptz, processed_at timestamptz,
    matched_at timestamptz, legacy_id bigint)
order by id on conflict do nothing returning id";

/// $2 = the mails that are new.
static MESSAGES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{INSERT}
select aggregate_type, email_id::text, operation, payload, idempotency_key, null
from jsonb_to_recordset($1) as r(email_id bigint, aggregate_type text, operation text, payload jsonb, idempotency_key text)
where email_id = any($2) order by email_id {ONCE}"
    )
});

/// `incoming_emails_legacy`.
const OURS: &str = "select legacy_id, id from incoming_emails where legacy_id = any($1)";

/// A key that a request has taken here already stays as it is.
const KEYS: &str = "
insert into idempotency_keys (key, result, created_at, expires_at)
select key, result, created_at, expires_at
from jsonb_to_recordset($1) as r(key text, result jsonb, created_at timestamptz, expires_at timestamptz)
order by key on conflict (key) do nothing";

const KNOWN_KEYS: &str = "select count(*) from idempotency_keys where key = any($1)";

/// Those of a page that are here already: by old id, and by the provider's id.
pub(super) async fn known(
    connection: &Connection,
    ids: &[i64],
    webhook_ids: &[String],
) -> Result<(HashSet<i64>, HashSet<String>), tokio_postgres::Error> {
    let rows = connection.query_typed(KNOWN, &typed(&[&ids, &webhook_ids])).await?;
    let by_id = rows.iter().filter_map(|row| row.get(0)).collect();
    Ok((by_id, rows.iter().map(|row| row.get(1)).collect()))
}

/// New ids for so many mails, in order.
pub(super) async fn ids(
    connection: &Connection,
    count: usize,
) -> Result<Vec<EmailId>, tokio_postgres::Error> {
    let count = i64::try_from(count).unwrap_or(0);
    let rows = connection.query_typed(IDS, &typed(&[&count])).await?;
    let mut ids: Vec<EmailId> = rows.iter().map(|row| row.get(0)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Stores mails and the messages of those that are new; returns their ids.
pub(super) async fn store(
    transaction: &Transaction<'_>,
    mails: &[&Value],
    messages: &[&Value],
) -> Result<HashSet<EmailId>, tokio_postgres::Error> {
    let rows = transaction.query_typed(MAILS, &typed(&[&json!(mails)])).await?;
    let new: Vec<EmailId> = rows.iter().map(|row| row.get(0)).collect();
    transaction.execute_typed(&MESSAGES, &typed(&[&json!(messages), &new])).await?;
    Ok(new.into_iter().collect())
}

/// The ids here of mails by their old ids.
pub(super) async fn ours(
    connection: &Connection,
    ids: &[i64],
) -> Result<HashMap<i64, EmailId>, tokio_postgres::Error> {
    let rows = connection.query_typed(OURS, &typed(&[&ids])).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Stores keys; how many were new.
pub(super) async fn store_keys(
    connection: &Connection,
    keys: &[Value],
) -> Result<u64, tokio_postgres::Error> {
    connection.execute_typed(KEYS, &typed(&[&json!(keys)])).await
}

/// How many of these keys are here.
pub(super) async fn known_keys(
    connection: &Connection,
    keys: &[String],
) -> Result<u64, tokio_postgres::Error> {
    let count: i64 = connection.query_typed_one(KNOWN_KEYS, &typed(&[&keys])).await?.get(0);
    Ok(u64::try_from(count).unwrap_or(0))
}
