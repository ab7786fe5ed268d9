-- Which request has been answered with what. Expires; the permanent safeguard is unique (source, webhook_id) of incoming_emails.
create table idempotency_keys (
    key text primary key check (length(key) between 1 and 300), -- {source}:{request key}
    fingerprint bytea not null check (octet_length(fingerprint) = 32), -- SHA-256 of the raw body
    result jsonb not null check (jsonb_typeof(result -> 'email_id') is not distinct from 'number'),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    check (expires_at > created_at)
);
