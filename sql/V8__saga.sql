-- What the steps around the debt update store: the fetched parts of a mail, its size before and after the reading, the mails that
-- were sent to the firm, and what a paid extractor has used.
alter table incoming_emails
    add column headers jsonb check (jsonb_typeof(headers) = 'object'), -- name to value, where the source gives them
    add column token_count_before integer check (token_count_before >= 0), -- estimated, of all that was received
    add column token_count_after integer check (token_count_after >= 0); -- of what is left to read

alter table outbox_messages drop constraint outbox_messages_outcome_check;
alter table outbox_messages add constraint outbox_messages_outcome_check check (outcome in ('applied', 'already', 'superseded',
    'held_for_review', 'sent', 'extracted', 'not_creditor_reply', 'stale_plan', 'discarded', 'fetched')) not valid; -- only more than before

-- One row per mail that asked a person to decide: more than ten an hour become one digest.
create table review_mails (
    id bigint generated always as identity primary key,
    sent_at timestamptz not null default now(),
    is_digest boolean not null
);
create index review_mails_sent on review_mails (sent_at);

-- One row per day (UTC) and extractor; all relays count here.
create table extractor_usage (
    day date not null,
    extractor text not null check (extractor <> ''),
    requests bigint not null default 0 check (requests >= 0),
    tokens bigint not null default 0 check (tokens >= 0),
    primary key (day, extractor)
);
