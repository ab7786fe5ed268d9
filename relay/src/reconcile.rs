//! Compares MongoDB with what the ledger says is there, and repairs what was lost, by enqueuing ordinary messages.
//!
//! Owns the order of the looks: a page of the ledger first, then MongoDB (so that what is newer there is on its way or lost here, and
//! never a false loss), then the suspects once more. It writes neither MongoDB nor the ledger: a repair is a message like any other,
//! and carries the state that the plan has seen.

mod look;
mod plan;
mod report;
mod schedule;
mod store;
mod unknown;

pub use plan::{Debt, Drift, Seen, drift};
pub use report::{Finding, Report, Tally};
pub use schedule::{Schedule, run as run_regularly};
pub use store::{Run, Scope, begin, begin_if_due, hold_off, remove_old};

use crate::{
    context::Context,
    debt_update::{self, Head, Reading},
    ledger,
    outcome::Failure,
};
use jiff::Timestamp;
use look::{Suspect, look};
use serde::Deserialize as _;
use serde_json::json;
use shared::message::{Origin, Stamp};
use std::{collections::HashSet, time::Duration};
use store::{Ending, MailPart, Repair};
use tokio::time::{Instant, sleep, sleep_until};

/// Rows of one page: their documents are held in memory while they are compared.
const PAGE: i64 = 500;
/// How often suspects are looked at, and how long the pause between two looks is: a finish that was on its way has arrived by then.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// Findings that a report lists one by one, more than a restored Postgres may have lost in some hours; it counts all.
const MOST_LISTED: usize = 50_000;
/// Those of them that are kept.
const MOST_KEPT: usize = 200;
const NOT_WALKED: &str =
    "the ledger was compared, but not all clients of MongoDB were looked through for what it does not know";
/// For one look into Postgres.
const LOOK: Duration = Duration::from_secs(10);

/// What a run may do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What it checks.
    pub scope: Scope,
    /// Whether it enqueues repairs.
    pub repair: bool,
    /// Whether it takes back what somebody has edited after us.
    pub repair_edited: bool,
    /// Whether it then walks all clients in MongoDB, for what the ledger does not know at all.
    pub walks_clients: bool,
    /// Rows of the ledger per second, at most; so many clients, too.
    pub rows_per_second: u32,
}

/// Why a comparison ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Nobody can look: says nothing about anything.
    #[error("{}", .0.text)]
    MongoAway(Failure),
    /// Postgres failed.
    #[error("{}", .0.text)]
    Postgres(Failure),
}

/// Carries out a run that has begun, and writes its report.
///
/// # Errors
/// The report could not be written; its row says later that the process ended.
pub async fn run(context: &Context, run: Run, options: Options) -> Result<Report, Failure> {
    let mut tally = Tally::new(MOST_LISTED);
    let (status, error) = match compare(context, options, Some(run), &mut tally).await {
        Ok(()) if options.walks_clients => match unknown::compare(context, options, &mut tally).await {
            Ok(()) => ("completed", None),
            // Not skipped: what was found before counts.
            Err(stop) => ("failed", Some(format!("{NOT_WALKED}: {stop}"))),
        },
        Ok(()) => ("completed", None),
        Err(stop @ Stop::MongoAway(_)) => ("skipped", Some(stop.to_string())),
        Err(stop @ Stop::Postgres(_)) => ("failed", Some(stop.to_string())),
    };
    let mut report = Report {
        id: run.id,
        status,
        scope: options.scope.name(),
        repair: options.repair,
        run_at: run.run_at,
        completed_at: None,
        records_checked: tally.checked,
        mismatches_found: tally.found(),
        auto_repaired: tally.repaired,
        failed_repairs: tally.failed,
        findings_left_out: tally.left_out(),
        by_drift: tally.by_drift,
        findings: tally.findings,
        error_message: error,
    };
    let kept = report.findings.get(..MOST_KEPT).unwrap_or(&report.findings);
    let details = json!({ "repair": options.repair, "by_drift": report.by_drift, "findings": kept });
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let ending = Ending {
        checked: number(report.records_checked),
        mismatches: number(report.mismatches_found),
        repaired: number(report.auto_repaired),
        failed: number(report.failed_repairs),
        details: &details,
        status,
        error: report.error_message.as_deref(),
    };
    let write = async |connection: &mut _| {
        store::end(connection, run, &ending).await.map_err(|error| ledger::unreadable(&error))
    };
    report.completed_at = context.ask(Instant::now() + LOOK, "no reply to the report", write).await?;
    count(&report);
    Ok(report)
}

