//! The outbox as it should be: a list of rows in memory, and what each operation makes of them. Written from the table of states and the
//! rules of claims, leases and retries, not from the statements.

use super::operation::End;
use relay::outcome::FailureClass;

/// Unfinished claims after which a message is taken alone, and after which it must not run again.
const SUSPECT: i32 = 3;
const CONDEMNED: i32 = 6;
/// Counted failures that end a message.
const MOST_RETRIES: i32 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Done,
    Dead,
}

/// One message, as far as the protocol changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) state: State,
    pub(super) outcome: Option<String>,
    pub(super) error_class: Option<String>,
    pub(super) retry_count: i32,
    pub(super) claim_count: i64,
    pub(super) unfinished: i32,
    /// Who claimed it last and has neither finished it nor lost it to another.
    pub(super) owner: Option<String>,
    /// Whether the owner's lease is in force.
    pub(super) leased: bool,
    pub(super) deferred: bool,
    pub(super) due: bool,
    pub(super) was_missing: bool,
}

/// A claim as its worker knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) message: usize,
    claim_count: i64,
    unfinished_before: i32,
}

impl Held {
    /// Whether nobody has claimed it since.
    pub(super) fn stands(self, rows: &[Row]) -> bool {
        rows[self.message].claim_count == self.claim_count
    }

    pub(super) fn is_suspect(self) -> bool {
        self.unfinished_before >= SUSPECT
    }

    pub(super) fn is_condemned(self) -> bool {
        self.unfinished_before >= CONDEMNED
    }
}

/// All messages, in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) rows: Vec<Row>,
    /// When the deferred ones became due: those whose time came in the order of their ids, then requeued ones in the order of the acts.
    due_since: Vec<(u64, usize)>,
    acts: u64,
}

impl Model {
    pub(super) fn enqueue(&mut self) {
        self.due_since.push((0, self.rows.len()));
        self.rows.push(Row {
            state: State::Waiting,
            outcome: None,
            error_class: None,
            retry_count: 0,
            claim_count: 0,
            unfinished: 0,
            owner: None,
            leased: false,
            deferred: false,
            due: true,
            was_missing: false,
        });
    }

    fn is_claimable(&self, message: usize) -> bool {
        let row = &self.rows[message];
        row.state == State::Waiting && row.due && !row.leased
    }

    /// What a claim takes whose walk goes over the messages of `walk`: a quarter from those that have waited, at least one; the others in
    /// their order; a suspect alone; and nothing that is locked.
    pub(super) fn claimed(
        &self,
        limit: i64,
        walk: std::ops::Range<usize>,
        locked: Option<usize>,
    ) -> Vec<usize> {
        let limit = usize::try_from(limit).unwrap();
        let of = |deferred| {
            (0..self.rows.len()).filter(move |message| {
                self.rows[*message].deferred == deferred
                    && self.is_claimable(*message)
                    && Some(*message) != locked
            })
        };
        let mut due: Vec<usize> = of(true).collect();
        due.sort_by_key(|message| self.due_since[*message]);
        due.truncate((limit / 4).max(1));
        let hot = of(false).filter(|message| walk.contains(message)).take(limit - due.len().min(limit));
        let mut found: Vec<usize> = hot.chain(due.iter().copied()).collect();
        found.sort_unstable();
        let suspect = found.iter().copied().find(|message| self.rows[*message].unfinished >= SUSPECT);
        suspect.map_or(found, |suspect| vec![suspect])
    }

    pub(super) fn claim(&mut self, message: usize, worker: &str) -> Held {
        let row = &mut self.rows[message];
        row.claim_count += 1;
        row.unfinished += 1;
        (row.owner, row.leased) = (Some(worker.to_owned()), true);
        Held { message, claim_count: row.claim_count, unfinished_before: row.unfinished - 1 }
    }

    /// The row, if the claim still stands.
    fn held(&mut self, held: Held) -> Option<&mut Row> {
        let row = &mut self.rows[held.message];
        (row.state == State::Waiting && row.claim_count == held.claim_count).then_some(row)
    }

    /// Whether the finish changed anything.
    pub(super) fn finish(&mut self, held: Held, end: End) -> bool {
        let Some(row) = self.held(held) else { return false };
        row.end_of_claim();
        match end {
            _ if held.is_condemned() => row.die(FailureClass::CrashedWorker),
            End::Done(outcome) => {
                (row.state, row.outcome) = (State::Done, Some(outcome.name().to_owned()));
                (row.error_class, row.deferred) = (None, false);
            }
            End::GivenBack => {}
            End::Failed(class) => match class {
                FailureClass::SinkDown | FailureClass::SinkMisconfigured | FailureClass::UnknownOutcome => {
                    row.error_class = Some(class.name().into());
                }
                FailureClass::Transient if row.retry_count + 1 < MOST_RETRIES => {
                    row.retry_count += 1;
                    row.wait(class);
                }
                FailureClass::TargetMissing => {
                    row.was_missing = true;
                    row.wait(class);
                }
                FailureClass::BudgetSpent => row.wait(class),
                FailureClass::Transient
                | FailureClass::Permanent
                | FailureClass::FinishRefused
                | FailureClass::CrashedWorker => row.die(class),
            },
        }
        true
    }

    pub(super) fn release(&mut self, held: Held) -> bool {
        let Some(row) = self.held(held) else { return false };
        row.end_of_claim();
        (row.deferred, row.due) = (true, false);
        true
    }

    pub(super) fn lease_ends(&mut self, message: usize) {
        self.rows[message].leased = false;
    }

    pub(super) fn due(&mut self, message: usize) {
        if self.rows[message].deferred {
            self.rows[message].due = true;
            self.due_since[message] = (0, message);
        }
    }

    /// Whether it was dead.
    pub(super) fn requeue(&mut self, message: usize) -> bool {
        let was_dead = self.rows[message].state == State::Dead;
        if was_dead {
            self.acts += 1;
            self.due_since[message] = (self.acts, message);
            let row = &mut self.rows[message];
            row.end_of_claim();
            (row.state, row.error_class, row.retry_count, row.was_missing) = (State::Waiting, None, 0, false);
            (row.deferred, row.due) = (true, true);
        }
        was_dead
    }

    pub(super) fn discard(&mut self, message: usize, state: State) -> bool {
        let row = &mut self.rows[message];
        let is_open = row.state == state && !row.leased;
        if is_open {
            row.end_of_claim();
            (row.state, row.outcome, row.error_class) = (State::Done, Some("discarded".into()), None);
            row.deferred = false;
        }
        is_open
    }
}

impl Row {
    fn end_of_claim(&mut self) {
        self.claim_count += 1;
        (self.unfinished, self.owner, self.leased) = (0, None, false);
    }

    fn wait(&mut self, class: FailureClass) {
        (self.error_class, self.deferred, self.due) = (Some(class.name().into()), true, false);
    }

    fn die(&mut self, class: FailureClass) {
        self.retry_count += 1;
        (self.state, self.error_class, self.deferred) = (State::Dead, Some(class.name().into()), false);
    }
}
