//! What deploy/ says about the programs, held against the programs.

use crate::{
    feed::Relay,
    outages::until,
    world::{Update, World, turmhaus},
};
use clap::Parser;
use relay::operations;
use shared::message::Operation;
use std::time::Duration;
use testkit::url_as;
use tokio::net::UnixDatagram;
use tokio_postgres::error::SqlState;

const RELAY_UNIT: &str = include_str!("../../../deploy/systemd/relay@.service");
const INGEST_UNIT: &str = include_str!("../../../deploy/systemd/ingest.service");
const RELAY_PODS: &str = include_str!("../../../deploy/kubernetes/base/relay.yaml");
const INGEST_PODS: &str = include_str!("../../../deploy/kubernetes/base/ingest.yaml");
const INGEST_SCALER: &str =
    include_str!("../../../deploy/kubernetes/overlays/production/ingest-autoscaler.yaml");
const SCALER: &str = include_str!("../../../deploy/kubernetes/overlays/production/relay-autoscaler.yaml");

/// The number that stands after these words.
fn seconds(text: &str, words: &str) -> Duration {
    let after = text.split(words).nth(1).unwrap();
    Duration::from_secs(after.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn whoever_stops_the_programs_waits_longer_than_they_need() {
    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        settings: ingest::config::Settings,
    }
    let words = [
        "test",
        "--database-url",
        "postgres://ingest@db.example/x",
        "--api-tokens",
        "a-token-of-some-length",
    ];
    let ingest = CommandLine::parse_from(words).settings.read().unwrap();
    // Open requests, then their commits, then the admin listener.
    let ingest = 2 * ingest.limits.drain_timeout + Duration::from_secs(1);
    assert!(seconds(INGEST_UNIT, "TimeoutStopSec=") > ingest);
    let proxies_know = seconds(INGEST_PODS, "sleep:\n                seconds: ");
    assert!(seconds(INGEST_PODS, "terminationGracePeriodSeconds: ") > ingest + proxies_know);
    // What is claimed is finished, or given back when its lease ends.
    let relay =
        Operation::ALL.into_iter().map(|operation| operations::limits(operation).lease).max().unwrap();
    assert!(seconds(RELAY_UNIT, "TimeoutStopSec=") > relay + Duration::from_secs(10));
    assert!(seconds(RELAY_PODS, "terminationGracePeriodSeconds: ") > relay + Duration::from_secs(10));
}

#[test]
fn all_pods_together_fit_into_postgres() {
    let number = |text: &str, words: &str| seconds(text, words).as_secs();
    let ingest = number(INGEST_SCALER, "maxReplicas: ") * (16 + 2);
    let relay = number(SCALER, "maxReplicaCount: ") * (8 + 1);
    assert!(ingest + relay <= 97, "of 100 connections three are the administrator's");
}

/// The scaler's query as the manifest has it, folded to one line as YAML folds it.
fn scaler_query() -> String {
    let folded = SCALER.split("query: >-\n").nth(1).unwrap();
    let lines = folded.lines().take_while(|line| line.starts_with("          "));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_scaler_sees_how_long_the_oldest_due_message_has_waited() {
    let world = World::new().await;
    let age = async || world.row(&scaler_query()).await.get::<_, i64>(0);
    assert_eq!(age().await, 0, "nothing waits");
    for amount in ["1.00", "2.00", "3.00"] {
        world.commit(Update::of(amount, "2026-02-17T09:00:00+01:00")).await;
    }
    let set = async |what: &str, id: &str| {
        world
            .run(&format!(
                "update outbox_messages set {what} where id = (select {id}(id) from outbox_messages)"
            ))
            .await;
    };
    set("available_at = now() - interval '100 seconds'", "max").await;
    assert!((100..110).contains(&age().await));
    set("deferred = true, retry_count = 1, available_at = now() - interval '200 seconds'", "min").await;
    assert!((200..210).contains(&age().await), "a retry whose time has come waits too");
    set("available_at = now() + interval '1 hour'", "min").await;
    assert!((100..110).contains(&age().await), "what waits for its time is not late");
    set("claimed_until = now() + interval '1 minute', claimed_by = 'a:1', claim_count = 1, unfinished_claims = 1", "max").await;
    assert!(age().await < 60, "what a relay has is not waited for");
    // Where a relay says how far it has got, nothing far below is looked at.
    set("claimed_until = null, claimed_by = null", "max").await;
    let monitor = shared::postgres::connect(&url_as("monitor", &world.database.url), "test").await.unwrap();
    let seen: i64 = monitor.query_one(&scaler_query(), &[]).await.unwrap().get(0);
    assert!(seen >= 100, "the role that KEDA has sees it too");
    for secret in [
        "select payload from outbox_messages",
        "select subject from incoming_emails",
        "select * from creditor_debts",
    ] {
        let refused = monitor.query(secret, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{secret}");
    }
    world.run("insert into paused_operations (operation, actor, reason) values ('creditor_debt_update', 'a', 'b')").await;
    assert_eq!(age().await, 0, "more relays would not help what is paused");
    world.run("delete from paused_operations").await;
    let lanes = r#"{"creditor_debt_update": {"state": "idle", "since": "2026-02-17T09:00:00Z", "low_water_mark": 60000}}"#;
    let insert = "insert into relay_workers (worker, host, version, started_at, lanes) values ('a:1', 'a', '1', now(), '%')";
    world.run(&insert.replace('%', lanes)).await;
    assert_eq!(age().await, 0);
}

#[tokio::test]
async fn the_relay_says_ready_and_alive_although_mongodb_is_away_and_stops_when_told() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let path = std::env::temp_dir().join(format!("relay-notify-{}", std::process::id()));
    let notices = UnixDatagram::bind(&path).unwrap();
    let hear = async || {
        let mut buffer = [0; 512];
        let count =
            tokio::time::timeout(Duration::from_secs(30), notices.recv(&mut buffer)).await.unwrap().unwrap();
        String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
    };
    let settings = [
        ("MONGODB_URL", "mongodb://127.0.0.1:1/?directConnection=true"),
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "200000"),
    ];
    let relay = Relay::start(&world, &settings);
    assert_eq!(hear().await, "READY=1");
    // With a message whose sink is away: trouble is no standstill.
    world.commit(Update::default()).await;
    relay.says("not ready: creditor_debt_update").await;
    for _ in 0..3 {
        assert_eq!(hear().await, "WATCHDOG=1");
    }
    let ended = tokio::spawn(relay.terminate());
    until(async || hear().await == "STOPPING=1").await;
    assert_eq!(ended.await.unwrap(), Some(0));
    std::fs::remove_file(path).unwrap();
}
