//! The table `extractor_usage`: how much of a model all relays together have used on each day (UTC).
//!
//! Owns its SQL. A call is counted right after it, whatever becomes of its message: the tokens are used. The calls that are under way
//! when the budget is looked at are not in it yet, so it may be exceeded by those, some thousand tokens each.

use super::model::Model;
use crate::{
    context::Context,
    ledger,
    outcome::{Failure, FailureClass},
};
use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::timeout;

/// For looking and for counting, each.
const PATIENCE: Duration = Duration::from_secs(2);

/// By primary key.
const SPENT: &str =
    "select tokens from extractor_usage where extractor = $1 and day = (now() at time zone 'utc')::date";

/// Locks the day's row for a moment; nothing else is locked with it.
const COUNT: &str = "
insert into extractor_usage (day, extractor, requests, tokens) values ((now() at time zone 'utc')::date, $1, $2, $3)
on conflict (day, extractor) do update set
    requests = extractor_usage.requests + excluded.requests, tokens = extractor_usage.tokens + excluded.tokens";

/// What this process could not count yet, since Postgres was away.
#[derive(Debug, Default)]
pub struct Uncounted {
    requests: AtomicI64,
    tokens: AtomicI64,
}

/// Whether there is budget left for a call.
///
/// # Errors
/// Budget spent, or Postgres is away.
pub async fn check(context: &Context, model: &Model) -> Result<(), Failure> {
    let Some(most) = model.daily_tokens() else { return Ok(()) };
    let name = model.provider().name();
    let look = async {
        let connection = context.connection().await?;
        let unreadable = |error| ledger::unreadable(&error);
        let statement = connection.prepare_cached(SPENT).await.map_err(unreadable)?;
        let row = connection.query_opt(&statement, &[&name]).await.map_err(unreadable)?;
        Ok(row.map_or(0, |row| row.get::<_, i64>(0)))
    };
    let late = |_| Err(Failure::new(FailureClass::SinkDown, "Postgres: no reply to a look at the budget"));
    let spent = timeout(PATIENCE, look).await.unwrap_or_else(late)?;
    if u64::try_from(spent).unwrap_or(0) < most {
        return Ok(());
    }
    let text = format!("{name}: the {most} tokens of this day (UTC) are used");
    Err(Failure::new(FailureClass::BudgetSpent, text))
}

/// Counts one call. What Postgres does not take now is counted with the next one.
pub async fn count(context: &Context, model: &Model, tokens: u64) {
    let name = model.provider().name();
    metrics::counter!("relay_extractor_requests_total", "extractor" => name).increment(1);
    metrics::counter!("relay_extractor_tokens_total", "extractor" => name).increment(tokens);
    let waiting = model.uncounted();
    let requests = waiting.requests.swap(0, Relaxed) + 1;
    let tokens = waiting.tokens.swap(0, Relaxed).saturating_add(i64::try_from(tokens).unwrap_or(i64::MAX));
    let write = async {
        let connection = context.pool.get().await.ok()?;
        let statement = connection.prepare_cached(COUNT).await.ok()?;
        connection.execute(&statement, &[&name, &requests, &tokens]).await.ok()
    };
    if timeout(PATIENCE, write).await.ok().flatten().is_none() {
        waiting.requests.fetch_add(requests, Relaxed);
        waiting.tokens.fetch_add(tokens, Relaxed);
        tracing::warn!(extractor = name, "Postgres is away: what a call used is counted later");
    }
}
