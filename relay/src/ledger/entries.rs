//! Which creditor entries a mail or a client has in the ledger. Reads only.

use super::Amount;
use jiff::Timestamp;
use serde::Serialize;
use shared::columns::typed;
use shared::message::{EmailId, MessageId, Stamp};
use tokio_postgres::GenericClient;
use tokio_postgres::Row;

/// The entries that a mail's messages have come to, with what was there before the first of them, and the ledger's rows. By
/// `decisions_email`, then by primary key: the ledger has no index on its mail.
const OF_MAIL: &str = "
select w.client_id, w.entry_key, w.has_written, w.old_amount::text, d.aktenzeichen, d.amount::text, d.stamp, d.message_id, d.email_id,
    d.applied_at
from (
    select distinct on (client_id, entry_key) client ->> 'client_id' as client_id, entry ->> 'entry_key' as entry_key, v.old_amount,
        v.decision <> 'superseded' as has_written
    from decisions v cross join jsonb_array_elements(v.candidates) client cross join jsonb_array_elements(client -> 'entries') entry
    where v.email_id = $1 and v.decision in ('applied', 'already', 'superseded')
    order by client_id, entry_key, v.decision = 'superseded', v.id
) w left join creditor_debts d using (client_id, entry_key)
order by w.client_id, w.entry_key";

/// The rows of clients by number (`creditor_debts_aktenzeichen`) or by `_id` (primary key), all of them or those of one key.
const OF_CLIENT: &str = "
select d.client_id, d.entry_key, true, null::text, d.aktenzeichen, d.amount::text, d.stamp, d.message_id, d.email_id, d.applied_at
from (
    select d.* from unnest($1::text[], $2::text[]) k(client, entry)
    join creditor_debts d on d.aktenzeichen = k.client and d.entry_key = coalesce(k.entry, d.entry_key)
    union
    select d.* from unnest($1::text[], $2::text[]) k(client, entry)
    join creditor_debts d on d.client_id = k.client and d.entry_key = coalesce(k.entry, d.entry_key)
) d
order by d.stamp desc limit $3";

/// The ledger's row of an entry.
#[derive(Debug, Clone, Serialize)]
pub struct LedgerEntry {
    /// `_id` of the client's document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// The client's number.
    pub aktenzeichen: Option<String>,
    /// What Postgres knows to be in MongoDB; exact, as text.
    pub amount: Option<Amount>,
    /// Its stamp, 20 digits.
    pub stamp: Stamp,
    /// The message that brought it there.
    pub message_id: MessageId,
    /// Its mail.
    pub email_id: EmailId,
    /// When.
    pub applied_at: Timestamp,
}

/// An entry that a mail is about.
#[derive(Debug, Clone)]
pub struct MailEntry {
    /// `_id` of the client's document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// Whether the mail has written it; else it found something newer.
    pub has_written: bool,
    /// What was there before the mail.
    pub old_amount: Option<Amount>,
    /// What the ledger has now, of this mail or a newer one.
    pub ledger: Option<LedgerEntry>,
}

impl MailEntry {
    /// As people name it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.client_id, self.entry_key)
    }
}

/// The entries that a mail has written or wanted to write.
///
/// # Errors
/// The statement's.
pub async fn of_mail(
    connection: &impl GenericClient,
    email_id: EmailId,
) -> Result<Vec<MailEntry>, tokio_postgres::Error> {
    let rows = connection.query_typed(OF_MAIL, &typed(&[&email_id])).await?;
    let read = |row: &Row| MailEntry {
        client_id: row.get(0),
        entry_key: row.get(1),
        has_written: row.get(2),
        old_amount: row.get::<_, Option<&str>>(3).and_then(|amount| amount.parse().ok()),
        ledger: ledger_entry(row),
    };
    Ok(rows.iter().map(read).collect())
}

/// The ledger's rows of any of these (client's number or `_id`, entry key or all entries), the newest first.
///
/// # Errors
/// The statement's.
pub async fn of_client(
    connection: &impl GenericClient,
    names: &[(String, Option<String>)],
    limit: i64,
) -> Result<Vec<LedgerEntry>, tokio_postgres::Error> {
    let (clients, entries): (Vec<&str>, Vec<Option<&str>>) =
        names.iter().map(|(client, entry)| (client.as_str(), entry.as_deref())).unzip();
    let rows = connection.query_typed(OF_CLIENT, &typed(&[&clients, &entries, &limit])).await?;
    Ok(rows.iter().filter_map(ledger_entry).collect())
}

fn ledger_entry(row: &Row) -> Option<LedgerEntry> {
    Some(LedgerEntry {
        client_id: row.get(0),
        entry_key: row.get(1),
        aktenzeichen: row.get(4),
        amount: row.get::<_, Option<&str>>(5)?.parse().ok(),
        stamp: Stamp::try_from(row.get::<_, i64>(6)).ok()?, // the table's check keeps it >= 0
        message_id: row.get(7),
        email_id: row.get(8),
        applied_at: row.get(9),
    })
}
