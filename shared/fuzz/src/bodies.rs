//! The bodies of requests, a line of `relay apply`, and a mail as its provider hands it out.

use crate::{
    input::{arrival, mode},
    json::is_pointer,
};
use ingest::{
    commit::FirstMessage, debt_update, email::Email, problem::Problem, source::standard, source::zendesk,
};
use jiff::Timestamp;
use relay::{apply::line, resend};
use serde_json::Value;
use shared::message::{CreditorDebtUpdate, EmailFetch};

/// What the outbox takes as a payload.
const PAYLOAD: usize = 4096;
const PART: usize = 1 << 20;

/// What a body is turned into can be stored: no NUL, an address, a time between 2015 and now, a payload that fits.
pub(crate) fn payloads(data: &[u8]) {
    let (mode, body) = mode(data);
    let read = match mode % 3 {
        0 => zendesk::parse(body, arrival()).map(|email| (email, FirstMessage::Extraction)),
        1 => standard::parse(body, arrival()),
        _ => debt_update::parse(body, arrival()),
    };
    match read {
        Ok((email, first)) => {
            storable(&email);
            first_message(first);
        }
        Err(Problem::InvalidPayload(errors)) => {
            assert!((1..=20).contains(&errors.len()), "{} errors", errors.len());
            assert!(errors.iter().all(|error| is_pointer(&error.pointer)), "{errors:?}");
        }
        Err(Problem::UnsupportedEvent | Problem::MailWithoutBody) => {
            assert_eq!(mode % 3, 1, "an event's alone")
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn storable(email: &Email) {
    let texts = [
        &email.webhook_id,
        &email.ticket_id,
        &email.from_name,
        &email.subject,
        &email.body_text,
        &email.body_html,
    ];
    assert!(texts.into_iter().flatten().all(|text| !text.contains('\0')), "NUL in a text");
    assert!(!email.attachments.as_ref().is_some_and(holds_nul), "NUL in an attachment");
    let ids = [&email.webhook_id, &email.ticket_id];
    assert!(
        ids.into_iter().flatten().all(|id| !id.is_empty() && id.chars().count() <= 255),
        "an id's bounds"
    );
    let (local, domain) = email.from_email.rsplit_once('@').expect("an address");
    assert!(!local.is_empty() && !domain.is_empty() && email.from_email.len() <= 320, "an address");
    assert!(!email.from_email.contains(|c: char| c.is_whitespace() || c.is_control()), "an address");
    in_bounds(email.received_at.time);
}

pub(crate) fn in_bounds(time: Timestamp) {
    let earliest: Timestamp = "2015-01-01T00:00:00Z".parse().unwrap();
    assert!((earliest..=arrival()).contains(&time), "{time} is before 2015 or in the future");
}

fn first_message(first: FirstMessage) {
    match first {
        FirstMessage::Extraction => {}
        FirstMessage::Fetch { provider_id } => assert!(EmailFetch::is_provider_id(&provider_id), "no id"),
        FirstMessage::DebtUpdate { mut payload, extracted_data, key_hash } => {
            assert_eq!(key_hash.len(), 16);
            payload["email_id"] = i64::MAX.into();
            payload["stamp"] = "9".repeat(20).into();
            assert!(in_postgres(&payload) <= PAYLOAD, "the outbox would refuse it");
            assert!(!holds_nul(&payload) && !holds_nul(&extracted_data), "NUL in a payload");
            payload["stamp"] = "00000000000000000001".into();
            let update: CreditorDebtUpdate = serde_json::from_value(payload).expect("the relay reads it");
            assert!(
                update.new_debt_amount.is_some() && update.client_name.is_some_and(|name| !name.is_empty())
            );
        }
    }
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Bytes of a value as Postgres writes a jsonb.
fn in_postgres(value: &Value) -> usize {
    match value {
        Value::Array(items) => 2 + between(items.len()) + items.iter().map(in_postgres).sum::<usize>(),
        Value::Object(map) => {
            let member = |(name, value): (&String, &Value)| {
                Value::from(name.as_str()).to_string().len() + 2 + in_postgres(value)
            };
            2 + between(map.len()) + map.iter().map(member).sum::<usize>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string().len(),
    }
}

fn between(items: usize) -> usize {
    items.saturating_sub(1) * 2
}

/// A line that `relay apply` takes is one that `ingest` would take too, and it says the same to both.
pub(crate) fn apply_line(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(ours) = line::parse(text, arrival()) else { return };
    in_bounds(ours.received_at);
    let (email, first) = match debt_update::parse(data, arrival()) {
        Ok(read) => read,
        // Only the outbox bounds the whole, and only ingest stores the ticket.
        Err(Problem::InvalidPayload(errors)) => {
            let is_known = |detail: &str, pointer: &str| {
                detail.starts_with("all fields together") || pointer.starts_with("/ticket_id")
            };
            assert!(errors.iter().all(|error| is_known(&error.detail, &error.pointer)), "{errors:?}");
            return;
        }
        Err(other) => panic!("{other:?}"),
    };
    let FirstMessage::DebtUpdate { payload, .. } = first else { panic!("not a debt update") };
    let theirs: CreditorDebtUpdate = serde_json::from_value(payload).unwrap();
    assert_eq!(email.received_at.note, None, "ingest would have put the time of arrival in its place");
    // What ingest rounds to a millionth is small.
    let confidence =
        ours.extraction_confidence.map(|confidence| if confidence < 1e-6 { 0.0 } else { confidence });
    let ours = CreditorDebtUpdate {
        email_id: theirs.email_id,
        stamp: theirs.stamp,
        extraction_confidence: confidence,
        ..ours
    };
    assert_eq!(serde_json::to_value(&ours).unwrap(), serde_json::to_value(&theirs).unwrap());
}

/// A mail as the provider hands it out: bounded, without NUL.
pub(crate) fn fetched_mail(data: &[u8]) {
    let Ok(received) = resend::read(data) else { return };
    let parts = received.parts;
    let texts = [&parts.body_text, &parts.body_html];
    assert!(
        texts.into_iter().flatten().all(|text| text.len() <= PART && !text.contains('\0')),
        "a part's bounds"
    );
    let headers = parts.headers.expect("a fetched mail has headers, even if none");
    let headers = headers.as_object().expect("an object");
    assert!(headers.len() <= 200, "{} headers", headers.len());
    for (name, value) in headers {
        let value = value.as_str().expect("a text");
        assert!(name.len() <= 100 && value.len() <= 1000, "a header's bounds");
        assert!(!name.contains('\0') && !value.contains('\0'), "NUL in a header");
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "names are in lower case");
    }
    if let Some(attachments) = parts.attachments {
        assert!(
            !holds_nul(&attachments) && attachments.as_array().expect("a list").len() <= 1000,
            "attachments"
        );
    }
}
