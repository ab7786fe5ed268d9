//! The real outbox in the model's terms.

use super::model::{Row, State};
use crate::world::World;

const ROWS: &str = "select id, processed_at is not null, dead_at is not null, outcome, error_class, retry_count, claim_count,
    unfinished_claims, claimed_by, coalesce(claimed_until > now(), false), deferred, available_at <= now(), first_missing_at is not null
    from outbox_messages order by id";

/// All messages, in the order of their ids.
pub(super) async fn rows(world: &World) -> Vec<Row> {
    world.sql.query(ROWS, &[]).await.unwrap().iter().map(row).collect()
}

fn row(row: &tokio_postgres::Row) -> Row {
    let state = match (row.get(1), row.get(2)) {
        (true, _) => State::Done,
        (_, true) => State::Dead,
        _ => State::Waiting,
    };
    Row {
        state,
        outcome: row.get(3),
        error_class: row.get(4),
        retry_count: row.get(5),
        claim_count: row.get(6),
        unfinished: row.get(7),
        owner: row.get(8),
        leased: row.get(9),
        deferred: row.get(10),
        due: row.get(11),
        was_missing: row.get(12),
    }
}
