//! `relay erase`: a client's data leaves Postgres, and everything still answers.

use crate::{
    console::{get, served},
    feed::Relay,
    world::{Update, World, turmhaus},
};
use mongodb::bson::doc;
use relay::{
    operations::limits,
    outbox::{self, LowWaterMark},
    outcome::Outcome,
};
use serde_json::json;
use shared::message::{EmailId, Operation};

const CONFIDENTIAL: [&str; 7] =
    ["2024/118", "2024_118", "Adler", "1234.56", "4711.11", "TK-1", "konto@turmhaus"];

/// Everything in Postgres, as text.
async fn dump(world: &World) -> String {
    let tables = world.sql.query("select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace", &[]).await.unwrap();
    let mut text = String::new();
    for table in tables {
        let rows =
            format!("select coalesce(string_agg(t::text, chr(10)), '') from {} t", table.get::<_, String>(0));
        text.push_str(world.row(&rows).await.get(0));
        // As text, bytes are hexadecimal.
        if table.get::<_, String>(0) == "incoming_emails" {
            text.push_str(world.row("select coalesce(string_agg(convert_from(raw, 'UTF8'), ' '), '') from incoming_emails").await.get(0));
        }
    }
    text
}

/// A mail with all that ingest and extraction store.
async fn mail(world: &World, update: Update) -> EmailId {
    let (number, amount) = (update.aktenzeichen, update.amount.clone());
    let email = world.commit(update).await;
    let data = json!({ "is_creditor_reply": true, "client_name": "Adler, Eva", "client_aktenzeichen": number, "creditor_name": "Turmhaus",
        "debt_amount": amount, "reference_numbers": ["TK-1"], "confidence": 0.9, "summary": "Frau Adler schuldet" });
    let text = "update incoming_emails set subject = $2, from_name = 'Adler', body_text = $2, body_html = $2, raw = $2::text::bytea, cleaned_body = $2,
        attachments = '[{\"filename\": \"Adler.pdf\"}]', headers = '{\"To\": \"Adler\"}', ticket_id = 'TK-1', extracted_data = $1,
        idempotency_key = 'creditor_debt_update:' || id || ':00' where id = $3";
    world.may_rewrite_mails().await;
    world.sql.execute(text, &[&data, &format!("Adler {number}"), &email]).await.unwrap();
    let key = "update outbox_messages set idempotency_key = 'creditor_debt_update:' || aggregate_id || ':0'
        where aggregate_id = $1::bigint::text";
    world.sql.execute(key, &[&email]).await.unwrap();
    email
}

async fn another_client(world: &World) {
    let other = doc! { "aktenzeichen": "2024_999", "firstName": "Jo", "lastName": "Brandt", "final_creditor_list": [turmhaus("x")] };
    world.mongo.clients.insert_one(other).await.unwrap();
}

