//! `relay explain`: one mail's whole way, from its arrival to the last decision. Reads Postgres only, changes nothing.

use deadpool_postgres::Client as Connection;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared::message::{EmailId, MessageId, Operation};
use std::fmt::{self, Write as _};
use tokio_postgres::Row;

/// By primary key.
const MAIL: &str = "
select source, webhook_id, ticket_id, received_at, received_at_note, created_at, processing_status, processing_error, match_status,
    match_confidence::float8, matched_at, sync_status, sync_error, sync_retry_count, processed_at, token_count_before, token_count_after
from incoming_emails where id = $1";

/// Through the unique index on `idempotency_key`; a person's or a repair's message about the mail is found by its decision.
const MESSAGES: &str = "
select id, operation, created_at, available_at, claimed_until, claimed_by, processed_at, dead_at, outcome, retry_count, max_retries,
    unfinished_claims, error_class, error_message, traceparent
from outbox_messages where idempotency_key = any($2) or id in (select message_id from decisions where email_id = $1) order by id";

/// By `decisions_email`.
const DECISIONS: &str = "
select message_id, at, decision, reason, actor, old_amount::text, new_amount::text, candidates
from decisions where email_id = $1 order by id";

/// One mail's way.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The mail.
    pub email_id: EmailId,
    /// Who sent the webhook, and under which id.
    pub source: String,
    /// The provider's id of the delivery.
    pub webhook_id: String,
    /// The ticket.
    pub ticket_id: Option<String>,
    /// When the creditor's mail was received.
    pub received_at: Timestamp,
    /// Why that is the time of arrival and not what the sender wrote.
    pub received_at_note: Option<String>,
    /// When ingest stored it.
    pub arrived_at: Timestamp,
    /// How far it has been processed.
    pub processing_status: String,
    /// Why it failed.
    pub processing_error: Option<String>,
    /// Whether client and creditor were found.
    pub match_status: Option<String>,
    /// How much that rests on, 0 to 1.
    pub match_confidence: Option<f64>,
    /// When.
    pub matched_at: Option<Timestamp>,
    /// Whether MongoDB has it.
    pub sync_status: String,
    /// Why not.
    pub sync_error: Option<String>,
    /// Counted failures.
    pub sync_retry_count: i32,
    /// When it came to its end.
    pub processed_at: Option<Timestamp>,
    /// Estimated tokens of all that was received.
    pub token_count_before: Option<i32>,
    /// And of what was left to read.
    pub token_count_after: Option<i32>,
    /// Its messages, in the order of their creation.
    pub steps: Vec<Step>,
    /// What was decided about it, in order.
    pub decisions: Vec<Decided>,
}

/// One message.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its id.
    pub message_id: MessageId,
    /// Its kind.
    pub operation: String,
    /// waiting, claimed, done or dead.
    pub state: &'static str,
    /// How it ended.
    pub outcome: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When it ended, well or badly.
    pub ended_at: Option<Timestamp>,
    /// When it is tried again, if it waits for that.
    pub next_attempt_at: Option<Timestamp>,
    /// Who has it.
    pub claimed_by: Option<String>,
    /// Counted failures.
    pub attempts: i32,
    /// How many are allowed.
    pub max_attempts: i32,
    /// Claims in a row that nobody finished.
    pub unfinished_claims: i32,
    /// The class of the last failure.
    pub error_class: Option<String>,
    /// Its text.
    pub error: Option<String>,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
}

/// One decision.
#[derive(Debug, Serialize)]
pub struct Decided {
    /// About which message.
    pub message_id: MessageId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub decision: String,
    /// Why.
    pub reason: String,
    /// By whom.
    pub actor: String,
    /// The amount that MongoDB had.
    pub old_amount: Option<String>,
    /// The amount of the mail.
    pub new_amount: Option<String>,
    /// What it could have meant; what a person has named, where one has.
    pub candidates: Value,
}

/// The way of this mail; None if there is no such mail.
///
/// # Errors
/// The statements'.
pub async fn explain(
    connection: &Connection,
    email_id: EmailId,
) -> Result<Option<Explanation>, tokio_postgres::Error> {
    let Some(mail) = connection.query_opt(MAIL, &[&email_id]).await? else { return Ok(None) };
    let keys = Operation::possible_keys(email_id);
    let steps = connection.query(MESSAGES, &[&email_id, &keys]).await?;
    let decisions = connection.query(DECISIONS, &[&email_id]).await?;
    Ok(Some(Explanation {
        email_id,
        source: mail.get(0),
        webhook_id: mail.get(1),
        ticket_id: mail.get(2),
        received_at: mail.get(3),
        received_at_note: mail.get(4),
        arrived_at: mail.get(5),
        processing_status: mail.get(6),
        processing_error: mail.get(7),
        match_status: mail.get(8),
        match_confidence: mail.get(9),
        matched_at: mail.get(10),
        sync_status: mail.get(11),
        sync_error: mail.get(12),
        sync_retry_count: mail.get(13),
        processed_at: mail.get(14),
        token_count_before: mail.get(15),
        token_count_after: mail.get(16),
        steps: steps.iter().map(step).collect(),
        decisions: decisions.iter().map(decided).collect(),
    }))
}

