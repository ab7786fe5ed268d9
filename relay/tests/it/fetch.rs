//! Mails that are fetched from the provider: what its API answers, and what becomes of message and mail. Each through the real lane.

use crate::{
    end_to_end::Ingest,
    feed::Relay,
    model_server::{Answer, ModelServer},
    outages::until,
    world::{Update, World, turmhaus},
};
use relay::{
    config::ResendConfig,
    context::Context,
    lane::{Summary, Trouble},
    outcome::FailureClass,
    resend::Resend,
};
use serde_json::json;
use shared::message::EmailId;
use std::time::Duration;
use testkit::{HoldPoint, Wire};

const ID: &str = "56761188-7520-42d8-8898-ff6fc54ce618";

struct Fetching {
    world: World,
    server: ModelServer,
    context: Context,
}

impl Fetching {
    async fn new() -> Fetching {
        let (world, server) = (World::new().await, ModelServer::start().await);
        let mut authorization = reqwest::header::HeaderValue::from_static("Bearer re_key");
        authorization.set_sensitive(true);
        let config = ResendConfig {
            authorization,
            url: server.url.parse().unwrap(),
            timeout: Duration::from_millis(500),
        };
        let mut context = world.context().await;
        context.resend = Some(Resend::new(&config).unwrap());
        Fetching { world, server, context }
    }

    /// A mail as ingest stores it when its event has no body.
    async fn mail(&self, provider_id: &str) -> EmailId {
        let statement = "insert into incoming_emails (source, webhook_id, from_email, subject, raw, received_at, fingerprint)
            values ('standard', gen_random_uuid()::text, 'konto@turmhaus.example', 'AW: 2024/118', '', '2026-02-17T09:14:22+01:00',
            sha256('')) returning id";
        let email: EmailId = self.world.sql.query_one(statement, &[]).await.unwrap().get(0);
        let payload = json!({ "email_id": email, "provider_id": provider_id });
        self.world.message("email_fetch", email, payload).await;
        email
    }

    async fn run(&self) -> (Summary, Result<(), Trouble>) {
        self.world.try_once(&self.context).await
    }

    /// `state/outcome or class/retry_count` of the mail's fetch.
    async fn state(&self, email: EmailId) -> String {
        let statement = "select case when processed_at is not null then 'done' when dead_at is not null then 'dead' else 'waiting' end
            || '/' || coalesce(outcome, error_class, '') || '/' || retry_count
            from outbox_messages where aggregate_id = $1::bigint::text and operation = 'email_fetch'";
        self.world.sql.query_one(statement, &[&email]).await.unwrap().get(0)
    }

    /// What was deferred is due now.
    async fn time_passes(&self) {
        self.world.run("update outbox_messages set available_at = now() where deferred").await;
    }

    fn will(&self, answer: Answer) {
        self.server.will(answer);
    }
}

fn mail() -> Answer {
    let mail = json!({
        "object": "email", "id": ID, "from": "Turmhaus <konto@turmhaus.example>", "subject": "AW: 2024/118",
        "text": "Unsere Gesamtforderung gegen Frau Eva Adler, Ihr Zeichen 2024/118, beträgt 1.234,56 EUR.\u{0}\n\nTurmhaus Kontor GmbH",
        "html": null, "headers": { "Message-ID": "<1@turmhaus.example>", "X-Mailer": "M" },
        "attachments": [{ "id": "a1", "filename": "brief.pdf", "content_type": "application/pdf", "size": 17, "url": "https://x.example/secret" }],
    });
    Answer::Http(200, Vec::new(), mail.to_string())
}

fn refusal(status: u16, name: &str) -> Answer {
    let body =
        json!({ "statusCode": status, "name": name, "message": "konto@turmhaus.example is not yours" });
    Answer::Http(status, Vec::new(), body.to_string())
}

#[tokio::test]
async fn a_fetched_mail_is_stored_and_goes_on_to_mongodb() {
    let fetching = Fetching::new().await;
    fetching.world.client(vec![turmhaus("b")]).await;
    let email = fetching.mail(ID).await;
    fetching.will(mail());
    let (summary, end) = fetching.run().await;
    assert_eq!((summary.claimed, summary.applied, end), (3, 1, Ok(())));
    assert_eq!(fetching.state(email).await, "done/fetched/0");
    assert_eq!(fetching.world.shows(email).await, "completed/auto_matched/synced");
    assert_eq!(fetching.world.amount("b").await, Some(1234.56));
    let row = fetching
        .world
        .row("select body_text, headers ->> 'message-id', attachments #>> '{0,filename}', attachments::text from incoming_emails")
        .await;
    let texts: [String; 4] = [0, 1, 2, 3].map(|column| row.get(column));
    assert!(texts[0].ends_with("1.234,56 EUR.\n\nTurmhaus Kontor GmbH"), "{texts:?}");
    assert_eq!((texts[1].as_str(), texts[2].as_str()), ("<1@turmhaus.example>", "brief.pdf"));
    assert!(!texts[3].contains("secret"));
    let asked = fetching.server.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].headers["authorization"], "Bearer re_key");
    assert!(asked[0].path.starts_with(&format!("GET /emails/receiving/{ID}")), "{}", asked[0].path);
}

