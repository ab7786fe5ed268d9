//! What each mail of the replaced service becomes here. Pure.
//!
//! Nothing may go backwards, and what that service has written carries no mark in MongoDB. So: its newest written amount of each
//! creditor of a client becomes a repair that gives the entry the mark if it still has exactly that amount; and what it left unwritten
//! is carried out only if it has written nothing later that may be about the same client, else a person has to look (`hold`).

use super::{
    content::{Content, content, exact},
    mail_row::mail_row,
    old::{OldMail, Row},
};
use crate::debt_update;
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::message::{
    CreditorDebtUpdate, EmailExtraction, EmailId, Expected, Operation, Origin, Revision, Stamp,
};
use std::collections::HashMap;

const LATER_OF_CLIENT: &str =
    "the replaced service has later written another mail that may be about the same client";
const LATER_UNREAD: &str = "left unread by the replaced service, which has written later mails: this amount may be older than theirs";
const NOT_EXACT: &str = "the amount that the replaced service left cannot be read exactly";
const NOT_AS_READ: &str = "the replaced service would have written another amount than it had read";
/// Why an amount of an imported mail is written only by a person's decision, whoever enqueues it again.
pub const IMPORTED: &str =
    "an email of the replaced service: whether MongoDB has had newer amounts since is not known";

/// How far the replaced service came with a mail.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It has written it.
    Written,
    /// An update waits or has run out of attempts.
    Unfinished,
    /// Nobody has read it, or nobody knows what became of it.
    Unread,
    /// No creditor's reply.
    NoReply,
    /// Ended without an amount in MongoDB.
    Undecided,
}

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

/// What the replaced service has written, and when: as much as the plan of a mail asks for. One entry per client or creditor.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: Option<Timestamp>,
    by_client: HashMap<String, Timestamp>,
    /// Of mails without a case number, which may be anybody's.
    unnumbered: Option<Timestamp>,
    /// The newest written mail of a client and a sender.
    marks: HashMap<(String, String), (Timestamp, i64)>,
}

impl History {
    /// Takes up one mail.
    pub(super) fn add(&mut self, mail: &OldMail) {
        let (Way::Written, Some(received_at)) = (way(mail), received_at(&mail.row)) else { return };
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
        if let Some(key) = content.mark_key() {
            let mark = self.marks.entry(key).or_insert((received_at, mail.id));
            *mark = (received_at, mail.id).max(*mark);
        }
    }

