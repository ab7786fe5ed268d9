//! Dead letters and what a person does with them.

use crate::world::{Update, World, turmhaus};
use relay::{
    dead_letters::{self, DeadLetterError, Done, Selection},
    outbox::{self, DeadLetterFilter, LowWaterMark, Receipt},
    outcome::Outcome,
};
use serde_json::{Value, json};
use shared::message::{EmailId, MessageId, Operation};
use std::time::Duration;

const CAP: usize = 1000;

/// Commits a debt update and lets it die with these words, as a finish would.
async fn dead(world: &World, update: Update, error: &str) -> (EmailId, MessageId) {
    let email = world.commit(update).await;
    (email, die(world, email, error).await)
}

/// The mail's messages die.
async fn die(world: &World, email: EmailId, error: &str) -> MessageId {
    let statement = format!(
        "update outbox_messages set dead_at = now(), deferred = false, error_class = 'permanent', error_message = '{error}', retry_count = 5,
            claim_count = claim_count + 2
        where aggregate_id = '{email}' and processed_at is null returning id"
    );
    let id = world.row(&statement).await.get(0);
    world.run(&format!("update incoming_emails set processing_status = 'failed', processing_error = 'x', sync_status = 'failed',
        sync_error = 'x', processed_at = now() where id = {email}")).await;
    id
}

async fn groups(world: &World) -> dead_letters::Listing {
    let connection = world.operator().await;
    dead_letters::listing(&connection, &DeadLetterFilter::default(), 50).await.unwrap()
}

async fn requeue(world: &World, selection: Selection) -> Result<Done, DeadLetterError> {
    let mut connection = world.operator().await;
    dead_letters::requeue(&mut connection, &selection, CAP, None, false, "clerk").await
}

fn done(selected: usize, changed: usize) -> Done {
    Done { selected, changed, skipped: selected - changed, dry_run: false }
}

#[tokio::test]
async fn dead_letters_of_the_same_failure_form_a_group() {
    let world = World::new().await;
    for error in ["no reply within 4000 ms", "no reply within 3500 ms"] {
        dead(&world, Update::default(), error).await;
    }
    let (_, last) = dead(&world, Update::default(), "no reply within 1 ms").await;
    world.run("update outbox_messages set dead_at = dead_at - interval '1 hour' where id = 1").await;
    let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    world.message("email_extraction", email, json!({ "email_id": email })).await;
    die(&world, email, "no reply within 4000 ms").await;

    let listing = groups(&world).await;
    assert_eq!((listing.dead, listing.group_count, listing.groups.len()), (4, 2, 2));
    let group = &listing.groups[0];
    assert_eq!((group.count, group.sample_id, group.error.as_str()), (3, last, "no reply within # ms"));
    assert!(group.last_dead_at.duration_since(group.first_dead_at).as_secs() >= 3600);
    assert_eq!(listing.groups[1].operation, "email_extraction");

    let printed = world.json_of(&["dead-letters", "list", "--operation", "email_extraction"]).await;
    assert_eq!(
        (&printed["dead"], &printed["pointless"], &printed["group_count"]),
        (&json!(1), &json!(0), &json!(1))
    );
    let keys: Vec<&String> = printed["groups"][0].as_object().unwrap().keys().collect();
    let expected = [
        "count",
        "error",
        "error_class",
        "first_dead_at",
        "group",
        "last_dead_at",
        "operation",
        "pointless",
        "sample_id",
    ];
    assert_eq!(keys, expected);
    let cut = world.json_of(&["dead-letters", "list", "--limit", "1"]).await;
    assert_eq!(
        (cut["groups"].as_array().unwrap().len(), &cut["dead"]),
        (1, &json!(4)),
        "the counts are of all"
    );
    let (code, words, _) = world.relay(&["dead-letters", "list"]).await;
    assert!(code == 0 && words.contains(&group.group) && words.contains("no reply within # ms"), "{words}");
}

#[tokio::test]
async fn a_dead_letter_that_a_newer_update_has_overtaken_is_marked() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let older = |amount| Update::of(amount, "2026-01-01T00:00:00Z");
    let (_, overtaken) = dead(&world, older("100"), "one").await;
    let spelling =
        Update { aktenzeichen: "2024_118", creditor_email: "Konto@Turmhaus.example", ..older("100") };
    let (_, otherwise_spelt) = dead(&world, spelling, "one").await;
    let (_, newer) = dead(&world, Update::of("300", "2026-03-01T00:00:00Z"), "one").await;
    let (_, of_another) = dead(&world, Update { creditor_email: "x@y.example", ..older("100") }, "one").await;
    let (_, of_another_client) =
        dead(&world, Update { aktenzeichen: "2024/119", ..older("100") }, "one").await;
    let (_, unreadable) = dead(&world, Update { aktenzeichen: "", ..older("100") }, "one").await;
    world.commit(Update::of("200", "2026-02-01T00:00:00Z")).await;
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(groups(&world).await.pointless, 2);
    let connection = world.operator().await;
    let is_pointless = async |id| dead_letters::show(&connection, id, false).await.unwrap().message.pointless;
    for id in [overtaken, otherwise_spelt] {
        assert!(is_pointless(id).await, "{id}");
    }
    for id in [newer, of_another, of_another_client, unreadable] {
        assert!(!is_pointless(id).await, "{id}");
    }
    // Both name a number, and none is the same: the newer mail may be about another claim of this sender.
    for (numbers, expected) in [(r#"["OTHER"]"#, 0), (r#"["OTHER", "TK-1"]"#, 2), ("[]", 2)] {
        world
            .run(&format!(
                r#"update incoming_emails set extracted_data = '{{"reference_numbers": {numbers}}}'
                   where id in (select email_id from creditor_debts)"#
            ))
            .await;
        assert_eq!(groups(&world).await.pointless, expected, "{numbers}");
    }
    // The same sender has a second entry, about which nothing newer has come: it may be the one that is meant.
    world
        .run("insert into creditor_debts select client_id, 'c', aktenzeichen, amount, 0, message_id, email_id from creditor_debts")
        .await;
    assert_eq!(groups(&world).await.pointless, 0);
}

#[tokio::test]
async fn a_requeued_message_runs_again_as_if_it_were_new() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (email, id) = dead(&world, Update::default(), "no reply").await;
    world.run("update incoming_emails set match_status = 'no_match'").await;
    assert_eq!(requeue(&world, Selection::Ids(vec![id, id])).await.unwrap(), done(1, 1));
    assert_eq!(world.state(email).await, "waiting//0");
    assert_eq!(world.shows(email).await, "extracted/-/pending");
    let row = world
        .row("select deferred and available_at <= now(), claim_count, processing_error is null and sync_error is null and m.processed_at is null
            from outbox_messages, incoming_emails m")
        .await;
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i64>(1), row.get::<_, bool>(2)), (true, 3, true));
    assert_eq!(requeue(&world, Selection::Ids(vec![id])).await.unwrap(), done(1, 0), "twice is once");

    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(1234.56));
    assert_eq!(requeue(&world, Selection::Ids(vec![id])).await.unwrap(), done(1, 0), "it is done");
    let act = world.row("select actor, action, message_id, email_id, detail from operator_actions").await;
    let (actor, action): (&str, &str) = (act.get(0), act.get(1));
    assert_eq!((actor, action, act.get(2), act.get(3)), ("clerk", "requeue", id, email));
    let detail: Value = act.get(4);
    assert_eq!((&detail["error"], &detail["retry_count"]), (&json!("no reply"), &json!(5)));
}

