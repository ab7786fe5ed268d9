//! `relay audit`: what is wrong with the mails of the last days, how badly, and what to do. Reads both databases, changes nothing.

mod shadow;

use crate::{
    context::Context,
    ledger,
    outcome::Failure,
    reconcile::{self, Drift, Finding, Options, Scope, Stop, Tally},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
pub use shadow::{Agreement, Disagreement, ShadowAudit, audit_shadow};
use shared::columns::typed;
use shared::message::EmailId;
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// From this score on a system is healthy.
pub const HEALTHY: f64 = 0.95;
/// A mail that has been on its way for longer stands still, unless it waits for its client.
const STALLED_AFTER: Duration = Duration::from_secs(3600);
/// Findings that are listed one by one; all are counted.
const MOST_LISTED: usize = 500;
/// Entries that differ and are told apart by their mails; with more of them nobody asks for the score any more.
const MOST_COMPARED: usize = 50_000;
/// For the look at the mails.
const LOOK: Duration = Duration::from_secs(60);

/// All mails since $1. Walks the mails: for people, not for loops.
const ALL: &str = "select id from incoming_emails where created_at >= $1";

/// Those that are not as they should be, each with the first kind that fits. What a person has discarded is settled. Walks the mails: for
/// people, not for loops.
const MAILS: &str = "
with mails as (
    select id, legacy_id, processing_status, match_status, sync_status, extracted_data, created_at < now() - $2 * interval '1 second' as is_old
    from incoming_emails where created_at >= $1
), wrong as (
    select id, case
        when processing_status = 'failed' and sync_status <> 'not_applicable' then 'processing_failed'
        when match_status = 'no_match' then 'missing_record'
        when match_status = 'needs_review' and (extracted_data ->> 'debt_amount' is null
            or coalesce(extracted_data ->> 'client_name', extracted_data ->> 'client_aktenzeichen') is null) then 'incomplete_extraction'
        when legacy_id is not null and exists (select from outbox_messages o
            where o.idempotency_key = 'creditor_debt_update:' || m.id || ':0' and o.outcome = 'stale_plan') then 'unmarked'
        when is_old and processing_status not in ('completed', 'not_creditor_reply', 'failed') then 'stalled'
    end as kind from mails m
)
select id, kind from wrong where kind is not null order by id";

/// What is wrong with a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Its client, its creditor entry or its document is not in MongoDB.
    MissingRecord,
    /// MongoDB shows another amount than the one that was written for it.
    AmountMismatch,
    /// One of its messages is a dead letter.
    ProcessingFailed,
    /// It has been on its way for more than an hour.
    Stalled,
    /// A person has to decide, since the mail does not say enough.
    IncompleteExtraction,
    /// The replaced service has written it, and MongoDB has another amount since, or the entry cannot be told: nothing keeps an older mail
    /// from it.
    Unmarked,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Somebody sees a wrong amount.
    Critical,
    /// An amount is missing.
    High,
    /// An amount is late.
    Medium,
    /// A person has work to do.
    Low,
}

/// What puts it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// `relay reconcile --repair`
    ReSync,
    /// A person: `relay review`, `relay dead-letters`, `relay correct`
    ManualReview,
    /// The relays: `relay status`
    Stalled,
    /// Nothing has to be done.
    None,
}

impl Kind {
    fn of(name: &str) -> Option<Kind> {
        Some(match name {
            "processing_failed" => Kind::ProcessingFailed,
            "missing_record" => Kind::MissingRecord,
            "incomplete_extraction" => Kind::IncompleteExtraction,
            "stalled" => Kind::Stalled,
            "unmarked" => Kind::Unmarked,
            _ => return None,
        })
    }

    /// The name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::MissingRecord => "missing_record",
            Kind::AmountMismatch => "amount_mismatch",
            Kind::ProcessingFailed => "processing_failed",
            Kind::Stalled => "stalled",
            Kind::IncompleteExtraction => "incomplete_extraction",
            Kind::Unmarked => "unmarked",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Kind::AmountMismatch => Severity::Critical,
            Kind::MissingRecord | Kind::ProcessingFailed => Severity::High,
            Kind::Stalled => Severity::Medium,
            Kind::IncompleteExtraction | Kind::Unmarked => Severity::Low,
        }
    }

    const fn plan(self) -> Plan {
        match self {
            Kind::AmountMismatch
            | Kind::MissingRecord
            | Kind::ProcessingFailed
            | Kind::IncompleteExtraction
            | Kind::Unmarked => Plan::ManualReview,
            Kind::Stalled => Plan::Stalled,
        }
    }
}

impl Plan {
    /// The name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Plan::ReSync => "re_sync",
            Plan::ManualReview => "manual_review",
            Plan::Stalled => "stalled",
            Plan::None => "none",
        }
    }
}

/// One mail that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// The mail.
    pub email_id: EmailId,
    /// What is wrong.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// What puts it right.
    pub plan: Plan,
    /// How MongoDB differs, if it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    /// The document, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The entry in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_key: Option<String>,
}

