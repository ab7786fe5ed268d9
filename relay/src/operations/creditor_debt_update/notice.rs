//! Which letter to the firm follows from a debt update, as the next message. Pure.
//!
//! Only a mail's own update and a person's decision are told: whoever replays or repairs knows it, and a superseded one changes nothing.

use super::plan::Verdict;
use crate::{
    outbox::{Claim, Next},
    outcome::Outcome,
};
use serde_json::json;
use shared::message::{
    CreditorDebtUpdate, DebtUpdateNotification, Operation, Origin, ReviewCause, ReviewNotification,
};

/// The letter after a verdict.
pub(super) fn of_verdict(claim: &Claim, update: &CreditorDebtUpdate, verdict: &Verdict) -> Option<Next> {
    match verdict.outcome {
        Outcome::Applied | Outcome::Already => of_written(claim, update, verdict),
        Outcome::HeldForReview => of_waiting(claim, update, ReviewCause::NeedsReview),
        Outcome::Superseded
        | Outcome::Extracted
        | Outcome::NotCreditorReply
        | Outcome::Fetched
        | Outcome::Sent
        | Outcome::Discarded
        | Outcome::StalePlan => None,
    }
}

/// The letter about an update that a person has to look at.
pub(super) fn of_waiting(claim: &Claim, update: &CreditorDebtUpdate, cause: ReviewCause) -> Option<Next> {
    if !is_told(update.origin) {
        return None;
    }
    let CreditorDebtUpdate { email_id, stamp, .. } = *update;
    let payload = ReviewNotification { email_id, message_id: claim.id, stamp, cause };
    let key = cause.key(email_id, stamp.revision());
    Some(claim.next_of_key(Operation::ReviewNotification, key, json!(payload)))
}

/// Smaller than the update's own payload, which fits: it has no summary and no times.
fn of_written(claim: &Claim, update: &CreditorDebtUpdate, verdict: &Verdict) -> Option<Next> {
    let amount = update.new_debt_amount.filter(|_| is_told(update.origin))?;
    let written = verdict.ledger.as_ref().and_then(|(_, _, aktenzeichen)| aktenzeichen.clone());
    let payload = DebtUpdateNotification {
        email_id: update.email_id,
        stamp: update.stamp,
        client_name: update.client_name.clone(),
        client_aktenzeichen: written
            .filter(|number| number.len() <= 100) // the portal's own, so nobody bounds it
            .or_else(|| update.client_aktenzeichen.clone()),
        creditor_email: update.creditor_email.clone(),
        creditor_name: update.creditor_name.clone(),
        previous: verdict.old_amount,
        amount,
        reference_numbers: update.reference_numbers.clone(),
        extraction_confidence: update.extraction_confidence,
        decided_by: update.decided_by.clone(),
        key: update.is_correction().then(|| update.key_of(Operation::DebtUpdateNotification)),
    };
    Some(claim.next_of_key(Operation::DebtUpdateNotification, payload.key(), json!(payload)))
}

fn is_told(origin: Origin) -> bool {
    match origin {
        Origin::Mail | Origin::Decision => true,
        Origin::Replay | Origin::Repair => false,
    }
}