#[tokio::test]
async fn a_requeue_takes_a_group_a_filter_or_all_and_never_more_than_its_cap() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(dead(&world, Update::default(), &format!("no reply within {number} ms")).await.1);
    }
    let (_, other) = dead(&world, Update::default(), "another reason").await;
    world
        .run(&format!("update outbox_messages set dead_at = now() - interval '3 days' where id = {}", ids[4]))
        .await;
    let listing = groups(&world).await;
    let group = &listing.groups[0].group;

    let (code, _, words) = world.relay(&["dead-letters", "requeue", "--all", "--cap", "5"]).await;
    assert!(code == 1 && words.contains("6 dead letters") && words.contains("--cap 6"), "{words}");
    let dry = world.json_of(&["dead-letters", "requeue", "--all", "--dry-run"]).await;
    assert_eq!(dry, json!({ "selected": 6, "changed": 6, "skipped": 0, "dry_run": true }));
    assert_eq!(groups(&world).await.dead, 6, "nothing has changed");

    let old = world.json_of(&["dead-letters", "requeue", "--older-than", "2d"]).await;
    assert_eq!(old, json!({ "selected": 1, "changed": 1, "skipped": 0, "dry_run": false }));
    let rest = world.json_of(&["dead-letters", "requeue", "--group", group, "--rate", "0.5"]).await;
    assert_eq!(rest["changed"], 4);
    let spread = "select extract(epoch from max(available_at) - min(available_at))::int from outbox_messages
        where dead_at is null and id <> $1";
    let seconds: i32 = world.sql.query_one(spread, &[&ids[4]]).await.unwrap().get(0);
    assert_eq!(seconds, 6, "one every two seconds");
    let (code, _, words) = world.relay(&["dead-letters", "requeue", "--group", group]).await;
    assert!(code == 1 && words.contains(group), "{words}");
    let nobody =
        ["dead-letters", "requeue", "--operation", "creditor_debt_update", "--error-class", "transient"];
    let (code, _, words) = world.relay(&nobody).await;
    assert!(code == 1 && words.contains("no dead letter is meant"), "{words}");
    let last =
        ["dead-letters", "requeue", "--operation", "creditor_debt_update", "--error-class", "permanent"];
    assert_eq!(world.json_of(&last).await["changed"], 1);
    assert_eq!(requeue(&world, Selection::Ids(vec![other])).await.unwrap(), done(1, 0));
}

