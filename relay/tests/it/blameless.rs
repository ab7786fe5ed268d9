//! Messages that are not to blame: what looks odd in a document, a neighbour that is refused, or a stamp that is shared costs no
//! attempt. And what a failure is called.

use crate::{
    bad_input::{Case, check, reason},
    world::{Update, World, turmhaus},
};
use mongodb::bson::{Bson, Document, doc};
use relay::lane::Summary;
use serde_json::json;

const APPLIED: &str = "done/applied/0";

fn with(name: &'static str, fields: Document, state: &'static str) -> Case {
    let mut entry = turmhaus("b");
    entry.extend(fields);
    let written = (state == APPLIED).then_some(0);
    Case { name, document: doc! { "final_creditor_list": [entry] }, state, reason: "", written }
}

/// A condition on a field looks inside arrays.
#[tokio::test]
async fn a_mark_that_is_a_list_counts_as_missing() {
    check(vec![
        with("stamp is a list", doc! { "_relay": { "stamp": ["99999999999999999999"] } }, APPLIED),
        with("mark is a list", doc! { "_relay": [{ "stamp": "99999999999999999999" }] }, APPLIED),
    ])
    .await;
}

/// The driver reads a document such as {"$date": ..} as what extended JSON means by it; EJSON.stringify or JSON.stringify of a
/// Decimal128 in the portal leaves exactly that.
#[tokio::test]
async fn documents_that_look_like_extended_json_are_read_as_they_are() {
    check(vec![
        with("date", doc! { "response_received_at": { "$date": "2026-01-01T00:00:00Z" } }, APPLIED),
        with("oid", doc! { "response_received_at": { "$oid": "5f2f2f2f2f2f2f2f2f2f2f2f" } }, APPLIED),
        with(
            "decimal",
            doc! { "current_debt_amount": { "$numberDecimal": "1000" } },
            "done/held_for_review/0",
        ),
    ])
    .await;
}

/// The server compares nothing with undefined.
#[tokio::test]
async fn an_undefined_date_does_not_make_the_message_run_into_its_retries() {
    check(vec![with("undefined", doc! { "response_received_at": Bson::Undefined }, APPLIED)]).await;
}

/// Each refused newer amount costs a round.
#[tokio::test]
async fn three_refused_newer_amounts_cost_the_healthy_older_one_no_attempt() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let database = mongodb::Client::with_uri_str(&world.mongo.url).await.unwrap().database(&world.mongo.name);
    let validator = doc! { "final_creditor_list.current_debt_amount": { "$not": { "$gte": 2000.0 } } };
    database.run_command(doc! { "collMod": "clients", "validator": validator }).await.unwrap();
    let healthy = world.commit(Update::of("1000", "2026-01-01T00:00:00Z")).await;
    for received_at in ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"] {
        world.commit(Update::of("2000", received_at)).await;
    }
    world.once().await;
    assert_eq!(world.state(healthy).await, APPLIED, "{}", reason(&world, healthy).await);
}

#[tokio::test]
async fn four_messages_of_one_held_stamp_count_no_attempt() {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 5000);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    for _ in 0..3 {
        let payload = world.row("select payload from outbox_messages limit 1").await.get(0);
        world.message("creditor_debt_update", email, payload).await;
    }
    assert_eq!(world.once().await, Summary { claimed: 4, held: 4, ..Summary::default() });
}

/// A write error inside a reply has no codeName.
#[tokio::test]
async fn a_refused_update_is_told_with_the_name_of_the_code() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let database = mongodb::Client::with_uri_str(&world.mongo.url).await.unwrap().database(&world.mongo.name);
    let validator = doc! { "final_creditor_list.current_debt_amount": { "$exists": false } };
    database.run_command(doc! { "collMod": "clients", "validator": validator }).await.unwrap();
    let email = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(reason(&world, email).await, "MongoDB error 121 DocumentValidationFailure");
}

#[tokio::test]
async fn an_unreadable_payload_is_told_with_the_name_of_the_field() {
    let world = World::new().await;
    let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    world
        .message("creditor_debt_update", email, json!({ "email_id": 1, "creditor_email": "a@b.example" }))
        .await;
    world.once().await;
    let reason = reason(&world, email).await;
    assert_eq!(reason, "the payload cannot be read: missing field `received_at`");
    let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    let payload =
        json!({ "email_id": email, "creditor_email": "a@b.example", "extraction_confidence": "gewiss" });
    world.message("creditor_debt_update", email, payload).await;
    world.once().await;
    assert_eq!(
        crate::bad_input::reason(&world, email).await,
        "the payload cannot be read: extraction_confidence is not as expected"
    );
}
