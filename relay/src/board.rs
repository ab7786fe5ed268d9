//! What the lanes of this process are doing, and which of them must not claim: in memory, between the lanes and the heartbeat.
//!
//! The lanes write the one and read the other; `heartbeat.rs` carries both to and from Postgres.

use crate::outcome::Failure;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::message::Operation;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// What a lane is doing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneState {
    /// It has messages in hand.
    Working,
    /// Nothing was due at its last look.
    #[default]
    Idle,
    /// It claims nothing, since somebody has paused its operation.
    Paused,
    /// Its breaker is open: what it works with is away or refuses it.
    SinkDown,
    /// This relay has not what the operation needs.
    NotConfigured,
    /// Of a newer relay.
    #[serde(other)]
    Unknown,
}

impl LaneState {
    /// Whether there is a lane at all.
    #[must_use]
    pub const fn is_served(self) -> bool {
        match self {
            LaneState::Working
            | LaneState::Idle
            | LaneState::Paused
            | LaneState::SinkDown
            | LaneState::Unknown => true,
            LaneState::NotConfigured => false,
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            LaneState::Working => "working",
            LaneState::Idle => "idle",
            LaneState::Paused => "paused",
            LaneState::SinkDown => "sink down",
            LaneState::NotConfigured => "not configured",
            LaneState::Unknown => "?",
        }
    }
}

/// Counted messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Claims that came to an end of any kind.
    pub claimed: u64,
    /// Ended well.
    pub finished: u64,
    /// Counted failures that are tried again.
    pub retried: u64,
    /// Dead.
    pub dead: u64,
}

impl Counts {
    /// What was counted since an earlier look.
    #[must_use]
    pub fn since(self, earlier: Counts) -> Counts {
        Counts {
            claimed: self.claimed.saturating_sub(earlier.claimed),
            finished: self.finished.saturating_sub(earlier.finished),
            retried: self.retried.saturating_sub(earlier.retried),
            dead: self.dead.saturating_sub(earlier.dead),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            claimed: self.claimed + other.claimed,
            finished: self.finished + other.finished,
            retried: self.retried + other.retried,
            dead: self.dead + other.dead,
        }
    }
}

/// One lane, as it stands on the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneEntry {
    /// What it is doing.
    pub state: LaneState,
    /// Since when.
    pub since: Timestamp,
    /// Since the process began.
    pub counts: Counts,
    /// Why its breaker is open.
    pub failure: Option<Failure>,
    /// When the lane said something last.
    pub seen: Instant,
}

/// Which operations must not be claimed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Paused {
    /// Nobody has asked.
    #[default]
    Nobody,
    /// Not looked at yet: all wait.
    Unknown,
    /// These.
    These(HashSet<Operation>),
}

/// The board; clones are the same one.
#[derive(Debug, Clone)]
pub struct Board {
    lanes: Arc<Mutex<HashMap<Operation, LaneEntry>>>,
    paused: Arc<watch::Sender<Paused>>,
    /// When the heartbeat was there last, if there is one.
    beat: Arc<Mutex<Option<Instant>>>,
}

impl Default for Board {
    fn default() -> Board {
        Board { lanes: Arc::default(), paused: Arc::new(watch::Sender::default()), beat: Arc::default() }
    }
}

impl Board {
    /// A lane says what it is doing.
    pub fn set(&self, operation: Operation, state: LaneState, failure: Option<Failure>) {
        self.change(operation, |lane| {
            if lane.state != state {
                (lane.state, lane.since) = (state, Timestamp::now());
            }
            lane.failure = failure;
        });
    }

    /// A lane that is in trouble, or walks through many messages that are not for it, is alive all the same.
    pub fn touch(&self, operation: Operation) {
        self.change(operation, |_| {});
    }

