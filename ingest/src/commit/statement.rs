//! The statements of a commit. All of them take any number of requests as columns, so that one and many are stored alike.

use super::{AnswerKind, CommitLimits, CommitRequest, FirstMessage};
use serde_json::{Value, json};
use shared::{
    columns::{Column, column, typed},
    message::{EmailId, FIRST_STAMP_SQL, Operation},
    outbox,
    postgres::Connection,
};
use std::{borrow::Cow, collections::HashMap, sync::LazyLock};
use tokio_postgres::{Error, types::Type};

/// $4 to $25 = [`columns_of`]. Draws each mail's id first, so that the key's result can name it; in the order of arrival.
/// Settings hold for this transaction only: `lock_timeout` bounds the wait for a rival's uncommitted key or (source, `webhook_id`), and
/// a 200 means that the commit is on the disk, whatever the role or the database is set to.
const START: &str = "with r as materialized (
    select r.*, nextval(pg_get_serial_sequence('incoming_emails', 'id')) as id
    from unnest($4::text[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
        $13::text[], $14::bytea[], $15::jsonb[], $16::timestamptz[], $17::text[], $18::jsonb[], $19::text[], $20::text[],
        $21::text[], $22::text[], $23::jsonb[], $24::bool[], $25::text[])
        as r(key, fingerprint, source, webhook_id, ticket_id, from_email, from_name, subject, body_text,
            body_html, raw, attachments, received_at, received_at_note, extracted_data, processing_status, operation,
            key_hash, aggregate_type, payload, stamped, traceparent)
), settings as materialized (
    select set_config('lock_timeout', $1, true),
        case current_setting('synchronous_commit') when 'off' then set_config('synchronous_commit', 'on', true) end
), ";

/// Keys that nobody has. Waits on the primary key's index for a rival that is still committing; no row of a key that is there.
/// Sorted: two batches that want the same keys in different orders would wait for each other.
const NEW_KEYS: &str = "won as (
    insert into idempotency_keys (key, fingerprint, result, expires_at)
    select key, fingerprint, $2::jsonb || jsonb_build_object('email_id', id), now() + make_interval(secs => $3) from r, settings
    order by key
    on conflict (key) do nothing
    returning key
), ";

/// A key whose time is over. Locks the row found by the primary key; a rival that was faster has moved `expires_at`, so that
/// the condition, tested again after the wait, finds nothing. Not part of [`NEW_KEYS`]: `do update` would write on every
/// duplicate. For one request at a time: nothing here sorts.
const EXPIRED_KEY: &str = "won as (
    update idempotency_keys k set fingerprint = r.fingerprint, result = $2::jsonb || jsonb_build_object('email_id', r.id),
        created_at = now(), expires_at = now() + make_interval(secs => $3)
    from r, settings where k.key = r.key and k.expires_at <= now()
    returning k.key
), ";

/// The mails whose key was won, and their first messages. `incoming_emails_webhook_unique` is checked here, after the keys: every
/// writer takes the two locks in this order. The key of a message is `Operation::key` of the first revision; only a debt update
/// carries a stamp.
static ROWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "emails as (
    insert into incoming_emails (id, source, webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, raw,
        attachments, received_at, received_at_note, fingerprint, extracted_data, processing_status, idempotency_key)
    select id, source, webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, raw,
        attachments, received_at, received_at_note, fingerprint, extracted_data, processing_status,
        operation || ':' || id || ':' || key_hash
    from r where key in (select key from won) order by id
    returning id
), messages as (
    {} select aggregate_type, id::text, operation, payload || jsonb_build_object('email_id', id)
        || case when stamped then jsonb_build_object('stamp', {FIRST_STAMP_SQL}) else '{{}}'::jsonb end,
        operation || ':' || id || ':0', traceparent
    from r where id in (select id from emails) order by id
)
select key, id from r where key in (select key from won)",
        outbox::INSERT
    )
});

static INSERT: LazyLock<String> = LazyLock::new(|| format!("{START}{NEW_KEYS}{}", *ROWS));
pub(super) static TAKE_OVER: LazyLock<String> = LazyLock::new(|| format!("{START}{EXPIRED_KEY}{}", *ROWS));

/// Who has the keys. Primary key, no lock.
const HOLDERS: &str = "select key, fingerprint, (result ->> 'email_id')::bigint, expires_at <= now()
    from idempotency_keys where key = any($1)";

/// Who has the provider's ids, in their order. `incoming_emails_webhook_unique`, no lock.
const DELIVERIES: &str = "select e.fingerprint, e.id
    from unnest($1::text[], $2::text[]) with ordinality as r(source, webhook_id, place)
    left join incoming_emails e on e.source = r.source and e.webhook_id = r.webhook_id order by r.place";

/// The constraint behind [`DELIVERIES`].
pub(super) const WEBHOOK_UNIQUE: &str = "incoming_emails_webhook_unique";

/// Who has a key or a provider's id.
#[derive(Debug)]
pub struct Holder {
    /// SHA-256 of its raw body; None = unknown, since it was imported or erased.
    pub fingerprint: Option<[u8; 32]>,
    /// Its mail.
    pub email_id: EmailId,
    /// Whether its time is over.
    pub is_expired: bool,
}

