//! Operations that nobody may claim: owns `paused_operations`. The relays look at it once a second (`heartbeat.rs`).

use crate::operator;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use shared::message::Operation;
use shared::{columns::typed, postgres::Connection};
use std::collections::HashSet;
use tokio_postgres::Row;

/// A handful of rows at most.
const LIST: &str = "select operation, paused_at, actor, reason from paused_operations order by operation";

/// By primary key; of two people who pause at once one waits for the other and changes nothing.
const PAUSE: &str = "insert into paused_operations (operation, actor, reason) values ($1, $2, $3) on conflict (operation) do nothing";

/// By primary key.
const RESUME: &str = "delete from paused_operations where operation = $1 returning paused_at, actor, reason";

/// A pause that somebody has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// What is not claimed.
    pub operation: String,
    /// Since when.
    pub paused_at: Timestamp,
    /// Who has paused it.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// Every pause there is.
///
/// # Errors
/// The statement's.
pub async fn list(connection: &Connection) -> Result<Vec<Pause>, tokio_postgres::Error> {
    let rows = connection.query_typed(LIST, &[]).await?;
    let read = |row: &Row| Pause {
        operation: row.get(0),
        paused_at: row.get(1),
        actor: row.get(2),
        reason: row.get(3),
    };
    Ok(rows.iter().map(read).collect())
}

/// Those of the operations that this binary knows.
///
/// # Errors
/// The statement's.
pub async fn paused(connection: &Connection) -> Result<HashSet<Operation>, tokio_postgres::Error> {
    let pauses = list(connection).await?;
    let is_paused = |operation: &Operation| pauses.iter().any(|pause| pause.operation == operation.name());
    Ok(Operation::ALL.into_iter().filter(is_paused).collect())
}

/// Stops the claims of an operation in every relay, within a second or two. False if it was paused already: the first pause stays as it is.
///
/// # Errors
/// The statements'; nothing was changed.
pub async fn pause(
    connection: &mut Connection,
    operation: Operation,
    reason: &str,
    by: &str,
) -> Result<bool, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    let is_new = transaction.execute_typed(PAUSE, &typed(&[&operation.name(), &by, &reason])).await? == 1;
    if is_new {
        let detail = json!({ "operation": operation.name(), "reason": reason });
        operator::record(&transaction, by, "pause", None, None, detail).await?;
    }
    transaction.commit().await?;
    Ok(is_new)
}

/// Lets the relays claim an operation again. None if it was not paused.
///
/// # Errors
/// The statements'; nothing was changed.
pub async fn resume(
    connection: &mut Connection,
    operation: Operation,
    by: &str,
) -> Result<Option<Pause>, tokio_postgres::Error> {
    let transaction = connection.transaction().await?;
    let Some(row) = transaction.query_typed_opt(RESUME, &typed(&[&operation.name()])).await? else {
        return Ok(None);
    };
    let (paused_at, actor, reason): (Timestamp, String, String) = (row.get(0), row.get(1), row.get(2));
    let detail = json!({ "operation": operation.name(), "paused_at": paused_at, "paused_by": actor });
    operator::record(&transaction, by, "resume", None, None, detail).await?;
    transaction.commit().await?;
    Ok(Some(Pause { operation: operation.name().into(), paused_at, actor, reason }))
}
