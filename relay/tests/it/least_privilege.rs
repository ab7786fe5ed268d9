//! What each role may not do, in Postgres and in MongoDB, and what `relay migrate` makes of the roles.

use crate::world::{Update, World, turmhaus};
use futures_util::future::join_all;
use mongodb::{
    Client,
    bson::{Document, doc},
    error::ErrorKind,
};
use serde_json::Value;
use std::fs;
use testkit::{Authority, Database, MongoDatabase, PostgresServer, ReplicaSet, url_as};
use tokio::process::Command;
use tokio_postgres::error::SqlState;

/// Takes back what a migration has made for the whole server.
const WITHOUT_ROLES: &str =
    "drop user testkit_ingest, testkit_relay, testkit_operator, testkit_monitor; drop owned by ingest, relay, operator, monitor;
    drop role ingest, relay, operator, monitor";

/// Runs each statement, which has to be refused for want of the right.
async fn is_refused(role: &str, database: &Database, statements: &[&str]) {
    let client = shared::postgres::connect(&url_as(role, &database.url), "test").await.unwrap();
    for statement in statements {
        let end = client.batch_execute(statement).await;
        let code = end.as_ref().err().and_then(tokio_postgres::Error::code);
        assert_eq!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{role}: {statement}: {end:?}");
    }
}

#[tokio::test]
async fn ingest_cannot_read_the_ledger_or_a_mail_change_a_message_or_remove_anything() {
    let world = World::new().await;
    world.commit(Update::default()).await;
    let statements = [
        "select * from creditor_debts",
        "select amount from creditor_debts",
        "select new_amount from decisions",
        "select actor from decisions",
        "select body_text from incoming_emails",
        "select raw from incoming_emails",
        "select from_email from incoming_emails",
        "select payload from outbox_messages",
        "select * from operator_actions",
        "update outbox_messages set dead_at = now(), error_class = 'permanent'",
        "update outbox_messages set payload = '{}'",
        "update incoming_emails set sync_status = 'synced'",
        "update incoming_emails set raw = ''",
        "update idempotency_keys set key = 'another'",
        "insert into decisions (email_id, message_id, decision, reason, actor) values (1, 1, 'applied', 'x', 'x')",
        "insert into creditor_debts (client_id, entry_key, amount, stamp, message_id, email_id) values ('a', 'b', 1, 1, 1, 1)",
        "insert into paused_operations (operation, actor, reason) values ('email_fetch', 'x', 'x')",
        "delete from outbox_messages",
        "delete from incoming_emails",
        "delete from idempotency_keys",
        "truncate idempotency_keys",
        "drop table outbox_messages",
        "create table mine (id int)",
        "set role relay",
    ];
    is_refused("ingest", &world.database, &statements).await;
}

#[tokio::test]
async fn relay_cannot_drop_or_truncate_change_a_decision_or_what_a_mail_was() {
    let world = World::new().await;
    world.commit(Update::default()).await;
    let statements = [
        "update decisions set reason = 'another'",
        "delete from decisions",
        "truncate decisions",
        "alter table decisions disable trigger decisions_append_only",
        "delete from creditor_debts",
        "delete from incoming_emails",
        "update incoming_emails set received_at = now()",
        "update incoming_emails set fingerprint = sha256('')",
        "insert into incoming_emails (source, webhook_id, from_email, raw, received_at, fingerprint) values ('api', 'x', 'x', '', now(), sha256(''))",
        "update outbox_messages set payload = '{}'",
        "update outbox_messages set operation = 'email_fetch'",
        "truncate outbox_messages",
        "drop table creditor_debts",
        "insert into operator_actions (actor, action) values ('x', 'pause')",
        "update operator_actions set actor = 'x'",
        "insert into paused_operations (operation, actor, reason) values ('email_fetch', 'x', 'x')",
        "update refinery_schema_history set version = 0",
        "create table mine (id int)",
        "set role operator",
    ];
    is_refused("relay", &world.database, &statements).await;
    // What it may remove it may not change.
    let client = shared::postgres::connect(&world.relay_url(), "test").await.unwrap();
    for words in ["raw = 'another'", "subject = 'another'", "from_name = 'another'"] {
        let end = client.batch_execute(&format!("update incoming_emails set {words}")).await.unwrap_err();
        assert!(shared::postgres::reason(&end).contains("not changed, only removed"), "{words}: {end:?}");
    }
}

