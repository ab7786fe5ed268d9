//! Mails that have to be fetched first: the provider's API, spoken by a server of the tests' own, well and badly.

use crate::{
    end_to_end::Ingest,
    feed::Relay,
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use hyper::{
    Request,
    header::{HeaderName, LOCATION, RETRY_AFTER},
};
use mongodb::bson::{Document, doc};
use relay::{
    config::ResendConfig,
    context::Context,
    lane::Trouble,
    outcome::{Failure, FailureClass},
};
use serde_json::{Value, json};
use shared::{
    http::{Limits, Reply, RequestBody, reply, serve},
    message::EmailId,
};
use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};
use testkit::Wire;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) const KEY: &str = "re_of_these_tests";
pub(crate) const CREDITOR: &str = "forderungen@quarkstein-bank.example";
pub(crate) const STATEMENT: &str = "Sehr geehrte Frau Rechtsanwältin Dr. Brombeer,

die Forderung unseres Hauses aus dem am 04.06.2025 gekündigten Ratenkredit beträgt per heute 4.812,37 EUR. \
Sicherheiten bestehen nicht, die Forderung ist nicht tituliert.

Mit freundlichen Grüßen

Quarkstein Bank AG
";

/// What the provider does when it is asked for a mail.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Status and body.
    Answer(u16, Vec<u8>),
    /// Status and one header.
    Header(u16, HeaderName, &'static str),
    /// Keeps the connection and says nothing.
    Silence,
}

/// The provider, by path below `/emails/receiving/`; every other mail is unknown there.
#[derive(Clone)]
pub(crate) struct Provider {
    acts: Arc<Mutex<HashMap<String, Act>>>,
    asked: Arc<Mutex<Vec<String>>>,
    pub(crate) url: String,
    _end: Arc<DropGuard>,
}

impl Provider {
    pub(crate) async fn new() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let end = Arc::new(shutdown.clone().drop_guard());
        let provider = Provider { acts: Arc::default(), asked: Arc::default(), url, _end: end };
        let (acts, asked) = (provider.acts.clone(), provider.asked.clone());
        let time = Duration::from_secs(60);
        let limits = Limits {
            connections: 100,
            header_timeout: time,
            drain_timeout: Duration::ZERO,
            open: None,
            closed: ("provider_closed_connections_total", "provider"),
        };
        tokio::spawn(serve(listener, limits, shutdown, move |request| {
            act(acts.clone(), asked.clone(), request)
        }));
        provider
    }

    pub(crate) fn does(&self, path: &str, act: Act) {
        self.acts.lock().unwrap().insert(path.to_owned(), act);
    }

    /// Has the mail.
    pub(crate) fn has(&self, path: &str, mail: Value) {
        self.does(path, Act::Answer(200, mail.to_string().into_bytes()));
    }

    /// The paths of the requests so far.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The relay's part for it.
    pub(crate) fn config(&self) -> ResendConfig {
        ResendConfig {
            authorization: format!("Bearer {KEY}").parse().unwrap(),
            url: self.url.parse().unwrap(),
            timeout: Duration::from_secs(5),
        }
    }
}

