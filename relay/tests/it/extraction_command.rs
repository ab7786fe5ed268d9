//! `relay extract` and the settings of the extractors, as a user meets them.

use crate::model_server::{KEY, ModelServer, chat, failure};
use serde_json::{Value, json};
use std::process::{Output, Stdio};
use tokio::{io::AsyncWriteExt, process::Command};

const BODY: &str =
    "Unsere Gesamtforderung gegen Frau Eva Adler beträgt 1.234,56 EUR.\n\nTurmhaus Kontor GmbH\n";

fn mail() -> Value {
    json!({ "ticket_id": "1", "from_email": "Turmhaus <konto@turmhaus.example>", "subject": "Ihr Zeichen 2024/118", "body_text": BODY })
}

/// Neither Postgres nor MongoDB is known to it.
async fn extract(
    arguments: &[&str],
    variables: &[(&str, &str)],
    input: &str,
) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.arg("extract").args(arguments).env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that ends without reading closes the pipe.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn extract_shows_what_the_rules_make_of_a_webhook_body_or_a_sample() {
    for input in [mail(), json!({ "webhook": mail(), "expected": {} })] {
        let (code, stdout, stderr) = extract(&["--json"], &[], &input.to_string()).await;
        assert_eq!(code, Some(0), "{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(
            (&found["debt_amount"], &found["client_aktenzeichen"]),
            (&json!("1234.56"), &json!("2024/118"))
        );
    }
    let (code, stdout, _) = extract(&[], &[], &mail().to_string()).await;
    assert_eq!(code, Some(0));
    assert!(
        stdout.contains("\"debt_amount\": \"1234.56\"") && stdout.contains("quoted history: 0 characters"),
        "{stdout}"
    );
}

#[tokio::test]
async fn extract_asks_a_model_and_tells_its_failure() {
    let server = ModelServer::start().await;
    let form = json!({ "is_creditor_reply": true, "intent": "debt_statement", "debt_amount": 1234.56, "confidence": 1 });
    server.will(chat(&form.to_string()));
    let (url, key) = (format!("{}/v1/", server.url), format!("{KEY}\n"));
    let file = std::env::temp_dir().join(format!("extractor-key-{}", std::process::id()));
    std::fs::write(&file, key).unwrap();
    let variables = [
        ("EXTRACTOR_URL", url.as_str()),
        ("EXTRACTOR_MODEL", "reader-1"),
        ("EXTRACTOR_API_KEY_FILE", file.to_str().unwrap()),
        ("RUST_LOG", "trace"),
    ];
    let arguments = ["--extractor", "openai", "--json"];
    let (code, stdout, stderr) = extract(&arguments, &variables, &mail().to_string()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["debt_amount"], "1234.56");
    let [asked] = server.asked().try_into().unwrap();
    assert_eq!(
        (asked.path.as_str(), asked.headers["authorization"].to_str().unwrap()),
        ("POST /v1/chat/completions", &*format!("Bearer {KEY}"))
    );
    for secret in [KEY, "Adler", "1.234", "1234.56", "2024/118", "konto@"] {
        assert!(!stderr.contains(secret), "not even a trace shows {secret}: {stderr}");
    }
    server.will(failure(401, "invalid_api_key"));
    let (code, stdout, stderr) = extract(&arguments, &variables[..3], &mail().to_string()).await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("sink_misconfigured: openai: status 401, invalid_api_key"), "{stderr}");
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn extract_says_what_is_wrong_with_its_input() {
    for (input, problem) in [
        ("", "the input is empty"),
        ("{\"from_email\": ", "the input is no JSON"),
        ("[1]", "the input is no mail"),
        ("{\"subject\": \"x\"}", "from_email"),
        ("{\"from_email\": \"a@b.example\", \"body_text\": 5}", "body_text"),
    ] {
        let (code, stdout, stderr) = extract(&[], &[], input).await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{input}");
        assert!(stderr.contains(problem), "{input}: {stderr}");
    }
    let (code, _, stderr) = extract(&["--file", "/nowhere/mail.json"], &[], "").await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot open /nowhere/mail.json"), "{stderr}");
}

#[tokio::test]
async fn all_problems_of_the_extractors_settings_are_told_at_once() {
    let wrong = [
        ("EXTRACTOR", "anthropic"),
        ("EXTRACTOR_URL", "https://user:hunter2@models.example"),
        ("EXTRACTOR_MODEL", " "),
        ("EXTRACTOR_TIMEOUT_SECONDS", "301"),
        ("EXTRACTOR_CONCURRENCY", "0"),
        ("EXTRACTOR_REQUESTS_PER_MINUTE", "-1"),
        ("EXTRACTOR_DAILY_TOKENS", "much"),
    ];
    let (code, _, stderr) = extract(&[], &wrong, &mail().to_string()).await;
    assert_eq!(code, Some(64), "{stderr}");
    assert!(!stderr.contains("hunter2"));
    for (name, _) in wrong.iter().skip(1).chain(&[("EXTRACTOR_API_KEY", "")]) {
        assert!(stderr.lines().any(|line| line.contains(name)), "{name}: {stderr}");
    }
    for (key, url, code) in
        [("", "", 64), ("", "http://127.0.0.1:9", 1), ("two words", "http://127.0.0.1:9", 64)]
    {
        let variables = [
            ("EXTRACTOR", "openai"),
            ("EXTRACTOR_MODEL", "m"),
            ("EXTRACTOR_API_KEY", key),
            ("EXTRACTOR_URL", url),
        ];
        let found = extract(&[], &variables, &mail().to_string()).await;
        assert_eq!(
            found.0,
            Some(code),
            "a server of one's own may need no key, a hosted one does: {}",
            found.2
        );
    }
}

#[tokio::test]
async fn a_models_key_goes_over_the_network_only_encrypted() {
    for (key, url, code) in [
        ("sk-1", "http://models.example", 64),
        ("sk-1", "http://127.0.0.1.example", 64),
        ("", "http://models.example", 0),
        ("sk-1", "https://models.example", 0),
        ("sk-1", "http://[::1]:9", 0),
        ("sk-1", "http://localhost:9", 0),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_relay"))
            .arg("check-config")
            .env_clear()
            .envs([
                ("DATABASE_URL", "postgres://x@127.0.0.1/x"),
                ("MONGODB_URL", "mongodb://127.0.0.1/"),
                ("MONGODB_DATABASE", "x"),
                ("EXTRACTOR", "openai"),
                ("EXTRACTOR_MODEL", "m"),
                ("EXTRACTOR_API_KEY", key),
                ("EXTRACTOR_URL", url),
            ])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{key} {url}: {said}");
        assert_eq!(said.contains("EXTRACTOR_URL must be https"), code == 64, "{said}");
    }
}
