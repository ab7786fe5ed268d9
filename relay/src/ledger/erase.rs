//! What is removed of a client from mails, ledger, decisions and reports. Owns that SQL; the order of the locks is `erase.rs`'s.

use shared::columns::typed;
use shared::message::EmailId;
use std::sync::LazyLock;
use tokio_postgres::Transaction;

/// Who is meant: the numbers in every spelling, and the `_id`s that go by them.
#[derive(Debug, Default)]
pub(crate) struct Client {
    pub(crate) numbers: Vec<String>,
    pub(crate) ids: Vec<String>,
}

/// A mail about the client.
#[derive(Debug)]
pub(crate) struct Concerned {
    pub(crate) email_id: EmailId,
    /// Else it may also mean others, and a person has still to decide.
    pub(crate) is_certain: bool,
    /// It has been written to another client too, or may still be.
    pub(crate) is_shared: bool,
}

/// The `_id`s that go by the numbers $1: by `creditor_debts_aktenzeichen`, and by what was decided.
const IDS: &str = "
select client_id from creditor_debts where aktenzeichen = any($1)
union select c ->> 'client_id' from decisions cross join jsonb_array_elements(candidates) c
where c ->> 'aktenzeichen' = any($1) and c ->> 'client_id' is not null";

/// Whether a candidate `c` of a decision is the client, or somebody else: $1 = the numbers, $2 = the `_id`s.
const IS_OURS: &str =
    "(coalesce(c ->> 'aktenzeichen' = any($1), false) or coalesce(c ->> 'client_id' = any($2), false))";
const IS_OTHER: &str = "(coalesce(c ->> 'client_id', c ->> 'aktenzeichen') is not null
    and not coalesce(c ->> 'aktenzeichen' = any($1), false) and not coalesce(c ->> 'client_id' = any($2), false))";

/// The words of a name in one order, whatever theirs.
const NAME: &str = "(select string_agg(word, ' ' order by word)
        from regexp_split_to_table(lower(m.extracted_data ->> 'client_name'), '[ ,.;]+') word where word <> '')";

/// A `word` as a pattern that finds it whole.
const WORD: &str =
    r"'(?<![[:alnum:]])' || regexp_replace(word, '([^[:alnum:]])', '\\\1', 'g') || '(?![[:alnum:]])'";

/// The mails about the client; $3 = mails that a person knows to be. $4 = the numbers as a pattern: a mail that nobody has read, or found
/// the client of, says it in its own words only. `torn`: what is still to be written goes to somebody else, or by a number that nobody is
/// known by. Walks mails, decisions and outbox: for people, not for loops.
static CONCERNED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with decided as materialized (
    select d.email_id, bool_or({IS_OURS}) as is_ours, bool_or({IS_OTHER}) as is_other,
        d.decision <> 'held_for_review' or d.id = (select max(id) from decisions l where l.email_id = d.email_id) as counts
    from decisions d cross join jsonb_array_elements(d.candidates) c group by d.id
), certain as (
    select id as email_id from incoming_emails where extracted_data ->> 'client_aktenzeichen' = any($1)
    union select email_id from creditor_debts where aktenzeichen = any($1) or client_id = any($2)
    union select email_id from decided where is_ours and not is_other
    union select aggregate_id::bigint from outbox_messages
    where (payload ->> 'client_aktenzeichen' = any($1) or payload ->> 'client_id' = any($2)) and aggregate_id ~ '^[0-9]{{1,18}}$'
    union select unnest($3::bigint[])
), named as materialized (
    select m.id as email_id, {NAME} as name from incoming_emails m where m.extracted_data ->> 'client_name' is not null
), torn as materialized (
    select aggregate_id::bigint as email_id, id is not null or exists (
        select from creditor_debts c where c.aktenzeichen in (number, translate(number, '/', '_'), translate(number, '_', '/'))) as is_known
    from (select aggregate_id, payload ->> 'client_id' as id, payload ->> 'client_aktenzeichen' as number from outbox_messages
        where processed_at is null and aggregate_id ~ '^[0-9]{{1,18}}$' and aggregate_id <> all($3::bigint[]::text[])) o
    where coalesce(id, number) is not null and not coalesce(id = any($2), false) and not coalesce(number = any($1), false)
), patterns as materialized (
    select array_agg({WORD}) as words
    from (select distinct name from named where email_id in (select email_id from certain) and name like '% %') n
    cross join regexp_split_to_table(n.name, ' ') word group by n.name
), possible as (
    select email_id from decided where is_ours and is_other
    union select id from incoming_emails where extracted_data -> 'reference_numbers' ?| $1 and match_status is distinct from 'auto_matched'
    union select n.email_id from named n join incoming_emails m on m.id = n.email_id
    where m.extracted_data ->> 'client_aktenzeichen' is null and m.match_status is distinct from 'auto_matched'
        and n.name in (select name from named where email_id in (select email_id from certain))
    union select m.id from incoming_emails m cross join lateral concat_ws(' ', subject, body_text, body_html, cleaned_body) as t(text)
    where m.text_removed_at is null and (t.text ~* $4
        or m.match_status is distinct from 'auto_matched' and exists (select from patterns p where t.text ~* all (p.words)))
)
select m.id, m.id in (select email_id from certain) and m.id not in (select email_id from torn where not is_known),
    m.id in (select email_id from decided where is_other and counts
        union select email_id from creditor_debts where client_id <> all($2) and (aktenzeichen is null or aktenzeichen <> all($1))
        union select email_id from torn where is_known)
