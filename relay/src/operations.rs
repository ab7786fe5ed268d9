//! Which operation does what: the one place where a message's kind decides its way.

pub(crate) mod creditor_debt_update;
mod debt_update_notification;
mod delivery;
mod email_extraction;
mod email_fetch;
mod review_notification;

use crate::{
    context::Context,
    extraction::Extractor,
    outbox::{Claim, Finished},
    outcome::Failure,
    resend::Resend,
};
use shared::message::Operation;
use std::time::Duration;
use tokio::time::Instant;

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

/// The limits of an operation; lease > apply + finish, so that a finish never meets a lease that has ended by design.
#[must_use]
pub const fn limits(operation: Operation) -> Limits {
    match operation {
        // A mail is at most 1 MiB, so a batch is too: 32 of them.
        // Small batches, each one request after the other: some are applied side by side, so that a handful of requests is on its
        // way at once, which is more than the provider lets through. A mail's two parts have 1 MiB each.
        Operation::EmailFetch => Limits {
            batch: 4,
            lease: Duration::from_secs(60),
            apply: Duration::from_secs(40),
            finish: Duration::from_secs(4),
        },
        // By the rules, which take some ms for a mail and seconds of a whole core for the largest. No longer than that needs: what a
        // relay held that is killed is somebody else's only after it.
        Operation::EmailExtraction => Limits {
            batch: 32,
            lease: Duration::from_secs(30),
            apply: Duration::from_secs(15),
            finish: Duration::from_secs(4),
        },
        Operation::DebtUpdateNotification => Limits {
            batch: 32,
            lease: Duration::from_secs(60),
            apply: Duration::from_secs(40),
            finish: Duration::from_secs(4),
        },
        // A quarter of it may be messages that have waited, and a digest lists as many.
        Operation::ReviewNotification => Limits {
            batch: 800,
            lease: Duration::from_secs(60),
            apply: Duration::from_secs(40),
            finish: Duration::from_secs(4),
        },
        Operation::CreditorDebtUpdate => {
            // Two parts of some 500 statements. Two calls of 4 s: the first, and one look after an unknown outcome.
            Limits {
                batch: 1000,
                lease: Duration::from_secs(15),
                apply: Duration::from_secs(8),
                finish: Duration::from_secs(4),
            }
        }
    }
}

/// At least, for a batch of mails that a model reads; and the lease that goes with it.
const CALLS: (Duration, Duration) = (Duration::from_secs(40), Duration::from_secs(60));

/// The limits of an operation in this relay. Where a model reads the mails, a batch is what it can work on at once and once more,
/// and lasts as long as a call may; else the calls of one batch would wait for each other until its lease ends.
#[must_use]
pub fn limits_here(context: &Context, operation: Operation) -> Limits {
    let usual = limits(operation);
    let (Extractor::Model(model), Operation::EmailExtraction) = (&context.extractor, operation) else {
        return usual;
    };
    let apply = (model.timeout() + email_extraction::BESIDE_A_CALL).max(CALLS.0);
    let batch = i64::try_from(2 * model.concurrency()).unwrap_or(usual.batch).min(usual.batch);
    Limits { batch, apply, lease: CALLS.1 - CALLS.0 + apply, ..usual }
}

const _: () = {
    let (mail, debt) = (limits(Operation::EmailExtraction), limits(Operation::CreditorDebtUpdate));
    assert!(mail.lease.as_secs() > mail.apply.as_secs() + mail.finish.as_secs());
    assert!(debt.lease.as_secs() > debt.apply.as_secs() + debt.finish.as_secs());
};

/// Whether this relay has what the operation works with. Messages of others wait for a relay that has.
#[must_use]
pub fn is_configured(context: &Context, operation: Operation) -> bool {
    match operation {
        Operation::EmailExtraction | Operation::CreditorDebtUpdate => true,
        Operation::EmailFetch => context.resend.is_some(),
        Operation::DebtUpdateNotification | Operation::ReviewNotification => context.mailer.is_some(),
    }
}

/// Whether the operation's sink answers.
///
/// # Errors
/// The sink's [`Failure`].
pub async fn probe(context: &Context, operation: Operation) -> Result<(), Failure> {
    match operation {
        Operation::EmailExtraction => context.extractor.pause(),
        // Whether it answers, the next fetch tells; but it may have asked to be left alone until then.
        Operation::EmailFetch => context.resend.as_ref().map_or(Ok(()), Resend::ready),
        Operation::DebtUpdateNotification | Operation::ReviewNotification => match &context.mailer {
            Some(mailer) => mailer.probe().await,
            None => Ok(()),
        },
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
    let (condemned, claims): (Vec<_>, Vec<_>) = claims.into_iter().partition(Claim::is_condemned);
    let mut finished = match operation {
        Operation::EmailFetch => email_fetch::apply(context, claims, deadline).await,
        Operation::EmailExtraction => email_extraction::apply(context, claims, deadline).await,
        Operation::CreditorDebtUpdate => creditor_debt_update::apply(context, claims, deadline).await,
        Operation::DebtUpdateNotification => debt_update_notification::apply(context, claims, deadline).await,
        Operation::ReviewNotification => review_notification::apply(context, claims, deadline).await,
    };
    finished.extend(condemned.into_iter().map(Claim::condemn));
    finished
}
