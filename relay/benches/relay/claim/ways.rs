//! The ways: what each changes in the schema, how it claims, how it finishes.
//!
//! All have the same table and claim in the order of ids. Where a primary key is walked, it is from the id after the last claimed
//! one, which is the best a low-water mark can do.

/// One way.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    /// What it changes in the schema.
    pub(super) schema: &'static str,
    /// $1 = the low-water mark, $2 = the most to take; id, claim count, payload.
    pub(super) claim: &'static str,
    /// $1 = JSON of id, claim count and outcome; or each as an array.
    pub(super) finish: &'static str,
    pub(super) by_arrays: bool,
    /// Whether a transaction is open from claim to finish.
    pub(super) holds_locks: bool,
    pub(super) batch: i64,
    /// Counts the messages that are done.
    pub(super) done: &'static str,
}

/// The way of our schema.
pub(super) const OURS: &str = "d: lease, primary key";

pub(super) const WAYS: [Way; 6] = [
    Way { name: "a: held lock, row by row", batch: 1, ..HELD },
    HELD,
    Way {
        name: "c: lease, index on waiting rows",
        schema: "drop index outbox_messages_deferred; create index waiting on outbox_messages (operation, available_at, id)
            where processed_at is null and dead_at is null",
        claim: CLAIM_BY_INDEX,
        ..LEASE
    },
    LEASE,
    Way {
        name: "e: as d, finished rows moved out",
        schema: "create table outbox_finished (like outbox_messages including defaults including constraints);
            alter table outbox_finished add primary key (id);
            with gone as (delete from outbox_messages where processed_at is not null returning *)
            insert into outbox_finished select * from gone;
            analyze outbox_finished",
        finish: MOVE,
        done: "select count(*) from outbox_finished where processed_at is not null",
        ..LEASE
    },
    Way { name: "f: as d, finished by JSON", finish: FINISH_BY_JSON, by_arrays: false, ..LEASE },
];

const HELD: Way = Way { name: "b: held locks, batches", claim: LOCK, holds_locks: true, ..LEASE };

const LEASE: Way = Way {
    name: OURS,
    schema: "",
    claim: CLAIM,
    finish: FINISH,
    by_arrays: true,
    holds_locks: false,
    batch: 1000,
    done: "select count(*) from outbox_messages where processed_at is not null",
};

/// Locks only; the transaction stays open until the finish has been committed.
const LOCK: &str = "select id, claim_count, payload from outbox_messages
    where id >= $1 and operation = 'creditor_debt_update' and not deferred and available_at <= now()
        and processed_at is null and dead_at is null
    order by id limit $2::bigint for update skip locked";

/// The lease in `claimed_until`, which no index mentions; deferred rows have an index of their own.
const CLAIM: &str = "with due as materialized (
    select id from outbox_messages
    where deferred and operation = 'creditor_debt_update' and available_at <= now() and processed_at is null and dead_at is null
        and (claimed_until is null or claimed_until <= now())
    order by available_at limit greatest($2::bigint / 4, 1) for update skip locked
), hot as materialized (
    select id from outbox_messages
    where id >= $1 and operation = 'creditor_debt_update' and not deferred and available_at <= now() and processed_at is null
        and dead_at is null and (claimed_until is null or claimed_until <= now())
    order by id limit $2::bigint - (select count(*) from due) for update skip locked
), picked as materialized (select id from due union all select id from hot)
update outbox_messages o set claimed_until = now() + interval '15 s', claimed_by = 'bench',
    claim_count = o.claim_count + 1, unfinished_claims = o.unfinished_claims + 1
from picked where o.id = picked.id returning o.id, o.claim_count, o.payload";

/// The lease also in `available_at`, by which the index on waiting rows is sorted. No mark is needed.
const CLAIM_BY_INDEX: &str = "with picked as materialized (
    select id from outbox_messages
    where $1::bigint >= 0 and operation = 'creditor_debt_update' and available_at <= now() and processed_at is null and dead_at is null
    order by available_at, id limit $2::bigint for update skip locked
)
update outbox_messages o set available_at = now() + interval '15 s', claimed_until = now() + interval '15 s', claimed_by = 'bench',
    claim_count = o.claim_count + 1, unfinished_claims = o.unfinished_claims + 1
from picked where o.id = picked.id returning o.id, o.claim_count, o.payload";

const FINISH_BY_JSON: &str = "update outbox_messages o set
    claim_count = o.claim_count + 1, unfinished_claims = 0, claimed_until = null, claimed_by = null, processed_at = now(), outcome = r.outcome
from json_to_recordset($1) as r(id bigint, claim_count bigint, outcome text)
where o.id = r.id and o.claim_count = r.claim_count and o.processed_at is null and o.dead_at is null";

const FINISH: &str = "update outbox_messages o set
    claim_count = o.claim_count + 1, unfinished_claims = 0, claimed_until = null, claimed_by = null, processed_at = now(), outcome = r.outcome
from unnest($1::bigint[], $2::bigint[], $3::text[]) as r(id, claim_count, outcome)
where o.id = r.id and o.claim_count = r.claim_count and o.processed_at is null and o.dead_at is null";

const MOVE: &str = "with gone as (
    delete from outbox_messages o using unnest($1::bigint[], $2::bigint[], $3::text[]) as r(id, claim_count, outcome)
    where o.id = r.id and o.claim_count = r.claim_count and o.processed_at is null and o.dead_at is null
    returning o.*, r.outcome as new_outcome
)
insert into outbox_finished (id, aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent, created_at,
    available_at, claim_count, retry_count, max_retries, first_missing_at, processed_at, outcome)
select id, aggregate_type, aggregate_id, operation, payload, idempotency_key, traceparent, created_at,
    available_at, claim_count + 1, retry_count, max_retries, first_missing_at, now(), new_outcome from gone";
