-- What operators see and do: the relays that are alive, the operations that are paused, every act of a person, and the way to dead letters.

-- One row per relay process, renewed every few seconds; what stood still for a day is removed by maintenance.
create table relay_workers (
    worker text primary key check (worker <> ''), -- host:pid, as in outbox_messages.claimed_by
    host text not null,
    version text not null,
    started_at timestamptz not null,
    seen_at timestamptz not null default now(),
    lanes jsonb not null default '{}' check (jsonb_typeof(lanes) = 'object') -- operation -> what its lane is doing
) with (fillfactor = 50);

-- An operation that is here is claimed by nobody.
create table paused_operations (
    operation text primary key check (operation ~ '^[a-z][a-z0-9_]{0,63}$'),
    paused_at timestamptz not null default now(),
    actor text not null check (actor <> ''),
    reason text not null check (length(reason) between 1 and 500)
);

-- Every act of a person that changes something, beside `decisions`, which are about amounts. Append-only.
create table operator_actions (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor text not null check (actor <> ''),
    action text not null check (action in ('requeue', 'discard', 'pause', 'resume', 'replay', 'correct', 'reconcile')),
    message_id bigint, -- no foreign key: finished messages leave, acts stay
    email_id bigint,
    detail jsonb not null default '{}' check (jsonb_typeof(detail) = 'object')
);
create index operator_actions_message on operator_actions (message_id) where message_id is not null;
create trigger operator_actions_append_only before update or truncate on operator_actions
    for each statement execute function decisions_refuse_change();

-- The normal path leaves dead_at null, so this index does not cost its HOT updates.
create index outbox_messages_dead on outbox_messages (operation, dead_at) where dead_at is not null;

-- What a dead letter is about may have been settled by a newer update of the same client. The number of a client hardly ever changes,
-- so the ledger's updates stay HOT.
create index creditor_debts_aktenzeichen on creditor_debts (aktenzeichen) where aktenzeichen is not null;

-- A run that could not look because MongoDB was away is no failure of anything.
alter table reconciliation_reports
    add column scope text not null default 'all' check (scope in ('all', 'recent', 'since')),
    add column actor text not null default 'relay' check (actor <> ''), -- relay, or who ran the command
    drop constraint reconciliation_reports_status_check,
    add constraint reconciliation_reports_status_check check (status in ('running', 'completed', 'failed', 'skipped')),
    drop constraint reconciliation_reports_check1,
    add constraint reconciliation_reports_error_check check ((status in ('failed', 'skipped')) = (error_message is not null));
create index reconciliation_reports_run on reconciliation_reports (run_at);

alter table decisions drop constraint decisions_decision_check;
alter table decisions add constraint decisions_decision_check check (decision in ('applied', 'already', 'superseded', 'held_for_review',
    'accepted', 'rejected', 'stale_plan', 'corrected', 'reverted')) not valid; -- only more than before
