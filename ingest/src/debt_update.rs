//! The structured request: a debt update whose entities somebody has already extracted. Pure: parse, bound, and turn into a
//! mail and its first message.

use crate::{
    commit::FirstMessage,
    email::{Email, MAX_ID_CHARACTERS},
    json_body::{Fields, parse as parse_json},
    problem::Problem,
    received_at::received_at,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use shared::{
    idempotency_key::payload_hash,
    message::{CreditorDebtUpdate, Origin, Stamp},
    money::Amount,
};

/// Characters of a person's or firm's name.
pub const MAX_NAME_CHARACTERS: usize = 200;
/// Characters of a case or reference number.
pub const MAX_NUMBER_CHARACTERS: usize = 100;
/// Reference numbers of one update.
pub const MAX_REFERENCE_NUMBERS: usize = 20;
/// Characters of the summary.
pub const MAX_RESPONSE_CHARACTERS: usize = 2000;
/// What the outbox takes as a payload; its CHECK must never be the first to notice.
const MAX_PAYLOAD_BYTES: usize = 4096;
/// What the email id and the decimal form of the confidence may add when Postgres writes them.
const PAYLOAD_SLACK_BYTES: usize = 64;

/// Reads and bounds the body of `POST /v1/debt-updates`.
///
/// # Errors
/// [`Problem::InvalidPayload`] with every field that is wrong, unknown or repeated.
pub fn parse(body: &[u8], arrival: Timestamp) -> Result<(Email, FirstMessage), Problem> {
    let mut fields = Fields::new(parse_json(body)?, "");
    let client_name = fields.required_text("client_name", MAX_NAME_CHARACTERS);
    let client_aktenzeichen = said(fields.text("client_aktenzeichen", MAX_NUMBER_CHARACTERS));
    let (name_in_address, creditor_email) = fields.required_mailbox("creditor_email");
    let creditor_name = said(fields.text("creditor_name", MAX_NAME_CHARACTERS)).or(name_in_address);
    let amount = amount(&mut fields);
    let response_text = said(fields.text("response_text", MAX_RESPONSE_CHARACTERS));
    let reference_numbers = fields.texts("reference_numbers", MAX_REFERENCE_NUMBERS, MAX_NUMBER_CHARACTERS);
    let reference_numbers: Vec<_> =
        reference_numbers.into_iter().filter_map(|number| said(Some(number))).collect();
    let confidence = confidence(&mut fields);
    let when = fields.take("received_at");
    if matches!(when, Some(Value::Bool(_) | Value::Array(_) | Value::Object(_))) {
        fields.wrong("received_at", "", "must be a string, a number of unix seconds, or null");
    }
    let ticket_id = fields.id_text("ticket_id", MAX_ID_CHARACTERS);
    fields.refuse_unknown();
    let received_at = received_at(when.as_ref(), arrival);
    let Some(amount) = amount else { return fields.finish().and(Err(Problem::Internal)) };
    let extracted_data = json!({
        "is_creditor_reply": true, "client_name": client_name, "client_aktenzeichen": client_aktenzeichen,
        "creditor_name": creditor_name, "debt_amount": amount, "reference_numbers": reference_numbers,
        "confidence": confidence, "summary": response_text,
    });
    let key_payload = json!({"client_name": client_name, "creditor_email": creditor_email, "amount": amount});
    let message = CreditorDebtUpdate {
        // The statement that draws the id puts id and stamp in.
        email_id: 0,
        stamp: Stamp::try_from(0).map_err(|_| Problem::Internal)?,
        client_name: Some(client_name),
        client_aktenzeichen,
        creditor_email: creditor_email.clone(),
        creditor_name: creditor_name.clone(),
        new_debt_amount: Some(amount),
        response_text,
        reference_numbers,
        extraction_confidence: confidence,
        received_at: received_at.time,
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
        expected: None,
        hold: None,
    };
    let payload = serde_json::to_value(&message).map_err(|_| Problem::Internal)?;
    bound(&mut fields, &payload);
    fields.finish()?;
    let email = Email {
        webhook_id: None,
        ticket_id,
        from_email: creditor_email,
        from_name: creditor_name,
        subject: None,
        body_text: None,
        body_html: None,
        attachments: None,
        received_at,
    };
    Ok((email, FirstMessage::DebtUpdate { payload, extracted_data, key_hash: payload_hash(&key_payload) }))
}

/// A text that says something, without the space around it.
fn said(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The amount from its digits as sent, whether string or number.
fn amount(fields: &mut Fields) -> Option<Amount> {
    const NAME: &str = "new_debt_amount";
    let text = match fields.take(NAME) {
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.as_str().to_owned(),
        Some(Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            fields.wrong(NAME, "", "must be a string or a number");
            return None;
        }
        None => {
            fields.wrong(NAME, "", "is required");
            return None;
        }
    };
    text.parse().map_err(|error: shared::money::AmountError| fields.wrong(NAME, "", error.to_string())).ok()
}

/// 0 to 1. What is below a millionth is 0, so that its decimal form in jsonb stays short.
fn confidence(fields: &mut Fields) -> Option<f64> {
    const NAME: &str = "extraction_confidence";
    let value = fields.take(NAME)?;
    match value.as_f64().filter(|number| (0.0..=1.0).contains(number)) {
        Some(number) if number < 1e-6 => Some(0.0),
        Some(number) => Some(number),
        None => {
            fields.wrong(NAME, "", "must be a number from 0 to 1 or null");
            None
        }
    }
}

/// The payload as a whole has to fit the outbox; the longest field is named.
fn bound(fields: &mut Fields, payload: &Value) {
    let Value::Object(members) = payload else { return };
    let length = |value: &Value| value.to_string().len() + value.as_array().map_or(0, Vec::len);
    // Postgres writes a blank after each colon and comma.
    let bytes: usize = members.iter().map(|(name, value)| name.len() + length(value) + 6).sum();
    if bytes + PAYLOAD_SLACK_BYTES > MAX_PAYLOAD_BYTES
        && let Some((name, _)) = members.iter().max_by_key(|(_, value)| length(value))
    {
        fields.wrong(
            name,
            "",
            format!("all fields together must have at most {MAX_PAYLOAD_BYTES} bytes; this is the longest"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<(Email, FirstMessage), Problem> {
        parse(body.as_bytes(), "2026-06-01T12:00:00Z".parse().unwrap())
    }

    fn with(field: &str, value: &str) -> Result<(Email, FirstMessage), Problem> {
        let mut body = json!({"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "new_debt_amount": "1027.55"});
        body[field] = serde_json::from_str(value).unwrap();
        read(&body.to_string())
    }

    fn pointers(result: Result<(Email, FirstMessage), Problem>) -> Vec<String> {
        match result {
            Err(Problem::InvalidPayload(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn payload(result: Result<(Email, FirstMessage), Problem>) -> Value {
        match result {
            Ok((_, FirstMessage::DebtUpdate { payload, .. })) => payload,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_amount_is_read_from_its_digits_whether_string_or_number() {
        for (given, read) in [
            ("\"1234.5\"", "1234.50"),
            ("0.1", "0.10"),
            ("999999999999.99", "999999999999.99"),
            ("0", "0.00"),
            ("-0", "0.00"),
            ("12.300", "12.30"),
        ] {
            assert_eq!(payload(with("new_debt_amount", given))["new_debt_amount"], read);
        }
        for given in [
            "-0.01",
            "1000000000000",
            "1.001",
            "1e3",
            "1e999999999",
            "true",
            "null",
            "\"1.027,55\"",
            "\"\"",
            "\"NaN\"",
            "[1]",
            "{}",
        ] {
            assert_eq!(pointers(with("new_debt_amount", given)), ["/new_debt_amount"], "{given}");
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let all = r#"{"client_name": "", "creditor_email": "x", "extraction_confidence": 1.01, "reference_numbers": [1], "typo": 1, "received_at": true}"#;
        let expected = [
            "/client_name",
            "/creditor_email",
            "/new_debt_amount",
            "/reference_numbers/0",
            "/extraction_confidence",
            "/received_at",
            "/typo",
        ];
        assert_eq!(pointers(read(all)), expected);
        let twice = r#"{"client_name": "A", "creditor_email": "a@b.example", "new_debt_amount": 1, "new_debt_amount": 2}"#;
        assert_eq!(pointers(read(twice)), ["/new_debt_amount"]);
        assert_eq!(pointers(with("client_name", &format!("\"{}\"", "x".repeat(201)))), ["/client_name"]);
    }

    #[test]
    fn the_message_is_what_the_relay_reads() {
        let body = r#"{"client_name": " Mößbauer, Jürgen ", "client_aktenzeichen": "2024/118", "creditor_email": "a@b.example", "new_debt_amount": 1027.55,
            "response_text": "\u0000", "reference_numbers": [" A-1 ", " ", "\u0000", ""], "extraction_confidence": 0.9, "received_at": "2026-02-17 09:14:22", "ticket_id": 5}"#;
        let message: CreditorDebtUpdate = serde_json::from_value(payload(read(body))).unwrap();
        assert_eq!(message.client_name.as_deref(), Some("Mößbauer, Jürgen"));
        assert_eq!(message.new_debt_amount.map(|amount| amount.to_string()).as_deref(), Some("1027.55"));
        assert_eq!(message.response_text, None);
        assert_eq!(message.reference_numbers, ["A-1"]);
        assert_eq!(message.received_at.to_string(), "2026-02-17T08:14:22Z");
        let (email, FirstMessage::DebtUpdate { key_hash, .. }) = read(body).unwrap() else {
            panic!("another message")
        };
        assert_eq!(email.ticket_id.as_deref(), Some("5"));
        let expected =
            json!({"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "amount": "1027.55"});
        assert_eq!(key_hash, payload_hash(&expected));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_fits_the_outbox(
            name in "[a-zäöü\"\\\\\u{1}\u{1F600}]{1,200}", text in "[a-zß\n\u{7}\u{1F600}]{0,2000}", numbers in prop::collection::vec("[A-Z0-9\"/]{0,100}", 0..20),
            confidence in 0.0..1.0_f64,
        ) {
            let body = json!({"client_name": name, "creditor_email": "a@b.example", "new_debt_amount": "1", "response_text": text,
                "reference_numbers": numbers, "extraction_confidence": confidence});
            if let Ok((_, FirstMessage::DebtUpdate { payload, .. })) = read(&body.to_string()) {
                // jsonb's own text: one blank after each structural comma and colon.
                let (members, items) = (payload.as_object().unwrap().len(), payload["reference_numbers"].as_array().map_or(0, Vec::len));
                prop_assert!(payload.to_string().len() + 2 * members + items + 18 + 6 <= 4096);
            }
        }
    }
}
