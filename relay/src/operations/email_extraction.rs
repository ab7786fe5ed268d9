//! Reads a mail: cleans its text, extracts the entities, and enqueues the debt update in the commit that stores them.

use crate::{
    context::Context,
    debt_update::{self, Head, Reading},
    extraction::{
        ExtractedEntities, Extractor, Headers, Mail, estimated_tokens, is_worth_asking, model::Model, rules,
        usage,
    },
    ledger::{self, StoredMail},
    mail_text::{self, MailText},
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome},
    reading,
};
use futures_util::future::join_all;
use serde_json::json;
use shared::{
    idempotency_key::generate_idempotency_key,
    message::{CreditorDebtUpdate, EmailExtraction, Operation, Revision, Stamp},
    postgres::Connection,
};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;
use tracing::Instrument as _;

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
    let mut mails = match read_mails(context, &ids, deadline).await {
        Ok(mails) => mails,
        Err(failure) => {
            finished.extend(readable.into_iter().map(|(claim, _)| claim.failed(failure.clone(), 0)));
            return finished;
        }
    };
    let mut found = Vec::new();
    for (claim, email_id) in readable {
        match mails.remove(&email_id) {
            Some(mail) => found.push((claim, mail)),
            None => {
                let failure = Failure::new(FailureClass::Permanent, "there is no mail of this id");
                finished.push(claim.failed(failure, 0));
            }
        }
    }
    finished.extend(match &context.extractor {
        Extractor::Rules => by_rules(found, deadline).await,
        Extractor::Model(model) => by_model(context, model, found, deadline).await,
    });
    finished
}

/// One mail after the other: reading is pure computation.
async fn by_rules(mails: Vec<(Claim, StoredMail)>, deadline: Instant) -> Vec<Finished> {
    let mut finished = Vec::new();
    for (claim, mail) in mails {
        let read = off_the_network(move || {
            // Other batches' mails may have taken their time before it.
            if Instant::now() >= deadline {
                return Ok(None);
            }
            let cleaned = Cleaned::new(mail)?;
            let entities = rules::extract(&cleaned.as_mail());
            Ok(Some((cleaned, entities)))
        });
        finished.push(match read.instrument(claim.label.span()).await {
            Ok(Some((cleaned, entities))) => store(claim, cleaned, entities),
            Ok(None) => claim.give_back(),
            Err(failure) => claim.failed(failure, 0),
        });
    }
    finished
}

/// All mails at once; the model lets as many through as it may.
async fn by_model(
    context: &Context,
    model: &Model,
    mails: Vec<(Claim, StoredMail)>,
    deadline: Instant,
) -> Vec<Finished> {
    let asked = mails.into_iter().map(|(claim, mail)| async move {
        let span = claim.label.span();
        (claim, ask(context, model, mail, deadline).instrument(span).await)
    });
    let asked = join_all(asked).await;
    let stumbled = asked.iter().any(|(_, read)| matches!(read, Err(Unread::NoAnswer(_))));
    let has_answered =
        asked.iter().any(|(_, read)| read.is_ok()) || (stumbled && answers(context, model, deadline).await);
    let finish = |(claim, read): (Claim, Result<_, Unread>)| match read {
        Ok((cleaned, entities)) => store(claim, cleaned, entities),
        Err(Unread::NoPlace) => claim.give_back(),
        // A server that answers about others is not away. It may be busy, or unable to cope with this mail: counted, since each try is
        // paid for and a mail must not wait for ever.
        Err(Unread::NoAnswer(failure)) if has_answered => {
            claim.failed(Failure::new(FailureClass::Transient, failure.text), 0)
        }
        Err(Unread::NoAnswer(failure) | Unread::Failed(failure)) => claim.failed(failure, 0),
    };
    asked.into_iter().map(finish).collect()
}

/// Whether the server answers about another mail, where there was none beside one that got no answer.
async fn answers(context: &Context, model: &Model, deadline: Instant) -> bool {
    let (answers, tokens) = model.answers(deadline.saturating_duration_since(Instant::now())).await;
    if tokens > 0 {
        usage::count(context, model, tokens).await;
    }
    answers
}

/// Why a model did not read a mail.
enum Unread {
    /// No call could be begun in time.
    NoPlace,
    /// The server was not away, and still there was no answer: in time, or whole, or without an error of its own.
    NoAnswer(Failure),
    /// Any other way.
    Failed(Failure),
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Unread {
        Unread::Failed(failure)
    }
}

/// What a call's apply does beside the call itself: the look at the mails, the cleaning, budget and count.
pub(super) const BESIDE_A_CALL: Duration = Duration::from_secs(10);

