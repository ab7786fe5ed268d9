//! Letters to the firm: after the write and not before, once or recognisably twice, and never at the cost of what they tell of.

use crate::{
    mail_server::{FROM, Letter, MailServer, TO},
    outages::until,
    world::{Update, World, seeblick, turmhaus},
};
use mongodb::bson::Document;
use relay::{context::Context, lane::Trouble, outcome::FailureClass, review, review_mails, smtp::Mailer};
use serde_json::json;
use shared::{
    message::{EmailId, Revision, Stamp},
    postgres::AdvisoryLock,
};
use std::{process::Stdio, time::Duration};
use testkit::Wire;
use tokio::{process::Command, time::timeout};

async fn context(world: &World, server: &MailServer) -> Context {
    let mut context = world.context().await;
    context.mailer = Some(server.mailer());
    context
}

/// An entry of the default creditor with an amount.
fn owing(amount: f64) -> Document {
    let mut entry = turmhaus("a");
    entry.insert("current_debt_amount", amount);
    entry
}

/// Works until nothing is due; nothing was in the way.
async fn run(world: &World, context: &Context) {
    assert_eq!(world.try_once(context).await.1, Ok(()));
}

/// Lets what waits for its time be due.
async fn due(world: &World) {
    world.run("update outbox_messages set available_at = now() where processed_at is null").await;
}

/// `state/outcome or class/retry_count` of the notifications, in order.
async fn notifications(world: &World) -> Vec<String> {
    let statement = "select concat_ws('/', case when processed_at is not null then 'done' when dead_at is not null then 'dead' else 'waiting' end,
        coalesce(outcome, error_class, ''), retry_count) from outbox_messages where operation like '%notification' order by id";
    world.sql.query(statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_written_amount_is_told_once_with_text_and_html() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![owing(980.0), seeblick("b")]).await;
    let email_id = world.commit(Update::default()).await;
    world.run("update incoming_emails set ticket_id = '4711'").await;
    let context = context(&world, &server).await;
    run(&world, &context).await;
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.0["from"], FROM);
    assert_eq!(letter.0["to"], json!([TO]));
    assert_eq!(letter.header("From"), FROM);
    assert_eq!(letter.header("To"), TO);
    assert_eq!(letter.header("Subject"), "Gläubiger-Antwort: 2024_118 - Turmhaus Kontor GmbH");
    assert_eq!(
        letter.header("Message-ID"),
        format!("<debt_update_notification.{email_id}.0@kanzlei.example>")
    );
    assert_eq!(letter.header("Auto-Submitted"), "auto-generated");
    assert!(!letter.header("Date").is_empty());
    for line in [
        "Aktenzeichen: 2024_118",
        "Forderungsbetrag bisher: 980,00 EUR",
        "Forderungsbetrag aktuell: 1.234,56 EUR",
        "Änderung: +254,56 EUR",
        "Ticket: 4711",
        "Referenznummern: TK-1",
        "Konfidenz: 90 %",
    ] {
        assert!(letter.text().contains(line), "{line}: {}", letter.text());
    }
    assert!(letter.html().contains("<td>1.234,56 EUR</td>") && letter.html().contains("Gläubiger"));
    assert_eq!(notifications(&world).await, ["done/sent/0"]);
    assert_eq!(world.shows(email_id).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn without_a_mail_server_nothing_is_enqueued() {
    let world = World::new().await;
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    world.commit(Update { amount: None, ..Update::default() }).await;
    world.commit(Update { aktenzeichen: "9999/1", ..Update::default() }).await;
    world.once().await;
    assert_eq!(notifications(&world).await, [""; 0]);
}

#[tokio::test]
async fn a_letter_goes_out_after_the_write_and_not_before() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let (mut context, wire) = world.context_over_wire().await;
    context.mailer = Some(server.mailer());
    wire.cut();
    assert!(world.try_once(&context).await.1.is_err());
    assert_eq!((notifications(&world).await.len(), server.letters().len()), (0, 0));
    wire.mend();
    until(async || world.try_once(&context).await.1.is_ok()).await;
    assert_eq!(world.amount("a").await, Some(1234.56));
    assert_eq!(server.letters().len(), 1);
}

