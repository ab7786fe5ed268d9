//! What a message's attempt came to, and what follows from it: the classes of failure, the retry policy, `decide`. Pure.

use shared::message::Operation;
use std::time::Duration;

/// How a message ended well; the names stand in `outbox_messages.outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// MongoDB carries it by this attempt.
    Applied,
    /// MongoDB carried it before this attempt.
    Already,
    /// Something newer was there.
    Superseded,
    /// A person has to decide.
    HeldForReview,
    /// The mail was read and its debt update enqueued.
    Extracted,
    /// The mail is no creditor's answer.
    NotCreditorReply,
    /// The mail's body was fetched and its extraction enqueued.
    Fetched,
    /// The notification was taken by the mail server.
    Sent,
    /// Nothing was left to be done: what it was about has been settled otherwise.
    Discarded,
    /// A repair that did not find what its plan had seen.
    StalePlan,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Outcome; 10] = [
        Outcome::Applied,
        Outcome::Already,
        Outcome::Superseded,
        Outcome::HeldForReview,
        Outcome::Extracted,
        Outcome::NotCreditorReply,
        Outcome::Fetched,
        Outcome::Sent,
        Outcome::Discarded,
        Outcome::StalePlan,
    ];

    /// The name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Applied => "applied",
            Outcome::Already => "already",
            Outcome::Superseded => "superseded",
            Outcome::HeldForReview => "held_for_review",
            Outcome::Extracted => "extracted",
            Outcome::NotCreditorReply => "not_creditor_reply",
            Outcome::Fetched => "fetched",
            Outcome::Sent => "sent",
            Outcome::Discarded => "discarded",
            Outcome::StalePlan => "stale_plan",
        }
    }
}

/// Why an attempt failed; the names stand in `outbox_messages.error_class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// No server, not primary, shutting down, network: says nothing about the message.
    SinkDown,
    /// The server refuses us (login, TLS, rights): says nothing about the message either, but a person has to act.
    SinkMisconfigured,
    /// Sent, and no telling whether it took effect; the fence makes a repeat safe.
    UnknownOutcome,
    /// May pass by itself, and is this message's own.
    Transient,
    /// Will fail each time.
    Permanent,
    /// The day's budget of a paid service is spent: waits, says nothing about the message.
    BudgetSpent,
    /// The client is not in MongoDB yet.
    TargetMissing,
    /// The database refused the finish of this message.
    FinishRefused,
    /// Worker after worker ended without finishing it.
    CrashedWorker,
}

impl FailureClass {
    /// The name in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FailureClass::SinkDown => "sink_down",
            FailureClass::SinkMisconfigured => "sink_misconfigured",
            FailureClass::UnknownOutcome => "unknown_outcome",
            FailureClass::Transient => "transient",
            FailureClass::Permanent => "permanent",
            FailureClass::BudgetSpent => "budget_spent",
            FailureClass::TargetMissing => "target_missing",
            FailureClass::FinishRefused => "finish_refused",
            FailureClass::CrashedWorker => "crashed_worker",
        }
    }

    /// Whether the whole lane has to wait, whatever the message.
    #[must_use]
    pub const fn is_the_sinks(self) -> bool {
        match self {
            FailureClass::SinkDown | FailureClass::SinkMisconfigured | FailureClass::UnknownOutcome => true,
            FailureClass::Transient
            | FailureClass::Permanent
            | FailureClass::BudgetSpent
            | FailureClass::TargetMissing
            | FailureClass::FinishRefused
            | FailureClass::CrashedWorker => false,
        }
    }
}

/// A failed attempt. The text is for operators: no names, addresses, amounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", class.name())]
pub struct Failure {
    /// Its class.
    pub class: FailureClass,
    /// What happened.
    pub text: String,
}

impl Failure {
    /// A failure of a class with its text.
    pub fn new(class: FailureClass, text: impl Into<String>) -> Failure {
        Failure { class, text: text.into() }
    }
}

/// What becomes of the message's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// Ended well.
    Done(Outcome),
    /// Waits for its next attempt; the attempt is counted. The delay is an upper bound: the database draws between half of it
    /// and all.
    Retry(Duration, Failure),
    /// Waits for its client to appear; nothing is counted.
    Parked(Duration, Failure),
    /// As if never claimed; nothing is counted. The failure is what was seen, None at shutdown.
    GivenBack(Option<Failure>),
    /// Waits behind the others, for at most this long; nothing is counted. It is not to blame, but should not be first again.
    Postponed(Duration, Failure),
    /// Waits for a person.
    Dead(Failure),
}

/// What is known of a message's past when an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Counted failures so far.
    pub retry_count: i32,
    /// How many are allowed.
    pub max_retries: i32,
    /// Since the first look that did not find the client; None before it.
    pub missing_for: Option<Duration>,
    /// How long its retries wait.
    pub patience: Patience,
}

/// How long the retries of an operation wait. Each is an upper bound, of which at least half is waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The first retry's delay.
    pub first: Duration,
    /// How much longer each further one is.
    pub growth: u32,
    /// The longest.
    pub cap: Duration,
}