async fn act(
    acts: Arc<Mutex<HashMap<String, Act>>>,
    asked: Arc<Mutex<Vec<String>>>,
    request: Request<RequestBody>,
) -> Reply {
    let path = request.uri().path().to_owned();
    asked.lock().unwrap().push(path.clone());
    let is_right = request.method() == "GET"
        && request.headers().get("authorization").is_some_and(|given| given == &format!("Bearer {KEY}"))
        && request.uri().query() == Some("html_format=cid");
    if !is_right {
        return reply(401, "application/json", r#"{"name":"missing_api_key"}"#);
    }
    let known = path.strip_prefix("/emails/receiving/").and_then(|id| acts.lock().unwrap().get(id).cloned());
    match known {
        None => reply(
            404,
            "application/json",
            r#"{"statusCode":404,"name":"not_found","message":"Email not found"}"#,
        ),
        Some(Act::Answer(status, body)) => reply(status, "application/json", body),
        Some(Act::Header(status, name, value)) => {
            let mut reply = reply(status, "application/json", r#"{"name":"from_the_tests"}"#);
            reply.headers_mut().insert(name, value.parse().unwrap());
            reply
        }
        Some(Act::Silence) => pending().await,
    }
}

/// A mail as the provider describes it.
pub(crate) fn stored_there(text: &str, headers: Value) -> Value {
    json!({
        "object": "email", "id": "e1", "from": format!("Quarkstein Bank AG <{CREDITOR}>"), "to": ["post@kanzlei.example"], "subject": "x",
        "created_at": "2026-02-17T08:14:22.000000+00:00", "html": null, "text": text, "headers": headers, "message_id": "<1@x.example>",
        "attachments": [{"id": "a1", "filename": "aufstellung.pdf", "content_type": "application/pdf", "size": 4711}],
    })
}

pub(crate) fn event(provider_id: &str, subject: &str) -> String {
    json!({
        "type": "email.received", "created_at": "2026-02-17T08:14:23.000Z",
        "data": {
            "email_id": provider_id, "created_at": "2026-02-17T08:14:22.126+00:00", "from": format!("Quarkstein Bank AG <{CREDITOR}>"),
            "to": ["post@kanzlei.example"], "bcc": [], "cc": [], "message_id": "<1@x.example>", "subject": subject,
            "attachments": [{"id": "a1", "filename": "aufstellung.pdf", "content_type": "application/pdf",
                "content_disposition": "attachment", "content_id": null}],
        },
    })
    .to_string()
}

pub(crate) fn bank() -> Document {
    doc! { "id": "b", "sender_name": "Quarkstein Bank AG", "sender_email": CREDITOR, "claim_amount": 4000 }
}

/// A mail that has to be fetched, as ingest commits it.
pub(crate) async fn to_fetch(world: &World, provider_id: &str) -> EmailId {
    let statement = "insert into incoming_emails (source, webhook_id, from_email, from_name, subject, raw, received_at, fingerprint)
        values ('standard', gen_random_uuid()::text, $1, 'Quarkstein Bank AG', 'Eva Adler, Ihr Zeichen 2024/118', '',
            '2026-02-17T09:14:22+01:00', sha256('')) returning id";
    let email: EmailId = world.sql.query_one(statement, &[&CREDITOR]).await.unwrap().get(0);
    world.message("email_fetch", email, json!({ "email_id": email, "provider_id": provider_id })).await;
    email
}

async fn context(world: &World, resend: ResendConfig) -> Context {
    let mut config = world.config(&world.mongo.url);
    config.resend = Some(resend);
    relay::relay::context(&config).await.unwrap()
}

async fn settle(world: &World, context: &Context) {
    assert_eq!(world.try_once(context).await.1, Ok(()));
}

/// The class and text of the failure that stops a run.
async fn trouble(world: &World, context: &Context) -> (FailureClass, String) {
    let end = world.try_once(context).await.1;
    let Err(Trouble::Sink(Failure { class, text })) = end else {
        unreachable!("no trouble with the provider: {end:?}")
    };
    (class, text)
}

/// As if every retry's time had come.
async fn time_has_come(world: &World) {
    world.run("update outbox_messages set available_at = now() where processed_at is null").await;
}

/// Whether the fetch of the mail is done and its extraction is there.
async fn is_fetched(world: &World, email: EmailId) -> bool {
    let statement = "select count(*) filter (where operation = 'email_fetch' and outcome = 'fetched') = 1
        and count(*) filter (where operation = 'email_extraction') = 1 from outbox_messages where aggregate_id = $1::bigint::text";
    world.sql.query_one(statement, &[&email]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_mail_whose_event_carries_only_an_id_ends_in_mongodb() {
    let world = World::new().await;
    world.client(vec![seeblick("a"), bank()]).await;
    let (ingest, provider) = (Ingest::over(&world).await, Provider::new().await);
    provider.has("e1", stored_there(STATEMENT, json!({ "Return-Path": format!("<{CREDITOR}>") })));
    let automatic = json!([{ "name": "Auto-Submitted", "value": "auto-replied" }]);
    provider.has("e2", stored_there("Wir sind ab dem 3. März wieder für Sie da.", automatic));
    let states = ingest.event(&event("e1", "=?UTF-8?Q?Eva_Adler,_Ihr_Zeichen_2024/118?=")).await;
    let is_away = ingest.event(&event("e2", "Ihre Anfrage")).await;
    assert_eq!((&states["status"], &is_away["status"]), (&json!("accepted"), &json!("accepted")));
    let status = ingest.email(&states["email_id"]).await;
    assert_eq!((&status["processing_status"], &status["attempts"]), (&json!("received"), &json!(0)));

    settle(&world, &context(&world, provider.config()).await).await;

    let mut asked = provider.asked();
    asked.sort();
    assert_eq!(asked, ["/emails/receiving/e1", "/emails/receiving/e2"], "each once");
    let email = states["email_id"].as_i64().unwrap();
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    assert_eq!(world.amount("b").await, Some(4812.37));
    assert_eq!(world.entries().await[0], seeblick("a"));
    let row = world
        .sql
        .query_one("select body_text, headers, attachments from incoming_emails where id = $1", &[&email])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), STATEMENT);
    assert_eq!(row.get::<_, Value>(1), json!({ "return-path": format!("<{CREDITOR}>") }));
    assert_eq!(row.get::<_, Value>(2)[0]["size"], 4711);
    let status = ingest.email(&states["email_id"]).await;
    let steps: Vec<_> = status["steps"].as_array().unwrap().iter().map(|step| &step["operation"]).collect();
    assert_eq!(steps, ["email_fetch", "email_extraction", "creditor_debt_update"]);
    let status = ingest.email(&is_away["email_id"]).await;
    assert_eq!(status["processing_status"], "not_creditor_reply");
}

#[tokio::test]
async fn a_mail_without_any_words_is_handed_on_as_well() {
    let (world, provider) = (World::new().await, Provider::new().await);
    provider.has("e1", json!({ "id": "e1", "text": null, "html": null, "headers": {}, "attachments": [] }));
    let email = to_fetch(&world, "e1").await;
    settle(&world, &context(&world, provider.config()).await).await;
    assert!(is_fetched(&world, email).await);
    let row = world.row("select body_text is null, headers::text from incoming_emails").await;
    assert_eq!((row.get::<_, bool>(0), row.get::<_, &str>(1)), (true, "{}"));
}

#[tokio::test]
async fn a_refused_key_is_told_and_costs_no_mail() {
    let (world, provider) = (World::new().await, Provider::new().await);
    provider.has("e1", stored_there("x", json!({})));
    let email = to_fetch(&world, "e1").await;
    let wrong = ResendConfig { authorization: "Bearer re_old".parse().unwrap(), ..provider.config() };
    let (class, text) = trouble(&world, &context(&world, wrong).await).await;
    assert_eq!(
        (class, text.as_str()),
        (FailureClass::SinkMisconfigured, "Resend answers 401 (missing_api_key)")
    );
    assert_eq!(world.state(email).await, "waiting/sink_misconfigured/0");
    assert_eq!(world.shows(email).await, "received/-/pending");

    // Something that does not speak TLS where it should.
    let url = provider.url.replace("http:", "https:").parse().unwrap();
    let (class, text) =
        trouble(&world, &context(&world, ResendConfig { url, ..provider.config() }).await).await;
    assert_eq!(class, FailureClass::SinkMisconfigured, "{text}");
    assert_eq!(world.state(email).await, "waiting/sink_misconfigured/0");

    settle(&world, &context(&world, provider.config()).await).await;
    assert!(is_fetched(&world, email).await);
}

#[tokio::test]
async fn a_mail_that_is_not_there_yet_is_asked_for_again_later() {
    let (world, provider) = (World::new().await, Provider::new().await);
    let email = to_fetch(&world, "e1").await;
    let context = context(&world, provider.config()).await;
    settle(&world, &context).await;
    // The pause is drawn from 0 on, so that it may have been a short one.
    assert!(world.state(email).await.starts_with("waiting/transient/"));
    assert_eq!(world.shows(email).await, "received/-/failed");
    world.run("update outbox_messages set available_at = now() + interval '1 hour'").await;
    let asked = provider.asked().len();
    provider.has("e1", stored_there("x", json!({})));
    settle(&world, &context).await;
    assert_eq!(provider.asked().len(), asked, "not before its time");
    time_has_come(&world).await;
    settle(&world, &context).await;
    assert!(is_fetched(&world, email).await);
}

#[tokio::test]
async fn a_provider_that_asks_for_patience_is_left_alone_until_then_and_no_attempt_is_counted() {
    let (world, provider) = (World::new().await, Provider::new().await);
    provider.does("e1", Act::Header(429, RETRY_AFTER, "1"));
    provider.has("e2", stored_there("x", json!({})));
    let emails = [to_fetch(&world, "e1").await, to_fetch(&world, "e2").await];
    let context = context(&world, provider.config()).await;
    let (class, text) = trouble(&world, &context).await;
    assert_eq!(class, FailureClass::SinkDown);
    assert_eq!(text, "Resend answers 429 (from_the_tests) and asks for patience for 1 s");
    let resend = context.resend.clone().unwrap();
    assert!(resend.ready().is_err());
    trouble(&world, &context).await;
    assert_eq!(provider.asked(), ["/emails/receiving/e1"], "nothing else is asked for");
    for email in emails {
        assert_eq!(world.state(email).await, "waiting/sink_down/0");
    }
    provider.has("e1", stored_there("x", json!({})));
    until(|| async { resend.ready().is_ok() }).await;
    time_has_come(&world).await;
    settle(&world, &context).await;
    for email in emails {
        assert!(is_fetched(&world, email).await);
    }
}

#[tokio::test]
async fn an_outage_of_the_provider_in_any_form_counts_no_attempt() {
    let (world, provider) = (World::new().await, Provider::new().await);
    let wire = Wire::before(&provider.url).await;
    let over_wire = ResendConfig {
        url: wire.instead(&provider.url).parse().unwrap(),
        timeout: Duration::from_millis(300),
        ..provider.config()
    };
    let context = context(&world, over_wire).await;
    let emails = [to_fetch(&world, "e1").await, to_fetch(&world, "e2").await];
    let both = |act: Act| ["e1", "e2"].iter().for_each(|id| provider.does(id, act.clone()));
    let away = async |expected: &str| {
        let (class, text) = trouble(&world, &context).await;
        assert_eq!(class, FailureClass::SinkDown);
        assert!(text.starts_with(expected), "{text}");
        for email in emails {
            assert_eq!(world.state(email).await, "waiting/sink_down/0", "{expected}");
            assert_eq!(world.shows(email).await, "received/-/pending", "{expected}");
        }
        time_has_come(&world).await;
    };
    both(Act::Answer(500, b"<html>oops</html>".to_vec()));
    away("Resend answers 500").await;
    both(Act::Answer(503, Vec::new()));
    away("Resend answers 503").await;
    both(Act::Silence);
    away("Resend: no whole answer within 300 ms").await;
    wire.cut();
    away("Resend cannot be reached: ").await;
    wire.mend();
    both(Act::Answer(200, stored_there("x", json!({})).to_string().into_bytes()));
    // Hangs up in the middle of the answers.
    let (held, hangs_up) = (wire.hold_reply(b"HTTP/1.1 200"), async |go_on| {
        wire.cut();
        drop(go_on);
    });
    tokio::join!(away("Resend cannot be reached: "), async { hangs_up(held.reached().await).await });
    wire.mend();
    settle(&world, &context).await;
    for email in emails {
        assert!(is_fetched(&world, email).await);
    }
}

#[tokio::test]
async fn answers_that_are_no_mails_are_counted_and_those_that_never_will_be_are_dead() {
    let (world, provider) = (World::new().await, Provider::new().await);
    provider.does("html", Act::Answer(200, b"<html>Frau Geheim</html>".to_vec()));
    provider.does("half", Act::Answer(200, br#"{"id": "e1", "text": "Frau Geh"#.to_vec()));
    provider.does("other", Act::Answer(200, b"{}".to_vec()));
    provider.does(
        "refused",
        Act::Answer(422, br#"{"name": "validation_error", "message": "Frau Geheim"}"#.to_vec()),
    );
    provider.has("huge", stored_there(&"Frau Geheim ".repeat(1 << 20), json!({})));
    let context = context(&world, provider.config()).await;
    for (id, state, error) in [
        ("html", "waiting/transient/", "Resend's answer is not as documented (syntax)"),
        ("half", "waiting/transient/", "Resend's answer is not as documented (eof)"),
        ("other", "waiting/transient/", "Resend's answer is not as documented (no mail)"),
        ("refused", "dead/permanent/", "Resend answers 422 (validation_error)"),
        ("huge", "dead/permanent/", "the mail as Resend sends it has more than 8388608 bytes"),
        ("..", "dead/permanent/", "the payload's provider_id is none that a provider gives"),
        ("", "dead/permanent/", "the payload's provider_id is none that a provider gives"),
        ("a b", "dead/permanent/", "the payload's provider_id is none that a provider gives"),
    ] {
        let email = to_fetch(&world, id).await;
        settle(&world, &context).await;
        assert!(world.state(email).await.starts_with(state), "{id}");
        let statement = "select error_message from outbox_messages where aggregate_id = $1::bigint::text";
        let row = world.sql.query_one(statement, &[&email]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), error, "{id}");
    }
    let other = to_fetch(&world, "e1").await;
    world.run("update outbox_messages set payload = payload || '{\"email_id\": 1}' where payload ->> 'provider_id' = 'e1'").await;
    settle(&world, &context).await;
    assert_eq!(world.state(other).await, "dead/permanent/1");
    assert!(!provider.asked().contains(&"/emails/receiving/e1".to_owned()));
}

#[tokio::test]
async fn a_hostile_id_leads_nowhere_but_to_the_mail_of_that_id() {
    let (world, provider) = (World::new().await, Provider::new().await);
    let ids = [
        ("../x", "..%2Fx"),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("a/../b", "a%2F..%2Fb"),
        ("%2e%2e", "%252e%252e"),
    ];
    for (_, path) in ids {
        provider.has(path, stored_there("x", json!({})));
    }
    let mut emails = Vec::new();
    for (id, _) in ids {
        emails.push(to_fetch(&world, id).await);
    }
    settle(&world, &context(&world, provider.config()).await).await;
    for email in emails {
        assert!(is_fetched(&world, email).await, "{:?}", provider.asked());
    }
    let mut expected: Vec<_> = ids.iter().map(|(_, path)| format!("/emails/receiving/{path}")).collect();
    let mut asked = provider.asked();
    expected.sort();
    asked.sort();
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let (world, provider) = (World::new().await, Provider::new().await);
    provider.does("e1", Act::Header(302, LOCATION, "/emails/receiving/e2"));
    let email = to_fetch(&world, "e1").await;
    let (class, text) = trouble(&world, &context(&world, provider.config()).await).await;
    assert_eq!(
        (class, text.as_str()),
        (FailureClass::SinkMisconfigured, "Resend answers 302 (from_the_tests)")
    );
    assert_eq!(world.state(email).await, "waiting/sink_misconfigured/0");
    assert_eq!(provider.asked(), ["/emails/receiving/e1"]);
}

#[tokio::test]
async fn mails_that_the_provider_stumbles_over_do_not_hold_up_the_others() {
    let (world, provider) = (World::new().await, Provider::new().await);
    let mut bad = Vec::new();
    for number in 0..6 {
        let id = format!("bad{number}");
        provider.does(&id, Act::Answer(500, Vec::new()));
        bad.push(to_fetch(&world, &id).await);
    }
    provider.has("good", stored_there("x", json!({})));
    let good = to_fetch(&world, "good").await;
    let relay = Relay::start(&world, &[("RESEND_API_KEY", KEY), ("RESEND_URL", &provider.url)]);
    until(|| is_fetched(&world, good)).await;
    // Beside a mail that is answered, a failure is the mail's own.
    let counted =
        "select count(*) > 0 from outbox_messages where error_class = 'transient' and retry_count > 0";
    until(|| async { world.row(counted).await.get(0) }).await;
    assert_eq!(relay.terminate().await, Some(0));
    for email in bad {
        assert!(world.state(email).await.starts_with("waiting/"));
    }
}

#[tokio::test]
async fn without_a_key_the_message_waits_and_everything_else_goes_on() {
    let world = World::new().await;
    world.client(vec![bank()]).await;
    let email = to_fetch(&world, "e1").await;
    let update = crate::world::Update {
        creditor_email: CREDITOR,
        creditor_name: "Quarkstein Bank AG",
        ..crate::world::Update::default()
    };
    let other = world.commit(update).await;
    let relay = Relay::start(&world, &[("RESEND_API_KEY", "")]);
    let said = "not configured: its messages wait for a relay that is operation=\"email_fetch\"";
    relay.says(said).await;
    until(|| async { world.state(other).await == "done/applied/0" }).await;
    assert_eq!(relay.terminate().await, Some(0));
    assert_eq!(world.state(email).await, "waiting//0");
    let claims = "select claim_count from outbox_messages where operation = 'email_fetch'";
    assert_eq!(world.row(claims).await.get::<_, i64>(0), 0);

    let provider = Provider::new().await;
    provider.has("e1", stored_there(STATEMENT, json!({})));
    settle(&world, &context(&world, provider.config()).await).await;
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_provider_that_is_away_keeps_a_run_from_nothing_that_is_due_elsewhere() {
    let (world, provider) = (World::new().await, Provider::new().await);
    world.client(vec![turmhaus("b")]).await;
    let email = to_fetch(&world, "1").await;
    let update = world.commit(Update::default()).await;
    // Nothing listens on the discard port of this machine.
    let away = ResendConfig { url: "http://127.0.0.1:9".parse().unwrap(), ..provider.config() };
    let (summary, end) = world.try_once(&context(&world, away).await).await;
    assert!(
        matches!(&end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkDown),
        "{end:?}"
    );
    assert_eq!((summary.applied, summary.given_back), (1, 1), "the provider was asked once");
    assert_eq!(world.state(update).await, "done/applied/0");
    assert_eq!(world.state(email).await, "waiting/sink_down/0");
}