from incoming_emails m
where m.id in (select email_id from certain union select email_id from possible)
order by m.id"
    )
});

/// Holds the mails. By primary key.
const HOLD: &str = "select id from incoming_emails where id = any($1) order by id for update";

/// By `creditor_debts_aktenzeichen` and the primary key.
const LEDGER: &str = "delete from creditor_debts where aktenzeichen = any($1) or client_id = any($2)";

/// Decisions stay as what was decided, when and by whom; amounts, reasons and candidates go. All of the mails $3; of the mails $4 those
/// that name the client. A table that only grows is rewritten by new rows (`refuse_delete_but_by_erasure`), under the old ids: of a mail's
/// decisions the highest is the latest.
static DECISIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
with gone as (
    delete from decisions d
    where (d.email_id = any($3) or d.email_id = any($4) and exists (select from jsonb_array_elements(d.candidates) c where {IS_OURS}))
        and (d.candidates <> '[]' or d.old_amount is not null or d.new_amount is not null)
    returning *
)
insert into decisions (id, email_id, message_id, decision, reason, actor, at) overriding system value
select id, email_id, message_id, decision, 'erased', actor, at from gone order by id"
    )
});

/// Everything about a person; the mail's way stays, as one that is over.
const MAILS: &str = "
update incoming_emails set from_email = '', from_name = null, subject = null, body_text = null, body_html = null, raw = null,
    cleaned_body = null, attachments = null, headers = null, ticket_id = null, extracted_data = null, fingerprint = null,
    idempotency_key = null, processing_error = null, sync_error = null,
    processing_status = case processing_status when 'not_creditor_reply' then processing_status else 'completed' end,
    match_status = case sync_status when 'synced' then match_status end,
    sync_status = case sync_status when 'synced' then sync_status else 'not_applicable' end,
    processed_at = coalesce(processed_at, now()), text_removed_at = now(), text_removed_by = 'erasure', updated_at = now()
where id = any($1)";

/// Of a mail that concerns others too the words go, and what was read in it if that is about the client ($2).
const SHARED_MAILS: &str = "
update incoming_emails set from_name = null, subject = null, body_text = null, body_html = null, raw = null, cleaned_body = null,
    attachments = null, headers = null, fingerprint = null, idempotency_key = null,
    extracted_data = case when extracted_data ->> 'client_aktenzeichen' = any($2) then null else extracted_data - 'summary' end,
    text_removed_at = now(), text_removed_by = 'erasure', updated_at = now()
where id = any($1)";

/// The findings about the client in reports, which are kept for 90 days.
const REPORTS: &str = "
update reconciliation_reports r set details = jsonb_set(r.details, '{findings}', (
    select coalesce(jsonb_agg(f), '[]') from jsonb_array_elements(r.details -> 'findings') f where f ->> 'client_id' <> all($1)
))
where jsonb_typeof(r.details -> 'findings') = 'array'
    and exists (select from jsonb_array_elements(r.details -> 'findings') f where f ->> 'client_id' = any($1))";

/// The `_id`s that go by these numbers.
pub(crate) async fn client_ids(
    transaction: &Transaction<'_>,
    numbers: &[String],
) -> Result<Vec<String>, tokio_postgres::Error> {
    Ok(transaction.query_typed(IDS, &typed(&[&numbers])).await?.iter().map(|row| row.get(0)).collect())
}

/// The mails about the client.
pub(crate) async fn concerned(
    transaction: &Transaction<'_>,
    client: &Client,
    emails: &[EmailId],
) -> Result<Vec<Concerned>, tokio_postgres::Error> {
    let numbers: Vec<String> = client.numbers.iter().map(|number| regex::escape(number)).collect();
    let pattern = format!("(?<![[:alnum:]])(?:{})(?![[:alnum:]])", numbers.join("|"));
    let parameters = typed(&[&client.numbers, &client.ids, &emails, &pattern]);
    let rows = transaction.query_typed(&CONCERNED, &parameters).await?;
    let read = |row: &tokio_postgres::Row| Concerned {
        email_id: row.get(0),
        is_certain: row.get(1),
        is_shared: row.get(2),
    };
    Ok(rows.iter().map(read).collect())
}

/// Holds these mails until the end of the transaction.
pub(crate) async fn hold(
    transaction: &Transaction<'_>,
    emails: &[EmailId],
) -> Result<(), tokio_postgres::Error> {
    transaction.execute_typed(HOLD, &typed(&[&emails])).await.map(drop)
}

/// What was removed, in rows.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    pub(crate) ledger: u64,
    pub(crate) decisions: u64,
    pub(crate) reports: u64,
}

/// Removes the client from mails that are its own, from those that it shares, and from what goes back to them.
pub(crate) async fn remove(
    transaction: &Transaction<'_>,
    client: &Client,
    own: &[EmailId],
    shared: &[EmailId],
) -> Result<Removed, tokio_postgres::Error> {
    transaction.execute_typed(MAILS, &typed(&[&own])).await?;
    transaction.execute_typed(SHARED_MAILS, &typed(&[&shared, &client.numbers])).await?;
    let ledger = transaction.execute_typed(LEDGER, &typed(&[&client.numbers, &client.ids])).await?;
    let parameters = typed(&[&client.numbers, &client.ids, &own, &shared]);
    let decisions = transaction.execute_typed(&DECISIONS, &parameters).await?;
    let reports = transaction.execute_typed(REPORTS, &typed(&[&client.ids])).await?;
    Ok(Removed { ledger, decisions, reports })
}
