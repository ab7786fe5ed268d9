//! What a comparison has found: one finding, all of them so far, and the report of a run.

use super::Drift;
use jiff::Timestamp;
use serde::Serialize;
use shared::{message::Stamp, money::Amount};
use std::collections::BTreeMap;

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `_id` of the document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// How it differs.
    pub drift: Drift,
    /// The mail whose amount should be there; None = the ledger does not know the entry.
    pub email_id: Option<i64>,
    /// What the ledger says is there.
    pub ledger_amount: Option<Amount>,
    /// Its stamp.
    pub ledger_stamp: Option<Stamp>,
    /// What is there; None = nothing that could be read.
    pub mongodb_amount: Option<Amount>,
    /// The stamp that is there.
    pub mongodb_stamp: Option<String>,
    /// The mail of the mark that is there. Where Postgres was restored, its number may be another mail's now.
    pub mongodb_email_id: Option<i64>,
    /// The time in that mark: when its mail was received, or the amount was put right.
    pub mongodb_received_at: Option<Timestamp>,
    /// Whether a repair was enqueued.
    pub is_repaired: bool,
}

/// What a run came to; the row of `reconciliation_reports`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The row's id.
    pub id: i64,
    /// completed, failed or skipped.
    pub status: &'static str,
    /// all, recent or since.
    pub scope: &'static str,
    /// Whether repairs were asked for.
    pub repair: bool,
    /// When it began.
    pub run_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Rows of the ledger that were compared.
    pub records_checked: usize,
    /// Entries that differ.
    pub mismatches_found: usize,
    /// Repairs that were enqueued.
    pub auto_repaired: usize,
    /// Repairs that could not be enqueued.
    pub failed_repairs: usize,
    /// How many of each kind.
    pub by_drift: BTreeMap<&'static str, usize>,
    /// The first of them.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_left_out: usize,
    /// Why it failed or was skipped.
    pub error_message: Option<String>,
}

/// What a comparison has found so far.
#[derive(Debug)]
pub struct Tally {
    most_listed: usize,
    /// Rows of the ledger that were compared.
    pub checked: usize,
    pub(super) repaired: usize,
    pub(super) failed: usize,
    /// How many of each kind.
    pub by_drift: BTreeMap<&'static str, usize>,
    /// The first of them.
    pub findings: Vec<Finding>,
}

impl Tally {
    /// One that lists so many findings at most.
    #[must_use]
    pub fn new(most_listed: usize) -> Tally {
        Tally {
            most_listed,
            checked: 0,
            repaired: 0,
            failed: 0,
            by_drift: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    pub(super) fn found(&self) -> usize {
        self.by_drift.values().sum()
    }

    /// How many findings are counted and not listed.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.found().saturating_sub(self.findings.len())
    }

    pub(super) fn add(&mut self, finding: Finding) {
        *self.by_drift.entry(finding.drift.name()).or_default() += 1;
        if self.findings.len() < self.most_listed {
            self.findings.push(finding);
        }
    }
}
