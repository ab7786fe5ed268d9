//! What each mail of the replaced service becomes here. Pure.
//!
//! Nothing may go backwards, and what that service has written carries no mark in MongoDB. So: its newest written amount of each
//! creditor of a client becomes a repair that gives the entry the mark if it still has exactly that amount; and what it left unwritten
//! is carried out only if it has written nothing later that may be about the same client, else a person has to look (`hold`).

use super::old::{OldMail, Row};
use crate::{debt_update, matching::fold};
use jiff::Timestamp;
use regex::Regex;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use shared::{
    message::{CreditorDebtUpdate, EmailExtraction, EmailId, Expected, Operation, Origin, Revision, Stamp},
    money::Amount,
};
use std::{collections::HashMap, sync::LazyLock};

/// The firm's case numbers, as the replaced service knew them among a mail's reference numbers.
static CASE_NUMBER: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^(?:[0-9]{4,}|[0-9]+_[0-9]+|[0-9]{4}/[0-9]+|[0-9]{4}-[0-9]+)$").ok());

const LATER_OF_CLIENT: &str =
    "the replaced service has later written another mail that may be about the same client";
const LATER_UNREAD: &str = "left unread by the replaced service, which has written later mails: this amount may be older than theirs";
const NOT_EXACT: &str = "the amount that the replaced service left cannot be read exactly";
const NOT_AS_READ: &str = "the replaced service would have written another amount than it had read";
/// Why an amount of an imported mail is written only by a person's decision, whoever enqueues it again.
pub const IMPORTED: &str =
    "an email of the replaced service: whether MongoDB has had newer amounts since is not known";

/// What a mail or an update of the replaced service says.
struct Content {
    client_name: Option<String>,
    client_aktenzeichen: Option<String>,
    creditor_email: String,
    creditor_name: Option<String>,
    amount: Option<Amount>,
    /// There is something in the amount's place that is none.
    is_inexact: bool,
    response_text: Option<String>,
    reference_numbers: Vec<String>,
    confidence: Option<f64>,
}

