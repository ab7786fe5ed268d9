//! Dead letters as a person meets them: groups of the same failure, and what is done with one, a group, or a selection.
//!
//! Decides what is chosen and in which portions it is changed; the changes themselves are in `outbox/dead_letters.rs`.

mod fingerprint;

use crate::{
    operator::{self, Act, PastAct},
    outbox::{self, DeadLetter, DeadLetterFilter, MessageRow},
};
pub use fingerprint::{group_name, pattern};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{message::MessageId, outbox::POKE, postgres::Connection};
use std::collections::HashMap;

/// Messages of one transaction: it holds them and their mails locked for some 50 ms.
const PORTION: usize = 500;
/// The mails' locks are held by finishes, which are short.
const LOCK_TIMEOUT: &str = "set local lock_timeout = '5s'";

/// Payload fields that say nothing about a person.
const IMPERSONAL: [&str; 9] = [
    "email_id",
    "message_id",
    "provider_id",
    "stamp",
    "origin",
    "cause",
    "received_at",
    "extraction_confidence",
    "entry_key",
];

/// What `relay dead-letters list --json` prints.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// Dead letters in all, of the operation that was asked for.
    pub dead: u64,
    /// Of these, how many would end as superseded.
    pub pointless: u64,
    /// How many groups they form; more than are listed if `--limit` cut them off.
    pub group_count: usize,
    /// The groups, the largest first.
    pub groups: Vec<Group>,
}

/// Dead letters of one failure.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Its name, for `--group`: 8 hex digits over operation, class and pattern.
    pub group: String,
    /// Their kind.
    pub operation: String,
    /// The class of their last failure.
    pub error_class: String,
    /// The failure's text; what differs from message to message is replaced.
    pub error: String,
    /// How many.
    pub count: u64,
    /// How many of them would end as superseded, since their sender's later mail is stored.
    pub pointless: u64,
    /// When the first of them died.
    pub first_dead_at: Timestamp,
    /// When the last of them died.
    pub last_dead_at: Timestamp,
    /// The one that died last, for `show`.
    pub sample_id: MessageId,
}

/// What `relay dead-letters show --json` prints.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The message. Of the payload, what says something about a person is hidden unless it was asked for.
    #[serde(flatten)]
    pub message: MessageRow,
    /// The group it belongs to, if it is dead.
    pub group: Option<String>,
    /// What persons have done with it, in order.
    pub actions: Vec<PastAct>,
}

/// Which dead letters are meant.
#[derive(Debug, Clone)]
pub enum Selection {
    /// These.
    Ids(Vec<MessageId>),
    /// Those of the filter, and of the group where one is named.
    Matching(DeadLetterFilter, Option<String>),
}

/// What `requeue` and `discard` print with `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// How many were chosen.
    pub selected: usize,
    /// How many were changed, or would be in a dry run.
    pub changed: usize,
    /// How many were left alone: not dead (any more), or in somebody else's hands.
    pub skipped: usize,
    /// Whether nothing was changed since it was a dry run.
    pub dry_run: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// There are no such messages.
    #[error("there is no message {}: see `relay dead-letters list`", list(.0))]
    Unknown(Vec<MessageId>),
    /// No dead letter is in this group.
    #[error(
        "no dead letter is in a group {0} (with the other conditions, if any): see `relay dead-letters list`"
    )]
    UnknownGroup(String),
    /// The selection is empty.
    #[error("no dead letter is meant by this: see `relay dead-letters list`")]
    Nothing,
    /// More than the cap lets through.
    #[error(
        "{size} dead letters are meant, and --cap lets {cap} through: choose fewer, or raise it with --cap {size}"
    )]
    TooMany {
        /// How many.
        size: usize,
        /// How many may be.
        cap: usize,
    },
    /// Postgres failed; portions that were committed before it stay.
    #[error("Postgres: {}", shared::postgres::reason(.0))]
    Postgres(#[from] tokio_postgres::Error),
}

