//! What operators see of both programs: metrics, alerts, a dashboard, traces, logs; and that none of it shows anything of a mail.

mod programs;
mod prometheus;
mod scanner;

use crate::{
    mail_server::{FROM, MailServer, TO},
    outages::until,
    world::World,
};
use mongodb::bson::{Document, doc};
use programs::{API_TOKEN, PASSWORD, Programs, ZENDESK_SECRET};
use prometheus::{Prometheus, deploy, promtool};
use regex::Regex;
use scanner::Scanner;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

/// In the order of their numbers.
fn mails() -> Vec<Value> {
    let mut files: Vec<_> =
        fs::read_dir(deploy("samples/mails")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()).collect()
}

fn clients() -> Vec<Value> {
    serde_json::from_str(&fs::read_to_string(deploy("samples/clients.json")).unwrap()).unwrap()
}

async fn world_with_samples() -> World {
    let world = World::new().await;
    // What the relay looks for before it is ready.
    let text = fs::read_to_string(deploy("samples/clients.json")).unwrap();
    let documents: Vec<Document> = serde_json::from_str(&text).unwrap();
    world.mongo.clients.insert_many(documents).await.unwrap();
    world
}

/// Until every message has come to an end, but those whose client is missing, and letters that wait for the digest of the hour.
async fn all_ended(world: &World) {
    let open = "select count(*) from outbox_messages where processed_at is null and dead_at is null and first_missing_at is null
        and error_class is distinct from 'budget_spent'";
    until(|| async { world.row(open).await.get::<_, i64>(0) == 0 }).await;
}

#[tokio::test]
async fn one_trace_runs_from_the_webhook_to_the_command_in_mongodb() {
    let world = world_with_samples().await;
    let database = world.mongo.clients.client().database(&world.mongo.name);
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    let programs = Programs::start(&world, &world.mongo.url, &[]).await;
    let (trace, request) = ("4bf92f3577b34da6a3ce929d0e0e4736", "3f2b8c1a-9d4e-4f6a-8b7c-0d1e2f3a4b5c");
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let mail = &mails()[0]["webhook"];
    let headers = [("traceparent", traceparent.as_str()), ("X-Request-Id", request)];
    let (status, answer) = programs.webhook(&mail.to_string(), &headers).await;
    assert_eq!(status, 200, "{answer}");
    let id = &serde_json::from_str::<Value>(&answer).unwrap()["email_id"];
    let email_id = id.to_string();

    // In ingest's log, by the request.
    let line = programs.ingest.says(&[("message", "request"), ("request_id", request)]).await;
    let first_key = format!("email_extraction:{email_id}:0");
    for (field, value) in [
        ("trace_id", json!(trace)),
        ("idempotency_key", json!(first_key)),
        ("operation", json!("email_extraction")),
        ("saga_step", json!("email_extraction")),
        ("outcome", json!("accepted")),
        ("status", json!(200)),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["email_id"], *id);

    // In the relay's, by the message, for each step of the saga.
    for (operation, outcome) in [("email_extraction", "extracted"), ("creditor_debt_update", "applied")] {
        let key = format!("{operation}:{email_id}:0");
        let line = programs.relay.says(&[("operation", operation), ("outcome", outcome)]).await;
        for (field, value) in
            [("trace_id", trace), ("idempotency_key", key.as_str()), ("saga_step", operation)]
        {
            assert_eq!(line[field], value, "{field}: {line}");
        }
        assert!(line["message_id"].is_i64() && line["email_id"] == *id, "{line}");
    }

    // In the outbox, and in what MongoDB keeps of the commands.
    let of_trace = format!(
        "select count(*) filter (where traceparent like '00-{trace}-%'), count(*), max(id) from outbox_messages"
    );
    let row = world.row(&of_trace).await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 2));
    let profile = database.collection::<Document>("system.profile");
    for operation in ["update", "query"] {
        let filter = doc! { "op": operation, "command.comment.traces": trace, "command.comment.messages": row.get::<_, i64>(2) };
        let found = profile.find_one(filter).await.unwrap();
        assert!(found.is_some(), "no {operation} names trace and message");
    }
    let (_, explained, _) = world.relay(&["explain", &email_id]).await;
    assert!(explained.contains(trace), "{explained}");
    // What a person does about the mail later belongs to its trace too.
    let (code, _, stderr) = world.relay(&["correct", &email_id, "--amount", "900"]).await;
    assert_eq!(code, 0, "{stderr}");
    all_ended(&world).await;
    let (code, said, stderr) = world.relay(&["replay", "--email", &email_id]).await;
    assert_eq!(code, 0, "{stderr}");
    let row = world.row(&of_trace).await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (4, 4), "{said}");
}

