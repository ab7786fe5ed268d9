//! What each mail of the replaced service becomes here. Pure.
//!
//! Nothing may go backwards, and what that service has written carries no mark in MongoDB. So: its newest written amount of each
//! creditor of a client becomes a repair that gives the entry the mark if it still has exactly that amount; and what it left unwritten
//! is carried out only if it has written nothing later that may be about the same entry, else a person has to look (`hold`).

use super::{
    content::{Content, Who, content, exact},
    mail_row::{IMPORTED, Way, mail_row},
    old::{OldMail, Row},
};
use crate::debt_update::{self, Head, Reading};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::message::{
    CreditorDebtUpdate, EmailExtraction, EmailId, Expected, Operation, Origin, Revision, Stamp,
};
use std::collections::HashMap;

const LATER: &str =
    "the replaced service has later written another mail that may be about the same client or creditor entry";
const LATER_UNREAD: &str = "left unread by the replaced service, which has written later mails: this amount may be older than theirs";
const MAYBE_WRITTEN: &str = "the replaced service may have written this mail: whether it has cannot be told";
const NO_MATCH: &str =
    "the replaced service has found no client or creditor for it, which it also said when MongoDB was away";
const NOT_EXACT: &str = "the amount that the replaced service left cannot be read exactly";
const NOT_AS_READ: &str = "the replaced service would have written another amount than it had read";

/// 2015-01-01T00:00:00Z, as for every mail: before the replaced service existed.
const EARLIEST_SECOND: i64 = 1_420_070_400;

/// What one mail came to, for the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Settled,
    Undecided,
    Mark,
    Update,
    HeldUpdate,
    Extraction,
    HeldExtraction,
}

/// A mail's row here, as JSON with the names of the columns, and the message that goes on with it.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) mail: Value,
    pub(super) message: Option<Value>,
}

/// What the replaced service has written or may have written, and when: as much as the plan of a mail asks for. One entry per client or
/// creditor.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: Option<Timestamp>,
    by_client: HashMap<String, Timestamp>,
    /// Whom the mails of a sender were about: one of the same sender means the same entry, unless it is certainly about another client.
    by_sender: HashMap<String, HashMap<Who, Timestamp>>,
    /// Of mails without a case number, which may be anybody's.
    unnumbered: Option<Timestamp>,
    /// The newest written mail of a client and a sender.
    marks: HashMap<(String, String), (Timestamp, i64)>,
}

impl History {
    /// Takes up one mail.
    pub(super) fn add(&mut self, mail: &OldMail) {
        let (true, Some(received_at)) = (may_be_written(mail), received_at(&mail.row)) else { return };
        let content = content(mail);
        let keep = |slot: &mut Option<Timestamp>| *slot = (*slot).max(Some(received_at));
        keep(&mut self.newest);
        if content.client_aktenzeichen.is_none() {
            keep(&mut self.unnumbered);
        }
        for client in content.clients() {
            let latest = self.by_client.entry(client).or_insert(received_at);
            *latest = received_at.max(*latest);
        }
        if let Some(sender) = content.sender() {
            let latest =
                self.by_sender.entry(sender).or_default().entry(content.who()).or_insert(received_at);
            *latest = received_at.max(*latest);
        }
        if let (Way::Written, Some(key)) = (way(mail), content.mark_key()) {
            let mark = self.marks.entry(key).or_insert((received_at, mail.id));
            *mark = (received_at, mail.id).max(*mark);
        }
    }

    /// Whether something written later may be about the same client, or has come from the same sender and may be.
    fn is_overtaken(&self, content: &Content, received_at: Timestamp) -> bool {
        let who = content.who();
        let of_sender = content.sender().and_then(|sender| self.by_sender.get(&sender));
        let is_later = |(other, latest): (&Who, &Timestamp)| {
            *latest >= received_at && !who.is_certainly_another_than(other)
        };
        if of_sender.is_some_and(|mails| mails.iter().any(is_later)) {
            return true;
        }
        let latest = match content.client_aktenzeichen {
            None => self.newest,
            Some(_) => {
                let known = content.clients().filter_map(|client| self.by_client.get(&client).copied());
                known.chain(self.unnumbered).max()
            }
        };
        latest.is_some_and(|latest| latest >= received_at)
    }
}

/// The sender's time, or that of arrival where there is none or it cannot be: in the future it would put the mail behind all others.
/// None without a time of arrival that bounds it.
fn received_at(row: &Row) -> Option<Timestamp> {
    let is_time = |at: &Timestamp| at.as_second() >= EARLIEST_SECOND && at.as_millisecond() < 1 << 43;
    let arrival = ["created_at", "updated_at", "processed_at"].iter().find_map(|name| row.time(name));
    let arrival = arrival.filter(is_time)?;
    Some(row.time("received_at").filter(|at| is_time(at) && *at <= arrival).unwrap_or(arrival))
}

fn is(mail: &OldMail, name: &str, value: &str) -> bool {
    mail.row.text(name).as_deref() == Some(value)
}

