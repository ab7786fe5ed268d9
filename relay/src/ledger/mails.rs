//! What steps around the debt update read of their mails. Owns those reads of `incoming_emails`.

use shared::{
    columns::typed,
    message::{EmailId, MessageId},
    money::Amount,
    postgres::Connection,
};
use std::collections::HashMap;

/// What the extraction reads of a mail.
#[derive(Debug)]
pub struct StoredMail {
    /// Its id.
    pub email_id: EmailId,
    /// Its subject, empty if it has none.
    pub subject: String,
    /// The sender's address.
    pub from_email: String,
    /// The sender's display name.
    pub from_name: Option<String>,
    /// The text part.
    pub body_text: Option<String>,
    /// The HTML part.
    pub body_html: Option<String>,
    /// When it was received.
    pub received_at: jiff::Timestamp,
    /// The mail's headers where the source gives them: an object, name to value.
    pub headers: Option<serde_json::Value>,
    /// Whether its text was removed: by retention, or since somebody asked for it.
    pub is_text_removed: bool,
}

/// By primary key.
const READ_MAILS: &str = "
select id, coalesce(subject, ''), from_email, from_name, body_text, body_html, received_at, headers,
    text_removed_at is not null
from incoming_emails where id = any($1)";

/// The mails of these ids; one that is not there is absent.
///
/// # Errors
/// The statement's.
pub async fn mails(
    connection: &Connection,
    ids: &[EmailId],
) -> Result<HashMap<EmailId, StoredMail>, tokio_postgres::Error> {
    let rows = connection.query_often(READ_MAILS, &typed(&[&ids])).await?;
    let read = |row: &tokio_postgres::Row| StoredMail {
        email_id: row.get(0),
        subject: row.get(1),
        from_email: row.get(2),
        from_name: row.get(3),
        body_text: row.get(4),
        body_html: row.get(5),
        received_at: row.get(6),
        headers: row.get(7),
        is_text_removed: row.get(8),
    };
    Ok(rows.iter().map(|row| (row.get(0), read(row))).collect())
}

/// By primary key.
const READ_TICKETS: &str =
    "select id, ticket_id from incoming_emails where id = any($1) and ticket_id is not null";

/// The tickets of these mails; a mail without one is absent.
///
/// # Errors
/// The statement's.
pub async fn tickets(
    connection: &Connection,
    ids: &[EmailId],
) -> Result<HashMap<EmailId, String>, tokio_postgres::Error> {
    let rows = connection.query_often(READ_TICKETS, &typed(&[&ids])).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What a letter that asks for a decision says of its mail.
#[derive(Debug)]
pub struct UnsettledMail {
    /// Its ticket.
    pub ticket_id: Option<String>,
    /// The sender's address.
    pub from_email: String,
    /// Whether client and creditor were found.
    pub match_status: Option<String>,
    /// The latest decision, if there is one.
    pub decision: Option<String>,
    /// Its reason.
    pub reason: Option<String>,
    /// What it could have been: `[{client_id, aktenzeichen, entries: [{entry_key, name}]}]`.
    pub candidates: Option<serde_json::Value>,
    /// What MongoDB had then.
    pub old_amount: Option<Amount>,
    /// The payload of the debt update that waits.
    pub update: Option<serde_json::Value>,
    /// Whether that has come to a good end meanwhile.
    pub update_is_done: bool,
}

/// By primary keys, and `decisions_email`.
const READ_UNSETTLED: &str = "
select r.message_id, m.ticket_id, m.from_email, m.match_status, d.decision, d.reason, d.candidates, d.old_amount::text, o.payload,
    o.processed_at is not null
from unnest($1::bigint[], $2::bigint[]) as r(email_id, message_id)
join incoming_emails m on m.id = r.email_id
left join outbox_messages o on o.id = r.message_id
left join lateral (select * from decisions where email_id = r.email_id order by id desc limit 1) d on true";

/// The mails of these debt updates, by the updates' ids.
///
/// # Errors
/// The statement's.
pub async fn unsettled(
    connection: &Connection,
    keys: &[(EmailId, MessageId)],
) -> Result<HashMap<MessageId, UnsettledMail>, tokio_postgres::Error> {
    let (mails, messages): (Vec<EmailId>, Vec<MessageId>) = keys.iter().copied().unzip();
    let rows = connection.query_often(READ_UNSETTLED, &typed(&[&mails, &messages])).await?;
    let read = |row: &tokio_postgres::Row| UnsettledMail {
        ticket_id: row.get(1),
        from_email: row.get(2),
        match_status: row.get(3),
        decision: row.get(4),
        reason: row.get(5),
        candidates: row.get(6),
        old_amount: row.get::<_, Option<String>>(7).and_then(|amount| amount.parse().ok()),
        update: row.get(8),
        update_is_done: row.get(9),
    };
    Ok(rows.iter().map(|row| (row.get(0), read(row))).collect())
}
