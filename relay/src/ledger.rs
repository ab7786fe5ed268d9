//! The relay's other tables in Postgres: the ledger `creditor_debts`, `decisions`, and the status columns of `incoming_emails`.
//!
//! Owns their SQL. What a finish writes into them runs inside the finish statement of `outbox/finish.rs`, so it is committed with the
//! message's transition or not at all.

mod dead_letters;
pub mod entries;
pub(crate) mod erase;
mod mails;

use crate::outcome::{Failure, FailureClass, Outcome, Transition};
pub(crate) use dead_letters::{DISCARDED_EMAILS, REQUEUED_EMAILS};
pub use mails::{StoredMail, UnsettledMail, mails, tickets, unsettled};
use shared::{
    columns::{Column, column, typed},
    message::{EmailId, MessageId, Stamp},
    money::Amount,
    outbox::{INSERT, ONCE, trace_of_mail},
    postgres::Connection,
    process::bounded_error,
};
use std::{collections::HashMap, sync::LazyLock};
use tokio_postgres::types::Json;

/// A person's decision about a mail ($1), the message ($2 to $5) that carries it out, and a mail that waits for it; nothing if the
/// message's key is enqueued already.
pub(crate) static DECIDE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with message as (
    {INSERT}
    values ($2, $1::bigint::text, $3, $4, $5, {})
    {ONCE}
    returning id
), shown as (
    update incoming_emails set sync_status = 'pending', sync_error = null, updated_at = now()
    where id = $1 and exists (select from message)
)
insert into decisions (email_id, message_id, old_amount, new_amount, decision, reason, actor, candidates)
select $1, message.id, $6::text::numeric, $7::text::numeric, $8, $9, $10, $11 from message
returning message_id",
        trace_of_mail("$1::bigint")
    )
});

/// Part of the finish: mails of the messages that are still ours (`fenced`). $8 to $26 = [`EmailChange::columns`]. By primary key;
/// a mail that several messages of the batch concern shows the newest.
pub(crate) const UPDATE_EMAILS: &str = "
mails as (
    update incoming_emails m set
        processing_status = coalesce(e.processing_status, m.processing_status),
        processing_error = e.processing_error,
        match_status = case when e.processing_status = 'not_creditor_reply' then null
            else coalesce(e.match_status, m.match_status) end,
        match_confidence = coalesce(e.match_confidence::numeric, m.match_confidence),
        sync_status = coalesce(e.sync_status, m.sync_status),
        sync_error = e.sync_error,
        sync_retry_count = m.sync_retry_count + e.counted::int,
        body_text = coalesce(e.body_text, m.body_text),
        body_html = coalesce(e.body_html, m.body_html),
        headers = coalesce(e.headers, m.headers),
        attachments = coalesce(e.attachments, m.attachments),
        cleaned_body = coalesce(e.cleaned_body, m.cleaned_body),
        token_count_before = coalesce(e.token_count_before, m.token_count_before),
        token_count_after = coalesce(e.token_count_after, m.token_count_after),
        extracted_data = coalesce(e.extracted_data, m.extracted_data),
        idempotency_key = coalesce(e.idempotency_key, m.idempotency_key),
        updated_at = now(),
        processed_at = case when e.processing_status in ('completed', 'not_creditor_reply', 'failed') then now()
            else m.processed_at end,
        matched_at = case when e.match_status is not null then now() else m.matched_at end
    from (
        select distinct on (email_id) c.* from unnest($8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[],
            $13::text[], $14::float8[], $15::text[], $16::text[], $17::boolean[], $18::text[], $19::jsonb[], $20::text[],
            $21::text[], $22::text[], $23::jsonb[], $24::jsonb[], $25::int[], $26::int[])
            as c(message_id, email_id, stamp, processing_status, processing_error, match_status, match_confidence, sync_status,
            sync_error, counted, cleaned_body, extracted_data, idempotency_key, body_text, body_html, headers, attachments,
            token_count_before, token_count_after)
        join fenced on fenced.id = c.message_id
        order by email_id, stamp desc
    ) e
    where m.id = e.email_id
)";

/// Part of the finish: $27 to $33 = [`LedgerRow::columns`]. Sorted by key, since unsorted upserts of two workers deadlock; only a higher
/// stamp replaces a row.
pub(crate) const UPSERT_DEBTS: &str = "
debts as (
    insert into creditor_debts (client_id, entry_key, aktenzeichen, amount, stamp, message_id, email_id)
    select distinct on (client_id, entry_key) client_id, entry_key, aktenzeichen, amount::numeric, stamp, message_id, email_id
    from unnest($27::bigint[], $28::bigint[], $29::text[], $30::text[], $31::text[], $32::text[], $33::bigint[])
        as l(message_id, email_id, client_id, entry_key, aktenzeichen, amount, stamp)
    join fenced on fenced.id = l.message_id
    order by client_id, entry_key, stamp desc
    on conflict (client_id, entry_key) do update set
        aktenzeichen = excluded.aktenzeichen, amount = excluded.amount, stamp = excluded.stamp,
        message_id = excluded.message_id, email_id = excluded.email_id, applied_at = excluded.applied_at
    where creditor_debts.stamp < excluded.stamp
)";

