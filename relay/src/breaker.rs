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

/// Opens at the first failure that is the sink's and closes when a probe succeeds.
#[derive(Debug)]
pub struct Breaker {
    backoff: ExponentialBackoff,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: jiff::Timestamp,
    probe_at: Instant,
}

impl Default for Breaker {
    fn default() -> Breaker {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_interval(FIRST_PROBE)
            .with_max_interval(LAST_PROBE)
            .with_max_elapsed_time(None) // an outage of any length ends some day
            .build();
        Breaker { backoff, open: None }
    }
}

impl Breaker {
    /// The sink has failed, or a probe has. Returns since when it has been away.
    pub fn failed(&mut self) -> jiff::Timestamp {
        let pause = self.backoff.next_backoff().unwrap_or(LAST_PROBE);
        let since = self.open.as_ref().map_or_else(jiff::Timestamp::now, |open| open.since);
        self.open = Some(Open { since, probe_at: Instant::now() + pause });
        since
    }

    /// The sink has answered.
    pub fn succeeded(&mut self) {
        self.open = None;
        self.backoff.reset();
    }

    /// How long to wait before the next probe; None while closed.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.probe_at.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_open_with_growing_pauses_until_a_success_and_keeps_the_outages_beginning() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.pause(), None);
        let since = breaker.failed();
        assert!(breaker.pause().unwrap() <= FIRST_PROBE * 2);
        for _ in 0..30 {
            assert_eq!(breaker.failed(), since);
            assert!(breaker.pause().unwrap() <= LAST_PROBE * 2);
        }
        breaker.succeeded();
        assert_eq!(breaker.pause(), None);
    }
}
