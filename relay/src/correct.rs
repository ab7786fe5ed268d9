//! Puts an amount right that a mail has brought into MongoDB, or gives back the one before it.
//!
//! Enqueues an ordinary debt update with its own time as stamp: newer than every mail so far, older than every mail to come. Never
//! changes a message or a document itself.

use crate::{
    current_update::{self, CurrentError},
    debt_update,
    ledger::{
        self,
        entries::{self, LedgerEntry, MailEntry},
    },
    operator,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use shared::{
    columns::{Typed, typed},
    message::{CreditorDebtUpdate, EmailId, MessageId, Operation, Origin, Revision, Stamp},
    money::Amount,
    postgres::Connection,
};
use tokio_postgres::Transaction;
use tokio_postgres::types::Json;

/// The latest correction of an entry that has still to be carried out. By `decisions_email`, then by primary key.
const WAITING: &str = "
select o.id, o.payload ->> 'new_debt_amount', o.payload ->> 'stamp'
from decisions d join outbox_messages o on o.id = d.message_id
where d.email_id = $1 and d.decision in ('corrected', 'reverted') and o.processed_at is null and o.dead_at is null
    and o.payload ->> 'client_id' = $2 and o.payload ->> 'entry_key' = $3
order by d.id desc limit 1";

/// Milliseconds, after whatever the transaction has waited for.
const NOW: &str = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";

/// What is right.
#[derive(Debug, Clone, Copy)]
pub enum Right {
    /// This amount.
    Amount(Amount),
    /// What was there before the mail.
    Before,
}

/// What a person asks for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The right amount.
    pub right: Right,
    /// `CLIENT_ID/ENTRY_KEY`, where the mail has written several entries.
    pub entry: Option<String>,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A message will write it.
    Enqueued,
    /// A message of before will write it; nothing was changed.
    Waiting,
    /// The ledger has it; nothing was changed.
    Stored,
}

/// An amount that is or will be right: what `relay correct --json` prints.
#[derive(Debug, Serialize)]
pub struct Corrected {
    /// The mail.
    pub email_id: EmailId,
    /// `enqueued`, `waiting` or `stored`.
    pub state: State,
    /// `_id` of the client's document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// The client's number.
    pub aktenzeichen: Option<String>,
    /// What the ledger has; exact, as text.
    pub old_amount: Option<Amount>,
    /// What is right.
    pub new_amount: Amount,
    /// The message that will write it; null where it is stored.
    pub message_id: Option<MessageId>,
}

