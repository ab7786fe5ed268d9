//! Drift of every kind, planted in MongoDB: found, classified, repaired or left alone, with exact counts.

use crate::{
    feed::Relay,
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use mongodb::bson::{Bson, Document, doc};
use relay::{
    audit::{Kind, Plan, audit},
    context::Context,
    reconcile::{Drift, Options, Report, Scope, Tally, begin, begin_if_due, compare, run},
};
use serde_json::Value;
use std::time::Duration;

const REPORT_ONLY: Options = Options {
    scope: Scope::All,
    repair: false,
    repair_edited: false,
    walks_clients: false,
    rows_per_second: 1_000_000,
};
const REPAIR: Options = Options { repair: true, ..REPORT_ONLY };

async fn reconcile(context: &Context, options: Options) -> Report {
    let connection = context.pool.get().await.unwrap();
    let started = begin(&connection, options.scope, "tester").await.unwrap();
    drop(connection);
    run(context, started, options).await.unwrap()
}

fn drifts(report: &Report) -> Vec<Drift> {
    report.findings.iter().map(|finding| finding.drift).collect()
}

/// A client with the default creditor's entry `b` and another one, and an update of 1234.56 that was written and finished.
async fn written() -> World {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 980.0);
    world.client(vec![entry, seeblick("a")]).await;
    world.commit(Update::default()).await;
    assert_eq!(world.once().await.applied, 1);
    world
}

async fn portal(world: &World, change: Document) {
    world.mongo.clients.update_one(doc! {}, change).await.unwrap();
}

/// An entry with a mark of ours, of which Postgres knows nothing.
fn unknown() -> Document {
    let mut entry = turmhaus("lost");
    entry.insert("_relay", doc! { "stamp": format!("{:020}", 5 << 20), "email": 77_i64, "previous": null });
    entry
}

async fn entry(world: &World, id: &str) -> Document {
    world.entries().await.into_iter().find(|entry| entry.get_str("id").ok() == Some(id)).unwrap()
}

/// `processed outcome` of all messages, in order.
async fn outcomes(world: &World) -> Vec<String> {
    let statement = "select coalesce(outcome, 'waiting') from outbox_messages order by id";
    world.sql.query(statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn what_is_as_it_was_written_is_no_drift_wherever_the_entry_has_moved() {
    let world = written().await;
    let context = world.context().await;
    let (moved, other) = (entry(&world, "b").await, entry(&world, "a").await);
    portal(&world, doc! { "$set": { "final_creditor_list": [other, moved], "portal_field": 5 } }).await;
    let report = reconcile(&context, REPAIR).await;
    assert_eq!((report.status, report.records_checked, report.mismatches_found), ("completed", 1, 0));
    let row = world.row("select status, scope, actor, records_checked, mismatches_found, auto_repaired, failed_repairs, completed_at is not null, details from reconciliation_reports").await;
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, &str>(1), row.get::<_, &str>(2)),
        ("completed", "all", "tester")
    );
    assert_eq!([3, 4, 5, 6].map(|at| row.get::<_, i32>(at)), [1, 0, 0, 0]);
    assert!(row.get::<_, bool>(7));
    assert_eq!(row.get::<_, Value>(8)["findings"], serde_json::json!([]));
}

#[tokio::test]
async fn an_update_that_was_lost_is_repaired_through_the_outbox() {
    let world = written().await;
    let context = world.context().await;
    // As the portal does that rewrites the list from an older copy: amount back, our fields gone.
    let mut old = turmhaus("b");
    old.insert("current_debt_amount", 980.0);
    let other = entry(&world, "a").await;
    portal(&world, doc! { "$set": { "final_creditor_list": [old, other] } }).await;

    let report = reconcile(&context, REPORT_ONLY).await;
    assert_eq!(drifts(&report), [Drift::LostUpdate]);
    assert_eq!((report.mismatches_found, report.auto_repaired), (1, 0));
    assert_eq!(outcomes(&world).await, ["applied"], "a dry run changes nothing");

    let report = reconcile(&context, REPAIR).await;
    assert_eq!((report.auto_repaired, report.failed_repairs, report.findings[0].is_repaired), (1, 0, true));
    assert_eq!(world.amount("b").await, Some(980.0), "it never writes MongoDB itself");
    world.once().await;
    assert_eq!(outcomes(&world).await, ["applied", "applied"]);
    let repaired = entry(&world, "b").await;
    assert_eq!(repaired.get_f64("current_debt_amount").unwrap(), 1234.56);
    assert_eq!(repaired.get_str("contact_status").unwrap(), "responded");
    assert_eq!(repaired.get_document("_relay").unwrap().get_f64("previous").unwrap(), 980.0);
    assert_eq!(reconcile(&context, REPAIR).await.mismatches_found, 0, "a second plan is empty");
}