fn list(ids: &[MessageId]) -> String {
    let mut words: Vec<String> = ids.iter().take(10).map(ToString::to_string).collect();
    if ids.len() > words.len() {
        words.push(format!("and {} more", ids.len() - words.len()));
    }
    words.join(", ")
}

/// The dead letters by group.
///
/// # Errors
/// [`DeadLetterError::Postgres`].
pub async fn listing(
    connection: &Connection,
    filter: &DeadLetterFilter,
    limit: usize,
) -> Result<Listing, DeadLetterError> {
    let mut groups: HashMap<String, Group> = HashMap::new();
    outbox::each_dead_letter(connection, filter, true, |letter| add(&mut groups, letter)).await?;
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.group.cmp(&other.group)));
    let (dead, pointless) = groups
        .iter()
        .fold((0, 0), |(dead, pointless), group| (dead + group.count, pointless + group.pointless));
    let group_count = groups.len();
    groups.truncate(limit);
    Ok(Listing { dead, pointless, group_count, groups })
}

fn add(groups: &mut HashMap<String, Group>, letter: DeadLetter) {
    let DeadLetter { id, operation, error_class, error, dead_at, is_pointless } = letter;
    let error = pattern(&error);
    let name = group_name(&operation, &error_class, &error);
    let group = groups.entry(name.clone()).or_insert_with(|| Group {
        group: name,
        operation,
        error_class,
        error,
        count: 0,
        pointless: 0,
        first_dead_at: dead_at,
        last_dead_at: dead_at,
        sample_id: id,
    });
    group.count += 1;
    group.pointless += u64::from(is_pointless);
    group.first_dead_at = group.first_dead_at.min(dead_at);
    if dead_at >= group.last_dead_at {
        (group.last_dead_at, group.sample_id) = (dead_at, id);
    }
}

/// One message. `with_payload`: all of what it carries.
///
/// # Errors
/// [`DeadLetterError`].
pub async fn show(
    connection: &Connection,
    id: MessageId,
    with_payload: bool,
) -> Result<Shown, DeadLetterError> {
    let message = outbox::message_row(connection, id).await?;
    let mut message = message.ok_or_else(|| DeadLetterError::Unknown(vec![id]))?;
    if !with_payload {
        message.payload = hidden(message.payload);
    }
    let actions = operator::acts_of(connection, id).await?;
    let group = message.dead_at.and(message.error_class.as_ref()).map(|class| {
        group_name(&message.operation, class, &pattern(message.error.as_deref().unwrap_or_default()))
    });
    Ok(Shown { message, group, actions })
}

fn hidden(payload: Value) -> Value {
    let Value::Object(fields) = payload else { return json!("(hidden)") };
    let hide = |(name, value): (String, Value)| {
        let value =
            if value.is_null() || IMPERSONAL.contains(&name.as_str()) { value } else { json!("(hidden)") };
        (name, value)
    };
    Value::Object(fields.into_iter().map(hide).collect())
}

/// The same messages again. `rate`: at most so many become due per second.
///
/// # Errors
/// [`DeadLetterError`].
pub async fn requeue(
    connection: &mut Connection,
    selection: &Selection,
    cap: usize,
    rate: Option<f64>,
    dry_run: bool,
    by: &str,
) -> Result<Done, DeadLetterError> {
    let ids = select(connection, selection, cap).await?;
    if dry_run {
        return dry(connection, &ids).await;
    }
    let seconds = rate.map_or(0.0, f64::recip);
    let (mut place, mut changed) = (0, 0);
    for portion in ids.chunks(PORTION) {
        let transaction = connection.transaction().await?;
        transaction.batch_execute(LOCK_TIMEOUT).await?;
        let mut acts = outbox::requeue(&transaction, portion, place, seconds).await?;
        noted(&mut acts, "rate", &json!(rate));
        operator::record_all(&transaction, by, "requeue", &acts).await?;
        transaction.commit().await?;
        changed += acts.len();
        place += i64::try_from(portion.len()).unwrap_or(0);
    }
    if changed > 0 {
        connection.batch_execute(POKE).await?;
    }
    Ok(Done { selected: ids.len(), changed, skipped: ids.len() - changed, dry_run })
}

