//! Where a mail stands: the answer of `GET /v1/emails/{id}`. Nothing personal leaves here.

use jiff::Timestamp;
use serde_json::{Value, json};
use shared::message::{EmailId, Operation};
use shared::postgres::Connection;
use tokio_postgres::{
    Error, Row,
    types::{ToSql, Type},
};

/// The mail by its primary key, its messages through the unique index on `idempotency_key`, one probe per possible key; their
/// decisions by `decisions_email`, without amounts, persons and what a person gave as a reason: only the program's own reasons are
/// known to name nobody. One statement, so one snapshot; no lock.
pub const STATUS: &str =
    "select e.source, e.received_at, e.processing_status, e.match_status, e.sync_status, e.sync_error,
        m.operation, m.outcome, m.retry_count, m.error_class, m.created_at, m.processed_at, m.dead_at, m.error_message,
        (select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('decision', decision, 'at', at, 'reason',
                case when decision in ('applied', 'already', 'superseded', 'held_for_review') then reason end)) order by id), '[]')
            from decisions where email_id = e.id and message_id = m.id)
    from incoming_emails e left join outbox_messages m on m.idempotency_key = any($2)
    where e.id = $1 order by m.id";

/// Reads where a mail stands; None if there is no such mail.
///
/// # Errors
/// What Postgres says.
pub async fn status(client: &Connection, email_id: EmailId) -> Result<Option<Value>, Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&email_id, Type::INT8), (&Operation::possible_keys(email_id), Type::TEXT_ARRAY)];
    let rows = client.query_typed(STATUS, &parameters).await?;
    Ok(rows.first().map(|mail| document(email_id, mail, &rows)))
}

fn document(email_id: EmailId, mail: &Row, rows: &[Row]) -> Value {
    let steps: Vec<_> = rows.iter().filter_map(step).collect();
    let of = |operation: Operation| steps.iter().rev().find(|step| step["operation"] == operation.name());
    let decisive = of(Operation::CreditorDebtUpdate)
        .or_else(|| of(Operation::EmailExtraction))
        .or_else(|| of(Operation::EmailFetch));
    let (attempts, outcome) =
        decisive.map_or((json!(0), Value::Null), |step| (step["attempts"].clone(), step["outcome"].clone()));
    json!({
        "email_id": email_id,
        "source": mail.get::<_, &str>(0),
        "received_at": mail.get::<_, Timestamp>(1),
        "processing_status": mail.get::<_, &str>(2),
        "match_status": mail.get::<_, Option<&str>>(3),
        "sync_status": mail.get::<_, &str>(4),
        "sync_error": mail.get::<_, Option<&str>>(5),
        "attempts": attempts,
        "outcome": outcome,
        "steps": steps,
    })
}

/// One message; None in the one row of a mail that has none.
fn step(row: &Row) -> Option<Value> {
    let operation: &str = row.get::<_, Option<_>>(6)?;
    let (processed_at, dead_at): (Option<Timestamp>, Option<Timestamp>) = (row.get(11), row.get(12));
    let state = match (processed_at, dead_at) {
        (Some(_), _) => "done",
        (None, Some(_)) => "dead",
        (None, None) => "waiting",
    };
    Some(json!({
        "operation": operation,
        "state": state,
        "outcome": row.get::<_, Option<&str>>(7),
        "attempts": row.get::<_, i32>(8),
        "error_class": row.get::<_, Option<&str>>(9),
        "error": row.get::<_, Option<&str>>(13),
        "created_at": row.get::<_, Timestamp>(10),
        "processed_at": processed_at,
        "dead_at": dead_at,
        "decisions": row.get::<_, Value>(14),
    }))
}