/// Why an amount cannot be put right.
#[derive(Debug, thiserror::Error)]
pub enum CorrectError {
    /// Unknown id.
    #[error("there is no email {0}")]
    NoMail(EmailId),
    /// Nothing in the ledger goes back to the mail.
    #[error(
        "email {0} has written no amount: see `relay explain {0}`; a held one is decided by `relay review accept`"
    )]
    NothingWritten(EmailId),
    /// A newer one has taken its place.
    #[error(
        "what email {0} wrote to {1} has been replaced by email {2}: put that one right, `relay correct {2}`"
    )]
    Newer(EmailId, String, EmailId),
    /// The mail means several.
    #[error("email {0} has written several entries: name one with --creditor: {1}")]
    Several(EmailId, String),
    /// Another one was named.
    #[error("email {0} has not written the entry {1}, but: {2}")]
    OtherEntry(EmailId, String, String),
    /// Nothing to go back to.
    #[error("no amount is known from before email {0}: give the right one with --amount")]
    NothingBefore(EmailId),
    /// What it was made from is gone.
    #[error("what email {0} says is not known any more")]
    NoUpdate(EmailId),
    /// There is no later time.
    #[error("the entry's stamp leaves no room for a newer one: see `relay explain {0}`")]
    NoStamp(EmailId),
    /// Another correction was made at the same moment.
    #[error("email {0} is being put right by somebody else: try again")]
    Rival(EmailId),
    /// The stored update.
    #[error(transparent)]
    Current(#[from] CurrentError),
    /// Postgres failed; nothing was changed.
    #[error("Postgres: {}", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// Enqueues the right amount for the entry that the mail has written last. The same amount once more changes nothing.
///
/// # Errors
/// [`CorrectError`]; nothing was changed.
pub async fn correct(
    connection: &mut Connection,
    email_id: EmailId,
    wish: &Wish,
) -> Result<Corrected, CorrectError> {
    let transaction = connection.transaction().await?;
    let mail = current_update::lock(&transaction, email_id).await?.ok_or(CorrectError::NoMail(email_id))?;
    if mail.text_removed.as_ref().is_some_and(|(_, by)| by == "erasure") {
        return Err(CorrectError::NoUpdate(email_id));
    }
    let entries = entries::of_mail(&transaction, email_id).await?;
    let (entry, stored) = choose(email_id, entries, wish.entry.as_deref())?;
    let amount = match wish.right {
        Right::Amount(amount) => amount,
        Right::Before => entry.old_amount.ok_or(CorrectError::NothingBefore(email_id))?,
    };
    let parameters: [&dyn Typed; 3] = [&email_id, &entry.client_id, &entry.entry_key];
    let waiting = transaction.query_typed_opt(WAITING, &typed(&parameters)).await?;
    let waiting = waiting.map(|row| {
        let parsed = |column| row.get::<_, Option<String>>(column);
        (
            row.get::<_, MessageId>(0),
            parsed(1).and_then(|amount| amount.parse::<Amount>().ok()),
            parsed(2).and_then(|stamp| stamp.parse::<Stamp>().ok()),
        )
    });
    let mut corrected = Corrected {
        email_id,
        state: State::Enqueued,
        client_id: entry.client_id,
        entry_key: entry.entry_key,
        aktenzeichen: stored.aktenzeichen.clone(),
        old_amount: stored.amount,
        new_amount: amount,
        message_id: None,
    };
    match &waiting {
        Some((message_id, pending, _)) if *pending == Some(amount) => {
            return Ok(Corrected { state: State::Waiting, message_id: Some(*message_id), ..corrected });
        }
        None if stored.amount == Some(amount) => return Ok(Corrected { state: State::Stored, ..corrected }),
        Some(_) | None => {}
    }
    let update = match current_update::newest(&transaction, email_id).await? {
        Some(newest) => Some(newest.update),
        None => current_update::rebuilt(&transaction, &mail).await?,
    };
    let mut update = update.ok_or(CorrectError::NoUpdate(email_id))?;
    let seen = [Some(stored.stamp), Some(update.stamp), waiting.and_then(|(_, _, stamp)| stamp)];
    let now: i64 = transaction.query_typed_one(NOW, &[]).await?.get(0);
    update.stamp = newer_stamp(email_id, now, seen).ok_or(CorrectError::NoStamp(email_id))?;
    update.new_debt_amount = Some(amount);
    (update.origin, update.decided_by, update.expected) = (Origin::Decision, Some(wish.by.clone()), None);
    (update.client_id, update.entry_key) =
        (Some(corrected.client_id.clone()), Some(corrected.entry_key.clone()));
    debt_update::make_fit(&mut update);
    corrected.message_id = Some(enqueue(&transaction, &update, &corrected, wish).await?);
    transaction.commit().await?;
    Ok(corrected)
}

async fn enqueue(
    transaction: &Transaction<'_>,
    update: &CreditorDebtUpdate,
    corrected: &Corrected,
    wish: &Wish,
) -> Result<MessageId, CorrectError> {
    let Corrected { email_id, client_id, entry_key, aktenzeichen, old_amount, new_amount, .. } = corrected;
    let operation = Operation::CreditorDebtUpdate;
    let decision = match wish.right {
        Right::Amount(_) => "corrected",
        Right::Before => "reverted",
    };
    let candidates = json!([{ "client_id": client_id, "aktenzeichen": aktenzeichen, "entries": [{ "entry_key": entry_key }] }]);
    let parameters: [&dyn Typed; 11] = [
        email_id,
        &operation.aggregate_type(),
        &operation.name(),
        &Json(update),
        &operation.correction_key(*email_id, update.stamp),
        &old_amount.map(|amount| amount.to_string()),
        &new_amount.to_string(),
        &decision,
        &wish.reason,
        &wish.by,
        &candidates,
    ];
    let row = transaction.query_typed_opt(ledger::DECIDE.as_str(), &typed(&parameters)).await?;
    let message_id = row.ok_or(CorrectError::Rival(*email_id))?.get(0);
    let detail = json!({ "decision": decision, "client_id": client_id, "entry_key": entry_key, "old_amount": old_amount,
        "new_amount": new_amount, "reason": wish.reason });
    operator::record(transaction, &wish.by, "correct", Some(message_id), Some(*email_id), detail).await?;
    Ok(message_id)
}

/// The one entry that the mail has written and nobody after it, with the ledger's row.
fn choose(
    email_id: EmailId,
    entries: Vec<MailEntry>,
    named: Option<&str>,
) -> Result<(MailEntry, LedgerEntry), CorrectError> {
    let list = |entries: &[MailEntry]| entries.iter().map(MailEntry::name).collect::<Vec<_>>().join(", ");
    let all = list(&entries);
    let meant: Vec<MailEntry> =
        entries.into_iter().filter(|entry| named.is_none_or(|name| entry.name() == name)).collect();
    if let (Some(name), true, false) = (named, meant.is_empty(), all.is_empty()) {
        return Err(CorrectError::OtherEntry(email_id, name.to_owned(), all));
    }
    let (mut own, others): (Vec<MailEntry>, Vec<MailEntry>) = meant.into_iter().partition(|entry| {
        entry.has_written && entry.ledger.as_ref().is_some_and(|row| row.email_id == email_id)
    });
    if own.len() > 1 {
        return Err(CorrectError::Several(email_id, list(&own)));
    }
    if let Some((entry, row)) = own.pop().and_then(|entry| entry.ledger.clone().map(|row| (entry, row))) {
        return Ok((entry, row));
    }
    let newer = others.iter().find_map(|entry| Some((entry, entry.ledger.as_ref()?)));
    Err(newer.map_or(CorrectError::NothingWritten(email_id), |(entry, row)| {
        CorrectError::Newer(email_id, entry.name(), row.email_id)
    }))
}

/// A stamp of this time, but later than all that has been seen.
fn newer_stamp(email_id: EmailId, now: i64, seen: [Option<Stamp>; 3]) -> Option<Stamp> {
    let highest = seen.into_iter().flatten().max()?;
    let milliseconds = now.max((highest.number() >> 20) + 1);
    Stamp::new(Timestamp::from_millisecond(milliseconds).ok()?, email_id, Revision::FIRST).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, has_written: bool, email_id: Option<EmailId>) -> MailEntry {
        let ledger = email_id.map(|email_id| LedgerEntry {
            client_id: "c".into(),
            entry_key: key.into(),
            aktenzeichen: None,
            amount: "1".parse().ok(),
            stamp: Stamp::try_from(5 << 20).unwrap(),
            message_id: 1,
            email_id,
            applied_at: Timestamp::UNIX_EPOCH,
        });
        MailEntry { client_id: "c".into(), entry_key: key.into(), has_written, old_amount: None, ledger }
    }

    #[test]
    fn the_entry_is_the_one_that_the_mail_has_written_last() {
        let chosen = |entries, named| choose(7, entries, named).map(|(entry, _)| entry.entry_key);
        assert_eq!(chosen(vec![entry("a", true, Some(7)), entry("b", true, Some(9))], None).unwrap(), "a");
        let two = || vec![entry("a", true, Some(7)), entry("b", true, Some(7))];
        assert!(chosen(two(), None).unwrap_err().to_string().contains("--creditor: c/a, c/b"));
        assert_eq!(chosen(two(), Some("c/b")).unwrap(), "b");
        assert!(matches!(chosen(two(), Some("c/x")), Err(CorrectError::OtherEntry(..))));
        assert!(matches!(chosen(vec![], Some("c/x")), Err(CorrectError::NothingWritten(7))));
        assert!(matches!(chosen(vec![entry("a", true, None)], None), Err(CorrectError::NothingWritten(7))));
        assert!(matches!(chosen(vec![entry("a", true, Some(9))], None), Err(CorrectError::Newer(7, _, 9))));
        assert!(matches!(chosen(vec![entry("a", false, Some(9))], None), Err(CorrectError::Newer(7, _, 9))));
    }

    #[test]
    fn a_correction_is_later_than_what_it_corrects_even_where_clocks_disagree() {
        let stamp = |ms: i64| Stamp::try_from(ms << 20).unwrap();
        let of = |now| newer_stamp(1, now, [Some(stamp(5)), None, Some(stamp(9))]).unwrap();
        assert!(of(3) > stamp(9) && of(3) < stamp(11));
        assert_eq!(of(100).number() >> 20, 100);
    }
}
