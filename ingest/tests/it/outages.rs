//! Postgres away, slow or dying: the sender is told to come again, soon, and comes again to exactly one mail.

use crate::harness::*;
use std::time::{Duration, Instant};
use testkit::{Database, Wire};
use tokio::net::TcpListener;

#[tokio::test]
async fn postgres_away_is_a_quick_503_and_the_service_recovers_by_itself() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let service = Service::start(config(&wire.instead(&database.url))).await;
    service.zendesk(&mail("w1")).await.email_id("accepted");
    eventually("readiness", || async { service.get("/readyz").await.status == 200 }).await;
    wire.cut();
    let started = Instant::now();
    service.zendesk(&mail("w2")).await.is_problem(503, "unavailable");
    for answer in [service.debt_update("k", &debt_update("1")).await, service.get("/v1/emails/1").await] {
        let problem = answer.is_problem(503, "unavailable");
        assert!(problem["detail"].as_str().unwrap().starts_with("Nothing was stored"), "{problem}");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    eventually("no readiness", || async { service.get("/readyz").await.status == 503 }).await;
    assert_eq!(service.get("/livez").await.status, 200);
    wire.mend();
    service.zendesk(&mail("w2")).await.email_id("accepted");
    eventually("readiness again", || async { service.get("/readyz").await.status == 200 }).await;
    assert_whole(&database.client().await).await;
}

#[tokio::test]
async fn a_service_started_without_postgres_is_live_and_connects_later() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    wire.cut();
    let service = Service::start(config(&wire.instead(&database.url))).await;
    assert_eq!(service.get("/livez").await.status, 200);
    let unready = service.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert!(String::from_utf8_lossy(&unready.body).contains("ostgres"));
    service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
    wire.mend();
    service.zendesk(&mail("w1")).await.email_id("accepted");
    eventually("readiness", || async { get(service.admin_address, "/readyz").await.status == 200 }).await;
}

#[tokio::test]
async fn a_postgres_that_takes_connections_and_never_answers_holds_nobody_up() {
    let black_hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = black_hole.local_addr().unwrap();
    let taking = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = black_hole.accept().await {
            held.push(stream);
        }
    });
    let service = Service::start(config(&format!("postgres://postgres@{address}/none"))).await;
    let mut waited = Duration::MAX;
    // At first for the pool; then it is known.
    while waited > Duration::from_millis(100) {
        let started = Instant::now();
        service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
        waited = started.elapsed();
        assert!(waited < Duration::from_millis(1500), "{waited:?}");
    }
    taking.abort();
}

#[tokio::test]
async fn a_frozen_postgres_is_found_out_and_then_everybody_is_told_at_once_until_it_answers() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let mut few = config(&wire.instead(&database.url));
    (few.limits.batch_max, few.limits.pool_size) = (1, 6); // four workers
    let service = Service::start(few).await;
    let at_once = async |id: &str| {
        let delivery = mail(id);
        let ask = || service.zendesk(&delivery);
        <[Answer; 4]>::from(tokio::join!(ask(), ask(), ask(), ask()))
    };
    let client = database.client().await;
    let connections = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ingest'";
    eventually("a connection for each of the four workers", async || {
        at_once("w1").await.iter().for_each(|answer| assert_eq!(answer.status, 200));
        count(&client, connections).await == 4
    })
    .await;
    eventually("readiness", || async { service.get("/readyz").await.status == 200 }).await;
    wire.freeze();
    // What is under way may arrive when the wire thaws.
    for answer in at_once("w2").await {
        let problem = answer.is_problem(503, "unavailable");
        assert!(problem["detail"].as_str().unwrap().starts_with("It may or may not"), "{problem}");
    }
    assert_eq!(service.get("/livez").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 503);
    // More than there are workers and connections: no worker hangs at what was under way.
    let started = Instant::now();
    for number in 0..100 {
        let problem = service.zendesk(&mail(&format!("n{number}"))).await.is_problem(503, "unavailable");
        assert!(problem["detail"].as_str().unwrap().starts_with("Nothing was stored"), "{problem}");
        service.get("/v1/emails/1").await.is_problem(503, "unavailable");
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    wire.thaw();
    eventually("an answer", || async { service.zendesk(&mail("w2")).await.status == 200 }).await;
    service.zendesk(&mail("w2")).await.email_id("duplicate");
    eventually("readiness again", || async { service.get("/readyz").await.status == 200 }).await;
    service.zendesk(&mail("w3")).await.email_id("accepted");
    assert_eq!(rows(&client).await, [3, 3, 3]);
    assert_whole(&client).await;
}