#[tokio::test]
async fn an_event_without_a_body_goes_from_the_signed_webhook_to_mongodb() {
    let fetching = Fetching::new().await;
    fetching.world.client(vec![turmhaus("b")]).await;
    let ingest = Ingest::over(&fetching.world).await;
    let event = json!({ "type": "email.received", "created_at": "2026-02-22T23:41:12.126Z", "data": {
        "email_id": ID, "created_at": "2026-02-22T23:41:11.894719+00:00", "from": "Turmhaus <konto@turmhaus.example>",
        "to": ["post@kanzlei.example"], "bcc": [], "cc": [], "message_id": "<1@turmhaus.example>", "subject": "AW: 2024/118",
        "attachments": [{ "id": "a1", "filename": "brief.pdf", "content_type": "application/pdf", "content_disposition": "attachment",
            "content_id": "c1" }] } });
    let accepted = ingest.standard(&event.to_string()).await;
    assert_eq!(accepted["status"], "accepted");
    let waiting = ingest.email(&accepted["email_id"]).await;
    assert_eq!(
        (&waiting["processing_status"], &waiting["steps"][0]["operation"]),
        (&json!("received"), &json!("email_fetch"))
    );
    fetching.will(mail());
    fetching.run().await.1.unwrap();
    assert_eq!(fetching.world.amount("b").await, Some(1234.56));
    let done = ingest.email(&accepted["email_id"]).await;
    assert_eq!((&done["sync_status"], &done["outcome"]), (&json!("synced"), &json!("applied")));
    assert_eq!(done["steps"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_provider_that_is_away_or_asks_for_patience_counts_nothing() {
    let slow = Answer::Silence;
    let later = Answer::Http(429, vec![("Retry-After", "3600".into())], "{}".into());
    for (answer, waits) in [
        (refusal(500, "internal_server_error"), false),
        (slow, false),
        (Answer::HangUp, false),
        (later, true),
        (refusal(503, ""), false),
    ] {
        let fetching = Fetching::new().await;
        let email = fetching.mail(ID).await;
        fetching.will(answer);
        let (_, end) = fetching.run().await;
        let Err(Trouble::Sink(failure)) = end else { panic!("{end:?}") };
        assert_eq!(failure.class, FailureClass::SinkDown, "{failure}");
        assert_eq!(fetching.state(email).await, "waiting/sink_down/0");
        assert_eq!(fetching.server.asked().len(), 1);
        fetching.will(mail());
        fetching.time_passes().await;
        let (_, again) = fetching.run().await;
        assert_eq!(again.is_err(), waits, "{again:?}");
        assert_eq!(fetching.server.asked().len(), usize::from(!waits), "nobody asks before the time");
    }
}

#[tokio::test]
async fn a_wrong_key_is_for_the_operator_and_costs_no_message() {
    for status in [401, 403] {
        let fetching = Fetching::new().await;
        let email = fetching.mail(ID).await;
        fetching.will(refusal(status, "restricted_api_key"));
        let (_, end) = fetching.run().await;
        let Err(Trouble::Sink(failure)) = end else { panic!("{end:?}") };
        assert_eq!(failure.class, FailureClass::SinkMisconfigured);
        assert!(failure.text.contains(&format!("{status} (restricted_api_key)")), "{failure}");
        assert_eq!(fetching.state(email).await, "waiting/sink_misconfigured/0");
    }
}

#[tokio::test]
async fn a_mail_that_is_not_there_yet_is_tried_again_and_one_that_is_refused_is_dead() {
    let fetching = Fetching::new().await;
    let (early, refused) = (fetching.mail(ID).await, fetching.mail("another").await);
    fetching.will(refusal(404, "not_found"));
    fetching.will(refusal(422, "validation_error"));
    let (summary, end) = fetching.run().await;
    assert_eq!((summary.retried, summary.dead, end), (1, 1, Ok(())));
    assert_eq!(fetching.state(early).await, "waiting/transient/1");
    assert_eq!(fetching.state(refused).await, "dead/permanent/1");
    let errors: Vec<String> = fetching
        .world
        .sql
        .query(
            "select error_message from outbox_messages union all select sync_error from incoming_emails",
            &[],
        )
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(errors.iter().all(|error| !error.contains("turmhaus")), "{errors:?}");
    fetching.will(mail());
    fetching.time_passes().await;
    fetching.run().await.1.unwrap();
    assert_eq!(fetching.state(early).await, "done/fetched/1");
}

#[tokio::test]
async fn what_is_no_mail_or_too_large_never_becomes_one() {
    let huge = format!("{{\"text\": \"{}\"}}", "x".repeat(9 << 20));
    let large = json!({ "text": "ä".repeat(700_000), "html": "" }).to_string();
    for (body, state, characters) in [
        ("not JSON".to_owned(), "waiting/transient/1", None),
        ("[]".into(), "waiting/transient/1", None),
        (r#"{"text": 17}"#.into(), "waiting/transient/1", None),
        (huge, "dead/permanent/1", None),
        (large, "done/fetched/0", Some(524_288)),
        ("{}".into(), "waiting/transient/1", None),
        (r#"{"text": null, "html": null}"#.into(), "done/fetched/0", None),
    ] {
        let fetching = Fetching::new().await;
        let email = fetching.mail(ID).await;
        fetching.will(Answer::Http(200, Vec::new(), body));
        fetching.run().await.1.unwrap();
        assert_eq!(fetching.state(email).await, state);
        let stored = fetching.world.row("select length(body_text) from incoming_emails").await;
        assert_eq!(stored.get::<_, Option<i32>>(0), characters);
        let next = "select count(*) from outbox_messages where operation = 'email_extraction'";
        assert_eq!(fetching.world.row(next).await.get::<_, i64>(0), i64::from(state.starts_with("done")));
    }
}

#[tokio::test]
async fn an_id_never_leads_to_another_address() {
    for id in ["../emails", "a/b", "a?b=c", "a b", "", "%2e%2e", &"x".repeat(300)] {
        let fetching = Fetching::new().await;
        let email = fetching.mail(id).await;
        let (summary, end) = fetching.run().await;
        let asked = fetching.server.asked();
        if asked.is_empty() {
            assert_eq!((summary.dead, end), (1, Ok(())), "{id:?}");
            assert_eq!(fetching.state(email).await, "dead/permanent/1");
        } else {
            assert_eq!(
                asked[0].path.split('?').next().unwrap().matches('/').count(),
                3,
                "{:?}",
                asked[0].path
            );
        }
    }
}

#[tokio::test]
async fn without_a_key_the_message_waits_and_everything_else_goes_on() {
    let mut fetching = Fetching::new().await;
    fetching.context.resend = None;
    fetching.world.client(vec![turmhaus("b")]).await;
    let waiting = fetching.mail(ID).await;
    fetching.world.commit(Update::default()).await;
    let (summary, end) = fetching.run().await;
    assert_eq!((summary.claimed, summary.applied, end), (1, 1, Ok(())));
    assert_eq!(fetching.state(waiting).await, "waiting//0");
}

/// The message's end, the mail's body and the next message are one commit: whenever a relay is killed, there is all of it or nothing.
async fn after_a_kill_at(hold: impl FnOnce(&Wire) -> HoldPoint, is_fetched: bool) {
    let fetching = Fetching::new().await;
    let world = &fetching.world;
    let email = fetching.mail(ID).await;
    let wire = Wire::before(&world.database.url).await;
    let held = hold(&wire);
    (0..3).for_each(|_| fetching.will(mail()));
    let environment = [
        ("DATABASE_URL", wire.instead(&world.database.url)),
        ("RESEND_API_KEY", "re_key".into()),
        ("RESEND_URL", fetching.server.url.clone()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let victim = Relay::start(world, &environment);
    let go_on = held.reached().await;
    let fetched =
        "select count(*) = 1 from incoming_emails where body_text is not null and headers is not null";
    if is_fetched {
        until(|| async { world.row(fetched).await.get(0) }).await;
    } else {
        assert!(!world.row(fetched).await.get::<_, bool>(0));
    }
    let leases = victim.kill().await;
    drop(go_on);
    leases.end(world).await;
    fetching.run().await.1.unwrap();
    assert_eq!(fetching.state(email).await, "done/fetched/0");
    let next = "select count(*) from outbox_messages where operation = 'email_extraction'";
    assert_eq!(world.row(next).await.get::<_, i64>(0), 1);
    assert!(world.row(fetched).await.get::<_, bool>(0));
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_after_the_claim_is_fetched_by_the_next() {
    after_a_kill_at(|wire| wire.hold_reply(br#""provider_id""#), false).await;
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_before_the_finish_is_fetched_by_the_next() {
    after_a_kill_at(|wire| wire.hold_request(b"1.234,56 EUR"), false).await;
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_after_the_finish_is_not_fetched_again() {
    after_a_kill_at(|wire| wire.hold_reply_to(b"1.234,56 EUR"), true).await;
}