#[tokio::test]
async fn a_temporary_refusal_is_counted_against_the_letter_alone_and_passes() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let email_id = world.commit(Update::default()).await;
    let context = context(&world, &server).await;
    server.control(&json!({ "rcpt": { "*": "451 4.7.1 greylisted, come again" } }));
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["waiting/transient/1"]);
    let minutes =
        "select extract(epoch from available_at - now())::float8 / 60 from outbox_messages where deferred";
    let minutes: f64 = world.row(minutes).await.get(0);
    assert!((4.5..=10.0).contains(&minutes), "greylisting takes minutes: {minutes}");
    server.control(&json!({ "data": "452 4.3.1 no space" }));
    due(&world).await;
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["waiting/transient/2"]);
    let row = world.row("select sync_error, processing_error, sync_retry_count from incoming_emails").await;
    assert_eq!((row.get(0), row.get(1), row.get(2)), (None::<String>, None::<String>, 0));
    assert_eq!(world.shows(email_id).await, "completed/auto_matched/synced");
    server.control(&json!({}));
    due(&world).await;
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["done/sent/2"]);
    assert_eq!(server.letters().len(), 1);
}

#[tokio::test]
async fn a_refusal_for_good_keeps_the_servers_words_without_an_address() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let email_id = world.commit(Update::default()).await;
    server.control(&json!({ "rcpt": { "*": format!("550 5.1.1 <{TO}>: user unknown, ask postmaster@kanzlei.example") } }));
    run(&world, &context(&world, &server).await).await;
    assert_eq!(notifications(&world).await, ["dead/permanent/1"]);
    let text: String =
        world.row("select error_message from outbox_messages where dead_at is not null").await.get(0);
    assert!(text.contains("550") && text.contains("5.1.1") && text.contains("user unknown"), "{text}");
    assert!(!text.contains('@') && !text.contains("kanzlei"), "{text}");
    assert_eq!(world.shows(email_id).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_recipient_that_is_gone_does_not_keep_the_letter_from_the_others() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let mut context = world.context().await;
    let both = format!("gone@kanzlei.example, Akten <{TO}>");
    context.mailer = Some(Mailer::new(&server.url(), &both, FROM, None).unwrap());
    server.control(&json!({ "rcpt": { "gone@kanzlei.example": "550 5.1.1 user unknown" } }));
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!((letters.len(), &letters[0].0["to"]), (1, &json!([TO])));
}

#[tokio::test]
async fn an_absent_mail_server_is_counted_against_nobody() {
    let (world, mut server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let email_id = world.commit(Update::default()).await;
    let context = context(&world, &server).await;
    server.kill().await;
    for _ in 0..3 {
        let end = world.try_once(&context).await.1;
        assert!(matches!(end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkDown));
    }
    assert_eq!(notifications(&world).await, ["waiting/sink_down/0"]);
    assert_eq!(world.shows(email_id).await, "completed/auto_matched/synced");
    server.start().await;
    server.control(&json!({ "mail": "421 4.3.2 too busy" }));
    assert!(world.try_once(&context).await.1.is_err());
    assert_eq!(notifications(&world).await, ["waiting/sink_down/0"]);
    server.control(&json!({}));
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["done/sent/0"]);
    assert_eq!(server.letters().len(), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_does_not_outlast_the_lane() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let mut context = world.context().await;
    context.mailer = Some(Mailer::new(&url, TO, FROM, None).unwrap());
    let end = timeout(Duration::from_secs(20), world.try_once(&context)).await.unwrap().1;
    assert!(matches!(end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkDown));
    assert_eq!(notifications(&world).await, ["waiting/sink_down/0"]);
    silent.abort();
}

#[tokio::test]
async fn a_letter_whose_reply_was_lost_is_repeated_with_the_same_message_id() {
    let (world, mut server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let context = context(&world, &server).await;
    server.control(&json!({ "data": "hang" }));
    let (end, ()) = tokio::join!(world.try_once(&context), async {
        until(async || server.letters().len() == 1).await;
        server.kill().await;
    });
    assert!(matches!(end.1, Err(Trouble::Sink(failure)) if failure.class == FailureClass::UnknownOutcome));
    assert_eq!(notifications(&world).await, ["waiting/unknown_outcome/0"]);
    server.control(&json!({}));
    server.start().await;
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].header("Message-ID"), letters[1].header("Message-ID"));
}

#[tokio::test]
async fn a_server_that_takes_a_letter_and_hangs_up_each_time_gets_it_a_few_times_only() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    server.control(&json!({ "data": "close" }));
    let context = context(&world, &server).await;
    for _ in 0..8 {
        run(&world, &context).await;
        due(&world).await;
    }
    assert_eq!(notifications(&world).await, ["dead/transient/5"]);
    assert_eq!(server.letters().len(), 5);
}

