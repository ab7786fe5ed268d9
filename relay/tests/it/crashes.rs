//! Relays that are killed: wherever it hits them, the end is that of an undisturbed run.
//!
//! The points are found in the traffic, by wires before both servers; the program knows nothing of them.

use crate::{
    fleet::relay,
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use mongodb::bson::{Document, doc, oid::ObjectId};
use std::{pin::pin, process::Stdio, time::Duration};
use testkit::{HoldPoint, Wire};
use tokio::{process::Child, time::timeout};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    ClaimCommitted,
    ClientsFound,
    UpdateAcknowledged,
    FinishSent,
    FinishCommitted,
}

impl Point {
    fn hold(self, postgres: &Wire, mongodb: &Wire) -> HoldPoint {
        match self {
            // The payloads come with the reply, after the commit.
            Point::ClaimCommitted => postgres.hold_reply(b"new_debt_amount"),
            Point::ClientsFound => mongodb.hold_reply(NUMBER),
            // Nothing of the finish has come to the server: this is its first, so the statement's text comes before all else.
            Point::UpdateAcknowledged => postgres.hold_request(b"fenced as ("),
            // Nothing but a finish says the number as the portal writes it, in the rows for the ledger.
            Point::FinishSent => postgres.hold_request(NUMBER),
            Point::FinishCommitted => postgres.hold_reply_to(NUMBER),
        }
    }
}

const NUMBER: &[u8] = b"2024_118";

/// What a run leaves behind, without the times and counters that no two runs have in common.
#[derive(Debug, PartialEq)]
struct Traces {
    documents: Vec<Document>,
    messages: Vec<String>,
    mails: Vec<String>,
    ledger: Vec<String>,
    decisions: Vec<String>,
}

impl Traces {
    async fn of(world: &World) -> Traces {
        let mut documents = Vec::new();
        let mut found = world.mongo.clients.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap();
        while found.advance().await.unwrap() {
            documents.push(found.deserialize_current().unwrap());
        }
        let messages = "select to_jsonb(o) - '{idempotency_key,created_at,available_at,processed_at,claim_count}'::text[]
            || jsonb_build_object('done', processed_at is not null, 'outcome', replace(outcome, 'already', 'applied'))
            from outbox_messages o order by id";
        let mails =
            "select to_jsonb(m) - '{webhook_id,created_at,updated_at,processed_at,matched_at}'::text[]
            from incoming_emails m order by id";
        let ledger = "select to_jsonb(l) - 'applied_at' from creditor_debts l order by client_id, entry_key";
        // Whoever comes after a crash finds what was written before it, and says so.
        let decisions = "select to_jsonb(d) - '{id,at}'::text[] || jsonb_build_object(
                'decision', replace(decision, 'already', 'applied'),
                'reason', case decision when 'held_for_review' then reason end,
                'old_amount', case when decision in ('applied', 'already') then old_amount end)
            from decisions d order by message_id, id";
        Traces {
            documents,
            messages: rows(world, messages).await,
            mails: rows(world, mails).await,
            ledger: rows(world, ledger).await,
            decisions: rows(world, decisions).await,
        }
    }
}

