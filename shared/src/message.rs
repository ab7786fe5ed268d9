//! The messages of the outbox: their operations, payloads, ids and the stamp that orders updates.
//!
//! Owns the wire form of a payload. A payload may only gain optional fields: old and new relays run side by side, so anything
//! else is a new operation name.

mod operation;

use crate::money::Amount;
use jiff::Timestamp;
pub use operation::Operation;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Id of a row of `outbox_messages`.
pub type MessageId = i64;
/// Id of a row of `incoming_emails`.
pub type EmailId = i64;

/// How often the same mail has been read again or decided by a person: 0 first, at most 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(u8);

impl Revision {
    /// The first reading of a mail.
    pub const FIRST: Revision = Revision(0);

    /// The revision after this one; None after the fifteenth, since a stamp has four bits for it.
    #[must_use]
    pub fn next(self) -> Option<Revision> {
        (self.0 < 15).then_some(Revision(self.0 + 1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Orders the updates of one creditor entry: `received_at` in ms << 20 | (email id mod 2^16) << 4 | revision.
///
/// Its text form, in payloads and in MongoDB, is a 20-digit zero-padded string: JavaScript breaks integers above 2^53, and equal
/// lengths make string order number order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(i64);

/// A stamp that cannot be built or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stamp is a 20-digit number made from a time between 1970 and 2248")]
pub struct StampError;

impl Stamp {
    /// Builds the stamp of one reading of a mail.
    ///
    /// # Errors
    /// [`StampError`] when the time is before 1970 or beyond the 43 bits that are left for it.
    pub fn new(received_at: Timestamp, email_id: EmailId, revision: Revision) -> Result<Stamp, StampError> {
        let milliseconds = received_at.as_millisecond();
        if !(0..1 << 43).contains(&milliseconds) {
            return Err(StampError);
        }
        Ok(Stamp(milliseconds << 20 | email_id.rem_euclid(1 << 16) << 4 | i64::from(revision.0)))
    }

    /// The number that the ledger stores.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The time in it: when the mail was received, or an amount was put right.
    #[must_use]
    pub fn time(self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.0 >> 20).ok()
    }

    /// The revision that the stamp carries.
    #[must_use]
    pub fn revision(self) -> Revision {
        Revision((self.0 & 0xF) as u8)
    }

    /// The stamp of the next revision of the same mail; None after the fifteenth.
    #[must_use]
    pub fn next_revision(self) -> Option<Stamp> {
        self.revision().next().map(|_| Stamp(self.0 + 1))
    }
}

impl TryFrom<i64> for Stamp {
    type Error = StampError;

    fn try_from(number: i64) -> Result<Stamp, StampError> {
        if number < 0 { Err(StampError) } else { Ok(Stamp(number)) }
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Stamp, StampError> {
        let shape = text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        if shape { text.parse().map(Stamp).map_err(|_| StampError) } else { Err(StampError) }
    }
}

impl TryFrom<String> for Stamp {
    type Error = StampError;

    fn try_from(text: String) -> Result<Stamp, StampError> {
        text.parse()
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> String {
        stamp.to_string()
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:020}", self.0)
    }
}

/// The first stamp of a mail as an SQL expression over `received_at` and `id`, for the statement in ingest that draws the id and
/// writes the payload at once. A test compares it with [`Stamp::new`].
pub const FIRST_STAMP_SQL: &str = "lpad((((extract(epoch from date_trunc('milliseconds', received_at)) * 1000)::bigint << 20) \
     | ((id % 65536) << 4))::text, 20, '0')";

/// Payload of [`Operation::EmailExtraction`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailExtraction {
    /// The mail to read.
    pub email_id: EmailId,
    /// The `hold` of the debt update that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// Payload of [`Operation::EmailFetch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailFetch {
    /// The mail whose body is missing.
    pub email_id: EmailId,
    /// The provider's id of the mail, as its event named it.
    pub provider_id: String,
}

impl EmailFetch {
    /// Whether a text may be a provider's id: 1 to 255 printable ASCII characters without blanks. The two names of folders are none,
    /// since the id becomes one segment of a path.
    #[must_use]
    pub fn is_provider_id(text: &str) -> bool {
        (1..=255).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !matches!(text, "." | "..")
    }
}

/// Payload of [`Operation::DebtUpdateNotification`]: what was written. The rest stands in the mail's row.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DebtUpdateNotification {
    /// The mail behind the update.
    pub email_id: EmailId,
    /// The update's place in the order of updates; its revision stands in the letter's Message-ID.
    pub stamp: Stamp,
    /// The client, as the debt update names it.
    #[serde(default)]
    pub client_name: Option<String>,
    /// The firm's case number of the document that was written.
    #[serde(default)]
    pub client_aktenzeichen: Option<String>,
    /// The sender's address.
    pub creditor_email: String,
    /// The creditor's name.
    #[serde(default)]
    pub creditor_name: Option<String>,
    /// The amount that was there before; None = there was none.
    #[serde(default)]
    pub previous: Option<Amount>,
    /// The amount that is there now.
    pub amount: Amount,
    /// The creditor side's own numbers.
    #[serde(default)]
    pub reference_numbers: Vec<String>,
    /// 0 to 1; None = nobody said.
    #[serde(default)]
    pub extraction_confidence: Option<f64>,
    /// The person who decided, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// The key of the message, where a person has put an amount right; None = that of mail and revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl DebtUpdateNotification {
    /// The idempotency key of the message; the letter's Message-ID is made from it.
    #[must_use]
    pub fn key(&self) -> String {
        let operation = Operation::DebtUpdateNotification;
        self.key.clone().unwrap_or_else(|| operation.key(self.email_id, self.stamp.revision()))
    }
}

/// Personal data: a `Debug` print names the mail only.
impl fmt::Debug for DebtUpdateNotification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DebtUpdateNotification {{ email_id: {}, .. }}", self.email_id)
    }
}

