//! The debt update of a mail as it stands now: its newest message's, else one that is made again from what is stored of the mail.
//! Reads only; what operators enqueue again starts here.

use crate::{
    debt_update::{self, Head, Reading},
    ledger::entries,
    legacy::IMPORTED,
};
use jiff::Timestamp;
use serde_json::Value;
use shared::columns::typed;
use shared::message::{CreditorDebtUpdate, EmailId, MessageId, Operation, Revision, Stamp};
use tokio_postgres::GenericClient;

/// Holds the mail's row, so that of two people one goes first. By primary key.
const LOCK: &str =
    "select from_email, received_at, extracted_data, legacy_id is not null, text_removed_at, text_removed_by
    from incoming_emails where id = $1 for update";

/// The mail's debt update of the highest stamp, by the unique index on `idempotency_key` and, for those that a person or a repair has
/// made, through `decisions_email` by primary key.
const NEWEST: &str = "
select o.id, o.payload, o.processed_at is null and o.dead_at is null, o.outcome is not distinct from 'discarded'
from outbox_messages o
where o.id in (select id from outbox_messages where idempotency_key = any($2) union select message_id from decisions where email_id = $1)
    and o.operation = 'creditor_debt_update'
order by o.payload ->> 'stamp' collate \"C\" desc, (o.payload ->> 'origin' = 'repair'), o.id desc limit 1";

/// By `decisions_email`: how often a person has accepted the mail's amount.
const ACCEPTED: &str = "select count(*) from decisions where email_id = $1 and decision = 'accepted'";

/// Why there is no telling how an update stands.
#[derive(Debug, thiserror::Error)]
pub enum CurrentError {
    /// Postgres failed.
    #[error("Postgres: {}", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// What is stored is from another version.
    #[error("what is stored of email {0} cannot be read by this version: {1}")]
    Unreadable(EmailId, String),
}

/// What is stored of a mail, as far as an update repeats it.
#[derive(Debug)]
pub struct Mail {
    email_id: EmailId,
    from_email: String,
    received_at: Timestamp,
    /// What was read in it; None = nobody has read it.
    pub extracted_data: Option<Value>,
    /// Whether it comes from the replaced service, whose writes carry no mark.
    pub is_imported: bool,
    /// When its text was removed, and by what: retention or erasure.
    pub text_removed: Option<(Timestamp, String)>,
}

/// A mail's newest debt update.
#[derive(Debug)]
pub struct Newest {
    /// Its message.
    pub message_id: MessageId,
    /// Its payload.
    pub update: CreditorDebtUpdate,
    /// Whether it has still to be carried out.
    pub is_waiting: bool,
    /// Whether somebody has ended it unwritten.
    pub is_discarded: bool,
}

/// The mail, and its row held until the end of the transaction; None if there is none.
///
/// # Errors
/// The statement's.
pub async fn lock(
    transaction: &impl GenericClient,
    email_id: EmailId,
) -> Result<Option<Mail>, tokio_postgres::Error> {
    let row = transaction.query_typed_opt(LOCK, &typed(&[&email_id])).await?;
    Ok(row.map(|row| Mail {
        email_id,
        from_email: row.get(0),
        received_at: row.get(1),
        extracted_data: row.get(2),
        is_imported: row.get(3),
        text_removed: row.get::<_, Option<Timestamp>>(4).zip(row.get(5)),
    }))
}

/// The mail's newest debt update, if its message is still there.
///
/// # Errors
/// [`CurrentError`].
pub async fn newest(
    connection: &impl GenericClient,
    email_id: EmailId,
) -> Result<Option<Newest>, CurrentError> {
    let keys = Operation::possible_keys(email_id);
    let Some(row) = connection.query_typed_opt(NEWEST, &typed(&[&email_id, &keys])).await? else {
        return Ok(None);
    };
    let update = serde_json::from_value(row.get(1)).map_err(|error| unreadable(email_id, &error))?;
    Ok(Some(Newest { message_id: row.get(0), update, is_waiting: row.get(2), is_discarded: row.get(3) }))
}

/// The update made again from what was read in the mail, as the extraction makes it, and from what the ledger has of it: that is what a
/// person has decided. None = the mail is not read, or no creditor's reply.
///
/// # Errors
/// [`CurrentError`].
pub async fn rebuilt(
    connection: &impl GenericClient,
    mail: &Mail,
) -> Result<Option<CreditorDebtUpdate>, CurrentError> {
    let Some(data) = &mail.extracted_data else { return Ok(None) };
    let email_id = mail.email_id;
    let reading: Reading =
        serde_json::from_value(data.clone()).map_err(|error| unreadable(email_id, &error))?;
    if !reading.is_creditor_reply {
        return Ok(None);
    }
    let accepted: i64 = connection.query_typed_one(ACCEPTED, &typed(&[&email_id])).await?.get(0);
    let first = Stamp::new(mail.received_at, email_id, Revision::FIRST);
    let mut stamp = first.map_err(|error| CurrentError::Unreadable(email_id, error.to_string()))?;
    for _ in 0..accepted {
        stamp = stamp.next_revision().unwrap_or(stamp);
    }
    let head = Head { email_id, from_email: &mail.from_email, received_at: mail.received_at };
    let mut update = debt_update::of_reading(head, &reading, stamp);
    let entries = entries::of_mail(connection, email_id).await?;
    let mut own = entries.into_iter().filter_map(|entry| entry.ledger).filter(|row| row.email_id == email_id);
    if let (Some(row), None) = (own.next(), own.next()) {
        update.new_debt_amount = row.amount;
        update.stamp = row.stamp;
        (update.client_id, update.entry_key) = (Some(row.client_id), Some(row.entry_key));
    }
    if mail.is_imported {
        update.hold.get_or_insert_with(|| IMPORTED.to_owned());
    }
    Ok(Some(update))
}

/// Never the value itself: serde's own words may quote it.
fn unreadable(email_id: EmailId, error: &serde_json::Error) -> CurrentError {
    CurrentError::Unreadable(email_id, format!("{:?}", error.classify()).to_lowercase())
}
