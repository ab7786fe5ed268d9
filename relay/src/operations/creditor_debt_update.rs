//! Writes new debt amounts into creditor entries: find, match, drop the stale, guard, coalesce, one fenced update command.
//!
//! Here claims become updates and their ends become finishes; the rounds are in `carry`, what a round decides in `plan`.

mod carry;
mod notice;
mod plan;

use crate::{
    context::Context,
    ledger::{Decision, LedgerRow, RECONCILIATION},
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome, POSTPONED, Transition},
};
pub(crate) use carry::{End, Means, carry_or_halve};
use futures_util::future::join_all;
pub(crate) use plan::{Open, Verdict};
use shared::message::{CreditorDebtUpdate, MessageId, Origin, ReviewCause};
use std::collections::HashMap;
use tokio::time::Instant;

/// A batch is carried in this many parts at once, so that the relay and MongoDB work at the same time. Messages that name
/// their client alike are in one part.
const PARTS: u64 = 2;

pub(super) async fn apply(context: &Context, claims: Vec<Claim>, deadline: Instant) -> Vec<Finished> {
    let mut finished = Vec::new();
    let mut held: HashMap<MessageId, Claim> = HashMap::new();
    let mut parts: Vec<Vec<Open>> = (0..PARTS).map(|_| Vec::new()).collect();
    for claim in claims {
        match claim.payload::<CreditorDebtUpdate>() {
            Ok(update) if update.email_id != claim.email_id => {
                let failure =
                    Failure::new(FailureClass::Permanent, "the payload names another mail than the message");
                finished.push(claim.failed(failure, 0));
            }
            Ok(update) => {
                let open = Open::new(claim.id, claim.label.trace_id, update);
                held.insert(claim.id, claim);
                let at = usize::try_from(open.client_hash() % PARTS).unwrap_or(0);
                if let Some(part) = parts.get_mut(at) {
                    part.push(open);
                }
            }
            Err(failure) => finished.push(claim.failed(failure, 0)),
        }
    }
    let messages = held.len();
    let means = Means {
        clients: &context.clients,
        guard: context.guard,
        context: Some(context),
        is_dry: context.is_shadow,
    };
    let work = join_all(parts.into_iter().map(|part| carry_or_halve(means, part, deadline)));
    let carried = context.turns.in_turn(&context.pool, messages, work).await;
    // An error that we do not know, and nothing at all got through: nothing says that the messages are to blame.
    let none_through = carried.iter().all(|(ended, _)| ended.is_empty());
    let alone = none_through && carried.iter().map(|(_, failed)| failed.len()).sum::<usize>() == 1;
    for (ended, failed) in carried {
        let ends =
            ended.into_iter().filter_map(|(message, end)| Some((held.remove(&message.id)?, message, end)));
        finished.extend(ends.map(|(claim, message, end)| finish(context, claim, message.update, end)));
        for (message, mut failure) in failed {
            let Some(claim) = held.remove(&message.id) else { continue };
            if none_through && failure.class == FailureClass::Transient {
                failure = context.clients.unreachable(Failure::new(FailureClass::SinkDown, failure.text));
            }
            let stamp = message.update.stamp.number();
            // A document that somebody holds in a transaction looks like a server that does not answer.
            let is_held = alone && failure.class == FailureClass::UnknownOutcome;
            let end = match is_held && context.clients.ping().await.is_ok() {
                true => claim.finish(Transition::Postponed(POSTPONED, failure), stamp),
                false => claim.failed(failure, stamp),
            };
            finished.push(as_told(end, message.update.origin));
        }
    }
    finished
}

fn finish(context: &Context, claim: Claim, update: CreditorDebtUpdate, end: End) -> Finished {
    let (notifies, origin) = (context.mailer.is_some(), update.origin);
    let finished = match end {
        End::Verdict(mut verdict) => {
            if context.is_shadow {
                verdict.reason = format!("shadow, nothing is written: {}", verdict.reason);
            }
            conclude(claim, update, verdict, notifies)
        }
        End::Failed(failure) => fail(claim, &update, failure, notifies),
        End::Postponed(failure) => {
            claim.finish(Transition::Postponed(POSTPONED, failure), update.stamp.number())
        }
    };
    as_told(finished, origin)
}

/// What its mail shows of it. A repair says nothing about the mail, which has long been written; a replay only if it ends well and
/// something newer has not come before it.
fn as_told(mut finished: Finished, origin: Origin) -> Finished {
    let is_told = match origin {
        Origin::Mail | Origin::Decision => true,
        Origin::Repair => false,
        Origin::Replay => {
            matches!(finished.transition, Transition::Done(outcome) if outcome != Outcome::Superseded)
        }
    };
    finished.email = finished.email.filter(|_| is_told);
    finished
}

/// The end of a message that cannot be carried out now; whose client is missing, the firm is told at the first look.
fn fail(claim: Claim, update: &CreditorDebtUpdate, failure: Failure, notifies: bool) -> Finished {
    let is_first = failure.class == FailureClass::TargetMissing && claim.past.missing_for.is_none();
    let next =
        (notifies && is_first).then(|| notice::of_waiting(&claim, update, ReviewCause::NoMatch)).flatten();
    let mut finished = claim.failed(failure, update.stamp.number());
    finished.next = next;
    finished
}

/// Words for the finish: the row, its mail, the ledger, the decision, and the letter if the firm gets letters.
fn conclude(claim: Claim, update: CreditorDebtUpdate, verdict: Verdict, notifies: bool) -> Finished {
    let next = notifies.then(|| notice::of_verdict(&claim, &update, &verdict)).flatten();
    let (id, email_id, stamp) = (claim.id, update.email_id, update.stamp.number());
    let mut finished = claim.done(verdict.outcome, stamp);
    finished.next = next;
    if let Some(email) = &mut finished.email {
        email.match_confidence = verdict.confidence;
    }
    finished.ledger =
        verdict.ledger.zip(update.new_debt_amount).map(|((client_id, entry_key, aktenzeichen), amount)| {
            LedgerRow { message_id: id, email_id, client_id, entry_key, aktenzeichen, amount, stamp }
        });
    finished.decision = Some(Decision {
        message_id: id,
        email_id,
        old_amount: verdict.old_amount,
        new_amount: update.new_debt_amount,
        decision: verdict.outcome.name(),
        reason: verdict.reason,
        candidates: verdict.candidates,
        actor: update.decided_by.unwrap_or_else(|| match update.origin {
            Origin::Repair => RECONCILIATION.into(),
            Origin::Mail | Origin::Decision | Origin::Replay => "relay".into(),
        }),
    });
    finished
}
