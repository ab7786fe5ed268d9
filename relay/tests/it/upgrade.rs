//! `relay migrate` from earlier schemas, with messages in every state, under load, and beside somebody who holds a lock.

use crate::{bad_input::healthy, end_to_end::Ingest, feed::Relay, outages::until, world::World};
use mongodb::bson::doc;
use serde_json::{Value, json};
use shared::postgres::schema_of_this_build;
use std::{cell::Cell, process::Stdio, time::Duration};
use testkit::{Database, MongoDatabase};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Child,
    time::interval,
};

/// Messages of before, ten in each of six states.
const BEFORE: usize = 60;

/// What the relays of before have left behind: given to nobody, held by one that has crashed, for a moment still or no longer, waiting
/// for the next attempt, parked, dead, done.
const STATES: [&str; 5] = [
    "claimed_until = now() - interval '1 second', claimed_by = 'gone:1', claim_count = 1, unfinished_claims = 1",
    "claimed_until = now() + interval '5 seconds', claimed_by = 'gone:2', claim_count = 1, unfinished_claims = 1",
    "deferred = true, retry_count = 1, claim_count = 2, error_class = 'transient', error_message = 'x'",
    "dead_at = now(), retry_count = 6, claim_count = 12, error_class = 'permanent', error_message = 'x'",
    "processed_at = now(), outcome = 'applied', claim_count = 2",
];