#[tokio::test]
async fn nothing_of_a_client_stays_in_postgres_and_the_others_keep_everything() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    another_client(&world).await;
    let applied = mail(&world, Update::default()).await;
    let other =
        mail(&world, Update { aktenzeichen: "2024/999", ..Update::of("77.77", "2026-02-17T09:14:22Z") })
            .await;
    world.once().await;
    let held = mail(&world, Update::of("4711.11", "2026-03-01T00:00:00Z")).await;
    world.run(&format!("update outbox_messages set payload = payload || '{{\"extraction_confidence\": 0.1}}' where aggregate_id = '{held}'")).await;
    world.once().await;
    assert_eq!(world.shows(held).await, "completed/needs_review/not_applicable");
    world
        .json_of(&["correct", &applied.to_string(), "--amount", "1300", "--reason", "Frau Adler rief an"])
        .await;
    let edited = doc! { "$set": { "final_creditor_list.0.current_debt_amount": 1.0 } };
    world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, edited).await.unwrap();
    world.json_of(&["reconcile"]).await;
    let dead = mail(&world, Update::of("4711.11", "2026-04-01T00:00:00Z")).await;
    world.run(&format!("update outbox_messages set dead_at = now(), error_class = 'permanent' where aggregate_id = '{dead}'")).await;
    let waiting = mail(&world, Update::of("4711.11", "2026-05-01T00:00:00Z")).await;
    let (document, before) = (world.entries().await, dump(&world).await);

    let dry = world.json_of(&["erase", "--client", "2024/118"]).await;
    assert_eq!(dump(&world).await, before, "a dry run changes nothing");
    let erased = world.json_of(&["erase", "--client", "2024_118", "--apply"]).await;
    for count in [
        "emails",
        "shared_emails",
        "messages",
        "ledger_rows",
        "decisions",
        "acts",
        "reports",
        "undecided_emails",
    ] {
        assert_eq!(erased[count], dry[count], "{count}: the dry run said the truth");
    }
    let counts = ["emails", "shared_emails", "messages", "ledger_rows", "decisions", "acts", "reports"];
    let counts: Vec<i64> = counts.iter().map(|name| erased[name].as_i64().unwrap()).collect();
    assert_eq!(counts, [4, 0, 5, 1, 3, 1, 1], "{erased}");
    let after = dump(&world).await;
    let of_the_other = world.row(&format!("select m::text || o::text from incoming_emails m, outbox_messages o where m.id = {other} and o.aggregate_id = '{other}'")).await;
    assert!(of_the_other.get::<_, &str>(0).contains("2024/999"));
    world
        .run(&format!("create temporary table kept as select * from incoming_emails where id <> {other}"))
        .await;
    for word in ["2024/118", "2024_118", "1234.56", "1300", "4711.11", "rief an"] {
        assert!(before.contains(word), "{word} was there");
        assert!(!after.contains(word), "{word} is left: {after}");
    }
    let mails = world.row("select string_agg(k::text, '') from kept k").await.get::<_, String>(0);
    assert!(CONFIDENTIAL.iter().all(|word| !mails.contains(word)), "{mails}");
    assert_eq!(world.entries().await, document, "MongoDB is the portal's");

    // The receipt says how much and who, not of whom; a second run finds nothing.
    let receipt =
        world.row("select id, actor, detail::text from operator_actions where action = 'erase'").await;
    assert_eq!((receipt.get::<_, i64>(0), receipt.get(1)), (erased["receipt_id"].as_i64().unwrap(), "clerk"));
    let again = world.json_of(&["erase", "--client", "2024/118", "--apply"]).await;
    assert_eq!(
        (&again["emails"], &again["messages"], &again["receipt_id"]),
        (&0.into(), &0.into(), &json!(null))
    );
    answers_cleanly(&world, [applied, held, dead, waiting]).await;
    assert_eq!(world.shows(other).await, "completed/auto_matched/synced");
}

/// Whatever is asked about an erased mail has an answer.
async fn answers_cleanly(world: &World, [applied, held, dead, waiting]: [EmailId; 4]) {
    let id = applied.to_string();
    let (code, told, _) = world.relay(&["explain", &id]).await;
    assert!(code == 0 && told.contains("everything about the person was removed (erasure)"), "{told}");
    assert!(told.contains("applied by relay: erased"), "who decided stays: {told}");
    for email in [applied, held, dead, waiting] {
        let replayed = world.json_of(&["replay", "--email", &email.to_string()]).await;
        assert!(replayed["mails"][0]["skipped"].as_str().unwrap().contains("(erasure)"), "{replayed}");
    }
    let (code, _, said) = world.relay(&["correct", &id, "--amount", "5"]).await;
    assert!(code == 1 && said.contains("is not known any more"), "{said}");
    let (code, _, said) = world.relay(&["review", "accept", &held.to_string()]).await;
    assert!(code == 1 && said.contains("is not held for review"), "{said}");
    let (code, _, said) = world.relay(&["replay", "--client", "2024/118"]).await;
    assert!(code == 1 && said.contains("is known to be of the client"), "{said}");
    assert_eq!(world.json_of(&["review", "list"]).await, json!([]));
    assert_eq!(world.json_of(&["dead-letters", "list"]).await["dead"], 0);
    let reconciled = world.json_of(&["reconcile", "--repair"]).await;
    assert_eq!(
        (&reconciled["records_checked"], &reconciled["mismatches_found"]),
        (&1.into(), &0.into()),
        "{reconciled}"
    );
    assert_eq!(world.json_of(&["audit"]).await["health_score"], 1.0);
    assert_eq!(world.relay(&["explain", "2024/118"]).await.0, 0, "MongoDB still has the client");
    let page = "select processing_status, sync_status from incoming_emails where id = $1";
    let row = world.sql.query_one(page, &[&waiting]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("completed", "not_applicable"));
    let relay = Relay::start(world, &[]);
    let page = get(&format!("{}/emails/{id}", served(&relay).await)).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(page.contains("everything about the person was removed (erasure)"), "{page}");
    relay.terminate().await;
    // A new mail of the creditor is an ordinary one.
    let new = world.commit(Update::of("5000", "2027-01-01T00:00:00Z")).await;
    world.once().await;
    assert_eq!((world.state(new).await.as_str(), world.amount("b").await), ("done/applied/0", Some(5000.0)));
}