#[tokio::test]
async fn a_new_connection_that_fails_holds_up_nobody_who_has_one() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let service = std::sync::Arc::new(Service::start(config(&wire.instead(&database.url))).await);
    service.zendesk(&mail("w1")).await.email_id("accepted");
    // One connection is there. The next one hangs.
    let startup = wire.hold_at(b"application_name\0ingest\0");
    let rival = Rival::holds(&database, "held").await;
    let asking = {
        let service = service.clone();
        tokio::spawn(async move { service.zendesk(&mail("held")).await })
    };
    rival.is_waited_for_by(1).await;
    let delivery = mail("w2");
    let (other, go_on) = tokio::join!(service.zendesk(&delivery), startup.reached());
    other.is_problem(503, "unavailable");
    rival.rolls_back().await;
    asking.await.unwrap().email_id("accepted");
    for number in 0..20 {
        service.zendesk(&mail(&format!("n{number}"))).await.email_id("accepted");
    }
    go_on.send(()).unwrap();
}

#[tokio::test]
async fn a_locked_table_holds_no_more_connections_than_the_pool_has() {
    let database = Database::new().await;
    let mut small = config(&database.url);
    (small.limits.pool_size, small.limits.handler_timeout, small.limits.lock_wait) =
        (3, Duration::from_millis(100), Duration::from_millis(50));
    let service = Service::start(small).await;
    let (owner, client) = (database.client().await, database.client().await);
    // As a migration would: statements wait before any timeout of theirs is set.
    owner.batch_execute("begin; lock table incoming_emails in access exclusive mode").await.unwrap();
    let connections = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ingest'";
    for number in 0..12 {
        let answer = service.zendesk(&mail(&format!("w{number}"))).await;
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(service.get("/v1/emails/1").await.status, 503);
        client.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
        assert!(count(&client, connections).await <= 3);
    }
    owner.batch_execute("commit").await.unwrap();
    let stored = std::cell::RefCell::new(serde_json::Value::Null);
    eventually("an answer", async || {
        let answer = service.zendesk(&mail("w0")).await;
        *stored.borrow_mut() = answer.json()["email_id"].clone();
        answer.status == 200
    })
    .await;
    let path = format!("/v1/emails/{}", stored.into_inner());
    eventually("a reading", || async { service.get(&path).await.status == 200 }).await;
    assert_whole(&client).await;
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_not_ready() {
    let database = Database::new().await;
    let client = database.client().await;
    let name = client.query_one("select current_database()", &[]).await.unwrap().get::<_, String>(0);
    let set =
        |setting: &str| format!("alter database \"{name}\" set default_transaction_read_only = {setting}");
    client.batch_execute(&set("on")).await.unwrap();
    let service = Service::over(&database).await;
    eventually("the reason", || async {
        String::from_utf8_lossy(&service.get("/readyz").await.body).contains("takes no writes")
    })
    .await;
    service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
}

#[tokio::test]
async fn a_200_is_on_the_disk_whatever_the_database_is_set_to() {
    let database = Database::new().await;
    let client = database.client().await;
    let name = client.query_one("select current_database()", &[]).await.unwrap().get::<_, String>(0);
    // A deferred trigger runs as the commit begins.
    let record = "create table committed (setting text);
        create function record() returns trigger language plpgsql security definer as $$ begin
            insert into committed values (current_setting('synchronous_commit')); return null; end $$;
        create constraint trigger record after insert on incoming_emails deferrable initially deferred
            for each row execute function record();";
    client.batch_execute(record).await.unwrap();
    for (set, found) in [("off", "on"), ("local", "local"), ("on", "on")] {
        client
            .batch_execute(&format!("alter database \"{name}\" set synchronous_commit = {set}"))
            .await
            .unwrap();
        let service = Service::over(&database).await; // with connections of its own
        service.zendesk(&mail(set)).await.email_id("accepted");
        let last = client.query_one("delete from committed returning setting", &[]).await.unwrap();
        assert_eq!(last.get::<_, String>(0), found, "{set}");
    }
}

#[tokio::test]
async fn a_connection_that_needs_longer_than_the_pool_wait_serves_the_next_request() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    // The pool's startup message, and not those of readiness and poke.
    let startup = wire.hold_at(b"application_name\0ingest\0");
    let mut hasty = config(&wire.instead(&database.url));
    hasty.limits.pool_wait = Duration::from_millis(100);
    let service = Service::start(hasty).await;
    service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
    startup.reached().await.send(()).unwrap();
    let client = database.client().await;
    let connected = "select coalesce(min(pid), 0)::bigint from pg_stat_activity
        where datname = current_database() and application_name = 'ingest' and state = 'idle'";
    eventually("the connection", || async { count(&client, connected).await > 0 }).await;
    let pid = count(&client, connected).await;
    service.zendesk(&mail("w1")).await.email_id("accepted");
    assert_eq!(count(&client, connected).await, pid);
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_named_and_no_value_is() {
    use ingest::commit::{CommitLimits, CommitRequest, FirstMessage, commit};
    let database = Database::new().await;
    let client = pooled(&database).await;
    let body = mail("w1").into_bytes();
    let request = CommitRequest {
        source: "zendesk",
        request_key: "w1".into(),
        fingerprint: ingest::request_key::fingerprint(&body),
        email: ingest::source::zendesk::parse(&body, jiff::Timestamp::now()).unwrap(),
        raw: body.into(),
        first: FirstMessage::Extraction,
        traceparent: shared::trace::TraceParent::root(),
    };
    let limits = CommitLimits { lock_wait: PATIENCE, key_lifetime: PATIENCE };
    for (change, words) in [
        (
            "add constraint short check (length(subject) < 3)",
            "Postgres refused the statement: 23514 incoming_emails short",
        ),
        (
            "alter column body_html type int using 0",
            "Postgres refused the statement: 42804 column \"body_html\" is of type integer but expression is of type text",
        ),
        (
            "rename column subject to betreff",
            "Postgres: 42703 column \"subject\" of relation \"incoming_emails\" does not exist",
        ),
    ] {
        let owner = database.client().await;
        owner.batch_execute(&format!("alter table incoming_emails {change}")).await.unwrap();
        let error = commit(&client, &request, limits).await.unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}

#[tokio::test]
async fn without_the_schema_it_is_not_ready_says_what_to_run_and_asks_the_sender_to_repeat() {
    let database = Database::empty().await;
    let service = Service::over(&database).await;
    eventually("the reason", || async {
        let answer = service.get("/readyz").await;
        answer.status == 503 && String::from_utf8_lossy(&answer.body).contains("run `relay migrate`")
    })
    .await;
    service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
    shared::postgres::migrate(&database.url).await.unwrap();
    service.zendesk(&mail("w1")).await.email_id("accepted");
    eventually("readiness", || async { service.get("/readyz").await.status == 200 }).await;
}

#[tokio::test]
async fn a_right_that_a_migration_has_not_given_yet_is_a_503_and_the_repeat_is_stored() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let owner = database.client().await;
    owner.batch_execute("revoke insert on incoming_emails from ingest").await.unwrap();
    service.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
    owner.batch_execute("grant insert on incoming_emails to ingest").await.unwrap();
    service.zendesk(&mail("w1")).await.email_id("accepted");
}

#[tokio::test]
async fn a_connection_lost_during_the_commit_is_a_503_and_the_repeat_finds_one_mail() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let mut patient = config(&wire.instead(&database.url));
    patient.limits.lock_wait = Duration::from_secs(3);
    let service = std::sync::Arc::new(Service::start(patient).await);
    let rival = Rival::holds(&database, "w1").await;
    let asking = {
        let service = service.clone();
        tokio::spawn(async move { service.zendesk(&mail("w1")).await })
    };
    rival.is_waited_for_by(1).await;
    wire.cut();
    let problem = asking.await.unwrap().is_problem(503, "unavailable");
    assert!(problem["detail"].as_str().unwrap().starts_with("It may or may not"), "{problem}");
    // The server goes on with the statement: whether it stored the mail, nobody has been told.
    rival.rolls_back().await;
    wire.mend();
    let client = database.client().await;
    assert_eq!(service.zendesk(&mail("w1")).await.status, 200);
    assert_eq!(rows(&client).await, [1, 1, 1]);
}

