-- The cut-over from the service that this one replaces: what was imported from it, and whose database this is.

-- No fingerprint: the body as it was received is not known (imported, or erased), so the content of a repeat is not compared.
-- `legacy_id` is the mail's id in the old database. It never changes, so its index costs no HOT update, and new mails have no entry in it.
alter table incoming_emails
    alter column fingerprint drop not null,
    alter column raw drop not null,
    add column legacy_id bigint;
create unique index incoming_emails_legacy on incoming_emails (legacy_id) where legacy_id is not null;
alter table idempotency_keys alter column fingerprint drop not null;

-- Which relays may work here: those that write MongoDB, or those that only record what they would have written (`relay run --shadow`).
-- The first relay decides, for good, or whoever prepares the database for it (`relay migrate --shadow`, `relay import-legacy`): in a
-- shadow's database the ledger and the mails say what would be, not what is.
create table relay_mode (
    only_row boolean primary key default true check (only_row),
    is_shadow boolean not null,
    since timestamptz not null default now(),
    worker text not null check (worker <> '') -- host:pid of who has decided
);

alter table operator_actions drop constraint operator_actions_action_check;
alter table operator_actions add constraint operator_actions_action_check check (action in
    ('requeue', 'discard', 'pause', 'resume', 'replay', 'correct', 'reconcile', 'import', 'erase')) not valid; -- only more than before