/// A relay that is killed when its letters are sent and its finish is on the way.
async fn dies_before_its_finish(world: &World, server: &MailServer) {
    let wire = Wire::before(&world.database.url).await;
    let held = wire.hold_request(b"fenced as (");
    let mut relay = world
        .program(&world.mongo.url, &["run", "--once"])
        .env("DATABASE_URL", wire.instead(&world.relay_url()))
        .envs([("SMTP_URL", server.url().as_str()), ("NOTIFY_TO", TO), ("NOTIFY_FROM", FROM)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    held.reached().await;
    relay.kill().await.unwrap();
}

#[tokio::test]
async fn a_relay_that_dies_between_the_letter_and_its_commit_repeats_it_recognisably() {
    let (world, server) = (World::new().await, MailServer::new().await);
    let received_at = "2026-02-17T09:14:22Z".parse().unwrap();
    let email_id = world.email("konto@turmhaus.example", received_at).await;
    let stamp = Stamp::new(received_at, email_id, Revision::FIRST).unwrap();
    let payload = json!({ "email_id": email_id, "stamp": stamp, "creditor_email": "konto@turmhaus.example", "amount": "12.00" });
    world.message("debt_update_notification", email_id, payload).await;
    dies_before_its_finish(&world, &server).await;
    assert_eq!(server.letters().len(), 1);
    world.run("update outbox_messages set claimed_until = now()").await;
    run(&world, &context(&world, &server).await).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].header("Message-ID"), letters[1].header("Message-ID"));
    assert_eq!(notifications(&world).await, ["done/sent/0"]);
}

#[tokio::test]
async fn a_login_that_is_refused_waits_for_a_person_and_a_right_one_delivers() {
    let (world, server) = (World::new().await, MailServer::with(&["--auth", "relay:ge heim@"]).await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let mut context = world.context().await;
    for wrong in [server.url(), format!("smtp://relay:falsch@127.0.0.1:{}", server.port)] {
        context.mailer = Some(Mailer::new(&wrong, TO, FROM, None).unwrap());
        let end = world.try_once(&context).await.1;
        assert!(
            matches!(&end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkMisconfigured && !failure.text.contains("falsch")),
            "{end:?}"
        );
        assert_eq!(notifications(&world).await, ["waiting/sink_misconfigured/0"]);
    }
    let right = format!("smtp://relay:ge%20heim%40@127.0.0.1:{}", server.port);
    context.mailer = Some(Mailer::new(&right, TO, FROM, None).unwrap());
    run(&world, &context).await;
    assert_eq!(server.letters()[0].0["user"], "relay");
}

#[tokio::test]
async fn the_log_of_a_run_with_letters_holds_nothing_personal_and_no_secret_at_any_level() {
    let (world, server) = (World::new().await, MailServer::with(&["--auth", "relay:geheim-wort"]).await);
    world.client(vec![owing(980.0), seeblick("b")]).await;
    world.commit(Update::default()).await;
    world.commit(Update { amount: None, ..Update::default() }).await;
    let mut log = String::new();
    // The first time the server's words repeat the address.
    for control in [json!({ "rcpt": { "*": format!("451 4.2.0 <{TO}> is busy") } }), json!({})] {
        server.control(&control);
        let relay = world
            .program(&world.mongo.url, &["run", "--once"])
            .env("SMTP_URL", format!("smtp://relay:geheim-wort@127.0.0.1:{}", server.port))
            .envs([("NOTIFY_TO", TO), ("NOTIFY_FROM", FROM), ("RUST_LOG", "trace"), ("LOG_FORMAT", "json")])
            .output();
        log += &String::from_utf8(relay.await.unwrap().stderr).unwrap();
        due(&world).await;
    }
    assert!(log.contains("451"), "{log}");
    let secrets = ["geheim-wort", "cmVsYXk", "AHJlbGF5", "kanzlei.example", "Adler", "2024_118", "TK-1"];
    for word in secrets.into_iter().chain(["urmhaus", "1234.56", "1.234,56", "980.00", "980,00"]) {
        let line = log.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "{word}");
    }
    assert_eq!(server.letters().len(), 2);
}

