//! `relay reconcile` and `relay audit`.

use super::moment::moment;
use crate::{
    audit::{Audit, ShadowAudit, audit, audit_shadow},
    context::Context,
    mode,
    reconcile::{self, Options, Report, Scope, Stop},
};
use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use shared::postgres;
use std::process::ExitCode;

/// A system below this is not healthy: the exit code of the audit says so.
const EXIT_UNHEALTHY: u8 = 1;
/// The audit could not be made.
const EXIT_ERROR: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct ReconcileArguments {
    /// Enqueue repairs for updates and marks that were lost; without it nothing is changed
    #[arg(long)]
    repair: bool,
    /// Take back also what somebody has edited in MongoDB after us; needs --repair
    #[arg(long, requires = "repair")]
    repair_edited: bool,
    /// Compare only what was written since then, and do not look through all clients of MongoDB: 90m, 2h, 7d, or a date such as
    /// 2026-02-17 or 2026-02-17T09:00:00Z
    #[arg(long, value_parser = moment)]
    since: Option<Timestamp>,
    /// Who runs it; kept with the report
    #[arg(long, env = "USER", default_value_t = super::whoever(), value_parser = super::person)]
    by: String,
}

#[derive(Debug, Args)]
pub(super) struct AuditArguments {
    /// Days to look back
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    lookback_days: u32,
}

