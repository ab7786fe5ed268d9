//! `relay explain`: MongoDB's side, and an entry with all its mails.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::doc;
use serde_json::Value;

async fn run(world: &World, url: Option<&str>, arguments: &[&str]) -> (i32, String, String) {
    let mut command = world.program(url.unwrap_or_default(), arguments);
    if url.is_none() {
        command.env_remove("MONGODB_URL").env_remove("MONGODB_DATABASE");
    }
    let output = command.env("USER", "clerk").output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Two mails to one entry, and one for somebody else's.
async fn world() -> (World, [i64; 3]) {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("s")]).await;
    let first = world.commit(Update::default()).await;
    world.once().await;
    let second = world.commit(Update::of("2000", "2026-03-01T00:00:00Z")).await;
    let seeblick = Update {
        creditor_email: "post@seeblick.example",
        creditor_name: "Seeblick Wohnen eG",
        ..Update::default()
    };
    let other = world.commit(seeblick).await;
    world.once().await;
    (world, [first, second, other])
}

#[tokio::test]
async fn a_mails_way_ends_in_the_ledger_and_in_mongodb() {
    let (world, [first, second, _]) = world().await;
    let (code, told, _) = run(&world, Some(&world.mongo.url), &["explain", &second.to_string()]).await;
    assert_eq!(code, 0);
    for words in [
        "creditor b: 2000.00 EUR, stamp 0",
        "MongoDB: client 2024_118, creditor b: 2000.00 EUR, stamp 0",
        "before it 1234.56 EUR",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (_, told, _) = run(&world, Some(&world.mongo.url), &["explain", &first.to_string()]).await;
    assert!(told.contains(&format!("of email {second}")) && told.contains("(a newer email)"), "{told}");

    let json = ["explain", &second.to_string(), "--json"].map(str::to_owned);
    let json: Vec<&str> = json.iter().map(String::as_str).collect();
    let explained: Value = serde_json::from_str(&run(&world, Some(&world.mongo.url), &json).await.1).unwrap();
    assert_eq!(explained["mongodb"]["state"], "answered");
    let entry = &explained["mongodb"]["entries"][0];
    assert_eq!(
        (&entry["amount"], &entry["previous"], &entry["email_id"]),
        (&"2000.00".into(), &"1234.56".into(), &second.into())
    );
    assert_eq!(entry["stamp"], explained["ledger"][0]["stamp"]);
    assert_eq!(explained["ledger"][0]["amount"], "2000.00");
}

#[tokio::test]
async fn without_mongodb_the_rest_is_told() {
    let (world, [first, ..]) = world().await;
    let id = first.to_string();
    for what in [id.as_str(), "2024/118"] {
        let (code, told, _) = run(&world, None, &["explain", what]).await;
        assert!(code == 0 && told.contains("MongoDB: not configured") && told.contains("ledger: "), "{told}");
        let (code, told, _) = run(&world, Some("mongodb://127.0.0.1:9/"), &["explain", what]).await;
        assert!(code == 0 && told.contains("MongoDB: away (") && told.contains("ledger: "), "{told}");
        let (code, told, _) = run(&world, Some("mongo://x"), &["explain", what]).await;
        assert!(code == 0 && told.contains("MongoDB: away ("), "{told}");
    }
}

#[tokio::test]
async fn an_entry_is_told_by_number_or_id_with_all_its_mails_and_without_others() {
    let (world, [first, second, other]) = world().await;
    let client: String = world.row("select client_id from creditor_debts limit 1").await.get(0);
    let json = async |what: &str| -> Value {
        let (code, told, stderr) = run(&world, Some(&world.mongo.url), &["explain", what, "--json"]).await;
        assert_eq!(code, 0, "{what}: {stderr}");
        serde_json::from_str(&told).unwrap()
    };
    let mails = |explained: &Value| -> Vec<i64> {
        explained["emails"]
            .as_array()
            .unwrap()
            .iter()
            .map(|mail| mail["email_id"].as_i64().unwrap())
            .collect()
    };
    for what in ["2024/118/b".to_owned(), "2024_118/b".into(), format!("{client}/b")] {
        let explained = json(&what).await;
        assert_eq!(mails(&explained), [second, first], "{what}");
        assert_eq!(explained["ledger"].as_array().unwrap().len(), 1);
        assert_eq!(explained["mongodb"]["entries"].as_array().unwrap().len(), 1);
    }
    for what in ["2024/118".to_owned(), client.clone(), "2024_118/".into()] {
        let explained = json(&what).await;
        assert_eq!(mails(&explained).len(), 3, "{what}");
        assert_eq!(explained["mongodb"]["entries"].as_array().unwrap().len(), 2);
    }
    assert_eq!(mails(&json("2024/118/s").await), [other]);

    let (_, told, _) = run(&world, Some(&world.mongo.url), &["explain", "2024/118/b"]).await;
    for words in [
        "ledger: client 2024_118",
        "MongoDB: client 2024_118, creditor b: 2000.00 EUR",
        "webhook: api, id ",
        "creditor_debt_update: applied",
        "applied by relay: written; 1234.56 -> 2000.00 EUR",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(told.lines().count() < 20, "one screen: {told}");
    let (code, _, stderr) = run(&world, Some(&world.mongo.url), &["explain", "1/1/x"]).await;
    assert!(code == 1 && stderr.contains("nothing is known of 1/1/x"), "{stderr}");
}

#[tokio::test]
async fn what_waits_for_a_client_or_was_written_by_somebody_else_is_told_too() {
    let world = World::new().await;
    let mail = world.commit(Update::default()).await;
    world
        .run("update outbox_messages set idempotency_key = 'creditor_debt_update:' || aggregate_id || ':0'")
        .await;
    world.run("update incoming_emails set extracted_data = '{\"client_aktenzeichen\": \"2024/118\"}'").await;
    assert_eq!(world.once().await.parked, 1);
    let (code, told, _) = run(&world, Some(&world.mongo.url), &["explain", "2024_118/b"]).await;
    assert!(code == 0 && told.contains(&format!("email {mail}, received")), "{told}");
    assert!(
        told.contains("ledger: nothing has been written")
            && told.contains("WAITING")
            && told.contains("target_missing"),
        "{told}"
    );

    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", "a lot");
    world.client(vec![entry]).await;
    let (_, told, _) = run(&world, Some(&world.mongo.url), &["explain", "2024_118/b"]).await;
    assert!(told.contains("creditor b: something that is no amount, without our mark"), "{told}");
    let set = doc! { "$set": { "final_creditor_list.0.current_debt_amount": 5.0, "final_creditor_list.0._relay": { "stamp": "1", "email": -5_i64 } } };
    world.mongo.clients.update_one(doc! {}, set).await.unwrap();
    let (_, told, _) = run(&world, Some(&world.mongo.url), &["explain", "2024_118/b"]).await;
    assert!(told.contains("5.00 EUR, stamp 1 of `relay apply`, before it nothing"), "{told}");
}

#[tokio::test]
async fn at_most_twenty_mails_are_told_the_newest_first() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    for _ in 0..25 {
        world.commit(Update::default()).await;
    }
    let newest = world.commit(Update::of("2000", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    let (_, told, _) = run(&world, Some(&world.mongo.url), &["explain", "2024/118/b", "--json"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["emails"].as_array().unwrap().len(), 20);
    assert_eq!(told["emails"][0]["email_id"], newest);
}
