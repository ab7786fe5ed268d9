//! Which connection makes room when a listener is full: the one that has had no answer for the longest.
//!
//! A client that sends its request is answered within milliseconds and is never that one; connections that only sit there, or drip
//! bytes, are. If further clients waited in the kernel until a timeout frees a place, a good one would stand in line behind all those
//! that an attacker opens, for ten seconds and more. Who is closed by mistake sends again, under the same key.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{task::AbortHandle, time};

/// How often it is said that connections are closed for others.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Nobody is closed so soon after an answer or the beginning: a request may be on its way, and be answered. Further clients wait in the
/// kernel meanwhile, 16,000 a second get in where 4,096 have room.
const GRACE: Duration = Duration::from_millis(250);

/// The open connections, in the order of their last answers, or of their beginnings.
#[derive(Debug, Default)]
struct Crowd {
    next: u64,
    open: BTreeMap<u64, (AbortHandle, time::Instant)>,
    warned_at: Option<time::Instant>,
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
        let mut crowd = self.crowd();
        crowd.next += 1;
        Place { number: Arc::new(AtomicU64::new(crowd.next)), line: self.clone() }
    }

    /// Runs a connection until it ends, or makes room for another one.
    pub(super) fn spawn(&self, place: &Place, connection: impl Future<Output = ()> + Send + 'static) {
        let leaving = Leaving(place.clone());
        // Held until the handle is in the line: the connection's end waits for it.
        let mut crowd = self.crowd();
        let task = tokio::spawn(async move {
            let _leaving = leaving;
            connection.await;
        });
        crowd.open.insert(place.number.load(Relaxed), (task.abort_handle(), time::Instant::now()));
    }

    /// Closes the quietest, unless its grace is not over; how long it may take until there is room. What was begun of its request goes
    /// on where the handler has detached it.
    pub(super) fn make_room(&self) -> Duration {
        let mut crowd = self.crowd();
        let quiet_for = crowd.open.first_key_value().map(|(_, (_, since))| since.elapsed());
        if let Some(left) = quiet_for.and_then(|quiet_for| GRACE.checked_sub(quiet_for)) {
            return left;
        }
        let quietest = crowd.open.pop_first();
        if crowd.warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            crowd.warned_at = Some(time::Instant::now());
            tracing::warn!("all connections are taken: the quietest are closed for new ones");
        }
        drop(crowd);
        if let Some((_, (quietest, _))) = quietest {
            quietest.abort();
        }
        GRACE
    }
}

/// A connection's place in the line.
#[derive(Debug, Clone)]
pub(super) struct Place {
    number: Arc<AtomicU64>,
    line: Line,
}

impl Place {
    /// To the end of the line.
    pub(super) fn answered(&self) {
        let mut crowd = self.line.crowd();
        if let Some((handle, _)) = crowd.open.remove(&self.number.load(Relaxed)) {
            crowd.next += 1;
            self.number.store(crowd.next, Relaxed);
            crowd.open.insert(self.number.load(Relaxed), (handle, time::Instant::now()));
        }
    }
}

/// Takes a connection out of the line when it ends, however it does.
struct Leaving(Place);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.line.crowd().open.remove(&self.0.number.load(Relaxed));
    }
}
