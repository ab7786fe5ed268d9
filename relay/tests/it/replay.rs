//! `relay replay`: new messages from what is known now.

use crate::world::{Update, World, turmhaus};
use mongodb::bson::doc;
use relay::{
    replay::{Manner, ReplayError, Replayed, Selection, replay},
    review::{self, Choice},
};
use serde_json::{Value, json};
use shared::message::{EmailId, Operation};
use std::num::NonZeroU32;

fn manner() -> Manner {
    Manner { cap: 1000, rate: NonZeroU32::new(10_000).unwrap(), is_dry: false, by: "clerk".into() }
}

fn of(emails: &[EmailId]) -> Selection {
    Selection { emails: emails.to_vec(), ..Selection::default() }
}

async fn ask(world: &World, selection: &Selection) -> Result<Replayed, ReplayError> {
    replay(&mut world.operator().await, selection, &manner()).await
}

/// A mail that was read, its debt update, and its client.
async fn mail(world: &World, update: Update) -> EmailId {
    let data = json!({"is_creditor_reply": true, "client_name": null, "client_aktenzeichen": update.aktenzeichen,
        "creditor_name": update.creditor_name, "debt_amount": update.amount, "reference_numbers": [], "confidence": 0.9, "summary": null});
    let email = world.commit(update).await;
    let statement = "update incoming_emails set extracted_data = $2 where id = $1";
    world.sql.execute(statement, &[&email, &data]).await.unwrap();
    let key = "update outbox_messages set idempotency_key = 'creditor_debt_update:' || aggregate_id || ':0'
        where aggregate_id = $1::bigint::text";
    world.sql.execute(key, &[&email]).await.unwrap();
    email
}

async fn written_world() -> (World, EmailId) {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = mail(&world, Update::default()).await;
    assert_eq!(world.once().await.applied, 1);
    (world, email)
}

async fn last_outcome(world: &World) -> String {
    world.row("select outcome from outbox_messages order by id desc limit 1").await.get(0)
}

/// The portal writes the list as it had it: without our fields.
async fn drop_fields(world: &World, amount: Option<f64>) {
    let mut entry = turmhaus("b");
    if let Some(amount) = amount {
        entry.insert("current_debt_amount", amount);
    }
    let list = doc! { "$set": { "final_creditor_list": [entry] } };
    world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, list).await.unwrap();
}

#[tokio::test]
async fn a_replay_of_what_is_there_changes_nothing_and_has_a_number_and_a_row_of_its_own() {
    let (world, email) = written_world().await;
    let entry = world.entries().await;
    for number in 1..=2 {
        let replayed = ask(&world, &of(&[email])).await.unwrap();
        assert_eq!((replayed.enqueued, replayed.skipped), (1, 0));
        // While it waits, once more changes nothing.
        let again = ask(&world, &of(&[email])).await.unwrap();
        assert!(again.mails[0].skipped.as_ref().unwrap().contains("waits"), "{again:?}");
        world.once().await;
        assert_eq!(last_outcome(&world).await, "already");
        let row =
            world.row("select idempotency_key, payload from outbox_messages order by id desc limit 1").await;
        assert_eq!(row.get::<_, &str>(0), format!("creditor_debt_update:{email}:replay:{number}"));
        assert_eq!(row.get::<_, Value>(1)["origin"], "replay");
    }
    assert_eq!(world.entries().await, entry);
    let acts = "select count(*), min(action), min(actor) from operator_actions where message_id is not null";
    let acts = world.row(acts).await;
    assert_eq!(
        (acts.get::<_, i64>(0), acts.get::<_, &str>(1), acts.get::<_, &str>(2)),
        (2, "replay", "clerk")
    );
}

#[tokio::test]
async fn what_the_portal_has_dropped_or_put_back_is_written_again() {
    for portal in [None, Some(5000.0)] {
        let (world, email) = written_world().await;
        let stamp = |entry: &mongodb::bson::Document| {
            entry.get_document("_relay").unwrap().get_str("stamp").unwrap().to_owned()
        };
        let before = stamp(&world.entries().await[0]);
        drop_fields(&world, portal).await;
        ask(&world, &of(&[email])).await.unwrap();
        world.once().await;
        assert_eq!(last_outcome(&world).await, "applied", "{portal:?}");
        let entry = &world.entries().await[0];
        assert_eq!(entry.get_f64("current_debt_amount").unwrap(), 1234.56);
        assert_eq!((stamp(entry), entry.get_str("contact_status").unwrap()), (before, "responded"));
        assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    }
}

#[tokio::test]
async fn a_replay_brings_back_what_the_portal_has_rewritten_with_a_later_date() {
    let (world, email) = written_world().await;
    drop_fields(&world, Some(5000.0)).await;
    let later = mongodb::bson::DateTime::parse_rfc3339_str("2026-03-01T00:00:00Z").unwrap();
    let date = doc! { "$set": { "final_creditor_list.0.response_received_at": later } };
    world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, date).await.unwrap();
    assert_eq!(world.json_of(&["reconcile", "--repair"]).await["by_drift"], json!({ "ahead": 1 }));
    world.once().await;
    assert_eq!(world.amount("b").await, Some(5000.0), "nothing is written over it without a person");
    ask(&world, &of(&[email])).await.unwrap();
    world.once().await;
    assert_eq!(last_outcome(&world).await, "applied");
    assert_eq!(world.amount("b").await, Some(1234.56));
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    assert_eq!(world.json_of(&["reconcile"]).await["mismatches_found"], 0);
}

