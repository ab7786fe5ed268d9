//! Postgres restored to an earlier point under ingest and relays that go on, while MongoDB keeps what was written since: what is lost is
//! reported entry by entry, nothing is written over or fenced out without a word, and what providers deliver again ends right.

use crate::{
    end_to_end::Ingest,
    feed::Relay,
    outages::until,
    world::{Update, World, turmhaus},
};
use mongodb::bson::{Document, doc};
use relay::review;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use testkit::Database;

/// What an operator runs before anything is started: no number of a lost mail or message is given out again.
const MOVE_ON: &str = "select setval(id, nextval(id) + 10000)
    from unnest(array['incoming_emails_id_seq', 'outbox_messages_id_seq']::regclass[]) id";

const ENTRIES: [&str; 5] = ["a", "b", "c", "d", "e"];

struct Firm {
    world: World,
    ingest: Ingest,
    relays: Vec<Relay>,
}

/// The mail of a creditor, as its provider delivers it, again and again the same.
fn mail(entry: &str, euros: u32, time: &str) -> String {
    let text = format!(
        "Sehr geehrte Damen und Herren,\n\nin der Sache Adler, Eva (Ihr Aktenzeichen: 2024/118) beträgt unsere Gesamtforderung \
         derzeit {euros},00 EUR.\n\nMit freundlichen Grüßen"
    );
    json!({
        "ticket_id": "1", "webhook_id": format!("{entry}-{time}"), "from_email": format!("konto@{entry}.example"), "from_name": entry,
        "subject": "Forderungsaufstellung", "body_text": text, "received_at": format!("2026-02-17T{time}:00Z"),
    })
    .to_string()
}

impl Firm {
    async fn new() -> Firm {
        let world = World::new().await;
        let entry = |id: &str| {
            let mut entry = turmhaus(id);
            entry.insert("sender_email", format!("konto@{id}.example"));
            entry
        };
        world.client(ENTRIES.map(entry).to_vec()).await;
        let ingest = Ingest::over(&world).await;
        let relays = (0..2).map(|_| Relay::start(&world, &[])).collect();
        Firm { world, ingest, relays }
    }

    /// Delivers a mail and waits until nothing is on its way any more: the mail's number, and what its debt update came to.
    async fn delivered(&self, mail: &str) -> (i64, String) {
        let answer = self.ingest.webhook_until_stored(mail).await;
        // a first attempt may have been stored, and its answer lost with its connection
        assert!(answer["status"] == "accepted" || answer["status"] == "duplicate", "{answer}");
        let email_id = answer["email_id"].as_i64().unwrap();
        self.is_quiet().await;
        let outcome = "select outcome from outbox_messages where idempotency_key = 'creditor_debt_update:' || $1::bigint || ':0'";
        (email_id, self.world.sql.query_one(outcome, &[&email_id]).await.unwrap().get(0))
    }

    async fn is_quiet(&self) {
        let left = "select count(*) = 0 from outbox_messages where processed_at is null";
        until(|| async { self.world.row(left).await.get(0) }).await;
    }

    async fn applied(&self, mail: &str) -> i64 {
        let (email_id, outcome) = self.delivered(mail).await;
        assert_eq!(outcome, "applied");
        email_id
    }

    async fn backup(&mut self) -> Database {
        self.world.backup().await
    }

    async fn restore(&mut self, backup: &Database) {
        self.world.restore(backup).await;
        // The pool of ingest finds its connections gone, one by one.
        let ready = "select count(*) > 0 from pg_stat_activity where datname = current_database() and application_name = 'relay-listen'";
        until(|| async { self.world.row(ready).await.get(0) }).await;
    }

    /// The amounts in MongoDB.
    async fn amounts(&self) -> Vec<Option<f64>> {
        let entries = self.world.entries().await;
        let mut amounts: BTreeMap<&str, Option<f64>> = BTreeMap::new();
        for entry in &entries {
            amounts.insert(entry.get_str("id").unwrap(), entry.get_f64("current_debt_amount").ok());
        }
        amounts.into_values().collect()
    }

    /// What the portal does that writes the list again and knows no mark.
    async fn drops_mark(&self, id: &str) {
        let filter = doc! { "final_creditor_list.id": id };
        let change = doc! { "$unset": { "final_creditor_list.$._relay": "" } };
        self.world.mongo.clients.update_one(filter, change).await.unwrap();
    }