#[tokio::test]
async fn what_a_worker_holds_is_left_to_it_and_a_late_worker_brings_nothing_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = mail(&world, Update::default()).await;
    let connection = world.context().await.pool.get().await.unwrap();
    let mut mark = LowWaterMark::default();
    let operation = Operation::CreditorDebtUpdate;
    let mut claims =
        outbox::claim(&connection, operation, &mut mark, 10, limits(operation).lease, "w").await.unwrap();
    let (code, _, said) = world.relay(&["erase", "--client", "2024/118", "--apply"]).await;
    assert!(
        code == 1 && said.contains("message 1 about this client is being worked on: try again"),
        "{said}"
    );
    assert_eq!(world.shows(email).await, "extracted/-/pending", "nothing was removed");

    // Its lease is over; then it comes back with a result.
    world.run("update outbox_messages set claimed_until = now() - interval '1 second'").await;
    assert_eq!(world.json_of(&["erase", "--client", "2024/118", "--apply"]).await["messages"], 1);
    let mut finished = claims.pop().unwrap().done(Outcome::Applied, 5);
    finished.email.as_mut().unwrap().cleaned_body = Some("Adler".into());
    let mut receipt = outbox::Receipt::default();
    outbox::finish(&connection, &mut vec![finished], 10, &mut receipt).await.unwrap();
    assert!(receipt.committed.is_empty());
    let left = dump(&world).await;
    assert!(CONFIDENTIAL.iter().all(|word| !left.contains(word)), "{left}");
}

