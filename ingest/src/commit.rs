//! THE transaction: idempotency key, mail and first message are stored together or not at all.
//!
//! Owns `idempotency_keys` and the insert into `incoming_emails`. Each attempt is one statement, so it is one transaction
//! without a BEGIN, holds no connection between round trips and works behind a PgBouncer in transaction mode. READ COMMITTED
//! is assumed: who finds the key taken looks at it in a new statement, with a new snapshot.

use crate::email::Email;
use hyper::body::Bytes;
use serde_json::{Value, json};
use shared::{
    message::{EmailId, FIRST_STAMP_SQL, Operation},
    outbox,
    postgres::{is_transient, reason},
};
use std::{sync::LazyLock, time::Duration};
use tokio_postgres::{
    Client, Error,
    error::SqlState,
    types::{ToSql, Type},
};

/// Draws the email's id first, so that the key's result can name it. `lock_timeout` holds for this transaction only; it
/// bounds the wait for a rival's uncommitted key or (source, `webhook_id`).
const START: &str = "with start as materialized (
    select nextval(pg_get_serial_sequence('incoming_emails', 'id')) as id, set_config('lock_timeout', $1, true)
), ";

/// A key that nobody has. Waits on the primary key's index for a rival that is still committing; no row if the key is there.
const NEW_KEY: &str = "key as (
    insert into idempotency_keys (key, fingerprint, result, expires_at)
    select $2, $3, $4 || jsonb_build_object('email_id', start.id), now() + make_interval(secs => $5) from start
    on conflict (key) do nothing
    returning (result ->> 'email_id')::bigint as id
), ";

/// A key whose time is over. Locks the row found by the primary key; a rival that was faster has moved `expires_at`, so that
/// the condition, tested again after the wait, finds nothing. Not part of [`NEW_KEY`]: `do update` would write on every
/// duplicate.
const EXPIRED_KEY: &str = "key as (
    update idempotency_keys k set fingerprint = $3, result = $4 || jsonb_build_object('email_id', start.id),
        created_at = now(), expires_at = now() + make_interval(secs => $5)
    from start where k.key = $2 and k.expires_at <= now()
    returning start.id
), ";

/// The mail, if the key was won. `incoming_emails_webhook_unique` is checked here, after the key: every writer takes the two
/// locks in this order.
const EMAIL: &str = "email as (
    insert into incoming_emails (id, source, webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, raw,
        attachments, received_at, received_at_note, fingerprint, extracted_data, processing_status, idempotency_key)
    select id, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $3, $18, $19, $20 || ':' || id || ':' || $21 from key
    returning id, received_at
) ";

/// The first message. The key of its row is `Operation::key` of the first revision; only a debt update carries a stamp.
static MESSAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} select $22, id::text, $20, $23 || jsonb_build_object('email_id', id) \
         || case when $24 then jsonb_build_object('stamp', {FIRST_STAMP_SQL}) else '{{}}'::jsonb end, \
         $20 || ':' || id || ':0', $25 from email returning aggregate_id::bigint",
        outbox::INSERT
    )
});

static INSERT: LazyLock<String> = LazyLock::new(|| format!("{START}{NEW_KEY}{EMAIL}{}", *MESSAGE));
static TAKE_OVER: LazyLock<String> = LazyLock::new(|| format!("{START}{EXPIRED_KEY}{EMAIL}{}", *MESSAGE));

/// Who has the key. Primary key, no lock.
const HOLDER: &str = "select fingerprint, (result ->> 'email_id')::bigint, expires_at <= now() from idempotency_keys where key = $1";

/// Who has the provider's id. `incoming_emails_webhook_unique`, no lock.
const WEBHOOK_HOLDER: &str =
    "select fingerprint, id from incoming_emails where source = $1 and webhook_id = $2";

/// The constraint behind [`WEBHOOK_HOLDER`].
const WEBHOOK_UNIQUE: &str = "incoming_emails_webhook_unique";

/// Rounds of insert and look before giving up: each further one needs a key to vanish or expire, or a deadlock, in between.
const MAX_ROUNDS: usize = 4;

