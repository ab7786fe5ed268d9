//! What a run came to: the counts that `relay run --once` prints.

use crate::outcome::{Outcome, Transition};
use serde::Serialize;
use std::ops::Add;

/// What a run came to; the counts of `relay run --once`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Messages claimed.
    pub claimed: u64,
    /// Debt updates that MongoDB carries.
    pub applied: u64,
    /// Debt updates that came after something newer.
    pub superseded: u64,
    /// Held for a person.
    pub held: u64,
    /// Counted failures that will be tried again.
    pub retried: u64,
    /// Waiting for a person.
    pub dead: u64,
    /// Waiting for their client to appear.
    pub parked: u64,
    /// Given back without an attempt being counted.
    pub given_back: u64,
}

impl Summary {
    pub(super) fn count(&mut self, transition: &Transition) {
        match transition {
            Transition::Done(Outcome::Applied | Outcome::Already) => self.applied += 1,
            Transition::Done(Outcome::Superseded) => self.superseded += 1,
            Transition::Done(Outcome::HeldForReview) => self.held += 1,
            Transition::Done(
                Outcome::Extracted
                | Outcome::NotCreditorReply
                | Outcome::Fetched
                | Outcome::Sent
                | Outcome::Discarded
                | Outcome::StalePlan,
            ) => {}
            Transition::Retry(_, _) => self.retried += 1,
            Transition::Parked(_, _) => self.parked += 1,
            Transition::GivenBack(_) | Transition::Postponed(_, _) => self.given_back += 1,
            Transition::Dead(_) => self.dead += 1,
        }
    }
}

impl Add for Summary {
    type Output = Summary;

    fn add(self, other: Summary) -> Summary {
        Summary {
            claimed: self.claimed + other.claimed,
            applied: self.applied + other.applied,
            superseded: self.superseded + other.superseded,
            held: self.held + other.held,
            retried: self.retried + other.retried,
            dead: self.dead + other.dead,
            parked: self.parked + other.parked,
            given_back: self.given_back + other.given_back,
        }
    }
}