#[tokio::test]
async fn a_lost_mark_is_given_back_and_nothing_else_is_touched() {
    let world = written().await;
    let context = world.context().await;
    let stamp = entry(&world, "b").await.get_document("_relay").unwrap().get_str("stamp").unwrap().to_owned();
    portal(
        &world,
        doc! { "$unset": { "final_creditor_list.0._relay": "" }, "$set": { "final_creditor_list.0.contact_status": "theirs" } },
    )
    .await;
    let report = reconcile(&context, REPAIR).await;
    assert_eq!(drifts(&report), [Drift::LostFence]);
    world.once().await;
    let repaired = entry(&world, "b").await;
    assert_eq!(repaired.get_document("_relay").unwrap().get_str("stamp").unwrap(), stamp);
    assert_eq!(
        repaired.get_document("_relay").unwrap().get("previous"),
        Some(&Bson::Null),
        "nobody knows it"
    );
    assert_eq!(repaired.get_str("contact_status").unwrap(), "theirs");
    assert_eq!(reconcile(&context, REPAIR).await.mismatches_found, 0);
}

#[tokio::test]
async fn what_somebody_has_edited_after_us_is_only_taken_back_when_asked_for() {
    let world = written().await;
    let context = world.context().await;
    portal(&world, doc! { "$set": { "final_creditor_list.0.current_debt_amount": 1000.0 } }).await;
    let report = reconcile(&context, REPAIR).await;
    assert_eq!((drifts(&report), report.auto_repaired), (vec![Drift::Edited], 0));
    world.once().await;
    assert_eq!(world.amount("b").await, Some(1000.0));
    let report = reconcile(&context, Options { repair_edited: true, ..REPAIR }).await;
    assert_eq!(report.auto_repaired, 1);
    world.once().await;
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn what_is_not_there_or_unreadable_or_ahead_is_reported_and_left_alone() {
    let world = written().await;
    let context = world.context().await;
    let before = entry(&world, "b").await;
    for (change, drift) in [
        (doc! { "$set": { "final_creditor_list.0.current_debt_amount": "about 1000" } }, Drift::Unreadable),
        (doc! { "$set": { "final_creditor_list.1": before.clone() } }, Drift::Unreadable),
        (doc! { "$set": { "final_creditor_list": [seeblick("a")] } }, Drift::EntryGone),
        (doc! { "$set": { "final_creditor_list": "none" } }, Drift::EntryGone),
    ] {
        portal(&world, doc! { "$set": { "final_creditor_list": [before.clone(), seeblick("a")] } }).await;
        portal(&world, change.clone()).await;
        let report = reconcile(&context, Options { repair_edited: true, ..REPAIR }).await;
        assert_eq!((drifts(&report), report.auto_repaired), (vec![drift], 0), "{change}");
    }
    portal(&world, doc! { "$set": { "final_creditor_list": [before] } }).await;
    world.run("update creditor_debts set stamp = stamp - 16, amount = 5").await;
    let report = reconcile(&context, REPAIR).await;
    assert_eq!(
        (drifts(&report), report.auto_repaired),
        (vec![Drift::Ahead], 0),
        "as after a restore of Postgres"
    );
    // The same, but the message that brought it there is on its way still.
    world.run("update outbox_messages set processed_at = null, outcome = null").await;
    world
        .run("update outbox_messages set idempotency_key = 'creditor_debt_update:' || aggregate_id || ':0'")
        .await;
    assert_eq!(reconcile(&context, REPAIR).await.mismatches_found, 0);
    world.mongo.clients.delete_many(doc! {}).await.unwrap();
    assert_eq!(drifts(&reconcile(&context, REPAIR).await), [Drift::ClientGone]);
}

#[tokio::test]
async fn a_repair_that_finds_something_else_than_its_plan_is_stale_and_changes_nothing() {
    let world = written().await;
    let context = world.context().await;
    let drop_mark = doc! { "$unset": { "final_creditor_list.0._relay": "" } };
    portal(&world, drop_mark.clone()).await;
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    portal(&world, doc! { "$set": { "final_creditor_list.0.current_debt_amount": 700.0 } }).await;
    let status = "select concat_ws('/', processing_status, match_status, sync_status, sync_error) from incoming_emails";
    let before: String = world.row(status).await.get(0);
    world.once().await;
    assert_eq!(outcomes(&world).await, ["applied", "stale_plan"]);
    assert_eq!(world.amount("b").await, Some(700.0));
    assert_eq!(world.row(status).await.get::<_, String>(0), before);
    // Nor does one whose client is gone wait for it.
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    world.mongo.clients.delete_many(doc! {}).await.unwrap();
    world.once().await;
    assert_eq!(outcomes(&world).await, ["applied", "stale_plan", "stale_plan"]);
}

#[tokio::test]
async fn a_newer_update_beats_a_repair_and_its_ledger_is_not_set_back() {
    let world = written().await;
    let context = world.context().await;
    portal(&world, doc! { "$unset": { "final_creditor_list.0._relay": "" }, "$set": { "final_creditor_list.0.current_debt_amount": 980.0 } }).await;
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    world.commit(Update::of("1500", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    assert_eq!(world.amount("b").await, Some(1500.0));
    assert_eq!(world.row("select amount::text from creditor_debts").await.get::<_, String>(0), "1500.00");
    assert_eq!(reconcile(&context, REPAIR).await.mismatches_found, 0);
}

#[tokio::test]
async fn mongodb_away_is_recorded_as_skipped() {
    let world = written().await;
    let (context, wire) = world.context_over_wire().await;
    wire.cut();
    let report = reconcile(&context, REPAIR).await;
    assert_eq!(report.status, "skipped");
    assert!(report.error_message.unwrap().contains("MongoDB unreachable since"));
    let row = world.row("select status, error_message is not null from reconciliation_reports").await;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("skipped", true));
}

#[tokio::test]
async fn a_walk_over_all_clients_that_fails_loses_nothing_of_what_the_ledger_has_shown() {
    let world = written().await;
    portal(&world, doc! { "$unset": { "final_creditor_list.0._relay": "" } }).await;
    let (context, wire) = world.context_over_wire().await;
    let walk = wire.hold_request(b"hint\0");
    let run =
        tokio::spawn(async move { reconcile(&context, Options { walks_clients: true, ..REPAIR }).await });
    let _held = walk.reached().await;
    wire.cut();
    let report = run.await.unwrap();
    assert_eq!((report.status, report.records_checked, report.auto_repaired), ("failed", 1, 1));
    assert_eq!(drifts(&report), [Drift::LostFence]);
    let error = report.error_message.unwrap();
    assert!(error.contains("the ledger was compared") && error.contains("MongoDB unreachable"), "{error}");
    let row = world.row("select status, records_checked, jsonb_array_length(details -> 'findings'), error_message from reconciliation_reports").await;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i32>(1), row.get::<_, i32>(2)), ("failed", 1, 1));
    assert_eq!(row.get::<_, &str>(3), error);
}

