//! The last hour in this relay's memory, for the console's plots.

use crate::{outbox::Floors, status};
use jiff::Timestamp;
use shared::postgres::{Pool, abandon};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(15);
/// An hour of them.
const KEPT: usize = 240;
/// For one look.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// Messages that waited, of all operations.
    pub waiting: f64,
    /// The age of the oldest due one, in seconds.
    pub lag: f64,
    /// Messages that all relays finished in the minute before.
    pub finished: f64,
}

#[derive(Debug, Default)]
struct Kept {
    samples: VecDeque<Sample>,
    floors: Floors,
}

/// The samples; clones share them.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Kept>>);

impl History {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.kept().samples.iter().copied().collect()
    }

    /// Where the next look may begin.
    #[must_use]
    pub fn floors(&self) -> Floors {
        self.kept().floors.clone()
    }

    fn add(&self, look: &status::Status) {
        let operations = || look.operations.values();
        #[expect(clippy::cast_precision_loss, reason = "a plot")]
        let sample = Sample {
            at: look.at,
            waiting: operations().map(|operation| operation.backlog.waiting as f64).sum(),
            lag: operations().filter_map(|operation| operation.backlog.lag_seconds).fold(0.0, f64::max),
            finished: operations().map(|operation| operation.last_minute.finished as f64).sum(),
        };
        let mut kept = self.kept();
        kept.samples.push_back(sample);
        if kept.samples.len() > KEPT {
            kept.samples.pop_front();
        }
        kept.floors.clone_from(look.floors());
    }

    /// Samples until the token is cancelled. A look that fails leaves a gap.
    pub async fn run(self, pool: Pool, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let Ok(connection) = pool.get().await else { continue };
            match timeout(PATIENCE, status::look(&connection, &self.floors(), Duration::from_secs(1))).await {
                Ok(Ok(look)) => self.add(&look),
                Ok(Err(_)) => {}
                Err(_) => abandon(connection).await,
            }
        }
    }
}
