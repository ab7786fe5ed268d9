//! Dead letters: which there are, and a person's two ways out of them.

use crate::{
    ledger::{DISCARDED_EMAILS, REQUEUED_EMAILS},
    operator::Act,
};
use futures_util::{TryStreamExt as _, pin_mut};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use shared::message::{EmailId, MessageId, Operation};
use shared::{columns::typed, postgres::Connection};
use std::{sync::LazyLock, time::Duration};
use tokio_postgres::Transaction;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

/// Whether a dead debt update would end as superseded, as far as can be told: its sender's later mails are stored for every entry of
/// this client that the sender is known at, and where both name numbers, one is the same: an agency may write for two claims.
/// Through `creditor_debts_aktenzeichen`, then by primary key.
const POINTLESS: &str = r#"
case when o.operation = 'creditor_debt_update' then coalesce((
    select bool_and(lpad(d.stamp::text, 20, '0') collate "C" > (o.payload ->> 'stamp') collate "C" and case
        when jsonb_typeof(o.payload -> 'reference_numbers') = 'array' and jsonb_typeof(m.extracted_data -> 'reference_numbers') = 'array'
        then o.payload -> 'reference_numbers' = '[]' or m.extracted_data -> 'reference_numbers' = '[]'
            or o.payload -> 'reference_numbers' ?| array(select jsonb_array_elements_text(m.extracted_data -> 'reference_numbers'))
        else true end)
    from creditor_debts d join incoming_emails m on m.id = d.email_id
    where d.aktenzeichen in (o.payload ->> 'client_aktenzeichen', replace(o.payload ->> 'client_aktenzeichen', '/', '_'),
            replace(o.payload ->> 'client_aktenzeichen', '_', '/'))
        and lower(m.from_email) = lower(o.payload ->> 'creditor_email')
), false) else false end"#;

/// Through `outbox_messages_dead`, then one page per dead letter; with $4 = true some pages more for each. Locks nothing.
static LIST: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
select o.id, o.operation, o.error_class, coalesce(o.error_message, ''), o.dead_at, case when $4 then {POINTLESS} else false end
from outbox_messages o
where o.dead_at is not null and ($1::text is null or o.operation = $1) and ($2::text is null or o.error_class = $2)
    and ($3::float8 is null or o.dead_at < now() - $3 * interval '1 second')
order by o.dead_at, o.id"
    )
});

/// By primary key.
static SHOW: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
select o.id, o.operation, case when o.processed_at is not null then 'done' when o.dead_at is not null then 'dead'
        when o.claimed_until > now() then 'claimed' else 'waiting' end,
    o.aggregate_type, o.aggregate_id, o.idempotency_key, o.traceparent, o.created_at, o.available_at, o.processed_at, o.dead_at,
    o.first_missing_at, o.outcome, o.retry_count, o.max_retries, o.claim_count, o.unfinished_claims, o.error_class, o.error_message,
    o.dead_at is not null and {POINTLESS}, o.payload
from outbox_messages o where o.id = $1"
    )
});

/// By primary key: those that do not exist, and how many are dead.
const KNOWN: &str = "
select coalesce(array_agg(r.id) filter (where o.id is null), '{}'), count(*) filter (where o.dead_at is not null)
from unnest($1::bigint[]) as r(id) left join outbox_messages o on o.id = r.id";

/// The dead ones of the messages $1, in the order of their ids, skipping those that somebody else is at: waits for nobody. By primary
/// key; locks the messages, then their mails.
const CHOSEN: &str = "
chosen as materialized (
    select o.id, r.place, o.operation, case when o.aggregate_id ~ '^[0-9]{1,18}$' then o.aggregate_id::bigint end as email_id,
        o.error_class, o.error_message, o.retry_count, o.dead_at
    from unnest($1::bigint[]) with ordinality as r(id, place) join outbox_messages o on o.id = r.id
    where o.dead_at is not null order by o.id for update of o skip locked
)";

