-- A message that speaks for a person or for the reconciliation is believed by the relay without looking further: nothing is matched, guarded or held.
-- Only who may record decisions may make one, so that somebody who has got into ingest cannot set an amount by it. A message about a mail
-- does not come here: the condition looks at its payload and at nothing else.
create function refuse_others_decisions() returns trigger language plpgsql as
$$ begin
    if not has_table_privilege(current_user, 'decisions', 'insert') then
        raise insufficient_privilege using message = 'this user may not decide: a debt update of origin mail names no person, client or entry';
    end if;
    return new;
end $$;
create trigger outbox_messages_decide before insert on outbox_messages for each row
    when (new.operation = 'creditor_debt_update' and (new.payload ->> 'origin' is distinct from 'mail'
        or new.payload ?| array['decided_by', 'client_id', 'entry_key', 'expected']))
    execute function refuse_others_decisions();
