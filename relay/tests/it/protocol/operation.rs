//! What may happen to the messages of one lane, and how it is drawn.

use proptest::prelude::*;
use relay::outcome::{FailureClass, Outcome};

/// Relays at work.
pub(super) const WORKERS: usize = 3;

/// One step of a case. A message is named by its place among those that have come so far.
#[derive(Debug, Clone)]
pub(super) enum Operation {
    Enqueue,
    /// While somebody else has locked the message `beside`, as a claim does that is rolled back in the end.
    Claim {
        worker: usize,
        limit: i64,
        beside: Option<usize>,
    },
    /// A worker ends the first `count` of what it has in its hands, whether it still holds them or not.
    Finish {
        worker: usize,
        count: usize,
        ends: Vec<End>,
        most: usize,
    },
    /// It lets them go, since the database does not let it finish them.
    Release {
        worker: usize,
        count: usize,
    },
    /// The lease of a message ends; its worker does not know.
    LeaseEnds {
        message: usize,
    },
    /// A worker takes what there is and dies of it, so many times in a row.
    Crashes {
        worker: usize,
        limit: i64,
        times: usize,
    },
    /// A worker knows no longer where its claims began, and still has what it had.
    NewMark {
        worker: usize,
    },
    /// The time of a message that waits for it comes.
    Due {
        message: usize,
    },
    Act {
        message: usize,
        act: Act,
    },
}

/// What a person does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Requeue,
    DiscardDead,
    /// Decides otherwise about a message that waits.
    Discard,
}

/// How a worker ends one message.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Done(Outcome),
    Failed(FailureClass),
    GivenBack,
}

fn end() -> impl Strategy<Value = End> {
    let outcome = prop::sample::select(vec![Outcome::Applied, Outcome::Superseded, Outcome::HeldForReview]);
    let class = prop::sample::select(vec![
        FailureClass::Transient,
        FailureClass::Transient,
        FailureClass::Transient,
        FailureClass::Permanent,
        FailureClass::TargetMissing,
        FailureClass::SinkDown,
        FailureClass::UnknownOutcome,
        FailureClass::BudgetSpent,
    ]);
    prop_oneof![2 => outcome.prop_map(End::Done), 6 => class.prop_map(End::Failed), 1 => Just(End::GivenBack)]
}

/// Few messages and small batches, so that workers meet at the same ones.
pub(super) fn operation() -> impl Strategy<Value = Operation> {
    let ends = prop::collection::vec(end(), 1..4);
    let limit = || prop_oneof![3 => 1..6_i64, 1 => Just(50_i64)];
    let message = || 0..10_usize;
    let act = prop_oneof![4 => Just(Act::Requeue), 1 => Just(Act::DiscardDead), 1 => Just(Act::Discard)];
    prop_oneof![
        4 => Just(Operation::Enqueue),
        8 => (0..WORKERS, limit(), prop::option::of(message()))
            .prop_map(|(worker, limit, beside)| Operation::Claim { worker, limit, beside }),
        8 => (0..WORKERS, 1..5_usize, ends, 1..4_usize)
            .prop_map(|(worker, count, ends, most)| Operation::Finish { worker, count, ends, most }),
        1 => (0..WORKERS, 1..3_usize).prop_map(|(worker, count)| Operation::Release { worker, count }),
        4 => message().prop_map(|message| Operation::LeaseEnds { message }),
        1 => (0..WORKERS, limit(), 1..8_usize)
            .prop_map(|(worker, limit, times)| Operation::Crashes { worker, limit, times }),
        1 => (0..WORKERS).prop_map(|worker| Operation::NewMark { worker }),
        6 => message().prop_map(|message| Operation::Due { message }),
        6 => (message(), act).prop_map(|(message, act)| Operation::Act { message, act }),
    ]
}
