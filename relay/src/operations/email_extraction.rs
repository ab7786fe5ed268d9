//! Reads a mail: cleans its text, extracts the entities, and enqueues the debt update in the commit that stores them.

use crate::{
    context::Context,
    extraction::{ExtractedEntities, Headers, Mail, rules},
    ledger::{self, StoredMail},
    mail_text,
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome},
};
use serde_json::json;
use shared::{
    idempotency_key::generate_idempotency_key,
    message::{CreditorDebtUpdate, EmailExtraction, Operation, Origin, Revision, Stamp},
};
use std::collections::HashMap;
use tokio::time::{Instant, timeout_at};

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let mut finished = Vec::new();
    let mut readable = Vec::new();
    for claim in claims {
        match claim.payload::<EmailExtraction>() {
            Ok(payload) => readable.push((claim, payload.email_id)),
            Err(failure) => finished.push(claim.failed(failure, 0)),
        }
    }
    let ids: Vec<_> = readable.iter().map(|(_, email_id)| *email_id).collect();
    let late = |_| Err(Failure::new(FailureClass::SinkDown, "Postgres: no reply to a look at the mails"));
    let mut mails = match timeout_at(deadline, read_mails(context, &ids)).await.unwrap_or_else(late) {
        Ok(mails) => mails,
        Err(failure) => {
            finished.extend(readable.into_iter().map(|(claim, _)| claim.failed(failure.clone(), 0)));
            return finished;
        }
    };
    for (claim, email_id) in readable {
        if Instant::now() >= deadline {
            finished.push(claim.give_back());
            continue;
        }
        let Some(mail) = mails.remove(&email_id) else {
            let failure = Failure::new(FailureClass::Permanent, "there is no mail of this id");
            finished.push(claim.failed(failure, 0));
            continue;
        };
        // Reading is pure computation: off the threads that serve the network.
        match tokio::task::spawn_blocking(move || read(&mail).map(|reading| (mail, reading))).await {
            Ok(Ok((mail, reading))) => finished.push(store(claim, &mail, reading)),
            Ok(Err(failure)) => finished.push(claim.failed(failure, 0)),
            Err(_) => {
                finished.push(claim.failed(Failure::new(FailureClass::Permanent, "the extractor crashed"), 0))
            }
        }
    }
    finished
}

async fn read_mails(context: &Context, ids: &[i64]) -> Result<HashMap<i64, StoredMail>, Failure> {
    let connection = context.connection().await?;
    ledger::mails(&connection, ids).await.map_err(|error| ledger::unreadable(&error))
}

struct Reading {
    cleaned_body: String,
    entities: ExtractedEntities,
    stamp: Stamp,
}

fn read(mail: &StoredMail) -> Result<Reading, Failure> {
    let text = mail_text::read(mail.body_text.as_deref(), mail.body_html.as_deref());
    let from_name = mail.from_name.as_deref().map(mail_text::decode_words);
    let entities = rules::extract(&Mail {
        subject: &mail_text::decode_words(&mail.subject),
        from_email: &mail.from_email,
        from_name: from_name.as_deref(),
        text: &text,
        headers: Headers::new(mail.headers.as_ref()),
    });
    let stamp = Stamp::new(mail.received_at, mail.email_id, Revision::FIRST)
        .map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))?;
    Ok(Reading { cleaned_body: text.current, entities, stamp })
}

fn store(claim: Claim, mail: &StoredMail, Reading { cleaned_body, entities, stamp }: Reading) -> Finished {
    let is_reply = entities.is_creditor_reply;
    let update = is_reply.then(|| debt_update(mail, &entities, stamp));
    let next = update
        .as_ref()
        .map(|update| claim.next(Operation::CreditorDebtUpdate, stamp.revision(), json!(update)));
    let outcome = if is_reply { Outcome::Extracted } else { Outcome::NotCreditorReply };
    let mut finished = claim.done(outcome, stamp.number());
    finished.next = next;
    if let Some(email) = &mut finished.email {
        email.cleaned_body = Some(without_nul(&cleaned_body));
        email.extracted_data = Some(json!(entities));
        email.idempotency_key = update.as_ref().map(write_key);
    }
    finished
}

/// The update that a reading asks for. Texts are cut so that a payload stays under its 4 KiB.
fn debt_update(mail: &StoredMail, entities: &ExtractedEntities, stamp: Stamp) -> CreditorDebtUpdate {
    let short = |text: &Option<String>, length| text.as_deref().map(|text| cut(text, length));
    CreditorDebtUpdate {
        email_id: mail.email_id,
        client_name: short(&entities.client_name, 120),
        client_aktenzeichen: short(&entities.client_aktenzeichen, 40),
        creditor_email: cut(&mail.from_email, 254),
        creditor_name: short(&entities.creditor_name, 120),
        new_debt_amount: entities.debt_amount,
        response_text: short(&entities.summary, 300),
        reference_numbers: entities.reference_numbers.iter().take(10).map(|number| cut(number, 60)).collect(),
        extraction_confidence: Some(entities.confidence),
        received_at: mail.received_at,
        stamp,
        origin: Origin::Mail,
        decided_by: None,
        client_id: None,
        entry_key: None,
    }
}

/// The key under which the replaced service knew this write.
fn write_key(update: &CreditorDebtUpdate) -> String {
    let payload = json!({
        "client_name": update.client_name,
        "creditor_email": update.creditor_email,
        "amount": update.new_debt_amount,
    });
    generate_idempotency_key(Operation::CreditorDebtUpdate.name(), &update.email_id.to_string(), &payload)
}

fn cut(text: &str, length: usize) -> String {
    text.chars().filter(|character| *character != '\0').take(length).collect()
}

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