#[tokio::test]
async fn where_only_the_mark_is_gone_nothing_is_written() {
    let (world, email) = written_world().await;
    drop_fields(&world, Some(1234.56)).await;
    let entry = world.entries().await;
    ask(&world, &of(&[email])).await.unwrap();
    world.once().await;
    assert_eq!((last_outcome(&world).await.as_str(), world.entries().await), ("already", entry));
}

#[tokio::test]
async fn an_older_mail_is_superseded_by_what_the_ledger_knows_and_shows_what_it_showed() {
    let (world, old) = written_world().await;
    mail(&world, Update::of("2000", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    drop_fields(&world, None).await;
    world.run(&format!("update incoming_emails set updated_at = '2026-01-01' where id = {old}")).await;
    ask(&world, &of(&[old])).await.unwrap();
    world.once().await;
    assert_eq!(last_outcome(&world).await, "superseded");
    assert_eq!(world.amount("b").await, None);
    let untouched = format!("select updated_at = '2026-01-01' from incoming_emails where id = {old}");
    assert!(world.row(&untouched).await.get::<_, bool>(0));
}

#[tokio::test]
async fn a_persons_decision_is_replayed_and_not_what_the_mail_said() {
    for is_kept in [true, false] {
        let world = World::new().await;
        let mut entry = turmhaus("b");
        entry.insert("current_debt_amount", 5000.0);
        world.client(vec![entry]).await;
        let email = mail(&world, Update::default()).await;
        world.once().await;
        let mut connection = world.operator().await;
        let choice = Choice { amount: "800".parse().ok(), ..Choice::default() };
        review::accept(&mut connection, email, choice, "clerk").await.unwrap();
        world.once().await;
        if !is_kept {
            world.run("delete from outbox_messages").await; // their retention is over
        }
        drop_fields(&world, Some(5000.0)).await;
        ask(&world, &of(&[email])).await.unwrap();
        world.once().await;
        assert_eq!(world.amount("b").await, Some(800.0), "kept: {is_kept}");
    }
}

#[tokio::test]
async fn what_nobody_has_read_is_read_again_unless_it_waits_or_has_no_body() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let text = "Mandant: Adler, Eva\nIhr Zeichen: 2024/118\nDie Gesamtforderung beträgt 1.234,56 EUR.";
    let email = world.email("konto@turmhaus.example", "2026-02-17T09:14:22Z".parse().unwrap()).await;
    world.sql.execute("update incoming_emails set body_text = $1, processing_status = 'failed', sync_status = 'failed', sync_error = 'x'", &[&text]).await.unwrap();
    let dry = Manner { is_dry: true, ..manner() };
    let mut connection = world.operator().await;
    let would = replay(&mut connection, &of(&[email]), &dry).await.unwrap();
    assert_eq!((would.enqueued, would.mails[0].operation), (1, Some("email_extraction")));
    assert_eq!(world.row("select count(*) from outbox_messages").await.get::<_, i64>(0), 0, "dry");
    assert_eq!(ask(&world, &of(&[email])).await.unwrap().enqueued, 1);
    assert!(
        ask(&world, &of(&[email])).await.unwrap().mails[0]
            .skipped
            .as_ref()
            .unwrap()
            .contains("still to be read")
    );
    world.once().await;
    assert_eq!(world.amount("b").await, Some(1234.56));
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");

    let unfetched = world.email("x@y.example", "2026-02-17T09:14:22Z".parse().unwrap()).await;
    let fetch = "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, dead_at, error_class)
        select 'incoming_email', id::text, 'email_fetch', '{}', 'email_fetch:' || id || ':0', now(), 'permanent' from incoming_emails where id = $1";
    world.sql.execute(fetch, &[&unfetched]).await.unwrap();
    let left = ask(&world, &of(&[unfetched])).await.unwrap();
    assert!(left.mails[0].skipped.as_ref().unwrap().contains("not been fetched"), "{left:?}");
}

#[tokio::test]
async fn what_is_rejected_no_reply_or_without_a_client_is_left_alone() {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 5000.0);
    world.client(vec![entry]).await;
    let rejected = mail(&world, Update::default()).await;
    world.once().await;
    let mut connection = world.operator().await;
    review::reject(&mut connection, rejected, "no", "clerk").await.unwrap();
    let [spam, nobody] = [mail(&world, Update::default()).await, mail(&world, Update::default()).await];
    world.run("delete from outbox_messages where processed_at is null").await;
    world.run(&format!("update incoming_emails set extracted_data = '{{\"is_creditor_reply\": false}}' where id = {spam};
        update incoming_emails set extracted_data = '{{\"is_creditor_reply\": true, \"debt_amount\": \"5.00\"}}' where id = {nobody}")).await;
    let left = ask(&world, &of(&[rejected, spam, nobody])).await.unwrap();
    let reasons: Vec<&str> = left.mails.iter().map(|mail| mail.skipped.as_deref().unwrap()).collect();
    assert!(
        reasons[0].contains("rejected")
            && reasons[1].contains("no creditor")
            && reasons[2].contains("no client"),
        "{reasons:?}"
    );
    assert_eq!((left.enqueued, left.skipped), (0, 3));
}

#[tokio::test]
async fn what_a_person_has_discarded_stays_unwritten() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = mail(&world, Update::default()).await;
    world.run("update outbox_messages set processed_at = now(), outcome = 'discarded'").await;
    let replayed = ask(&world, &of(&[email])).await.unwrap();
    assert_eq!((replayed.enqueued, replayed.skipped), (0, 1));
    assert_eq!(replayed.mails[0].skipped.as_deref(), Some("a person has discarded it: message 1"));
}

#[tokio::test]
async fn a_selection_is_a_client_a_time_or_ids_and_a_large_one_is_refused_with_its_size() {
    let (world, first) = written_world().await;
    let other = mail(&world, Update { aktenzeichen: "7777", ..Update::default() }).await;
    let second = mail(&world, Update::of("2000", "2026-03-01T00:00:00Z")).await;
    // One that was written to the client without naming its number.
    let by_name = mail(&world, Update::of("2100", "2026-04-01T00:00:00Z")).await;
    world.once().await;
    world.run(&format!("update incoming_emails set extracted_data = extracted_data - 'client_aktenzeichen' where id = {by_name};
        update incoming_emails set created_at = now() - interval '3 hours' where id = {first}")).await;
    let mut connection = world.operator().await;
    let dry = Manner { is_dry: true, ..manner() };
    let mut selected = async |selection: Selection| {
        let replayed = replay(&mut connection, &selection, &dry).await.unwrap();
        replayed.mails.iter().map(|mail| mail.email_id).collect::<Vec<_>>()
    };
    for number in ["2024/118", "2024_118"] {
        let client = Some(number.to_owned());
        assert_eq!(selected(Selection { client, ..Selection::default() }).await, [first, second, by_name]);
    }
    let hours = |hours: i64| Some(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours));
    assert_eq!(
        selected(Selection { since: hours(2), ..Selection::default() }).await,
        [other, second, by_name]
    );
    let until = Selection { since: hours(4), until: hours(2), ..Selection::default() };
    assert_eq!(selected(until).await, [first]);
    let unread = Selection { operation: Some(Operation::EmailExtraction), ..of(&[first, second]) };
    assert!(selected(unread).await.is_empty());

    let since = Selection { since: hours(4), ..Selection::default() };
    let capped = replay(&mut connection, &since, &Manner { cap: 3, ..manner() }).await;
    assert!(matches!(capped, Err(ReplayError::TooMany { size: 4, cap: 3 })), "{capped:?}");
    assert!(
        matches!(ask(&world, &of(&[first, 99, 98])).await, Err(ReplayError::NoMail(ids)) if ids == "99, 98")
    );
    let narrowed = Selection { since: hours(4), ..of(&[first, 99]) };
    assert!(matches!(ask(&world, &narrowed).await, Err(ReplayError::NoMail(ids)) if ids == "99"));
    let nobody = Selection { client: Some("1/1".into()), ..Selection::default() };
    assert!(matches!(ask(&world, &nobody).await, Err(ReplayError::NoClient(_))));
    assert_eq!(
        world.row("select count(*) from operator_actions").await.get::<_, i64>(0),
        0,
        "nothing of all that"
    );
}

#[tokio::test]
async fn the_command_needs_a_selection_and_tells_each_mail() {
    let (world, email) = written_world().await;
    let id = email.to_string();
    for wrong in [
        vec!["replay"],
        vec!["replay", "--until", "2h"],
        vec!["replay", "--since", "yesterday"],
        vec!["replay", "--email", "1", "--operation", "email_fetch"],
        vec!["replay", "--email", "1", "--rate", "0"],
        vec!["replay", "--email", "1", "--rate", "2000000000"],
    ] {
        assert_eq!(world.relay(&wrong).await.0, 2, "{wrong:?}");
    }
    assert_eq!(world.relay(&["replay", "--since", "1h", "--until", "2h"]).await.0, 1);
    let (code, said, _) = world.relay(&["replay", "--since", "1h", "--dry-run"]).await;
    assert!(code == 0 && said.contains("1 would be replayed; nothing was changed"), "{said}");
    let (code, said, _) = world.relay(&["replay", "--email", &id]).await;
    assert!(code == 0 && said.contains(": creditor_debt_update\n1 replayed, 0 left alone"), "{said}");
    let json: Value =
        serde_json::from_str(&world.relay(&["replay", "--client", "2024/118", "--json"]).await.1).unwrap();
    assert_eq!((&json["enqueued"], &json["mails"][0]["email_id"]), (&0.into(), &email.into()));
    let told = world.relay(&["explain", &id]).await.1;
    assert!(told.matches("creditor_debt_update enqueued").count() == 2, "{told}");
}
