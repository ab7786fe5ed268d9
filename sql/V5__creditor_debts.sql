-- The ledger: what Postgres knows to be in MongoDB, one row per creditor entry. Only a higher stamp replaces a row.
create table creditor_debts (
    client_id text not null check (client_id <> ''), -- _id of the client document
    entry_key text not null check (entry_key <> ''), -- the entry's id, else h: + 16 hex digits over its identity fields
    aktenzeichen text,
    amount numeric(14, 2) not null check (amount >= 0 and amount <> 'NaN'),
    stamp bigint not null check (stamp >= 0),
    message_id bigint not null,
    email_id bigint not null,
    applied_at timestamptz not null default now(),
    primary key (client_id, entry_key)
) with (fillfactor = 70);
