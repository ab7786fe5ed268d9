//! The cut-over: `relay import-legacy` on a database as the replaced service leaves it.

use crate::{
    end_to_end::Ingest,
    world::{Update, World, seeblick, turmhaus},
};
use mongodb::bson::doc;
use serde_json::Value;
use testkit::Database;

const SCHEMA: &str = include_str!("../legacy_schema.sql");

struct Cutover {
    world: World,
    old: Database,
}

impl Cutover {
    /// Both databases, and MongoDB as the old service left it.
    async fn new() -> Cutover {
        let (world, old) = (World::new().await, Database::empty().await);
        old.client().await.batch_execute(SCHEMA).await.unwrap();
        let mut entry = turmhaus("b");
        entry.insert("current_debt_amount", 850.1);
        world.client(vec![entry]).await;
        let brandt = doc! { "aktenzeichen": "2024_200", "firstName": "Jo", "lastName": "Brandt", "final_creditor_list": [seeblick("s")] };
        world.mongo.clients.insert_one(brandt).await.unwrap();
        Cutover { world, old }
    }

    async fn import(&self, arguments: &[&str]) -> (i32, String, String) {
        let arguments = [&["import-legacy", "--from", &self.old.url], arguments].concat();
        self.world.relay(&arguments).await
    }

    async fn import_json(&self, arguments: &[&str]) -> Value {
        let (code, said, error) = self.import(&[arguments, &["--json"]].concat()).await;
        assert_eq!(code, 0, "{error}");
        serde_json::from_str(&said).unwrap()
    }

    /// `processing/match/sync` of the mail with this id in the old database.
    async fn shows(&self, old_id: i64) -> String {
        self.world.shows(self.id(old_id).await).await
    }

    async fn id(&self, old_id: i64) -> i64 {
        let statement = "select id from incoming_emails where legacy_id = $1";
        self.world.sql.query_one(statement, &[&old_id]).await.unwrap().get(0)
    }

