//! A person's decision about a held mail.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::doc;
use relay::{
    outbox::{self, LowWaterMark, Receipt},
    outcome::Outcome,
    review::{self, Choice, ReviewError},
};
use shared::message::Operation;
use std::time::Duration;

async fn held_world() -> (World, i64) {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 5000.0);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    (world, email)
}

#[tokio::test]
async fn an_accepted_amount_is_written_past_the_guard_as_the_next_revision() {
    let (world, email) = held_world().await;
    let mut connection = world.operator().await;
    let held = review::held(&connection, 10).await.unwrap();
    assert_eq!((held.len(), held[0].email_id, held[0].new_amount.as_deref()), (1, email, Some("1234.56")));
    assert!(held[0].reason.contains("lower"));

    let accepted = review::accept(&mut connection, email, Choice::default(), "Frau Kundig").await.unwrap();
    assert_eq!(accepted.newer_email_id, None);
    assert!(review::held(&connection, 10).await.unwrap().is_empty(), "decided");
    let again = review::accept(&mut connection, email, Choice::default(), "Herr Zweit").await;
    assert!(matches!(again, Err(ReviewError::NotHeld(_))));
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(1234.56));
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let stamp: String =
        world.entries().await[0].get_document("_relay").unwrap().get_str("stamp").unwrap().into();
    assert_eq!(stamp.parse::<i64>().unwrap() & 0xF, 1);
    let actors =
        world.row("select string_agg(decision || ' ' || actor, ', ' order by id) from decisions").await;
    assert_eq!(actors.get::<_, &str>(0), "held_for_review relay, accepted Frau Kundig, applied Frau Kundig");
}

