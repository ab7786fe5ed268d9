//! An explanation in words, for people.

use super::{Decided, Explanation, Step};
use crate::ledger::entries::LedgerEntry;
use jiff::Timestamp;
use serde_json::Value;
use shared::trace::{TraceId, TraceParent};
use std::fmt::{self, Write as _};

/// One line per event, in the order of time; then what the ledger and MongoDB have.
impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "email {}: {}", self.email_id, self.status())?;
        self.write_errors(formatter)?;
        for Event { at, words, .. } in self.events() {
            let at = at.map_or_else(|| "now".to_owned(), |at| format!("{at:.3}"));
            writeln!(formatter, "{at:<24}  {words}")?;
        }
        for row in &self.ledger {
            let newer = if row.email_id == self.email_id { "" } else { " (a newer email)" };
            writeln!(formatter, "{row}{newer}")?;
        }
        self.mongodb.as_ref().map_or(Ok(()), |mongodb| write!(formatter, "{mongodb}"))
    }
}

/// One thing that happened to a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When; None = it is so now.
    pub at: Option<Timestamp>,
    /// What.
    pub words: String,
    /// Whether somebody has to act.
    pub is_bad: bool,
}

impl Explanation {
    /// Everything that happened to the mail, in the order of time.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let event = |at: Timestamp, words: String| Event { at: Some(at), words, is_bad: false };
        let mut events = vec![event(self.received_at, "the creditor's mail was received".to_owned())];
        let note = self.received_at_note.as_deref().map(|note| format!(" ({note})")).unwrap_or_default();
        let by = match self.legacy_id {
            Some(id) => format!("stored by the replaced service as its email {id}"),
            None => "stored by ingest".to_owned(),
        };
        let mut stored = format!("{by}, source {}, id {}{note}", self.source, self.webhook_id);
        if let Some(key) = &self.request_key {
            let _ = write!(stored, "; request key {key}");
        }
        if let Some(key) = &self.idempotency_key {
            let _ = write!(stored, "; update key {key}");
        }
        if let Some(trace_id) = self.trace_id() {
            let _ = write!(stored, "; trace {trace_id}");
        }
        events.push(event(self.arrived_at, stored));
        if let (Some(at), Some(by)) = (self.text_removed_at, &self.text_removed_by) {
            let what = if by == "erasure" { "everything about the person" } else { "its text" };
            events.push(event(at, format!("{what} was removed ({by})")));
        }
        for step in &self.steps {
            let Step { message_id, operation, ended_at, .. } = step;
            events.push(event(step.created_at, format!("message {message_id}: {operation} enqueued")));
            let words = format!("message {message_id}: {}", step.words());
            events.push(Event { at: *ended_at, words, is_bad: step.state == "dead" });
        }
        for decision in &self.decisions {
            let words = format!("decision on message {}: {}", decision.message_id, decision.words());
            events.push(event(decision.at, words));
        }
        events.sort_by_key(|event| event.at.unwrap_or(Timestamp::MAX));
        events
    }

    /// The mail in a few lines, as one of many.
    pub(super) fn write_short(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { email_id, source, webhook_id, received_at, .. } = self;
        writeln!(formatter, "email {email_id}, received {received_at:.0}: {}", self.status())?;
        let keys = [("request key", &self.request_key), ("update key", &self.idempotency_key)];
        let keys: String =
            keys.iter().filter_map(|(what, key)| Some(format!(", {what} {}", key.as_ref()?))).collect();
        let trace = self.trace_id().map(|trace_id| format!(", trace {trace_id}")).unwrap_or_default();
        writeln!(formatter, "  webhook: {source}, id {webhook_id}{keys}{trace}")?;
        self.write_errors(formatter)?;
        for step in &self.steps {
            writeln!(formatter, "  message {}: {}: {}", step.message_id, step.operation, step.words())?;
            for decision in self.decisions.iter().filter(|decision| decision.message_id == step.message_id) {
                writeln!(formatter, "    {}", decision.words())?;
            }
        }
        let has_left =
            |decision: &&Decided| self.steps.iter().all(|step| step.message_id != decision.message_id);
        for decision in self.decisions.iter().filter(has_left) {
            writeln!(formatter, "  message {} (not kept): {}", decision.message_id, decision.words())?;
        }
        Ok(())
    }

    /// The trace that its request began: what logs and MongoDB's profiler are searched for.
    fn trace_id(&self) -> Option<TraceId> {
        let traceparent = |step: &Step| step.traceparent.as_ref()?.parse::<TraceParent>().ok();
        self.steps.iter().find_map(traceparent).map(TraceParent::trace_id)
    }

    /// How the mail stands.
    #[must_use]
    pub fn status(&self) -> String {
        let matched = self.match_status.as_deref().unwrap_or("-");
        format!("{}, match {matched}, sync {}", self.processing_status, self.sync_status)
    }

    fn write_errors(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = [&self.processing_error, &self.sync_error];
        errors.into_iter().flatten().try_for_each(|error| writeln!(formatter, "  {error}"))
    }
}

impl fmt::Display for LedgerEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LedgerEntry { client_id, entry_key, stamp, email_id, message_id, applied_at, .. } = self;
        let client = match &self.aktenzeichen {
            Some(number) => format!("{number} ({client_id})"),
            None => client_id.clone(),
        };
        let amount = self.amount.map_or_else(|| "no amount".into(), |amount| format!("{amount} EUR"));
        write!(
            formatter,
            "ledger: client {client}, creditor {entry_key}: {amount}, stamp {stamp} of email {email_id}, message {message_id}, {applied_at:.0}"
        )
    }
}

impl Decided {
    fn words(&self) -> String {
        let mut words = format!("{} by {}: {}", self.decision, self.actor, self.reason);
        if let Some(amount) = &self.new_amount {
            let _ = write!(words, "; {} -> {amount} EUR", self.old_amount.as_deref().unwrap_or("nothing"));
        }
        if matches!(self.decision.as_str(), "accepted" | "corrected" | "reverted") {
            words.push_str(&self.choice());
        }
        words
    }

    /// Client and creditor entry that a person has named.
    fn choice(&self) -> String {
        let text = |pointer: &str| self.candidates.pointer(pointer).and_then(Value::as_str);
        let client = text("/0/client_id").or_else(|| text("/0/aktenzeichen"));
        let creditor = text("/0/entries/0/entry_key");
        let named = [("client", client), ("creditor", creditor)];
        named.iter().filter_map(|(what, name)| Some(format!("; {what} {}", (*name)?))).collect()
    }
}

impl Step {
    fn words(&self) -> String {
        let failure = self.failure();
        let attempts = format!("{} of {} attempts failed", self.attempts, self.max_attempts);
        match self.state {
            "done" => self.outcome.clone().unwrap_or_default(),
            "dead" => format!("DEAD, {attempts}{failure}"),
            "claimed" => format!("in the hands of {}", self.claimed_by.as_deref().unwrap_or("a relay")),
            _ => {
                let next =
                    self.next_attempt_at.map(|at| format!(", next attempt {at:.0}")).unwrap_or_default();
                format!("WAITING, {attempts}{next}{failure}")
            }
        }
    }

    fn failure(&self) -> String {
        match (&self.error_class, &self.error) {
            (Some(class), Some(text)) => format!(": {class}: {text}"),
            (Some(class), None) => format!(": {class}"),
            (None, _) => String::new(),
        }
    }
}