/// Ends them as discarded.
///
/// # Errors
/// [`DeadLetterError`].
pub async fn discard(
    connection: &mut Connection,
    selection: &Selection,
    cap: usize,
    reason: &str,
    dry_run: bool,
    by: &str,
) -> Result<Done, DeadLetterError> {
    let ids = select(connection, selection, cap).await?;
    if dry_run {
        return dry(connection, &ids).await;
    }
    let mut changed = 0;
    for portion in ids.chunks(PORTION) {
        let transaction = connection.transaction().await?;
        transaction.batch_execute(LOCK_TIMEOUT).await?;
        let mut acts = outbox::discard_dead(&transaction, portion).await?;
        noted(&mut acts, "reason", &json!(reason));
        operator::record_all(&transaction, by, "discard", &acts).await?;
        transaction.commit().await?;
        changed += acts.len();
    }
    Ok(Done { selected: ids.len(), changed, skipped: ids.len() - changed, dry_run })
}

fn noted(acts: &mut [Act], name: &str, value: &Value) {
    for detail in acts.iter_mut().filter_map(|act| act.detail.as_object_mut()) {
        detail.insert(name.to_owned(), value.clone());
    }
}

async fn dry(connection: &Connection, ids: &[MessageId]) -> Result<Done, DeadLetterError> {
    let (_, dead) = outbox::dead_among(connection, ids).await?;
    let changed = usize::try_from(dead).unwrap_or(0);
    Ok(Done { selected: ids.len(), changed, skipped: ids.len() - changed, dry_run: true })
}

/// The ids that are meant, the longest dead first.
async fn select(
    connection: &Connection,
    selection: &Selection,
    cap: usize,
) -> Result<Vec<MessageId>, DeadLetterError> {
    let (mut ids, mut size) = (Vec::new(), 0);
    match selection {
        Selection::Ids(named) => {
            ids.clone_from(named);
            ids.sort_unstable();
            ids.dedup();
            size = ids.len();
            let (unknown, _) = outbox::dead_among(connection, &ids).await?;
            if !unknown.is_empty() {
                return Err(DeadLetterError::Unknown(unknown));
            }
        }
        Selection::Matching(filter, group) => {
            let is_meant = |letter: &DeadLetter| {
                let name = || group_name(&letter.operation, &letter.error_class, &pattern(&letter.error));
                group.as_ref().is_none_or(|group| *group == name())
            };
            let keep = |letter: DeadLetter| {
                if is_meant(&letter) {
                    size += 1;
                    if size <= cap {
                        ids.push(letter.id);
                    }
                }
            };
            outbox::each_dead_letter(connection, filter, false, keep).await?;
        }
    }
    match (size, selection) {
        (0, Selection::Matching(_, Some(group))) => Err(DeadLetterError::UnknownGroup(group.clone())),
        (0, _) => Err(DeadLetterError::Nothing),
        (size, _) if size > cap => Err(DeadLetterError::TooMany { size, cap }),
        _ => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_shows_nothing_of_a_person() {
        let payload = json!({ "email_id": 7, "client_name": "Eva Adler", "new_debt_amount": "12.00", "stamp": "1",
            "reference_numbers": ["x"], "decided_by": null, "a later field": { "name": "Eva" } });
        let hidden = hidden(payload).to_string();
        assert!(hidden.contains(r#""email_id":7"#) && hidden.contains(r#""decided_by":null"#));
        assert!(!hidden.contains("Eva") && !hidden.contains("12.00") && !hidden.contains('x'));
    }

    #[test]
    fn a_long_list_of_unknown_ids_is_cut() {
        let text = DeadLetterError::Unknown((1..=12).collect()).to_string();
        assert!(text.contains("message 1, 2, ") && text.contains("10, and 2 more"), "{text}");
    }
}
