//! The real program: its commands, exit codes and words.

use crate::harness::*;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
};
use testkit::{Database, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The program with nothing in its environment but what is given.
fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingest"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut child = program(arguments, environment).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const GOOD: [(&str, &str); 4] = [
    ("DATABASE_URL", "postgres://postgres@127.0.0.1:1/none"),
    ("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes"),
    ("INGEST_LISTEN", "127.0.0.1:0"),
    ("INGEST_ADMIN_LISTEN", "127.0.0.1:0"),
];

#[test]
fn bad_configuration_is_64_with_every_problem_and_no_secret() {
    let bad = [
        ("DATABASE_URL", "postgres://user:hunter2@host:port/db"),
        ("INGEST_LISTEN", "nowhere"),
        ("LOG_FORMAT", "xml"),
        ("STANDARD_WEBHOOK_SECRET", "whsec_aHVudGVyMg=="),
        ("API_TOKENS", "hunter2,"),
        ("INGEST_BODY_BYTES", "0"),
        ("ZENDESK_LEGACY_SIGNATURE", "perhaps"),
        ("ZENDESK_WEBHOOK_SECRET_FILE", "/does/not/exist"),
        ("INGEST_POOL_SIZE", "-1"),
        ("RUST_LOG", "ingest=loud"),
    ];
    for command in ["check-config", "serve"] {
        let output = run(&[command], &bad, "");
        assert_eq!(code(&output), 64);
        let problems = text(&output.stderr);
        for (variable, _) in bad {
            assert!(problems.contains(variable), "{variable} is missing: {problems}");
        }
        assert!(!problems.contains("hunter2"), "{problems}");
        assert_eq!(problems.lines().count(), bad.len(), "{problems}");
    }
    let output = run(&["check-config", "--json"], &bad, "");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), text(&output.stderr).as_str(), &told["ok"]), (64, "", &false.into()));
    assert_eq!(told["problems"].as_array().unwrap().len(), bad.len(), "{told}");
    let output = run(&["check-config"], &[], "");
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (64, 1));
    assert!(text(&output.stderr).contains("DATABASE_URL is required"));
    let relation =
        [GOOD.as_slice(), &[("INGEST_HANDLER_TIMEOUT_MS", "1500"), ("INGEST_BODY_BUDGET_BYTES", "1000")]]
            .concat();
    assert_eq!(text(&run(&["check-config"], &relation, "").stderr).lines().count(), 2);
    let flag = run(&["check-config", "--listen", "nowhere"], &GOOD, "");
    assert_eq!(code(&flag), 64);
}

#[test]
fn good_configuration_is_ok_and_empty_variables_are_unset() {
    assert_eq!(text(&run(&["check-config"], &GOOD, "").stdout), "ok\n");
    assert_eq!(text(&run(&["--json", "check-config"], &GOOD, "").stdout), "{\"ok\":true}\n");
    let empty = [
        "INGEST_BODY_BYTES",
        "LOG_FORMAT",
        "API_TOKENS",
        "STANDARD_WEBHOOK_SECRET",
        "STANDARD_WEBHOOK_SECRET_FILE",
        "ZENDESK_LEGACY_SIGNATURE",
        "INGEST_INSECURE_ALLOW_UNSIGNED",
        "DATABASE_URL_FILE",
        "RUST_LOG",
    ];
    let empty: Vec<_> = empty.iter().map(|name| (*name, "")).chain(GOOD).collect();
    let output = run(&["check-config"], &empty, "");
    assert_eq!((code(&output), text(&output.stdout)), (0, "ok\n".into()), "{}", text(&output.stderr));
    let file = std::env::temp_dir().join(format!("ingest-test-{}", std::process::id()));
    std::fs::write(&file, "postgres://postgres@127.0.0.1:1/none\n").unwrap();
    let from_file = [("DATABASE_URL", ""), ("DATABASE_URL_FILE", file.to_str().unwrap())];
    assert_eq!(code(&run(&["check-config"], &from_file, "")), 0);
    let both = [("DATABASE_URL", GOOD[0].1), ("DATABASE_URL_FILE", file.to_str().unwrap())];
    let output = run(&["check-config"], &both, "");
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (64, 1));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn a_short_secret_is_64_unless_it_is_allowed() {
    let short: Vec<_> = [("ZENDESK_WEBHOOK_SECRET", "short")]
        .into_iter()
        .chain(GOOD.into_iter().filter(|(name, _)| *name != "ZENDESK_WEBHOOK_SECRET"))
        .collect();
    let output = run(&["check-config"], &short, "");
    assert_eq!(code(&output), 64);
    assert!(
        text(&output.stderr).contains("ZENDESK_WEBHOOK_SECRET holds a secret of 5 bytes; the least is 24")
    );
    assert_eq!(code(&run(&["check-config", "--insecure-allow-short-secrets"], &short, "")), 0);
}

