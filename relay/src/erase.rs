//! `relay erase`: removes a client's personal data from Postgres, with a receipt. Does not touch MongoDB, whose owner is the portal.
//!
//! One transaction, which takes its locks in the order of a finish: messages, mails, ledger. A message that somebody is working on is
//! waited for by the caller: behind a claim's back nothing is removed, and what a late worker brings finds no message any more. What
//! stays of a mail is that there was one and how it ended, so that a repeat of its webhook is known and its id still answers.

use crate::{
    ledger::erase::{self, Client},
    matching::spellings,
    operator, outbox, reconcile,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use shared::message::{EmailId, MessageId};
use shared::postgres::Connection;

/// The locks of finishes are short. The second lets this transaction rewrite what else only grows.
const SETTINGS: &str =
    "select set_config('lock_timeout', '5s', true), set_config('outbox.erasure', 'on', true)";

/// What was removed, or would be: what `relay erase --json` prints.
#[derive(Debug, Serialize)]
pub struct Erased {
    /// Whether it only says what would be.
    pub dry_run: bool,
    /// The client's number, as it was given. It is stored nowhere.
    pub client: String,
    /// The receipt in `operator_actions`: the counts below, without anything about the client. None where there was nothing to remove.
    pub receipt_id: Option<i64>,
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Mails that were about this client alone.
    pub emails: usize,
    /// Mails that are about others too: their words, and what is about this client.
    pub shared_emails: usize,
    /// Messages, finished or not.
    pub messages: u64,
    /// Rows of the ledger.
    pub ledger_rows: u64,
    /// Decisions: who decided what and when stays.
    pub decisions: u64,
    /// Acts of persons: who did what and when stays.
    pub acts: u64,
    /// Reports of reconciliations.
    pub reports: u64,
    /// Mails that may be about this client, or about one of the same name; that nobody has read but that say the number or the name; or
    /// that wait to be written by a number that nobody is known by: a person has to tell, and name them with `--email`.
    pub undecided_emails: Vec<EmailId>,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// The number is none.
    #[error("the client's number is empty")]
    NoNumber,
    /// A mail that was named is none.
    #[error("there is no email {0}; nothing was removed")]
    NoMail(EmailId),
    /// A relay has a message of the client.
    #[error("message {0} about this client is being worked on: try again in a moment; nothing was removed")]
    Busy(MessageId),
    /// A report about the client may be on its way.
    #[error(
        "a reconciliation is running, whose report would bring the client back: try again when it has ended (one that was killed counts for an hour); nothing was removed"
    )]
    Reconciling,
    /// Postgres failed.
    #[error("Postgres: {}; nothing was removed", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

/// Removes everything about a client, and the mails that a person knows to be about it. Not `apply`: does the same and takes it back, so the counts are those of the real run.
///
/// # Errors
/// [`EraseError`].
pub async fn erase(
    connection: &mut Connection,
    client: &str,
    emails: &[EmailId],
    apply: bool,
    by: &str,
) -> Result<Erased, EraseError> {
    let numbers = spellings(client);
    if numbers.is_empty() {
        return Err(EraseError::NoNumber);
    }
    let transaction = connection.transaction().await?;
    transaction.query_typed(SETTINGS, &[]).await?;
    if reconcile::hold_off(&transaction).await? && apply {
        return Err(EraseError::Reconciling);
    }
    let ids = erase::client_ids(&transaction, &numbers).await?;
    let meant = Client { numbers, ids };
    let concerned = erase::concerned(&transaction, &meant, emails).await?;
    if let Some(unknown) = emails.iter().find(|id| concerned.iter().all(|mail| mail.email_id != **id)) {
        return Err(EraseError::NoMail(*unknown));
    }
    let of = |certain: bool, shared: bool| {
        let is = move |mail: &&erase::Concerned| {
            mail.is_certain == certain && (!certain || mail.is_shared == shared)
        };
        concerned.iter().filter(is).map(|mail| mail.email_id).collect::<Vec<EmailId>>()
    };
    let (own, shared_mails, undecided_emails) = (of(true, false), of(true, true), of(false, false));
    let all: Vec<EmailId> = own.iter().chain(&shared_mails).copied().collect();

    let held = outbox::erase::hold(&transaction, &all).await?.map_err(EraseError::Busy)?;
    erase::hold(&transaction, &all).await?;
    if let Some(message) = outbox::erase::newcomer(&transaction, &all, &held).await? {
        return Err(EraseError::Busy(message));
    }
    let messages =
        outbox::erase::remove(&transaction, &held, &shared_mails, &meant.numbers, &meant.ids).await?;
    let acts = operator::forget(&transaction, &own, &shared_mails, &meant.ids).await?;
    let removed = erase::remove(&transaction, &meant, &own, &shared_mails).await?;
    let mut erased = Erased {
        dry_run: !apply,
        client: client.trim().to_owned(),
        receipt_id: None,
        at: Timestamp::now(),
        by: by.to_owned(),
        emails: own.len(),
        shared_emails: shared_mails.len(),
        messages,
        ledger_rows: removed.ledger,
        decisions: removed.decisions,
        acts,
        reports: removed.reports,
        undecided_emails,
    };
    let rows = erased.messages + erased.ledger_rows + erased.decisions + erased.acts + erased.reports;
    if apply && (rows > 0 || !all.is_empty()) {
        let detail = json!({ "emails": erased.emails, "shared_emails": erased.shared_emails, "messages": messages,
            "ledger_rows": erased.ledger_rows, "decisions": erased.decisions, "acts": acts, "reports": erased.reports });
        erased.receipt_id = Some(operator::receipt(&transaction, by, "erase", &detail).await?);
        transaction.commit().await?;
    } else {
        transaction.rollback().await?;
    }
    Ok(erased)
}
