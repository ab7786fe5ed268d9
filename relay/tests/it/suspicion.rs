//! A message that crashes every process that takes it: the others are done all the same, and in the end it is out of the way.

use crate::{
    bad_input::{healthy, reason},
    feed::Relay,
    outages::until,
    world::{Update, World, turmhaus},
};
use mongodb::bson::doc;
use testkit::Wire;

/// The number of the client that no relay survives asking for.
const CRASHER: &str = "fatal";

/// Starts a relay that is killed as soon as it asks for the client of the crasher; how many messages it held then.
async fn crash(world: &World, wire: &Wire, mongodb_url: &str) -> i64 {
    let asked = wire.hold_request(CRASHER.as_bytes());
    let relay = Relay::start(world, &[("MONGODB_URL", mongodb_url)]);
    let _go_on = asked.reached().await;
    let held = format!("select count(*) from outbox_messages where claimed_by like '%:{}'", relay.pid());
    let held = world.row(&held).await.get(0);
    let _ = relay.kill().await;
    held
}

async fn end_all_leases(world: &World) {
    let ended = "update outbox_messages set claimed_until = now() - interval '1 second' where claimed_until is not null";
    world.run(ended).await;
}

#[tokio::test]
async fn a_message_that_crashes_every_relay_is_soon_taken_alone_and_dead_at_the_seventh_claim() {
    let world = World::new().await;
    let client = doc! { "aktenzeichen": CRASHER, "final_creditor_list": [turmhaus("b")] };
    world.mongo.clients.insert_one(client).await.unwrap();
    let crasher = world.commit(Update { aktenzeichen: CRASHER, ..Update::default() }).await;
    for number in 0..5 {
        healthy(&world, number).await;
    }
    let (mongodb_url, wire) = world.mongo_wire().await;
    let claims = "select claim_count from outbox_messages order by id limit 1";
    for claim in 1..=6 {
        let held = crash(&world, &wire, &mongodb_url).await;
        assert_eq!(held, if claim <= 3 { 6 } else { 1 }, "messages in the hands of relay {claim}");
        assert_eq!(world.row(claims).await.get::<_, i64>(0), claim);
        assert_eq!(world.state(crasher).await, "waiting//0", "a crash is nobody's failed attempt");
        if claim == 4 {
            // Nobody may take the crasher before its lease ends, and its companions of the first three crashes are clean.
            let relay = Relay::start(&world, &[]);
            let left =
                "select count(*) = 1 from outbox_messages where processed_at is null and dead_at is null";
            until(|| async { world.row(left).await.get(0) }).await;
            assert_eq!(relay.terminate().await, Some(0));
            healthy(&world, 5).await; // comes while the crasher is under suspicion
        }
        end_all_leases(&world).await;
    }

    let mut last = Relay::start(&world, &[]);
    let left = "select count(*) = 0 from outbox_messages where processed_at is null and dead_at is null";
    until(|| async { world.row(left).await.get(0) }).await;
    assert_eq!(world.state(crasher).await, "dead/crashed_worker/1");
    assert_eq!(world.shows(crasher).await, "failed/-/failed");
    assert!(reason(&world, crasher).await.starts_with("6 workers in a row"));
    assert_eq!(world.row(claims).await.get::<_, i64>(0), 8, "seven claims and one finish");
    let untouched = doc! { "aktenzeichen": CRASHER, "final_creditor_list": [turmhaus("b")] };
    assert_eq!(
        world.mongo.clients.count_documents(untouched).await.unwrap(),
        1,
        "it has never been carried out"
    );
    let others = "select count(*) from outbox_messages where processed_at is not null and retry_count = 0
        and unfinished_claims = 0 and outcome in ('applied', 'already')";
    assert_eq!(world.row(others).await.get::<_, i64>(0), 6);
    assert!(last.is_at_work());
}
