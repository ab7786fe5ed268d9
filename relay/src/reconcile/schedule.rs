//! Reconciles by itself: the whole ledger every hour, what was written lately every few minutes. Any relay does it; the reports decide
//! which one.

use super::{Options, Run, Scope, begin_if_due, run as carry_out, store::stopped};
use crate::context::Context;
use shared::postgres::{pool_reason, reason};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a relay looks whether a run is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often what was written lately is compared, and what that means: a lost write is found before anybody misses it.
const RECENT_EVERY: Duration = Duration::from_secs(300);
const RECENT: Duration = Duration::from_secs(3600);

/// What a relay does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How often the whole ledger is compared.
    pub every: Duration,
    /// Whether what was lost is repaired, or only reported.
    pub repair: bool,
    /// Rows of the ledger per second, at most.
    pub rows_per_second: u32,
}

/// Run after run, as they are due, until the token is cancelled.
pub async fn run(context: Context, schedule: Schedule, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        for (scope, every) in [(Scope::All, schedule.every), (Scope::Recent(RECENT), RECENT_EVERY)] {
            let due = shutdown.run_until_cancelled(due(&context, scope, every)).await;
            match due {
                Some(Ok(Some(run))) => one(&context, run, scope, schedule, &shutdown).await,
                Some(Ok(None)) | None => {}
                Some(Err(text)) => tracing::warn!("reconciliation: {text}"),
            }
        }
    }
}

async fn due(context: &Context, scope: Scope, every: Duration) -> Result<Option<Run>, String> {
    let mut connection = context.pool.get().await.map_err(|error| pool_reason(&error))?;
    begin_if_due(&mut connection, scope, every).await.map_err(|error| reason(&error))
}

async fn one(context: &Context, run: Run, scope: Scope, schedule: Schedule, shutdown: &CancellationToken) {
    let Schedule { repair, rows_per_second, .. } = schedule;
    // The walk reads every document of MongoDB: a person asks for it.
    let options = Options { scope, repair, repair_edited: false, walks_clients: false, rows_per_second };
    match shutdown.run_until_cancelled(carry_out(context, run, options)).await {
        Some(Ok(report)) => tracing::info!(
            scope = report.scope,
            status = report.status,
            checked = report.records_checked,
            mismatches = report.mismatches_found,
            repairs = report.auto_repaired,
            "reconciled"
        ),
        Some(Err(failure)) => tracing::warn!(%failure, "reconciliation: the report could not be written"),
        // Its row would else say for a day that it runs.
        None => {
            if let Ok(connection) = context.pool.get().await {
                drop(stopped(&connection, run).await);
            }
        }
    }
}