    /// `entry drift ledger MongoDB`, by entry.
    async fn reported(&self) -> Vec<String> {
        let report = self.world.json_of(&["reconcile", "--repair"]).await;
        assert_eq!(
            (&report["status"], &report["auto_repaired"]),
            (&json!("completed"), &json!(0)),
            "{report}"
        );
        let line = |finding: &Value| {
            let word = |name: &str| finding[name].as_str().unwrap_or("-").to_owned();
            let (entry, drift) = (word("entry_key"), word("drift"));
            format!("{entry} {drift} {} {}", word("ledger_amount"), word("mongodb_amount"))
        };
        let mut lines: Vec<String> = report["findings"].as_array().unwrap().iter().map(line).collect();
        lines.sort();
        lines
    }

    async fn ends(self) {
        for relay in self.relays {
            assert_eq!(relay.terminate().await, Some(0));
        }
    }
}

#[tokio::test]
async fn what_a_restored_postgres_has_lost_is_reported_and_nothing_is_written_over_by_what_is_older() {
    let mut firm = Firm::new().await;
    let kept = [mail("a", 1000, "09:00"), mail("c", 1010, "09:00"), mail("e", 1020, "09:00")];
    for mail in &kept {
        firm.applied(mail).await;
    }
    let backup = firm.backup().await;
    let lost = [mail("a", 1300, "10:00"), mail("b", 1400, "10:00"), mail("c", 1500, "10:00")];
    let mut lost_ids = Vec::new();
    for mail in &lost {
        lost_ids.push(firm.applied(mail).await);
    }
    firm.restore(&backup).await;
    firm.drops_mark("c").await;

    // The numbers of lost mails are given out again; the relays' places in the table lie above these messages.
    let new = firm.applied(&mail("e", 1100, "11:00")).await;
    assert!(lost_ids.contains(&new), "{new} was not one of {lost_ids:?}");
    let ahead = ["a ahead 1000.00 1300.00", "b ahead - 1400.00", "c ahead 1010.00 1500.00"];
    assert_eq!(firm.reported().await, ahead);
    let (code, words, _) = firm.world.relay(&["reconcile"]).await;
    let words: Vec<&str> = words.lines().filter(|line| line.contains("/b  ")).collect();
    assert!(code == 0 && words.len() == 1 && words[0].contains("2026-02-17T10:00:00Z"), "{words:?}");

    // Mails that were on their way for long, older than what is lost.
    assert_eq!(firm.delivered(&mail("a", 1250, "09:30")).await.1, "superseded");
    assert_eq!(firm.delivered(&mail("b", 1350, "09:30")).await.1, "superseded");
    let (waits, outcome) = firm.delivered(&mail("c", 1450, "09:30")).await;
    assert_eq!(outcome, "held_for_review", "nothing but the date of the entry tells");
    let connection = firm.world.operator().await;
    let held = review::held(&connection, 10).await.unwrap();
    assert_eq!(held.iter().map(|mail| mail.email_id).collect::<Vec<_>>(), [waits]);
    assert!(held[0].reason.contains("later answer"), "{}", held[0].reason);
    let amounts = [Some(1300.0), Some(1400.0), Some(1500.0), None, Some(1100.0)];
    assert_eq!(firm.amounts().await, amounts);
    assert_eq!(firm.reported().await, ahead);

    // Providers deliver again what was not confirmed, or all of it.
    for mail in &kept {
        assert_eq!(firm.ingest.webhook(mail).await["status"], "duplicate");
    }
    for mail in lost.iter().rev() {
        firm.applied(mail).await;
    }
    assert_eq!(firm.amounts().await, amounts);
    assert!(firm.reported().await.is_empty(), "Postgres knows everything again");
    firm.ends().await;
}

/// With new mails before, between and after what is delivered again.
#[tokio::test]
async fn after_the_numbers_were_moved_on_lost_mails_may_be_delivered_again_in_any_order() {
    let mut firm = Firm::new().await;
    let backup = firm.backup().await;
    let lost: Vec<String> = ENTRIES.map(|entry| mail(entry, 1300, "10:00")).to_vec();
    let older: Vec<String> = ENTRIES.map(|entry| mail(entry, 1200, "09:00")).to_vec();
    let mut highest = 0;
    for mail in older.iter().chain(&lost) {
        highest = firm.applied(mail).await.max(highest);
    }
    firm.restore(&backup).await;
    firm.world.run(MOVE_ON).await;
    assert_eq!(firm.reported().await.len(), ENTRIES.len());
    assert!(firm.applied(&mail("e", 1500, "11:00")).await > highest);
    for mail in lost.iter().chain(&older).rev() {
        let (email_id, outcome) = firm.delivered(mail).await;
        assert!(email_id > highest && ["applied", "superseded"].contains(&outcome.as_str()), "{outcome}");
    }
    assert_eq!(firm.amounts().await, [Some(1300.0), Some(1300.0), Some(1300.0), Some(1300.0), Some(1500.0)]);
    assert!(firm.reported().await.is_empty());
    firm.ends().await;
}

