-- Every decision about an amount, by the program or by a person. Append-only.
create table decisions (
    id bigint generated always as identity primary key,
    email_id bigint not null references incoming_emails (id),
    message_id bigint not null, -- no foreign key: finished messages leave, decisions stay
    old_amount numeric(14, 2) check (old_amount >= 0 and old_amount <> 'NaN'),
    new_amount numeric(14, 2) check (new_amount >= 0 and new_amount <> 'NaN'),
    decision text not null check (decision in ('applied', 'already', 'superseded', 'held_for_review', 'accepted', 'rejected')),
    reason text not null check (length(reason) between 1 and 500),
    candidates jsonb not null default '[]' check (jsonb_typeof(candidates) = 'array'),
    actor text not null check (actor <> ''), -- relay, or who decided
    at timestamptz not null default now()
);
create index decisions_email on decisions (email_id);

create function decisions_refuse_change() returns trigger language plpgsql as
$$ begin raise exception 'decisions is append-only'; end $$;
create trigger decisions_append_only before update or truncate on decisions
    for each statement execute function decisions_refuse_change();
