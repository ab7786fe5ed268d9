//! Removes what nobody needs any more: finished messages after their retention, expired idempotency keys, relays that went long ago.
//!
//! Any relay does it, in small batches with long rests; an advisory lock keeps two from doing the same work. Dead messages, waiting
//! ones and those that a person has still to decide on stay. Ledger and decisions are never touched, mails only lose their text (`texts.rs`).

pub mod texts;

use crate::{reconcile, workers};
use shared::{
    message::MessageId,
    postgres::{AdvisoryLock, Connection, Pool, pool_reason, reason},
};
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;

/// Pause between two passes.
const EVERY: Duration = Duration::from_secs(60);
/// And between two walks over all mails, whose retention is counted in days.
const EVERY_WALK: Duration = Duration::from_secs(3600);
/// Rests this many times as long as the last batch took, so that the lanes have the server.
const REST: u32 = 4;
/// Rows of one batch, some 10 ms.
const BATCH: i64 = 1000;

/// Looks at $2 messages from the id $1 on and removes those that ended well more than $3 seconds ago. By primary key; locks finished
/// rows only, which nobody else locks. $4 = the gate's number.
const REMOVE_MESSAGES: &str = "
with gate as materialized (
    select pg_try_advisory_xact_lock($4) as is_open
), seen as materialized (
    select o.id, o.created_at < now() - $3 * interval '1 second' as is_old,
        o.processed_at < now() - $3 * interval '1 second' and (o.outcome <> 'held_for_review' or not exists (
            select from incoming_emails m
            where m.id = case when o.aggregate_id ~ '^[0-9]{1,18}$' then o.aggregate_id::bigint end and m.match_status = 'needs_review'
        )) as is_removable
    from outbox_messages o, gate where gate.is_open and o.id > $1 order by o.id limit $2
), gone as (
    delete from outbox_messages o using seen where o.id = seen.id and seen.is_removable returning o.id
)
select max(id), coalesce(bool_and(is_old), false), (select count(*) from gone) from seen";

/// Walks the keys in the order of the table, which is about that of their expiry. A key that ingest takes over is skipped.
const REMOVE_KEYS: &str = "
with gate as materialized (
    select pg_try_advisory_xact_lock($2) as is_open
), expired as materialized (
    select k.key from idempotency_keys k, gate where gate.is_open and k.expires_at <= now() limit $1 for update of k skip locked
), gone as (
    delete from idempotency_keys k using expired where k.key = expired.key returning k.key
)
select count(*) from gone";

/// Keeps two relays from doing the same work.
const GATE: i64 = AdvisoryLock::Maintenance.number();

/// What a pass has removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Finished messages.
    pub messages: i64,
    /// Expired idempotency keys.
    pub keys: i64,
}

/// Pass after pass until the token is cancelled.
pub async fn run(pool: Pool, retention: Duration, mail_retention: Duration, shutdown: CancellationToken) {
    let mut walked: Option<Instant> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        match shutdown.run_until_cancelled(pass(&pool, retention)).await {
            Some(Ok(Removed { messages: 0, keys: 0 })) | None => {}
            Some(Ok(Removed { messages, keys })) => {
                tracing::info!(messages, keys, "removed finished messages and expired keys");
            }
            Some(Err(text)) => tracing::warn!("maintenance: {text}"),
        }
        if walked.is_none_or(|at| at.elapsed() >= EVERY_WALK) {
            walked = Some(Instant::now());
            match shutdown.run_until_cancelled(texts::pass(&pool, mail_retention)).await {
                Some(Ok(0)) | None => {}
                Some(Ok(mails)) => tracing::info!(mails, "removed the texts of mails"),
                Some(Err(text)) => tracing::warn!("maintenance: {text}"),
            }
        }
    }
}

/// Removes everything that is due.
///
/// # Errors
/// Postgres failed; what has been removed until then is.
pub async fn pass(pool: &Pool, retention: Duration) -> Result<Removed, String> {
    let mut removed = Removed::default();
    workers::remove_old(&connection(pool).await?).await.map_err(|error| reason(&error))?;
    reconcile::remove_old(&connection(pool).await?).await.map_err(|error| reason(&error))?;
    let mut from = Some(0);
    while let Some(id) = from {
        let began = Instant::now();
        let (next, count) = remove_messages(&connection(pool).await?, id, retention).await?;
        (from, removed.messages) = (next, removed.messages + count);
        tokio::time::sleep(began.elapsed() * REST).await;
    }
    loop {
        let began = Instant::now();
        let row = connection(pool)
            .await?
            .query_typed_one(REMOVE_KEYS, &[(&BATCH, Type::INT8), (&GATE, Type::INT8)])
            .await;
        let count: i64 = row.map_err(|error| reason(&error))?.get(0);
        removed.keys += count;
        if count < BATCH {
            return Ok(removed);
        }
        tokio::time::sleep(began.elapsed() * REST).await;
    }
}

/// The last id looked at, if there may be more to remove above it, and how many are gone.
async fn remove_messages(
    connection: &Connection,
    from: MessageId,
    retention: Duration,
) -> Result<(Option<MessageId>, i64), String> {
    let seconds = retention.as_secs_f64();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] =
        [(&from, Type::INT8), (&BATCH, Type::INT8), (&seconds, Type::FLOAT8), (&GATE, Type::INT8)];
    let row =
        connection.query_typed_one(REMOVE_MESSAGES, &parameters).await.map_err(|error| reason(&error))?;
    // Ids are given out in the order of time: the first batch with a younger row ends the pass.
    Ok((row.get::<_, Option<MessageId>>(0).filter(|_| row.get(1)), row.get(2)))
}

async fn connection(pool: &Pool) -> Result<Connection, String> {
    pool.get().await.map_err(|error| pool_reason(&error))
}
