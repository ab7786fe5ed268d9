//! One loop for every operation: wake, claim, apply, finish, drain.
//!
//! A lane holds no connection and no transaction while it applies. It claims nothing while its sink is away, and gives back what
//! it can no longer finish in time.

use crate::{
    breaker::Breaker,
    context::Context,
    operations::{self, Limits},
    outbox::{self, Claim, Finished, LowWaterMark, Receipt},
    outcome::{Failure, Outcome, Transition},
};
use deadpool_postgres::Client as Connection;
use serde::Serialize;
use shared::{
    admin::Readiness,
    message::Operation,
    postgres::{pool_reason, reason},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// An idle lane polls after this, then ever more rarely.
const IDLE_FIRST: Duration = Duration::from_millis(5);
/// An idle lane polls at least this often, whether or not anybody pokes it.
const IDLE_LAST: Duration = Duration::from_millis(250);
/// Pause after Postgres has failed.
const POSTGRES_PAUSE: Duration = Duration::from_millis(500);

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
    fn count(&mut self, transition: &Transition) {
        match transition {
            Transition::Done(Outcome::Applied | Outcome::Already) => self.applied += 1,
            Transition::Done(Outcome::Superseded) => self.superseded += 1,
            Transition::Done(Outcome::HeldForReview) => self.held += 1,
            Transition::Done(Outcome::Extracted | Outcome::NotCreditorReply) => {}
            Transition::Retry(_, _) => self.retried += 1,
            Transition::Parked(_, _) => self.parked += 1,
            Transition::GivenBack(_) => self.given_back += 1,
            Transition::Dead(_) => self.dead += 1,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Summary) -> Summary {
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

/// Why a lane cannot go on for now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Postgres failed; the text is its own.
    #[error("Postgres: {0}")]
    Postgres(String),
    /// The sink failed.
    #[error("{0}")]
    Sink(Failure),
}

/// The loop of one operation.
#[derive(Debug)]
pub struct Lane {
    operation: Operation,
    limits: Limits,
    context: Context,
    worker: String,
    mark: LowWaterMark,
    breaker: Breaker,
    /// What this lane has done so far.
    pub summary: Summary,
}

impl Lane {
    /// A lane that has not begun.
    #[must_use]
    pub fn new(operation: Operation, context: Context, worker: String) -> Lane {
        Lane {
            operation,
            limits: operations::limits(operation),
            context,
            worker,
            mark: LowWaterMark::default(),
            breaker: Breaker::default(),
            summary: Summary::default(),
        }
    }

    /// Works until the token is cancelled. `wake` is notified when there may be something to do.
    pub async fn run(
        mut self,
        wake: Arc<Notify>,
        readiness: Readiness,
        shutdown: CancellationToken,
    ) -> Summary {
        let mut idle = IDLE_FIRST;
        while !shutdown.is_cancelled() {
            // Made before the look, so that a poke during it is not missed.
            let poked = wake.notified();
            let pause = match self.step(&shutdown).await {
                Ok(0) => {
                    idle = (idle * 2).min(IDLE_LAST);
                    idle
                }
                Ok(_) => {
                    idle = IDLE_FIRST;
                    readiness.set(self.operation.name(), Ok(()));
                    wake.notify_waiters(); // a next step may have been enqueued for another lane
                    continue;
                }
                Err(trouble) => {
                    readiness
                        .set(self.operation.name(), Err(format!("{}: {trouble}", self.operation.name())));
                    match trouble {
                        Trouble::Postgres(_) => sleep_or(POSTGRES_PAUSE, &shutdown).await,
                        Trouble::Sink(_) => self.wait_for_sink(&readiness, &shutdown).await,
                    }
                    continue;
                }
            };
            readiness.set(self.operation.name(), Ok(()));
            tokio::select! {
                () = poked => {}
                () = sleep_or(pause, &shutdown) => {}
            }
        }
        self.summary
    }

    /// Claims, applies and finishes one batch; the number of messages claimed.
    ///
    /// # Errors
    /// [`Trouble`]; nothing is lost: what was claimed has been given back or comes back when its lease ends.
    pub async fn step(&mut self, shutdown: &CancellationToken) -> Result<usize, Trouble> {
        let claimed_at = Instant::now();
        let claims = self.claim().await?;
        if claims.is_empty() {
            return Ok(0);
        }
        let count = claims.len();
        let claimed = Instant::now();
        self.summary.claimed += u64::try_from(count).unwrap_or(u64::MAX);
        let lease_end = claimed_at + self.limits.lease;
        let in_time = Instant::now() + self.limits.apply + self.limits.finish <= lease_end;
        let finished = if in_time && !shutdown.is_cancelled() {
            operations::apply(&self.context, self.operation, claims, Instant::now() + self.limits.apply).await
        } else {
            claims.into_iter().map(Claim::give_back).collect()
        };
        let sink = finished.iter().find_map(|finished| match &finished.transition {
            Transition::GivenBack(Some(failure)) if failure.class.is_the_sinks() => Some(failure.clone()),
            Transition::GivenBack(_)
            | Transition::Done(_)
            | Transition::Retry(_, _)
            | Transition::Parked(_, _)
            | Transition::Dead(_) => None,
        });
        let applied = Instant::now();
        self.finish(finished, lease_end).await?;
        tracing::debug!(
            operation = self.operation.name(),
            count,
            claim = ?claimed - claimed_at,
            apply = ?applied - claimed,
            finish = ?applied.elapsed(),
            "batch"
        );
        match sink {
            Some(failure) => {
                self.breaker.failed();
                Err(Trouble::Sink(failure))
            }
            None => {
                self.breaker.succeeded();
                Ok(count)
            }
        }
    }

    async fn claim(&mut self) -> Result<Vec<Claim>, Trouble> {
        let connection =
            self.context.pool.get().await.map_err(|error| Trouble::Postgres(pool_reason(&error)))?;
        let Limits { batch, lease, finish, .. } = self.limits;
        let claim = outbox::claim(&connection, self.operation, &mut self.mark, batch, lease, &self.worker);
        match timeout(finish, claim).await {
            Ok(Ok(claims)) => Ok(claims),
            Ok(Err(error)) => Err(Trouble::Postgres(reason(&error))),
            Err(_) => {
                // Else it would claim messages for nobody as soon as what it waits for is over.
                abandon(connection).await;
                Err(Trouble::Postgres("no reply to a claim".into()))
            }
        }
    }

    /// Commits, again and again until the lease ends: after it somebody else repeats the work, and the fence makes that harmless.
    async fn finish(&mut self, batch: Vec<Finished>, lease_end: Instant) -> Result<(), Trouble> {
        let transitions: Vec<_> =
            batch.iter().map(|finished| (finished.id(), finished.transition.clone())).collect();
        let mut receipt = Receipt::default();
        let mut left = batch;
        loop {
            let text = match self.context.pool.get().await {
                Err(error) => pool_reason(&error),
                Ok(connection) => {
                    match timeout(self.limits.finish, outbox::finish(&connection, &mut left, &mut receipt))
                        .await
                    {
                        Ok(Ok(())) => break,
                        Ok(Err(error)) => reason(&error),
                        Err(_) => {
                            abandon(connection).await;
                            "no reply to a finish".into()
                        }
                    }
                }
            };
            if Instant::now() + POSTGRES_PAUSE >= lease_end {
                return Err(Trouble::Postgres(text));
            }
            tracing::warn!(operation = self.operation.name(), "cannot finish a batch yet: {text}");
            sleep(POSTGRES_PAUSE).await;
        }
        self.count(&transitions, &receipt);
        Ok(())
    }

    fn count(&mut self, transitions: &[(i64, Transition)], receipt: &Receipt) {
        for (id, transition) in transitions {
            let refused = receipt.refused.contains(id);
            let name = if !receipt.committed.contains(id) {
                tracing::warn!(message_id = id, "its lease ended before the finish: another worker has it");
                "lease_lost"
            } else if refused {
                self.summary.dead += 1;
                tracing::error!(message_id = id, "dead: the database refused its finish");
                "dead"
            } else {
                self.summary.count(transition);
                log_failure(*id, transition)
            };
            metrics::counter!("relay_messages_total", "operation" => self.operation.name(), "outcome" => name).increment(1);
        }
    }

    /// Probes with growing pauses until the sink answers.
    async fn wait_for_sink(&mut self, readiness: &Readiness, shutdown: &CancellationToken) {
        while let Some(pause) = self.breaker.pause() {
            sleep_or(pause, shutdown).await;
            if shutdown.is_cancelled() {
                return;
            }
            match operations::probe(&self.context, self.operation).await {
                Ok(()) => self.breaker.half_open(),
                Err(failure) => {
                    self.breaker.failed();
                    readiness
                        .set(self.operation.name(), Err(format!("{}: {failure}", self.operation.name())));
                }
            }
        }
    }
}

/// The outcome's name for the metric; what went wrong is logged here, once.
fn log_failure(id: i64, transition: &Transition) -> &'static str {
    match transition {
        Transition::Done(outcome) => outcome.name(),
        Transition::Retry(_, failure) => {
            tracing::warn!(message_id = id, %failure, "will be tried again");
            "retried"
        }
        Transition::Parked(_, failure) => {
            tracing::info!(message_id = id, %failure, "parked");
            "parked"
        }
        Transition::GivenBack(_) => "given_back",
        Transition::Dead(failure) => {
            tracing::error!(message_id = id, %failure, "dead: a person has to look");
            "dead"
        }
    }
}

/// Ends what a connection is doing and takes it out of the pool: nobody knows what state it is in.
async fn abandon(connection: Connection) {
    let token = connection.cancel_token();
    drop(Connection::take(connection));
    if timeout(POSTGRES_PAUSE, token.cancel_query(tokio_postgres::NoTls)).await.is_err() {
        tracing::warn!("Postgres does not answer a cancel request");
    }
}

async fn sleep_or(pause: Duration, shutdown: &CancellationToken) {
    shutdown.run_until_cancelled(sleep(pause)).await;
}
