//! What one debt update does to its entry, its mail, the ledger and the decisions.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::{Bson, doc};
use relay::lane::Summary;

#[tokio::test]
async fn an_update_sets_its_fields_in_the_one_entry_and_touches_nothing_else() {
    let world = World::new().await;
    world.client(vec![seeblick("a"), turmhaus("b"), doc! { "id": "c", "odd": [1, "x"] }]).await;
    let before = world.entries().await;
    let email = world.commit(Update::default()).await;

    let summary = world.once().await;

    assert_eq!(summary, Summary { claimed: 1, applied: 1, ..Summary::default() });
    let after = world.entries().await;
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    let mut entry = after[1].clone();
    let stamp = format!("{:020}", (1_771_319_662_000_i64 << 20) | (email << 4));
    assert_eq!(
        entry.remove("_relay"),
        Some(Bson::Document(doc! { "stamp": &stamp, "email": email, "previous": null }))
    );
    let received = mongodb::bson::DateTime::from_millis(1_771_319_662_000);
    let mut expected = before[1].clone();
    expected.extend(doc! {
        "current_debt_amount": 1234.56, "creditor_response_amount": 1234.56, "amount_source": "creditor_response",
        "response_received_at": received, "last_contacted_at": received, "contact_status": "responded",
        "extraction_confidence": 0.9, "creditor_response_text": "Stand heute", "response_reference_numbers": ["TK-1"],
    });
    let sorted = |document: mongodb::bson::Document| {
        document.into_iter().collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(sorted(entry), sorted(expected));
    assert_eq!(world.state(email).await, "done/applied/0");
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let ledger = world
        .row("select entry_key, aktenzeichen, amount::text, stamp::text, email_id from creditor_debts")
        .await;
    assert_eq!(
        (ledger.get::<_, &str>(0), ledger.get::<_, &str>(1), ledger.get::<_, &str>(2)),
        ("b", "2024_118", "1234.56")
    );
    assert_eq!(format!("{:0>20}", ledger.get::<_, &str>(3)), stamp);
    let decision =
        world.row("select decision, actor, new_amount::text, old_amount::text from decisions").await;
    assert_eq!((decision.get::<_, &str>(0), decision.get::<_, &str>(1)), ("applied", "relay"));
    assert_eq!(decision.get::<_, Option<&str>>(3), None);
}

#[tokio::test]
async fn an_older_message_never_overwrites_a_newer_amount_whatever_the_order() {
    for newest_first in [true, false] {
        for together in [true, false] {
            let world = World::new().await;
            world.client(vec![turmhaus("b")]).await;
            let older = Update::of("2000", "2026-01-01T00:00:00Z");
            let newer = Update::of("2500.50", "2026-01-02T00:00:00Z");
            let (first, second) = if newest_first { (newer, older) } else { (older, newer) };
            let first = world.commit(first).await;
            if !together {
                world.once().await;
            }
            let second = world.commit(second).await;
            world.once().await;

            assert_eq!(
                world.amount("b").await,
                Some(2500.5),
                "newest_first {newest_first}, together {together}"
            );
            let older = if newest_first { second } else { first };
            let expected = if newest_first || together { "done/superseded/0" } else { "done/applied/0" };
            assert_eq!(world.state(older).await, expected);
            assert_eq!(world.shows(older).await, "completed/auto_matched/synced");
        }
    }
}

#[tokio::test]
async fn the_same_update_twice_is_once() {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 1000);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    let entries = world.entries().await;
    // As after a crash between the update and the finish.
    world
        .run("update outbox_messages set processed_at = null, outcome = null; delete from creditor_debts")
        .await;
    world.once().await;
    assert_eq!(world.entries().await, entries);
    let old = world.row("select array_agg(old_amount::text order by id) from decisions").await;
    assert_eq!(
        old.get::<_, Vec<String>>(0),
        ["1000.00", "1000.00"],
        "what was there before, not our own amount"
    );
    assert_eq!(world.state(email).await, "done/already/0");
    assert_eq!(world.row("select count(*) from creditor_debts").await.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn when_the_portal_has_dropped_our_mark_the_ledger_still_knows_the_newest() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::of("2500", "2026-01-02T00:00:00Z")).await;
    world.once().await;
    let rewrite = doc! { "$unset": { "final_creditor_list.0._relay": "" } };
    world.mongo.clients.update_one(doc! {}, rewrite).await.unwrap();
    let older = world.commit(Update::of("2600", "2026-01-01T00:00:00Z")).await;
    let newer = world.commit(Update::of("2700", "2026-01-03T00:00:00Z")).await;
    world.once().await;
    assert_eq!(world.state(older).await, "done/superseded/0");
    assert_eq!(world.state(newer).await, "done/applied/0");
    assert_eq!(world.amount("b").await, Some(2700.0));
}

