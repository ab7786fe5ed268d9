//! One loop for every operation: claim, apply and finish as a pipeline, until something is in the way; then wait and go on.
//!
//! A lane holds no connection and no transaction while it applies, but for a turn (`turns.rs`). It claims nothing while its sink is away, and gives back what
//! it can no longer finish in time.

mod end;
mod pipeline;
mod summary;

use crate::{board::LaneState, breaker::Breaker, context::Context, outbox::LowWaterMark, outcome::Failure};
use pipeline::{Pipeline, WhenIdle};
use shared::{admin::Readiness, message::Operation};
use std::{sync::Arc, time::Duration};
pub use summary::Summary;
use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::CancellationToken;

/// Pause after Postgres has failed.
const POSTGRES_PAUSE: Duration = Duration::from_millis(500);

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
    pipeline: Pipeline,
    mark: LowWaterMark,
    breaker: Breaker,
    /// What this lane has done so far.
    pub summary: Summary,
}

impl Lane {
    /// A lane that has not begun. `readiness` is told when the lane is in trouble, and when it no longer is.
    #[must_use]
    pub fn new(operation: Operation, context: Context, worker: String, readiness: Readiness) -> Lane {
        Lane {
            pipeline: Pipeline::new(operation, context, worker, readiness),
            mark: LowWaterMark::default(),
            breaker: Breaker::default(),
            summary: Summary::default(),
        }
    }

    /// Works until the token is cancelled. `wake` is notified when there may be something to do.
    pub async fn run(mut self, wake: Arc<Notify>, shutdown: CancellationToken) -> Summary {
        while !shutdown.is_cancelled() {
            let flow =
                self.pipeline.flow(WhenIdle::Wait(&wake), &mut self.mark, &mut self.summary, &shutdown).await;
            let Err(trouble) = flow else { continue };
            self.pipeline.report(Err(&trouble));
            self.pipeline.touch();
            match trouble {
                Trouble::Postgres(_) => sleep_or(POSTGRES_PAUSE, &shutdown).await,
                Trouble::Sink(failure) => {
                    self.pipeline.show(LaneState::SinkDown, Some(failure));
                    let has_gone_through = self.pipeline.take_through();
                    if has_gone_through {
                        self.breaker.succeeded();
                    }
                    self.breaker.failed();
                    self.pipeline.resize_after_trouble(has_gone_through);
                    self.wait_for_sink(&shutdown).await;
                }
            }
        }
        self.summary
    }

    /// Works until nothing is due; the number of messages claimed.
    ///
    /// # Errors
    /// [`Trouble`]; nothing is lost: what was claimed has been given back or comes back when its lease ends.
    pub async fn drain(&mut self, shutdown: &CancellationToken) -> Result<u64, Trouble> {
        let before = self.summary.claimed;
        self.pipeline.flow(WhenIdle::End, &mut self.mark, &mut self.summary, shutdown).await?;
        Ok(self.summary.claimed - before)
    }

    /// Probes with growing pauses until the sink answers.
    async fn wait_for_sink(&mut self, shutdown: &CancellationToken) {
        while let Some(pause) = self.breaker.pause() {
            sleep_or(pause, shutdown).await;
            if shutdown.is_cancelled() {
                return;
            }
            match self.pipeline.probe().await {
                Ok(()) => self.breaker.half_open(),
                Err(failure) => {
                    self.breaker.failed();
                    self.pipeline.show(LaneState::SinkDown, Some(failure.clone()));
                    self.pipeline.report(Err(&Trouble::Sink(failure)));
                }
            }
        }
    }
}

async fn sleep_or(pause: Duration, shutdown: &CancellationToken) {
    shutdown.run_until_cancelled(sleep(pause)).await;
}