/// Nothing in MongoDB tells whose message it was that has taken the number: only the time in the mark does.
#[tokio::test]
async fn a_message_that_waits_under_the_number_of_a_lost_one_does_not_explain_what_the_lost_one_wrote() {
    let mut world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let keyed = "update outbox_messages set idempotency_key = operation || ':' || aggregate_id || ':0'";
    let backup = world.backup().await;
    world.commit(Update::default()).await;
    assert_eq!(world.once().await.applied, 1);
    world.restore(&backup).await;
    let elsewhere =
        Update { aktenzeichen: "2024/999", received_at: "2026-03-01T00:00:00Z", ..Update::default() };
    let email = world.commit(elsewhere).await;
    world.run(keyed).await;
    assert_eq!(world.once().await.parked, 1);
    let marked = world.entries().await[0].get_document("_relay").unwrap().get_i64("email").unwrap();
    assert_eq!(marked, email, "the number is given out again");
    let report = world.json_of(&["reconcile"]).await;
    assert_eq!(report["by_drift"], json!({ "ahead": 1 }));
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["email_id"], &finding["ledger_amount"], &finding["mongodb_email_id"]),
        (&Value::Null, &Value::Null, &json!(email))
    );
    assert_eq!(finding["mongodb_received_at"], "2026-02-17T09:14:22Z");
}

#[tokio::test]
async fn a_decision_that_was_lost_and_is_made_otherwise_is_not_fenced_out() {
    let mut world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 2000.0);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    assert_eq!(world.once().await.held, 1);
    let backup = world.backup().await;
    let decide = async |world: &World, amount: &str| {
        let choice = review::Choice { amount: amount.parse().ok(), ..review::Choice::default() };
        review::accept(&mut world.operator().await, email, choice, "clerk").await.unwrap();
        world.once().await
    };
    assert_eq!(decide(&world, "1100").await.applied, 1);
    world.restore(&backup).await;
    assert_eq!(world.json_of(&["reconcile"]).await["by_drift"], json!({ "ahead": 1 }));
    // The same stamp as the lost decision, and another amount.
    assert_eq!(decide(&world, "1150").await.held, 1);
    assert_eq!(world.amount("b").await, Some(1100.0));
    assert_eq!(decide(&world, "1150").await.applied, 1);
    assert_eq!(world.amount("b").await, Some(1150.0));
    assert_eq!(world.json_of(&["reconcile"]).await["mismatches_found"], 0);
}

#[tokio::test]
async fn an_erased_client_is_not_taken_for_lost_and_ids_of_all_types_are_walked() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let entry = |stamp: i64| {
        let mut entry = turmhaus("b");
        entry.insert("_relay", doc! { "stamp": format!("{stamp:020}"), "email": 77_i64, "previous": null });
        entry
    };
    let ids = [mongodb::bson::Bson::Int32(5), "text".into(), mongodb::bson::Bson::Int64(7_000_000_000)];
    for id in ids {
        let document: Document = doc! { "_id": id, "final_creditor_list": [entry(5 << 20)] };
        world.mongo.clients.insert_one(document).await.unwrap();
    }
    // More than one page, without marks.
    let many = (0..1200).map(|number| doc! { "aktenzeichen": format!("x{number}") });
    world.mongo.clients.insert_many(many).await.unwrap();
    world.commit(Update::default()).await;
    assert_eq!(world.once().await.applied, 1);
    let report = world.json_of(&["reconcile"]).await;
    assert_eq!((&report["records_checked"], &report["mismatches_found"]), (&json!(1), &json!(3)), "{report}");
    let (code, _, stderr) = world.relay(&["erase", "--client", "2024/118", "--apply"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(world.row("select count(*) from creditor_debts").await.get::<_, i64>(0), 0);
    assert_eq!(world.json_of(&["reconcile"]).await["mismatches_found"], 3);
}