fn count(report: &Report) {
    metrics::counter!("relay_reconcile_runs_total", "scope" => report.scope, "status" => report.status)
        .increment(1);
    metrics::counter!("relay_reconcile_repairs_total").increment(report.auto_repaired as u64);
    metrics::counter!("relay_reconcile_failed_repairs_total").increment(report.failed_repairs as u64);
    if report.scope == Scope::All.name() && report.status == "completed" {
        #[expect(clippy::cast_precision_loss, reason = "a metric")]
        for drift in Drift::ALL {
            let found = report.by_drift.get(drift.name()).copied().unwrap_or(0);
            metrics::gauge!("relay_reconcile_drift", "drift" => drift.name()).set(found as f64);
        }
        metrics::gauge!("relay_reconcile_last_completed_timestamp_seconds")
            .set(Timestamp::now().as_second() as f64);
    }
}

/// Compares the ledger with MongoDB page by page. Repairs belong to a run; without one nothing is enqueued.
///
/// # Errors
/// Why it ended early; what was found until then is in the tally.
pub async fn compare(
    context: &Context,
    options: Options,
    run: Option<Run>,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let since = options.scope.since();
    let mut after = (String::new(), String::new());
    // What differs at the first look, from as many pages as make one more page: each further look costs a pause.
    let mut suspects: Vec<Debt> = Vec::new();
    loop {
        let began = Instant::now();
        let page =
            ask(context, async |connection| store::page(connection, (&after.0, &after.1), PAGE, since).await);
        let page = page.await?;
        let rows = u32::try_from(page.len()).unwrap_or(u32::MAX);
        if let Some(last) = page.last() {
            after = (last.client_id.clone(), last.entry_key.clone());
            tally.checked += page.len();
            suspects.extend(look(context, &page).await?.into_iter().map(|found| found.debt));
        }
        if page.is_empty() || i64::try_from(suspects.len()).is_ok_and(|count| count >= PAGE) {
            let found = look_again(context, std::mem::take(&mut suspects)).await?;
            settle(context, options, run, found, tally).await?;
        }
        if page.is_empty() {
            break;
        }
        sleep_until(began + Duration::from_secs(1) * rows / options.rows_per_second.max(1)).await;
    }
    Ok(())
}

/// Looks at suspects until nothing is left of them or they have differed often enough.
async fn look_again(context: &Context, mut suspects: Vec<Debt>) -> Result<Vec<Suspect>, Stop> {
    let mut found = Vec::new();
    for _ in 1..LOOKS {
        if suspects.is_empty() {
            return Ok(Vec::new());
        }
        sleep(BETWEEN_LOOKS).await;
        let now = ask(context, async |connection| store::again(connection, &suspects).await).await?;
        found = look(context, &now).await?;
        suspects = found.iter().map(|found| found.debt.clone()).collect();
    }
    Ok(found)
}

/// Enqueues what may be repaired, and counts everything.
async fn settle(
    context: &Context,
    options: Options,
    run: Option<Run>,
    suspects: Vec<Suspect>,
    tally: &mut Tally,
) -> Result<(), Stop> {
    let wanted = |suspect: &&Suspect| options.repair && suspect.drift.is_repaired(options.repair_edited);
    let mut repaired = HashSet::new();
    if let Some(run) = run {
        let wanted: Vec<&Suspect> = suspects.iter().filter(wanted).collect();
        if !wanted.is_empty() {
            let enqueue = ask(context, async |connection| {
                let waiting = waiting(connection, run, &wanted).await?;
                let wanted = || wanted.iter().filter(|suspect| !waiting.contains(&key(run, &suspect.debt)));
                let ids: Vec<i64> = wanted().map(|suspect| suspect.debt.email_id).collect();
                let mails = store::mails(connection, &ids).await?;
                let repairs: Vec<Repair> =
                    wanted().filter_map(|suspect| repair(run, suspect, &mails)).collect();
                let enqueued = store::enqueue(connection, &repairs).await?;
                let count = wanted().count();
                Ok((waiting, count, enqueued))
            });
            let (waiting, wanted, enqueued) = enqueue.await?;
            tally.repaired += enqueued.len();
            tally.failed += wanted - enqueued.len();
            repaired.extend(waiting);
            repaired.extend(enqueued);
        }
    }
    for suspect in suspects {
        let is_repaired = run.is_some_and(|run| repaired.contains(&key(run, &suspect.debt)));
        tally.add(suspect.finding(is_repaired));
    }
    Ok(())
}

