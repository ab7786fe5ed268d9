//! `relay explain`: one mail's whole way, from its arrival to the last decision and to what MongoDB has now. Reads only.

mod entry;
mod mongodb;
mod words;

use crate::{
    client::{Client, Entry},
    ledger::entries::{self, LedgerEntry},
    review,
};
pub use entry::{EntryExplanation, explain_entry};
use jiff::Timestamp;
pub use mongodb::{MongoDb, MongoEntry, MongoSide};
use serde::Serialize;
use serde_json::Value;
use shared::message::{EmailId, MessageId, Operation};
use shared::{columns::typed, postgres::Connection};
use std::collections::HashSet;
use tokio_postgres::Row;
pub use words::Event;

/// By primary keys; the request's key is the provider's id of the delivery as a rule, and expires.
const MAIL: &str = "
select source, webhook_id, ticket_id, received_at, received_at_note, m.created_at, processing_status, processing_error, match_status,
    match_confidence::float8, matched_at, sync_status, sync_error, sync_retry_count, processed_at, token_count_before, token_count_after,
    m.idempotency_key, k.key, k.expires_at, m.text_removed_at, m.text_removed_by, m.legacy_id
from incoming_emails m left join idempotency_keys k on k.key = m.source || ':' || m.webhook_id
where m.id = $1";

/// Through the unique index on `idempotency_key`; a person's or a repair's message about the mail is found by its decision, and the
/// letter about a correction by the correction's key.
const MESSAGES: &str = "
with decided as materialized (
    select o.id, o.idempotency_key from decisions d join outbox_messages o on o.id = d.message_id where d.email_id = $1
)
select id, operation, created_at, available_at, claimed_until, claimed_by, processed_at, dead_at, outcome, retry_count, max_retries,
    unfinished_claims, error_class, error_message, traceparent
from outbox_messages
where id in (
    select id from outbox_messages where idempotency_key = any($2)
    union select id from decided
    union select o.id from decided join outbox_messages o
        on o.idempotency_key = replace(decided.idempotency_key, 'creditor_debt_update:', 'debt_update_notification:')
)
order by id";

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
    /// Its id in the database of the replaced service, if it was imported.
    pub legacy_id: Option<i64>,
    /// The request's idempotency key, until it expires.
    pub request_key: Option<String>,
    /// When that is.
    pub request_key_expires_at: Option<Timestamp>,
    /// The `generate_idempotency_key` of its debt update.
    pub idempotency_key: Option<String>,
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
    /// When its text was removed.
    pub text_removed_at: Option<Timestamp>,
    /// By what: retention or erasure.
    pub text_removed_by: Option<String>,
    /// Its messages, in the order of their creation.
    pub steps: Vec<Step>,
    /// What was decided about it, in order.
    pub decisions: Vec<Decided>,
    /// What the ledger has for the entries that it is about, of this mail or of a newer one.
    pub ledger: Vec<LedgerEntry>,
    /// And MongoDB; absent where many mails are told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mongodb: Option<MongoSide>,
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
    let Some(mail) = connection.query_typed_opt(MAIL, &typed(&[&email_id])).await? else { return Ok(None) };
    let keys = Operation::possible_keys(email_id);
    let steps = connection.query_typed(MESSAGES, &typed(&[&email_id, &keys])).await?;
    let decisions = connection.query_typed(DECISIONS, &typed(&[&email_id])).await?;
    let ledger =
        entries::of_mail(&***connection, email_id).await?.into_iter().filter_map(|entry| entry.ledger);
    Ok(Some(Explanation {
        email_id,
        source: mail.get(0),
        webhook_id: mail.get(1),
        idempotency_key: mail.get(17),
        request_key: mail.get(18),
        request_key_expires_at: mail.get(19),
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
        text_removed_at: mail.get(20),
        text_removed_by: mail.get(21),
        legacy_id: mail.get(22),
        steps: steps.iter().map(step).collect(),
        decisions: decisions.iter().map(decided).collect(),
        ledger: ledger.collect(),
        mongodb: None,
    }))
}

impl Explanation {
    /// Asks MongoDB for the entries that the ledger has for the mail, and for those that the last decision about it may mean. Where
    /// neither names one there is nothing to ask for.
    pub async fn ask(&mut self, mongodb: &MongoDb) {
        let mut meant: HashSet<(&str, &str)> =
            self.ledger.iter().map(|row| (row.client_id.as_str(), row.entry_key.as_str())).collect();
        let candidates = self.decisions.last().map(|decision| review::pairs(&decision.candidates));
        let text = |value: &'_ Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let candidates: Vec<(String, String)> = candidates
            .into_iter()
            .flatten()
            .filter_map(|(client, entry)| text(client, "client_id").zip(text(entry, "entry_key")))
            .collect();
        meant.extend(candidates.iter().map(|(client, entry)| (client.as_str(), entry.as_str())));
        if meant.is_empty() {
            return;
        }
        let ids: HashSet<&str> = meant.iter().map(|(client, _)| *client).collect();
        let ids: Vec<&str> = ids.into_iter().collect();
        let is_meant = |client: &Client, entry: &Entry| {
            meant.contains(&(client.client_id.as_str(), entry.entry_key.as_str()))
        };
        self.mongodb = Some(mongodb.entries(&ids, &[], is_meant).await);
    }
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