#[tokio::test]
async fn an_exhausted_pool_is_a_503_within_the_pool_wait() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    narrow.limits.pool_size = 1;
    narrow.limits.pool_wait = Duration::from_millis(100);
    narrow.limits.lock_wait = Duration::from_secs(3);
    let service = std::sync::Arc::new(Service::start(narrow).await);
    let rival = Rival::holds(&database, "w1").await;
    let asking = {
        let service = service.clone();
        tokio::spawn(async move { service.zendesk(&mail("w1")).await })
    };
    rival.is_waited_for_by(1).await;
    let started = Instant::now();
    service.zendesk(&mail("w2")).await.is_problem(503, "overloaded");
    assert!(started.elapsed() < Duration::from_millis(1000), "{:?}", started.elapsed());
    rival.rolls_back().await;
    asking.await.unwrap().email_id("accepted");
    service.zendesk(&mail("w2")).await.email_id("accepted");
}

#[tokio::test]
async fn a_commit_that_outlasts_the_handler_is_a_503_and_is_stored_all_the_same() {
    let database = Database::new().await;
    let mut hasty = config(&database.url);
    hasty.limits.handler_timeout = Duration::from_millis(100);
    hasty.limits.lock_wait = PATIENCE;
    // The second one has not even a connection when its handler gives up.
    hasty.limits.pool_size = 1;
    hasty.limits.pool_wait = PATIENCE;
    let service = Service::start(hasty).await;
    let client = database.client().await;
    let rival = Rival::holds(&database, "w1").await;
    for id in ["w1", "w2"] {
        let problem = service.zendesk(&mail(id)).await.is_problem(503, "unavailable");
        assert!(problem["detail"].as_str().unwrap().starts_with("It may or may not"), "{problem}");
    }
    rival.rolls_back().await;
    eventually("both mails", || async { rows(&client).await == [2, 2, 2] }).await;
    service.zendesk(&mail("w1")).await.email_id("duplicate");
    service.zendesk(&mail("w2")).await.email_id("duplicate");
}

#[tokio::test]
async fn a_commit_is_followed_by_a_poke() {
    let database = Database::new().await;
    let service = Service::over(&database).await;
    let config: tokio_postgres::Config = database.url.parse().unwrap();
    let (listener, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                let _ = told.send(notification.channel().to_owned());
            }
        }
    });
    listener.batch_execute(&format!("listen {}", shared::outbox::CHANNEL)).await.unwrap();
    service.zendesk(&mail("w1")).await.email_id("accepted");
    let poke = tokio::time::timeout(PATIENCE, hear.recv()).await.unwrap();
    assert_eq!(poke.as_deref(), Some(shared::outbox::CHANNEL));
}