async fn ask(
    context: &Context,
    model: &Model,
    mail: StoredMail,
    deadline: Instant,
) -> Result<(Cleaned, ExtractedEntities), Unread> {
    let cleaned = off_the_network(move || Cleaned::new(mail)).await?;
    if !is_worth_asking(&cleaned.as_mail()) {
        let entities = rules::extract(&cleaned.as_mail());
        return Ok((cleaned, entities));
    }
    let latest = deadline.checked_sub(model.timeout()).unwrap_or(deadline);
    let Some(turn) = model.turn(latest).await? else { return Err(Unread::NoPlace) };
    usage::check(context, model).await?;
    let left = deadline.saturating_duration_since(Instant::now());
    let reply = model.ask(&cleaned.as_mail(), left).await;
    if reply.tokens > 0 {
        usage::count(context, model, reply.tokens).await;
    }
    drop(turn); // not before the count: the next one looks at the budget
    let answer = match reply.answer {
        Ok(answer) => answer,
        Err(_) if reply.late && left < model.timeout() => return Err(Unread::NoPlace),
        Err(failure) if reply.may_be_the_mails => return Err(Unread::NoAnswer(failure)),
        Err(failure) => return Err(Unread::Failed(failure)),
    };
    let model = model.clone();
    let checked = off_the_network(move || {
        let entities = model.check(&answer, &cleaned.as_mail())?;
        Ok((cleaned, entities))
    });
    Ok(checked.await?)
}

/// Runs computation off the threads that serve the network.
async fn off_the_network<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let crashed = || Err(Failure::new(FailureClass::Permanent, "the extractor crashed"));
    reading::on_its_thread(work).await.unwrap_or_else(crashed)
}

async fn read_mails(
    context: &Context,
    ids: &[i64],
    deadline: Instant,
) -> Result<HashMap<i64, StoredMail>, Failure> {
    let look = async |connection: &mut Connection| {
        ledger::mails(connection, ids).await.map_err(|error| ledger::unreadable(&error))
    };
    context.ask(deadline, "no reply to a look at the mails", look).await
}

/// A mail, its text, and its place in the order of updates.
struct Cleaned {
    mail: StoredMail,
    text: MailText,
    stamp: Stamp,
}

impl Cleaned {
    fn new(mut mail: StoredMail) -> Result<Cleaned, Failure> {
        if mail.is_text_removed {
            return Err(Failure::new(FailureClass::Permanent, "the text of the mail was removed"));
        }
        let stamp = Stamp::new(mail.received_at, mail.email_id, Revision::FIRST)
            .map_err(|error| Failure::new(FailureClass::Permanent, error.to_string()))?;
        mail.subject = mail_text::decode_words(&mail.subject).into_owned();
        mail.from_name = mail.from_name.map(|name| mail_text::decode_words(&name).into_owned());
        let text = mail_text::read(mail.body_text.as_deref(), mail.body_html.as_deref());
        Ok(Cleaned { mail, text, stamp })
    }

    fn as_mail(&self) -> Mail<'_> {
        Mail {
            subject: &self.mail.subject,
            from_email: &self.mail.from_email,
            from_name: self.mail.from_name.as_deref(),
            text: &self.text,
            headers: Headers::new(self.mail.headers.as_ref()),
        }
    }

    /// Estimated, of all bodies and of what is left to read.
    fn token_counts(&self) -> (i32, i32) {
        let bodies = [&self.mail.body_text, &self.mail.body_html];
        let received = bodies.into_iter().flatten().map(|body| body.chars().count()).sum();
        (estimated_tokens(received), estimated_tokens(self.text.current.chars().count()))
    }
}

fn store(claim: Claim, cleaned: Cleaned, entities: ExtractedEntities) -> Finished {
    let token_counts = cleaned.token_counts();
    let Cleaned { mail, text, stamp } = cleaned;
    let is_reply = entities.is_creditor_reply;
    let head = Head { email_id: mail.email_id, from_email: &mail.from_email, received_at: mail.received_at };
    let hold = claim.payload::<EmailExtraction>().ok().and_then(|payload| payload.hold);
    let update = is_reply.then(|| CreditorDebtUpdate {
        hold,
        ..debt_update::of_reading(head, &Reading::from(&entities), stamp)
    });
    let next = update
        .as_ref()
        .map(|update| claim.next(Operation::CreditorDebtUpdate, stamp.revision(), json!(update)));
    let outcome = if is_reply { Outcome::Extracted } else { Outcome::NotCreditorReply };
    let mut finished = claim.done(outcome, stamp.number());
    finished.next = next;
    if let Some(email) = &mut finished.email {
        email.cleaned_body = Some(without_nul(&text.current));
        email.extracted_data = Some(json!(entities));
        email.idempotency_key = update.as_ref().map(write_key);
        email.token_counts = Some(token_counts);
    }
    finished
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

fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
