//! Tells the firm by mail that a person has to decide; more than ten an hour become one digest. Changes nothing about the mail that it
//! tells of, and is silent about one that has been settled meanwhile.

use super::delivery::{Post, deliver};
use crate::{
    context::Context,
    ledger::{self, UnsettledMail},
    letters::{self, Waiting},
    matching,
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome, Transition},
    review,
    review_mails::{self, DIGEST, Places, Rest, SINGLES},
    smtp::{LONGEST, Mailer},
};
use serde_json::Value;
use shared::message::{CreditorDebtUpdate, MessageId, ReviewCause, ReviewNotification};
use shared::postgres::Connection;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// A digest that did not go out is tried again after this, whole: single delays would tear it apart.
const DIGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A message whose mail waits still.
struct Open {
    claim: Claim,
    notification: ReviewNotification,
    waiting: Waiting,
}

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let Some(mailer) = &context.mailer else { return claims.into_iter().map(Claim::give_back).collect() };
    let (mut finished, mut readable) = (Vec::new(), Vec::new());
    for claim in claims {
        match claim.payload::<ReviewNotification>() {
            Ok(notification) => readable.push((claim, notification)),
            Err(failure) => finished.push(claim.failed(failure, 0)),
        }
    }
    let mut mails = match unsettled(context, &readable, deadline).await {
        Ok(mails) => mails,
        Err(failure) => {
            finished.extend(readable.into_iter().map(|(claim, _)| claim.failed(failure.clone(), 0)));
            return finished;
        }
    };
    let mut open = Vec::new();
    for (claim, notification) in readable {
        let mail = mails.remove(&notification.message_id);
        match mail.filter(|mail| is_unsettled(mail, notification.cause)) {
            Some(mail) => {
                let waiting = describe(&notification, mail);
                open.push(Open { claim, notification, waiting });
            }
            None => finished.push(claim.done(Outcome::Discarded, 0)),
        }
    }
    if open.is_empty() {
        return finished;
    }
    let (repeats, open) = split_repeats(open);
    finished.extend(deliver(mailer, repeats.into_iter().map(post).collect(), deadline).await);
    if open.is_empty() {
        return finished;
    }
    let have_waited = open.iter().any(|message| message.claim.has_waited());
    match take(context, open.len(), have_waited, deadline).await {
        Ok(places) => finished.extend(send(context, mailer, open, places, deadline).await),
        Err(failure) => {
            finished.extend(open.into_iter().map(|message| message.claim.failed(failure.clone(), 0)))
        }
    }
    finished
}

/// Those whose letter may have gone out from a relay that crashed before it could say so, and the others. Their places are taken,
/// and they keep their own letters: in a digest nobody would know the repeat. A batch's first messages are its single letters, so
/// these are the first ones again; of a digest's messages, as many may be told once more.
fn split_repeats(open: Vec<Open>) -> (Vec<Open>, Vec<Open>) {
    let (mut repeats, mut others): (Vec<Open>, Vec<Open>) =
        open.into_iter().partition(|message| message.claim.may_be_repeat());
    others.extend(repeats.split_off(repeats.len().min(SINGLES)));
    others.sort_unstable_by_key(|message| message.claim.id);
    (repeats, others)
}

async fn unsettled(
    context: &Context,
    messages: &[(Claim, ReviewNotification)],
    deadline: Instant,
) -> Result<HashMap<MessageId, UnsettledMail>, Failure> {
    let keys: Vec<_> = messages.iter().map(|(_, message)| (message.email_id, message.message_id)).collect();
    let look = async |connection: &mut Connection| {
        ledger::unsettled(connection, &keys).await.map_err(|error| ledger::unreadable(&error))
    };
    context.ask(deadline, "no reply to a look at the mails", look).await
}

async fn take(
    context: &Context,
    waiting: usize,
    have_waited: bool,
    deadline: Instant,
) -> Result<Places, Failure> {
    let take = async |connection: &mut Connection| review_mails::take(connection, waiting, have_waited).await;
    context.ask(deadline, "no place for a letter in time", take).await
}

/// Whether a person still has to look.
fn is_unsettled(mail: &UnsettledMail, cause: ReviewCause) -> bool {
    let shows = mail.match_status.as_deref();
    match cause {
        ReviewCause::NeedsReview => {
            shows == Some("needs_review") && mail.decision.as_deref() == Some(Outcome::HeldForReview.name())
        }
        ReviewCause::NoMatch => shows == Some("no_match") && !mail.update_is_done,
    }
}

