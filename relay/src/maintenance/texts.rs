//! Removes the text of mails after their retention: what was received and what was made of it word by word. What was read in a mail (names,
//! numbers, amounts) stays, so that it can still be replayed, put right and compared.

use super::{GATE, REST, connection};
use shared::postgres::Pool;
use shared::{message::EmailId, postgres::reason};
use std::time::{Duration, Instant};
use tokio_postgres::types::Type;

/// Rows of one batch: few, since their texts lie in tables of their own.
const BATCH: i64 = 200;

/// Looks at $2 mails from the id $1 on. Only those whose way has ended more than $3 seconds ago: nothing about them waits, is dead or is
/// for a person to decide. By primary key. $4 = the gate's number.
const REMOVE: &str = "
with gate as materialized (
    select pg_try_advisory_xact_lock($4) as is_open
), seen as materialized (
    select m.id from incoming_emails m, gate where gate.is_open and m.id > $1 order by m.id limit $2
), gone as (
    update incoming_emails m set subject = null, from_name = null, body_text = null, body_html = null, raw = null, cleaned_body = null,
        attachments = null, headers = null, extracted_data = m.extracted_data - 'summary',
        text_removed_at = now(), text_removed_by = 'retention', updated_at = now()
    from seen
    where m.id = seen.id and m.text_removed_at is null and m.processed_at < now() - $3 * interval '1 second'
        and (m.processing_status in ('completed', 'not_creditor_reply') and m.sync_status in ('synced', 'not_applicable')
            or m.processing_status = 'failed' and m.sync_status = 'not_applicable')
        and m.match_status is distinct from 'needs_review'
    returning m.id
)
select max(id), (select count(*) from gone) from seen";

/// Walks all mails once; how many have lost their text.
///
/// # Errors
/// Postgres failed; what has been removed until then is.
pub async fn pass(pool: &Pool, retention: Duration) -> Result<i64, String> {
    let (mut from, mut removed): (EmailId, i64) = (0, 0);
    let seconds = retention.as_secs_f64();
    loop {
        let began = Instant::now();
        let row = connection(pool)
            .await?
            .query_typed_one(
                REMOVE,
                &[(&from, Type::INT8), (&BATCH, Type::INT8), (&seconds, Type::FLOAT8), (&GATE, Type::INT8)],
            )
            .await
            .map_err(|error| reason(&error))?;
        removed += row.get::<_, i64>(1);
        let Some(last) = row.get::<_, Option<EmailId>>(0) else { return Ok(removed) };
        from = last;
        tokio::time::sleep(began.elapsed() * REST).await;
    }
}
