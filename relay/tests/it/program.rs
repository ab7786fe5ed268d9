//! The program as a user meets it: exit codes, words, signals.

use crate::{
    outages::until,
    world::{Update, World, turmhaus},
};
use std::{
    process::Output,
    time::{Duration, Instant},
};
use testkit::Database;
use tokio::process::Command;

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn run_once_prints_the_counts_as_one_json_object() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::default()).await;
    let output = world.program(&world.mongo.url, &["run", "--once"]).output().await.unwrap();
    let (code, stdout, stderr) = text(&output);
    assert_eq!(code, Some(0), "{stderr}");
    let expected =
        r#"{"claimed":1,"applied":1,"superseded":0,"held":0,"retried":0,"dead":0,"parked":0,"given_back":0}"#;
    assert_eq!(stdout.trim_end(), expected);
    assert!(!stderr.contains("1234") && !stderr.contains("turmhaus"), "logs hold nothing personal: {stderr}");
}

#[tokio::test]
async fn run_once_tells_within_ten_seconds_that_mongodb_is_away() {
    let world = World::new().await;
    world.commit(Update::default()).await;
    let began = Instant::now();
    // Nothing listens on the discard port of this machine.
    let output = world.program("mongodb://127.0.0.1:9/", &["run", "--once"]).output().await.unwrap();
    let (code, stdout, stderr) = text(&output);
    assert_eq!(code, Some(1));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(stdout.contains(r#""given_back":1"#), "{stdout}");
    assert!(stderr.contains("MongoDB unreachable since"), "{stderr}");
}

#[tokio::test]
async fn a_missing_postgres_or_schema_is_said_with_what_to_do() {
    let world = World::new().await;
    let mut command = world.program(&world.mongo.url, &["run", "--once"]);
    let (code, _, stderr) =
        text(&command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none").output().await.unwrap());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("Postgres") && stderr.to_lowercase().contains("refused"), "{stderr}");

    let empty = Database::empty().await;
    let mut command = world.program(&world.mongo.url, &["run", "--once"]);
    let (code, _, stderr) = text(&command.env("DATABASE_URL", &empty.url).output().await.unwrap());
    assert_eq!(code, Some(1));
    assert!(stderr.contains("run `relay migrate`"), "{stderr}");
}

#[tokio::test]
async fn bad_configuration_exits_64_with_all_problems_at_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_relay"))
        .args(["check-config"])
        .env_clear()
        .env("MONGODB_URL", "")
        .env("RELAY_ADMIN_LISTEN", "nowhere")
        .env("RELAY_POOL_SIZE", "many")
        .env("EXTRACTOR", "oracle")
        .env("RESEND_API_KEY", "re_two words")
        .env("RESEND_URL", "http://api.resend.com")
        .env("RESEND_TIMEOUT_MS", "0")
        .env("RELAY_RECONCILE", "sometimes")
        .env("RELAY_RECONCILE_EVERY_SECONDS", "1")
        .env("RELAY_CONSOLE_TOKENS", "two words")
        .env("LOG_FORMAT", "xml")
        .env("RUST_LOG", "a=b=c")
        .output();
    let (code, _, stderr) = text(&output.await.unwrap());
    assert_eq!(code, Some(64));
    for name in [
        "DATABASE_URL",
        "MONGODB_URL",
        "MONGODB_DATABASE",
        "RELAY_ADMIN_LISTEN",
        "RELAY_POOL_SIZE",
        "EXTRACTOR",
        "RESEND_API_KEY",
        "RESEND_URL",
        "RESEND_TIMEOUT_MS",
        "RELAY_RECONCILE must",
        "RELAY_RECONCILE_EVERY_SECONDS",
        "RELAY_CONSOLE_TOKENS",
        "LOG_FORMAT",
        "RUST_LOG",
        "RUST_LOG",
    ] {
        assert!(stderr.contains(name), "{name}: {stderr}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_relay")).arg("fly").output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = Command::new(env!("CARGO_BIN_EXE_relay"))
        .args(["check-config"])
        .env_clear()
        .env("DATABASE_URL", "postgres://user:hunter2@host:notaport/x")
        .env("MONGODB_URL", "mongo://user:hunter2@host")
        .env("MONGODB_DATABASE", "x")
        .output();
    let (code, _, stderr) = text(&output.await.unwrap());
    assert_eq!(code, Some(64));
    assert!(stderr.contains("DATABASE_URL") && !stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.arg("check-config").env_clear();
    command
        .env("DATABASE_URL", "postgres://user@host/x")
        .env("MONGODB_URL", "mongodb://host")
        .env("MONGODB_DATABASE", "x");
    for name in [
        "DATABASE_URL_FILE",
        "MONGODB_URL_FILE",
        "DATABASE_DIRECT_URL",
        "DATABASE_DIRECT_URL_FILE",
        "RELAY_ADMIN_LISTEN",
        "RESEND_API_KEY",
        "RESEND_API_KEY_FILE",
        "RESEND_URL",
        "RESEND_TIMEOUT_MS",
    ] {
        command.env(name, "");
    }
    for name in ["EXTRACTOR", "RELAY_HOLD_LOWER_AMOUNTS", "RELAY_POOL_SIZE", "LOG_FORMAT", "RUST_LOG"] {
        command.env(name, "");
    }
    let (code, stdout, stderr) = text(&command.output().await.unwrap());
    assert_eq!((code, stdout.as_str()), (Some(0), "ok\n"), "{stderr}");
    command.env("MONGODB_DATABASE", "a.b").env("DATABASE_DIRECT_URL", "mysql://x");
    let (code, _, stderr) = text(&command.output().await.unwrap());
    assert_eq!(code, Some(64));
    assert!(stderr.contains("MONGODB_DATABASE") && stderr.contains("DATABASE_DIRECT_URL"), "{stderr}");
}

#[tokio::test]
async fn five_processes_may_migrate_at_once() {
    let database = Database::empty().await;
    let migrate = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
        command.arg("migrate").env("DATABASE_URL", &database.url).output()
    };
    let outputs = tokio::join!(migrate(), migrate(), migrate(), migrate(), migrate());
    let outputs =
        [outputs.0, outputs.1, outputs.2, outputs.3, outputs.4].map(|output| text(&output.unwrap()));
    let applied = outputs.iter().filter(|(code, stdout, stderr)| {
        assert_eq!(*code, Some(0), "{stderr}");
        stdout.contains("applied V1")
    });
    assert_eq!(applied.count(), 1);
}

#[tokio::test]
async fn a_database_with_another_services_tables_is_not_migrated() {
    let database = Database::empty().await;
    let sql = database.client().await;
    let theirs = "create table incoming_emails (id serial primary key, zendesk_ticket_id text, zendesk_webhook_id text unique);
        create table outbox_messages (id serial primary key, operation text, payload json);
        insert into outbox_messages (operation, payload) values ('UPDATE', '{}')";
    sql.batch_execute(theirs).await.unwrap();
    let migrate = || {
        Command::new(env!("CARGO_BIN_EXE_relay")).arg("migrate").env("DATABASE_URL", &database.url).output()
    };
    let (code, stdout, stderr) = text(&migrate().await.unwrap());
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let said = "the schema `public` holds incoming_emails, outbox_messages, which this system did not create";
    assert!(stderr.contains(said) && stderr.contains("create database NAME"), "{stderr}");
    let tables = "select string_agg(relname, ' ' order by relname) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'";
    let tables: String = sql.query_one(tables, &[]).await.unwrap().get(0);
    assert_eq!(tables, "incoming_emails outbox_messages", "nothing was made");

    // Beside them, in a schema of its own, it has room.
    let own = "create schema relay; do $$ begin execute format('alter database %I set search_path = relay', current_database()); end $$";
    sql.batch_execute(own).await.unwrap();
    let (code, stdout, stderr) = text(&migrate().await.unwrap());
    assert!(code == Some(0) && stdout.contains("applied V1"), "{stderr}");
    let (code, _, stderr) = text(&migrate().await.unwrap());
    assert_eq!(code, Some(0), "{stderr}");
}

#[tokio::test]
async fn sigterm_gives_claims_back_and_exits_0() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (url, wire) = world.mongo_wire().await;
    let email = world.commit(Update::default()).await;
    let point = wire.hold_at(b"\x02update\0");
    let mut relay = world.program(&url, &["run"]).spawn().unwrap();
    let go_on = point.reached().await; // claimed, and the command is on its way
    let claimed: bool = world.row("select claimed_until > now() from outbox_messages").await.get(0);
    assert!(claimed);
    let pid = relay.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    wire.cut();
    drop(go_on);
    assert_eq!(relay.wait().await.unwrap().code(), Some(0));
    assert!(world.state(email).await.starts_with("waiting/") && world.state(email).await.ends_with("/0"));
    let row = world.row("select claimed_until is null, unfinished_claims from outbox_messages").await;
    assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (true, 0));
    wire.mend();
    assert_eq!(world.once().await.applied, 1);
}

#[tokio::test]
async fn sighup_ends_a_relay_in_order() {
    let world = World::new().await;
    let mut relay = world.program(&world.mongo.url, &["run"]).spawn().unwrap();
    let is_there = "select exists (select from relay_workers)";
    until(|| async { world.row(is_there).await.get(0) }).await;
    let pid = relay.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().await.unwrap().success());
    assert_eq!(relay.wait().await.unwrap().code(), Some(0));
    assert!(!world.row(is_there).await.get::<_, bool>(0), "it has said goodbye");
}