/// What the letter says. A payload that cannot be read any more leaves its lines unknown.
fn describe(notification: &ReviewNotification, mail: UnsettledMail) -> Waiting {
    let update = mail.update.and_then(|payload| serde_json::from_value::<CreditorDebtUpdate>(payload).ok());
    let mut waiting = Waiting {
        email_id: notification.email_id,
        creditor_email: mail.from_email,
        ticket_id: mail.ticket_id,
        ..Waiting::default()
    };
    if let Some(update) = update {
        waiting.client_name = update.client_name;
        waiting.aktenzeichen = update.client_aktenzeichen;
        waiting.creditor_name = update.creditor_name;
        waiting.creditor_email = update.creditor_email;
        waiting.amount = update.new_debt_amount;
    }
    match notification.cause {
        ReviewCause::NeedsReview => {
            waiting.reason = mail.reason.unwrap_or_default();
            waiting.stored = mail.old_amount;
            waiting.choices = mail.candidates.as_ref().map(choices).unwrap_or_default();
        }
        ReviewCause::NoMatch => waiting.reason = matching::CLIENT_MISSING.into(),
    }
    waiting
}

/// One line for each entry that the mail may mean, with what `relay review accept` wants.
fn choices(candidates: &Value) -> Vec<String> {
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or("-").to_owned();
    let choice = |(client, entry): (&Value, &Value)| {
        let (number, id) = (text(client, "aktenzeichen"), text(client, "client_id"));
        let (name, key) = (text(entry, "name"), text(entry, "entry_key"));
        format!("{name}, Akte {number} (client {id}, creditor {key})")
    };
    review::pairs(candidates).map(choice).collect()
}

fn post(Open { claim, notification, waiting }: Open) -> Post {
    let letter = letters::review(&waiting, notification.cause);
    Post { claim, letter, key: notification.cause.key(notification.email_id, notification.stamp.revision()) }
}

async fn send(
    context: &Context,
    mailer: &Mailer,
    mut open: Vec<Open>,
    places: Places,
    deadline: Instant,
) -> Vec<Finished> {
    let mut rest = open.split_off(places.plan.singles.min(open.len()));
    let mut finished = deliver(mailer, open.into_iter().map(post).collect(), deadline).await;
    let sent =
        finished.iter().filter(|finished| finished.transition == Transition::Done(Outcome::Sent)).count();
    let mut unused: Vec<i64> = places.singles.into_iter().skip(sent).collect();
    match (places.plan.rest, places.digest) {
        (Rest::Digest, Some(place)) => {
            let beyond = rest.split_off(rest.len().min(DIGEST));
            finished.extend(beyond.into_iter().map(|message| wait(message.claim, DIGEST_PAUSE)));
            let (ended, is_sent) = send_digest(mailer, rest, deadline).await;
            finished.extend(ended);
            unused.extend((!is_sent).then_some(place));
        }
        (Rest::Digest, None) => finished.extend(rest.into_iter().map(|message| message.claim.give_back())),
        (Rest::Wait(pause), _) => finished.extend(rest.into_iter().map(|message| wait(message.claim, pause))),
    }
    if !unused.is_empty() {
        give_back(context, &unused, deadline).await;
    }
    finished
}

fn wait(claim: Claim, pause: Duration) -> Finished {
    let text = "ten letters have gone out in this hour: waits for the digest";
    claim.finish(Transition::Parked(pause, Failure::new(FailureClass::BudgetSpent, text)), 0)
}

/// One letter for all of them; whether it was sent.
async fn send_digest(mailer: &Mailer, messages: Vec<Open>, deadline: Instant) -> (Vec<Finished>, bool) {
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else { return (Vec::new(), false) };
    let key = format!("review_digest:{}:{}:{}", first.claim.id, last.claim.id, messages.len());
    let (claims, listed): (Vec<Claim>, Vec<_>) =
        messages.into_iter().map(|open| (open.claim, (open.waiting, open.notification.cause))).unzip();
    if Instant::now() + LONGEST > deadline {
        return (claims.into_iter().map(Claim::give_back).collect(), false);
    }
    // Later ones may have a place by then, so there is no last attempt.
    let failure = mailer.send(&letters::digest(&listed), &key, false).await.err();
    let is_sent = failure.is_none();
    let end = |claim: Claim| match &failure {
        None => claim.done(Outcome::Sent, 0),
        Some(failure) if failure.class == FailureClass::Transient => {
            claim.finish(Transition::Parked(DIGEST_PAUSE, failure.clone()), 0)
        }
        Some(failure) => claim.failed(failure.clone(), 0),
    };
    (claims.into_iter().map(end).collect(), is_sent)
}

async fn give_back(context: &Context, places: &[i64], deadline: Instant) {
    let give_back = async |connection: &mut Connection| review_mails::give_back(connection, places).await;
    if let Err(failure) = context.ask(deadline, "no reply to the places' return", give_back).await {
        tracing::warn!(%failure, "fewer letters than allowed will go out in this hour");
    }
}