#[tokio::test]
async fn what_is_implausible_is_held_with_its_reason_and_writes_nothing() {
    let cases = [
        (Update { amount: None, ..Update::default() }, "no amount"),
        (Update { aktenzeichen: "", ..Update::default() }, "neither a case number nor a client"),
        (Update { amount: Some("500000.01".into()), ..Update::default() }, "over 500000"),
        (Update { confidence: Some(0.5), ..Update::default() }, "confidence"),
        (Update { amount: Some("99.99".into()), ..Update::default() }, "lower"),
        (
            Update { creditor_email: "a@nobody.example", creditor_name: "Nobody", ..Update::default() },
            "no creditor",
        ),
    ];
    for (update, reason) in cases {
        let world = World::new().await;
        let mut entry = turmhaus("b");
        entry.insert("current_debt_amount", 100);
        world.client(vec![entry]).await;
        let before = world.entries().await;
        let email = world.commit(update).await;
        let summary = world.once().await;
        assert_eq!(summary, Summary { claimed: 1, held: 1, ..Summary::default() });
        assert_eq!(world.entries().await, before);
        assert_eq!(world.state(email).await, "done/held_for_review/0");
        assert_eq!(world.shows(email).await, "completed/needs_review/not_applicable");
        let decision = world.row("select reason, decision from decisions").await;
        assert!(decision.get::<_, &str>(0).contains(reason), "{reason}: {}", decision.get::<_, &str>(0));
    }
}

#[tokio::test]
async fn a_held_newest_lets_the_next_older_through() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let older = world.commit(Update::of("2000", "2026-01-01T00:00:00Z")).await;
    let newest = world.commit(Update::of("1999", "2026-01-02T00:00:00Z")).await;
    world.once().await;
    assert_eq!(world.amount("b").await, Some(2000.0));
    assert_eq!(world.state(older).await, "done/applied/0");
    assert_eq!(world.state(newest).await, "done/held_for_review/0");
}

#[tokio::test]
async fn two_entries_that_fit_equally_are_never_guessed_between() {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), turmhaus("c")]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(world.state(email).await, "done/held_for_review/0");
    let nameless =
        |entry: mongodb::bson::Document| entry.into_iter().filter(|(key, _)| key != "id").collect();
    world.mongo.clients.delete_many(doc! {}).await.unwrap();
    world.client(vec![nameless(turmhaus("")), nameless(turmhaus(""))]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(world.state(email).await, "done/held_for_review/0", "nothing tells the two apart");
}