#[tokio::test]
async fn tls_is_had_as_asked_for_and_only_with_a_certificate_that_can_be_trusted() {
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls_{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .stderr(Stdio::null())
        .status();
    assert!(made.await.unwrap().success(), "openssl makes a certificate");
    let pem = std::fs::read(&certificate).unwrap();
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    for (smtps, scheme, query) in [(None, "smtp", "?tls=required"), (Some("--smtps"), "smtps", "")] {
        let arguments = ["--auth", "relay:geheim", "--certificate", certificate, "--key", key];
        let arguments: Vec<&str> = arguments.into_iter().chain(smtps).collect();
        let (world, server) = (World::new().await, MailServer::with(&arguments).await);
        world.client(vec![turmhaus("a")]).await;
        world.commit(Update::default()).await;
        let mut context = world.context().await;
        let url = format!("{scheme}://relay:geheim@localhost:{}{query}", server.port);
        context.mailer = Some(Mailer::new(&url, TO, FROM, None).unwrap());
        let end = world.try_once(&context).await.1;
        assert!(
            matches!(&end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkMisconfigured),
            "{end:?}"
        );
        context.mailer = Some(Mailer::new(&url, TO, FROM, Some(&pem)).unwrap());
        run(&world, &context).await;
        let letters = server.letters();
        assert_eq!((&letters[0].0["tls"], &letters[0].0["user"]), (&json!(true), &json!("relay")));
    }
    let (world, plain) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    world.commit(Update::default()).await;
    let mut context = world.context().await;
    let url = format!("smtp://localhost:{}?tls=required", plain.port);
    context.mailer = Some(Mailer::new(&url, TO, FROM, Some(&pem)).unwrap());
    let end = world.try_once(&context).await.1;
    assert!(
        matches!(&end, Err(Trouble::Sink(failure)) if failure.class == FailureClass::SinkMisconfigured),
        "{end:?}"
    );
    assert!(plain.letters().is_empty(), "never without TLS where TLS was asked for");
}

/// Mails that a person has to look at: they state no amount.
async fn hold(world: &World, count: usize) -> Vec<EmailId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(world.commit(Update { amount: None, ..Update::default() }).await);
    }
    ids
}

#[tokio::test]
async fn more_than_ten_held_mails_in_an_hour_are_ten_letters_and_one_digest() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let context = context(&world, &server).await;
    let ids = hold(&world, 14).await;
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 10);
    assert_eq!(letters[0].header("Subject"), "Prüfung nötig: 2024/118 - Turmhaus Kontor GmbH");
    for line in [
        "Grund: Die Mail nennt keinen Betrag",
        "Möglich: Turmhaus Kontor GmbH, Akte 2024_118 (client ",
        "relay review reject ",
    ] {
        assert!(letters[0].text().contains(line), "{line}: {}", letters[0].text());
    }
    due(&world).await;
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 11);
    let digest = &letters[10];
    assert_eq!(digest.header("Subject"), "Prüfung nötig: 4 Gläubiger-Antworten");
    let told = |id: &EmailId| {
        letters.iter().filter(|letter| letter.text().contains(&format!("relay review accept {id} "))).count()
    };
    assert!(ids.iter().all(|id| told(id) == 1), "each mail is told of once");
    assert_eq!(notifications(&world).await, vec!["done/sent/0"; 14]);

    let later = hold(&world, 3).await;
    for _ in 0..3 {
        run(&world, &context).await;
        due(&world).await;
    }
    assert_eq!(server.letters().len(), 11, "no second digest in the hour");
    world.run("update review_mails set sent_at = sent_at - interval '1 hour'").await;
    run(&world, &context).await;
    let letters = server.letters();
    assert_eq!(letters.len(), 14);
    assert!(later.iter().all(|id| {
        letters.iter().any(|letter| letter.text().contains(&format!("relay review accept {id} ")))
    }));
    assert!(notifications(&world).await.iter().all(|state| state == "done/sent/0"));
}

#[tokio::test]
async fn several_relays_keep_to_ten_letters_together() {
    let world = World::new().await;
    let context = world.context().await;
    // Nobody gets on before all have begun.
    let holder = world.database.client().await;
    holder.batch_execute("begin; lock table review_mails in access exclusive mode").await.unwrap();
    let takers = (0..4).map(|_| {
        let pool = context.pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.get().await.unwrap();
            review_mails::take(&mut connection, 8, true).await.unwrap()
        })
    });
    let takers: Vec<_> = takers.collect();
    let waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    until(async || world.row(waiting).await.get::<_, i64>(0) == 4).await;
    holder.batch_execute("commit").await.unwrap();
    let (mut singles, mut digests) = (0, 0);
    for taker in takers {
        let places = taker.await.unwrap();
        singles += places.singles.len();
        digests += places.digest.iter().len();
    }
    assert_eq!((singles, digests), (10, 1));
}

