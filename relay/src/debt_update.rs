//! The debt update that the reading of a mail asks for. Pure.

use crate::extraction::ExtractedEntities;
use jiff::Timestamp;
use serde::Deserialize;
use shared::{
    message::{CreditorDebtUpdate, EmailId, Origin, Stamp},
    money::Amount,
};

/// A payload has at most 4 KiB; Postgres writes a blank after each colon and comma.
const MAX_PAYLOAD_BYTES: usize = 3800;

/// What an update repeats of its mail.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The mail.
    pub email_id: EmailId,
    /// The sender's address.
    pub from_email: &'a str,
    /// When it was received.
    pub received_at: Timestamp,
}

/// What `incoming_emails.extracted_data` holds, whether the relay has read the mail or the update came ready.
#[derive(Clone, Default, Deserialize)]
pub struct Reading {
    /// Whether the creditor's side says something in the matter.
    pub is_creditor_reply: bool,
    #[serde(default)]
    pub(crate) client_name: Option<String>,
    #[serde(default)]
    pub(crate) client_aktenzeichen: Option<String>,
    #[serde(default)]
    pub(crate) creditor_name: Option<String>,
    #[serde(default)]
    pub(crate) debt_amount: Option<Amount>,
    #[serde(default)]
    pub(crate) reference_numbers: Vec<String>,
    #[serde(default)]
    pub(crate) confidence: Option<f64>,
    #[serde(default)]
    pub(crate) summary: Option<String>,
    /// Of a mail of the replaced service: why no amount of it is written without a person.
    #[serde(default)]
    pub(crate) hold: Option<String>,
}

impl From<&ExtractedEntities> for Reading {
    fn from(entities: &ExtractedEntities) -> Reading {
        let entities = entities.clone();
        Reading {
            is_creditor_reply: entities.is_creditor_reply,
            client_name: entities.client_name,
            client_aktenzeichen: entities.client_aktenzeichen,
            creditor_name: entities.creditor_name,
            debt_amount: entities.debt_amount,
            reference_numbers: entities.reference_numbers,
            confidence: Some(entities.confidence),
            summary: entities.summary,
            hold: None,
        }
    }
}

/// The update. Texts are cut so that a payload stays under its 4 KiB.
#[must_use]
pub fn of_reading(head: Head<'_>, reading: &Reading, stamp: Stamp) -> CreditorDebtUpdate {
    let short = |text: &Option<String>, length| text.as_deref().map(|text| cut(text, length));
    CreditorDebtUpdate {
        email_id: head.email_id,
        client_name: short(&reading.client_name, 120),
        client_aktenzeichen: short(&reading.client_aktenzeichen, 40),
        creditor_email: cut(head.from_email, 254),
        creditor_name: short(&reading.creditor_name, 120),
        new_debt_amount: reading.debt_amount,
        response_text: short(&reading.summary, 300),
        reference_numbers: reading.reference_numbers.iter().take(10).map(|number| cut(number, 60)).collect(),
        extraction_confidence: reading.confidence,
        received_at: head.received_at,
        stamp,
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
        expected: None,
        hold: reading.hold.clone(),
    }
}

/// Makes room for what a person has named: of a payload that is too long, the summary is cut, then left out.
pub fn make_fit(update: &mut CreditorDebtUpdate) {
    let is_long = |update: &CreditorDebtUpdate| {
        serde_json::to_string(update).is_ok_and(|payload| payload.len() > MAX_PAYLOAD_BYTES)
    };
    if is_long(update) {
        update.response_text = update.response_text.take().map(|text| cut(&text, 300));
    }
    if is_long(update) {
        update.response_text = None;
    }
}

/// The text without NUL and at most so many characters long.
#[must_use]
pub fn cut(text: &str, length: usize) -> String {
    text.chars().filter(|character| *character != '\0').take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shared::message::Revision;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn update(extracted_data: serde_json::Value) -> CreditorDebtUpdate {
        let reading: Reading = serde_json::from_value(extracted_data).unwrap();
        let head = Head { email_id: 17, from_email: "a@b.example", received_at: AT };
        of_reading(head, &reading, Stamp::new(AT, 17, Revision::FIRST).unwrap())
    }

    #[test]
    fn a_ready_update_is_read_as_well_as_an_extracted_one() {
        let ready = json!({"is_creditor_reply": true, "client_name": "Adler, Eva", "client_aktenzeichen": null, "creditor_name": null,
            "debt_amount": "12.50", "reference_numbers": [], "confidence": null, "summary": null});
        assert_eq!(update(ready).new_debt_amount, "12.50".parse().ok());
        let extracted = json!({"is_creditor_reply": true, "intent": "debt_statement", "client_name": null, "client_aktenzeichen": "1/2",
            "creditor_name": "x", "debt_amount": null, "reference_numbers": ["A"], "confidence": 0.5, "summary": "s"});
        assert_eq!(update(extracted).extraction_confidence, Some(0.5));
    }

    #[test]
    fn what_is_too_long_loses_its_summary() {
        let mut long = update(json!({"is_creditor_reply": true}));
        long.response_text = Some("ß".repeat(1500));
        long.entry_key = Some("e".repeat(900));
        make_fit(&mut long);
        assert_eq!(long.response_text.as_ref().map(|text| text.chars().count()), Some(300));
        long.entry_key = Some("e".repeat(3500));
        make_fit(&mut long);
        assert_eq!(long.response_text, None);
    }
}
