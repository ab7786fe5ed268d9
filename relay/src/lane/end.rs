//! What a claimed message came to in the end, for counts and logs.

use crate::{
    outbox::{Label, Receipt},
    outcome::{Outcome, Transition},
};
use shared::message::MessageId;
use tracing::Level;

/// How a finish ended for one message.
#[derive(Debug, Clone, Copy)]
pub(super) enum End<'a> {
    /// Its finish did not get its locks.
    Released,
    /// Somebody else has it.
    LeaseLost,
    /// The database refused its finish.
    Refused,
    /// As its apply has said.
    As(&'a Transition),
}

impl<'a> End<'a> {
    pub(super) fn of(id: MessageId, transition: &'a Transition, receipt: &Receipt) -> End<'a> {
        if receipt.released.contains(&id) {
            End::Released
        } else if !receipt.committed.contains(&id) {
            End::LeaseLost
        } else if receipt.refused.contains(&id) {
            End::Refused
        } else {
            End::As(transition)
        }
    }

    /// The outcome in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            End::LeaseLost => "lease_lost",
            End::Refused | End::As(Transition::Dead(_)) => "dead",
            End::As(Transition::Done(outcome)) => outcome.name(),
            End::As(Transition::Retry(_, _)) => "retried",
            End::As(Transition::Parked(_, _)) => "parked",
            End::Released | End::As(Transition::Postponed(_, _) | Transition::GivenBack(_)) => "given_back",
        }
    }

    /// One line, with the message's names. What is routine is for who wants to see each message: there may be thousands in a second.
    pub(super) fn log(self, label: &Label) {
        let is_routine = match self {
            End::As(Transition::Done(outcome)) => *outcome != Outcome::HeldForReview,
            End::As(Transition::GivenBack(_)) => true,
            End::As(_) | End::Released | End::LeaseLost | End::Refused => false,
        };
        if is_routine && !tracing::enabled!(Level::DEBUG) {
            return; // the span alone would cost more than the rest of the count
        }
        let _named = label.span().entered();
        let outcome = self.name();
        match self {
            End::Released => {
                tracing::warn!(
                    outcome,
                    "its finish waits for a lock that another session holds: later again"
                );
            }
            End::LeaseLost => tracing::warn!(
                outcome,
                "its lease ended before the finish: another worker has it, or Postgres' reply was lost"
            ),
            End::Refused => tracing::error!(outcome, "dead: the database refused its finish"),
            End::As(Transition::Done(Outcome::HeldForReview)) => {
                tracing::info!(outcome, "held: a person has to decide");
            }
            End::As(Transition::Done(_)) => tracing::debug!(outcome, "ended"),
            End::As(Transition::Retry(_, failure)) => {
                tracing::warn!(outcome, %failure, "will be tried again");
            }
            End::As(Transition::Parked(_, failure)) => tracing::info!(outcome, %failure, "parked"),
            End::As(Transition::Postponed(_, failure)) => tracing::warn!(outcome, %failure, "later again"),
            End::As(Transition::GivenBack(failure)) => {
                let failure = failure.as_ref().map(tracing::field::display);
                tracing::debug!(outcome, failure, "given back");
            }
            End::As(Transition::Dead(failure)) => {
                tracing::error!(outcome, %failure, "dead: a person has to look");
            }
        }
    }
}