#[tokio::test]
async fn two_programs_at_one_database_store_each_delivery_once() {
    let database = Database::new().await;
    let programs = [Running::start(&database.url), Running::start(&database.url)];
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..200 {
        let address = programs[number % 2].address;
        // Each delivery five times, at both.
        let body = mail(&format!("w{}", number / 5));
        asking.spawn(async move {
            let mut request = hyper::Request::post(ZENDESK).header("content-type", "application/json");
            for (name, value) in zendesk_verifier().sign(jiff::Timestamp::now(), body.as_bytes()) {
                request = request.header(name, value);
            }
            send(address, request.body(body.into_bytes().into()).unwrap()).await
        });
    }
    let answers = asking.join_all().await;
    let of = |status: &str| answers.iter().filter(|answer| answer.json()["status"] == status).count();
    assert_eq!((of("accepted"), of("duplicate")), (40, 160));
    let client = database.client().await;
    assert_eq!(rows(&client).await, [40, 40, 40]);
    assert_whole(&client).await;
}

#[test]
fn usage_errors_are_2_and_help_names_every_variable_with_its_default() {
    assert_eq!(code(&run(&[], &[], "")), 2);
    assert_eq!(code(&run(&["dance"], &[], "")), 2);
    assert_eq!(code(&run(&["sign"], &[], "")), 2);
    assert_eq!(code(&run(&["sign", "--source", "mailgun"], &[], "")), 2);
    let help = text(&run(&["serve", "--help"], &[("API_TOKENS", "hunter2")], "").stdout);
    for name in [
        "DATABASE_URL",
        "DATABASE_URL_FILE",
        "INGEST_LISTEN",
        "INGEST_ADMIN_LISTEN",
        "ZENDESK_WEBHOOK_SECRET_FILE",
        "ZENDESK_LEGACY_SIGNATURE",
        "STANDARD_WEBHOOK_SECRET",
        "API_TOKENS",
        "LOG_FORMAT",
        "INGEST_BODY_BYTES",
    ] {
        assert!(help.contains(&format!("[env: {name}")), "{name}: {help}");
    }
    assert!(
        help.contains("[default: 127.0.0.1:8080]")
            && help.contains("<MILLISECONDS>")
            && !help.contains("hunter2"),
        "{help}"
    );
}

#[test]
fn sign_prints_headers_that_the_verifiers_take() {
    let body = r#"{"ticket_id":"1"}"#;
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let output = run(
        &["sign", "--source", "standard", "--id", "msg_1", "--timestamp", "1649367553"],
        &[("STANDARD_WEBHOOK_SECRET", secret)],
        body,
    );
    assert_eq!(code(&output), 0);
    let lines = text(&output.stdout);
    assert!(
        lines.starts_with("webhook-id: msg_1\nwebhook-timestamp: 1649367553\nwebhook-signature: v1,")
            && lines.ends_with("Content-Type: application/json\n"),
        "{lines}"
    );
    let output = run(
        &["sign", "--source", "zendesk", "--json"],
        &[("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes,old")],
        body,
    );
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    let headers = object.as_object().unwrap().iter().map(|(name, value)| {
        (name.parse::<hyper::header::HeaderName>().unwrap(), value.as_str().unwrap().parse().unwrap())
    });
    let verified = zendesk_verifier().verify(&headers.collect(), body.into(), jiff::Timestamp::now());
    assert!(verified.is_ok());
    let output = run(&["sign", "--source", "zendesk"], &[("ZENDESK_WEBHOOK_SECRET", "")], body);
    assert_eq!(code(&output), 64);
    assert!(text(&output.stderr).contains("ZENDESK_WEBHOOK_SECRET"));
}

