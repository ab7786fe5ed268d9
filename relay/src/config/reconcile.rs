//! How a running relay compares MongoDB with the ledger by itself.

use super::{given, keep, number};
use crate::reconcile::Schedule;
use clap::Args;
use std::time::Duration;

const MODE: &str = "repair";
const EVERY: &str = "3600";
const ROWS: &str = "10000";

/// As given on the command line and in the environment.
#[derive(Debug, Clone, Args)]
pub struct ReconcileSettings {
    /// What a running relay does about drift between MongoDB and the ledger: repair, report or off
    #[arg(id = "reconcile_mode", long = "reconcile", env = "RELAY_RECONCILE", default_value = MODE, global = true)]
    mode: String,
    /// Seconds between two comparisons of the whole ledger, over all relays [60 to 604800]
    #[arg(long = "reconcile-every-seconds", env = "RELAY_RECONCILE_EVERY_SECONDS", default_value = EVERY, global = true)]
    every: String,
    /// Rows of the ledger that a comparison reads per second, at most [1 to 1000000]
    #[arg(long = "reconcile-rows-per-second", env = "RELAY_RECONCILE_ROWS_PER_SECOND", default_value = ROWS, global = true)]
    rows_per_second: String,
}

impl ReconcileSettings {
    /// The schedule, None = off.
    pub(super) fn check(&self, problems: &mut Vec<String>) -> Option<Schedule> {
        let repair = match given(&self.mode, MODE) {
            "repair" => Some(true),
            "report" => Some(false),
            "off" => None,
            _ => {
                problems.push("RELAY_RECONCILE must be repair, report or off".into());
                None
            }
        };
        let every = number("RELAY_RECONCILE_EVERY_SECONDS", given(&self.every, EVERY), 60..=604_800);
        let every = keep(problems, every).map(Duration::from_secs);
        let rows_per_second = self.rows_per_second(problems);
        Some(Schedule { every: every?, repair: repair?, rows_per_second: rows_per_second? })
    }

    /// The pace alone, for the command.
    pub(super) fn rows_per_second(&self, problems: &mut Vec<String>) -> Option<u32> {
        let rows =
            number("RELAY_RECONCILE_ROWS_PER_SECOND", given(&self.rows_per_second, ROWS), 1..=1_000_000);
        keep(problems, rows).and_then(|rows| rows.try_into().ok())
    }
}