#[tokio::test]
async fn what_is_too_much_for_the_list_is_counted() {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("a")]).await;
    world.commit(Update::default()).await;
    let elsewhere = Update {
        creditor_name: "Seeblick Wohnen eG",
        creditor_email: "post@seeblick.example",
        ..Update::default()
    };
    world.commit(elsewhere).await;
    assert_eq!(world.once().await.applied, 2);
    world.mongo.clients.delete_many(doc! {}).await.unwrap();
    let mut tally = Tally::new(1);
    compare(&world.context().await, REPORT_ONLY, None, &mut tally).await.unwrap();
    assert_eq!((tally.checked, tally.findings.len(), tally.left_out()), (2, 1, 1));
}

#[tokio::test]
async fn clients_too_large_for_one_page_are_walked_like_others() {
    let world = World::new().await;
    let large = |_| {
        let mut entry = unknown();
        entry.insert("reference_number", "x".repeat(1 << 20));
        doc! { "final_creditor_list": [entry] }
    };
    world.mongo.clients.insert_many((0..70).map(large)).await.unwrap();
    let report = reconcile(&world.context().await, Options { walks_clients: true, ..REPORT_ONLY }).await;
    assert_eq!((report.status, report.mismatches_found, report.findings_left_out), ("completed", 70, 0));
    let clients: std::collections::HashSet<&str> =
        report.findings.iter().map(|finding| finding.client_id.as_str()).collect();
    assert_eq!(clients.len(), 70);
}

