//! `relay apply`: debt updates into MongoDB without Postgres, for when that is away for long. Break glass.
//!
//! Same matching, same guard, same fence as the relay; but nobody asks the ledger, so an entry without our mark lets every update
//! pass, and no mail, decision or ledger row is written. What MongoDB has then is ahead of the ledger, which a reconciliation reports.

pub mod line;

use crate::{
    mongo::Clients,
    operations::creditor_debt_update::{End, Means, Open, Verdict, carry_or_halve},
    outcome::{Failure, FailureClass},
    write_guard::WriteGuard,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared::{
    message::{CreditorDebtUpdate, EmailId, Stamp},
    money::Amount,
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Lines of one round, as many as one update command has statements.
pub const LINES: usize = 500;
/// For one round, as the relay has it for a batch.
const ROUND: Duration = Duration::from_secs(8);

/// A line of the input.
#[derive(Debug)]
pub struct Line {
    /// Its number, from 1 on.
    pub number: i64,
    /// Its text, or why it has none.
    pub text: Result<String, String>,
}

/// What became of a line: one JSON object a line with `--json`.
#[derive(Debug, Serialize)]
pub struct Receipt {
    /// The line's number in the input, from 1 on.
    pub line: i64,
    /// `applied`, `already`, `superseded`, `held_for_review`, `client_missing`, `failed` or `malformed`.
    pub outcome: &'static str,
    /// Whether nothing was written: the outcome is what would be, by what MongoDB has now.
    pub dry_run: bool,
    /// Why.
    pub reason: String,
    /// `_id` of the client's document, where one was found.
    pub client_id: Option<String>,
    /// The entry in it, where one was found.
    pub entry_key: Option<String>,
    /// The amount before; exact, as text.
    pub old_amount: Option<Amount>,
    /// The amount of the line.
    pub new_amount: Option<Amount>,
    /// Its place in the order of updates, 20 digits.
    pub stamp: Option<Stamp>,
}

impl Receipt {
    /// Whether the line is still to be done by somebody who looks at it: nothing else will do it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, "failed" | "malformed")
    }
}

/// What lines are applied with.
#[derive(Debug)]
pub struct Apply {
    /// MongoDB.
    pub clients: Clients,
    /// The write guard's settings.
    pub guard: WriteGuard,
    /// Says what would be, and writes nothing.
    pub is_dry: bool,
    /// The time of a line that names none: one for the whole input, so that a line that stands in it twice is the same one.
    pub now: Timestamp,
}

/// Why MongoDB cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}; line {first_line} is the first that was not done. All lines again do no harm: those that were done end as `already`", failure.text)]
pub struct Stopped {
    /// The first line without a receipt.
    pub first_line: i64,
    /// What happened.
    pub failure: Failure,
}

impl Apply {
    /// Applies some lines, at most [`LINES`], and returns their receipts in the order of the lines. If MongoDB cannot be written, the
    /// lines from there on have none, as far as they are not done.
    pub async fn round(&self, lines: Vec<Line>) -> (Vec<Receipt>, Option<Stopped>) {
        let mut receipts = Vec::new();
        let mut open = Vec::new();
        let mut seen: HashSet<(Stamp, EmailId)> = HashSet::new();
        for Line { number, text } in lines {
            match text.and_then(|text| line::parse(&text, self.now)) {
                Err(reason) => receipts.push(self.receipt(number, "malformed", reason, None)),
                // What is not written cannot be found as written.
                Ok(update) if self.is_dry && !seen.insert((update.stamp, update.email_id)) => {
                    let reason = "the same line stands before".to_owned();
                    receipts.push(self.receipt(number, "already", reason, Some(&update)));
                }
                Ok(update) => open.push(Open::new(number, None, update)),
            }
        }
        let means = Means { clients: &self.clients, guard: self.guard, context: None, is_dry: self.is_dry };
        let (ended, failed) = carry_or_halve(means, open, Instant::now() + ROUND).await;
        receipts.extend(ended.into_iter().map(|(open, end)| self.end(&open, end)));
        let mut not_done: HashMap<i64, Failure> = HashMap::new();
        for (open, failure) in failed {
            if failure.class.is_the_sinks() {
                not_done.insert(open.id, failure);
            } else {
                receipts.push(self.end(&open, End::Failed(failure)));
            }
        }
        receipts.sort_by_key(|receipt| receipt.line);
        let first = not_done.into_iter().min_by_key(|(number, _)| *number);
        (receipts, first.map(|(first_line, failure)| Stopped { first_line, failure }))
    }

    fn end(&self, open: &Open, end: End) -> Receipt {
        let update = Some(&open.update);
        match end {
            End::Verdict(verdict) => self.verdict(open, verdict),
            End::Failed(failure) if failure.class == FailureClass::TargetMissing => {
                self.receipt(open.id, "client_missing", failure.text, update)
            }
            End::Failed(failure) => self.receipt(open.id, "failed", failure.text, update),
            End::Postponed(failure) => {
                self.receipt(open.id, "failed", format!("{}: apply it again", failure.text), update)
            }
        }
    }

    fn verdict(&self, open: &Open, verdict: Verdict) -> Receipt {
        let text = |pointer: &str| {
            let only = verdict.candidates.first().filter(|_| verdict.candidates.len() == 1);
            only.and_then(|client| client.pointer(pointer)).and_then(Value::as_str).map(str::to_owned)
        };
        // Otherwise it lists what a person may choose from.
        let is_found = verdict.confidence.is_some();
        let (client_id, entry_key) = (text("/client_id"), text("/entries/0/entry_key").filter(|_| is_found));
        let old_amount = verdict.old_amount;
        let receipt = self.receipt(open.id, verdict.outcome.name(), verdict.reason, Some(&open.update));
        Receipt { client_id, entry_key, old_amount, ..receipt }
    }

    fn receipt(
        &self,
        line: i64,
        outcome: &'static str,
        reason: String,
        update: Option<&CreditorDebtUpdate>,
    ) -> Receipt {
        Receipt {
            line,
            outcome,
            dry_run: self.is_dry,
            reason,
            client_id: None,
            entry_key: None,
            old_amount: None,
            new_amount: update.and_then(|update| update.new_debt_amount),
            stamp: update.map(|update| update.stamp),
        }
    }
}