/// Part of the finish: $34 to $41 = [`Decision::columns`].
pub(crate) const INSERT_DECISIONS: &str = "
verdicts as (
    insert into decisions (email_id, message_id, old_amount, new_amount, decision, reason, candidates, actor)
    select email_id, message_id, old_amount::numeric, new_amount::numeric, decision, reason, candidates, actor
    from unnest($34::bigint[], $35::bigint[], $36::text[], $37::text[], $38::text[], $39::text[], $40::jsonb[], $41::text[])
        as d(message_id, email_id, old_amount, new_amount, decision, reason, candidates, actor)
    join fenced on fenced.id = d.message_id
)";

/// By primary key.
const LEDGER_STAMPS: &str = "
select d.client_id, d.entry_key, d.stamp, d.email_id, d.amount::text
from unnest($1::text[], $2::text[]) as k(client_id, entry_key) join creditor_debts d using (client_id, entry_key)";

/// What a mail shows after a message of it; None = as it was, but for the two errors, which always show the latest state.
#[derive(Debug, Default)]
pub struct EmailChange {
    message_id: MessageId,
    email_id: EmailId,
    /// Orders several changes of one mail within a batch.
    stamp: i64,
    processing_status: Option<&'static str>,
    processing_error: Option<String>,
    match_status: Option<&'static str>,
    /// How much the match rests on.
    pub match_confidence: Option<f64>,
    sync_status: Option<&'static str>,
    sync_error: Option<String>,
    counted: bool,
    /// The mail's own words, without markup and history.
    pub cleaned_body: Option<String>,
    /// The extractor's answer.
    pub extracted_data: Option<serde_json::Value>,
    /// The `generate_idempotency_key` of the mail's debt update.
    pub idempotency_key: Option<String>,
    /// What was fetched of the mail.
    pub fetched: Option<FetchedParts>,
    /// The mail's estimated tokens: all that was received, and what is left of it to read.
    pub token_counts: Option<(i32, i32)>,
}

/// The parts of a mail that its event did not carry.
#[derive(Debug, Default)]
pub struct FetchedParts {
    /// The text part.
    pub body_text: Option<String>,
    /// The HTML part.
    pub body_html: Option<String>,
    /// The mail's headers, name to value.
    pub headers: Option<serde_json::Value>,
    /// The attachments, as `incoming_emails.attachments` lists them.
    pub attachments: Option<serde_json::Value>,
}

impl EmailChange {
    /// What a mail shows after this transition of a message about it.
    #[must_use]
    pub fn after(
        message_id: MessageId,
        email_id: EmailId,
        stamp: i64,
        transition: &Transition,
    ) -> EmailChange {
        let mut change = EmailChange { message_id, email_id, stamp, ..EmailChange::default() };
        match transition {
            Transition::Done(outcome) => match outcome {
                Outcome::Applied | Outcome::Already | Outcome::Superseded => {
                    change.shows("completed", Some("auto_matched"), "synced");
                }
                Outcome::HeldForReview => change.shows("completed", Some("needs_review"), "not_applicable"),
                Outcome::NotCreditorReply => change.shows("not_creditor_reply", None, "not_applicable"),
                Outcome::Extracted => change.shows("extracted", None, "pending"),
                Outcome::Fetched => change.shows("received", None, "pending"),
                Outcome::Sent | Outcome::Discarded | Outcome::StalePlan => {} // say nothing about the mail
            },
            Transition::Parked(_, _) => change.shows("matching", Some("no_match"), "pending"),
            Transition::Retry(_, failure) => {
                change.sync_status = Some("failed");
                change.sync_error = Some(bounded_error(&failure.to_string()));
                change.counted = true;
            }
            Transition::Dead(failure) => {
                change.processing_status = Some("failed");
                change.processing_error = Some(bounded_error(&failure.to_string()));
                change.sync_status = Some("failed");
                change.sync_error = Some(bounded_error(&failure.to_string()));
                change.counted = true;
            }
            Transition::Postponed(_, failure) => {
                change.sync_status = Some("pending");
                change.sync_error = Some(bounded_error(&failure.text));
            }
            Transition::GivenBack(failure) => {
                change.sync_status = Some("pending");
                change.sync_error = failure.as_ref().map(|failure| bounded_error(&failure.text));
            }
        }
        change
    }