#[tokio::test]
async fn letters_that_a_crashed_relay_may_have_sent_are_repeated_singly_and_recognisably() {
    let (world, mut server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    hold(&world, 12).await;
    server.kill().await;
    assert!(world.try_once(&context(&world, &server).await).await.1.is_err());
    // All twelve are claimed at once.
    world.run("update outbox_messages set deferred = false, available_at = now() where deferred").await;
    server.start().await;
    dies_before_its_finish(&world, &server).await;
    let ids = || {
        let mut ids: Vec<String> =
            server.letters().iter().map(|letter| letter.header("Message-ID").to_owned()).collect();
        ids.sort();
        ids
    };
    let first = ids();
    assert_eq!(first.len(), 10);
    world.run("update outbox_messages set claimed_until = now() where claimed_until is not null").await;
    run(&world, &context(&world, &server).await).await;
    let mut twice = [first.clone(), first].concat();
    twice.sort();
    assert_eq!(ids(), twice, "all places are taken, and the two others wait for the digest");
    let waiting = vec!["waiting/budget_spent/0"; 2];
    assert_eq!(notifications(&world).await, [vec!["done/sent/0"; 10], waiting].concat());
}

#[tokio::test]
async fn a_turn_of_the_workers_holds_up_no_letter() {
    let world = World::new().await;
    let worker = world.database.client().await;
    let turn = AdvisoryLock::Turn.number();
    worker.execute("select pg_advisory_lock($1)", &[&turn]).await.unwrap();
    let mut connection = world.context().await.pool.get().await.unwrap();
    let take = review_mails::take(&mut connection, 1, false);
    assert_eq!(timeout(Duration::from_secs(5), take).await.unwrap().unwrap().singles.len(), 1);
}

#[tokio::test]
async fn a_letter_that_did_not_go_out_leaves_its_place_to_another() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    hold(&world, 10).await;
    let context = context(&world, &server).await;
    server.control(&json!({ "rcpt": { "*": "451 4.7.1 later" } }));
    run(&world, &context).await;
    server.control(&json!({}));
    due(&world).await;
    run(&world, &context).await;
    assert_eq!(server.letters().len(), 10);
    assert_eq!(notifications(&world).await, vec!["done/sent/1"; 10]);
}

#[tokio::test]
async fn a_mail_that_was_settled_meanwhile_asks_nobody_any_more() {
    let (world, mut server) = (World::new().await, MailServer::new().await);
    world.client(vec![owing(2500.0)]).await;
    let lower = world.commit(Update::default()).await;
    let rejected = hold(&world, 1).await[0];
    let context = context(&world, &server).await;
    server.kill().await;
    assert!(world.try_once(&context).await.1.is_err());
    let mut connection = world.operator().await;
    review::accept(&mut connection, lower, review::Choice::default(), "Anna").await.unwrap();
    review::reject(&mut connection, rejected, "nothing to write", "Anna").await.unwrap();
    drop(connection);
    server.start().await;
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["done/discarded/0", "done/discarded/0", "done/sent/0"]);
    let letters = server.letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(
        letters[0].header("Message-ID"),
        format!("<debt_update_notification.{lower}.1@kanzlei.example>")
    );
    for line in ["Entschieden von: Anna", "Änderung: -1.265,44 EUR"] {
        assert!(letters[0].text().contains(line), "{}", letters[0].text());
    }
    assert_eq!(world.shows(rejected).await, "completed/-/not_applicable");
}

#[tokio::test]
async fn a_mail_without_client_that_was_accepted_or_rejected_meanwhile_asks_nobody_any_more() {
    let (world, mut server) = (World::new().await, MailServer::new().await);
    let emails = [world.commit(Update::default()).await, world.commit(Update::default()).await];
    let context = context(&world, &server).await;
    server.kill().await;
    assert!(world.try_once(&context).await.1.is_err());
    let mut connection = world.operator().await;
    review::accept(&mut connection, emails[0], review::Choice::default(), "Anna").await.unwrap();
    review::reject(&mut connection, emails[1], "nothing to write", "Anna").await.unwrap();
    drop(connection);
    // The accepted update itself waits still.
    world.run("update outbox_messages set available_at = now() + interval '1 hour' where operation = 'creditor_debt_update'").await;
    server.start().await;
    run(&world, &context).await;
    assert_eq!(notifications(&world).await, ["done/discarded/0", "done/discarded/0"]);
    assert_eq!(server.letters().len(), 0);
}