#[tokio::test]
async fn sign_makes_a_whole_request_that_curl_sends_as_it_is() {
    let database = Database::new().await;
    let running = Running::start(&database.url);
    // Every character that curl's configuration escapes, a line break, and what it might take for a file.
    let body = mail("w1").replace("Ihre Anfrage", r#"@/etc/hosts \\ \" \t Ihre"#).replace("\",", "\",\r\n\t");
    let environment = [("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes")];
    let url = format!("http://{}{ZENDESK}", running.address);
    let sign = |more: &[&str]| {
        run(&[&["sign", "--source", "zendesk", "--url", &url], more].concat(), &environment, &body)
    };
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--config", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut curl = curl.spawn().expect("curl is there");
    curl.stdin.take().unwrap().write_all(&sign(&[]).stdout).unwrap();
    let answer: Value = serde_json::from_slice(&curl.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(answer["status"], "accepted", "{answer}");
    let client = database.client().await;
    let raw = client.query_one("select raw from incoming_emails", &[]).await.unwrap();
    assert_eq!(text(raw.get(0)), body);
    let request: Value = serde_json::from_slice(&sign(&["--json"]).stdout).unwrap();
    assert_eq!(
        (request["url"].as_str(), request["body"].as_str()),
        (Some(url.as_str()), Some(body.as_str()))
    );
    assert!(request["headers"]["X-Zendesk-Webhook-Signature"].is_string(), "{request}");
}

#[test]
fn sign_refuses_what_no_verifier_would_take_and_says_how_to_use_it() {
    let environment = [
        ("STANDARD_WEBHOOK_SECRET", "whsec_AAAA"),
        ("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes"),
        ("ZENDESK_LEGACY_SIGNATURE", "?"),
    ];
    let sign = |arguments: &[&str]| {
        let output = run(&[&["sign", "--source"], arguments].concat(), &environment, "");
        (code(&output), text(&output.stderr))
    };
    assert_eq!(sign(&["zendesk"]).0, 0);
    assert_eq!(sign(&["standard", "--id", &"x".repeat(255)]).0, 0);
    for id in ["", "msg.1", "msg 1", "msg_ä", "msg_1\r\nX: y", &"x".repeat(256)] {
        let (code, words) = sign(&["standard", "--id", id]);
        assert!(code == 2 && words.contains("no dot"), "{id:?}: {words}");
    }
    let (code, words) = sign(&["zendesk", "--id", "msg_1"]);
    assert!(code == 2 && words.contains("--id belongs to --source standard"), "{words}");
    for timestamp in ["-1", "9999999999999"] {
        let (code, words) = sign(&["zendesk", "--timestamp", timestamp]);
        assert!(code == 2 && words.contains(&format!("{timestamp} is not in 0..=")), "{words}");
    }
    let help = text(&run(&["sign", "--help"], &[], "").stdout);
    assert!(
        help.contains("ingest sign --source zendesk < mail.json | curl -H @- --data-binary @mail.json URL\n"),
        "{help}"
    );
    assert!(!help.to_lowercase().contains("legacy") && !help.contains("--secret"), "{help}");
}

#[test]
fn idempotency_key_prints_what_the_python_service_computes() {
    let payload =
        r#"{"client_name": "Mößbauer, Jürgen", "creditor_email": "a@b.example", "amount": "1027.55"}"#;
    let arguments = ["idempotency-key", "--operation", "creditor_debt_update", "--aggregate-id", "17"];
    let python = Command::new("python3")
        .args(["-c", "import sys,json,hashlib; print('creditor_debt_update:17:' + hashlib.sha256(json.dumps(json.loads(sys.argv[1]), sort_keys=True).encode()).hexdigest()[:16])", payload])
        .output()
        .unwrap();
    let output = run(&arguments, &[], payload);
    assert_eq!((code(&output), &output.stdout), (0, &python.stdout));
    let key: Value =
        serde_json::from_slice(&run(&[&arguments, ["--json"].as_slice()].concat(), &[], payload).stdout)
            .unwrap();
    assert_eq!(key, serde_json::json!({"key": text(&output.stdout).trim()}));
    let output = run(&arguments, &[], "{");
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("not JSON"));
}

#[test]
fn a_port_in_use_is_exit_1_and_names_the_variable() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let environment = [GOOD[0], ("INGEST_LISTEN", address.as_str()), GOOD[3]];
    let output = run(&["serve"], &environment, "");
    assert_eq!(code(&output), 1);
    let words = text(&output.stderr);
    assert!(words.contains(&format!("INGEST_LISTEN: cannot listen on {address}")), "{words}");
}