/// How far the replaced service came with a mail.
#[derive(Debug, PartialEq, Eq)]
enum Way {
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

impl Content {
    /// Names of the client by which two mails are of the same one: the case number in one spelling, and the name's words.
    fn clients(&self) -> impl Iterator<Item = String> {
        let number =
            self.client_aktenzeichen.as_ref().map(|number| format!("nr:{}", number.replace('_', "/")));
        let name = self.client_name.as_ref().map(|name| {
            let folded = fold(name);
            let mut words: Vec<&str> = folded
                .split(|letter: char| !letter.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .collect();
            words.sort_unstable();
            format!("name:{}", words.join(" "))
        });
        number.into_iter().chain(name)
    }

    fn mark_key(&self) -> Option<(String, String)> {
        Some((self.clients().next()?, self.creditor_email.to_lowercase()))
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

/// What the mail's last update says, else what was read in it.
fn content(mail: &OldMail) -> Content {
    let read = mail.row.object("extracted_data").unwrap_or_default();
    let payload = mail.updates.last().and_then(|update| update.object("payload"));
    let (row, amount) = match &payload {
        Some(payload) => (payload, "new_debt_amount"),
        None => (&read, "debt_amount"),
    };
    let reference_numbers = row.texts("reference_numbers");
    let is_case = |number: &&String| CASE_NUMBER.as_ref().is_some_and(|form| form.is_match(number));
    let text = row.text(amount);
    let exact = text.as_deref().and_then(exact);
    Content {
        client_name: row.text("client_name"),
        client_aktenzeichen: row
            .text("client_aktenzeichen")
            .or_else(|| reference_numbers.iter().find(is_case).cloned()),
        creditor_email: row
            .text("creditor_email")
            .or_else(|| mail.row.text("from_email"))
            .unwrap_or_default(),
        creditor_name: row.text("creditor_name"),
        amount: exact,
        is_inexact: text.is_some() && exact.is_none(),
        response_text: row.text("response_text").or_else(|| read.text("summary")),
        reference_numbers,
        confidence: row
            .text("extraction_confidence")
            .or_else(|| read.text("confidence"))
            .and_then(|text| text.parse().ok())
            .filter(|confidence| (0.0..=1.0).contains(confidence)),
    }
}

/// An amount as it was stored, digit by digit; nothing is rounded.
fn exact(text: &str) -> Option<Amount> {
    let decimal = || Decimal::from_scientific(text).ok().and_then(|value| Amount::from_decimal(value).ok());
    text.parse().ok().or_else(decimal)
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

/// The columns of `incoming_emails`.
fn mail_row(
    mail: &OldMail,
    email_id: EmailId,
    received_at: Timestamp,
    way: &Way,
    content: &Content,
) -> Value {
    let row = &mail.row;
    let (processing, matched, sync) = match way {
        Way::Written => ("completed", Some("auto_matched"), "synced"),
        Way::NoReply => ("not_creditor_reply", None, "not_applicable"),
        Way::Undecided => ("completed", None, "not_applicable"),
        Way::Unfinished => ("extracted", None, "pending"),
        Way::Unread => ("received", None, "pending"),
    };
    let has_ended = matches!(way, Way::Written | Way::NoReply | Way::Undecided);
    let ended_at = ["processed_at", "updated_at", "created_at"].iter().find_map(|name| row.time(name));
    let created_at = row.time("created_at").unwrap_or(received_at);
    let is_senders = row.time("received_at") == Some(received_at);
    let is_read = *way != Way::Unread && (row.object("extracted_data").is_some() || !mail.updates.is_empty());
    let read = row.object("extracted_data").unwrap_or_default();
    let extracted = is_read.then(|| {
        json!({ "is_creditor_reply": read.0.get("is_creditor_reply") != Some(&Value::Bool(false)) && *way != Way::NoReply,
            "client_name": content.client_name, "client_aktenzeichen": content.client_aktenzeichen,
            "creditor_name": content.creditor_name, "debt_amount": content.amount,
            "reference_numbers": content.reference_numbers, "confidence": content.confidence,
            "summary": read.text("summary"), "hold": IMPORTED })
    });
    let matched_at = row.time("matched_at").filter(|_| matched.is_some());
    let confidence = row.text("match_confidence").and_then(|text| text.parse::<f64>().ok());
    let undecided = row.text("match_status").filter(|_| *way == Way::Undecided);
    json!({
        "id": email_id, "legacy_id": mail.id, "webhook_id": webhook_id(mail), "ticket_id": row.text("zendesk_ticket_id"),
        "from_email": row.text("from_email").unwrap_or_default(), "from_name": row.text("from_name"), "subject": row.text("subject"),
        "body_text": row.text("raw_body_text").or_else(|| row.text("cleaned_body")), "body_html": row.text("raw_body_html"),
        "cleaned_body": row.text("cleaned_body"), "attachments": row.json("attachment_urls"), "headers": headers(row),
        "received_at": received_at,
        "received_at_note": (!is_senders).then_some("the replaced service had no usable time: its time of arrival"),
        "extracted_data": extracted, "processing_status": processing, "match_status": matched, "sync_status": sync,
        "processing_error": undecided.map(|status| format!("the replaced service left it as {status}")),
        "match_confidence": confidence.filter(|_| matched.is_some()).map(|percent| (percent / 100.0).clamp(0.0, 1.0)),
        "idempotency_key": write_key(row, email_id), "created_at": created_at,
        "processed_at": ended_at.filter(|_| has_ended).or(has_ended.then_some(received_at)), "matched_at": matched_at,
    })
}

/// The addressees as headers: what remains of them.
fn headers(row: &Row) -> Option<Value> {
    let names = [("To", "to_addresses"), ("Cc", "cc_addresses"), ("In-Reply-To", "in_reply_to_header")];
    let given = names.iter().map(|(header, name)| ((*header).to_owned(), row.texts(name).join(", ")));
    let given: serde_json::Map<String, Value> =
        given.filter(|(_, text)| !text.is_empty()).map(|(header, text)| (header, json!(text))).collect();
    (!given.is_empty()).then_some(Value::Object(given))
}

/// The key of the mail's write under its id here. The hash stays: it tells which client, creditor and amount were meant.
fn write_key(row: &Row, email_id: EmailId) -> Option<String> {
    let key = row.text("idempotency_key")?;
    let operation = Operation::CreditorDebtUpdate.name();
    let (_, hash) = key.strip_prefix(operation)?.strip_prefix(':')?.split_once(':')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then(|| format!("{operation}:{email_id}:{hash}"))
}