/// Each with a mail's content.
async fn senders_do_wrong(programs: &Programs, mails: &[Value]) {
    let body = mails[0]["webhook"].to_string();
    let path = "/v1/webhooks/zendesk";
    let wrong = [
        ("X-Zendesk-Webhook-Signature", "d3Jvbmc="),
        ("X-Zendesk-Webhook-Signature-Timestamp", "1771316062"),
    ];
    assert_eq!(programs.post(path, &wrong, &body).await.0, 401);
    assert_eq!(programs.post(path, &[("Authorization", "Bearer Tannhuber")], &body).await.0, 401);
    assert_eq!(programs.webhook(&body[..body.len() - 40], &[]).await.0, 400);
    assert_eq!(programs.webhook(&body.replace("4.812,37", "4.812,38"), &[]).await.0, 422);
    let strange = [("X-Request-Id", "Tannhuber, Korbinian"), ("traceparent", "00-Tannhuber-542902-01")];
    assert_eq!(programs.webhook(&mails[1]["webhook"].to_string(), &strange).await.0, 200);
    assert_eq!(programs.post("/v1/webhooks/Tannhuber-542902", &[], &body).await.0, 404);
    let bearer = format!("Bearer {API_TOKEN}");
    let update = |amount: &str| {
        json!({ "client_name": "Tannhuber, Korbinian", "client_aktenzeichen": "542902", "creditor_name": "Quarkstein Bank AG",
            "creditor_email": mails[0]["webhook"]["from_email"], "new_debt_amount": amount, "reference_numbers": ["QB-77120/TK"] })
        .to_string()
    };
    let keyed = |key| [("Authorization", bearer.as_str()), ("Idempotency-Key", key)];
    for (key, amount, status) in [
        ("Tannhuber-542902-a", "12845670000000.00", 400),
        ("Tannhuber-542902-b", "zwölftausend", 400),
        ("Tannhuber-542902-c", "12845.67", 200),
        ("Tannhuber-542902-c", "7779.55", 422),
    ] {
        assert_eq!(programs.post("/v1/debt-updates", &keyed(key), &update(amount)).await.0, status, "{key}");
    }
    assert_eq!(
        programs.post("/v1/debt-updates", &[("Authorization", "Bearer Tannhuber")], "{}").await.0,
        401
    );
}

