//! `relay audit --shadow`: what a shadow relay would have written against what the old service has written since. Reads only.
//!
//! In a shadow's database the ledger holds, for each entry, the newest amount that would have been written, and the decision about it
//! what MongoDB had at that moment.

use super::HEALTHY;
use crate::{
    client::StoredAmount,
    context::Context,
    ledger, mode,
    mongo::Found,
    outcome::{Failure, FailureClass},
    reconcile::Stop,
    review,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use shared::columns::typed;
use shared::postgres::Connection;
use shared::{message::EmailId, money::Amount};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::time::Instant;
use tokio_postgres::Row;

/// Rows of one page; their documents are held in memory.
const PAGE: i64 = 200;

/// A page of the ledger in the order of its primary key, with what was seen when the amount was decided (`decisions_email`).
const WRITES: &str = "
select c.client_id, c.entry_key, c.email_id, c.amount::text, (
    select d.old_amount::text from decisions d where d.email_id = c.email_id and d.message_id = c.message_id order by d.id limit 1
)
from creditor_debts c where (c.client_id, c.entry_key) > ($1, $2) order by c.client_id, c.entry_key limit $3";

/// A page of the mails that are held about an entry that was found, each with its latest decision: without a match the candidates are only
/// where it might be. By primary key, then `decisions_email`.
const HELD: &str = "
select m.id, d.candidates, d.new_amount::text, d.old_amount::text, m.received_at
from incoming_emails m cross join lateral (select * from decisions where email_id = m.id order by id desc limit 1) d
where m.id > $1 and m.match_status = 'needs_review' and m.match_confidence is not null and d.decision = 'held_for_review' order by m.id limit $2";

/// How the two services agree about one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Agreement {
    /// MongoDB has the amount that would have been written.
    Equal,
    /// It has another one than would have been written, and than was there.
    Differs,
    /// It has still what was there: the old service has not written this mail, or had written something else before.
    NotWritten,
    /// Entry or document are not there any more, or cannot be read.
    Missing,
    /// Here a person would have to decide, and MongoDB is as it was.
    Held,
    /// Here a person would have to decide, and the old service has written something: the amount is another one, or the entry was answered
    /// at or after the mail's time, by this mail or a later one.
    HeldButWritten,
}

/// One entry where they do not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// How.
    pub agreement: Agreement,
    /// The mail.
    pub email_id: EmailId,
    /// `_id` of the document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// What would have been written, or is held; exact, as text.
    pub shadow_amount: Option<Amount>,
    /// What MongoDB has.
    pub mongodb_amount: Option<Amount>,
    /// What it had when the shadow relay decided.
    pub found_amount: Option<Amount>,
}

/// What the comparison came to.
#[derive(Debug, Serialize)]
pub struct ShadowAudit {
    /// Entries that were compared.
    pub compared: usize,
    /// The share of those that are equal, without those that are merely held; 1 if there were none.
    pub agreement: f64,
    /// Whether that is at least 0.95.
    pub is_healthy: bool,
    /// How many of each kind.
    pub by_agreement: BTreeMap<Agreement, usize>,
    /// The first that are neither equal nor merely held.
    pub findings: Vec<Disagreement>,
}

/// Compares every amount that would have been written, and every held mail that means one entry.
///
/// # Errors
/// A server is away, or this is no shadow's database.
pub async fn audit_shadow(context: &Context) -> Result<ShadowAudit, Stop> {
    let is_shadow = ask(context, async |connection| mode::is_shadow(connection).await).await?;
    if is_shadow != Some(true) {
        let text = "no shadow relay has worked in this database: run `relay run --shadow` in one of its own";
        return Err(Stop::Postgres(Failure::new(FailureClass::Permanent, text)));
    }
    let mut all = Vec::new();
    let mut after = (String::new(), String::new());
    loop {
        let (client, entry) = &after;
        let page = ask(context, async |connection| {
            connection.query_typed(WRITES, &typed(&[client, entry, &PAGE])).await
        })
        .await?;
        let Some(last) = page.last() else { break };
        after = (last.get(0), last.get(1));
        let meant = page
            .iter()
            .map(|row| (meant(row.get(2), (row.get(0), row.get(1)), row.get(3), row.get(4)), None));
        all.extend(judge(context, meant.collect(), write).await?);
    }
    let mut after = EmailId::MIN;
    loop {
        let page =
            ask(context, async |connection| connection.query_typed(HELD, &typed(&[&after, &PAGE])).await)
                .await?;
        let Some(last) = page.last() else { break };
        after = last.get(0);
        all.extend(judge(context, page.iter().filter_map(held_entry).collect(), held).await?);
    }
    Ok(sum_up(all))
}