#[tokio::test]
async fn a_mail_of_two_clients_keeps_what_is_about_the_other_and_an_undecided_one_waits() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    another_client(&world).await;
    let shared = mail(&world, Update::default()).await;
    world.once().await;
    // A person has given it to the other client afterwards.
    world.run(&format!("insert into decisions (email_id, message_id, new_amount, decision, reason, candidates, actor)
        select {shared}, 9, 8, 'applied', 'written', jsonb_build_array(jsonb_build_object('client_id', 'other', 'aktenzeichen', '2024_999', 'entries', '[]'::jsonb)), 'relay'")).await;
    let twins = json!([{ "client_id": "one", "aktenzeichen": "2024_118" }, { "client_id": "two", "aktenzeichen": "2024_999" }]);
    let undecided = world.email("konto@turmhaus.example", "2026-02-17T09:14:22Z".parse().unwrap()).await;
    let held = "insert into decisions (email_id, message_id, decision, reason, candidates, actor) values ($1, 8, 'held_for_review', 'x', $2, 'relay')";
    world.sql.execute(held, &[&undecided, &twins]).await.unwrap();
    let erased = world.json_of(&["erase", "--client", "2024/118", "--apply"]).await;
    assert_eq!(
        (&erased["emails"], &erased["shared_emails"], &erased["ledger_rows"]),
        (&0.into(), &1.into(), &1.into()),
        "{erased}"
    );
    assert_eq!(erased["undecided_emails"], json!([undecided]));
    let decisions = world.row(&format!("select count(*) filter (where reason = 'erased'), count(*) filter (where new_amount = 8) from decisions where email_id = {shared}")).await;
    assert_eq!((decisions.get::<_, i64>(0), decisions.get::<_, i64>(1)), (1, 1));
    let mail = world.row(&format!("select body_text is null and extracted_data is null, from_email from incoming_emails where id = {shared}")).await;
    assert_eq!((mail.get(0), mail.get(1)), (true, "konto@turmhaus.example"));
}

#[tokio::test]
async fn decisions_and_acts_go_in_no_other_way_and_no_text_comes_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = mail(&world, Update::default()).await;
    world.once().await;
    for table in ["decisions", "operator_actions"] {
        let refused = world.sql.batch_execute(&format!("delete from {table}")).await.unwrap_err();
        assert!(refused.as_db_error().unwrap().message().contains("append-only"));
    }
    world.json_of(&["erase", "--client", "2024/118", "--apply"]).await;
    let back = world
        .sql
        .execute("update incoming_emails set cleaned_body = 'x' where id = $1", &[&email])
        .await
        .unwrap_err();
    assert_eq!(back.as_db_error().unwrap().constraint(), Some("incoming_emails_text_is_removed"));
    let (code, _, said) = world.relay(&["erase", "--client", " "]).await;
    assert!(code == 2, "{said}");
    let (code, said, _) = world.relay(&["erase", "--client", "1/1", "--apply"]).await;
    assert!(code == 0 && said.contains("there is nothing about this client"), "{said}");
}

#[tokio::test]
async fn a_mail_that_nobody_has_read_is_found_by_its_own_words() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    mail(&world, Update::default()).await;
    world.once().await;
    world.may_rewrite_mails().await;
    let says = async |column: &str, text: &str| {
        let email = world.email("x@y.example", "2026-02-17T09:14:22Z".parse().unwrap()).await;
        let statement =
            format!("update incoming_emails set {column} = $2, processing_status = 'received' where id = $1");
        world.sql.execute(&statement, &[&email, &text]).await.unwrap();
        email
    };
    let found = [
        says("subject", "Ihr Zeichen (2024/118)").await,
        says("body_text", "Unser Mandant Az.2024_118: offen").await,
        says("body_html", "<b>EVA</b> geb. Muster, Frau Adler").await,
        says("cleaned_body", "2024/118").await,
    ];
    for (column, text) in [
        ("subject", "2024/1187"),
        ("body_text", "12024/118 und 2024118"),
        ("body_html", "Adlers, Eva"),
        ("cleaned_body", "Frau Adler"),
    ] {
        says(column, text).await;
    }
    let erased = world.json_of(&["erase", "--client", "2024/118"]).await;
    assert_eq!((&erased["emails"], &erased["undecided_emails"]), (&1.into(), &json!(found)));
    let named: Vec<String> = found.iter().map(ToString::to_string).collect();
    let erased =
        world.json_of(&["erase", "--client", "2024/118", "--email", &named.join(","), "--apply"]).await;
    assert_eq!((&erased["emails"], &erased["undecided_emails"]), (&5.into(), &json!([])));
}

