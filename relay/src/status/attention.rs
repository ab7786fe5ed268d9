//! What in a status an operator should look at, and the command that leads on. Pure.

use super::{OperationStatus, Reconciliation, Status};
use crate::{board::LaneState, outbox::Backlog};
use serde::Serialize;

/// Messages that are due for longer than this are told: the usual wait is well below a second.
const LATE_SECONDS: f64 = 60.0;

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// What is the matter.
    pub what: String,
    /// The command that tells more or puts it right, where there is one.
    pub command: Option<String>,
}

/// What is the matter, the most urgent first.
#[must_use]
pub fn attention(status: &Status) -> Vec<Attention> {
    let mut found = Vec::new();
    let mut tell = |what: String, command: Option<&str>| {
        found.push(Attention { what, command: command.map(str::to_owned) });
    };
    let alive: Vec<_> = status.workers.iter().filter(|worker| worker.alive).collect();
    if alive.is_empty() {
        tell("no relay is alive: nothing is worked on".into(), Some("relay run"));
    }
    for worker in &alive {
        for (name, lane) in worker.lanes.iter().filter(|(_, lane)| lane.state == LaneState::SinkDown) {
            let failure = lane.failure.as_deref().unwrap_or("no reason given");
            tell(format!("{name} at {} waits for its sink: {failure}", worker.worker), None);
        }
    }
    for (name, operation) in &status.operations {
        let OperationStatus { backlog, relays, paused, .. } = operation;
        let Backlog { waiting, lag_seconds, dead, .. } = backlog;
        if let Some(pause) = paused {
            let command = format!("relay resume {name}");
            tell(format!("{name} is paused by {}: {}", pause.actor, pause.reason), Some(&command));
        } else if *waiting > 0 && *relays == 0 && !alive.is_empty() {
            tell(format!("{name}: {waiting} wait, and no living relay is configured for it"), None);
        } else if let Some(seconds) = lag_seconds.filter(|seconds| *seconds > LATE_SECONDS) {
            tell(format!("{name} lags: its oldest message is due for {seconds:.0} s"), None);
        }
        if *dead > 0 {
            let command = format!("relay dead-letters list --operation {name}");
            let words = if *dead == 1 { "1 dead letter".into() } else { format!("{dead} dead letters") };
            tell(format!("{name}: {words}"), Some(&command));
        }
    }
    for worker in status.workers.iter().filter(|worker| !worker.alive) {
        tell(
            format!("relay {} went without a word; it was seen last at {:.0}", worker.worker, worker.seen_at),
            None,
        );
    }
    for holder in &status.hurts_vacuum {
        tell(format!("vacuum is held up by {} {}", holder.kind, holder.name), None);
    }
    let failed =
        status.last_reconciliation.as_ref().filter(|run| run.status == "failed" || run.status == "skipped");
    if let Some(run) = failed {
        let why = run.error_message.as_deref().unwrap_or_default();
        tell(format!("the last reconciliation was {}: {why}", run.status), Some("relay reconcile"));
    }
    let left = |run: &Reconciliation| run.mismatches_found - run.auto_repaired;
    if let Some(run) = status.last_reconciliation.as_ref().filter(|run| left(run) > 0) {
        let words =
            "entries in MongoDB differ from what was written there, and are not repaired by themselves";
        tell(format!("{} {words}", left(run)), Some("relay reconcile"));
    }
    found
}