/// What an audit came to.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// Days that it looked back.
    pub lookback_days: u32,
    /// Mails that arrived in that time.
    pub checked: usize,
    /// Mails among them that are not as they should be.
    pub issues: usize,
    /// (checked - issues) / checked; 1 if there were none.
    pub health_score: f64,
    /// Whether that is at least 0.95.
    pub is_healthy: bool,
    /// How many of each kind; a mail counts once, with its worst.
    pub by_kind: BTreeMap<&'static str, usize>,
    /// How many each plan puts right.
    pub by_plan: BTreeMap<&'static str, usize>,
    /// The first of them, the worst before the others.
    pub findings: Vec<Issue>,
}

/// Looks at the mails of the last days and compares what they wrote with MongoDB.
///
/// # Errors
/// A server is away: nothing can be said then.
pub async fn audit(context: &Context, lookback_days: u32) -> Result<Audit, Stop> {
    let since = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(lookback_days));
    let (mails, mut issues) = mails(context, since).await.map_err(Stop::Postgres)?;
    let scope = Scope::Since(since);
    let options = Options {
        scope,
        repair: false,
        repair_edited: false,
        walks_clients: false,
        rows_per_second: u32::MAX,
    };
    let mut tally = Tally::new(MOST_COMPARED);
    reconcile::compare(context, options, None, &mut tally).await?;
    let drifted = tally.findings.into_iter().filter_map(|finding| {
        let email_id = finding.email_id.filter(|id| mails.contains(id))?;
        Some(of_drift(email_id, finding))
    });
    issues.extend(drifted);
    Ok(sum_up(lookback_days, mails.len(), issues))
}

async fn mails(context: &Context, since: Timestamp) -> Result<(HashSet<EmailId>, Vec<Issue>), Failure> {
    let seconds = STALLED_AFTER.as_secs_f64();
    let look = async |connection: &mut shared::postgres::Connection| {
        let unreadable = |error| ledger::unreadable(&error);
        let all = connection.query_typed(ALL, &typed(&[&since])).await.map_err(unreadable)?;
        let wrong = connection.query_typed(MAILS, &typed(&[&since, &seconds])).await.map_err(unreadable)?;
        Ok((all, wrong))
    };
    let (all, wrong) = context.ask(Instant::now() + LOOK, "no reply to a look at the mails", look).await?;
    let issue = |row: &tokio_postgres::Row| {
        let kind = Kind::of(row.get(1))?;
        Some(Issue {
            email_id: row.get(0),
            kind,
            severity: kind.severity(),
            plan: kind.plan(),
            drift: None,
            client_id: None,
            entry_key: None,
        })
    };
    Ok((all.iter().map(|row| row.get(0)).collect(), wrong.iter().filter_map(issue).collect()))
}

fn of_drift(email_id: EmailId, finding: Finding) -> Issue {
    let (kind, plan) = match finding.drift {
        Drift::LostUpdate | Drift::LostFence => (Kind::AmountMismatch, Plan::ReSync),
        Drift::Edited | Drift::Ahead | Drift::Unreadable => (Kind::AmountMismatch, Plan::ManualReview),
        Drift::EntryGone | Drift::ClientGone => (Kind::MissingRecord, Plan::ManualReview),
    };
    Issue {
        email_id,
        kind,
        // The amount that people see is right; only the mark is missing that keeps an older mail from it.
        severity: if finding.drift == Drift::LostFence { Severity::Low } else { kind.severity() },
        plan,
        drift: Some(finding.drift),
        client_id: Some(finding.client_id),
        entry_key: Some(finding.entry_key),
    }
}

/// A mail counts once, with its worst.
fn sum_up(lookback_days: u32, checked: usize, mut issues: Vec<Issue>) -> Audit {
    issues.sort_by_key(|issue| (issue.severity, issue.email_id));
    let mut seen = HashSet::new();
    issues.retain(|issue| seen.insert(issue.email_id));
    let (mut by_kind, mut by_plan) = (BTreeMap::new(), BTreeMap::new());
    for issue in &issues {
        *by_kind.entry(issue.kind.name()).or_default() += 1;
        *by_plan.entry(issue.plan.name()).or_default() += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "numbers of mails are far below 2^52")]
    let health_score =
        if checked == 0 { 1.0 } else { (checked - issues.len().min(checked)) as f64 / checked as f64 };
    Audit {
        lookback_days,
        checked,
        issues: issues.len(),
        health_score,
        is_healthy: health_score >= HEALTHY,
        by_kind,
        by_plan,
        findings: issues.into_iter().take(MOST_LISTED).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(email_id: EmailId, kind: Kind) -> Issue {
        let (severity, plan) = (kind.severity(), kind.plan());
        Issue { email_id, kind, severity, plan, drift: None, client_id: None, entry_key: None }
    }

    #[test]
    fn a_mail_counts_once_with_its_worst_and_the_score_is_the_share_of_the_others() {
        let issues = vec![
            issue(1, Kind::IncompleteExtraction),
            issue(2, Kind::Stalled),
            issue(1, Kind::AmountMismatch),
        ];
        let audit = sum_up(30, 40, issues);
        assert_eq!((audit.issues, audit.health_score, audit.is_healthy), (2, 0.95, true));
        assert_eq!(audit.by_kind, BTreeMap::from([("amount_mismatch", 1), ("stalled", 1)]));
        assert_eq!(audit.findings.iter().map(|issue| issue.email_id).collect::<Vec<_>>(), [1, 2]);
        assert!(!sum_up(30, 39, audit.findings).is_healthy);
        assert_eq!(sum_up(30, 0, Vec::new()).health_score, 1.0);
    }
}