#[tokio::test]
async fn of_several_relays_one_reconciles_when_it_is_due() {
    let world = World::new().await;
    let context = world.context().await;
    let hour = Duration::from_secs(3600);
    let begin = async || {
        let mut connection = context.pool.get().await.unwrap();
        begin_if_due(&mut connection, Scope::All, hour).await.unwrap()
    };
    let (one, two, three) = tokio::join!(begin(), begin(), begin());
    let begun: Vec<_> = [one, two, three].into_iter().flatten().collect();
    assert_eq!(begun.len(), 1);
    let recent = Scope::Recent(hour);
    let mut connection = context.pool.get().await.unwrap();
    assert!(
        begin_if_due(&mut connection, recent, hour).await.unwrap().is_some(),
        "each scope has its own time"
    );
    world.run("update reconciliation_reports set run_at = now() - interval '61 minutes'").await;
    assert!(begin().await.is_some());
    // What was skipped is tried again sooner.
    world.run("update reconciliation_reports set run_at = now() - interval '7 minutes', status = 'skipped', completed_at = now(), error_message = 'away'").await;
    assert!(begin().await.is_some());
    assert!(begin().await.is_none());
}

#[tokio::test]
async fn an_update_that_was_finished_between_the_two_reads_is_no_drift() {
    let world = written().await;
    let (context, wire) = world.context_over_wire().await;
    let point = wire.hold_at(b"\x02find\0");
    let relay = async {
        let go_on = point.reached().await;
        world.commit(Update::of("1500", "2026-03-01T00:00:00Z")).await;
        world.once().await;
        go_on.send(()).unwrap();
    };
    let (report, ()) = tokio::join!(reconcile(&context, REPAIR), relay);
    assert_eq!((report.status, report.records_checked, report.mismatches_found), ("completed", 1, 0));
    assert_eq!(world.amount("b").await, Some(1500.0));
}

#[tokio::test]
async fn a_repair_that_still_waits_is_not_enqueued_again() {
    let world = written().await;
    let context = world.context().await;
    portal(&world, doc! { "$unset": { "final_creditor_list.0._relay": "" } }).await;
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    let again = reconcile(&context, REPAIR).await;
    assert_eq!((again.mismatches_found, again.auto_repaired, again.failed_repairs), (1, 0, 0));
    assert!(again.findings[0].is_repaired, "it is on its way");
    world.once().await;
    assert_eq!(outcomes(&world).await, ["applied", "applied"]);
}