/// [`Past::patience`] of an operation. A provider that limits its callers means minutes. A mail server that has not met the sender
/// before means half an hour, and a mailbox that is full some hours: the four retries of a letter wait
/// some 5 hours in all at least.
#[must_use]
pub const fn patience(operation: Operation) -> Patience {
    let (first, growth, cap) = match operation {
        Operation::CreditorDebtUpdate => (1, 2, 15 * 60),
        Operation::EmailExtraction => (5, 2, 15 * 60),
        Operation::EmailFetch => (60, 2, 15 * 60),
        Operation::DebtUpdateNotification | Operation::ReviewNotification => (10 * 60, 4, 6 * 3600),
    };
    Patience { first: Duration::from_secs(first), growth, cap: Duration::from_secs(cap) }
}

impl Patience {
    /// The delay after so many counted failures before this one.
    fn after(self, failures: i32) -> Duration {
        let failures = u32::try_from(failures).unwrap_or(0);
        self.first.saturating_mul(self.growth.saturating_pow(failures)).min(self.cap)
    }
}

impl Past {
    /// Whether a counted failure of this attempt would be the last.
    #[must_use]
    pub const fn is_last_attempt(self) -> bool {
        self.retry_count + 1 >= self.max_retries
    }
}

/// A parked message looks again after this at first, then after as long as it has been missing.
const PARK_FIRST: Duration = Duration::from_secs(60);
/// The longest pause between two looks.
const PARK_CAP: Duration = Duration::from_secs(6 * 3600);
/// A client that has not appeared by then will not: a person has to look.
const MISSING_DEADLINE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often a message looks whether there is budget again.
const BUDGET_PAUSE: Duration = Duration::from_secs(15 * 60);

/// Upper bound of the pause of a message that is in the way without being to blame.
pub const POSTPONED: Duration = Duration::from_secs(10);

/// What follows from a failed attempt.
#[must_use]
pub fn decide(failure: Failure, past: Past) -> Transition {
    match failure.class {
        FailureClass::SinkDown | FailureClass::SinkMisconfigured | FailureClass::UnknownOutcome => {
            Transition::GivenBack(Some(failure))
        }
        FailureClass::Transient => {
            if past.is_last_attempt() {
                return Transition::Dead(failure);
            }
            Transition::Retry(past.patience.after(past.retry_count), failure)
        }
        FailureClass::Permanent | FailureClass::FinishRefused | FailureClass::CrashedWorker => {
            Transition::Dead(failure)
        }
        FailureClass::BudgetSpent => Transition::Postponed(BUDGET_PAUSE, failure),
        FailureClass::TargetMissing => {
            let missing_for = past.missing_for.unwrap_or_default();
            if missing_for >= MISSING_DEADLINE {
                return Transition::Dead(failure);
            }
            Transition::Parked(missing_for.clamp(PARK_FIRST, PARK_CAP), failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Past = Past {
        retry_count: 0,
        max_retries: 5,
        missing_for: None,
        patience: patience(Operation::CreditorDebtUpdate),
    };

    fn after(class: FailureClass, past: Past) -> Transition {
        decide(Failure::new(class, "text"), past)
    }

    #[test]
    fn an_outage_of_any_length_is_never_counted() {
        for class in [FailureClass::SinkDown, FailureClass::SinkMisconfigured, FailureClass::UnknownOutcome] {
            let worn = Past { retry_count: 5, ..FRESH };
            assert!(matches!(after(class, worn), Transition::GivenBack(Some(_))), "{class:?}");
        }
    }

    #[test]
    fn counted_failures_back_off_and_die_after_the_last() {
        let delay = |retry_count| {
            let past = Past { retry_count, max_retries: 50, ..FRESH };
            let Transition::Retry(delay, _) = after(FailureClass::Transient, past) else { panic!("a retry") };
            delay.as_secs()
        };
        assert_eq!([delay(0), delay(1), delay(4), delay(40)], [1, 2, 16, 900]);
        assert!(matches!(
            after(FailureClass::Transient, Past { retry_count: 5, ..FRESH }),
            Transition::Dead(_)
        ));
        assert!(matches!(after(FailureClass::Permanent, FRESH), Transition::Dead(_)));
    }

    #[test]
    fn a_letter_outlasts_a_mailbox_that_is_full_for_some_hours() {
        for operation in [Operation::DebtUpdateNotification, Operation::ReviewNotification] {
            let minutes = [0, 1, 2, 3].map(|failures| patience(operation).after(failures).as_secs() / 60);
            assert_eq!(minutes, [10, 40, 160, 360]);
        }
    }

    #[test]
    fn a_missing_client_is_looked_for_ever_more_rarely_for_seven_days() {
        let hours = |hours: u64| Past { missing_for: Some(Duration::from_secs(hours * 3600)), ..FRESH };
        let pause = |past| {
            let Transition::Parked(pause, _) = after(FailureClass::TargetMissing, past) else {
                panic!("parked")
            };
            pause.as_secs()
        };
        assert_eq!([pause(FRESH), pause(hours(2)), pause(hours(100))], [60, 7200, 21_600]);
        assert!(matches!(after(FailureClass::TargetMissing, hours(168)), Transition::Dead(_)));
    }
}
