//! From the signed webhook to the entry in MongoDB: ingest and relay together, on the sample mails.

use crate::world::{World, turmhaus};
use clap::Parser;
use ingest::{
    config::Settings,
    source::{standard, zendesk},
};
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use relay::{lane::Trouble, review};
use serde_json::{Value, json};
use shared::money::Amount;
use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const TOKEN: &str = "Authorization: Bearer end-to-end\r\n";
const ZENDESK: &str = "/v1/webhooks/zendesk";

fn lines(headers: &[(&str, String)]) -> String {
    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}
const SECRET: &str = "a secret of this test with many bytes";
const STANDARD_SECRET: &str = "whsec_YSBzZWNyZXQgb2YgdGhpcyB0ZXN0IHdpdGggbWFueSBieXRlcw==";

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    settings: Settings,
}

pub(crate) struct Ingest {
    address: SocketAddr,
    zendesk: zendesk::Verifier,
    standard: standard::Verifier,
    _end: DropGuard,
}

impl Ingest {
    pub(crate) async fn over(world: &World) -> Ingest {
        let database_url = testkit::url_as("ingest", &world.database.url);
        let given = [
            ("--database-url", database_url.as_str()),
            ("--listen", "127.0.0.1:0"),
            ("--admin-listen", "127.0.0.1:0"),
            ("--zendesk-webhook-secret", SECRET),
            ("--standard-webhook-secret", STANDARD_SECRET),
            ("--api-tokens", "end-to-end"),
        ];
        let words = given.iter().flat_map(|(flag, value)| [*flag, *value]);
        let config = CommandLine::parse_from(["test"].into_iter().chain(words)).settings.read().unwrap();
        let shutdown = CancellationToken::new();
        let serving = ingest::start(config, shutdown.clone()).await.unwrap();
        let zendesk = zendesk::Verifier::new(&SECRET.parse().unwrap(), false, 1).unwrap();
        let standard = standard::Verifier::new(&STANDARD_SECRET.parse().unwrap(), 1).unwrap();
        Ingest { address: serving.address, zendesk, standard, _end: shutdown.drop_guard() }
    }

    pub(crate) async fn webhook(&self, body: &str) -> Value {
        let signed = self.zendesk.sign(Timestamp::now(), body.as_bytes());
        self.signed(ZENDESK, &signed, body).await
    }

    /// Again while the answer is a 503, as senders do: after a restore the first ones may meet connections whose end has not been
    /// noticed yet.
    pub(crate) async fn webhook_until_stored(&self, body: &str) -> Value {
        let signed = self.zendesk.sign(Timestamp::now(), body.as_bytes());
        let headers = lines(&signed);
        let mut attempts = 0;
        loop {
            let (head, answer) = self.exchange("POST", ZENDESK, &headers, body).await;
            if !head.starts_with("HTTP/1.1 503 ") {
                assert!(head.starts_with("HTTP/1.1 200 "), "{head} {answer}");
                return answer;
            }
            attempts += 1;
            assert!(attempts < 100, "a 503 for ten seconds: {answer}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// An event as Resend sends them.
    pub(crate) async fn event(&self, body: &str) -> Value {
        let signed = self.standard.sign(None, Timestamp::now(), body.as_bytes());
        self.signed("/v1/webhooks/standard", &signed, body).await
    }

    async fn signed(&self, path: &str, signed: &[(&str, String)], body: &str) -> Value {
        self.request("POST", path, &lines(signed), body).await
    }

    pub(crate) async fn email(&self, email_id: &Value) -> Value {
        self.request("GET", &format!("/v1/emails/{email_id}"), TOKEN, "").await
    }

    /// A debt update under this key: the answer's head and body, whatever they are.
    pub(crate) async fn debt_update(&self, key: &str, body: &str) -> (String, Value) {
        let headers = format!("{TOKEN}Idempotency-Key: \"{key}\"\r\n");
        self.exchange("POST", "/v1/debt-updates", &headers, body).await
    }

    /// The answer's JSON; anything but 200 is a failure of the test.
    async fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Value {
        let (head, body) = self.exchange(method, path, headers, body).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head} {body}");
        body
    }

    async fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> (String, Value) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), serde_json::from_str(body).unwrap())
    }
}