#[tokio::test]
async fn a_wrong_choice_is_refused_and_nothing_changes() {
    let world = World::new().await;
    let (_, id) = dead(&world, Update::default(), "no reply").await;
    let (code, _, words) = world.relay(&["dead-letters", "requeue", &id.to_string(), "9999"]).await;
    assert!(code == 1 && words.contains("no message 9999"), "{words}");
    let (code, _, words) = world.relay(&["dead-letters", "show", "9999"]).await;
    assert!(code == 1 && words.contains("no message 9999"), "{words}");
    for usage in [
        &["requeue"][..],
        &["requeue", "1", "--all"],
        &["requeue", "--operation", "fly"],
        &["requeue", "--all", "--rate", "0"],
        &["requeue", "--older-than", "soon"],
        &["requeue", "--group", "no"],
        &["discard", "1"],
        &["discard", "--reason", "x"],
        &["discard", "1", "--group", "01234567", "--reason", "x"],
    ] {
        let (code, _, words) = world.relay(&[&["dead-letters"], usage].concat()).await;
        assert_eq!(code, 2, "{usage:?}: {words}");
    }
    assert_eq!(groups(&world).await.dead, 1);
    assert_eq!(world.row("select count(*) from operator_actions").await.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_message_that_a_relay_has_is_left_alone_and_finished() {
    let world = World::new().await;
    let (email, id) = dead(&world, Update::default(), "no reply").await;
    assert_eq!(requeue(&world, Selection::Ids(vec![id])).await.unwrap(), done(1, 1));
    let connection = world.context().await.pool.get().await.unwrap();
    let (operation, lease) = (Operation::CreditorDebtUpdate, Duration::from_secs(15));
    let mut mark = LowWaterMark::default();
    let mut claims = outbox::claim(&connection, operation, &mut mark, 10, lease, "test").await.unwrap();
    assert_eq!(requeue(&world, Selection::Ids(vec![id])).await.unwrap(), done(1, 0));
    let mut batch = vec![claims.pop().unwrap().done(Outcome::Applied, 0)];
    let mut receipt = Receipt::default();
    outbox::finish(&connection, &mut batch, 1, &mut receipt).await.unwrap();
    assert_eq!(receipt.committed.len(), 1);
    assert_eq!(world.state(email).await, "done/applied/0");
}

#[tokio::test]
async fn of_two_people_who_requeue_at_once_each_message_goes_to_one() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(dead(&world, Update::default(), "no reply").await.1);
    }
    let (one, other) = tokio::join!(
        requeue(&world, Selection::Ids(ids.clone())),
        requeue(&world, Selection::Ids(ids.iter().rev().copied().collect())),
    );
    assert_eq!(one.unwrap().changed + other.unwrap().changed, 20);
    assert_eq!(world.row("select count(*) from operator_actions").await.get::<_, i64>(0), 20);
    // A row that somebody else holds is not waited for.
    die(&world, 1, "again").await;
    let rival = world.database.client().await;
    rival
        .batch_execute("begin; select from outbox_messages where dead_at is not null for update")
        .await
        .unwrap();
    assert_eq!(requeue(&world, Selection::Ids(vec![ids[0]])).await.unwrap(), done(1, 0));
}

