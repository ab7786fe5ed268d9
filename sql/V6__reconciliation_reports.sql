-- One row per run of the reconciliation of the ledger with MongoDB.
create table reconciliation_reports (
    id bigint generated always as identity primary key,
    run_at timestamptz not null default now(),
    completed_at timestamptz,
    records_checked integer not null default 0 check (records_checked >= 0),
    mismatches_found integer not null default 0 check (mismatches_found >= 0),
    auto_repaired integer not null default 0 check (auto_repaired >= 0),
    failed_repairs integer not null default 0 check (failed_repairs >= 0),
    details jsonb,
    status text not null default 'running' check (status in ('running', 'completed', 'failed')),
    error_message text check (length(error_message) <= 500),
    check ((status = 'running') = (completed_at is null)),
    check ((status = 'failed') = (error_message is not null))
);