async fn rows(world: &World, statement: &str) -> Vec<String> {
    let rows = world.sql.query(&format!("select r::text from ({statement}) t (r)"), &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Two clients, and of the first one: two mails about one entry, one about another, one that a person has to see.
async fn world() -> World {
    let world = World::new().await;
    let clients = [
        (1, "2024_118", vec![seeblick("a"), turmhaus("b")]),
        (2, "2025_7", vec![seeblick("c"), turmhaus("d")]),
    ];
    for (id, number, entries) in clients {
        let document = doc! { "_id": ObjectId::from_bytes([id; 12]), "aktenzeichen": number, "final_creditor_list": entries };
        world.mongo.clients.insert_one(document).await.unwrap();
    }
    world.commit(Update::of("1200", "2026-01-01T00:00:00Z")).await;
    world.commit(Update::of("1300", "2026-01-02T00:00:00Z")).await;
    world.commit(Update { creditor_email: "post@seeblick.example", ..Update::default() }).await;
    world.commit(Update { confidence: Some(0.5), ..Update::of("1400", "2026-01-03T00:00:00Z") }).await;
    world
}

/// Mails that come after the crash, or while the killed relay's rival is at work.
async fn commit_later(world: &World) {
    world.commit(Update { aktenzeichen: "2025/7", ..Update::of("77.70", "2026-01-03T00:00:00Z") }).await;
    let seeblick =
        Update { creditor_email: "post@seeblick.example", ..Update::of("88.80", "2026-01-04T00:00:00Z") };
    world.commit(Update { aktenzeichen: "2025/7", ..seeblick }).await;
}

async fn undisturbed() -> Traces {
    let world = world().await;
    commit_later(&world).await;
    world.once().await;
    Traces::of(&world).await
}

/// Kills a relay at the point and lets another one end the work: one that comes afterwards, or one that was there all the time.
async fn after_a_kill_at(point: Point, workers: usize) -> Traces {
    let world = world().await;
    let postgres = Wire::before(&world.database.url).await;
    let (mongodb_url, mongodb) = world.mongo_wire().await;
    let held = point.hold(&postgres, &mongodb);
    let mut victim = victim(&world, &mongodb_url, &postgres.instead(&world.relay_url()));
    let pid = victim.id().unwrap();
    let go_on = held.reached().await;
    is_at(point, &world).await;

    let mut survivor = None;
    if workers == 2 {
        survivor = Some(relay(&world, &world.mongo.url));
        commit_later(&world).await;
        // What the held relay has claimed as well is left to the kill.
        let others = format!(
            "select count(*) = 0 from outbox_messages where processed_at is null and coalesce(claimed_by, '') not like '%:{pid}'"
        );
        until(|| async { world.row(&others).await.get(0) }).await;
    }
    victim.kill().await.unwrap();
    if workers == 1 {
        commit_later(&world).await;
        survivor = Some(relay(&world, &world.mongo.url));
    }
    end_leases_of(&world, pid).await;
    let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
    until(|| async { world.row(left).await.get(0) }).await;

    // What the killed relay has sent arrives only now, and is carried out by a server that knows nothing of the kill.
    drop(go_on);
    survivor.unwrap().kill().await.unwrap();
    let gone = "select count(*) = 0 from pg_stat_activity where datname = current_database() and application_name = 'relay'";
    until(|| async { world.row(gone).await.get(0) }).await;
    Traces::of(&world).await
}

fn victim(world: &World, mongodb_url: &str, database_url: &str) -> Child {
    let mut command = world.program(mongodb_url, &["run"]);
    command.env("DATABASE_URL", database_url).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap()
}

/// Waits until the servers are as they are at the point.
async fn is_at(point: Point, world: &World) {
    let state = match point {
        Point::FinishCommitted => "select bool_and(processed_at is not null) from outbox_messages",
        Point::ClaimCommitted | Point::ClientsFound | Point::UpdateAcknowledged | Point::FinishSent => {
            "select bool_and(processed_at is null and claimed_until > now()) from outbox_messages"
        }
    };
    until(|| async { world.row(state).await.get(0) }).await;
    assert_eq!(world.amount("b").await.is_some(), point >= Point::UpdateAcknowledged, "{point:?}");
}

/// As if the lease had ended: that takes 15 s, and nothing is learnt from waiting for it.
async fn end_leases_of(world: &World, pid: u32) {
    let statement = format!(
        "update outbox_messages set claimed_until = now() - interval '1 second' where claimed_by like '%:{pid}'"
    );
    world.run(&statement).await;
}

async fn a_kill_leaves_no_trace(point: Point) {
    let expected = undisturbed().await;
    for workers in [1, 2] {
        assert_eq!(after_a_kill_at(point, workers).await, expected, "{point:?}, {workers} workers");
    }
}

#[tokio::test]
async fn a_relay_killed_after_its_claim_was_committed_leaves_no_trace() {
    a_kill_leaves_no_trace(Point::ClaimCommitted).await;
}

#[tokio::test]
async fn a_relay_killed_after_the_clients_were_found_leaves_no_trace() {
    a_kill_leaves_no_trace(Point::ClientsFound).await;
}

#[tokio::test]
async fn a_relay_killed_after_the_update_was_acknowledged_leaves_no_trace() {
    a_kill_leaves_no_trace(Point::UpdateAcknowledged).await;
}

#[tokio::test]
async fn a_relay_killed_after_its_finish_was_sent_leaves_no_trace_even_if_it_arrives_much_later() {
    a_kill_leaves_no_trace(Point::FinishSent).await;
}

#[tokio::test]
async fn a_relay_killed_after_its_finish_was_committed_leaves_no_trace() {
    a_kill_leaves_no_trace(Point::FinishCommitted).await;
}

const ENTRIES: usize = 30;
const ROUNDS: usize = 41; // a prime, and more than are ever committed

/// One more update for every entry; each gets its amounts in another shuffled order. Amounts never fall with time.
async fn commit_round(world: &World, round: usize, newest: &mut [usize]) {
    for (at, newest) in newest.iter_mut().enumerate() {
        let minute = (round * 7 + at * 3) % ROUNDS;
        *newest = minute.max(*newest);
        let update = Update {
            amount: Some(format!("{}.25", 1000 + minute)),
            received_at: format!("2026-01-01T00:{minute:02}:00Z").leak(),
            creditor_email: format!("e{at}@turmhaus.example").leak(),
            ..Update::default()
        };
        world.commit(update).await;
    }
}

#[tokio::test]
async fn two_relays_of_which_one_is_killed_in_the_middle_end_in_the_newest_amount_of_every_entry() {
    let world = World::new().await;
    let entry = |at| doc! { "id": format!("e{at}"), "sender_email": format!("e{at}@turmhaus.example") };
    world.client((0..ENTRIES).map(entry).collect()).await;
    let (mongodb_url, wire) = world.mongo_wire().await;
    let mut victim = relay(&world, &mongodb_url);
    let _survivor = relay(&world, &world.mongo.url);
    let (mut newest, mut round) = ([0; ENTRIES], 0);
    while round < 5 {
        commit_round(&world, round, &mut newest).await;
        round += 1;
    }
    // In the middle of a batch: claimed, and the update command on its way.
    let mut reached = pin!(wire.hold_request(b"\x02update\0").reached());
    while timeout(Duration::ZERO, &mut reached).await.is_err() && round < ROUNDS - 5 {
        commit_round(&world, round, &mut newest).await;
        round += 1;
    }
    let pid = victim.id().unwrap();
    victim.kill().await.unwrap();
    for last in round..round + 5 {
        commit_round(&world, last, &mut newest).await;
    }
    let held = "select count(*) > 0 from outbox_messages where claimed_by like '%:";
    assert!(
        world.row(&format!("{held}{pid}'")).await.get::<_, bool>(0),
        "it was killed with messages in its hands"
    );
    end_leases_of(&world, pid).await;
    let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
    until(|| async { world.row(left).await.get(0) }).await;

    for (at, minute) in newest.iter().enumerate() {
        assert_eq!(world.amount(&format!("e{at}")).await, Some(1000.25 + *minute as f64), "e{at}");
    }
    let odd = "select count(*) from outbox_messages o where dead_at is not null or retry_count <> 0
        or outcome not in ('applied', 'already', 'superseded') or (select count(*) from decisions where message_id = o.id) <> 1";
    assert_eq!(world.row(odd).await.get::<_, i64>(0), 0);
}