#[tokio::test]
async fn a_mail_goes_back_to_where_it_was_before_the_message() {
    let world = World::new().await;
    let email = async |operation: &str| {
        let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
        world.message(operation, email, json!({ "email_id": email })).await;
        die(&world, email, "no reply").await;
        email
    };
    let fetched = email("email_fetch").await;
    let read = email("email_extraction").await;
    let told = email("debt_update_notification").await;
    world.run(&format!("update incoming_emails set processing_status = 'completed', processing_error = null, sync_status = 'synced',
        match_status = 'auto_matched', sync_error = null where id = {told}")).await;
    let (decided, _) = dead(&world, Update::default(), "no reply").await;
    world
        .run(&format!("update incoming_emails set match_status = 'needs_review' where id = {decided}"))
        .await;
    let (overtaken, _) = dead(&world, Update::default(), "no reply").await;
    world.run(&format!("update incoming_emails set processing_status = 'completed', processing_error = null, sync_status = 'synced',
        match_status = 'auto_matched', sync_error = null where id = {overtaken}")).await;
    assert_eq!(
        requeue(&world, Selection::Matching(DeadLetterFilter::default(), None)).await.unwrap(),
        done(5, 5)
    );
    assert_eq!(world.shows(fetched).await, "received/-/pending");
    assert_eq!(world.shows(read).await, "received/-/pending");
    assert_eq!(world.shows(told).await, "completed/auto_matched/synced", "a letter changes no mail");
    assert_eq!(
        world.shows(decided).await,
        "completed/needs_review/pending",
        "its decision is on its way again"
    );
    assert_eq!(world.shows(overtaken).await, "completed/auto_matched/synced", "a later message got through");
}

#[tokio::test]
async fn a_discarded_message_ends_and_its_mail_waits_for_nothing() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (email, id) = dead(&world, Update::default(), "no reply within 1 ms").await;
    let (second, _) = dead(&world, Update::default(), "no reply within 2 ms").await;
    let discard = ["dead-letters", "discard", &id.to_string(), "--reason", "the client has left"];
    assert_eq!(world.json_of(&[&discard[..], &["--dry-run"]].concat()).await["changed"], 1);
    assert_eq!(world.state(email).await, "dead/permanent/5");
    assert_eq!(
        world.json_of(&discard).await,
        json!({ "selected": 1, "changed": 1, "skipped": 0, "dry_run": false })
    );
    assert_eq!(world.json_of(&discard).await["skipped"], 1, "twice is once");
    assert_eq!(world.state(email).await, "done/discarded/5");
    assert_eq!(world.shows(email).await, "failed/-/not_applicable");
    let group = groups(&world).await.groups[0].group.clone();
    let rest = ["dead-letters", "discard", "--group", &group, "--reason", "the client has left"];
    assert_eq!(world.json_of(&rest).await["changed"], 1);
    assert_eq!(world.state(second).await, "done/discarded/5");
    assert_eq!(world.once().await.claimed, 0);
    let (_, words, _) = world.relay(&["dead-letters", "list"]).await;
    assert_eq!(words, "no dead letters\n");

    let shown = world.json_of(&["dead-letters", "show", &id.to_string()]).await;
    assert_eq!(
        (&shown["state"], &shown["outcome"], &shown["group"]),
        (&json!("done"), &json!("discarded"), &Value::Null)
    );
    let act = &shown["actions"][0];
    assert_eq!((&act["action"], &act["actor"]), (&json!("discard"), &json!("clerk")));
    assert_eq!(act["detail"]["reason"], "the client has left");
    assert_eq!(act["detail"]["error"], "no reply within 1 ms", "what was wrong with it is still known");
    assert_eq!(
        (&shown["payload"]["email_id"], &shown["payload"]["new_debt_amount"]),
        (&json!(email), &json!("(hidden)"))
    );
    let open = world.json_of(&["dead-letters", "show", &id.to_string(), "--payload"]).await;
    assert_eq!(open["payload"]["new_debt_amount"], "1234.56");
    let (code, words, _) = world.relay(&["dead-letters", "show", &id.to_string()]).await;
    assert!(code == 0 && words.contains("the client has left") && !words.contains("1234.56"), "{words}");
}
