//! A service in this process over a database of its own, and a client that hides nothing.

use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use ingest::{
    config::{Config, Settings},
    source::{MIN_SECRET_BYTES, standard, zendesk},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use testkit::{Database, url_as};
use tokio::{net::TcpStream, task::JoinHandle, time::sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

pub(crate) const ZENDESK_SECRET: &str = "a zendesk secret of many bytes";
pub(crate) const STANDARD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const TOKEN: &str = "test-token";
pub(crate) const ZENDESK: &str = "/v1/webhooks/zendesk";
pub(crate) const STANDARD: &str = "/v1/webhooks/standard";
pub(crate) const DEBT_UPDATES: &str = "/v1/debt-updates";

/// Longer than anything a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn zendesk_verifier() -> zendesk::Verifier {
    zendesk::Verifier::new(&ZENDESK_SECRET.parse().unwrap(), false, MIN_SECRET_BYTES).unwrap()
}

pub(crate) fn standard_verifier() -> standard::Verifier {
    standard::Verifier::new(&STANDARD_SECRET.parse().unwrap(), MIN_SECRET_BYTES).unwrap()
}

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    settings: Settings,
}

/// The defaults, on free ports, with everything switched on, and no more rights in the database than the service has.
pub(crate) fn config(database_url: &str) -> Config {
    let database_url = &url_as("ingest", database_url);
    let given = [
        ("--database-url", database_url.as_str()),
        ("--listen", "127.0.0.1:0"),
        ("--admin-listen", "127.0.0.1:0"),
        ("--zendesk-webhook-secret", ZENDESK_SECRET),
        ("--standard-webhook-secret", STANDARD_SECRET),
        ("--api-tokens", TOKEN),
    ];
    let words = given.iter().flat_map(|(flag, value)| [*flag, *value]);
    CommandLine::parse_from(["test"].into_iter().chain(words)).settings.read().unwrap()
}

/// A running service.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) done: JoinHandle<()>,
    _end: tokio_util::sync::DropGuard,
}