/// Everything that one request stores.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Who sent it: `incoming_emails.source` and the front of the key.
    pub source: &'static str,
    /// The request key, without the source.
    pub request_key: String,
    /// SHA-256 of the raw body.
    pub fingerprint: [u8; 32],
    /// The body as received.
    pub raw: Bytes,
    /// The mail.
    pub email: Email,
    /// What is to be done with it first.
    pub first: FirstMessage,
    /// The W3C trace context of the request.
    pub traceparent: Option<String>,
}

/// The first message of a mail.
#[derive(Clone, PartialEq)]
pub enum FirstMessage {
    /// The mail has to be read.
    Extraction,
    /// The entities are known already.
    DebtUpdate {
        /// `shared::message::CreditorDebtUpdate` as JSON; the statement puts `email_id` and `stamp` in.
        payload: Value,
        /// What the extraction would have found.
        extracted_data: Value,
        /// The last part of the email's idempotency key.
        key_hash: String,
    },
}

/// Personal data: a `Debug` print shows the kind only.
impl std::fmt::Debug for FirstMessage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            FirstMessage::Extraction => "Extraction",
            FirstMessage::DebtUpdate { .. } => "DebtUpdate(..)",
        })
    }
}

/// The bounds of a commit.
#[derive(Debug, Clone, Copy)]
pub struct CommitLimits {
    /// How long to wait for a rival with the same key.
    pub lock_wait: Duration,
    /// How long a key is remembered.
    pub key_lifetime: Duration,
}

/// What a 200 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Stored now, or found stored.
    pub kind: AnswerKind,
    /// The mail.
    pub email_id: EmailId,
}

/// Stored now, or found stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// This request stored the mail.
    Accepted,
    /// An earlier request with the same content did.
    Duplicate,
}

impl AnswerKind {
    /// The `status` of the answer.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AnswerKind::Accepted => "accepted",
            AnswerKind::Duplicate => "duplicate",
        }
    }

    /// The `message` of the answer.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            AnswerKind::Accepted => "stored; it will be processed",
            AnswerKind::Duplicate => "already received; nothing was stored again",
        }
    }
}

/// Why nothing was stored, or why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The key or the provider's id belongs to other content; sending again changes nothing.
    #[error("the key belongs to other content")]
    Mismatch,
    /// A rival with the same key has not ended within the lock wait; send again later.
    #[error("a rival holds the key")]
    RivalInFlight,
    /// Passes by itself, or the outcome is unknown; sending again with the same key is safe.
    #[error("Postgres: {0}")]
    Unavailable(String),
    /// A bug: the database refuses what ingest let through. SQLSTATE and the names of what refused it, never values.
    #[error("Postgres refused the statement: {0}")]
    Refused(String),
}

/// Stores the request, or finds that it is stored.
///
/// # Errors
/// [`CommitError`].
pub async fn commit(
    client: &Client,
    request: &CommitRequest,
    limits: CommitLimits,
) -> Result<Answer, CommitError> {
    let key = format!("{}:{}", request.source, request.request_key);
    let webhook_id = request.email.webhook_id.as_deref().unwrap_or(&request.request_key);
    let mut statement: &str = &INSERT;
    for _ in 0..MAX_ROUNDS {
        match store(client, statement, request, &key, webhook_id, limits).await {
            Ok(Some(email_id)) => return Ok(Answer { kind: AnswerKind::Accepted, email_id }),
            Ok(None) => {}
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(CommitError::RivalInFlight);
            }
            Err(error) if broke_webhook_unique(&error) => {
                let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                    [(&request.source, Type::TEXT), (&webhook_id, Type::TEXT)];
                if let Some(row) =
                    client.query_typed_opt(WEBHOOK_HOLDER, &parameters).await.map_err(classify)?
                {
                    return duplicate(row.get(0), row.get(1), request);
                }
            }
            // Deadlock or serialization failure: nothing was stored, and the next round meets a rival that has ended.
            Err(error) if error.code().is_some_and(|code| code.code().starts_with("40")) => {}
            Err(error) => return Err(classify(error)),
        }
        let holder = client.query_typed_opt(HOLDER, &[(&key, Type::TEXT)]).await.map_err(classify)?;
        statement = match holder {
            None => &INSERT,
            Some(row) if row.get(2) => &TAKE_OVER,
            Some(row) => return duplicate(row.get(0), row.get(1), request),
        };
    }
    Err(CommitError::Unavailable("the key kept changing hands".into()))
}

