//! Relays that are killed while they read a mail: it ends as if nothing had happened, with one debt update and no more.

use crate::{
    feed::Relay,
    outages::until,
    world::{World, seeblick},
};
use mongodb::bson::doc;
use serde_json::json;
use shared::message::EmailId;
use testkit::{HoldPoint, Wire};

/// Where in the traffic with Postgres the relay is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    ClaimCommitted,
    MailRead,
    FinishSent,
    FinishCommitted,
}

impl Point {
    fn hold(self, wire: &Wire) -> HoldPoint {
        match self {
            Point::ClaimCommitted => wire.hold_reply(br#""email_id""#), // the payload
            Point::MailRead => wire.hold_reply(AMOUNT),
            // Nothing but the finish of the extraction sends what the mail says.
            Point::FinishSent => wire.hold_request(AMOUNT),
            Point::FinishCommitted => wire.hold_reply_to(AMOUNT),
        }
    }
}

const AMOUNT: &[u8] = b"4.812,37";
const CREDITOR: &str = "forderungen@quarkstein-bank.example";
const STATEMENT: &str = "Sehr geehrte Frau Rechtsanwältin Dr. Brombeer,

die Forderung unseres Hauses aus dem am 04.06.2025 gekündigten Ratenkredit beträgt per heute 4.812,37 EUR. \
Sicherheiten bestehen nicht, die Forderung ist nicht tituliert.

Mit freundlichen Grüßen

Quarkstein Bank AG
";
const ABSENCE: &str = "Ich bin bis 12.03. nicht im Hause. Ihre Nachricht wird nicht weitergeleitet.";

async fn mail(world: &World, subject: &str, body: &str) -> EmailId {
    let statement = "insert into incoming_emails (source, webhook_id, from_email, from_name, subject, body_text, raw, received_at, fingerprint)
        values ('api', gen_random_uuid()::text, $1, 'Quarkstein Bank AG', $2, $3, '', '2026-02-17T09:14:22+01:00', sha256('')) returning id";
    let email: EmailId = world.sql.query_one(statement, &[&CREDITOR, &subject, &body]).await.unwrap().get(0);
    world.message("email_extraction", email, json!({ "email_id": email })).await;
    email
}

async fn after_a_kill_at(point: Point, workers: usize) {
    let world = World::new().await;
    let bank = doc! { "id": "b", "sender_name": "Quarkstein Bank AG", "sender_email": CREDITOR, "claim_amount": 4000 };
    world.client(vec![seeblick("a"), bank]).await;
    let states = mail(&world, "Eva Adler, Ihr Zeichen 2024/118", STATEMENT).await;
    let is_away = mail(&world, "Automatische Antwort: Abwesenheit", ABSENCE).await;
    let wire = Wire::before(&world.database.url).await;
    let held = point.hold(&wire);
    let victim = Relay::start(&world, &[("DATABASE_URL", &wire.instead(&world.relay_url()))]);
    let go_on = held.reached().await;
    let is_finished =
        "select bool_and(processed_at is not null) from outbox_messages where operation = 'email_extraction'";
    if point == Point::FinishCommitted {
        until(|| async { world.row(is_finished).await.get(0) }).await;
    } else {
        assert!(!world.row(is_finished).await.get::<_, bool>(0), "{point:?}");
    }

    // One that was there all the time and did what else there was, or one that comes afterwards.
    let survivor = if workers == 2 {
        let survivor = Relay::start(&world, &[]);
        mail(&world, "Automatische Antwort: Abwesenheit", ABSENCE).await;
        // What the held relay has claimed as well is left to the kill.
        let others = format!(
            "select count(*) = 0 from outbox_messages where processed_at is null and coalesce(claimed_by, '') not like '%:{}'",
            victim.pid()
        );
        until(|| async { world.row(&others).await.get(0) }).await;
        let leases = victim.kill().await;
        leases.end(&world).await;
        survivor
    } else {
        let leases = victim.kill().await;
        mail(&world, "Automatische Antwort: Abwesenheit", ABSENCE).await;
        leases.end(&world).await;
        Relay::start(&world, &[])
    };
    let ended = "select count(*) = 4 and bool_and(processed_at is not null) from outbox_messages";
    until(|| async { world.row(ended).await.get(0) }).await;
    // What the killed relay has sent arrives only now.
    drop(go_on);
    assert_eq!(survivor.terminate().await, Some(0));
    let gone = "select count(*) = 0 from pg_stat_activity where datname = current_database() and application_name = 'relay'";
    until(|| async { world.row(gone).await.get(0) }).await;
    is_as_if_nothing_had_happened(&world, states, is_away).await;
}

async fn is_as_if_nothing_had_happened(world: &World, states: EmailId, is_away: EmailId) {
    let messages = "select string_agg(concat_ws(' ', idempotency_key, aggregate_id), ', ') filter (where operation = 'creditor_debt_update'),
        string_agg(concat_ws(' ', replace(outcome, 'already', 'applied'), retry_count, unfinished_claims), ', ' order by operation, id)
        from outbox_messages";
    let row = world.row(messages).await;
    assert_eq!(row.get::<_, &str>(0), format!("creditor_debt_update:{states}:0 {states}"));
    let ends = "applied 0 0, extracted 0 0, not_creditor_reply 0 0, not_creditor_reply 0 0";
    assert_eq!(row.get::<_, &str>(1), ends);
    assert_eq!(world.shows(states).await, "completed/auto_matched/synced");
    assert_eq!(world.shows(is_away).await, "not_creditor_reply/-/not_applicable");
    let mails = "select count(*) from incoming_emails where sync_retry_count = 0 and sync_error is null
        and processing_error is null and cleaned_body <> '' and extracted_data is not null";
    assert_eq!(world.row(mails).await.get::<_, i64>(0), 3);
    let ledger = "select count(*), min(amount)::text, (select count(*) from decisions) from creditor_debts";
    let row = world.row(ledger).await;
    assert_eq!((row.get::<_, i64>(0), row.get::<_, &str>(1), row.get::<_, i64>(2)), (1, "4812.37", 1));
    assert_eq!(world.amount("b").await, Some(4812.37));
    assert_eq!(world.entries().await[0], seeblick("a"));
}

async fn a_kill_leaves_one_debt_update(point: Point) {
    for workers in [1, 2] {
        after_a_kill_at(point, workers).await;
    }
}

#[tokio::test]
async fn a_mail_whose_reader_is_killed_after_the_claim_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::ClaimCommitted).await;
}

#[tokio::test]
async fn a_mail_whose_reader_is_killed_while_it_reads_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::MailRead).await;
}

#[tokio::test]
async fn a_mail_whose_reader_is_killed_after_its_finish_was_sent_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::FinishSent).await;
}

#[tokio::test]
async fn a_mail_whose_reader_is_killed_after_its_finish_was_committed_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::FinishCommitted).await;
}