impl Service {
    pub(crate) async fn start(config: Config) -> Service {
        let shutdown = CancellationToken::new();
        let serving = ingest::start(config, shutdown.clone()).await.unwrap();
        Service {
            address: serving.address,
            admin_address: serving.admin_address,
            done: serving.done,
            _end: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    /// A service with the defaults over a new database.
    pub(crate) async fn over(database: &Database) -> Service {
        Service::start(config(&database.url)).await
    }

    /// Sends a body, signed as Zendesk signs.
    pub(crate) async fn zendesk(&self, body: &str) -> Answer {
        self.post(ZENDESK, zendesk_verifier().sign(Timestamp::now(), body.as_bytes()), body).await
    }

    /// Sends a body, signed as Zendesk signs, with an `Idempotency-Key`.
    pub(crate) async fn zendesk_with_key(&self, key: &str, body: &str) -> Answer {
        let mut headers = zendesk_verifier().sign(Timestamp::now(), body.as_bytes());
        headers.push(("Idempotency-Key", key.into()));
        self.post(ZENDESK, headers, body).await
    }

    /// Sends a debt update with its token and key.
    pub(crate) async fn debt_update(&self, key: &str, body: &str) -> Answer {
        let headers = vec![("Authorization", format!("Bearer {TOKEN}")), ("Idempotency-Key", key.into())];
        self.post(DEBT_UPDATES, headers, body).await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        headers: Vec<(&str, String)>,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let mut request = Request::post(path).header("Content-Type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        send(self.address, request.body(Full::new(body.into().into())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        get(self.address, path).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The id of a 200 with this status.
    pub(crate) fn email_id(&self, status: &str) -> i64 {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], status, "{self:?}");
        assert_eq!(self.headers.contains_key("idempotent-replayed"), status == "duplicate");
        json["email_id"].as_i64().unwrap()
    }

    /// Checks that this is a problem document of the type, with the headers that belong to it.
    pub(crate) fn is_problem(&self, status: u16, name: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let json = self.json();
        assert_eq!(json["type"], format!("/problems/{name}"), "{self:?}");
        assert_eq!(json["status"], status);
        assert!(json["title"].is_string() && json["detail"].is_string());
        assert_eq!(json["request_id"], self.headers["x-request-id"].to_str().unwrap());
        assert_eq!(self.headers.contains_key("retry-after"), matches!(status, 409 | 503), "{self:?}");
        json
    }

    /// The pointers of a 400.
    pub(crate) fn pointers(&self) -> Vec<String> {
        let json = self.is_problem(400, "invalid-payload");
        let errors = json["errors"].as_array().unwrap();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect()
    }
}

/// One request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, mut request: Request<Full<Bytes>>) -> Answer {
    request.headers_mut().insert("host", "ingest.test".parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = Request::get(path).header("Authorization", format!("Bearer {TOKEN}"));
    send(address, request.body(Full::default()).unwrap()).await
}

/// A mail as Zendesk posts it; every call with another id is another mail.
pub(crate) fn mail(webhook_id: &str) -> String {
    json!({
        "ticket_id": "48066", "webhook_id": webhook_id, "from_email": "forderungen@quarkstein-bank.example",
        "from_name": "Quarkstein Bank AG", "subject": "Ihre Anfrage – 542902", "body_text": "Die Forderung beträgt 4.812,37 EUR.",
        "body_html": null, "received_at": "2026-02-17T09:14:22+01:00", "unknown": {"kept": true},
    })
    .to_string()
}

/// A debt update that is in order.
pub(crate) fn debt_update(amount: &str) -> String {
    json!({
        "client_name": "Mößbauer, Jürgen", "client_aktenzeichen": "2024/118", "creditor_email": "inkasso@bank.example",
        "creditor_name": "Bank AG", "new_debt_amount": amount, "response_text": "Restforderung", "reference_numbers": ["A-1", "B 2"],
        "extraction_confidence": 0.9, "received_at": "2026-02-17 09:14:22", "ticket_id": "7",
    })
    .to_string()
}

/// Asks again until the answer is yes.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < PATIENCE, "never came: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A connection as the service has them.
pub(crate) async fn pooled(database: &Database) -> shared::postgres::Connection {
    shared::postgres::pool(&url_as("ingest", &database.url), "ingest", 1, PATIENCE)
        .unwrap()
        .get()
        .await
        .unwrap()
}

/// A number from the database.
pub(crate) async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// Emails, keys and messages in the database.
pub(crate) async fn rows(client: &Client) -> [i64; 3] {
    [
        count(client, "select count(*) from incoming_emails").await,
        count(client, "select count(*) from idempotency_keys").await,
        count(client, "select count(*) from outbox_messages").await,
    ]
}

/// Every email has its key, and exactly one first message.
pub(crate) async fn assert_whole(client: &Client) {
    let broken = count(
        client,
        "select count(*) from incoming_emails e where 1 <> (select count(*) from outbox_messages m
            where m.aggregate_id = e.id::text and (m.payload ->> 'email_id')::bigint = e.id
            and m.idempotency_key = m.operation || ':' || e.id || ':0')",
    )
    .await;
    assert_eq!(broken, 0, "an email without exactly one first message");
    assert_eq!(count(client, "select count(*) from outbox_messages m where not exists (select from incoming_emails e where e.id::text = m.aggregate_id)").await, 0);
    assert_eq!(count(client, "select count(*) from idempotency_keys k where not exists (select from incoming_emails e where e.id = (k.result ->> 'email_id')::bigint)").await, 0);
}

/// A transaction that holds a key of source zendesk, uncommitted: whoever wants it waits.
pub(crate) struct Rival {
    client: Client,
}

impl Rival {
    pub(crate) async fn holds(database: &Database, key: &str) -> Rival {
        let client = database.client().await;
        client.batch_execute("begin").await.unwrap();
        client
            .execute(
                "insert into idempotency_keys (key, fingerprint, result, expires_at)
                    values ($1, sha256('rival'), '{\"email_id\": 1}', now() + interval '1 day')",
                &[&format!("zendesk:{key}")],
            )
            .await
            .unwrap();
        Rival { client }
    }

    /// Waits until so many statements of ingest wait for a lock.
    pub(crate) async fn is_waited_for_by(&self, statements: i64) {
        eventually("a statement that waits for the rival", || async {
            let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                and application_name = 'ingest' and wait_event_type = 'Lock'";
            // The activity view is read once per transaction unless told otherwise.
            self.client.batch_execute("select pg_stat_clear_snapshot()").await.unwrap();
            count(&self.client, waiting).await == statements
        })
        .await;
    }

    pub(crate) async fn rolls_back(self) {
        self.client.batch_execute("rollback").await.unwrap();
    }
}