/// Stores all whose key nobody has, in one transaction; keys and mails of those. No two may have the same key.
///
/// # Errors
/// The statement's; nothing was stored then, unless the connection was lost.
pub async fn store(
    client: &Connection,
    requests: &[&CommitRequest],
    limits: CommitLimits,
) -> Result<HashMap<String, EmailId>, Error> {
    insert(client, &INSERT, requests, limits).await
}

pub(super) async fn insert(
    client: &Connection,
    statement: &str,
    requests: &[&CommitRequest],
    limits: CommitLimits,
) -> Result<HashMap<String, EmailId>, Error> {
    let lock_wait = format!("{}ms", limits.lock_wait.as_millis());
    let kind = AnswerKind::Accepted;
    let result = json!({"status": kind.name(), "message": kind.message()});
    let lifetime = limits.key_lifetime.as_secs_f64();
    let firsts: Vec<FirstRow<'_>> = requests.iter().map(|request| FirstRow::of(&request.first)).collect();
    let columns = columns_of(requests, &firsts.iter().collect::<Vec<_>>());
    let mut parameters = typed(&[&lock_wait, &result, &lifetime]);
    parameters.extend(columns.iter().map(|column| column.parameter()));
    // Returns after ReadyForQuery, so after the commit.
    let rows = client.query_often(statement, &parameters).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Who has these keys.
///
/// # Errors
/// The statement's.
pub async fn holders(client: &Connection, keys: &[&str]) -> Result<HashMap<String, Holder>, Error> {
    let rows = client.query_typed(HOLDERS, &[(&keys, Type::TEXT_ARRAY)]).await?;
    let holder = |row: &tokio_postgres::Row| {
        (
            row.get(0),
            Holder { fingerprint: fingerprint(row.get(1)), email_id: row.get(2), is_expired: row.get(3) },
        )
    };
    Ok(rows.iter().map(holder).collect())
}

/// Who has the provider's id of each of these requests, under whatever key.
///
/// # Errors
/// The statement's.
pub(super) async fn deliveries(
    client: &Connection,
    requests: &[&CommitRequest],
) -> Result<Vec<Option<Holder>>, Error> {
    let sources: Vec<_> = requests.iter().map(|request| request.source).collect();
    let ids: Vec<_> = requests.iter().map(|request| request.webhook_id()).collect();
    let rows =
        client.query_typed(DELIVERIES, &[(&sources, Type::TEXT_ARRAY), (&ids, Type::TEXT_ARRAY)]).await?;
    let holder = |row: &tokio_postgres::Row| {
        let email_id = row.get::<_, Option<EmailId>>(1)?;
        Some(Holder { fingerprint: fingerprint(row.get(0)), email_id, is_expired: false })
    };
    Ok(rows.iter().map(holder).collect())
}

/// The tables hold 32 bytes or nothing; any other length would be no fingerprint of ours.
fn fingerprint(bytes: Option<&[u8]>) -> Option<[u8; 32]> {
    bytes.map(|bytes| bytes.try_into().unwrap_or_default())
}

fn columns_of<'a>(requests: &[&'a CommitRequest], firsts: &[&'a FirstRow<'a>]) -> Vec<Column<'a>> {
    vec![
        column(requests, |request| request.key()),
        column(requests, |request| request.fingerprint.as_slice()),
        column(requests, |request| request.source),
        column(requests, |request| request.webhook_id()),
        column(requests, |request| request.email.ticket_id.as_deref()),
        column(requests, |request| request.email.from_email.as_str()),
        column(requests, |request| request.email.from_name.as_deref()),
        column(requests, |request| request.email.subject.as_deref()),
        column(requests, |request| request.email.body_text.as_deref()),
        column(requests, |request| request.email.body_html.as_deref()),
        column(requests, |request| request.raw.as_ref()),
        column(requests, |request| request.email.attachments.as_ref()),
        column(requests, |request| request.email.received_at.time),
        column(requests, |request| request.email.received_at.note),
        column(firsts, |first| first.extracted_data),
        column(firsts, |first| first.processing_status),
        column(firsts, |first| first.operation.name()),
        column(firsts, |first| first.key_hash),
        column(firsts, |first| first.operation.aggregate_type()),
        column(firsts, |first| first.payload.as_ref()),
        column(firsts, |first| first.stamped),
        column(requests, |request| request.traceparent.to_string()),
    ]
}

/// What the kind of the first message puts into the rows.
struct FirstRow<'a> {
    operation: Operation,
    payload: Cow<'a, Value>,
    stamped: bool,
    processing_status: &'static str,
    extracted_data: Option<&'a Value>,
    key_hash: Option<&'a str>,
}

impl FirstRow<'_> {
    fn of(first: &FirstMessage) -> FirstRow<'_> {
        match first {
            FirstMessage::Extraction => FirstRow {
                operation: first.operation(),
                payload: Cow::Owned(json!({})),
                stamped: false,
                processing_status: "received",
                extracted_data: None,
                key_hash: None,
            },
            FirstMessage::Fetch { provider_id } => FirstRow {
                operation: first.operation(),
                payload: Cow::Owned(json!({ "provider_id": provider_id })),
                stamped: false,
                processing_status: "received",
                extracted_data: None,
                key_hash: None,
            },
            FirstMessage::DebtUpdate { payload, extracted_data, key_hash } => FirstRow {
                operation: first.operation(),
                payload: Cow::Borrowed(payload),
                stamped: true,
                processing_status: "extracted",
                extracted_data: Some(extracted_data),
                key_hash: Some(key_hash),
            },
        }
    }
}