/// Why a person has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewCause {
    /// The write is held for review; the latest decision says why.
    NeedsReview,
    /// No client of this number or name is in MongoDB.
    NoMatch,
}

impl ReviewCause {
    /// The idempotency key of the outbox row: a mail whose client was missing may need a review later, and both are told.
    #[must_use]
    pub fn key(self, email_id: EmailId, revision: Revision) -> String {
        let key = Operation::ReviewNotification.key(email_id, revision);
        match self {
            ReviewCause::NeedsReview => key,
            ReviewCause::NoMatch => format!("{key}:no_match"),
        }
    }
}

/// Payload of [`Operation::ReviewNotification`]. Reason and candidates stand in `decisions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReviewNotification {
    /// The mail that waits.
    pub email_id: EmailId,
    /// The debt update that waits or is held.
    pub message_id: MessageId,
    /// The update's place in the order of updates; its revision stands in the letter's Message-ID.
    pub stamp: Stamp,
    /// Why it waits.
    pub cause: ReviewCause,
}

/// Where a debt update comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A creditor's mail or a ready debt update.
    Mail,
    /// A person's decision about a mail that was held for review.
    Decision,
    /// An operator's replay from the current state.
    Replay,
    /// The reconciliation.
    Repair,
}

/// Payload of [`Operation::CreditorDebtUpdate`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditorDebtUpdate {
    /// The mail behind the update.
    pub email_id: EmailId,
    /// `Nachname, Vorname` or `Vorname Nachname`, as the mail has it.
    #[serde(default)]
    pub client_name: Option<String>,
    /// The firm's case number as the mail writes it.
    #[serde(default)]
    pub client_aktenzeichen: Option<String>,
    /// The sender's address.
    pub creditor_email: String,
    /// The creditor's name; without one the address stands in for it.
    #[serde(default)]
    pub creditor_name: Option<String>,
    /// The new total claim; None = the mail states none, which a person has to look at.
    #[serde(default)]
    pub new_debt_amount: Option<Amount>,
    /// A short summary for the portal.
    #[serde(default)]
    pub response_text: Option<String>,
    /// The creditor side's own numbers.
    #[serde(default)]
    pub reference_numbers: Vec<String>,
    /// 0 to 1; None passes the guard.
    #[serde(default)]
    pub extraction_confidence: Option<f64>,
    /// When the mail was received.
    pub received_at: Timestamp,
    /// Its place in the order of updates.
    pub stamp: Stamp,
    /// Where it comes from.
    pub origin: Origin,
    /// The person who decided, for [`Origin::Decision`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// `_id` of the client document that a person named; nothing is matched then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The key of the creditor entry that a person named, in that client or in the one that is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_key: Option<String>,
    /// What a repair has seen in the entry and wants to find there; anything else, and its plan is stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// Why a person has to look at it, whatever it says; a person's own decision is carried out all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// An entry's state, as far as an update of ours changes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The stamp of our mark, as it stands there; None = there is no mark.
    #[serde(default)]
    pub stamp: Option<String>,
    /// The amount; None = there is none.
    #[serde(default)]
    pub amount: Option<Amount>,
}