fn step(row: &Row) -> Step {
    let (claimed_until, processed_at, dead_at): (Option<Timestamp>, Option<Timestamp>, Option<Timestamp>) =
        (row.get(4), row.get(6), row.get(7));
    let state = match (processed_at, dead_at, claimed_until) {
        (Some(_), _, _) => "done",
        (None, Some(_), _) => "dead",
        (None, None, Some(until)) if until > Timestamp::now() => "claimed",
        (None, None, _) => "waiting",
    };
    Step {
        message_id: row.get(0),
        operation: row.get(1),
        state,
        outcome: row.get(8),
        created_at: row.get(2),
        ended_at: processed_at.or(dead_at),
        next_attempt_at: Some(row.get::<_, Timestamp>(3))
            .filter(|at| state == "waiting" && *at > Timestamp::now()),
        claimed_by: row.get(5),
        attempts: row.get(9),
        max_attempts: row.get(10),
        unfinished_claims: row.get(11),
        error_class: row.get(12),
        error: row.get(13),
        traceparent: row.get(14),
    }
}

fn decided(row: &Row) -> Decided {
    Decided {
        message_id: row.get(0),
        at: row.get(1),
        decision: row.get(2),
        reason: row.get(3),
        actor: row.get(4),
        old_amount: row.get(5),
        new_amount: row.get(6),
        candidates: row.get(7),
    }
}

/// For people: one line per event, in the order of time.
impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut events = vec![(self.received_at, "the creditor's mail was received".to_owned())];
        let note = self.received_at_note.as_deref().map(|note| format!(" ({note})")).unwrap_or_default();
        events.push((
            self.arrived_at,
            format!("stored by ingest, source {}, id {}{note}", self.source, self.webhook_id),
        ));
        for step in &self.steps {
            events
                .push((step.created_at, format!("message {}: {} enqueued", step.message_id, step.operation)));
            let failure = step.failure();
            let attempts = format!("{} of {} attempts failed", step.attempts, step.max_attempts);
            let words = match (step.state, step.ended_at) {
                ("done", _) => {
                    format!("message {}: {}", step.message_id, step.outcome.as_deref().unwrap_or_default())
                }
                ("dead", _) => format!("message {}: DEAD, {attempts}{failure}", step.message_id),
                ("claimed", _) => {
                    format!(
                        "message {}: in the hands of {}",
                        step.message_id,
                        step.claimed_by.as_deref().unwrap_or("a relay")
                    )
                }
                _ => {
                    let next =
                        step.next_attempt_at.map(|at| format!(", next attempt {at:.0}")).unwrap_or_default();
                    format!("message {}: WAITING, {attempts}{next}{failure}", step.message_id)
                }
            };
            events.push((step.ended_at.unwrap_or(Timestamp::MAX), words));
        }
        for decision in &self.decisions {
            let mut words = format!(
                "decision on message {}: {} by {}: {}",
                decision.message_id, decision.decision, decision.actor, decision.reason
            );
            if let Some(amount) = &decision.new_amount {
                let _ = write!(
                    words,
                    "; {} -> {amount} EUR",
                    decision.old_amount.as_deref().unwrap_or("nothing")
                );
            }
            if decision.decision == "accepted" {
                words.push_str(&decision.choice());
            }
            events.push((decision.at, words));
        }
        events.sort_by_key(|(at, _)| *at);
        let matched = self.match_status.as_deref().unwrap_or("-");
        writeln!(
            formatter,
            "email {}: {}, match {matched}, sync {}",
            self.email_id, self.processing_status, self.sync_status
        )?;
        for error in [&self.processing_error, &self.sync_error].into_iter().flatten() {
            writeln!(formatter, "  {error}")?;
        }
        for (at, words) in events {
            let at = if at == Timestamp::MAX { "now".to_owned() } else { format!("{at:.3}") };
            writeln!(formatter, "{at:<24}  {words}")?;
        }
        Ok(())
    }
}

impl Decided {
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
    fn failure(&self) -> String {
        match (&self.error_class, &self.error) {
            (Some(class), Some(text)) => format!(": {class}: {text}"),
            (Some(class), None) => format!(": {class}"),
            (None, _) => String::new(),
        }
    }
}