/// A running program and everything that it says.
pub(crate) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Running {
    /// Starts it with a secret and a token.
    fn start(database_url: &str) -> Running {
        let secrets = [("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes"), ("API_TOKENS", TOKEN)];
        Running::start_with(&[], &[&[("DATABASE_URL", database_url)], secrets.as_slice()].concat())
    }

    /// Starts it with JSON log lines at the finest level and reads the addresses from them.
    pub(crate) fn start_with(arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let common = [
            ("INGEST_LISTEN", "127.0.0.1:0"),
            ("INGEST_ADMIN_LISTEN", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "trace"),
        ];
        let arguments = [&["serve"], arguments].concat();
        let mut child = program(&arguments, &[common.as_slice(), environment].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let listening = loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended: {}", said.lock().unwrap());
            said.lock().unwrap().push_str(&line);
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "listening" {
                break line;
            }
        };
        let keep = said.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = lines.read(&mut buffer) {
                keep.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        let address = |name: &str| listening[name].as_str().unwrap().parse().unwrap();
        Running { address: address("address"), admin: address("admin"), child, said }
    }

    pub(crate) async fn zendesk(&self, body: &str) -> Answer {
        self.zendesk_with(zendesk_verifier().sign(jiff::Timestamp::now(), body.as_bytes()), body).await
    }

    async fn zendesk_with(&self, headers: Vec<(&str, String)>, body: &str) -> Answer {
        let mut request = hyper::Request::post(ZENDESK).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        send(self.address, request.body(body.to_owned().into_bytes().into()).unwrap()).await
    }

    /// A number in kB of `/proc/PID/status`, or how many files it has open.
    pub(crate) fn measure(&self, what: &str) -> usize {
        let folder = format!("/proc/{}", self.child.id());
        if what == "files" {
            return std::fs::read_dir(folder + "/fd").unwrap().count();
        }
        let status = std::fs::read_to_string(folder + "/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) async fn terminate(&mut self) -> i32 {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        let mut code = None;
        let child = Mutex::new(&mut self.child);
        eventually("the end of the program", || {
            code = child.lock().unwrap().try_wait().unwrap().map(|status| status.code());
            let ended = code.is_some();
            async move { ended }
        })
        .await;
        code.unwrap().expect("an exit code and no signal")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_program_serves_counts_and_ends_with_0_on_sigterm() {
    let database = Database::new().await;
    let mut running = Running::start(&database.url);
    running.zendesk(&mail("w1")).await.email_id("accepted");
    running.zendesk(&mail("w1")).await.email_id("duplicate");
    get(running.address, "/nowhere").await.is_problem(404, "not-found");
    let metrics = get(running.admin, "/metrics").await;
    let metrics = text(&metrics.body);
    for line in [
        "ingest_requests_total{source=\"zendesk\",outcome=\"accepted\"} 1",
        "ingest_requests_total{source=\"zendesk\",outcome=\"duplicate\"} 1",
        "ingest_requests_total{source=\"none\",outcome=\"not-found\"} 1",
        "ingest_commit_duration_seconds_count 2",
        "# TYPE ingest_commit_duration_seconds histogram",
        "ingest_request_duration_seconds_count{source=\"zendesk\"} 2",
        "ingest_duplicates_total{source=\"zendesk\"} 1",
        "ingest_signature_failures_total{source=\"zendesk\",reason=\"wrong\"} 0",
        "ingest_shed_total{reason=\"queue\"} 0",
        "ingest_queue_depth 0",
        "ingest_queue_bytes 0",
        "ingest_pool_connections{state=\"in_use\"} 0",
        "ingest_ready 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing: {metrics}");
    }
    assert_eq!(get(running.admin, "/livez").await.status, 200);
    assert_eq!(running.terminate().await, 0);
}

#[tokio::test]
async fn a_5xx_is_found_in_the_log_by_the_id_that_its_answer_carries() {
    let secret = ("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET);
    let running = Running::start_with(&[], &[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none"), secret]);
    let id = "3f2b8c1a-9d4e-4f6a-8b7c-0d1e2f3a4b5c";
    let mut headers = zendesk_verifier().sign(jiff::Timestamp::now(), mail("w1").as_bytes());
    headers.push(("X-Request-Id", id.into()));
    let problem = running.zendesk_with(headers, &mail("w1")).await.is_problem(503, "unavailable");
    assert_eq!(problem["request_id"], id);
    eventually("a warning of this request", || async {
        let said = running.said.lock().unwrap();
        said.lines()
            .any(|line| line.contains(id) && line.contains("\"level\":\"WARN\"") && line.contains("trace_id"))
    })
    .await;
}

#[tokio::test]
async fn what_finds_no_room_is_counted_by_what_was_full() {
    let database = Database::new().await;
    let environment = [("DATABASE_URL", database.url.as_str()), ("ZENDESK_WEBHOOK_SECRET", ZENDESK_SECRET)];
    let running = Running::start_with(&["--queue-rows", "1"], &environment);
    let rival = Rival::holds(&database, "w1").await;
    let (first, second) = (mail("w1"), mail("w2"));
    let (first, ()) = tokio::join!(running.zendesk(&first), async {
        rival.is_waited_for_by(1).await;
        running.zendesk(&second).await.is_problem(503, "overloaded");
        // The server notices in its own time that the second connection has ended.
        let page = async || text(&get(running.admin, "/metrics").await.body);
        eventually("one open connection", async || page().await.contains("ingest_open_connections 1\n"))
            .await;
        let metrics = page().await;
        for line in [
            "ingest_shed_total{reason=\"queue\"} 1",
            "ingest_shed_total{reason=\"pool\"} 0",
            "ingest_queue_depth 1",
            "ingest_pool_connections{state=\"in_use\"} 1",
            "ingest_key_used_total{source=\"zendesk\",key=\"1\"} 2",
        ] {
            assert!(metrics.contains(line), "{line} is missing: {metrics}");
        }
        assert!(!metrics.contains("ingest_queue_bytes 0"), "the first one's body is held");
        rival.rolls_back().await;
    });
    first.email_id("accepted");
}

#[tokio::test]
async fn the_old_signature_counts_when_its_variable_says_so() {
    use hmac::{Hmac, KeyInit, Mac};
    let database = Database::new().await;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"a zendesk secret of many bytes").unwrap();
    mac.update(mail("w1").as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let old = || vec![("X-Zendesk-Signature", hex.clone())];
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("ZENDESK_WEBHOOK_SECRET", "a zendesk secret of many bytes"),
        ("ZENDESK_LEGACY_SIGNATURE", "true"),
    ];
    let running = Running::start_with(&[], &environment);
    running.zendesk_with(old(), &mail("w1")).await.email_id("accepted");
    running.zendesk_with(old(), &mail("w2")).await.is_problem(401, "signature-invalid");
    let strict = Running::start(&database.url);
    strict.zendesk_with(old(), &mail("w1")).await.is_problem(401, "signature-missing");
}

#[tokio::test]
async fn unsigned_webhooks_are_taken_only_with_the_flag_and_a_warning() {
    let database = Database::new().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let running = Running::start_with(&["--insecure-allow-unsigned"], &environment);
    running.zendesk_with(Vec::new(), &mail("w1")).await.email_id("accepted");
    eventually("the warning", || async {
        running.said.lock().unwrap().contains("INGEST_INSECURE_ALLOW_UNSIGNED is on")
    })
    .await;
    let strict = Running::start_with(&[], &environment);
    strict.zendesk_with(Vec::new(), &mail("w1")).await.is_problem(404, "unknown-source");
}

/// Refuses connections as a Postgres does, with these words, or carries them to the real one.
async fn doorkeeper(wire: &Wire) -> (SocketAddr, Arc<Mutex<Option<&'static str>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), wire.address());
    let refusing = Arc::new(Mutex::new(None));
    let words = refusing.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (refusal, behind) = (*words.lock().unwrap(), behind.clone());
            tokio::spawn(async move {
                let Some(refusal) = refusal else {
                    let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                    return drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
                };
                let error = format!("SFATAL\0C57P03\0M{refusal}\0\0");
                let length = u32::try_from(error.len() + 4).unwrap().to_be_bytes();
                assert!(near.read(&mut [0; 1024]).await.unwrap() > 0);
                near.write_all(&[b"E", length.as_slice(), error.as_bytes()].concat()).await.unwrap();
            });
        }
    });
    (address, refusing)
}

#[tokio::test]
async fn a_failure_to_connect_is_logged_once_per_reason() {
    let database = Database::new().await;
    let wire = Wire::before(&database.url).await;
    let (door, refusing) = doorkeeper(&wire).await;
    let refuse = |words| *refusing.lock().unwrap() = words;
    let warnings = |running: &Running| {
        let said = running.said.lock().unwrap().clone();
        said.lines()
            .filter(|line| line.contains("no connection to Postgres; senders"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    refuse(Some("one reason"));
    let url = wire.instead(&database.url).replacen(&wire.address(), &door.to_string(), 1);
    let running = Running::start(&url);
    let mut expected = Vec::new();
    for reason in [Some("one reason"), Some("another reason"), None, Some("another reason")] {
        refuse(reason);
        if let Some(reason) = reason {
            wire.cut();
            expected.push(format!("\"reason\":\"{reason} (57P03)\""));
            // The connection that was good until now may still be taken for good.
            eventually("a warning", || async {
                running.zendesk(&mail("w1")).await;
                warnings(&running).len() == expected.len()
            })
            .await;
            for _ in 0..3 {
                running.zendesk(&mail("w1")).await.is_problem(503, "unavailable");
            }
        } else {
            wire.mend();
            running.zendesk(&mail("w1")).await.email_id("accepted");
        }
    }
    // What was said before a later line has been read before it.
    get(running.address, "/last").await.is_problem(404, "not-found");
    eventually("the last line", || async { running.said.lock().unwrap().contains("\"not-found\"") }).await;
    let said = warnings(&running);
    assert_eq!(said.len(), expected.len(), "{said:?}");
    assert!(said.iter().zip(&expected).all(|(line, reason)| line.contains(reason)), "{said:?}");
}

#[tokio::test]
async fn no_log_line_at_any_level_holds_anything_personal_or_secret() {
    let database = Database::new().await;
    let mut running = Running::start(&database.url);
    running.zendesk(&mail("canary-id")).await.email_id("accepted");
    running.zendesk(&mail("canary-id")).await.email_id("duplicate");
    running
        .zendesk(&mail("canary-id").replace("4.812,37", "9.999,99"))
        .await
        .is_problem(422, "idempotency-key-reused");
    running.zendesk(&mail("canary-id").replace("\"48066\"", "[\"48066\"]")).await.pointers();
    running.zendesk("{\"canary-id\"").await.pointers();
    let request = hyper::Request::post(DEBT_UPDATES)
        .header("content-type", "application/json")
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("idempotency-key", "canary-key")
        .body(debt_update("4812.37").into_bytes().into())
        .unwrap();
    send(running.address, request).await.email_id("accepted");
    let client = database.client().await;
    client
        .batch_execute(
            "alter table incoming_emails add check (subject is null or subject not like 'Ihre%') not valid",
        )
        .await
        .unwrap();
    running.zendesk(&mail("canary-2")).await.is_problem(500, "internal");
    assert_eq!(running.terminate().await, 0);
    eventually("its last line", || async { running.said.lock().unwrap().contains("\"stopped\"") }).await;
    let said = running.said.lock().unwrap().clone();
    assert!(said.contains("could not be stored") && said.contains("23514"), "{said}");
    // Times and ports are digits too, and nobody's.
    let digits_of_ours = ["timestamp", "address", "admin", "milliseconds"];
    let mut said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut said {
        digits_of_ours.iter().for_each(|name| drop(line.as_object_mut().unwrap().remove(*name)));
    }
    for canary in [
        "quarkstein",
        "Quarkstein",
        "4.812",
        "4812",
        "542902",
        "48066",
        "canary",
        "Mößbauer",
        "inkasso@",
        "a zendesk secret of many bytes",
        TOKEN,
    ] {
        let told = said.iter().find(|line| line.to_string().contains(canary));
        assert!(told.is_none(), "{canary} in {told:?}");
    }
}

#[tokio::test]
async fn sighup_reads_the_secrets_again_and_no_request_is_lost() {
    let database = Database::new().await;
    let folder = std::env::temp_dir().join(format!("ingest-sighup-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("secret");
    let (old, new) = ("a zendesk secret of many bytes", "another zendesk secret as long");
    std::fs::write(&file, old).unwrap();
    let mut running = Running::start_with(
        &["--lock-wait-ms", "20000", "--handler-timeout-ms", "30000"],
        &[("DATABASE_URL", database.url.as_str()), ("ZENDESK_WEBHOOK_SECRET_FILE", file.to_str().unwrap())],
    );
    let signed = |secret: &str, body: &str| {
        let verifier = ingest::source::zendesk::Verifier::new(&secret.parse().unwrap(), false, 24).unwrap();
        verifier.sign(jiff::Timestamp::now(), body.as_bytes())
    };
    let hangup = |running: &Running, words: &'static str| {
        let before = running.said.lock().unwrap().matches(words).count();
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").args(["-s", "HUP", &pid]).status().unwrap().success());
        let said = running.said.clone();
        async move {
            eventually(words, || {
                let told = said.lock().unwrap().matches(words).count() > before;
                async move { told }
            })
            .await;
        }
    };
    running.zendesk_with(signed(old, &mail("w1")), &mail("w1")).await.email_id("accepted");
    running.zendesk_with(signed(new, &mail("w2")), &mail("w2")).await.is_problem(401, "signature-invalid");
    // The sender changes over: both are taken, and the metric tells when the old one is used no more.
    std::fs::write(&file, format!("{new},{old}\n")).unwrap();
    let rival = Rival::holds(&database, "in flight").await;
    let in_flight = async {
        let (headers, body) = (signed(old, &mail("in flight")), mail("in flight"));
        running.zendesk_with(headers, &body).await
    };
    let change = async {
        rival.is_waited_for_by(1).await;
        hangup(&running, "read again from").await;
        rival.rolls_back().await;
    };
    tokio::join!(in_flight, change).0.email_id("accepted");
    running.zendesk_with(signed(new, &mail("w2")), &mail("w2")).await.email_id("accepted");
    running.zendesk_with(signed(old, &mail("w3")), &mail("w3")).await.email_id("accepted");
    let metrics = text(&get(running.admin, "/metrics").await.body);
    for (key, count) in [(1, 3), (2, 1)] {
        // The first key was the old one until the hangup.
        let line = format!("ingest_key_used_total{{source=\"zendesk\",key=\"{key}\"}} {count}");
        assert!(metrics.contains(&line), "{line} is missing: {metrics}");
    }
    // What cannot be used changes nothing.
    for bad in ["", "short"] {
        std::fs::write(&file, bad).unwrap();
        hangup(&running, "were not read again").await;
        running.zendesk_with(signed(old, &mail("w1")), &mail("w1")).await.email_id("duplicate");
    }
    std::fs::write(&file, new).unwrap();
    hangup(&running, "read again from").await;
    running.zendesk_with(signed(old, &mail("w4")), &mail("w4")).await.is_problem(401, "signature-invalid");
    assert!(!running.said.lock().unwrap().contains("zendesk secret"));
    assert_eq!(running.terminate().await, 0);
    std::fs::remove_dir_all(folder).unwrap();
}