/// One attempt, in one transaction; None if the key is not to be had this way.
async fn store(
    client: &Client,
    statement: &str,
    request: &CommitRequest,
    key: &str,
    webhook_id: &str,
    limits: CommitLimits,
) -> Result<Option<EmailId>, Error> {
    let email = &request.email;
    let first = FirstRow::of(&request.first);
    let kind = AnswerKind::Accepted;
    let parameters: [(&(dyn ToSql + Sync), Type); 25] = [
        (&format!("{}ms", limits.lock_wait.as_millis()), Type::TEXT),
        (&key, Type::TEXT),
        (&request.fingerprint.as_slice(), Type::BYTEA),
        (&json!({"status": kind.name(), "message": kind.message()}), Type::JSONB),
        (&limits.key_lifetime.as_secs_f64(), Type::FLOAT8),
        (&request.source, Type::TEXT),
        (&webhook_id, Type::TEXT),
        (&email.ticket_id, Type::TEXT),
        (&email.from_email, Type::TEXT),
        (&email.from_name, Type::TEXT),
        (&email.subject, Type::TEXT),
        (&email.body_text, Type::TEXT),
        (&email.body_html, Type::TEXT),
        (&request.raw.as_ref(), Type::BYTEA),
        (&email.attachments, Type::JSONB),
        (&email.received_at.time, Type::TIMESTAMPTZ),
        (&email.received_at.note, Type::TEXT),
        (&first.extracted_data, Type::JSONB),
        (&first.processing_status, Type::TEXT),
        (&first.operation.name(), Type::TEXT),
        (&first.key_hash, Type::TEXT),
        (&first.operation.aggregate_type(), Type::TEXT),
        (&first.payload, Type::JSONB),
        (&first.stamped, Type::BOOL),
        (&request.traceparent, Type::TEXT),
    ];
    // Returns after ReadyForQuery, so after the commit.
    let row = client.query_typed_opt(statement, &parameters).await?;
    Ok(row.map(|row| row.get(0)))
}

/// What the kind of the first message puts into the rows.
struct FirstRow<'a> {
    operation: Operation,
    payload: Value,
    stamped: bool,
    processing_status: &'static str,
    extracted_data: Option<&'a Value>,
    key_hash: Option<&'a str>,
}

impl FirstRow<'_> {
    fn of(first: &FirstMessage) -> FirstRow<'_> {
        match first {
            FirstMessage::Extraction => FirstRow {
                operation: Operation::EmailExtraction,
                payload: json!({}),
                stamped: false,
                processing_status: "received",
                extracted_data: None,
                key_hash: None,
            },
            FirstMessage::DebtUpdate { payload, extracted_data, key_hash } => FirstRow {
                operation: Operation::CreditorDebtUpdate,
                payload: payload.clone(),
                stamped: true,
                processing_status: "extracted",
                extracted_data: Some(extracted_data),
                key_hash: Some(key_hash),
            },
        }
    }
}

/// The request that stored it has the same content, or it has not.
fn duplicate(fingerprint: &[u8], email_id: EmailId, request: &CommitRequest) -> Result<Answer, CommitError> {
    if fingerprint == request.fingerprint {
        Ok(Answer { kind: AnswerKind::Duplicate, email_id })
    } else {
        Err(CommitError::Mismatch)
    }
}

fn broke_webhook_unique(error: &Error) -> bool {
    error.as_db_error().is_some_and(|server| {
        *server.code() == SqlState::UNIQUE_VIOLATION && server.constraint() == Some(WEBHOOK_UNIQUE)
    })
}

/// A missing table or column is a migration that has not run yet, which passes.
fn classify(error: Error) -> CommitError {
    let Some(server) = error.as_db_error() else { return CommitError::Unavailable(reason(&error)) };
    let code = server.code();
    // The server's words only where they name objects of the schema: elsewhere they may quote values.
    let message = code.code().starts_with("42").then(|| server.message());
    let words = [Some(code.code()), server.table(), server.column(), server.constraint(), message];
    let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if is_transient(&error) || [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code) {
        CommitError::Unavailable(words)
    } else {
        CommitError::Refused(words)
    }
}