fn way(mail: &OldMail) -> Way {
    let is = |name, value| is(mail, name, value);
    match mail.updates.last() {
        Some(update) if update.text("processed_at").is_some() => Way::Written,
        Some(_) => Way::Unfinished,
        None if is("sync_status", "synced") => Way::Written,
        None if is("processing_status", "not_creditor_reply") => Way::NoReply,
        // Matched and done, and yet no sign that it was written: its update may have been lost. Without a match: MongoDB may have been away.
        None if is("processing_status", "completed")
            && !is("match_status", "no_match")
            && !(is("match_status", "auto_matched")
                && (is("sync_status", "pending") || is("sync_status", "failed"))) =>
        {
            Way::Undecided
        }
        None => Way::Unread,
    }
}

/// Whether it is in MongoDB, or one of its signs says so and another does not: then it holds back what is older like one that is.
fn may_be_written(mail: &OldMail) -> bool {
    is(mail, "sync_status", "synced")
        || mail.updates.iter().any(|update| update.text("processed_at").is_some())
        || (mail.updates.is_empty()
            && is(mail, "processing_status", "completed")
            && is(mail, "match_status", "auto_matched"))
}

/// Why what an unread mail says may not be written without a person.
fn hold_unread(mail: &OldMail, history: &History, received_at: Timestamp) -> Option<&'static str> {
    if may_be_written(mail) {
        Some(MAYBE_WRITTEN)
    } else if is(mail, "match_status", "no_match") {
        Some(NO_MATCH)
    } else {
        history.newest.is_some_and(|newest| newest >= received_at).then_some(LATER_UNREAD)
    }
}

/// Why the update may not be written without a person.
fn hold(
    mail: &OldMail,
    content: &Content,
    history: &History,
    received_at: Timestamp,
) -> Option<&'static str> {
    let read = mail.row.object("extracted_data").and_then(|read| read.text("debt_amount"));
    if content.is_inexact {
        Some(NOT_EXACT)
    } else if content.amount != read.as_deref().and_then(exact) {
        Some(NOT_AS_READ)
    } else if may_be_written(mail) {
        Some(MAYBE_WRITTEN)
    } else if history.is_overtaken(content, received_at) {
        Some(LATER)
    } else {
        None
    }
}

/// What becomes of a mail under this id.
///
/// # Errors
/// It has no time that could order it.
pub(super) fn plan(mail: &OldMail, email_id: EmailId, history: &History) -> Result<Planned, &'static str> {
    let time = received_at(&mail.row).ok_or("it has no time of arrival (created_at) since 2015")?;
    let stamp = Stamp::new(time, email_id, Revision::FIRST).map_err(|_| "its time cannot be ordered")?;
    let (way, content) = (way(mail), content(mail));
    let (kind, payload) = match way {
        Way::Unfinished => {
            let hold = hold(mail, &content, history, time);
            let update = update(&content, email_id, time, stamp, hold);
            (hold.map_or(Kind::Update, |_| Kind::HeldUpdate), Some(json!(update)))
        }
        Way::Unread => {
            let hold = hold_unread(mail, history, time);
            let payload = EmailExtraction { email_id, hold: hold.map(str::to_owned) };
            (hold.map_or(Kind::Extraction, |_| Kind::HeldExtraction), Some(json!(payload)))
        }
        Way::Written => {
            let is_newest =
                content.mark_key().and_then(|key| history.marks.get(&key)) == Some(&(time, mail.id));
            match is_newest.then(|| mark(&content, email_id, time, stamp)).flatten() {
                Some(update) => (Kind::Mark, Some(json!(update))),
                None => (Kind::Settled, None),
            }
        }
        Way::NoReply => (Kind::Settled, None),
        Way::Undecided => (Kind::Undecided, None),
    };
    let operation = match way {
        Way::Unread => Operation::EmailExtraction,
        Way::Unfinished | Way::Written | Way::NoReply | Way::Undecided => Operation::CreditorDebtUpdate,
    };
    let message = payload.map(|payload| {
        json!({ "email_id": email_id, "aggregate_type": operation.aggregate_type(), "operation": operation.name(),
            "payload": payload, "idempotency_key": operation.key(email_id, Revision::FIRST) })
    });
    Ok(Planned { kind, mail: mail_row(mail, email_id, time, &way, &content), message })
}

fn update(
    content: &Content,
    email_id: EmailId,
    received_at: Timestamp,
    stamp: Stamp,
    hold: Option<&str>,
) -> CreditorDebtUpdate {
    let head = Head { email_id, from_email: &content.creditor_email, received_at };
    let reading = Reading {
        is_creditor_reply: true,
        client_name: content.client_name.clone(),
        client_aktenzeichen: content.client_aktenzeichen.clone(),
        creditor_name: content.creditor_name.clone(),
        debt_amount: content.amount,
        reference_numbers: content.reference_numbers.clone(),
        confidence: content.confidence,
        summary: content.response_text.clone(),
        hold: hold.map(str::to_owned),
    };
    let mut update = debt_update::of_reading(head, &reading, stamp);
    debt_update::make_fit(&mut update);
    update
}

/// The mark for an amount that is there: where it is not, or where the entry cannot be told, the repair ends as stale.
fn mark(
    content: &Content,
    email_id: EmailId,
    received_at: Timestamp,
    stamp: Stamp,
) -> Option<CreditorDebtUpdate> {
    let amount = content.amount?;
    Some(CreditorDebtUpdate {
        origin: Origin::Repair,
        expected: Some(Expected { stamp: None, amount: Some(amount) }),
        response_text: None,
        ..update(content, email_id, received_at, stamp, Some(IMPORTED))
    })
}

#[cfg(test)]
mod tests;