#[tokio::test]
async fn postgres_commits_first_and_alone_and_mongodb_follows_when_it_is_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let ingest = Ingest::over(&world).await;
    let (context, wire) = world.context_over_wire().await;
    wire.cut();
    let update = json!({
        "client_name": "Adler, Eva", "creditor_email": "konto@turmhaus.example", "creditor_name": "Turmhaus Kontor GmbH",
        "new_debt_amount": 1234.56, "received_at": "2026-02-17T10:14:22+01:00",
    });
    let headers = format!("{TOKEN}Idempotency-Key: \"one\"\r\n");
    let answer = ingest.request("POST", "/v1/debt-updates", &headers, &update.to_string()).await;
    assert_eq!(answer["status"], "accepted");

    assert!(matches!(world.try_once(&context).await.1, Err(Trouble::Sink(_))));
    let status = ingest.email(&answer["email_id"]).await;
    assert_eq!(
        (&status["sync_status"], &status["attempts"], &status["outcome"]),
        (&json!("pending"), &json!(0), &Value::Null)
    );
    assert!(status["sync_error"].as_str().unwrap().starts_with("MongoDB unreachable since "), "{status}");

    wire.mend();
    assert_eq!(world.try_once(&context).await.1, Ok(()));
    let status = ingest.email(&answer["email_id"]).await;
    assert_eq!(
        (&status["sync_status"], &status["attempts"], &status["outcome"]),
        (&json!("synced"), &json!(0), &json!("applied"))
    );
    assert_eq!(status["sync_error"], Value::Null);
    assert_eq!(world.amount("b").await, Some(1234.56));
    // What ingest and SQL made is what the relay's own types make.
    let row = world.row("select payload ->> 'stamp', idempotency_key from outbox_messages").await;
    let received_at: Timestamp = "2026-02-17T09:14:22Z".parse().unwrap();
    let email_id = answer["email_id"].as_i64().unwrap();
    let stamp = shared::message::Stamp::new(received_at, email_id, shared::message::Revision::FIRST).unwrap();
    assert_eq!(row.get::<_, &str>(0), stamp.to_string());
    assert_eq!(row.get::<_, &str>(1), format!("creditor_debt_update:{email_id}:0"));
}

#[tokio::test]
async fn a_mail_that_is_no_answer_stops_there_and_a_delivery_twice_is_once() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let ingest = Ingest::over(&world).await;
    let absence = json!({
        "ticket_id": "1", "webhook_id": "w1", "from_email": "konto@turmhaus.example", "subject": "Automatische Antwort: Abwesenheit",
        "body_text": "Ich bin bis 12.03. nicht im Hause. Ihre Nachricht wird nicht weitergeleitet.",
    });
    let first = ingest.webhook(&absence.to_string()).await;
    let second = ingest.webhook(&absence.to_string()).await;
    assert_eq!((&first["status"], &second["status"]), (&json!("accepted"), &json!("duplicate")));
    assert_eq!(first["email_id"], second["email_id"]);
    world.once().await;
    let status = ingest.email(&first["email_id"]).await;
    assert_eq!(status["processing_status"], "not_creditor_reply");
    assert_eq!((&status["match_status"], &status["sync_status"]), (&Value::Null, &json!("not_applicable")));
    assert_eq!(world.row("select count(*) from outbox_messages").await.get::<_, i64>(0), 1);
    assert_eq!(world.row("select count(*) from incoming_emails").await.get::<_, i64>(0), 1);
}

fn samples() -> impl Fn(&str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples");
    move |name| serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap()
}

fn mails() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples/mails");
    let read = |path: &Path| serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

#[tokio::test]
async fn every_sample_mail_that_states_an_amount_is_in_the_right_entry_and_no_other_amount_is() {
    let world = World::new().await;
    let sample = samples();
    let clients: Vec<Document> = serde_json::from_value(sample("clients.json")).unwrap();
    world.mongo.clients.insert_many(&clients).await.unwrap();
    let ingest = Ingest::over(&world).await;
    let (mails, matches) = (mails(), sample("matches.json"));
    for mail in mails.values() {
        assert_eq!(ingest.webhook(&mail["webhook"].to_string()).await["status"], "accepted");
    }
    world.once().await;
    // Amounts that are lower than the stored one wait for a person, who accepts them.
    let mut connection = world.operator().await;
    let held = review::held(&connection, 100).await.unwrap();
    for mail in held.iter().filter(|mail| mail.reason.contains("lower")) {
        review::accept(&mut connection, mail.email_id, review::Choice::default(), "clerk").await.unwrap();
    }
    world.once().await;

    let mut expected: BTreeMap<(String, String), f64> = BTreeMap::new();
    for (name, mail) in &mails {
        if let Some(amount) = mail["expected"]["debt_amount"].as_str() {
            let place = &matches[name];
            let text = |field: &str| place[field].as_str().unwrap_or_else(|| panic!("{name}")).to_owned();
            expected
                .insert((text("aktenzeichen"), text("entry")), amount.parse::<Amount>().unwrap().to_f64());
        }
    }
    assert!(expected.len() >= 20);
    for before in &clients {
        let number = before.get_str("aktenzeichen").unwrap_or_default();
        let after = world.mongo.clients.find_one(
            doc! { "aktenzeichen": before.get("aktenzeichen"), "lastName": before.get("lastName") },
        );
        let after = after.await.unwrap().unwrap();
        let list = |client: &Document| client.get_array("final_creditor_list").cloned().unwrap_or_default();
        for (old, new) in list(before).iter().zip(list(&after)) {
            let (old, new) = (old.as_document().unwrap(), new.as_document().unwrap());
            let key = (number.to_owned(), old.get_str("id").unwrap().to_owned());
            match expected.remove(&key) {
                Some(amount) => {
                    assert_eq!(new.get_f64("current_debt_amount").ok(), Some(amount), "{key:?}");
                    assert!(new.contains_key("_relay"), "{key:?}");
                    assert_eq!(new.get("claim_amount"), old.get("claim_amount"));
                }
                None => assert_eq!(new, old, "{key:?}"),
            }
        }
    }
    assert!(expected.is_empty(), "not found: {:?}", expected.keys());
}
