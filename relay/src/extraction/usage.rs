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
use shared::{columns::typed, postgres::Connection};
use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// For looking and for counting, each.
const PATIENCE: Duration = Duration::from_secs(2);

/// By primary key.
const SPENT: &str =
    "select tokens from extractor_usage where extractor = $1 and day = (now() at time zone 'utc')::date";

/// Locks the day's row for a moment; nothing else is locked with it. Gives up before its caller does, so that it is known not to have
/// counted where somebody holds the row.
const COUNT: &str = "
with settings as materialized (
    select set_config('lock_timeout', '1s', true)
)
insert into extractor_usage (day, extractor, requests, tokens)
select (now() at time zone 'utc')::date, $1::text, $2::bigint, $3::bigint from settings
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
    let look = async |connection: &mut Connection| {
        let unreadable = |error| ledger::unreadable(&error);
        let rows = connection.query_often(SPENT, &typed(&[&name])).await.map_err(unreadable)?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0)))
    };
    let spent = context.ask(Instant::now() + PATIENCE, "no reply to a look at the budget", look).await?;
    if u64::try_from(spent).unwrap_or(0) < most {
        return Ok(());
    }
    let text = format!("{name}: the {most} tokens of this day (UTC) are used");
    Err(Failure::new(FailureClass::BudgetSpent, text))
}

/// Counts one call. What Postgres has not taken is counted with the next one.
pub async fn count(context: &Context, model: &Model, tokens: u64) {
    let name = model.provider().name();
    metrics::counter!("relay_extractor_requests_total", "extractor" => name).increment(1);
    metrics::counter!("relay_extractor_tokens_total", "extractor" => name).increment(tokens);
    let waiting = model.uncounted();
    let requests = waiting.requests.swap(0, Relaxed) + 1;
    let tokens = waiting.tokens.swap(0, Relaxed).saturating_add(i64::try_from(tokens).unwrap_or(i64::MAX));
    if !write(context, name, requests, tokens).await {
        waiting.requests.fetch_add(requests, Relaxed);
        waiting.tokens.fetch_add(tokens, Relaxed);
        tracing::warn!(extractor = name, "Postgres is away: what a call used is counted later");
    }
}

/// False if Postgres has certainly not counted it. Where nobody can tell, since the reply was lost or is late, it has: counting twice
/// would take budget away that nobody has used.
async fn write(context: &Context, name: &str, requests: i64, tokens: i64) -> bool {
    let mut is_sent = false;
    let write = async |connection: &mut Connection| {
        if let Err(error) = connection.check_connection().await {
            return Ok(Err(error));
        }
        is_sent = true;
        Ok(connection.execute_typed(COUNT, &typed(&[&name, &requests, &tokens])).await)
    };
    match context.ask(Instant::now() + PATIENCE, "no reply to a count", write).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => is_sent && error.code().is_none(),
        Err(_) => is_sent,
    }
}