impl CreditorDebtUpdate {
    /// Whether a person has put an amount right that was written already: stamped with the time of that, not with the mail's.
    #[must_use]
    pub fn is_correction(&self) -> bool {
        self.origin == Origin::Decision
            && Stamp::new(self.received_at, self.email_id, self.stamp.revision()) != Ok(self.stamp)
    }

    /// The idempotency key of a message that belongs to this update, itself included, where a mail or a person has made it.
    #[must_use]
    pub fn key_of(&self, operation: Operation) -> String {
        match self.is_correction() {
            true => operation.correction_key(self.email_id, self.stamp),
            false => operation.key(self.email_id, self.stamp.revision()),
        }
    }
}

/// Personal data: a `Debug` print names the mail and the stamp only.
impl fmt::Debug for CreditorDebtUpdate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CreditorDebtUpdate {{ email_id: {}, stamp: {}, .. }}", self.email_id, self.stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_keys_of_a_mail_cover_every_operation_in_all_sixteen_revisions_and_the_replays() {
        let keys = Operation::possible_keys(17);
        assert_eq!(keys.len(), 16 * (Operation::ALL.len() + 1) + 2 * Operation::REPLAYS);
        for key in [
            "email_extraction:17:0",
            "creditor_debt_update:17:15",
            "review_notification:17:3:no_match",
            "creditor_debt_update:17:replay:1",
            "email_extraction:17:replay:30",
        ] {
            assert!(keys.contains(&key.into()), "{key}");
        }
    }

    #[test]
    fn a_later_mail_has_the_higher_stamp_and_the_text_sorts_like_the_number() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let older = Stamp::new(at("2026-02-17T09:14:22Z"), 70_000, Revision::FIRST).unwrap();
        let newer = Stamp::new(at("2026-02-17T09:14:22.001Z"), 1, Revision::FIRST).unwrap();
        assert!(older < newer && older.to_string() < newer.to_string());
        assert_eq!(older.to_string().len(), 20);
        assert_eq!(older.next_revision().unwrap().revision(), Revision(1));
        assert_eq!(Stamp(15).next_revision(), None);
        assert_eq!(Stamp::new(at("1969-12-31T23:59:59Z"), 1, Revision::FIRST), Err(StampError));
        assert_eq!("17".parse::<Stamp>(), Err(StampError));
        assert_eq!("99999999999999999999".parse::<Stamp>(), Err(StampError));
    }

    proptest! {
        #[test]
        fn stamps_order_by_time_and_survive_their_text(a in 0_i64..4_000_000_000_000, b in 0_i64..4_000_000_000_000, id in 1_i64..1 << 40) {
            let stamp = |ms| Stamp::new(Timestamp::from_millisecond(ms).unwrap(), id, Revision::FIRST).unwrap();
            prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
            prop_assert_eq!(stamp(a).to_string().parse(), Ok(stamp(a)));
        }
    }
}