#[tokio::test]
async fn a_decision_that_comes_after_a_newer_mail_is_superseded() {
    let (world, email) = held_world().await;
    world.commit(Update::of("6000", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    let mut connection = world.operator().await;
    let choice = Choice { amount: "4000".parse().ok(), ..Choice::default() };
    let accepted = review::accept(&mut connection, email, choice, "clerk").await.unwrap();
    assert_eq!(accepted.newer_amount.as_deref(), Some("6000.00"), "it says so");
    assert_eq!(world.once().await.superseded, 1);
    assert_eq!(world.amount("b").await, Some(6000.0));
}

#[tokio::test]
async fn a_rejected_amount_is_never_written_and_the_mail_waits_no_more() {
    let (world, email) = held_world().await;
    let mut connection = world.operator().await;
    review::reject(&mut connection, email, "the sum of another case", "Frau Kundig").await.unwrap();
    assert_eq!(world.once().await.claimed, 0);
    assert_eq!(world.amount("b").await, Some(5000.0));
    assert_eq!(world.shows(email).await, "completed/-/not_applicable");
    assert!(review::held(&connection, 10).await.unwrap().is_empty());
    for second in [
        review::reject(&mut connection, email, "again", "x").await.map(|_| ()),
        review::accept(&mut connection, email, Choice::default(), "x").await.map(|_| ()),
    ] {
        assert!(matches!(second, Err(ReviewError::NotHeld(_))));
    }
    let kept = world
        .row("select decision, reason, actor, new_amount::text from decisions order by id desc limit 1")
        .await;
    let kept: [String; 4] = [0, 1, 2, 3].map(|column| kept.get(column));
    assert_eq!(kept, ["rejected", "the sum of another case", "Frau Kundig", "1234.56"]);
}

#[tokio::test]
async fn of_two_people_who_decide_at_once_one_does() {
    let (world, email) = held_world().await;
    let (mut one, mut other) = (world.operator().await, world.operator().await);
    // Both have looked for the mail before either decides.
    let held = world.database.client().await;
    held.batch_execute(&format!("begin; select from incoming_emails where id = {email} for update"))
        .await
        .unwrap();
    let both_wait = async {
        let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        let wait = async {
            while world.row(waiting).await.get::<_, i64>(0) < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
        held.batch_execute("commit").await.unwrap();
    };
    let (accepted, rejected, ()) = tokio::join!(
        review::accept(&mut one, email, Choice::default(), "one"),
        review::reject(&mut other, email, "no", "other"),
        both_wait,
    );
    assert!(accepted.is_ok() != rejected.is_ok(), "{accepted:?} {rejected:?}");
    assert_eq!(world.row("select count(*) from decisions where actor <> 'relay'").await.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_person_names_the_client_and_the_entry_that_the_mail_does_not_tell() {
    let world = World::new().await;
    // Two entries that fit the mail equally, and a namesake with an entry of the same key.
    world.client(vec![turmhaus("b"), turmhaus("c"), seeblick("s")]).await;
    let namesake = doc! { "_id": "other", "aktenzeichen": "7777", "firstName": "Eva", "lastName": "Adler", "final_creditor_list": [turmhaus("c")] };
    world.mongo.clients.insert_one(namesake).await.unwrap();
    let [first, second, third] = [
        world.commit(Update::default()).await,
        world.commit(Update::default()).await,
        world.commit(Update::default()).await,
    ];
    assert_eq!(world.once().await.held, 3);
    let mut connection = world.operator().await;
    let held = review::held(&connection, 10).await.unwrap();
    let candidate = &held[0].candidates[0];
    assert_eq!(
        (&candidate["aktenzeichen"], &candidate["entries"][1]["entry_key"]),
        (&"2024_118".into(), &"c".into())
    );
    let mut accept = async |email, client: Option<&str>, creditor: Option<&str>| {
        let choice =
            Choice { amount: None, client: client.map(str::to_owned), creditor: creditor.map(str::to_owned) };
        review::accept(&mut connection, email, choice, "clerk").await.unwrap();
    };
    accept(first, None, Some("c")).await;
    accept(second, Some("7777"), None).await;
    accept(third, None, Some("nothing of this key")).await;
    let done = world.once().await;
    assert_eq!((done.applied, done.held), (2, 1));
    assert_eq!((world.amount("b").await, world.amount("c").await), (None, Some(1234.56)));
    let other = world.mongo.clients.find_one(doc! { "_id": "other" }).await.unwrap().unwrap();
    let entry = other.get_array("final_creditor_list").unwrap()[0].as_document().unwrap();
    assert_eq!(entry.get_f64("current_debt_amount").unwrap(), 1234.56);
    assert_eq!(
        world.shows(third).await,
        "completed/needs_review/not_applicable",
        "held again, with the reason"
    );
    let id = review::held(&connection, 10).await.unwrap()[0].candidates[0]["client_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let choice = Choice { amount: None, client: Some(id), creditor: Some("b".into()) };
    review::accept(&mut connection, third, choice, "clerk").await.unwrap();
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn the_way_of_a_mail_is_told_step_by_step() {
    let (world, email) = held_world().await;
    let program = |arguments: &[&str]| {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let world = &world;
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output =
                world.program(&world.mongo.url, &arguments).env("USER", "clerk").output().await.unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        }
    };
    let id = email.to_string();
    let listed = program(&["review", "list"]).await;
    assert!(
        listed.contains("lower") && listed.contains("2024_118") && listed.contains("Turmhaus"),
        "{listed}"
    );
    program(&["review", "accept", &id, "--amount", "900"]).await;
    world.once().await;
    let told = program(&["explain", &id]).await;
    for words in [
        "completed, match auto_matched, sync synced",
        "creditor_debt_update enqueued",
        "held_for_review by relay: the amount is lower",
        "accepted by clerk",
        "applied by clerk: written; 5000.00 -> 900.00 EUR",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let json: serde_json::Value = serde_json::from_str(&program(&["explain", &id, "--json"]).await).unwrap();
    assert_eq!(
        (json["steps"].as_array().unwrap().len(), json["decisions"].as_array().unwrap().len()),
        (2, 3)
    );
    let missing = world.program(&world.mongo.url, &["explain", "99"]).output().await.unwrap();
    assert_eq!(
        (missing.status.code(), String::from_utf8_lossy(&missing.stderr).trim()),
        (Some(1), "relay: there is no email 99")
    );
}

/// A mail that is parked.
async fn parked_world() -> (World, i64) {
    let world = World::new().await;
    let email = world.commit(Update::default()).await;
    assert_eq!(world.once().await.parked, 1);
    (world, email)
}

#[tokio::test]
async fn a_slip_in_the_named_client_is_told_at_once_and_can_be_put_right() {
    for slip in ["2024/811", "0123456789abcdef01234567"] {
        let (world, email) = held_world().await;
        let mut connection = world.operator().await;
        let choice = |client: &str| Choice { client: Some(client.into()), ..Choice::default() };
        review::accept(&mut connection, email, choice(slip), "clerk").await.unwrap();
        assert_eq!(world.once().await.held, 1, "not parked: a person has named it");
        assert_eq!(world.shows(email).await, "completed/needs_review/not_applicable");
        let held = review::held(&connection, 10).await.unwrap();
        assert_eq!((held[0].email_id, held[0].state.as_str()), (email, "held"));
        assert_eq!(held[0].reason, "the client that a person decided on is not in MongoDB");
        review::accept(&mut connection, email, choice("2024/118"), "clerk").await.unwrap();
        assert_eq!(world.once().await.applied, 1, "{slip}");
        assert_eq!(world.amount("b").await, Some(1234.56));
    }
}

#[tokio::test]
async fn an_accepted_mail_shows_that_its_write_is_pending() {
    let (world, email) = held_world().await;
    world.run("update incoming_emails set sync_error = 'of before'").await;
    let mut connection = world.operator().await;
    review::accept(&mut connection, email, Choice::default(), "clerk").await.unwrap();
    assert_eq!(world.shows(email).await, "completed/needs_review/pending");
    assert_eq!(world.row("select sync_error from incoming_emails").await.get::<_, Option<&str>>(0), None);
    world.once().await;
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_mail_whose_client_is_missing_is_listed_and_written_to_the_client_that_a_person_names() {
    let (world, email) = parked_world().await;
    let mut connection = world.operator().await;
    let listed = review::held(&connection, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].email_id, listed[0].state.as_str()), (email, "parked"));
    assert_eq!(listed[0].new_amount.as_deref(), Some("1234.56"));
    assert_eq!(listed[0].reason, "no client of this number or name is in MongoDB");
    let namesake = doc! { "aktenzeichen": "7777", "firstName": "Eva", "lastName": "Adler", "final_creditor_list": [turmhaus("c")] };
    world.mongo.clients.insert_one(namesake).await.unwrap();

    let choice = Choice { client: Some("7777".into()), ..Choice::default() };
    let accepted = review::accept(&mut connection, email, choice, "clerk").await.unwrap();
    assert_ne!(accepted.message_id, listed[0].message_id);
    assert_eq!(world.shows(email).await, "matching/no_match/pending");
    assert!(review::held(&connection, 10).await.unwrap().is_empty());
    let again = review::reject(&mut connection, email, "no", "clerk").await;
    assert!(matches!(again, Err(ReviewError::NotHeld(_))), "{again:?}");
    assert_eq!(world.once().await.applied, 1);
    let ends = "select string_agg(outcome, ' ' order by id) from outbox_messages where not deferred";
    assert_eq!(world.row(ends).await.get::<_, &str>(0), "discarded applied");
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_mail_whose_client_is_missing_can_be_rejected_and_is_never_written() {
    let (world, email) = parked_world().await;
    let mut connection = world.operator().await;
    let settled = review::reject(&mut connection, email, "not ours", "Frau Kundig").await.unwrap();
    assert_eq!(world.shows(email).await, "completed/-/not_applicable");
    world.client(vec![turmhaus("b")]).await;
    world.run("update outbox_messages set available_at = now()").await;
    assert_eq!(world.once().await.claimed, 0);
    assert_eq!(world.amount("b").await, None);
    assert_eq!(world.state(email).await, "done/discarded/0");
    let row = world.row("select message_id, decision, new_amount::text, reason, actor from decisions").await;
    assert_eq!(row.get::<_, i64>(0), settled);
    let kept: [String; 4] = [1, 2, 3, 4].map(|column| row.get(column));
    assert_eq!(kept, ["rejected", "1234.56", "not ours", "Frau Kundig"]);
    assert!(review::held(&connection, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_parked_message_that_a_relay_has_is_left_to_it_and_one_whose_lease_has_ended_is_taken_from_it() {
    let (world, email) = parked_world().await;
    let mut connection = world.operator().await;
    let relay = world.context().await.pool.get().await.unwrap();
    world.run("update outbox_messages set available_at = now()").await;
    let operation = Operation::CreditorDebtUpdate;
    let lease = Duration::from_secs(60);
    let mark = &mut LowWaterMark::default();
    let mut claims = outbox::claim(&relay, operation, mark, 10, lease, "test").await.unwrap();
    let claim = claims.pop().unwrap();
    assert_eq!(review::held(&connection, 10).await.unwrap().len(), 1, "listed all the same");
    for refused in [
        review::reject(&mut connection, email, "no", "x").await.map(|_| ()),
        review::accept(&mut connection, email, Choice::default(), "x").await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(ReviewError::Busy(_))), "{refused:?}");
    }
    assert_eq!(world.state(email).await, "waiting/target_missing/0");
    assert_eq!(world.shows(email).await, "matching/no_match/pending");
    assert_eq!(world.row("select count(*) from decisions").await.get::<_, i64>(0), 0);

    world.run("update outbox_messages set claimed_until = now()").await;
    review::reject(&mut connection, email, "no", "x").await.unwrap();
    let mut receipt = Receipt::default();
    let mut late = vec![claim.done(Outcome::Applied, 0)];
    outbox::finish(&relay, &mut late, 1, &mut receipt).await.unwrap();
    assert!(receipt.committed.is_empty(), "the claim is not its any more");
    assert_eq!(world.state(email).await, "done/discarded/0");
    assert_eq!(world.shows(email).await, "completed/-/not_applicable");
}

#[tokio::test]
async fn a_message_that_is_being_claimed_or_finished_at_this_moment_is_not_waited_for() {
    let (world, email) = parked_world().await;
    let mut connection = world.operator().await;
    let worker = world.database.client().await;
    worker.batch_execute("begin; select from outbox_messages for update").await.unwrap();
    let refused = review::reject(&mut connection, email, "no", "x").await;
    assert!(matches!(refused, Err(ReviewError::Busy(_))), "{refused:?}");
}

#[tokio::test]
async fn what_a_person_has_named_is_kept_and_told_and_so_is_what_is_not_known_of_it() {
    let (world, email) = held_world().await;
    let id = email.to_string();
    let mut arguments = vec!["review", "accept", id.as_str(), "--by", "clerk", "--client", "2024/811"];
    arguments.extend(["--creditor", "k"]);
    let accept = world.program(&world.mongo.url, &arguments).output().await.unwrap();
    let said = String::from_utf8(accept.stdout).unwrap();
    assert!(said.contains("note: which entry this means is not known yet"), "{said}");
    let kept = "select candidates from decisions where decision = 'accepted' order by id desc limit 1";
    let kept_then: serde_json::Value = world.row(kept).await.get(0);
    let expected = serde_json::json!([{ "aktenzeichen": "2024/811", "entries": [{ "entry_key": "k" }] }]);
    assert_eq!(kept_then, expected);
    world.once().await;
    let told = world.program(&world.mongo.url, &["explain", &id]).output().await.unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("accepted by clerk") && told.contains("; client 2024/811; creditor k"), "{told}");
    let listed = world.program(&world.mongo.url, &["review", "list"]).output().await.unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("  held  "));

    let (world, email) = held_world().await;
    let mut connection = world.operator().await;
    let accepted = review::accept(&mut connection, email, Choice::default(), "clerk").await.unwrap();
    assert!(accepted.entry_is_known);
    assert_eq!(world.row(kept).await.get::<_, serde_json::Value>(0), serde_json::json!([]));
}