/// A world whose database is an earlier version's, with messages of it.
async fn left_by(version: i32) -> World {
    let database = Database::at_version(version).await;
    let (mongo, sql) = (MongoDatabase::new().await, database.client().await);
    let world = World { database, mongo, sql };
    for number in 0..BEFORE {
        healthy(&world, number).await;
    }
    for (state, set) in STATES.into_iter().enumerate() {
        world.run(&format!("update outbox_messages set {set} where id % 6 = {state}")).await;
    }
    world.run("update incoming_emails m set processing_status = 'failed', processing_error = 'x', sync_status = 'failed', sync_error = 'x'
        from outbox_messages o where o.dead_at is not null and m.id = o.aggregate_id::bigint").await;
    world
}

fn migration(world: &World) -> Child {
    world.program(&world.mongo.url, &["migrate"]).stdout(Stdio::null()).spawn().unwrap()
}

async fn ends_well(mut migration: Child) {
    assert!(migration.wait().await.unwrap().success());
}

/// A sender as providers are: whatever is not stored is sent again, with the same key.
async fn stored(ingest: &Ingest, number: usize) {
    let body = json!({
        "client_name": "Adler, Eva", "client_aktenzeichen": format!("new {number}"), "creditor_email": "konto@turmhaus.example", "new_debt_amount": "1234.56",
        "creditor_name": "Turmhaus Kontor GmbH", "received_at": "2026-02-17T10:14:22+01:00",
    });
    loop {
        let (head, answer): (String, Value) =
            ingest.debt_update(&format!("key {number}"), &body.to_string()).await;
        if head.starts_with("HTTP/1.1 200 ") {
            return;
        }
        let is_for_later = head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: ");
        assert!(is_for_later, "{head} {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything that is not done ends, well and once; what was done is as it was.
async fn all_end_well(world: &World, messages: i64) {
    let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
    until(|| async { world.row(left).await.get(0) }).await;
    let (code, _, stderr) =
        world.relay(&["dead-letters", "requeue", "--operation", "creditor_debt_update"]).await;
    assert_eq!(code, 0, "{stderr}");
    let undone = "select count(*) = 0 from outbox_messages where processed_at is null";
    until(|| async { world.row(undone).await.get(0) }).await;
    let counts = "select count(*), count(*) filter (where claim_count = 2 and d.count is null),
            count(*) filter (where outcome = 'applied' and d.count = 1 and sync_status = 'synced'), (select count(*) from creditor_debts)
        from outbox_messages o join incoming_emails m on m.id = o.aggregate_id::bigint
        left join (select message_id, count(*) from decisions group by message_id) d on d.message_id = o.id";
    let row = world.row(counts).await;
    let done = BEFORE as i64 / 6;
    let counts = [0, 1, 2, 3].map(|column| row.get::<_, i64>(column));
    assert_eq!(
        counts,
        [messages, done, messages - done, messages - done],
        "all, done before, well ended, ledger"
    );
    let written = doc! { "final_creditor_list.current_debt_amount": 1234.56 };
    assert_eq!(world.mongo.clients.count_documents(written).await.unwrap(), (messages - done) as u64);
}

/// The programs of this version are there already and wait for their schema; so do senders, and the programs of before go on storing.
async fn an_upgrade_under_load(version: i32) {
    let world = left_by(version).await;
    let relays: Vec<Relay> = (0..2).map(|_| Relay::start(&world, &[])).collect();
    for relay in &relays {
        relay.says("run `relay migrate`").await;
    }
    let ingest = Ingest::over(&world).await;
    let senders = async {
        for number in 0..30 {
            let client = doc! { "aktenzeichen": format!("new {number}"), "firstName": "Eva", "lastName": "Adler", "final_creditor_list": [crate::world::turmhaus("b")] };
            world.mongo.clients.insert_one(client).await.unwrap();
            stored(&ingest, number).await;
        }
    };
    let is_over = Cell::new(false);
    let load = async {
        let (mut number, mut pace) = (BEFORE, interval(Duration::from_millis(10)));
        while !is_over.get() {
            pace.tick().await;
            healthy(&world, number).await;
            number += 1;
        }
        number
    };
    let upgrade = async {
        ends_well(migration(&world)).await;
        is_over.set(true);
    };
    let ((), number, ()) = tokio::join!(senders, load, upgrade);
    all_end_well(&world, number as i64 + 30).await;
    for relay in relays {
        assert_eq!(relay.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn the_previous_schema_is_upgraded_under_load_and_every_message_ends_well_and_once() {
    an_upgrade_under_load(schema_of_this_build() as i32 - 1).await;
}

#[tokio::test]
async fn a_much_older_schema_is_upgraded_under_load_and_every_message_ends_well_and_once() {
    an_upgrade_under_load(9).await;
}

/// As a dump or a long report does: whoever stores meanwhile goes past it, and must not stand behind the migration for good.
#[tokio::test]
async fn a_migration_gives_way_to_a_session_that_holds_a_table_and_to_those_behind_it_and_goes_on_later() {
    let world = left_by(9).await;
    let holder = world.database.client().await;
    holder
        .batch_execute("begin; select count(*) from outbox_messages; select count(*) from incoming_emails")
        .await
        .unwrap();
    let mut migration = migration(&world);
    let mut lines = BufReader::new(migration.stderr.take().unwrap()).lines();
    let waits = async || {
        let statement = "select count(*) > 0 from pg_stat_activity
            where datname = current_database() and application_name = 'migrate' and wait_event_type = 'Lock'";
        until(|| async { world.row(statement).await.get(0) }).await;
    };
    waits().await;
    // Behind its request for the lock: until it gives way, and no longer.
    healthy(&world, BEFORE).await;
    let mut gave_way = false;
    while let (false, Some(line)) = (gave_way, lines.next_line().await.unwrap()) {
        gave_way = line.contains("the migration waits for others' statements; it tries again");
    }
    assert!(gave_way);
    // The holder still holds, and nothing of the migration is there.
    healthy(&world, BEFORE + 1).await;
    let version = "select max(version) from refinery_schema_history";
    assert_eq!(world.row(version).await.get::<_, i32>(0), 9);
    holder.batch_execute("rollback").await.unwrap();
    ends_well(migration).await;
    assert_eq!(world.row(version).await.get::<_, i32>(0), schema_of_this_build() as i32);
}