    /// `operation outcome` of the only message of the mail.
    async fn message(&self, old_id: i64) -> String {
        let statement = "select string_agg(concat_ws(' ', operation, outcome), ', ' order by id) from outbox_messages where aggregate_id = $1::bigint::text";
        let row = self.world.sql.query_one(statement, &[&self.id(old_id).await]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    async fn seeblick_amount(&self) -> Option<f64> {
        let client =
            self.world.mongo.clients.find_one(doc! { "aktenzeichen": "2024_200" }).await.unwrap().unwrap();
        client.get_array("final_creditor_list").unwrap()[0]
            .as_document()
            .unwrap()
            .get_f64("current_debt_amount")
            .ok()
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_a_repeat_imports_nothing_new() {
    let cutover = Cutover::new().await;
    let dry = cutover.import_json(&[]).await;
    let count = cutover.world.row("select count(*) from incoming_emails").await.get::<_, i64>(0);
    assert_eq!(count, 0, "dry");
    let mut wanted = dry.clone();
    wanted["dry_run"] = false.into();
    let done = cutover.import_json(&["--apply"]).await;
    assert_eq!(done, wanted, "the dry run said the truth");
    let numbers = [
        "emails",
        "imported",
        "settled",
        "undecided",
        "marks",
        "updates",
        "held_updates",
        "extractions",
        "held_extractions",
    ];
    let numbers: Vec<i64> = numbers.iter().map(|name| done[name].as_i64().unwrap()).collect();
    assert_eq!(numbers, [10, 10, 3, 1, 1, 1, 3, 1, 1], "{done}");
    assert_eq!((&done["keys"], &done["imported_keys"], &done["left_out"]), (&2.into(), &1.into(), &2.into()));
    assert_eq!(done["left_out_emails"], 0);
    let problems = done["problems"].to_string();
    assert!(
        problems.contains(r#""table":"outbox_messages""#) && problems.contains("idempotency_keys"),
        "{problems}"
    );
    assert!(
        !problems.contains("Adler") && !problems.contains("700"),
        "named by table and id only: {problems}"
    );
    assert_eq!(done["newest_change"], "2026-05-22T08:00:00Z");

    let again = cutover.import_json(&["--apply"]).await;
    assert_eq!(
        (&again["known"], &again["imported"], &again["known_keys"]),
        (&10.into(), &0.into(), &1.into())
    );
    let messages = cutover.world.row("select count(*) from outbox_messages").await.get::<_, i64>(0);
    assert_eq!(messages, 7);
    let act = cutover.world.row("select actor, action, detail ->> 'imported' from operator_actions").await;
    assert_eq!((act.get(0), act.get(1), act.get(2)), ("clerk", "import", "10"));
    let (code, said, _) = cutover.import(&["--apply"]).await;
    assert!(code == 0 && said.contains("10 emails, 10 of them here already, 0 imported"), "{said}");
}

#[tokio::test]
async fn unfinished_mails_go_on_and_nothing_goes_backwards() {
    let cutover = Cutover::new().await;
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    // The unread mail that is newer than everything that was written.
    assert_eq!(cutover.message(7).await, "email_extraction extracted, creditor_debt_update applied");
    assert_eq!(cutover.world.amount("b").await, Some(910.0));
    assert_eq!(cutover.message(2).await, "creditor_debt_update superseded");
    assert_eq!(cutover.shows(2).await, "completed/auto_matched/synced");
    assert_eq!(cutover.message(1).await, "");
    // What is older than something that was written is a person's.
    assert_eq!(cutover.message(3).await, "creditor_debt_update held_for_review");
    assert_eq!(cutover.message(6).await, "email_extraction extracted, creditor_debt_update held_for_review");
    // Nothing newer of this client: exact to the cent, in spite of five failures before.
    assert_eq!(cutover.message(4).await, "creditor_debt_update applied");
    assert_eq!(cutover.seeblick_amount().await, Some(1234.56));
    // The made-up amount is for a person, and so is what cannot be read exactly.
    assert_eq!(cutover.message(5).await, "creditor_debt_update held_for_review");
    assert_eq!(cutover.shows(10).await, "completed/needs_review/not_applicable");
    let held = cutover.world.relay(&["review", "list"]).await.1;
    assert!(
        held.contains("another amount than it had read") && held.contains("cannot be read exactly"),
        "{held}"
    );
    let five = cutover.id(5).await.to_string();
    cutover.world.json_of(&["review", "accept", &five, "--amount", "1300"]).await;
    cutover.world.once().await;
    assert_eq!(cutover.seeblick_amount().await, Some(1300.0), "a person's decision is carried out");
}

#[tokio::test]
async fn what_the_old_service_wrote_gets_its_mark_and_keeps_everything_else() {
    let cutover = Cutover::new().await;
    let mut before = cutover.world.entries().await[0].clone();
    cutover
        .old
        .client()
        .await
        .batch_execute("delete from incoming_emails where id in (3, 6, 7)")
        .await
        .unwrap();
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    assert_eq!(cutover.message(2).await, "creditor_debt_update applied");
    let entry = &cutover.world.entries().await[0];
    let mark = entry.get_document("_relay").unwrap();
    assert_eq!(mark.get_i64("email").unwrap(), cutover.id(2).await);
    before.insert("_relay", mark.clone());
    assert_eq!(*entry, before);
    // A late mail from before that is behind it.
    let late = cutover.world.commit(Update::of("990", "2026-05-09T00:00:00Z")).await;
    cutover.world.once().await;
    assert_eq!(cutover.world.state(late).await, "done/superseded/0");
    assert_eq!(cutover.world.json_of(&["reconcile"]).await["mismatches_found"], 0);
}

#[tokio::test]
async fn what_somebody_has_changed_since_gets_no_mark_and_the_older_mails_wait_for_a_person() {
    let cutover = Cutover::new().await;
    let edited = doc! { "$set": { "final_creditor_list.0.current_debt_amount": 640.0 } };
    cutover.world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, edited).await.unwrap();
    cutover.old.client().await.batch_execute("delete from incoming_emails where id = 7").await.unwrap();
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    assert_eq!(cutover.world.amount("b").await, Some(640.0));
    assert_eq!(cutover.message(2).await, "creditor_debt_update stale_plan");
    let (_, audit, _) = cutover.world.relay(&["audit", "--lookback-days", "3650", "--json"]).await;
    let audit: Value = serde_json::from_str(&audit).unwrap();
    let findings = audit["findings"].as_array().unwrap();
    let unmarked: Vec<&Value> = findings.iter().filter(|finding| finding["kind"] == "unmarked").collect();
    assert_eq!(unmarked.len(), 1, "{audit}");
    assert_eq!(unmarked[0]["email_id"], cutover.id(2).await);
    assert_eq!(cutover.message(3).await, "creditor_debt_update held_for_review");
    assert_eq!(cutover.message(6).await, "email_extraction extracted, creditor_debt_update held_for_review");
    // Nor does a replay write over it.
    let two = cutover.id(2).await.to_string();
    cutover.world.json_of(&["replay", "--email", &two]).await;
    cutover.world.once().await;
    assert_eq!(cutover.world.amount("b").await, Some(640.0));
    // A person says what is right, and the entry has its mark.
    cutover.world.json_of(&["review", "accept", &two, "--amount", "640"]).await;
    cutover.world.once().await;
    let entry = &cutover.world.entries().await[0];
    assert_eq!(entry.get_document("_relay").unwrap().get_i64("email").unwrap(), cutover.id(2).await);
}

#[tokio::test]
async fn an_imported_mail_that_was_read_here_is_written_again_by_a_person_only() {
    let cutover = Cutover::new().await;
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    let seven = cutover.id(7).await;
    assert_eq!(cutover.world.amount("b").await, Some(910.0));
    // Its messages have left, and the ledger is not that of this database any more.
    cutover.world.run("delete from outbox_messages; delete from creditor_debts").await;
    let edited = doc! { "$set": { "final_creditor_list.0.current_debt_amount": 640.0 }, "$unset": { "final_creditor_list.0._relay": "" } };
    cutover.world.mongo.clients.update_one(doc! { "aktenzeichen": "2024_118" }, edited).await.unwrap();
    cutover.world.json_of(&["replay", "--email", &seven.to_string()]).await;
    cutover.world.once().await;
    assert_eq!(cutover.message(7).await, "creditor_debt_update held_for_review");
    assert_eq!(cutover.world.amount("b").await, Some(640.0));
    let held = cutover.world.json_of(&["review", "list"]).await.to_string();
    assert!(held.contains("whether MongoDB has had newer amounts since is not known"), "{held}");
}

#[tokio::test]
async fn what_has_ended_can_be_explained_and_put_right() {
    let cutover = Cutover::new().await;
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    let five = cutover.id(4).await.to_string();
    let explained = cutover.world.json_of(&["explain", &five]).await;
    assert_eq!(explained["arrived_at"], "2026-05-06T08:00:01Z", "times without a zone are UTC");
    assert_eq!(explained["received_at"], "2026-05-06T08:00:00.25Z");
    let one = cutover.world.json_of(&["explain", &cutover.id(1).await.to_string()]).await;
    let key = format!("creditor_debt_update:{}:00112233aabbccdd", cutover.id(1).await);
    assert_eq!((&one["idempotency_key"], &one["webhook_id"]), (&key.into(), &"wh-1".into()));
    let told = cutover.world.relay(&["explain", &five]).await.1;
    assert!(
        told.contains("stored by the replaced service as its email 4, source zendesk, id legacy:4"),
        "{told}"
    );
    assert_eq!(cutover.shows(8).await, "not_creditor_reply/-/not_applicable");
    assert_eq!(cutover.shows(9).await, "completed/-/not_applicable");
    cutover.world.json_of(&["correct", &five, "--amount", "1200"]).await;
    cutover.world.once().await;
    assert_eq!(cutover.seeblick_amount().await, Some(1200.0));
}

#[tokio::test]
async fn a_mail_that_the_new_ingest_has_taken_meanwhile_stays_as_it_is() {
    let cutover = Cutover::new().await;
    let taken = "insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint)
        values ('zendesk', 'wh-3', 'a@b.example', '', now(), sha256(''))";
    cutover.world.run(taken).await;
    let done = cutover.import_json(&["--apply"]).await;
    assert_eq!((&done["known"], &done["imported"], &done["held_updates"]), (&1.into(), &9.into(), &2.into()));
    let rows = cutover
        .world
        .row("select count(*), count(*) filter (where legacy_id is null) from incoming_emails")
        .await;
    assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)), (10, 1));
}

#[tokio::test]
async fn what_is_no_old_database_or_has_several_tenants_is_refused_and_one_bad_row_holds_no_other() {
    let cutover = Cutover::new().await;
    let sql = cutover.old.client().await;
    let (code, _, said) = cutover.world.relay(&["import-legacy"]).await;
    assert!(code == 64 && said.contains("LEGACY_DATABASE_URL is not set"), "{said}");
    let own = cutover.world.database.url.clone();
    let (code, _, said) = cutover.world.relay(&["import-legacy", "--from", &own]).await;
    assert!(code == 1 && said.contains("zendesk_webhook_id"), "{said}");
    sql.batch_execute("update incoming_emails set kanzlei_id = 'k2' where id = 9").await.unwrap();
    let (code, _, said) = cutover.import(&["--apply"]).await;
    assert!(code == 1 && said.contains("k1, k2"), "{said}");
    // An attachment list that no column of ours takes is none; a name that is too long for a check is refused alone.
    sql.batch_execute(
        "update incoming_emails set received_at = '1969-01-01', created_at = '1969-01-01' where id = 8",
    )
    .await
    .unwrap();
    let (code, said, _) = cutover.import(&["--apply", "--kanzlei", "k1", "--json"]).await;
    let done: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &done["left_out_emails"]), (1, &1.into()), "nobody overlooks a mail that is not here");
    assert_eq!((&done["emails"], &done["imported"]), (&9.into(), &8.into()), "{done}");
    assert!(done["problems"].to_string().contains(r#""id":8"#), "{done}");
}

#[tokio::test]
async fn what_is_imported_is_never_a_shadows_nor_is_anything_imported_for_one() {
    let cutover = Cutover::new().await;
    cutover.import_json(&["--apply"]).await;
    // RELAY_SHADOW was forgotten.
    let (code, _, said) = cutover.world.relay(&["run", "--once", "--shadow"]).await;
    assert!(code == 1 && said.contains("mails were imported"), "{said}");
    cutover.world.once().await;
    assert_eq!(cutover.seeblick_amount().await, Some(1234.56));

    let trial = Cutover::new().await;
    trial.world.json_of(&["migrate", "--shadow"]).await;
    for arguments in [&["--apply"][..], &[]] {
        let (code, _, said) = trial.import(arguments).await;
        assert!(code == 1 && said.contains("this is a shadow's database"), "{said}");
    }
    assert_eq!(trial.world.row("select count(*) from incoming_emails").await.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn an_import_that_was_killed_goes_on_where_it_was() {
    let cutover = Cutover::new().await;
    let more = "insert into incoming_emails (id, zendesk_ticket_id, zendesk_webhook_id, from_email, raw_body_text, received_at, kanzlei_id)
        select n, n, 'more-' || n, 'x@y.example', 'Text', '2026-06-01', 'k1' from generate_series(101, 220) n";
    cutover.old.client().await.batch_execute(more).await.unwrap();
    // Somebody has taken one of the third page and has not committed: the import waits for it there.
    let mut rival = cutover.world.database.client().await;
    let transaction = rival.transaction().await.unwrap();
    let taken = "insert into incoming_emails (source, webhook_id, from_email, received_at) values ('zendesk', 'more-200', 'x@y.example', now())";
    transaction.execute(taken, &[]).await.unwrap();
    let arguments = ["import-legacy", "--from", &cutover.old.url, "--apply"];
    let mut killed = cutover.world.program(&cutover.world.mongo.url, &arguments).spawn().unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%jsonb_to_recordset%'";
    while cutover.world.row(waits).await.get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
    killed.kill().await.unwrap();
    let imported = cutover.world.row("select count(*) from incoming_emails").await.get::<_, i64>(0);
    assert_eq!(imported, 100, "two pages");
    transaction.commit().await.unwrap();

    let done = cutover.import_json(&["--apply"]).await;
    assert_eq!(
        (&done["emails"], &done["known"], &done["imported"]),
        (&130.into(), &101.into(), &29.into()),
        "{done}"
    );
    let whole = "select count(*), count(distinct legacy_id), (select count(distinct idempotency_key) from outbox_messages) from incoming_emails";
    let whole = cutover.world.row(whole).await;
    let counts: [i64; 3] = [whole.get(0), whole.get(1), whole.get(2)];
    assert_eq!(counts, [130, 129, 7 + 119], "every mail once, and its message");
}

#[tokio::test]
async fn a_webhook_that_the_old_service_had_taken_is_a_duplicate_before_and_after_its_erasure() {
    let cutover = Cutover::new().await;
    cutover.import_json(&["--apply"]).await;
    cutover.world.once().await;
    let ingest = Ingest::over(&cutover.world).await;
    let again = r#"{"ticket_id": "9001", "from_email": "konto@turmhaus.example", "webhook_id": "wh-2", "body_text": "Gesamtforderung 850,10 EUR"}"#;
    let id = cutover.id(2).await;
    let answer = ingest.webhook(again).await;
    assert_eq!((&answer["status"], &answer["email_id"]), (&"duplicate".into(), &id.into()));
    let erased = cutover.world.json_of(&["erase", "--client", "2024/118", "--apply"]).await;
    assert_eq!(erased["emails"], 6, "1, 2, 3, 6, 7 and 10, which was found by its name: {erased}");
    // The same name without a number may be somebody else's: a person has to tell.
    let nine = cutover.id(9).await;
    assert_eq!(erased["undecided_emails"], serde_json::json!([nine]));
    let named = ["erase", "--client", "2024/118", "--email", &nine.to_string(), "--apply"];
    assert_eq!(cutover.world.json_of(&named).await["emails"], 1);
    let (code, _, said) = cutover.world.relay(&["erase", "--client", "2024/118", "--email", "99"]).await;
    assert!(code == 1 && said.contains("there is no email 99; nothing was removed"), "{said}");
    let answer = ingest.webhook(again).await;
    assert_eq!((&answer["status"], &answer["email_id"]), (&"duplicate".into(), &id.into()));
    let again = cutover.import_json(&["--apply"]).await;
    assert_eq!(
        (&again["imported"], &again["known"]),
        (&0.into(), &10.into()),
        "nor does a second import bring anything back"
    );
    cutover.world.once().await;
    let left = cutover
        .world
        .row("select count(*) from incoming_emails where from_email = 'konto@turmhaus.example'")
        .await;
    assert_eq!(left.get::<_, i64>(0), 0);
}
