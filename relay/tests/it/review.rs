//! A person's decision about a held mail.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::doc;
use relay::review::{self, Choice, ReviewError};

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
    let mut connection = world.context().await.pool.get().await.unwrap();
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
    let mut connection = world.context().await.pool.get().await.unwrap();
    let choice = Choice { amount: "4000".parse().ok(), ..Choice::default() };
    let accepted = review::accept(&mut connection, email, choice, "clerk").await.unwrap();
    assert_eq!(accepted.newer_amount.as_deref(), Some("6000.00"), "it says so");
    assert_eq!(world.once().await.superseded, 1);
    assert_eq!(world.amount("b").await, Some(6000.0));
}

#[tokio::test]
async fn a_rejected_amount_is_never_written_and_the_mail_waits_no_more() {
    let (world, email) = held_world().await;
    let mut connection = world.context().await.pool.get().await.unwrap();
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
    let context = world.context().await;
    let (mut one, mut other) = (context.pool.get().await.unwrap(), context.pool.get().await.unwrap());
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
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.unwrap();
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
    let mut connection = world.context().await.pool.get().await.unwrap();
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