    /// As [`UPDATE_EMAILS`] takes them.
    pub(crate) fn columns<'a>(rows: &[&'a EmailChange]) -> Vec<Column<'a>> {
        vec![
            column(rows, |row| row.message_id),
            column(rows, |row| row.email_id),
            column(rows, |row| row.stamp),
            column(rows, |row| row.processing_status),
            column(rows, |row| row.processing_error.as_deref()),
            column(rows, |row| row.match_status),
            column(rows, |row| row.match_confidence),
            column(rows, |row| row.sync_status),
            column(rows, |row| row.sync_error.as_deref()),
            column(rows, |row| row.counted),
            column(rows, |row| row.cleaned_body.as_deref()),
            column(rows, |row| row.extracted_data.as_ref().map(Json)),
            column(rows, |row| row.idempotency_key.as_deref()),
            column(rows, |row| row.fetched.as_ref()?.body_text.as_deref()),
            column(rows, |row| row.fetched.as_ref()?.body_html.as_deref()),
            column(rows, |row| row.fetched.as_ref()?.headers.as_ref().map(Json)),
            column(rows, |row| row.fetched.as_ref()?.attachments.as_ref().map(Json)),
            column(rows, |row| row.token_counts.map(|(before, _)| before)),
            column(rows, |row| row.token_counts.map(|(_, after)| after)),
        ]
    }

    fn shows(&mut self, processing: &'static str, matching: Option<&'static str>, sync: &'static str) {
        self.processing_status = Some(processing);
        self.match_status = matching;
        self.sync_status = Some(sync);
    }
}

/// What is known to be in MongoDB after an update.
#[derive(Debug)]
pub struct LedgerRow {
    /// The message that brought it there.
    pub message_id: MessageId,
    /// Its mail.
    pub email_id: EmailId,
    /// `_id` of the document.
    pub client_id: String,
    /// The entry in it.
    pub entry_key: String,
    /// The document's case number.
    pub aktenzeichen: Option<String>,
    /// The amount there.
    pub amount: Amount,
    /// Its stamp.
    pub stamp: i64,
}

impl LedgerRow {
    /// As [`UPSERT_DEBTS`] takes them.
    pub(crate) fn columns<'a>(rows: &[&'a LedgerRow]) -> Vec<Column<'a>> {
        vec![
            column(rows, |row| row.message_id),
            column(rows, |row| row.email_id),
            column(rows, |row| row.client_id.as_str()),
            column(rows, |row| row.entry_key.as_str()),
            column(rows, |row| row.aktenzeichen.as_deref()),
            column(rows, |row| row.amount.to_string()),
            column(rows, |row| row.stamp),
        ]
    }
}

/// Who decides in `decisions` where a repair does: about what was decided before, so what a person has to decide stays theirs.
pub const RECONCILIATION: &str = "reconciliation";

/// One decision about an amount, as kept for good.
#[derive(Debug)]
pub struct Decision {
    /// The message decided on.
    pub message_id: MessageId,
    /// Its mail.
    pub email_id: EmailId,
    /// The amount that MongoDB had.
    pub old_amount: Option<Amount>,
    /// The amount of the mail.
    pub new_amount: Option<Amount>,
    /// The outcome's name, or what a person decided.
    pub decision: &'static str,
    /// Why, at most 500 characters.
    pub reason: String,
    /// What it could have been, for a person to choose from.
    pub candidates: Vec<serde_json::Value>,
    /// The program or the person.
    pub actor: String,
}

impl Decision {
    /// As [`INSERT_DECISIONS`] takes them.
    pub(crate) fn columns<'a>(rows: &[&'a Decision]) -> Vec<Column<'a>> {
        vec![
            column(rows, |row| row.message_id),
            column(rows, |row| row.email_id),
            column(rows, |row| row.old_amount.map(|amount| amount.to_string())),
            column(rows, |row| row.new_amount.map(|amount| amount.to_string())),
            column(rows, |row| row.decision),
            column(rows, |row| row.reason.as_str()),
            column(rows, |row| Json(&row.candidates)),
            column(rows, |row| row.actor.as_str()),
        ]
    }
}

/// What the ledger says of one entry.
#[derive(Debug, Clone, Copy)]
pub struct LedgerMark {
    /// The stamp that MongoDB carried last, by what we know.
    pub stamp: Stamp,
    /// Its mail.
    pub email_id: EmailId,
    /// Its amount.
    pub amount: Option<Amount>,
}

/// What the ledger knows of these entries, (client id, entry key); an entry that it does not know is absent.
///
/// # Errors
/// The statement's.
pub async fn marks(
    connection: &Connection,
    keys: &[(&str, &str)],
) -> Result<HashMap<(String, String), LedgerMark>, tokio_postgres::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let (clients, entries): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    let rows = connection.query_often(LEDGER_STAMPS, &typed(&[&clients, &entries])).await?;
    let read = |row: &tokio_postgres::Row| {
        let stamp = Stamp::try_from(row.get::<_, i64>(2)).ok()?; // the table's check keeps it >= 0
        let amount = row.get::<_, String>(4).parse().ok();
        Some(((row.get(0), row.get(1)), LedgerMark { stamp, email_id: row.get(3), amount }))
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// A failure of the ledger's reads says nothing about the message, unless Postgres refuses one of its values.
pub fn unreadable(error: &tokio_postgres::Error) -> Failure {
    let refused = error.code().is_some_and(|code| code.code().starts_with("22"));
    let class = if refused { FailureClass::Permanent } else { FailureClass::SinkDown };
    Failure::new(class, format!("Postgres: {}", shared::postgres::reason(error)))
}
