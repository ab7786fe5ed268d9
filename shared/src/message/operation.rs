//! The kinds of messages: their names, what they are about, and the keys that keep each from being enqueued twice.

use super::{EmailId, ReviewCause, Revision, Stamp};
use std::iter::successors;

/// The kind of a message; its name stands in `outbox_messages.operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read a mail: clean its text, extract the entities, decide whether a debt update follows.
    EmailExtraction,
    /// Write a new amount into the right creditor entry in MongoDB.
    CreditorDebtUpdate,
    /// Fetch a mail's body and headers from the provider whose event carried only its id; before the extraction.
    EmailFetch,
    /// Tell the firm by mail that an amount has been written.
    DebtUpdateNotification,
    /// Tell the firm by mail that a person has to decide.
    ReviewNotification,
}

impl Operation {
    /// Every operation that this binary knows. A message of another operation waits for a binary that knows it.
    pub const ALL: [Operation; 5] = [
        Operation::EmailFetch,
        Operation::EmailExtraction,
        Operation::CreditorDebtUpdate,
        Operation::DebtUpdateNotification,
        Operation::ReviewNotification,
    ];

    /// The name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operation::EmailExtraction => "email_extraction",
            Operation::CreditorDebtUpdate => "creditor_debt_update",
            Operation::EmailFetch => "email_fetch",
            Operation::DebtUpdateNotification => "debt_update_notification",
            Operation::ReviewNotification => "review_notification",
        }
    }

    /// What `outbox_messages.aggregate_type` says: what the message is about. `aggregate_id` is the email's id in each case.
    #[must_use]
    pub const fn aggregate_type(self) -> &'static str {
        match self {
            Operation::EmailFetch | Operation::EmailExtraction | Operation::ReviewNotification => {
                "incoming_email"
            }
            Operation::CreditorDebtUpdate | Operation::DebtUpdateNotification => "creditor_debt_update",
        }
    }

    /// The idempotency key of the outbox row: one message per operation, mail and revision.
    #[must_use]
    pub fn key(self, email_id: EmailId, revision: Revision) -> String {
        format!("{}:{email_id}:{revision}", self.name())
    }

    /// The key of a message that puts an amount right: its stamp has its own time, so its revision tells it from no other.
    #[must_use]
    pub fn correction_key(self, email_id: EmailId, stamp: Stamp) -> String {
        format!("{}:{email_id}:correct:{stamp}", self.name())
    }

    /// The key of a mail's replay of this number, 1 to [`Operation::REPLAYS`].
    #[must_use]
    pub fn replay_key(self, email_id: EmailId, number: usize) -> String {
        format!("{}:{email_id}:replay:{number}", self.name())
    }

    /// So many replays of a mail are kept; a number is free again when its message has left the outbox. Few enough to look for all.
    pub const REPLAYS: usize = 30;

    /// Every key of [`Operation::replay_key`].
    pub fn replay_keys(self, email_id: EmailId) -> impl Iterator<Item = String> {
        (1..=Operation::REPLAYS).map(move |number| self.replay_key(email_id, number))
    }

    /// The keys that the messages of a mail can have: every operation in every revision, and the replays. `aggregate_id` has no index,
    /// the key has. Corrections are found by their decisions.
    #[must_use]
    pub fn possible_keys(email_id: EmailId) -> Vec<String> {
        let revisions = || successors(Some(Revision::FIRST), |revision| revision.next());
        let of = |operation: Operation| revisions().map(move |revision| operation.key(email_id, revision));
        let no_match = |revision| ReviewCause::NoMatch.key(email_id, revision);
        let replayed = [Operation::EmailExtraction, Operation::CreditorDebtUpdate];
        let replays = replayed.into_iter().flat_map(|operation| operation.replay_keys(email_id));
        Operation::ALL.into_iter().flat_map(of).chain(revisions().map(no_match)).chain(replays).collect()
    }

    /// Whether the message tells somebody about a mail and changes nothing about it.
    #[must_use]
    pub const fn is_notification(self) -> bool {
        match self {
            Operation::DebtUpdateNotification | Operation::ReviewNotification => true,
            Operation::EmailExtraction | Operation::CreditorDebtUpdate | Operation::EmailFetch => false,
        }
    }
}
