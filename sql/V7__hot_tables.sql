-- The other tables that every message changes. Vacuumed after a number of changed rows, not after a share of a table that only
-- grows; without pauses, since a vacuum that lags behind costs more than one that works.
alter table incoming_emails set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
alter table creditor_debts set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
alter table idempotency_keys set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0);

-- A check is evaluated for every update of its row. Writing a payload as text only to count it took half of a claim's and a
-- finish's time, so small ones (nearly all) are let through by their size in memory.
alter table outbox_messages drop constraint outbox_messages_payload_check;
alter table outbox_messages add constraint outbox_messages_payload_check check (jsonb_typeof(payload) = 'object'
    and (pg_column_size(payload) <= 1024 or octet_length(payload::text) <= 4096)) not valid; -- every row has passed the stricter one

-- Every finish would lock its mails once more, for a mail that the same statement has just updated.
alter table decisions drop constraint decisions_email_id_fkey;

-- Seven rows of the usual size fill half a page to the byte; a claim makes them longer by its owner's name, and the seventh no
-- longer found room on its page (5 % of the updates, 7 % with long host names). Six leave room.
alter table outbox_messages set (fillfactor = 45);