#[tokio::test]
async fn a_client_that_is_missing_is_told_once_and_what_comes_of_it_later_too() {
    let (world, server) = (World::new().await, MailServer::new().await);
    let context = context(&world, &server).await;
    let written = world.commit(Update::default()).await;
    let held = hold(&world, 1).await[0];
    for _ in 0..3 {
        run(&world, &context).await;
        due(&world).await;
    }
    let letters = server.letters();
    assert_eq!(letters.len(), 2);
    // They are on their way side by side.
    let told = |letter: &&Letter| letter.text().contains(&format!("relay explain {written}"));
    let of_written = letters.iter().find(told).unwrap();
    assert!(of_written.text().contains("gibt es keinen Mandanten"));
    world.client(vec![turmhaus("a")]).await;
    due(&world).await;
    run(&world, &context).await;
    let mut subjects: Vec<String> =
        server.letters()[2..].iter().map(|letter| letter.header("Message-ID").to_owned()).collect();
    subjects.sort();
    let expected = [("debt_update_notification", written), ("review_notification", held)];
    assert_eq!(subjects, expected.map(|(name, id)| format!("<{name}.{id}.0@kanzlei.example>")));
    assert!(notifications(&world).await.iter().all(|state| state == "done/sent/0"));
}

#[tokio::test]
async fn what_is_superseded_replayed_or_repaired_is_told_to_nobody() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let context = context(&world, &server).await;
    world.commit(Update::of("20", "2026-02-18T09:00:00Z")).await;
    run(&world, &context).await;
    world.commit(Update::of("10", "2026-02-17T09:00:00Z")).await;
    for (origin, amount, day) in [("replay", "30", 19), ("repair", "40", 20)] {
        world.commit(Update::of(amount, "2026-02-19T09:00:00Z")).await;
        let statement = format!(
            "update outbox_messages set payload = payload || '{{\"origin\": \"{origin}\"}}' where processed_at is null"
        );
        world.run(&statement).await;
        let _ = day;
        run(&world, &context).await;
    }
    assert_eq!(notifications(&world).await, ["done/sent/0"]);
    assert_eq!(server.letters().len(), 1);
}

#[tokio::test]
async fn hostile_names_stay_values() {
    let (world, server) = (World::new().await, MailServer::new().await);
    world.client(vec![turmhaus("a")]).await;
    let email_id = world
        .commit(Update { creditor_name: "Turmhaus\r\nBcc: dieb@boese.example\r\n\r\n<script>alert(1)</script>\u{202e} \"x\"", ..Update::default() })
        .await;
    run(&world, &context(&world, &server).await).await;
    let letters = server.letters();
    let letter = &letters[0];
    assert_eq!(letter.0["to"], json!([TO]));
    assert_eq!(letter.header("Bcc"), "");
    let subject = "Gläubiger-Antwort: 2024_118 - Turmhaus Bcc: dieb@boese.example <script>alert(1)</script> ";
    assert!(
        letter.header("Subject").starts_with(subject.trim_end())
            || letter.header("Subject").contains("Turmhaus Bcc:"),
        "{}",
        letter.header("Subject")
    );
    assert!(letter.0["raw_headers"].as_str().unwrap().lines().all(|line| !line.starts_with("Bcc")));
    assert!(letter.html().contains("&lt;script&gt;") && !letter.html().contains("<script"));
    assert_eq!(world.shows(email_id).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_mail_server_without_recipients_or_sender_is_a_bad_configuration() {
    let output = Command::new(env!("CARGO_BIN_EXE_relay"))
        .args(["check-config"])
        .env_clear()
        .envs([
            ("DATABASE_URL", "postgres://x@127.0.0.1/x"),
            ("MONGODB_URL", "mongodb://127.0.0.1/"),
            ("MONGODB_DATABASE", "x"),
        ])
        .env("SMTP_URL", "smtp://relay:geheim@mail.example")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    for name in ["NOTIFY_TO is not set", "NOTIFY_FROM is not set"] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!said.contains("geheim"), "{said}");
}