const RETURNING: &str = "
returning o.id, chosen.operation, chosen.email_id, chosen.error_class, chosen.error_message, chosen.retry_count, chosen.dead_at";

/// The same message again: waits for its time, $3 seconds after the one before it, so that it is found whatever the lanes' marks are. The
/// claim count fences off whoever may still hold an old claim. $4 = the operations that change what their mail shows.
static REQUEUE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with {CHOSEN}, ended as (
    update outbox_messages o set claim_count = o.claim_count + 1, unfinished_claims = 0, deferred = true,
        available_at = now() + ($2 + chosen.place - 1) * $3::float8 * interval '1 second',
        dead_at = null, retry_count = 0, error_class = null, error_message = null, first_missing_at = null
    from chosen where o.id = chosen.id and o.dead_at is not null {RETURNING}
), {REQUEUED_EMAILS}
select * from ended"
    )
});

/// Dead letters that nobody wants any more. $2 = the operations that change what their mail shows.
static DISCARD: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with {CHOSEN}, ended as (
    update outbox_messages o set claim_count = o.claim_count + 1, unfinished_claims = 0, dead_at = null, processed_at = now(),
        outcome = 'discarded', error_class = null, error_message = null
    from chosen where o.id = chosen.id and o.dead_at is not null {RETURNING}
), {DISCARDED_EMAILS}
select * from ended"
    )
});

/// Which dead letters.
#[derive(Debug, Default, Clone)]
pub struct DeadLetterFilter {
    /// Of this operation.
    pub operation: Option<Operation>,
    /// Of this class of failure.
    pub error_class: Option<String>,
    /// Dead for at least this long.
    pub older_than: Option<Duration>,
}

/// One dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its id.
    pub id: MessageId,
    /// Its kind.
    pub operation: String,
    /// The class of its last failure.
    pub error_class: String,
    /// The failure's text.
    pub error: String,
    /// Since when it is dead.
    pub dead_at: Timestamp,
    /// Whether it would end as superseded, as far as the ledger tells.
    pub is_pointless: bool,
}

/// One message with all its columns.
#[derive(Debug, Serialize)]
pub struct MessageRow {
    /// Its id.
    pub message_id: MessageId,
    /// Its kind.
    pub operation: String,
    /// waiting, claimed, done or dead.
    pub state: String,
    /// What kind of thing it is about.
    pub aggregate_type: String,
    /// The mail it is about.
    pub email_id: Option<EmailId>,
    /// Its key.
    pub idempotency_key: String,
    /// The trace it belongs to.
    pub traceparent: Option<String>,
    /// Since when it is there.
    pub created_at: Timestamp,
    /// When it was to be tried (again).
    pub available_at: Timestamp,
    /// When it ended well.
    pub processed_at: Option<Timestamp>,
    /// Since when it is dead.
    pub dead_at: Option<Timestamp>,
    /// The first look that missed its client.
    pub first_missing_at: Option<Timestamp>,
    /// How it ended well.
    pub outcome: Option<String>,
    /// Counted failures.
    pub retry_count: i32,
    /// How many are allowed.
    pub max_retries: i32,
    /// Transitions so far.
    pub claim_count: i64,
    /// Claims in a row that nobody finished.
    pub unfinished_claims: i32,
    /// The class of the last failure.
    pub error_class: Option<String>,
    /// Its text.
    pub error: Option<String>,
    /// Whether it would end as superseded, as far as the ledger tells.
    pub pointless: bool,
    /// What it carries.
    pub payload: Value,
}

