//! TLS to Postgres, and passwords that no text holds.

use crate::harness::*;
use std::process::Stdio;
use testkit::{Authority, PostgresServer, url_as};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const CANARY: &str = "kanarienvogel";

#[tokio::test]
async fn mails_are_committed_over_verified_tls_and_readiness_says_why_not() {
    let authority = Authority::new();
    let server = PostgresServer::with_tls(&authority).await; // refuses what is not encrypted
    let service = Service::start(config(&server.url)).await;
    // A first connection with TLS and a password may take longer than a sender waits for one.
    eventually("a mail to be taken", || async { service.zendesk(&mail("w1")).await.status == 200 }).await;
    eventually("ready", || async { get(service.admin_address, "/readyz").await.status == 200 }).await;

    let stranger = Authority::new();
    let own = authority.file.display().to_string();
    for (url, reason) in [
        (server.url.replace(&own, &stranger.file.display().to_string()), "UnknownIssuer; name its authority"),
        (server.url.replace("@localhost:", "@127.0.0.1:"), "certificate not valid for name"),
        (server.url.split('?').next().unwrap().to_owned(), "no encryption"),
    ] {
        let service = Service::start(config(&url)).await;
        service.zendesk(&mail("w2")).await.is_problem(503, "unavailable");
        eventually(reason, || async {
            let answer = get(service.admin_address, "/readyz").await;
            answer.status == 503 && String::from_utf8_lossy(&answer.body).contains(reason)
        })
        .await;
    }
}

#[tokio::test]
async fn no_failure_at_any_level_of_the_log_prints_a_password() {
    let authority = Authority::new();
    let server = PostgresServer::with_tls(&authority).await;
    let refused = url_as("ingest", &server.url).replace(":testkit@", &format!(":{CANARY}@"));
    let service = |word: &str, url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingest"));
        command
            .arg(word)
            .env_clear()
            .env("DATABASE_URL", url)
            .env("RUST_LOG", "trace")
            .env("API_TOKENS", TOKEN);
        command.env("INGEST_LISTEN", "127.0.0.1:0").env("INGEST_ADMIN_LISTEN", "127.0.0.1:0");
        command.stderr(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    };
    for (url, reason) in [
        (refused, "password authentication failed"),
        (format!("postgres://ingest:{CANARY}@127.0.0.1:9/none"), "Connection refused"),
    ] {
        let mut running = service("serve", &url).spawn().unwrap();
        let mut lines = BufReader::new(running.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().unwrap(); // until it says why Postgres is away
            assert!(!line.contains(CANARY), "{line}");
            if line.contains(reason) {
                break;
            }
        }
        let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", running.id().unwrap())).unwrap();
        assert!(arguments.ends_with("ingest\0serve\0"), "{arguments:?}");
        running.kill().await.unwrap();
    }
    for url in [
        format!("postgres://ingest:{CANARY}@host:port/none"),
        format!("postgres://ingest:{CANARY}@host/none?sslrootcert=/nowhere"),
        format!("host=h password={CANARY} sslmode=maybe"),
        CANARY.to_owned(),
    ] {
        for word in ["check-config", "serve"] {
            let output = service(word, &url).output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(64) && said.contains("DATABASE_URL"), "{said}");
            assert!(!said.contains(CANARY), "{said}");
        }
    }
}