    /// Whether something written later may be about the same client.
    fn is_overtaken(&self, content: &Content, received_at: Timestamp) -> bool {
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

/// The webhook's id, by which a repeat is known; where the provider gave none, nobody will repeat it by a name that we could know.
pub(super) fn webhook_id(mail: &OldMail) -> String {
    let given = mail.row.text("zendesk_webhook_id").filter(|id| id.chars().count() <= 255);
    given.unwrap_or_else(|| format!("legacy:{}", mail.id))
}

fn received_at(row: &Row) -> Option<Timestamp> {
    let is_time = |at: &Timestamp| (0..1 << 43).contains(&at.as_millisecond());
    row.time("received_at").filter(is_time).or_else(|| row.time("created_at").filter(is_time))
}

fn way(mail: &OldMail) -> Way {
    let is = |name: &str, value: &str| mail.row.text(name).as_deref() == Some(value);
    match mail.updates.last() {
        Some(update) if update.text("processed_at").is_some() => Way::Written,
        Some(_) => Way::Unfinished,
        None if is("sync_status", "synced") => Way::Written,
        None if is("processing_status", "not_creditor_reply") => Way::NoReply,
        // Matched and done, and yet no sign that it was written: its update may have been lost.
        None if is("processing_status", "completed")
            && !(is("match_status", "auto_matched")
                && (is("sync_status", "pending") || is("sync_status", "failed"))) =>
        {
            Way::Undecided
        }
        None => Way::Unread,
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
    } else if history.is_overtaken(content, received_at) {
        Some(LATER_OF_CLIENT)
    } else {
        None
    }
}

/// What becomes of a mail under this id.
///
/// # Errors
/// It has no time that could order it.
pub(super) fn plan(mail: &OldMail, email_id: EmailId, history: &History) -> Result<Planned, &'static str> {
    let time = received_at(&mail.row).ok_or("it has neither a readable received_at nor a created_at")?;
    let stamp = Stamp::new(time, email_id, Revision::FIRST).map_err(|_| "its time cannot be ordered")?;
    let (way, content) = (way(mail), content(mail));
    let (kind, payload) = match way {
        Way::Unfinished => {
            let hold = hold(mail, &content, history, time);
            let update = update(&content, email_id, time, stamp, hold);
            (hold.map_or(Kind::Update, |_| Kind::HeldUpdate), Some(json!(update)))
        }
        Way::Unread => {
            let hold = history.newest.is_some_and(|newest| newest >= time).then_some(LATER_UNREAD);
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
    let mut update = CreditorDebtUpdate {
        email_id,
        client_name: content.client_name.as_deref().map(|text| debt_update::cut(text, 120)),
        client_aktenzeichen: content.client_aktenzeichen.as_deref().map(|text| debt_update::cut(text, 40)),
        creditor_email: debt_update::cut(&content.creditor_email, 254),
        creditor_name: content.creditor_name.as_deref().map(|text| debt_update::cut(text, 120)),
        new_debt_amount: content.amount,
        response_text: content.response_text.as_deref().map(|text| debt_update::cut(text, 300)),
        reference_numbers: content
            .reference_numbers
            .iter()
            .take(10)
            .map(|text| debt_update::cut(text, 60))
            .collect(),
        extraction_confidence: content.confidence,
        received_at,
        stamp,
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
        expected: None,
        hold: hold.map(str::to_owned),
    };
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
mod tests {
    use super::*;
    use serde_json::Map;

    fn row(value: Value) -> Row {
        if let Value::Object(fields) = value { Row(fields) } else { Row(Map::new()) }
    }

    /// A mail with one update of 5 EUR, written or not.
    fn mail(id: i64, day: u8, written: bool, payload: Value) -> OldMail {
        let mut update =
            json!({ "payload": payload, "processed_at": written.then_some("2026-06-30T00:00:00") });
        update["payload"]["new_debt_amount"] = json!(5);
        let at = format!("2026-06-{day:02}T08:00:00");
        let mail = json!({ "received_at": at, "created_at": at, "extracted_data": { "debt_amount": 5.0 } });
        OldMail { id, row: row(mail), updates: vec![row(update)] }
    }

    #[test]
    fn an_unfinished_update_goes_on_only_if_nothing_later_may_be_about_its_client() {
        let adler = json!({ "client_aktenzeichen": "2024/118", "client_name": "Adler, Eva" });
        let kind = |unfinished: &Value, written: Value| {
            let mut history = History::default();
            history.add(&mail(1, 20, true, written));
            plan(&mail(2, 10, false, unfinished.clone()), 7, &history).unwrap().kind
        };
        assert_eq!(kind(&adler, json!({ "client_aktenzeichen": "2024_118" })), Kind::HeldUpdate);
        assert_eq!(
            kind(&adler, json!({ "client_aktenzeichen": "9999", "client_name": "Eva Adler" })),
            Kind::HeldUpdate
        );
        assert_eq!(
            kind(&adler, json!({ "client_name": "Brandt, Jo" })),
            Kind::HeldUpdate,
            "without a number it may be anybody"
        );
        assert_eq!(
            kind(&adler, json!({ "client_aktenzeichen": "2024_200", "client_name": "Brandt, Jo" })),
            Kind::Update
        );
        let nameless = json!({ "client_name": "Adler, Eva" });
        assert_eq!(
            kind(&nameless, json!({ "client_aktenzeichen": "2024_200", "client_name": "Brandt, Jo" })),
            Kind::HeldUpdate
        );
    }

    #[test]
    fn only_the_newest_written_mail_of_a_client_and_a_sender_marks_the_entry() {
        let from = |sender: &str| json!({ "client_aktenzeichen": "2024/118", "creditor_email": sender });
        let mails = [
            mail(1, 10, true, from("A@b.example")),
            mail(2, 20, true, from("a@b.example")),
            mail(3, 15, true, from("x@y.example")),
        ];
        let mut history = History::default();
        mails.iter().for_each(|mail| history.add(mail));
        let kinds = mails.iter().map(|mail| plan(mail, 7, &history).unwrap().kind);
        assert_eq!(kinds.collect::<Vec<_>>(), [Kind::Settled, Kind::Mark, Kind::Mark]);
    }

    #[test]
    fn a_stamp_is_made_of_the_mails_time_and_its_id_here() {
        let planned = plan(&mail(2, 10, false, json!({})), 70_000, &History::default()).unwrap();
        let at = "2026-06-10T08:00:00Z".parse().unwrap();
        let stamp = Stamp::new(at, 70_000, Revision::FIRST).unwrap().to_string();
        let message = planned.message.unwrap();
        assert_eq!(
            (&message["payload"]["stamp"], &message["idempotency_key"]),
            (&stamp.into(), &"creditor_debt_update:70000:0".into())
        );
        assert!(
            plan(&OldMail::default(), 7, &History::default()).is_err(),
            "without a time nothing orders it"
        );
    }
}
