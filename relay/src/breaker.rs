//! Sink down is a state of the lane, not of its messages: while the breaker is open nothing is claimed.
//!
//! The crate `backoff` lives here and nowhere else: it has no maintainer any more (RUSTSEC-2025-0012), and this file is all there
//! would be to replace.

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use std::time::{Duration, Instant};

/// First pause before a probe.
const FIRST_PROBE: Duration = Duration::from_millis(500);
/// Longest pause between probes: how late a recovery may be noticed.
const LAST_PROBE: Duration = Duration::from_secs(15);

/// Opens at the first failure that is the sink's and closes when a batch has gone through.
#[derive(Debug)]
pub struct Breaker {
    backoff: ExponentialBackoff,
    probe_at: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Breaker {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(FIRST_PROBE)
            .with_max_interval(LAST_PROBE)
            .with_max_elapsed_time(None) // an outage of any length ends some day
            .build();
        Breaker { backoff, probe_at: None }
    }
}

impl Breaker {
    /// The sink has failed, or a probe has.
    pub fn failed(&mut self) {
        let pause = self.backoff.next_backoff().unwrap_or(LAST_PROBE);
        self.probe_at = Some(Instant::now() + pause);
    }

    /// A probe has been answered: the next batch may try. The pauses go on growing until one succeeds, since a server may answer
    /// a probe and still refuse the work.
    pub fn half_open(&mut self) {
        self.probe_at = None;
    }

    /// A batch has gone through.
    pub fn succeeded(&mut self) {
        self.probe_at = None;
        self.backoff.reset();
    }

    /// How long to wait before the next probe; None while a batch may try.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.probe_at.map(|at| at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_a_batch_succeeds() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.pause(), None);
        breaker.failed();
        assert!(breaker.pause().unwrap() <= FIRST_PROBE * 2);
        for _ in 0..30 {
            breaker.half_open();
            assert_eq!(breaker.pause(), None);
            breaker.failed();
        }
        assert!(breaker.pause().unwrap() > FIRST_PROBE * 2, "answered probes do not shorten the pauses");
        assert!(breaker.pause().unwrap() <= LAST_PROBE * 2);
        breaker.succeeded();
        breaker.failed();
        assert!(breaker.pause().unwrap() <= FIRST_PROBE * 2);
    }
}
