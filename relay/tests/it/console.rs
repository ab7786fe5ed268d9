//! The console as a browser and as a stranger meet it.

use crate::{
    feed::Relay,
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use reqwest::{Client, Response, StatusCode};
use std::time::Duration;
use tokio::process::Command;

/// A world with a written update, a mail that a person has to decide, and a dead letter, and a relay that is alive.
async fn world() -> World {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("a")]).await;
    world.commit(Update::default()).await;
    world.commit(Update { amount: None, ..Update::default() }).await;
    world.message("creditor_debt_update", 99, serde_json::json!({ "email_id": "<b>bold</b>" })).await;
    world.once().await;
    world
}

/// The address of a running relay's console.
pub(crate) async fn served(relay: &Relay) -> String {
    format!("http://{}", relay.admin().await)
}

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

pub(crate) async fn get(url: &str) -> Response {
    client().get(url).send().await.unwrap()
}

/// What the page's document is in a browser, and what the browser said about it.
async fn in_browser(url: &str) -> (String, String) {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser_{}", std::process::id()));
    let output = Command::new(std::env::var("CHROMIUM").unwrap())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", folder.display()))
        .args(["--virtual-time-budget=12000", "--dump-dom", url])
        .output()
        .await
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_browser_shows_every_page_with_and_without_script() {
    let world = world().await;
    let relay = Relay::start(&world, &[]);
    let base = served(&relay).await;
    until(|| async { get(&format!("{base}/")).await.text().await.unwrap().contains("alive") }).await;
    for (path, words) in [
        ("/", vec!["creditor_debt_update", "alive", "relay status --watch", "dead letter"]),
        ("/dead-letters", vec!["relay dead-letters requeue --group", "the payload cannot be read"]),
        ("/review", vec!["the mail states no amount", "relay review accept 2 --amount AMOUNT"]),
        ("/emails/1", vec!["the creditor's mail was received", "applied by relay", "relay correct 1"]),
        ("/emails?id=1", vec!["applied by relay"]),
        ("/emails", vec!["Give its id above"]),
    ] {
        let url = format!("{base}{path}");
        let sent = get(&url).await.text().await.unwrap();
        // The budget is that of the script's first renewal, which has to find the same page.
        let (document, said) = in_browser(&url).await;
        for word in &words {
            assert!(sent.contains(word), "{path} without script: {word}: {sent}");
            assert!(document.contains(word), "{path}: {word}: {document} {said}");
        }
        assert!(!said.contains("Content Security Policy") && !said.contains("Uncaught"), "{path}: {said}");
    }
    let (document, _) = in_browser(&format!("{base}/dead-letters/3")).await;
    assert!(document.contains("creditor_debt_update") && !document.contains("<b>bold"), "{document}");
}

#[tokio::test]
async fn it_only_reads_and_answers_nobody_but_this_machine() {
    let world = world().await;
    let relay = Relay::start(&world, &[]);
    let base = served(&relay).await;
    let answer = get(&format!("{base}/")).await;
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.starts_with("default-src 'none';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    let client = client();
    assert_eq!(
        client.post(format!("{base}/")).send().await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
    // A name of somebody else's that leads here, as a page of his would use it.
    let foreign = client.get(format!("{base}/review")).header("host", "evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    for (path, status) in [
        ("/emails/999", 404),
        ("/dead-letters/999", 404),
        ("/emails/x", 404),
        ("/nothing", 404),
        ("/livez", 200),
        ("/metrics", 200),
    ] {
        assert_eq!(get(&format!("{base}{path}")).await.status().as_u16(), status, "{path}");
    }
}

#[tokio::test]
async fn with_tokens_nobody_is_let_in_without_one_and_beyond_this_machine_there_is_none_without_tokens() {
    let world = world().await;
    let relay = Relay::start(&world, &[("RELAY_CONSOLE_TOKENS", "first-token,second-token")]);
    let base = served(&relay).await;
    let status = async |header: Option<&str>| {
        let mut request = client().get(format!("{base}/review"));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(status(None).await, 401);
    assert_eq!(status(Some("Bearer third-token")).await, 401);
    assert_eq!(status(Some("Bearer second-token")).await, 200);
    let open = Relay::start(&world, &[("RELAY_ADMIN_LISTEN", "0.0.0.0:0")]);
    let base = served(&open).await.replace("0.0.0.0", "127.0.0.1");
    assert_eq!(get(&format!("{base}/review")).await.status().as_u16(), 404);
    assert_eq!(get(&format!("{base}/livez")).await.status().as_u16(), 200);
}

#[tokio::test]
async fn postgres_away_is_said_on_the_page() {
    let world = world().await;
    let wire = testkit::Wire::before(&world.database.url).await;
    let url = wire.instead(&world.relay_url());
    let relay = Relay::start(&world, &[("DATABASE_URL", &url)]);
    let base = served(&relay).await;
    wire.cut();
    let answer = client().get(format!("{base}/")).timeout(Duration::from_secs(20)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.text().await.unwrap().contains("No answer from Postgres"));
}