impl Suspect {
    fn finding(self, is_repaired: bool) -> Finding {
        let Suspect { debt, drift, expected, mark, .. } = self;
        let (mongodb_amount, mongodb_stamp) =
            expected.map(|seen| (seen.amount, seen.stamp)).unwrap_or_default();
        Finding {
            client_id: debt.client_id,
            entry_key: debt.entry_key,
            drift,
            email_id: Some(debt.email_id),
            ledger_amount: Some(debt.amount),
            ledger_stamp: Some(debt.stamp),
            mongodb_received_at: mongodb_stamp
                .as_deref()
                .and_then(|stamp| stamp.parse::<Stamp>().ok()?.time()),
            mongodb_amount,
            mongodb_stamp,
            mongodb_email_id: mark,
            is_repaired,
        }
    }
}

/// The keys of this run whose entries a repair of an earlier one still waits for: the operation may be paused, or MongoDB away.
async fn waiting(
    connection: &shared::postgres::Connection,
    run: Run,
    wanted: &[&Suspect],
) -> Result<HashSet<String>, Failure> {
    let earlier = store::repairing_runs(connection, run.id).await?;
    let keys: Vec<String> = earlier
        .iter()
        .flat_map(|id| wanted.iter().map(move |suspect| key(Run { id: *id, ..run }, &suspect.debt)))
        .collect();
    let waiting = store::unfinished(connection, &keys).await?;
    let is_waiting = |suspect: &&&Suspect| {
        earlier.iter().any(|id| waiting.contains(&key(Run { id: *id, ..run }, &suspect.debt)))
    };
    Ok(wanted.iter().filter(is_waiting).map(|suspect| key(run, &suspect.debt)).collect())
}

/// One message per run and entry.
fn key(run: Run, debt: &Debt) -> String {
    format!("reconcile:{}:{}:{}", run.id, debt.client_id, debt.entry_key)
}

/// The ledger's state as an ordinary debt update; None if its mail is gone.
fn repair(run: Run, suspect: &Suspect, mails: &[MailPart]) -> Option<Repair> {
    let debt = &suspect.debt;
    let mail = mails.iter().find(|mail| mail.email_id == debt.email_id)?;
    let head = Head { email_id: debt.email_id, from_email: &mail.from_email, received_at: mail.received_at };
    let reading = mail.extracted.as_ref().and_then(|extracted| Reading::deserialize(extracted).ok());
    let mut update = debt_update::of_reading(head, &reading.unwrap_or_default(), debt.stamp);
    // Named by their keys: a name would only match somebody else.
    (update.client_name, update.client_aktenzeichen) = (None, None);
    update.new_debt_amount = Some(debt.amount);
    update.origin = Origin::Repair;
    update.client_id = Some(debt.client_id.clone());
    update.entry_key = Some(debt.entry_key.clone());
    update.expected.clone_from(&suspect.expected);
    debt_update::make_fit(&mut update);
    Some(Repair { email_id: debt.email_id, payload: json!(update), key: key(run, debt) })
}

async fn ask<T>(
    context: &Context,
    work: impl AsyncFnOnce(&mut shared::postgres::Connection) -> Result<T, Failure>,
) -> Result<T, Stop> {
    context.ask(Instant::now() + LOOK, "no reply to a look at the ledger", work).await.map_err(Stop::Postgres)
}
