//! What `relay status` says, and the heartbeats that it rests on.

use crate::{
    feed::Relay,
    outages::until,
    world::{Update, World, turmhaus},
};
use relay::{
    maintenance,
    outbox::{self, Floors, LowWaterMark},
    status::{self, Status},
};
use serde_json::{Value, json};
use shared::message::Operation;
use std::{net::SocketAddr, process::Stdio, time::Duration};
use testkit::Wire;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const BUDGET: Duration = Duration::from_secs(5);

async fn look(world: &World, floors: &Floors) -> Status {
    let connection = world.context().await.pool.get().await.unwrap();
    status::look(&connection, floors, BUDGET).await.unwrap()
}

async fn printed(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let output = world.program(&world.mongo.url, arguments).output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// One debt update with its message's row changed.
async fn planted(world: &World, change: &str) {
    let email = world.commit(Update::default()).await;
    world.run(&format!("update outbox_messages set {change} where aggregate_id = '{email}'")).await;
}

#[tokio::test]
async fn every_kind_of_message_is_counted_where_it_belongs() {
    let world = World::new().await;
    planted(&world, "created_at = now()").await;
    planted(&world, "available_at = now() - interval '90 seconds'").await;
    planted(&world, "available_at = now() + interval '1 hour'").await;
    let claimed = "claim_count = 1, unfinished_claims = 1, claimed_by = 'x'";
    planted(
        &world,
        &format!(
            "{claimed}, claimed_until = now() + interval '1 minute', available_at = now() - interval '1 day'"
        ),
    )
    .await;
    planted(&world, &format!("{claimed}, claimed_until = now() - interval '1 minute'")).await;
    planted(&world, "deferred = true, error_class = 'target_missing', first_missing_at = now(), available_at = now() + interval '1 hour'").await;
    planted(&world, "deferred = true, error_class = 'transient', retry_count = 2").await;
    planted(&world, "dead_at = now(), error_class = 'permanent'").await;
    planted(&world, "processed_at = now(), outcome = 'applied'").await;
    world.message("from_the_future", 1, json!({})).await;
    world.run("insert into paused_operations (operation, actor, reason) values ('email_fetch', 'clerk', 'a test')").await;
    world.run("insert into reconciliation_reports (completed_at, status, records_checked) values (now(), 'completed', 12)").await;

    let (code, stdout, stderr) = printed(&world, &["status", "--json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let status: Value = serde_json::from_str(&stdout).unwrap();
    let mut debts = status["operations"]["creditor_debt_update"].clone();
    let lag = debts["lag_seconds"].take().as_f64().unwrap();
    assert!((90.0..120.0).contains(&lag), "{lag}: a message in somebody's hands is not late");
    let none = json!({ "claimed": 0, "finished": 0, "retried": 0, "dead": 0 });
    assert_eq!(
        debts,
        json!({ "waiting": 7, "due": 4, "held": 1, "parked": 1, "retrying": 1, "dead": 1, "lag_seconds": null, "at_least": false,
            "last_minute": none, "relays": 0, "paused": null })
    );
    assert_eq!(status["operations"]["from_the_future"]["waiting"], 1);
    assert_eq!(status["operations"]["email_fetch"]["paused"]["actor"], "clerk");
    assert_eq!(status["operations"].as_object().unwrap().len(), Operation::ALL.len() + 1);
    assert_eq!(status["last_reconciliation"]["records_checked"], 12);
    assert_eq!((&status["workers"], &status["hurts_vacuum"]), (&json!([]), &json!([])));
    let keys: Vec<&String> = status.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["at", "attention", "hurts_vacuum", "last_reconciliation", "operations", "workers"]);
    let told: Vec<&str> =
        status["attention"].as_array().unwrap().iter().filter_map(|one| one["what"].as_str()).collect();
    let told = told.join("\n");
    for words in ["no relay is alive", "email_fetch is paused by clerk: a test", "1 dead letter", "lags"] {
        assert!(told.contains(words), "{words}: {told}");
    }

    let (code, screen, _) = printed(&world, &["status"]).await;
    assert_eq!(code, 0);
    for words in [
        "relay dead-letters list --operation creditor_debt_update",
        "PAUSED by clerk",
        "1 min 3",
        "12 checked",
    ] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
    assert!(!screen.contains('\x1b'), "no colour where there is no terminal");
}

#[tokio::test]
async fn a_look_begins_where_the_one_before_ended_and_still_finds_what_waits() {
    let world = World::new().await;
    let done = "insert into outbox_messages (aggregate_type, aggregate_id, operation, payload, idempotency_key, processed_at, outcome)
        select 'test', '1', 'creditor_debt_update', '{}', gen_random_uuid(), now(), 'applied' from generate_series(1, 60000)";
    world.run(done).await;
    let first = world.commit(Update::default()).await;
    world.run(done).await;
    let status = look(&world, &Floors::new()).await;
    assert_eq!(status.operations["creditor_debt_update"].backlog.waiting, 1);
    assert_eq!(status.floors()["creditor_debt_update"], 60_001);
    assert_eq!(status.floors()["email_extraction"], 120_002);
    // A claim that is given back stays where it was.
    let connection = world.context().await.pool.get().await.unwrap();
    let operation = Operation::CreditorDebtUpdate;
    let mut mark = LowWaterMark::default();
    let claims =
        outbox::claim(&connection, operation, &mut mark, 1, Duration::from_secs(15), "test").await.unwrap();
    assert_eq!(claims.len(), 1);
    let held = look(&world, status.floors()).await;
    let backlog = &held.operations["creditor_debt_update"].backlog;
    assert_eq!((backlog.waiting, backlog.held, backlog.due, backlog.lag_seconds), (1, 1, 0, None));
    assert_eq!(held.floors()["creditor_debt_update"], 60_001);
    world.run(&format!("update outbox_messages set processed_at = now(), outcome = 'applied', claimed_until = null, claimed_by = null
        where aggregate_id = '{first}'")).await;
    let ended = look(&world, held.floors()).await;
    assert_eq!(ended.operations["creditor_debt_update"].backlog.waiting, 0);
    assert_eq!(ended.floors()["creditor_debt_update"], 120_002);
    // What relays know is used by whoever looks for the first time.
    let report =
        r#"{"state": "working", "since": "2026-01-01T00:00:00Z", "claimed": 1, "low_water_mark": 120000}"#;
    let names = Operation::ALL.map(Operation::name).join(",");
    world
        .run(&format!(
            "insert into relay_workers (worker, host, version, started_at, lanes)
            select 'a:1', 'a', '9', now(), jsonb_object_agg(name, '{report}'::jsonb) from regexp_split_to_table('{names},*', ',') name"
        ))
        .await;

    world.run("update outbox_messages set processed_at = null, outcome = null where id in (1, 119000)").await;
    let status = look(&world, &Floors::new()).await;
    assert_eq!(
        status.operations["creditor_debt_update"].backlog.waiting, 1,
        "not the one that is far below the mark"
    );
}

#[tokio::test]
async fn a_relay_is_seen_while_it_runs_and_gone_after_a_clean_stop() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let relay = Relay::start(&world, &[("HOSTNAME", "pod-7")]);
    let is_there = "select count(*) from relay_workers";
    until(|| async { world.row(is_there).await.get::<_, i64>(0) == 1 }).await;
    world.commit(Update::default()).await;
    let finished = "select (lanes -> 'creditor_debt_update' ->> 'finished')::int from relay_workers";
    until(|| async { world.row(finished).await.get::<_, i32>(0) == 1 }).await;
    let status = look(&world, &Floors::new()).await;
    let worker = &status.workers[0];
    assert_eq!((worker.worker.as_str(), worker.host.as_str()), (&*format!("pod-7:{}", relay.pid()), "pod-7"));
    assert_eq!((worker.alive, worker.version.as_str()), (true, env!("CARGO_PKG_VERSION")));
    let lane = serde_json::to_value(&worker.lanes["creditor_debt_update"]).unwrap();
    assert_eq!((&lane["claimed"], &lane["last_minute"]["finished"]), (&json!(1), &json!(1)));
    assert_eq!(serde_json::to_value(&worker.lanes["email_fetch"]).unwrap()["state"], "not_configured");
    let debts = &status.operations["creditor_debt_update"];
    assert_eq!((debts.relays, debts.last_minute.finished), (1, 1));
    assert_eq!(status.operations["email_fetch"].relays, 0);
    assert!(status.attention.is_empty(), "{:?}", status.attention);
    let (_, screen, _) = printed(&world, &["status"]).await;
    assert!(screen.contains("all is well") && screen.contains("pod-7:"), "{screen}");
    let email = world.email("a@b.example", "2026-01-01T00:00:00Z".parse().unwrap()).await;
    world.message("email_fetch", email, json!({})).await;
    let unserved = look(&world, &Floors::new()).await.attention;
    assert_eq!(unserved[0].what, "email_fetch: 1 wait, and no living relay is configured for it");
    world.run("delete from outbox_messages where operation = 'email_fetch'").await;
    assert_eq!(relay.terminate().await, Some(0));
    assert_eq!(world.row(is_there).await.get::<_, i64>(0), 0);

    // One that is killed leaves its row, which says so until it is removed.
    let relay = Relay::start(&world, &[]);
    until(|| async { world.row(is_there).await.get::<_, i64>(0) == 1 }).await;
    let _ = relay.kill().await;
    world.run("update relay_workers set seen_at = now() - interval '31 seconds'").await;
    let status = look(&world, &Floors::new()).await;
    assert!(!status.workers[0].alive);
    assert!(status.attention.iter().any(|one| one.what.contains("went without a word")));
    assert_eq!(status.operations["creditor_debt_update"].relays, 0);
    let pool = world.context().await.pool;
    let retention = Duration::from_secs(86_400);
    maintenance::pass(&pool, retention).await.unwrap();
    assert_eq!(world.row(is_there).await.get::<_, i64>(0), 1);
    world.run("update relay_workers set seen_at = now() - interval '25 hours'").await;
    maintenance::pass(&pool, retention).await.unwrap();
    assert_eq!(world.row(is_there).await.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_lane_whose_sink_is_away_says_so_and_since_when() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let (url, wire) = world.mongo_wire().await;
    let relay = Relay::start(&world, &[("MONGODB_URL", &url)]);
    until(|| async { world.row("select count(*) from relay_workers").await.get::<_, i64>(0) == 1 }).await;
    wire.cut();
    world.commit(Update::default()).await;
    let lane = "select lanes -> 'creditor_debt_update' from relay_workers";
    until(|| async { world.row(lane).await.get::<_, Value>(0)["state"] == "sink_down" }).await;
    let (_, screen, _) = printed(&world, &["status"]).await;
    assert!(screen.contains("waits for its sink") && screen.contains("sink down for"), "{screen}");
    wire.mend();
    until(|| async {
        matches!(world.row(lane).await.get::<_, Value>(0)["state"].as_str(), Some("idle" | "working"))
    })
    .await;
    assert_eq!(world.row(lane).await.get::<_, Value>(0).get("failure"), None);
    assert_eq!(relay.terminate().await, Some(0));
}

/// Empty as long as nobody listens.
async fn metrics_at(address: SocketAddr) -> String {
    let mut metrics = String::new();
    if let Ok(mut stream) = TcpStream::connect(address).await {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        stream.read_to_string(&mut metrics).await.unwrap();
    }
    metrics
}

#[tokio::test]
async fn a_running_relay_measures_what_waits() {
    let world = World::new().await;
    planted(&world, "available_at = now() - interval '90 seconds'").await;
    planted(&world, "dead_at = now(), error_class = 'permanent'").await;
    world.run("insert into paused_operations (operation, actor, reason) values ('creditor_debt_update', 'clerk', 'a test')").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = Relay::start(&world, &[("RELAY_ADMIN_LISTEN", &port.to_string())]);
    until(|| async { metrics_at(port).await.contains("relay_backlog") }).await;
    let metrics = metrics_at(port).await;
    for line in [
        "relay_paused{operation=\"creditor_debt_update\"} 1",
        "relay_paused{operation=\"email_extraction\"} 0",
        "relay_backlog{operation=\"creditor_debt_update\",state=\"due\"} 1",
        "relay_backlog{operation=\"creditor_debt_update\",state=\"dead\"} 1",
        "relay_lag_seconds{operation=\"creditor_debt_update\"} 9",
        "relay_lag_seconds{operation=\"email_extraction\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is missing: {metrics}");
    }
    assert_eq!(relay.terminate().await, Some(0));
}

#[tokio::test]
async fn a_missing_postgres_is_told_and_while_watching_waited_for() {
    let world = World::new().await;
    let mut command = world.program(&world.mongo.url, &["status"]);
    let output = command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none").output().await.unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && words.contains("Postgres: "), "{words}");

    let wire = Wire::before(&world.database.url).await;
    let mut command = world.program(&world.mongo.url, &["status", "--watch", "--json"]);
    let mut watch =
        command.env("DATABASE_URL", wire.instead(&world.relay_url())).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next =
        async || -> Value { serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap() };
    assert!(next().await["operations"].is_object());
    wire.cut();
    while next().await["error"].is_null() {}
    wire.mend();
    while next().await["operations"].is_null() {}
    let pid = watch.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(watch.wait().await.unwrap().code(), Some(0), "Ctrl-C is how a watch ends");
}
