//! What an import has come to, in numbers; rows that were left out are named by table and id only.

use super::plan::Kind;
use jiff::Timestamp;
use serde::Serialize;

/// Rows that are named one by one; all are counted.
const MOST_LISTED: usize = 200;
/// What an import has come to, or would: what `relay import-legacy --json` prints.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Imported {
    /// Whether it only says what would be.
    pub dry_run: bool,
    /// The latest change in the old database: the old service should have been stopped since.
    pub newest_change: Option<Timestamp>,
    /// Mails in the old database.
    pub emails: usize,
    /// Those that are new here.
    pub imported: usize,
    /// Those that were here already, by an earlier import or by the new ingest.
    pub known: usize,
    /// Of the new ones: no message goes on with them.
    pub settled: usize,
    /// Of those: the old service left them without an amount in MongoDB, as a person's case.
    pub undecided: usize,
    /// Of the new ones: their amount is in MongoDB, and a message marks the entry if it is still as it was written.
    pub marks: usize,
    /// Of the new ones: their debt update goes on.
    pub updates: usize,
    /// Of the new ones: their debt update goes on to a person.
    pub held_updates: usize,
    /// Of the new ones: they are read again.
    pub extractions: usize,
    /// Of the new ones: they are read again, and what is found goes to a person.
    pub held_extractions: usize,
    /// Keys in the old database that have not expired.
    pub keys: usize,
    /// Those that are new here.
    pub imported_keys: u64,
    /// Those that were here already.
    pub known_keys: u64,
    /// Rows that were left out.
    pub left_out: usize,
    /// Mails among them, for a problem in their row.
    pub left_out_emails: usize,
    /// The first of them.
    pub problems: Vec<Problem>,
}

/// A row that was left out.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its table in the old database.
    pub table: &'static str,
    /// Its id there.
    pub id: i64,
    /// Why.
    pub reason: String,
}

impl Imported {
    pub(super) fn count(&mut self, kind: Kind) {
        self.imported += 1;
        let counter = match kind {
            Kind::Mark => &mut self.marks,
            Kind::Update => &mut self.updates,
            Kind::HeldUpdate => &mut self.held_updates,
            Kind::Extraction => &mut self.extractions,
            Kind::HeldExtraction => &mut self.held_extractions,
            Kind::Settled | Kind::Undecided => {
                self.undecided += usize::from(kind == Kind::Undecided);
                &mut self.settled
            }
        };
        *counter += 1;
    }

    pub(super) fn leave_out_email(&mut self, id: i64, reason: &str) {
        self.left_out_emails += 1;
        self.leave_out("incoming_emails", id, reason);
    }

    pub(super) fn leave_out(&mut self, table: &'static str, id: i64, reason: &str) {
        self.left_out += 1;
        if self.problems.len() < MOST_LISTED {
            self.problems.push(Problem { table, id, reason: reason.to_owned() });
        }
    }
}
