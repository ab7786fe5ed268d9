-- Who may do what. Run by `relay migrate` after the migrations, each time, so everything here may run again; a new table gets its
-- lines here. The roles are groups that nobody logs in as: an administrator grants them to the users of the programs
-- (`create user ingest_1 password '...' in role ingest`). The owner of the tables migrates, and needs none of them.
--
-- Nobody but the owner can drop, truncate or alter anything, change a decision or an operator's act, or remove a mail or a ledger row.

do $$
declare name text;
begin
    foreach name in array array['ingest', 'relay', 'operator', 'monitor'] loop
        if not exists (select from pg_roles where rolname = name) then
            begin
                execute format('create role %I nologin', name);
            exception when duplicate_object or unique_violation then
                null; -- another database of this server was migrated at the same moment
            end;
        end if;
    end loop;
    execute format('revoke create on schema %I from public', current_schema()); -- given to all before Postgres 15
    execute format('grant usage on schema %I to ingest, relay, operator, monitor', current_schema());
    foreach name in array array['relay', 'operator'] loop -- `relay status` names the sessions that keep vacuum from its work
        if not pg_has_role(name, 'pg_read_all_stats', 'member') then
            begin
                execute format('grant pg_read_all_stats to %I', name);
            exception
                when unique_violation then
                    null; -- as above
                when insufficient_privilege then
                    raise notice 'no pg_read_all_stats for %: relay status sees no more than its own sessions', name;
            end;
        end if;
    end loop;
end $$;

grant select (version) on refinery_schema_history to ingest, relay, operator;

-- ingest: commits mail, key and first message, and tells where a mail stands. It reads no mail's text, no amount and no person's
-- name, changes nothing but expired keys, and removes nothing.
grant insert (id, source, webhook_id, ticket_id, from_email, from_name, subject, body_text, body_html, raw, attachments, received_at,
    received_at_note, fingerprint, extracted_data, processing_status, idempotency_key) on incoming_emails to ingest;
grant select (id, source, webhook_id, fingerprint, received_at, processing_status, match_status, sync_status, sync_error)
    on incoming_emails to ingest;
grant usage on sequence incoming_emails_id_seq to ingest; -- the id is drawn first
grant insert (key, fingerprint, result, expires_at), select, update (fingerprint, result, created_at, expires_at)
    on idempotency_keys to ingest;
grant insert (aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent) on outbox_messages to ingest;
grant select (id, operation, idempotency_key, outcome, retry_count, error_class, error_message, created_at, processed_at, dead_at)
    on outbox_messages to ingest;
grant select (id, email_id, message_id, decision, reason, at) on decisions to ingest;

-- relay: carries messages to their effect. What a mail was, stays as it came.
grant select on incoming_emails, outbox_messages, idempotency_keys, decisions, creditor_debts, reconciliation_reports, review_mails,
    extractor_usage, relay_workers, paused_operations, operator_actions, relay_mode to relay;
grant update (from_name, subject, raw, text_removed_at, text_removed_by) on incoming_emails to relay; -- to remove texts after their
    -- retention: incoming_emails_stay_as_they_came lets nothing else through
grant update (body_text, body_html, headers, attachments, cleaned_body, extracted_data, token_count_before, token_count_after,
    processing_status, processing_error, match_status, match_confidence, sync_status, sync_error, sync_retry_count,
    idempotency_key, updated_at, processed_at, matched_at) on incoming_emails to relay;
grant insert (aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent), delete,
    update (available_at, deferred, claimed_until, claimed_by, claim_count, unfinished_claims, processed_at, outcome, retry_count,
    error_class, error_message, first_missing_at, dead_at) on outbox_messages to relay;
grant update (expires_at), delete on idempotency_keys to relay; -- the update for its row locks only
grant insert on decisions, relay_mode to relay;
grant insert, update on creditor_debts, extractor_usage to relay;
grant insert, update, delete on reconciliation_reports, relay_workers to relay;
grant insert, delete on review_mails to relay;

-- operator: decides, requeues, replays, pauses and looks at everything, by the commands of `relay`.
grant select on incoming_emails, outbox_messages, idempotency_keys, decisions, creditor_debts, reconciliation_reports, review_mails,
    extractor_usage, relay_workers, paused_operations, operator_actions, relay_mode to operator;
grant update (processing_status, processing_error, match_status, sync_status, sync_error, updated_at, processed_at)
    on incoming_emails to operator;
grant insert (aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent),
    update (available_at, deferred, claimed_until, claimed_by, claim_count, unfinished_claims, processed_at, outcome, retry_count,
    error_class, error_message, first_missing_at, dead_at) on outbox_messages to operator;
grant insert on decisions, operator_actions to operator;
grant insert, delete on paused_operations to operator;
grant insert, update, delete on reconciliation_reports to operator;

-- monitor: how long what waits has waited, for what adds relays by it; nothing of any mail.
grant select (id, operation, available_at, deferred, claimed_until, processed_at, dead_at) on outbox_messages to monitor;
grant select (lanes, seen_at) on relay_workers to monitor;
grant select (operation) on paused_operations to monitor;
