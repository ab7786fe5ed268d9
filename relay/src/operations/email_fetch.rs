//! Fetches a mail's body and headers, and enqueues its extraction in the commit that stores them.
//!
//! A repeat after a crash fetches again, which changes nothing: what was fetched is stored with the message's end or not at all, so
//! a message that is still there has a mail without a body.

use crate::{
    context::Context,
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome, POSTPONED, Transition},
    resend::{Received, Resend},
};
use serde_json::json;
use shared::message::{EmailExtraction, EmailFetch, Operation, Revision};
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;

/// One request after the other, so that a failure that looks like an outage has later requests to be judged by: if one of them is
/// answered, the provider was there, and the failure is the mail's own, which is counted. If none is, it is an outage, and all but
/// the last wait behind the others: else a few mails that the provider stumbles over would be first each time and hold up the
/// rest for ever.
pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let Some(resend) = &context.resend else { return claims.into_iter().map(Claim::give_back).collect() };
    let mut finished = Vec::new();
    let mut in_doubt: Vec<(Claim, Failure)> = Vec::new();
    let mut is_away: Option<Failure> = None;
    for claim in claims {
        if let Some(failure) = &is_away {
            finished.push(claim.failed(failure.clone(), 0));
            continue;
        }
        let provider_id = match provider_id(&claim) {
            Ok(provider_id) => provider_id,
            Err(failure) => {
                finished.push(claim.failed(failure, 0));
                continue;
            }
        };
        match fetch(resend, &provider_id, deadline).instrument(claim.label.span()).await {
            None => finished.push(claim.give_back()),
            Some(Err(failure)) if failure.class.is_the_sinks() => {
                is_away = resend.ready().is_err().then(|| failure.clone());
                in_doubt.push((claim, failure));
            }
            Some(answered) => {
                let own = |(claim, failure): (Claim, Failure)| {
                    claim.failed(Failure::new(FailureClass::Transient, failure.text), 0)
                };
                finished.extend(in_doubt.drain(..).map(own));
                finished.push(match answered {
                    Ok(received) => store(claim, received),
                    Err(failure) => claim.failed(failure, 0),
                });
            }
        }
    }
    finished.extend(in_doubt.pop().map(|(claim, failure)| claim.failed(failure, 0)));
    let behind =
        |(claim, failure): (Claim, Failure)| claim.finish(Transition::Postponed(POSTPONED, failure), 0);
    finished.extend(in_doubt.into_iter().map(behind));
    finished
}

fn provider_id(claim: &Claim) -> Result<String, Failure> {
    let payload = claim.payload::<EmailFetch>()?;
    let wrong = |text: &str| Err(Failure::new(FailureClass::Permanent, text));
    if payload.email_id != claim.email_id {
        return wrong("the payload names another mail than the message");
    }
    if !EmailFetch::is_provider_id(&payload.provider_id) {
        return wrong("the payload's provider_id is none that a provider gives");
    }
    Ok(payload.provider_id)
}

/// None: the time of the batch is over, which says nothing about the mail.
async fn fetch(resend: &Resend, provider_id: &str, deadline: Instant) -> Option<Result<Received, Failure>> {
    if Instant::now() >= deadline {
        return None;
    }
    timeout_at(deadline, resend.fetch(provider_id)).await.ok()
}

fn store(claim: Claim, Received { parts, cut }: Received) -> Finished {
    for part in cut {
        claim.label.span().in_scope(|| tracing::warn!(part, "longer than what is kept of a mail: cut"));
    }
    let payload = EmailExtraction { email_id: claim.email_id, hold: None };
    let next = claim.next(Operation::EmailExtraction, Revision::FIRST, json!(payload));
    let mut finished = claim.done(Outcome::Fetched, 0);
    finished.next = Some(next);
    if let Some(email) = &mut finished.email {
        email.fetched = Some(parts);
    }
    finished
}
