//! The bounds of `ingest`: each stands here once, with its flag, variable, default, range and unit.

use super::{parsed, size};
use std::{ops::RangeInclusive, time::Duration};

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $kind:ty, $flag:literal, $variable:literal, $default:literal, $range:expr, $unit:literal, $of:expr;)*) => {
        /// The bounds, as texts.
        #[derive(Debug, Clone, clap::Args)]
        pub struct LimitSettings {
            $($(#[$doc])* #[arg(long = $flag, env = $variable, value_name = $unit, default_value = $default)] $name: String,)*
        }

        /// The bounds.
        #[derive(Debug, Clone, Copy)]
        pub struct Limits {
            $($(#[$doc])* pub $name: $kind,)*
        }

        impl LimitSettings {
            /// Reads all of them.
            pub(super) fn read(&self, problems: &mut Vec<String>) -> Option<Limits> {
                $(let $name = number(problems, $variable, &self.$name, $default, $range).map($of);)*
                let limits = Limits { $($name: $name?,)* };
                limits.relate(problems);
                Some(limits)
            }
        }
    };
}

const MS: fn(u64) -> Duration = Duration::from_millis;

limits! {
    /// Open connections; for a further one that which has had no answer for the longest is closed, unless its request is being served
    connections: usize, "connections", "INGEST_CONNECTIONS", "4096", 1..=1_000_000, "NUMBER", size;
    /// Time for a request's headers; also closes idle connections
    header_timeout: Duration, "header-timeout-ms", "INGEST_HEADER_TIMEOUT_MS", "10000", 1..=600_000, "MILLISECONDS", MS;
    /// Time for a request's body
    body_timeout: Duration, "body-timeout-ms", "INGEST_BODY_TIMEOUT_MS", "10000", 1..=600_000, "MILLISECONDS", MS;
    /// Size of one body
    body_bytes: usize, "body-bytes", "INGEST_BODY_BYTES", "1048576", 1..=33_554_432, "BYTES", size;
    /// Size of all bodies being handled together
    body_budget_bytes: usize, "body-budget-bytes", "INGEST_BODY_BUDGET_BYTES", "33554432", 1..=4_294_967_295, "BYTES", size;
    /// Time from the end of the body to the answer
    handler_timeout: Duration, "handler-timeout-ms", "INGEST_HANDLER_TIMEOUT_MS", "4000", 1..=600_000, "MILLISECONDS", MS;
    /// Time for open requests to end after SIGTERM
    drain_timeout: Duration, "drain-timeout-ms", "INGEST_DRAIN_TIMEOUT_MS", "15000", 1..=600_000, "MILLISECONDS", MS;
    /// Connections to Postgres
    pool_size: usize, "pool-size", "INGEST_POOL_SIZE", "16", 1..=1000, "NUMBER", size;
    /// Wait for a free or new connection to Postgres
    pool_wait: Duration, "pool-wait-ms", "INGEST_POOL_WAIT_MS", "500", 1..=60_000, "MILLISECONDS", MS;
    /// Requests that are committed together; 1 commits each alone
    batch_max: usize, "batch-max", "INGEST_BATCH_MAX", "64", 1..=1000, "NUMBER", size;
    /// Requests whose commit waits or runs; further ones are refused
    queue_rows: usize, "queue-rows", "INGEST_QUEUE_ROWS", "1024", 1..=100_000, "NUMBER", size;
    /// Wait for a rival request with the same key
    lock_wait: Duration, "lock-wait-ms", "INGEST_LOCK_WAIT_MS", "1000", 1..=60_000, "MILLISECONDS", MS;
    /// How long a request key is remembered
    key_lifetime: Duration, "key-lifetime-seconds", "INGEST_KEY_LIFETIME_SECONDS", "86400", 1..=31_536_000, "SECONDS", Duration::from_secs;
}

impl Limits {
    /// What must hold between the bounds.
    fn relate(&self, problems: &mut Vec<String>) {
        // A contested request waits for two connections: in its batch, and alone.
        if 2 * self.pool_wait + self.lock_wait >= self.handler_timeout {
            problems.push(
                "INGEST_HANDLER_TIMEOUT_MS must be longer than twice INGEST_POOL_WAIT_MS and INGEST_LOCK_WAIT_MS together".into(),
            );
        }
        if self.body_bytes > self.body_budget_bytes {
            problems.push("INGEST_BODY_BUDGET_BYTES must be at least INGEST_BODY_BYTES".into());
        }
    }
}

fn number(
    problems: &mut Vec<String>,
    variable: &str,
    text: &str,
    default: &str,
    range: RangeInclusive<u64>,
) -> Option<u64> {
    let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
    let value = parsed(problems, variable, text, default, &rule)?;
    if range.contains(&value) {
        return Some(value);
    }
    problems.push(format!("{variable} {rule}"));
    None
}
