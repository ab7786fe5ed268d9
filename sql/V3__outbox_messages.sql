-- The outbox: one row per message. Inserted with the business row in one transaction, changed only by relay/src/outbox.rs.
--
-- Storage rules (the normal path must stay a HOT update): no index, key or predicate names a column that a claim or a
-- successful finish changes. The lease lives in claimed_until, which no index mentions; hot claims go by primary key from a
-- low-water mark; only deferred rows (retry, parked) have an index of their own.
create table outbox_messages (
    id bigint generated always as identity primary key,
    aggregate_type text not null check (aggregate_type <> ''),
    aggregate_id text not null check (aggregate_id <> ''),
    operation text not null check (operation ~ '^[a-z][a-z0-9_]{0,63}$'),
    payload jsonb not null check (jsonb_typeof(payload) = 'object' and octet_length(payload::text) <= 4096), -- never mail text
    idempotency_key text not null unique, -- {operation}:{email id}:{revision}
    traceparent text check (length(traceparent) <= 55),
    created_at timestamptz not null default now(),
    available_at timestamptz not null default now(), -- schedule and retry
    deferred boolean not null default false, -- waits for available_at apart from the hot rows
    claimed_until timestamptz, -- the lease
    claimed_by text,
    claim_count bigint not null default 0 check (claim_count >= 0), -- grows by every transition: the fence of the claim
    unfinished_claims integer not null default 0 check (unfinished_claims >= 0), -- claims in a row that nobody finished
    processed_at timestamptz,
    outcome text check (outcome in ('applied', 'already', 'superseded', 'held_for_review', 'sent', 'extracted',
        'not_creditor_reply', 'stale_plan', 'discarded')),
    retry_count integer not null default 0 check (retry_count >= 0), -- counted failures only
    max_retries integer not null default 5 check (max_retries between 0 and 100),
    error_class text,
    error_message text check (length(error_message) <= 500),
    first_missing_at timestamptz, -- the first look that did not find the client
    dead_at timestamptz,
    -- waiting | done | dead, and nothing else
    constraint outbox_messages_state check (case
        when processed_at is not null then dead_at is null and outcome is not null
        when dead_at is not null then outcome is null and error_class is not null
        else outcome is null end),
    constraint outbox_messages_ended_is_free check ((processed_at is null and dead_at is null)
        or (claimed_until is null and claimed_by is null and not deferred)),
    constraint outbox_messages_lease_is_counted check (claim_count >= unfinished_claims
        and (claimed_until is null or unfinished_claims > 0)),
    constraint outbox_messages_lease_has_owner check ((claimed_until is null) = (claimed_by is null)),
    constraint outbox_messages_missing_is_dated check (error_class is distinct from 'target_missing' or first_missing_at is not null)
) with (
    fillfactor = 50, -- a claim and a finish both find room on their page
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000
);

create index outbox_messages_deferred on outbox_messages (operation, available_at) where deferred;