/// An entry before MongoDB is asked.
fn meant(
    email_id: EmailId,
    (client_id, entry_key): (String, String),
    amount: Option<&str>,
    found: Option<&str>,
) -> Disagreement {
    let parsed = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let (shadow_amount, found_amount) = (parsed(amount), parsed(found));
    Disagreement {
        agreement: Agreement::Missing,
        email_id,
        client_id,
        entry_key,
        shadow_amount,
        mongodb_amount: None,
        found_amount,
    }
}

/// The one entry that a held mail means, and the mail's time.
fn held_entry(row: &Row) -> Option<(Disagreement, Option<Timestamp>)> {
    let candidates: Value = row.get(1);
    let mut pairs = review::pairs(&candidates);
    let ((client, entry), None) = (pairs.next()?, pairs.next()) else { return None };
    let text = |value: &Value, name: &str| Some(value.get(name)?.as_str()?.to_owned());
    let key = (text(client, "client_id")?, text(entry, "entry_key")?);
    Some((meant(row.get(0), key, row.get(2), row.get(3)), row.get(4)))
}

/// What MongoDB has for each; whether it was answered since the time that stands beside it is part of the judgement.
async fn judge(
    context: &Context,
    mut entries: Vec<(Disagreement, Option<Timestamp>)>,
    judgement: fn(&Disagreement, bool) -> Agreement,
) -> Result<Vec<Disagreement>, Stop> {
    let ids: BTreeSet<&str> = entries.iter().map(|(entry, _)| entry.client_id.as_str()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let found = context.clients.find_by_ids(&ids).await.map_err(Stop::MongoAway)?;
    let clients: HashMap<&str, &Found> =
        found.iter().map(|found| (found.client.client_id.as_str(), found)).collect();
    for (meant, since) in &mut entries {
        let Some(found) = clients.get(meant.client_id.as_str()) else { continue };
        let mut named = found.client.entries.iter().filter(|entry| entry.entry_key == meant.entry_key);
        if let (Some(entry), None) = (named.next(), named.next())
            && entry.stored != StoredAmount::Unreadable
        {
            meant.mongodb_amount = entry.stored.known();
            meant.agreement =
                judgement(meant, entry.answered_at.zip(*since).is_some_and(|(at, since)| at >= since));
        }
    }
    Ok(entries.into_iter().map(|(meant, _)| meant).collect())
}

fn write(entry: &Disagreement, _: bool) -> Agreement {
    match entry.mongodb_amount {
        now if now == entry.shadow_amount => Agreement::Equal,
        now if now == entry.found_amount => Agreement::NotWritten,
        Some(_) | None => Agreement::Differs,
    }
}

fn held(entry: &Disagreement, is_answered: bool) -> Agreement {
    if entry.mongodb_amount == entry.found_amount && !is_answered {
        Agreement::Held
    } else {
        Agreement::HeldButWritten
    }
}

fn sum_up(entries: Vec<Disagreement>) -> ShadowAudit {
    let mut by_agreement = BTreeMap::new();
    for entry in &entries {
        *by_agreement.entry(entry.agreement).or_default() += 1;
    }
    let count = |agreement| by_agreement.get(&agreement).copied().unwrap_or(0);
    let (equal, held, compared) = (count(Agreement::Equal), count(Agreement::Held), entries.len());
    #[expect(clippy::cast_precision_loss, reason = "numbers of entries are far below 2^52")]
    let agreement = if compared == held { 1.0 } else { equal as f64 / (compared - held) as f64 };
    let is_told = |entry: &Disagreement| !matches!(entry.agreement, Agreement::Equal | Agreement::Held);
    let findings = entries.into_iter().filter(is_told).take(super::MOST_LISTED).collect();
    ShadowAudit { compared, agreement, is_healthy: agreement >= HEALTHY, by_agreement, findings }
}

async fn ask<T>(
    context: &Context,
    work: impl AsyncFnOnce(&mut Connection) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Stop> {
    let look = async |connection: &mut Connection| {
        work(connection).await.map_err(|error| ledger::unreadable(&error))
    };
    let late = "no reply to a look at the shadow's writes";
    context.ask(Instant::now() + super::LOOK, late, look).await.map_err(Stop::Postgres)
}

impl Agreement {
    /// The name in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Agreement::Equal => "equal",
            Agreement::Differs => "differs",
            Agreement::NotWritten => "not_written",
            Agreement::Missing => "missing",
            Agreement::Held => "held",
            Agreement::HeldButWritten => "held_but_written",
        }
    }
}
