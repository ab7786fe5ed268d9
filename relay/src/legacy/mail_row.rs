//! A mail of the replaced service as a row of `incoming_emails`. Pure.

use super::{
    content::Content,
    old::{OldMail, Row},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::message::{EmailId, Operation};

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

/// The webhook's id, by which a repeat is known; where the provider gave none, nobody will repeat it by a name that we could know.
pub(super) fn webhook_id(mail: &OldMail) -> String {
    let given = mail.row.text("zendesk_webhook_id").filter(|id| id.chars().count() <= 255);
    given.unwrap_or_else(|| format!("legacy:{}", mail.id))
}

/// The columns of `incoming_emails`.
pub(super) fn mail_row(
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
