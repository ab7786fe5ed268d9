-- What is removed of a mail: its text after its retention, and everything about a person who asks for it (`relay erase`).

-- The normal path leaves both null. Nothing of a text may come back into a row whose text was removed: a late finish is refused.
alter table incoming_emails
    add column text_removed_at timestamptz,
    add column text_removed_by text check (text_removed_by in ('retention', 'erasure')),
    add constraint incoming_emails_text_is_removed check (case
        when text_removed_at is null then text_removed_by is null
        else text_removed_by is not null and subject is null and from_name is null and body_text is null and body_html is null
            and raw is null and cleaned_body is null and attachments is null and headers is null end) not valid; -- no row has one yet

-- Decisions and acts may be rewritten without their personal data, in a transaction that says so, and in no other way.
create function refuse_delete_but_by_erasure() returns trigger language plpgsql as
$$ begin
    if current_setting('outbox.erasure', true) is distinct from 'on' then
        raise exception '% is append-only', tg_table_name;
    end if;
    return null;
end $$;
create trigger decisions_are_kept before delete on decisions for each statement execute function refuse_delete_but_by_erasure();
create trigger operator_actions_are_kept before delete on operator_actions
    for each statement execute function refuse_delete_but_by_erasure();

-- What a mail was is removed, never changed. Without these columns in its list an update does not come here.
create function refuse_other_words() returns trigger language plpgsql as
$$ begin raise exception 'what a mail was is not changed, only removed'; end $$;
create trigger incoming_emails_stay_as_they_came before update of raw, subject, from_name on incoming_emails for each row
    when (new.raw is not null and new.raw is distinct from old.raw or new.subject is not null and new.subject is distinct from old.subject
        or new.from_name is not null and new.from_name is distinct from old.from_name)
    execute function refuse_other_words();
