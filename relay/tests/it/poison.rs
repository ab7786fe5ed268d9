//! Batches in which a part of the messages can never be carried out.

use crate::{
    bad_input::{all_healthy_are_applied, healthy, reason},
    world::{Update, World, turmhaus},
};
use mongodb::bson::{Document, doc};
use relay::lane::Summary;
use serde_json::json;
use shared::message::EmailId;

const MESSAGES: usize = 200;
/// The server's limit of a document.
const LARGEST: usize = 16 << 20;

/// A message that ends badly, and how.
async fn poison(world: &World, number: usize) -> (EmailId, &'static str) {
    let aktenzeichen: &'static str = format!("poison {number}").leak();
    let update = Update { aktenzeichen, ..Update::default() };
    let client = doc! { "aktenzeichen": aktenzeichen, "final_creditor_list": [turmhaus("b")] };
    match number % 4 {
        // Its payload cannot be read.
        0 => {
            let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
            world.message("creditor_debt_update", email, json!({ "stamp": number })).await;
            return (email, "dead/permanent/1");
        }
        // Its update would make the document larger than the server takes, here for a few only: each is 16 MiB.
        1 if number < 20 => insert(world, filled(client)).await,
        // The server's validator refuses every update of its document (code 121).
        1 | 2 => insert(world, [client, doc! { "forbidden": true }].into_iter().flatten().collect()).await,
        // Nobody has decided it, so its decision, and with it the finish, is refused.
        _ => {
            insert(world, client).await;
            let email = world.commit(update).await;
            let nobody = "update outbox_messages set payload = payload || '{\"decided_by\": \"\"}' where aggregate_id = $1::bigint::text";
            world.sql.execute(nobody, &[&email]).await.unwrap();
            return (email, "dead/finish_refused/1");
        }
    }
    (world.commit(update).await, "dead/permanent/1")
}

async fn insert(world: &World, client: Document) {
    world.mongo.clients.insert_one(client).bypass_document_validation(true).await.unwrap();
}

fn filled(mut client: Document) -> Document {
    client.insert("notes", "");
    let room = LARGEST - client.to_vec().unwrap().len() - 100;
    client.insert("notes", "x".repeat(room));
    client
}

async fn refuse(world: &World, condition: Document) {
    let database = mongodb::Client::with_uri_str(&world.mongo.url).await.unwrap().database(&world.mongo.name);
    database.run_command(doc! { "collMod": "clients", "validator": condition }).await.unwrap();
}

async fn a_share_of_poison(percent: usize) {
    let world = World::new().await;
    refuse(&world, doc! { "forbidden": { "$exists": false } }).await;
    let mut sent = Vec::new();
    for number in 0..MESSAGES {
        // Spread over the batch.
        if (number + 1) * percent / 100 > number * percent / 100 {
            sent.push(poison(&world, sent.len()).await);
        } else {
            healthy(&world, number).await;
        }
    }
    let poisoned = sent.len() as u64;
    let healthy = MESSAGES as u64 - poisoned;

    let summary = world.once().await;

    assert_eq!(
        summary,
        Summary { claimed: MESSAGES as u64, applied: healthy, dead: poisoned, ..Summary::default() }
    );
    all_healthy_are_applied(&world, MESSAGES - sent.len()).await;
    let more_than_once = world.row("select count(*) from outbox_messages where claim_count <> 2").await;
    assert_eq!(more_than_once.get::<_, i64>(0), 0, "one claim and one finish each");
    for (email, state) in sent {
        let reason = reason(&world, email).await;
        assert_eq!(world.state(email).await, state, "{reason}");
        assert_eq!(world.shows(email).await, "failed/-/failed", "{reason}");
    }
}

#[tokio::test]
async fn one_poisonous_message_of_a_hundred_harms_no_other() {
    a_share_of_poison(1).await;
}

#[tokio::test]
async fn ten_poisonous_messages_of_a_hundred_harm_no_other() {
    a_share_of_poison(10).await;
}

#[tokio::test]
async fn fifty_poisonous_messages_of_a_hundred_harm_no_other() {
    a_share_of_poison(50).await;
}

#[tokio::test]
async fn when_the_server_refuses_the_newest_amount_the_next_older_is_written_and_not_superseded() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    refuse(&world, doc! { "final_creditor_list.current_debt_amount": { "$ne": 2000.0 } }).await;
    let oldest = world.commit(Update::of("1000", "2026-01-01T00:00:00Z")).await;
    let older = world.commit(Update::of("1500", "2026-01-02T00:00:00Z")).await;
    let newest = world.commit(Update::of("2000", "2026-01-03T00:00:00Z")).await;
    world.once().await;
    assert_eq!(world.state(newest).await, "dead/permanent/1");
    assert!(reason(&world, newest).await.starts_with("MongoDB error 121"));
    assert_eq!(world.state(older).await, "done/applied/0");
    assert_eq!(world.state(oldest).await, "done/superseded/0");
    assert_eq!(world.amount("b").await, Some(1500.0));
    assert_eq!(world.row("select amount::text from creditor_debts").await.get::<_, &str>(0), "1500.00");
}

#[tokio::test]
async fn a_document_at_the_servers_limit_takes_what_fits_and_names_what_does_not() {
    let world = World::new().await;
    // In the fields that are read, and beside them.
    let mut list = vec![turmhaus("b"), doc! { "id": "large", "sender_name": "" }];
    let room = LARGEST - doc! { "list": &list }.to_vec().unwrap().len() - 800;
    list[1].insert("sender_name", "x".repeat(room));
    insert(&world, doc! { "aktenzeichen": "read", "final_creditor_list": list }).await;
    insert(&world, filled(doc! { "aktenzeichen": "aside", "final_creditor_list": [turmhaus("b")] })).await;
    let mut emails = Vec::new();
    for aktenzeichen in ["read", "aside"] {
        emails.push(world.commit(Update { aktenzeichen, ..Update::default() }).await);
        healthy(&world, emails.len()).await;
    }
    world.once().await;
    all_healthy_are_applied(&world, 2).await;
    let fits = world
        .commit(Update { aktenzeichen: "read", received_at: "2026-03-01T00:00:00Z", ..Update::default() })
        .await;
    world.once().await;
    assert_eq!(world.state(emails[0]).await, "done/applied/0");
    assert_eq!(world.state(fits).await, "done/applied/0");
    assert_eq!(world.state(emails[1]).await, "dead/permanent/1");
    assert!(reason(&world, emails[1]).await.starts_with("MongoDB error 17419"));
}