#[tokio::test]
async fn no_log_line_and_no_metric_of_a_whole_run_holds_anything_of_the_mails() {
    let world = world_with_samples().await;
    let (url, wire) = world.mongo_wire().await;
    let server = MailServer::new().await;
    let letters = server.url();
    let more = [("SMTP_URL", letters.as_str()), ("NOTIFY_TO", TO), ("NOTIFY_FROM", FROM)];
    let mut programs = Programs::start(&world, &url, &more).await;
    let mails = mails();
    let (first, second) = mails.split_at(10);
    for mail in first {
        assert_eq!(programs.webhook(&mail["webhook"].to_string(), &[]).await.0, 200);
    }
    wire.cut();
    for mail in second {
        assert_eq!(programs.webhook(&mail["webhook"].to_string(), &[]).await.0, 200);
        assert_eq!(programs.webhook(&mail["webhook"].to_string(), &[]).await.0, 200, "a repeat");
    }
    until(|| async {
        programs.metrics().await[1]
            .contains("relay_breaker_open{operation=\"creditor_debt_update\",reason=\"sink_down\"} 1")
    })
    .await;
    wire.mend();

    senders_do_wrong(&programs, &mails).await;
    // And messages that nobody can carry out.
    for payload in [
        json!({ "email_id": "Tannhuber, Korbinian", "new_debt_amount": "4812.37" }),
        json!({ "email_id": 1, "creditor_email": "a@b.example", "new_debt_amount": "4.812,37", "received_at": "2026-02-17T08:14:22Z",
            "stamp": "Tannhuber", "origin": "mail" }),
    ] {
        world.message("creditor_debt_update", 1, payload).await;
    }
    all_ended(&world).await;
    programs
        .relay
        .says(&[("level", "ERROR"), ("operation", "creditor_debt_update"), ("outcome", "dead")])
        .await;
    programs.relay.says(&[("outcome", "sent")]).await;
    programs.relay.says(&[("outcome", "held_for_review")]).await;
    // Counted a moment after what they count is committed and logged.
    let counted = [
        "ingest_signature_failures_total{source=\"zendesk\",reason=\"missing\"} 1",
        "ingest_signature_failures_total{source=\"zendesk\",reason=\"wrong\"} 1",
        "ingest_signature_failures_total{source=\"api\",reason=\"token\"} 1",
        "ingest_fingerprint_mismatches_total{source=\"zendesk\"} 1",
        "ingest_fingerprint_mismatches_total{source=\"api\"} 1",
        "ingest_duplicates_total{source=\"zendesk\"} 31",
        "ingest_requests_total{source=\"zendesk\",outcome=\"accepted\"} 40",
        "ingest_requests_total{source=\"api\",outcome=\"invalid-payload\"} 2",
        "relay_claimed_messages_total{operation=\"email_extraction\"} 40",
        "relay_messages_total{operation=\"creditor_debt_update\",outcome=\"dead\"} 2",
        "relay_messages_total{operation=\"creditor_debt_update\",outcome=\"retried\"} 0",
        "relay_in_flight_messages{operation=\"creditor_debt_update\"} 0",
        "relay_breaker_open{operation=\"creditor_debt_update\",reason=\"sink_down\"} 0",
    ];
    let has_all =
        |pages: [String; 2]| counted.iter().all(|line| pages.iter().any(|page| page.contains(line)));
    until(|| async { has_all(programs.metrics().await) }).await;
    let metrics = programs.metrics().await;
    programs.stop().await;

    let secrets = [ZENDESK_SECRET, API_TOKEN, PASSWORD];
    let scanner = Scanner::of(&mails, &clients(), &secrets);
    let said = programs.ingest.lines().into_iter().chain(programs.relay.lines());
    // Help texts are ours and always the same.
    let measured = metrics.iter().flat_map(|page| page.lines().filter(|line| !line.starts_with("# HELP ")));
    let lines: Vec<String> = said.chain(measured.map(str::to_owned)).collect();
    assert!(lines.len() > 300, "the run has been logged and measured: {}", lines.len());
    let leaks: Vec<_> = lines
        .iter()
        .map(|line| (scanner.found_in(line), line))
        .filter(|(found, _)| !found.is_empty())
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn the_scanner_finds_what_it_is_there_to_find() {
    let mails = mails();
    let scanner = Scanner::of(&mails, &clients(), &[ZENDESK_SECRET, API_TOKEN, PASSWORD]);
    for leak in [
        "{\"message\":\"dead\",\"failure\":\"no client Tannhuber\"}".to_owned(),
        format!(
            "relay_messages_total{{outcome=\"{}\"}} 1",
            mails[0]["webhook"]["from_email"].as_str().unwrap()
        ),
        "{\"error\":\"numeric field overflow: 4812.37\"}".into(),
        "{\"error\":\"4.812,37 EUR is no amount\"}".into(),
        "{\"error\":\"4,812.37\"}".into(),
        "{\"payload\":\"{\\\"client_aktenzeichen\\\":\\\"542902\\\"}\"}".into(),
        "{\"number\":\"2024/118\"}".into(),
        "{\"number\":\"QB-77120/TK\"}".into(),
        "{\"name\":\"Quarkstein Bank AG\"}".into(),
        json!({ "debug": format!("{:?}", mails[0]["webhook"]["body_text"].as_str().unwrap()) }).to_string(),
        json!({ "debug": format!("{:?}", mails[0]["webhook"]["subject"]) }).to_string(),
        format!("postgres://postgres:{PASSWORD}@127.0.0.1/x"),
        format!("Bearer {API_TOKEN}"),
    ] {
        assert!(!scanner.found_in(&leak).is_empty(), "{leak}");
    }
}

/// Every expression of the dashboard, by its panel.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deploy("grafana/dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let rows: Vec<_> = panels
        .iter()
        .filter(|panel| panel["type"] == "row")
        .map(|row| row["title"].as_str().unwrap())
        .collect();
    assert_eq!(rows, ["Overview", "ingest", "relay", "Reconciliation"]);
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let position = &panel["gridPos"];
        assert!(position["x"].as_i64().unwrap() + position["w"].as_i64().unwrap() <= 24, "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            queries.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

#[tokio::test]
async fn a_live_prometheus_has_data_for_every_query_of_the_dashboard_and_no_alert_of_a_healthy_run() {
    let world = world_with_samples().await;
    let programs = Programs::start(&world, &world.mongo.url, &[]).await;
    let prometheus = Prometheus::scraping(&programs, &world.mongo.name).await;
    until(|| async { prometheus.query("up == 1").await.len() == 2 }).await;
    let mails = mails();
    let mut open = dashboard();
    assert!(open.len() > 40);
    let deadline = Instant::now() + Duration::from_secs(90);
    // One mail after the other, so that whatever is scraped moves; the relay reconciles within ten seconds of its start.
    for mail in mails.iter().cycle() {
        if open.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "no data: {open:#?}");
        assert_eq!(programs.webhook(&mail["webhook"].to_string(), &[]).await.0, 200);
        let mut without = Vec::new();
        for (title, query) in open {
            if prometheus.query(&query).await.is_empty() {
                without.push((title, query));
            }
        }
        open = without;
        tokio::time::sleep(Duration::from_millis(50)).await; // else it would be all CPU of a small machine
    }
    let is_true = async |query: &str| !prometheus.query(query).await.is_empty();
    until(|| is_true("sum(increase(ingest_requests_total{outcome=\"accepted\"}[5m])) > 1")).await;
    until(|| is_true("sum(increase(relay_messages_total{outcome=\"applied\"}[5m])) > 1")).await;
    until(|| is_true("max(relay_reconcile_last_completed_timestamp_seconds) > 0")).await;
    until(|| async { prometheus.rules().await.iter().all(|(_, health, _)| health != "unknown") }).await;
    let rules = prometheus.rules().await;
    assert!(rules.len() >= 15);
    for (name, health, state) in &rules {
        // What has not happened yet, as the first comparison, may be pending.
        assert!(health == "ok" && state != "firing", "{name}: {health}, {state}");
    }
    for page in programs.metrics().await {
        promtool(&["check", "metrics"], &page);
    }
}

#[test]
fn rules_and_configuration_are_what_promtool_accepts_and_rules_fire_when_they_should() {
    for (arguments, file) in [
        (["check", "rules"], "prometheus/alerts.yml"),
        (["check", "config"], "prometheus/prometheus.yml"),
        (["test", "rules"], "prometheus/alerts_test.yml"),
        (["test", "rules"], "prometheus/alerts_week_test.yml"),
    ] {
        promtool(&[arguments[0], arguments[1], deploy(file).to_str().unwrap()], "");
    }
}

#[test]
fn every_rule_leads_to_its_section_of_the_runbook() {
    let rules = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let runbook = fs::read_to_string(deploy("RUNBOOK.md")).unwrap();
    let headings = runbook.lines().filter_map(|line| line.strip_prefix("### "));
    let sections: BTreeSet<String> = headings.map(|title| title.to_lowercase().replace(' ', "-")).collect();
    let anchors = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: \"deploy/RUNBOOK.md#"));
    let anchors: Vec<&str> = anchors.map(|anchor| anchor.trim_end_matches('"')).collect();
    assert_eq!(anchors.len(), rules.matches("- alert: ").count());
    for anchor in anchors {
        assert!(sections.contains(anchor), "{anchor}");
    }
}

#[test]
fn rules_and_dashboard_name_only_metrics_that_there_are() {
    let metrics = ingest::telemetry::METRICS.iter().chain(relay::telemetry::METRICS);
    let known: BTreeSet<&str> = metrics.map(|metric| metric.1).collect();
    let rules = fs::read_to_string(deploy("prometheus/alerts.yml")).unwrap();
    let queries: String = dashboard().into_iter().map(|(_, query)| query + "\n").collect();
    let name = Regex::new(r"\b(?:ingest|relay)_[a-z_]+").unwrap();
    for found in name.find_iter(&(rules + &queries)) {
        let parts = ["", "_bucket", "_sum", "_count"];
        let is_known = parts
            .iter()
            .any(|part| found.as_str().strip_suffix(part).is_some_and(|name| known.contains(name)));
        assert!(is_known, "{}", found.as_str());
    }
}