#[tokio::test]
async fn a_mail_that_has_been_written_to_the_client_and_waits_for_another_is_not_the_clients_alone() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    another_client(&world).await;
    let others = Update { aktenzeichen: "2024/999", ..Update::of("77", "2026-02-16T00:00:00Z") };
    world.commit(others).await;
    let mut emails = Vec::new();
    for day in ["2026-02-17T00:00:00Z", "2026-02-18T00:00:00Z", "2026-02-19T00:00:00Z"] {
        emails.push(mail(&world, Update::of("900", day)).await);
    }
    world.once().await;
    let [held, waiting, unknown] = emails.try_into().unwrap();
    for (email, number) in [(held, "2024_999"), (waiting, "2024/999"), (unknown, "77120934")] {
        let payload = json!({ "email_id": email, "client_aktenzeichen": number, "new_debt_amount": "8" });
        world.message("creditor_debt_update", email, payload).await;
    }
    // One has been looked at, and a person has to decide about the other client.
    world
        .run(&format!("update outbox_messages set processed_at = now(), outcome = 'held_for_review' where aggregate_id = '{held}' and processed_at is null"))
        .await;
    let other = json!([{ "client_id": "other", "aktenzeichen": "2024_999" }]);
    let decision = "insert into decisions (email_id, message_id, new_amount, decision, reason, candidates, actor) values ($1, 9, 8, 'held_for_review', 'x', $2, 'relay')";
    world.sql.execute(decision, &[&held, &other]).await.unwrap();
    let erased = world.json_of(&["erase", "--client", "2024/118", "--apply"]).await;
    assert_eq!((&erased["emails"], &erased["shared_emails"]), (&0.into(), &2.into()), "{erased}");
    assert_eq!(erased["undecided_emails"], json!([unknown]), "nobody is known by that number");
    let left = format!(
        "select string_agg(aggregate_id, ' ' order by id) from outbox_messages where payload ->> 'new_debt_amount' = '8' and aggregate_id <> '{unknown}'"
    );
    let left = world.row(&left).await.get::<_, String>(0);
    assert_eq!(left, format!("{held} {waiting}"), "the other client's updates stay");
    let named = ["erase", "--client", "2024/118", "--email", &unknown.to_string(), "--apply"];
    assert_eq!(world.json_of(&named).await["emails"], 1);
    assert_eq!(
        world
            .row(&format!("select count(*) from outbox_messages where aggregate_id = '{unknown}'"))
            .await
            .get::<_, i64>(0),
        0
    );
    // The latest decision is still the latest.
    let latest = world
        .row(&format!(
            "select decision, candidates from decisions where email_id = {held} order by id desc limit 1"
        ))
        .await;
    assert_eq!((latest.get(0), latest.get::<_, serde_json::Value>(1)), ("held_for_review", other));
}

#[tokio::test]
async fn an_erasure_waits_for_the_end_of_a_reconciliation_but_not_for_a_killed_one() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    mail(&world, Update::default()).await;
    world.once().await;
    world.run("insert into reconciliation_reports (scope, actor) values ('all', 'relay')").await;
    let (code, _, said) = world.relay(&["erase", "--client", "2024/118", "--apply"]).await;
    assert!(code == 1 && said.contains("a reconciliation is running"), "{said}");
    assert_eq!(
        world.json_of(&["erase", "--client", "2024/118"]).await["emails"],
        1,
        "a dry run says what would be"
    );
    world.run("update reconciliation_reports set run_at = now() - interval '61 minutes'").await;
    assert_eq!(world.json_of(&["erase", "--client", "2024/118", "--apply"]).await["emails"], 1);
}

#[tokio::test]
async fn a_reconciliation_that_has_read_the_ledger_before_brings_no_erased_client_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    mail(&world, Update::default()).await;
    world.once().await;
    let lost = doc! { "$unset": { "final_creditor_list.0.current_debt_amount": "", "final_creditor_list.0._relay": "" } };
    world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, lost).await.unwrap();
    // It stops at its repair until the ledger's row is gone.
    let mut rival = world.database.client().await;
    let transaction = rival.transaction().await.unwrap();
    transaction.batch_execute("lock table outbox_messages in share row exclusive mode").await.unwrap();
    let run = world.program(&world.mongo.url, &["reconcile", "--repair", "--json"]).spawn().unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like 'insert into outbox_messages%'";
    let waits = format!(
        "select ({waits}) + (select count(*) from pg_locks where not granted and relation = 'outbox_messages'::regclass)"
    );
    while world.row(&waits).await.get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
    transaction.execute("delete from creditor_debts", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    let output = run.wait_with_output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["mismatches_found"], &report["auto_repaired"]), (&1.into(), &0.into()), "{report}");
    let left = world.row("select count(*) from outbox_messages where processed_at is null").await;
    assert_eq!(left.get::<_, i64>(0), 0);
}