#[tokio::test]
async fn ingest_cannot_speak_for_a_person() {
    let world = World::new().await;
    let insert = async |role: &str, key: &str, payload: &str| {
        let client = shared::postgres::connect(&url_as(role, &world.database.url), "test").await.unwrap();
        let statement = format!(
            "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key)
                values ('incoming_email', '1', 'creditor_debt_update', '{payload}', '{key}')"
        );
        client.batch_execute(&statement).await.err().and_then(|error| error.code().cloned())
    };
    assert_eq!(insert("ingest", "1", r#"{"origin": "mail"}"#).await, None);
    for payload in [
        r#"{"origin": "decision"}"#,
        r#"{"origin": "repair"}"#,
        "{}",
        r#"{"origin": "mail", "decided_by": "x"}"#,
        r#"{"origin": "mail", "client_id": "x"}"#,
        r#"{"origin": "mail", "entry_key": "x"}"#,
        r#"{"origin": "mail", "expected": {}}"#,
    ] {
        assert_eq!(
            insert("ingest", payload, payload).await,
            Some(SqlState::INSUFFICIENT_PRIVILEGE),
            "{payload}"
        );
    }
    assert_eq!(insert("operator", "2", r#"{"origin": "decision"}"#).await, None);
    assert_eq!(insert("relay", "3", r#"{"origin": "repair"}"#).await, None);
}

#[tokio::test]
async fn operator_cannot_write_the_ledger_forge_an_act_or_remove_a_message() {
    let world = World::new().await;
    world.commit(Update::default()).await;
    let statements = [
        "update creditor_debts set amount = 0",
        "insert into creditor_debts (client_id, entry_key, amount, stamp, message_id, email_id) values ('a', 'b', 1, 1, 1, 1)",
        "update operator_actions set actor = 'x'",
        "delete from operator_actions",
        "update decisions set actor = 'x'",
        "delete from outbox_messages",
        "update outbox_messages set payload = '{}'",
        "delete from incoming_emails",
        "update incoming_emails set body_text = ''",
        "drop table decisions",
        "create table mine (id int)",
    ];
    is_refused("operator", &world.database, &statements).await;
}

#[tokio::test]
async fn a_user_who_cannot_create_roles_migrates_and_is_told_what_an_administrator_has_to_do() {
    // Of its own, since roles are the whole server's.
    let server = PostgresServer::new().await;
    let sql = shared::postgres::connect(&server.url, "test").await.unwrap();
    sql.batch_execute(WITHOUT_ROLES).await.unwrap();
    sql.batch_execute("create user owner").await.unwrap();
    sql.batch_execute("create database theirs owner owner").await.unwrap();
    let url = server.url.replace("postgres@", "owner@").replace("/postgres", "/theirs");
    let migrate = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        let output = command.arg("migrate").args(arguments).env("DATABASE_URL", &url).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = migrate(&[]).await;
    let expected = "permission denied to create role (42501). A database administrator runs `create role ingest nologin; \
        create role relay nologin; create role operator nologin; create role monitor nologin`, and the owner of the tables `relay migrate` again";
    assert!(said.contains("applied V1") && said.contains(expected), "{said}");
    let json: Value = serde_json::from_str(&migrate(&["--json"]).await).unwrap();
    assert!(json["roles_problem"].as_str().unwrap().contains("A database administrator runs"), "{json}");

    sql.batch_execute(expected.split('`').nth(1).unwrap()).await.unwrap();
    let json: Value = serde_json::from_str(&migrate(&["--json"]).await).unwrap();
    assert_eq!((&json["roles_problem"], &json["applied"]), (&Value::Null, &serde_json::json!([])));
    let theirs = shared::postgres::connect(&url, "test").await.unwrap();
    let rights = "select has_table_privilege('relay', 'decisions', 'insert'), has_table_privilege('ingest', 'decisions', 'insert')";
    let rights = theirs.query_one(rights, &[]).await.unwrap();
    assert_eq!((rights.get::<_, bool>(0), rights.get::<_, bool>(1)), (true, false));

    // In a database that is not theirs the user has no rights, and is told which are missing.
    let foreign = server.url.replace("postgres@", "owner@");
    let world = World::new().await;
    let mut command = world.program(&world.mongo.url, &["run", "--once"]);
    let output = command.env("DATABASE_URL", foreign).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("`grant relay to USER`"), "{said}");
}

#[tokio::test]
async fn databases_of_one_server_may_be_migrated_at_the_same_moment() {
    let server = PostgresServer::new().await;
    let sql = shared::postgres::connect(&server.url, "test").await.unwrap();
    sql.batch_execute(WITHOUT_ROLES).await.unwrap();
    let names: Vec<String> = (0..8).map(|number| format!("database_{number}")).collect();
    for name in &names {
        sql.batch_execute(&format!("create database {name}")).await.unwrap();
    }
    let migrations = names.iter().map(|name| {
        let url = format!("{}/{name}", server.url.rsplit_once('/').unwrap().0);
        async move { shared::postgres::migrate(&url).await.unwrap().roles }
    });
    assert_eq!(join_all(migrations).await, vec![Ok(()); 8]);
}

#[tokio::test]
async fn the_mongodb_role_updates_clients_and_does_nothing_else() {
    let authority = Authority::new();
    let set = ReplicaSet::protected(&authority).await;
    let world = World { mongo: MongoDatabase::at(&set.admin_url()).await, ..World::new().await };
    let admin = Client::with_uri_str(set.admin_url()).await.unwrap().database(&world.mongo.name);
    let file =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/mongodb-role.json")).unwrap();
    let role: Document = serde_json::from_str(&file.replace("DATABASE", &world.mongo.name)).unwrap();
    admin.run_command(role).await.unwrap();
    admin.run_command(doc! { "createUser": "relay", "pwd": "hunter2", "roles": ["relay"] }).await.unwrap();
    admin.collection("letters").insert_one(doc! { "private": true }).await.unwrap();

    let url = set.url_as("relay", "hunter2", &world.mongo.name);
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    let output = world.program(&url, &["run", "--once"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((world.amount("b").await, world.state(email).await), (Some(1234.56), "done/applied/0".into()));
    let needs = relay::relay::context(&world.config(&url)).await.unwrap().clients.missing_setup().await;
    assert_eq!(needs.unwrap(), Vec::<String>::new());

    let relay = Client::with_uri_str(&url).await.unwrap().database(&world.mongo.name);
    for command in [
        doc! { "insert": "clients", "documents": [{ "aktenzeichen": "1" }] },
        doc! { "delete": "clients", "deletes": [{ "q": {}, "limit": 0 }] },
        doc! { "update": "clients", "updates": [{ "q": { "_id": "new" }, "u": { "$set": { "a": 1 } }, "upsert": true }] },
        doc! { "find": "letters" },
        doc! { "update": "letters", "updates": [{ "q": {}, "u": { "$set": { "private": false } } }] },
        doc! { "createIndexes": "clients", "indexes": [{ "key": { "a": 1 }, "name": "a" }] },
        doc! { "drop": "clients" },
        doc! { "dropDatabase": 1 },
    ] {
        let error = relay.run_command(command.clone()).await.unwrap_err();
        let code = if let ErrorKind::Command(error) = &*error.kind { Some(error.code) } else { None };
        assert_eq!(code, Some(13), "{command}: {error:?}"); // Unauthorized
    }
}