#[tokio::test]
async fn an_entry_without_id_is_written_by_its_identity() {
    let world = World::new().await;
    let mut entry = turmhaus("");
    entry.remove("id");
    world.client(vec![seeblick("a"), entry]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(world.state(email).await, "done/applied/0");
    let entries = world.entries().await;
    assert_eq!(entries[1].get_f64("current_debt_amount").unwrap(), 1234.56);
    assert_eq!(entries.len(), 2);
    let key: String = world.row("select entry_key from creditor_debts").await.get(0);
    assert!(key.starts_with("h:") && key.len() == 18, "{key}");
}

#[tokio::test]
async fn a_client_that_is_not_there_yet_is_waited_for_without_counting() {
    let world = World::new().await;
    let email = world.commit(Update::default()).await;
    let summary = world.once().await;
    assert_eq!(summary, Summary { claimed: 1, parked: 1, ..Summary::default() });
    assert_eq!(world.state(email).await, "waiting/target_missing/0");
    assert_eq!(world.shows(email).await, "matching/no_match/pending");
    assert_eq!(world.once().await.claimed, 0, "it waits for its time");

    world.client(vec![turmhaus("b")]).await;
    world.run("update outbox_messages set available_at = now()").await;
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");

    world.mongo.clients.delete_many(doc! {}).await.unwrap();
    let email = world.commit(Update::of("1300", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    world.run("update outbox_messages set available_at = now(), first_missing_at = now() - interval '7 days' where deferred").await;
    assert_eq!(world.once().await.dead, 1);
    assert_eq!(world.state(email).await, "dead/target_missing/1");
    assert_eq!(world.shows(email).await, "failed/no_match/failed");
}

#[tokio::test]
async fn one_bad_message_never_holds_up_the_others() {
    let world = World::new().await;
    // The server refuses this document as a whole: every update of it fails with code 121.
    let validator = doc! { "collMod": "clients", "validator": { "forbidden": { "$exists": false } } };
    world.client(vec![turmhaus("b")]).await;
    let database = mongodb::Client::with_uri_str(&world.mongo.url).await.unwrap().database(&world.mongo.name);
    database.run_command(validator).await.unwrap();
    let refused = doc! { "aktenzeichen": "9999", "forbidden": 1, "final_creditor_list": [turmhaus("x")] };
    world.mongo.clients.insert_one(refused).bypass_document_validation(true).await.unwrap();

    let good = world.commit(Update::default()).await;
    let bad = world.commit(Update { aktenzeichen: "9999", ..Update::default() }).await;
    let unreadable = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    world.message("creditor_debt_update", unreadable, serde_json::json!({ "email_id": "seventeen" })).await;
    let homeless = world.message("creditor_debt_update", 0, serde_json::json!({})).await;
    let unknown = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    world.message("an_operation_of_tomorrow", unknown, serde_json::json!({})).await;

    let summary = world.once().await;

    assert_eq!(summary, Summary { claimed: 4, applied: 1, dead: 3, ..Summary::default() });
    assert_eq!(world.state(good).await, "done/applied/0");
    assert_eq!(world.state(bad).await, "dead/permanent/1");
    assert_eq!(world.shows(bad).await, "failed/-/failed");
    assert_eq!(world.state(unreadable).await, "dead/permanent/1");
    assert_eq!(world.state(unknown).await, "waiting//0", "it waits for a binary that knows it");
    let row = world
        .sql
        .query_one("select error_message from outbox_messages where id = $1", &[&homeless])
        .await
        .unwrap();
    assert!(row.get::<_, &str>(0).contains("payload"));
}

#[tokio::test]
async fn documents_of_unexpected_shape_end_with_a_reason() {
    for list in [
        Bson::Null,
        Bson::String("none".into()),
        Bson::Array(vec!["a".into(), 5.into()]),
        Bson::Array(vec![]),
    ] {
        let world = World::new().await;
        let document = doc! { "aktenzeichen": "2024_118", "firstName": 5, "final_creditor_list": list };
        world.mongo.clients.insert_one(document).await.unwrap();
        let email = world.commit(Update::default()).await;
        world.once().await;
        assert_eq!(world.state(email).await, "done/held_for_review/0");
    }
}

#[tokio::test]
async fn entries_that_a_filter_cannot_tell_apart_are_not_written_and_no_worse_fit_is() {
    let other_address = |id: &str| doc! { "id": id, "sender_email": "other@turmhaus.example" };
    let lists = [
        vec![turmhaus("b"), turmhaus("b"), other_address("c")],
        vec![turmhaus("b"), doc! { "id": "b", "reference_number": 5 }],
        vec![turmhaus("b"), doc! { "id": ["b"], "sender_name": "Seeblick" }],
    ];
    for list in lists {
        let world = World::new().await;
        world.client(list.clone()).await;
        let email = world.commit(Update::default()).await;
        world.once().await;
        assert_eq!(world.entries().await, list);
        assert_eq!(world.state(email).await, "done/held_for_review/0");
    }
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("reference_number", 12345);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(world.state(email).await, "done/applied/0", "with an id the other fields may be of any type");
}

#[tokio::test]
async fn a_mark_passes_only_where_it_is_no_string_or_a_lower_one() {
    let own = "01857";
    let cases: [(Bson, &str); 6] = [
        ("99999999999999999999".into(), "done/superseded/0"),
        ("zzz".into(), "done/superseded/0"),
        (format!("{own}0").into(), "done/applied/0"),
        ("".into(), "done/applied/0"),
        (5.into(), "done/applied/0"),
        (Bson::Null, "done/applied/0"),
    ];
    for (stamp, expected) in cases {
        let world = World::new().await;
        let mut entry = turmhaus("b");
        entry.insert("_relay", doc! { "stamp": stamp.clone(), "email": 1, "previous": null });
        world.client(vec![entry]).await;
        let email = world.commit(Update::default()).await;
        world.once().await;
        assert_eq!(world.state(email).await, expected, "{stamp}");
    }
}

#[tokio::test]
async fn a_mail_without_an_amount_bothers_nobody_when_it_is_stale_and_waits_for_its_client() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::of("2500", "2026-01-02T00:00:00Z")).await;
    world.once().await;
    let none = |received_at| Update { amount: None, received_at, ..Update::default() };
    let older = world.commit(none("2026-01-01T00:00:00Z")).await;
    let early = world.commit(Update { aktenzeichen: "77/26", ..none("2026-01-03T00:00:00Z") }).await;
    world.once().await;
    assert_eq!(world.state(older).await, "done/superseded/0");
    assert_eq!(world.state(early).await, "waiting/target_missing/0");
    assert_eq!(world.shows(early).await, "matching/no_match/pending");
}

#[tokio::test]
async fn two_amounts_of_one_stamp_in_one_batch_are_a_case_for_a_person() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let first = world.commit(Update::of("1000", "2026-01-01T00:00:00Z")).await;
    let second = world.commit(Update::of("2000", "2026-01-01T00:00:00Z")).await;
    world.run("update outbox_messages set payload = payload || jsonb_build_object('stamp', (select min(payload ->> 'stamp') from outbox_messages))").await;
    world.once().await;
    assert_eq!(world.state(first).await, "done/applied/0");
    assert_eq!(world.state(second).await, "done/held_for_review/0");
    assert_eq!(world.amount("b").await, Some(1000.0));
}

#[tokio::test]
async fn a_name_that_is_no_text_stops_neither_its_own_update_nor_another() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let mut bytes =
        doc! { "aktenzeichen": "9999", "firstName": "XYZ", "final_creditor_list": [turmhaus("x")] }
            .to_vec()
            .unwrap();
    let at = bytes.windows(3).position(|part| part == b"XYZ").unwrap();
    bytes[at] = 0xFF; // no UTF-8
    let raw = mongodb::bson::RawDocumentBuf::from_bytes(bytes).unwrap();
    world.mongo.clients.clone_with_type::<mongodb::bson::RawDocumentBuf>().insert_one(raw).await.unwrap();
    let mut good = Vec::new();
    for _ in 0..5 {
        good.push(world.commit(Update::default()).await);
    }
    let bad = world.commit(Update { aktenzeichen: "9999", ..Update::default() }).await;
    let summary = world.once().await;
    assert_eq!((summary.claimed, summary.dead), (6, 0));
    for email in good.into_iter().chain([bad]) {
        assert!(world.state(email).await.starts_with("done/"));
    }
}