/// Hands over every dead letter of the filter, the oldest first, one at a time. `marked`: look for what makes them pointless.
///
/// # Errors
/// The statement's.
pub async fn each_dead_letter(
    connection: &Connection,
    filter: &DeadLetterFilter,
    marked: bool,
    mut with: impl FnMut(DeadLetter),
) -> Result<(), tokio_postgres::Error> {
    let operation = filter.operation.map(Operation::name);
    let seconds = filter.older_than.map(|age| age.as_secs_f64());
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&operation, Type::TEXT),
        (&filter.error_class, Type::TEXT),
        (&seconds, Type::FLOAT8),
        (&marked, Type::BOOL),
    ];
    let rows = connection.query_typed_raw(&LIST, parameters).await?;
    pin_mut!(rows);
    while let Some(row) = rows.try_next().await? {
        with(DeadLetter {
            id: row.get(0),
            operation: row.get(1),
            error_class: row.get(2),
            error: row.get(3),
            dead_at: row.get(4),
            is_pointless: row.get(5),
        });
    }
    Ok(())
}

/// One message, whatever its state; None if there is none of this id.
///
/// # Errors
/// The statement's.
pub async fn message_row(
    connection: &Connection,
    id: MessageId,
) -> Result<Option<MessageRow>, tokio_postgres::Error> {
    let row = connection.query_typed_opt(SHOW.as_str(), &typed(&[&id])).await?;
    Ok(row.map(|row| MessageRow {
        message_id: row.get(0),
        operation: row.get(1),
        state: row.get(2),
        aggregate_type: row.get(3),
        email_id: row.get::<_, &str>(4).parse().ok(),
        idempotency_key: row.get(5),
        traceparent: row.get(6),
        created_at: row.get(7),
        available_at: row.get(8),
        processed_at: row.get(9),
        dead_at: row.get(10),
        first_missing_at: row.get(11),
        outcome: row.get(12),
        retry_count: row.get(13),
        max_retries: row.get(14),
        claim_count: row.get(15),
        unfinished_claims: row.get(16),
        error_class: row.get(17),
        error: row.get(18),
        pointless: row.get(19),
        payload: row.get(20),
    }))
}

/// The ids that no message has, and how many of the others are dead.
///
/// # Errors
/// The statement's.
pub async fn dead_among(
    connection: &Connection,
    ids: &[MessageId],
) -> Result<(Vec<MessageId>, i64), tokio_postgres::Error> {
    let row = connection.query_typed_one(KNOWN, &typed(&[&ids])).await?;
    Ok((row.get(0), row.get(1)))
}

/// Lets dead letters run again as the same messages, `place` intervals of `seconds` from now on. Returns what became of those that
/// were still dead.
///
/// # Errors
/// The statement's; nothing was changed.
pub async fn requeue(
    transaction: &Transaction<'_>,
    ids: &[MessageId],
    place: i64,
    seconds: f64,
) -> Result<Vec<Act>, tokio_postgres::Error> {
    let rows = transaction
        .query_typed(REQUEUE.as_str(), &typed(&[&ids, &place, &seconds, &mail_changing()]))
        .await?;
    Ok(rows.iter().map(act).collect())
}

/// Ends dead letters as discarded. Returns those that were still dead.
///
/// # Errors
/// The statement's; nothing was changed.
pub async fn discard_dead(
    transaction: &Transaction<'_>,
    ids: &[MessageId],
) -> Result<Vec<Act>, tokio_postgres::Error> {
    let rows = transaction.query_typed(DISCARD.as_str(), &typed(&[&ids, &mail_changing()])).await?;
    Ok(rows.iter().map(act).collect())
}

/// What was known of a dead letter before the act.
fn act(row: &Row) -> Act {
    let dead_at: Timestamp = row.get(6);
    let detail = json!({
        "operation": row.get::<_, &str>(1),
        "error_class": row.get::<_, Option<&str>>(3),
        "error": row.get::<_, Option<&str>>(4),
        "retry_count": row.get::<_, i32>(5),
        "dead_at": dead_at,
    });
    Act { message_id: Some(row.get(0)), email_id: row.get(2), detail }
}

fn mail_changing() -> Vec<&'static str> {
    Operation::ALL.into_iter().filter(|operation| !operation.is_notification()).map(Operation::name).collect()
}