/// Runs a comparison and prints its report. MongoDB away: it is recorded as skipped, and nothing has failed.
pub(super) async fn reconcile(
    context: &Context,
    rows_per_second: u32,
    json: bool,
    arguments: &ReconcileArguments,
) -> anyhow::Result<ExitCode> {
    let ReconcileArguments { repair, repair_edited, since, by } = arguments;
    let scope = since.map_or(Scope::All, Scope::Since);
    let options = Options {
        scope,
        repair: *repair,
        repair_edited: *repair_edited,
        walks_clients: since.is_none(),
        rows_per_second,
    };
    let connection = context.pool.get().await;
    let connection =
        connection.map_err(|error| anyhow::anyhow!("Postgres: {}", postgres::pool_reason(&error)))?;
    postgres::check_schema(&connection).await.map_err(anyhow::Error::msg)?;
    if mode::is_shadow(&connection).await.context("Postgres")? == Some(true) {
        anyhow::bail!(
            "this is a shadow's database: nothing of its ledger was written to MongoDB; see `relay audit --shadow`"
        );
    }
    let run = reconcile::begin(&connection, scope, by).await.context("Postgres")?;
    drop(connection);
    let report = reconcile::run(context, run, options).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print_report(&report);
    }
    Ok(if report.status == "failed" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_report(report: &Report) {
    if let Some(error) = &report.error_message {
        println!("run {}: {}: {error}", report.id, report.status);
    }
    println!(
        "run {}: {} entries compared, {} differ, {} repairs enqueued, {} could not be",
        report.id,
        report.records_checked,
        report.mismatches_found,
        report.auto_repaired,
        report.failed_repairs
    );
    for (drift, count) in &report.by_drift {
        println!("  {count:>6}  {drift}");
    }
    for finding in &report.findings {
        let text =
            |amount: Option<shared::money::Amount>| amount.map_or_else(|| "-".into(), |a| a.to_string());
        let email = finding.email_id.map_or_else(|| "-".into(), |id| id.to_string());
        // What Postgres has lost is found at the provider by its time; its number may be another mail's now.
        let newer = match (finding.drift, finding.mongodb_received_at) {
            (reconcile::Drift::Ahead, Some(at)) => format!("  of {at:.0}"),
            _ => String::new(),
        };
        println!(
            "  {:<12} {}/{}  email {email}  ledger {}  MongoDB {}{newer}{}",
            finding.drift.name(),
            finding.client_id,
            finding.entry_key,
            text(finding.ledger_amount),
            text(finding.mongodb_amount),
            if finding.is_repaired { "  -> repair enqueued" } else { "" },
        );
    }
    if let Some(text) = rest(report.findings_left_out) {
        println!("{text}");
    }
    if !report.repair && report.mismatches_found > 0 {
        println!("nothing was changed: --repair enqueues repairs for what was lost");
    }
}

/// What is said of findings that are not listed.
fn rest(left_out: usize) -> Option<String> {
    (left_out > 0).then(|| format!("  ... and {left_out} more that are not listed"))
}

/// Makes an audit; the exit code says how it stands.
pub(super) async fn run_audit(
    context: &Context,
    json: bool,
    arguments: &AuditArguments,
) -> anyhow::Result<ExitCode> {
    if context.is_shadow {
        return match audit_shadow(context).await {
            Ok(audit) if json => {
                println!("{}", serde_json::to_string(&audit)?);
                Ok(exit(audit.is_healthy))
            }
            Ok(audit) => {
                print_shadow(&audit);
                Ok(exit(audit.is_healthy))
            }
            Err(stop) => Ok(not_made(&stop)),
        };
    }
    let mode = match context.pool.get().await {
        Ok(connection) => mode::is_shadow(&connection).await.ok().flatten(),
        Err(_) => None, // the audit itself says so
    };
    if mode == Some(true) {
        eprintln!(
            "relay: the audit could not be made: this is a shadow's database, see `relay audit --shadow`"
        );
        return Ok(ExitCode::from(EXIT_ERROR));
    }
    let audit = match audit(context, arguments.lookback_days).await {
        Ok(audit) => audit,
        Err(stop) => return Ok(not_made(&stop)),
    };
    if json {
        println!("{}", serde_json::to_string(&audit)?);
    } else {
        print_audit(&audit);
    }
    Ok(exit(audit.is_healthy))
}

fn exit(is_healthy: bool) -> ExitCode {
    if is_healthy { ExitCode::SUCCESS } else { ExitCode::from(EXIT_UNHEALTHY) }
}

fn not_made(stop: &Stop) -> ExitCode {
    eprintln!("relay: the audit could not be made: {stop}");
    ExitCode::from(EXIT_ERROR)
}

fn print_shadow(audit: &ShadowAudit) {
    println!("{} entries compared, agreement {:.3}", audit.compared, audit.agreement);
    for (agreement, count) in &audit.by_agreement {
        println!("  {count:>6}  {}", agreement.name());
    }
    let text = |amount: Option<shared::money::Amount>| amount.map_or_else(|| "-".into(), |a| a.to_string());
    for finding in &audit.findings {
        println!(
            "  {:<16} {}/{}  email {}  here {}  MongoDB {}  before {}",
            finding.agreement.name(),
            finding.client_id,
            finding.entry_key,
            finding.email_id,
            text(finding.shadow_amount),
            text(finding.mongodb_amount),
            text(finding.found_amount),
        );
    }
}

fn print_audit(audit: &Audit) {
    let word = if audit.is_healthy { "healthy" } else { "NOT healthy" };
    println!(
        "{word}: score {:.3} ({} of {} mails of the last {} days are not as they should be)",
        audit.health_score, audit.issues, audit.checked, audit.lookback_days
    );
    for (kind, count) in &audit.by_kind {
        println!("  {count:>6}  {kind}");
    }
    for (plan, count) in &audit.by_plan {
        let what = match *plan {
            "re_sync" => "relay reconcile --repair",
            "manual_review" => "a person: relay review list, relay dead-letters list, relay explain EMAIL_ID",
            "stalled" => "look at the relays: relay status",
            _ => "nothing to do",
        };
        println!("  {count:>6}  {plan}: {what}");
    }
    for issue in &audit.findings {
        let place = match (&issue.client_id, &issue.entry_key) {
            (Some(client), Some(entry)) => format!("  {client}/{entry}"),
            _ => String::new(),
        };
        let drift = issue.drift.map(|drift| format!(" ({})", drift.name())).unwrap_or_default();
        println!(
            "  email {:<8} {}{drift}{place}  -> {}",
            issue.email_id,
            issue.kind.name(),
            issue.plan.name()
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn findings_that_are_not_listed_are_told_by_their_number() {
        assert_eq!(super::rest(0), None);
        assert_eq!(super::rest(12).unwrap(), "  ... and 12 more that are not listed");
    }
}