#[tokio::test]
async fn a_repair_that_the_ledger_has_overtaken_is_stale() {
    let world = written().await;
    let context = world.context().await;
    let lost = entry(&world, "b").await;
    let mut lost_without = lost.clone();
    lost_without.remove("_relay");
    lost_without.insert("current_debt_amount", 980.0);
    let restore = doc! { "$set": { "final_creditor_list.0": lost_without } };
    portal(&world, restore.clone()).await;
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    // A newer update is written and finished, while the repair is put off; then the portal restores the very state of the plan.
    world.run("update outbox_messages set deferred = true, available_at = now() + interval '1 hour' where idempotency_key like 'reconcile:%'").await;
    world.commit(Update::of("1500", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    portal(&world, restore).await;
    world
        .run("update outbox_messages set available_at = now() where idempotency_key like 'reconcile:%'")
        .await;
    world.once().await;
    assert_eq!(outcomes(&world).await, ["applied", "stale_plan", "applied"]);
    assert_eq!(world.amount("b").await, Some(980.0), "the next run repairs it with what is newest");
}

#[tokio::test]
async fn a_repair_says_nothing_about_its_mail_and_hides_nothing_that_a_person_has_to_decide() {
    let world = written().await;
    let context = world.context().await;
    // What a person has to decide about the same mail.
    world
        .run(
            "update incoming_emails set match_status = 'needs_review', sync_status = 'not_applicable';
            insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, processed_at, outcome)
                select aggregate_type, aggregate_id, operation, payload, 'held', now(), 'held_for_review' from outbox_messages where id = 1;
            insert into decisions (email_id, message_id, decision, reason, actor) values (1, 2, 'held_for_review', 'x', 'relay')",
        )
        .await;
    let status = "select concat_ws('/', processing_status, match_status, sync_status, sync_error) from incoming_emails";
    let before: String = world.row(status).await.get(0);
    portal(&world, doc! { "$unset": { "final_creditor_list.0._relay": "" } }).await;
    assert_eq!(reconcile(&context, REPAIR).await.auto_repaired, 1);
    let (away, wire) = world.context_over_wire().await;
    wire.cut();
    assert!(world.try_once(&away).await.1.is_err());
    assert_eq!(world.row(status).await.get::<_, String>(0), before, "nor that it could not be written");
    world.once().await;
    assert_eq!(world.row(status).await.get::<_, String>(0), before);
    let held = relay::review::held(&context.pool.get().await.unwrap(), 10).await.unwrap();
    assert_eq!(held.iter().map(|mail| mail.message_id).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_running_relay_repairs_by_itself_or_only_reports_or_leaves_it_as_it_is_told() {
    let worlds = (written().await, written().await, written().await);
    let drop_mark = doc! { "$unset": { "final_creditor_list.0._relay": "" } };
    for world in [&worlds.0, &worlds.1, &worlds.2] {
        portal(world, drop_mark.clone()).await;
    }
    worlds.1.mongo.clients.insert_one(doc! { "final_creditor_list": [unknown()] }).await.unwrap();
    let relays = [("repair", &worlds.0), ("report", &worlds.1), ("off", &worlds.2)]
        .map(|(mode, world)| Relay::start(world, &[("RELAY_RECONCILE", mode)]));
    let repaired = async || entry(&worlds.0, "b").await.contains_key("_relay");
    until(&repaired).await;
    let reported = "select max(mismatches_found) from reconciliation_reports where scope = 'all' and status = 'completed'";
    until(|| async { worlds.1.row(reported).await.get::<_, Option<i32>>(0).is_some() }).await;
    assert_eq!(worlds.1.row(reported).await.get::<_, i32>(0), 1, "no relay walks all clients by itself");
    assert_eq!(worlds.1.json_of(&["reconcile"]).await["mismatches_found"], 2);
    assert_eq!(outcomes(&worlds.1).await, ["applied"]);
    let any = "select count(*) from reconciliation_reports";
    assert_eq!(worlds.2.row(any).await.get::<_, i64>(0), 0, "in as long a time as the others needed");
    for relay in relays {
        assert_eq!(relay.terminate().await, Some(0));
    }
}

#[tokio::test]
async fn old_reports_go_with_maintenance() {
    let world = written().await;
    let context = world.context().await;
    reconcile(&context, REPORT_ONLY).await;
    reconcile(&context, REPORT_ONLY).await;
    world.run("update reconciliation_reports set run_at = now() - interval '91 days' where id = 1").await;
    relay::maintenance::pass(&context.pool, Duration::from_secs(86_400)).await.unwrap();
    assert_eq!(world.row("select count(*) from reconciliation_reports").await.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn nothing_that_is_on_its_way_is_taken_for_drift() {
    let world = World::new().await;
    let entries: Vec<Document> = (0..40)
        .map(|number| {
            let mut entry = turmhaus(&format!("e{number}"));
            entry.insert("sender_email", format!("konto@turm{number}.example"));
            entry
        })
        .collect();
    world.client(entries).await;
    world
        .run(
            "with mails as (
                insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint, processing_status)
                select 'api', gen_random_uuid()::text, 'konto@turm' || n % 40 || '.example', '', '2026-01-01'::timestamptz + n * interval '1 second',
                    sha256(''), 'extracted' from generate_series(1, 2000) n returning id, from_email, received_at
            )
            insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key)
            select 'creditor_debt_update', id::text, 'creditor_debt_update', jsonb_build_object('email_id', id, 'client_aktenzeichen', '2024/118',
                'creditor_email', from_email, 'new_debt_amount', (1000 + id)::text, 'received_at', to_char(received_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                'stamp', lpad((((extract(epoch from received_at) * 1000)::bigint << 20) | ((id % 65536) << 4))::text, 20, '0'), 'origin', 'mail'),
                'creditor_debt_update:' || id || ':0' from mails order by id",
        )
        .await;
    let context = world.context().await;
    let relays = async {
        let contexts = (world.context().await, world.context().await);
        let (one, two) = tokio::join!(world.try_once(&contexts.0), world.try_once(&contexts.1));
        assert_eq!((one.1, two.1), (Ok(()), Ok(())));
    };
    let looks = async {
        let mut looks = 0;
        let statement = "select count(*) from outbox_messages where processed_at is null";
        while world.row(statement).await.get::<_, i64>(0) > 0 {
            let report = reconcile(&context, REPAIR).await;
            assert_eq!((report.mismatches_found, report.auto_repaired), (0, 0), "{:?}", report.findings);
            looks += 1;
        }
        assert!(looks > 1);
    };
    tokio::join!(relays, looks);
    let report = reconcile(&context, REPAIR).await;
    assert_eq!((report.records_checked, report.mismatches_found), (40, 0));
}

#[tokio::test]
async fn the_command_prints_its_report_and_changes_nothing_without_repair() {
    let world = written().await;
    portal(&world, doc! { "$unset": { "final_creditor_list.0._relay": "" }, "$set": { "final_creditor_list.0.current_debt_amount": 980.0 } }).await;
    let run = async |arguments: &[&str]| {
        let output = world.program(&world.mongo.url, arguments).output().await.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, stdout, stderr) = run(&["reconcile", "--json", "--since", "2h"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (report["status"].as_str(), report["mismatches_found"].as_i64(), report["auto_repaired"].as_i64()),
        (Some("completed"), Some(1), Some(0))
    );
    assert_eq!(report["by_drift"], serde_json::json!({ "lost_update": 1 }));
    assert_eq!(outcomes(&world).await, ["applied"]);
    let (code, stdout, _) = run(&["reconcile"]).await;
    assert!(code == Some(0) && stdout.contains("lost_update") && stdout.contains("--repair"), "{stdout}");

    let (code, stdout, _) = run(&["audit", "--json"]).await;
    assert_eq!(code, Some(1), "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (found["checked"].as_i64(), found["issues"].as_i64(), found["health_score"].as_f64()),
        (Some(1), Some(1), Some(0.0))
    );
    assert_eq!(
        (found["findings"][0]["kind"].as_str(), found["findings"][0]["plan"].as_str()),
        (Some("amount_mismatch"), Some("re_sync"))
    );

    let (code, stdout, stderr) = run(&["reconcile", "--repair", "--by", "Frau Kundig"]).await;
    assert!(code == Some(0) && stdout.contains("1 repairs enqueued"), "{stdout} {stderr}");
    world.once().await;
    assert_eq!(run(&["audit"]).await.0, Some(0));
    let away = world.program("mongodb://127.0.0.1:9/", &["audit"]).output().await.unwrap();
    assert_eq!(away.status.code(), Some(3));
    for wrong in
        [["reconcile", "--since=soon"], ["reconcile", "--repair-edited"], ["audit", "--lookback-days=0"]]
    {
        assert_eq!(run(&wrong).await.0, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn an_audit_tells_each_kind_with_its_plan() {
    let world = written().await;
    let context = world.context().await;
    world.run("update incoming_emails set extracted_data = '{\"debt_amount\": \"1234.56\", \"client_name\": \"Adler, Eva\"}'").await;
    assert_eq!(audit(&context, 30).await.unwrap().health_score, 1.0);
    let plant = async |columns: &str| {
        let statement = format!(
            "insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint, created_at, {}) values
            ('api', gen_random_uuid()::text, 'a@b.example', '', now(), sha256(''), now() - interval '2 hours', {})",
            columns.split('|').next().unwrap(),
            columns.split('|').nth(1).unwrap()
        );
        world.run(&statement).await;
    };
    plant("processing_status, sync_status, sync_error | 'failed', 'failed', 'permanent: x'").await;
    plant("processing_status, match_status | 'matching', 'no_match'").await;
    plant("processing_status, match_status, sync_status, extracted_data | 'completed', 'needs_review', 'not_applicable', '{\"debt_amount\": null}'").await;
    plant("processing_status | 'extracted'").await;
    plant("processing_status, match_status, sync_status, extracted_data | 'completed', 'needs_review', 'not_applicable', '{\"debt_amount\": \"5.00\", \"client_name\": \"A, B\"}'").await;
    portal(&world, doc! { "$set": { "final_creditor_list.0.current_debt_amount": 5.0 } }).await;
    let found = audit(&context, 30).await.unwrap();
    assert_eq!((found.checked, found.issues, found.is_healthy), (6, 5, false));
    let kinds: Vec<_> = found.findings.iter().map(|issue| (issue.kind, issue.plan)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::AmountMismatch, Plan::ManualReview),
            (Kind::ProcessingFailed, Plan::ManualReview),
            (Kind::MissingRecord, Plan::ManualReview),
            (Kind::Stalled, Plan::Stalled),
            (Kind::IncompleteExtraction, Plan::ManualReview),
        ]
    );
    world.run("update incoming_emails set created_at = now() - interval '40 days'").await;
    assert_eq!(audit(&context, 30).await.unwrap().checked, 0);
}
