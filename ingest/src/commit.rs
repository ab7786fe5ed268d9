//! THE transaction: idempotency key, mail and first message are stored together or not at all.
//!
//! Owns `idempotency_keys` and the insert into `incoming_emails`. Each attempt is one statement, so it is one transaction
//! without a BEGIN, holds no connection between round trips and works behind a PgBouncer in transaction mode. READ COMMITTED
//! is assumed: who finds the key taken looks at it in a new statement, with a new snapshot.
//!
//! [`commit`] is one request to its answer. [`store`], [`holders`] and [`known`] are its steps for many at once: who cannot be told
//! from them goes through [`commit`].

mod statement;

use crate::email::Email;
use hyper::body::Bytes;
use serde_json::Value;
use shared::{
    message::{EmailId, Operation},
    postgres::{Connection, is_transient, reason},
    trace::TraceParent,
};
pub use statement::{Holder, holders, store};
use statement::{TAKE_OVER, WEBHOOK_UNIQUE, deliveries, insert};
use std::time::Duration;
use tokio_postgres::{Error, error::SqlState};

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
    /// The request's place in its trace, where the message goes on from.
    pub traceparent: TraceParent,
}

impl CommitRequest {
    /// The key as it is stored: keys of two sources never meet.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}:{}", self.source, self.request_key)
    }

    /// The permanent name of the delivery: the provider's id, or the request key.
    fn webhook_id(&self) -> &str {
        self.email.webhook_id.as_deref().unwrap_or(&self.request_key)
    }
}

/// The first message of a mail.
#[derive(Clone, PartialEq)]
pub enum FirstMessage {
    /// The mail has to be read.
    Extraction,
    /// Its body has to be fetched before that.
    Fetch {
        /// The provider's id of the mail; the statement puts `email_id` beside it.
        provider_id: String,
    },
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

impl FirstMessage {
    /// What it does.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            FirstMessage::Extraction => Operation::EmailExtraction,
            FirstMessage::Fetch { .. } => Operation::EmailFetch,
            FirstMessage::DebtUpdate { .. } => Operation::CreditorDebtUpdate,
        }
    }
}

/// Personal data: a `Debug` print shows the kind only.
impl std::fmt::Debug for FirstMessage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            FirstMessage::Extraction => "Extraction",
            FirstMessage::Fetch { .. } => "Fetch(..)",
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
    client: &Connection,
    request: &CommitRequest,
    limits: CommitLimits,
) -> Result<Answer, CommitError> {
    let key = request.key();
    let mut is_expired = false;
    for _ in 0..MAX_ROUNDS {
        let stored = match is_expired {
            true => insert(client, &TAKE_OVER, &[request], limits).await,
            false => store(client, &[request], limits).await,
        };
        match stored {
            Ok(stored) => {
                if let Some(email_id) = stored.get(&key) {
                    return Ok(Answer { kind: AnswerKind::Accepted, email_id: *email_id });
                }
            }
            Err(error) if waited_in_vain(&error) => return Err(CommitError::RivalInFlight),
            Err(error) if broke_webhook_unique(&error) => {
                let known = deliveries(client, &[request]).await.map_err(classify)?;
                if let Some(holder) = known.into_iter().flatten().next() {
                    return holder.answer(request);
                }
            }
            // Deadlock or serialization failure: nothing was stored, and the next round meets a rival that has ended.
            Err(error) if is_conflict(&error) => {}
            Err(error) => return Err(classify(error)),
        }
        let holder = holders(client, &[&key]).await.map_err(classify)?.remove(&key);
        is_expired = match holder {
            None => false,
            Some(holder) if holder.is_expired => true,
            Some(holder) => return holder.answer(request),
        };
    }
    Err(CommitError::Unavailable("the key kept changing hands".into()))
}

impl Holder {
    /// The request that stored it has the same content, or it has not. Where that content is unknown, the key alone says that it is a
    /// repeat: what was sent to the replaced service is not to be processed twice.
    ///
    /// # Errors
    /// [`CommitError::Mismatch`].
    pub fn answer(&self, request: &CommitRequest) -> Result<Answer, CommitError> {
        if self.fingerprint.is_none_or(|fingerprint| fingerprint == request.fingerprint) {
            Ok(Answer { kind: AnswerKind::Duplicate, email_id: self.email_id })
        } else {
            Err(CommitError::Mismatch)
        }
    }
}

/// Somebody else was in the way: the same statement may pass the next time.
#[must_use]
pub fn is_contested(error: &Error) -> bool {
    is_conflict(error) || waited_in_vain(error)
}

/// Deadlock or serialization.
fn is_conflict(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("40"))
}

/// A rival had not ended within the lock wait.
fn waited_in_vain(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// Refused for good, and not because the schema does not fit: another row of the same statement may be to blame.
#[must_use]
pub fn may_be_a_rows_fault(error: &Error) -> bool {
    !is_transient(error)
        && error.code().is_some_and(|code| !matches!(code.code().get(..2), Some("26" | "42")))
}

/// Where a request is stored already.
#[derive(Debug)]
pub enum Known {
    /// Its key is taken.
    ByKey(Holder),
    /// Its key is not, but the provider's id is known.
    ByDelivery(Holder),
}

/// Which of the requests are stored already, in their order.
///
/// # Errors
/// The statements'.
pub async fn known(client: &Connection, requests: &[&CommitRequest]) -> Result<Vec<Option<Known>>, Error> {
    let keys: Vec<_> = requests.iter().map(|request| request.key()).collect();
    let mut holders = holders(client, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let deliveries = deliveries(client, requests).await?;
    let each = keys.iter().zip(deliveries).map(|(key, delivery)| {
        let by_key = holders.remove(key).filter(|holder| !holder.is_expired).map(Known::ByKey);
        by_key.or(delivery.map(Known::ByDelivery))
    });
    Ok(each.collect())
}

/// Another mail has the provider's id of one of the rows.
#[must_use]
pub fn broke_webhook_unique(error: &Error) -> bool {
    error.as_db_error().is_some_and(|server| {
        *server.code() == SqlState::UNIQUE_VIOLATION && server.constraint() == Some(WEBHOOK_UNIQUE)
    })
}

/// A missing table, column or right is a migration that has not run yet, or has not come to the rights, which passes; so does a statement
/// that a pooler has forgotten.
#[must_use]
pub fn classify(error: Error) -> CommitError {
    let Some(server) = error.as_db_error() else { return CommitError::Unavailable(reason(&error)) };
    let code = server.code();
    // The server's words only where they name objects of the schema: elsewhere they may quote values.
    let message = code.code().starts_with("42").then(|| server.message());
    let words = [Some(code.code()), server.table(), server.column(), server.constraint(), message];
    let words = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    let passes = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::INVALID_SQL_STATEMENT_NAME,
    ];
    if is_transient(&error) || passes.contains(code) {
        CommitError::Unavailable(words)
    } else {
        CommitError::Refused(words)
    }
}
