//! Which connection makes room when a listener is full: of those that have no request in hand, the one whose last answer, or beginning,
//! is the longest ago.
//!
//! A request is in hand from when it has been read whole until it is answered: queue, pool and the handler's time bound that, and
//! nobody else's arrival cuts it. What is closed only sits there, or drips bytes. If further clients waited in the kernel until a
//! timeout frees a place, a good one would stand in line behind all those that an attacker opens, for ten seconds and more. It does
//! wait where all places have a request in hand. Who is closed by mistake, its request still on the wire, sends again under the same key.

use metrics::Counter;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

/// How often it is said that connections are closed for others.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Nobody is closed so soon after an answer or the beginning: a request may be on its way, and be answered. Further clients wait in the
/// kernel meanwhile, 16,000 a second get in where 4,096 have room.
const GRACE: Duration = Duration::from_millis(250);

/// The connections without a request in hand, in the order of their last answers, or of their beginnings.
#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    quiet: BTreeMap<u64, (CancellationToken, time::Instant)>,
    warned_at: Option<time::Instant>,
}

impl Crowd {
    /// To the end of the line; the number there.
    fn enters(&mut self, end: CancellationToken) -> u64 {
        self.next += 1;
        self.quiet.insert(self.next, (end, time::Instant::now()));
        self.next
    }
}

/// Of one listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Line(Arc<Mutex<Crowd>>);

impl Line {
    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the end of the line.
    pub(super) fn place(&self) -> Place {
        let end = CancellationToken::new();
        let number = self.crowd().enters(end.clone());
        Place { number: Arc::new(AtomicU64::new(number)), end, line: self.clone() }
    }

    /// Closes the quietest, unless its grace is not over; how long it may take until there is room. What was begun of its request goes
    /// on where the handler has detached it.
    pub(super) fn make_room(&self, closed: &Counter) -> Duration {
        let mut crowd = self.crowd();
        let quiet_for = crowd.quiet.first_key_value().map(|(_, (_, since))| since.elapsed());
        if let Some(left) = quiet_for.and_then(|quiet_for| GRACE.checked_sub(quiet_for)) {
            return left;
        }
        let Some((_, (quietest, _))) = crowd.quiet.pop_first() else { return GRACE };
        closed.increment(1);
        if crowd.warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            crowd.warned_at = Some(time::Instant::now());
            tracing::warn!("all connections are taken: the quietest are closed for new ones");
        }
        drop(crowd);
        quietest.cancel();
        GRACE
    }
}

/// A connection's place in the line.
#[derive(Debug, Clone)]
pub(super) struct Place {
    number: Arc<AtomicU64>,
    end: CancellationToken,
    line: Line,
}

impl Place {
    /// A connection that ends by itself, or makes room for another one. It leaves the line however it ends, begun or not.
    pub(super) fn holds(
        self,
        connection: impl Future<Output = ()> + Send,
    ) -> impl Future<Output = ()> + Send {
        let leaving = Leaving(self);
        async move {
            leaving.0.end.run_until_cancelled(connection).await;
        }
    }

    /// Out of the line until the answer.
    pub(super) fn is_served(&self) {
        self.line.crowd().quiet.remove(&self.number.load(Relaxed));
    }

    /// To the end of the line.
    pub(super) fn answered(&self) {
        let mut crowd = self.line.crowd();
        crowd.quiet.remove(&self.number.load(Relaxed));
        self.number.store(crowd.enters(self.end.clone()), Relaxed);
    }
}

/// Takes a connection out of the line when it ends.
struct Leaving(Place);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.is_served();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when the runtime shuts down.
    #[test]
    fn a_connection_whose_task_never_begins_leaves_the_line() {
        let line = Line::default();
        drop(line.place().holds(std::future::pending()));
        assert!(line.crowd().quiet.is_empty());
    }
}