    /// The heartbeat, without which no pause would begin or end, is alive; whether or not Postgres answers it.
    pub fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the heartbeat and every lane that may work have said something within this time.
    #[must_use]
    pub fn all_seen_within(&self, patience: Duration) -> bool {
        let beat = *self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        if beat.is_some_and(|beat| beat.elapsed() >= patience) {
            return false;
        }
        let is_well = |lane: &LaneEntry| lane.state == LaneState::Paused || lane.seen.elapsed() < patience;
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).values().all(is_well)
    }

    /// A lane has messages in hand. Whether what it works with is back shows when they have gone through.
    pub fn work(&self, operation: Operation) {
        self.change(operation, |lane| {
            if !matches!(lane.state, LaneState::SinkDown | LaneState::Working) {
                (lane.state, lane.since) = (LaneState::Working, Timestamp::now());
            }
        });
    }

    /// What a lane works with is back. Says nothing about a lane that has been paused or run dry meanwhile.
    pub fn recover(&self, operation: Operation) {
        self.change(operation, |lane| {
            if lane.state == LaneState::SinkDown {
                (lane.state, lane.since, lane.failure) = (LaneState::Working, Timestamp::now(), None);
            }
        });
    }

    /// A lane has got through with some messages.
    pub fn count(&self, operation: Operation, counts: Counts) {
        self.change(operation, |lane| lane.counts = lane.counts.plus(counts));
    }

    /// Every lane that has said something.
    #[must_use]
    pub fn lanes(&self) -> HashMap<Operation, LaneEntry> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is claimed until [`Board::pause`] has said what may be.
    pub fn hold_all(&self) {
        self.paused.send_replace(Paused::Unknown);
    }

    /// Exactly these operations must not be claimed.
    pub fn pause(&self, operations: HashSet<Operation>) {
        let news = Paused::These(operations);
        self.paused.send_if_modified(|paused| {
            let is_news = *paused != news;
            *paused = news;
            is_news
        });
    }

    /// Whether an operation must not be claimed.
    #[must_use]
    pub fn is_paused(&self, operation: Operation) -> bool {
        self.paused.borrow().holds(operation)
    }

    /// Waits until an operation may be claimed.
    pub async fn resumed(&self, operation: Operation) {
        // The sender lives as long as this board.
        let _ = self.paused.subscribe().wait_for(|paused| !paused.holds(operation)).await;
    }

    fn change(&self, operation: Operation, change: impl FnOnce(&mut LaneEntry)) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(operation).or_insert_with(|| LaneEntry {
            state: LaneState::Idle,
            since: Timestamp::now(),
            counts: Counts::default(),
            failure: None,
            seen: Instant::now(),
        });
        lane.seen = Instant::now();
        change(lane);
    }
}

impl Paused {
    fn holds(&self, operation: Operation) -> bool {
        match self {
            Paused::Nobody => false,
            Paused::Unknown => true,
            Paused::These(operations) => operations.contains(&operation),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureClass;

    #[test]
    fn nothing_may_be_claimed_before_the_first_look_at_what_is_paused() {
        let (board, operation) = (Board::default(), Operation::CreditorDebtUpdate);
        assert!(!board.is_paused(operation), "without a heartbeat nobody pauses");
        board.hold_all();
        assert!(board.is_paused(operation));
        board.pause(HashSet::from([operation]));
        assert!(board.is_paused(operation) && !board.is_paused(Operation::EmailExtraction));
        board.pause(HashSet::new());
        assert!(!board.is_paused(operation));
    }

    #[test]
    fn a_lane_that_says_nothing_is_noticed_unless_it_is_paused() {
        let (board, operation) = (Board::default(), Operation::CreditorDebtUpdate);
        assert!(board.all_seen_within(Duration::ZERO), "nobody has to say anything yet");
        board.work(operation);
        assert!(board.all_seen_within(Duration::from_secs(3600)) && !board.all_seen_within(Duration::ZERO));
        board.set(operation, LaneState::Paused, None);
        assert!(board.all_seen_within(Duration::ZERO));
        board.beat();
        assert!(!board.all_seen_within(Duration::ZERO), "a heartbeat that was there once has to go on");
    }

    #[test]
    fn a_lanes_state_keeps_its_beginning_and_its_counts() {
        let (board, operation) = (Board::default(), Operation::CreditorDebtUpdate);
        let away = |text: &str| Some(Failure::new(FailureClass::SinkDown, text));
        board.set(operation, LaneState::SinkDown, away("away"));
        let since = board.lanes()[&operation].since;
        board.count(operation, Counts { claimed: 2, finished: 1, retried: 1, dead: 0 });
        board.set(operation, LaneState::SinkDown, away("still away"));
        let lane = board.lanes()[&operation].clone();
        assert_eq!((lane.since, lane.counts.claimed, lane.failure), (since, 2, away("still away")));
        board.work(operation);
        assert_eq!(board.lanes()[&operation].state, LaneState::SinkDown, "a try is no success");
        board.recover(operation);
        let lane = board.lanes()[&operation].clone();
        assert_eq!((lane.state, lane.failure), (LaneState::Working, None));
        board.set(operation, LaneState::Paused, None);
        board.recover(operation);
        assert_eq!(board.lanes()[&operation].state, LaneState::Paused, "what was under way ends");
    }
}
