//! Which operation does what: the one place where a message's kind decides its way.

mod creditor_debt_update;
mod email_extraction;

use crate::{
    mongo::Clients,
    outbox::{Claim, Finished},
    outcome::{Failure, FailureClass, Outcome, Transition, decide},
    write_guard::WriteGuard,
};
use deadpool_postgres::Pool;
use shared::{message::Operation, postgres::pool_reason};
use std::time::Duration;
use tokio::time::Instant;

/// What the operations work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// Postgres.
    pub pool: Pool,
    /// MongoDB.
    pub clients: Clients,
    /// The write guard's settings.
    pub guard: WriteGuard,
}

/// The bounds of one operation's lane.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most messages of one batch.
    pub batch: i64,
    /// How long a claim lasts; a crashed worker's messages come back after it.
    pub lease: Duration,
    /// How long the effect may take.
    pub apply: Duration,
    /// How long the finish may take.
    pub finish: Duration,
}

/// The limits of an operation; lease >= apply + finish, so that a finish never meets a lease that has ended by design.
#[must_use]
pub const fn limits(operation: Operation) -> Limits {
    match operation {
        // A mail is at most 1 MiB, so a batch is too: 32 of them.
        Operation::EmailExtraction => Limits {
            batch: 32,
            lease: Duration::from_secs(60),
            apply: Duration::from_secs(40),
            finish: Duration::from_secs(4),
        },
        // 500 statements keep the update command near 500 KiB, far from the 16 MiB of a command.
        Operation::CreditorDebtUpdate => {
            // Two calls of 4 s: the first, and one look after an unknown outcome.
            Limits {
                batch: 500,
                lease: Duration::from_secs(15),
                apply: Duration::from_secs(8),
                finish: Duration::from_secs(4),
            }
        }
    }
}

/// Whether the operation's sink answers.
///
/// # Errors
/// The sink's [`Failure`].
pub async fn probe(context: &Context, operation: Operation) -> Result<(), Failure> {
    match operation {
        Operation::EmailExtraction => Ok(()), // works with Postgres alone
        Operation::CreditorDebtUpdate => context.clients.ping().await,
    }
}

/// Carries a batch to its effect. Every claim comes back with what it came to.
///
/// `deadline`: nothing is begun after it, and what is unfinished by then comes back as given back.
pub async fn apply(
    context: &Context,
    operation: Operation,
    claims: Vec<Claim>,
    deadline: Instant,
) -> Vec<Finished> {
    match operation {
        Operation::EmailExtraction => email_extraction::apply(context, claims, deadline).await,
        Operation::CreditorDebtUpdate => creditor_debt_update::apply(context, claims, deadline).await,
    }
}

/// A connection for a look during the apply. Postgres that is away says nothing about the message.
async fn connection(context: &Context) -> Result<deadpool_postgres::Client, Failure> {
    let failure = |error| Failure::new(FailureClass::SinkDown, format!("Postgres: {}", pool_reason(&error)));
    context.pool.get().await.map_err(failure)
}

fn done(claim: Claim, outcome: Outcome, stamp: i64) -> Finished {
    claim.finish(Transition::Done(outcome), stamp)
}

fn failed(claim: Claim, failure: Failure, stamp: i64) -> Finished {
    let transition = decide(failure, claim.past);
    claim.finish(transition, stamp)
}

/// A payload that this binary cannot read will not become readable by waiting.
fn undecodable(claim: Claim, error: &serde_json::Error) -> Finished {
    // The error names the field and the place, but may repeat a value: keep its kind and place only.
    let text =
        format!("the payload cannot be read: {:?} error at column {}", error.classify(), error.column());
    failed(claim, Failure::new(FailureClass::Permanent, text), 0)
}
