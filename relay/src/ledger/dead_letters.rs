//! What the mails of dead letters show when a person has dealt with them. Parts of the statements in `outbox/dead_letters.rs`.

/// Mails that failed with a message that runs again are where they were before it. One that shows something else meanwhile (a later
/// message got through) stays. A held mail whose decision died is completed: its decision is what runs again. By primary key; $4 = the
/// operations that change what their mail shows.
pub(crate) const REQUEUED_EMAILS: &str = "
mails as (
    update incoming_emails m set
        processing_status = case when m.match_status = 'needs_review' then 'completed'
            when e.operation = 'creditor_debt_update' then 'extracted' else 'received' end,
        processed_at = case when m.match_status = 'needs_review' then m.processed_at end,
        match_status = nullif(m.match_status, 'no_match'),
        processing_error = null, sync_status = 'pending', sync_error = null, updated_at = now()
    from (
        select distinct on (email_id) email_id, operation from ended where operation = any($4) order by email_id, id desc
    ) e
    where m.id = e.email_id and m.processing_status = 'failed'
)";

/// Mails that failed with a message that is not wanted any more wait for nothing; why they failed stays to be read. By primary key;
/// $2 = the operations that change what their mail shows.
pub(crate) const DISCARDED_EMAILS: &str = "
mails as (
    update incoming_emails m set sync_status = 'not_applicable', sync_error = null, updated_at = now()
    from (select distinct email_id from ended where operation = any($2)) e
    where m.id = e.email_id and m.processing_status = 'failed'
)";
