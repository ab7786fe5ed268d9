//! Relays that are killed while they fetch a mail: it ends as if nothing had happened, read once and written once.

use crate::{
    feed::Relay,
    fetch::{KEY, Provider, STATEMENT, bank, stored_there, to_fetch},
    outages::until,
    world::{World, seeblick},
};
use serde_json::json;
use testkit::{HoldPoint, Wire};

/// Where in the traffic the relay is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    ClaimCommitted,
    MailOnItsWay,
    FinishSent,
    FinishCommitted,
}

impl Point {
    fn hold(self, postgres: &Wire, provider: &Wire) -> HoldPoint {
        match self {
            Point::ClaimCommitted => postgres.hold_reply(b"provider_id"), // the payload
            Point::MailOnItsWay => provider.hold_reply(AMOUNT),
            // The first that sends the mail's words is the finish of the fetch.
            Point::FinishSent => postgres.hold_request(AMOUNT),
            Point::FinishCommitted => postgres.hold_reply_to(AMOUNT),
        }
    }
}

const AMOUNT: &[u8] = b"4.812,37";

async fn a_kill_leaves_one_debt_update(point: Point) {
    let world = World::new().await;
    world.client(vec![seeblick("a"), bank()]).await;
    let provider = Provider::new().await;
    provider.has("e1", stored_there(STATEMENT, json!({ "Auto-Submitted": "no" })));
    let email = to_fetch(&world, "e1").await;
    let (postgres, api) = (Wire::before(&world.database.url).await, Wire::before(&provider.url).await);
    let held = point.hold(&postgres, &api);
    let victim = Relay::start(
        &world,
        &[
            ("DATABASE_URL", &postgres.instead(&world.relay_url())),
            ("RESEND_API_KEY", KEY),
            ("RESEND_URL", &api.instead(&provider.url)),
        ],
    );
    let go_on = held.reached().await;
    let is_finished =
        "select bool_and(processed_at is not null) from outbox_messages where operation = 'email_fetch'";
    if point == Point::FinishCommitted {
        until(|| async { world.row(is_finished).await.get(0) }).await;
    } else {
        assert!(!world.row(is_finished).await.get::<_, bool>(0), "{point:?}");
    }
    victim.kill().await.end(&world).await;
    let survivor = Relay::start(&world, &[("RESEND_API_KEY", KEY), ("RESEND_URL", &provider.url)]);
    let ended = "select count(*) = 3 and bool_and(processed_at is not null) from outbox_messages";
    until(|| async { world.row(ended).await.get(0) }).await;
    // What the killed relay has sent arrives only now.
    drop(go_on);
    assert_eq!(survivor.terminate().await, Some(0));
    let gone = "select count(*) = 0 from pg_stat_activity where datname = current_database() and application_name = 'relay'";
    until(|| async { world.row(gone).await.get(0) }).await;

    let messages = "select string_agg(concat_ws(' ', operation, replace(outcome, 'already', 'applied'), retry_count, unfinished_claims),
        ', ' order by id) from outbox_messages";
    assert_eq!(
        world.row(messages).await.get::<_, &str>(0),
        "email_fetch fetched 0 0, email_extraction extracted 0 0, creditor_debt_update applied 0 0"
    );
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let mail = "select body_text, headers::text, sync_retry_count, sync_error is null from incoming_emails";
    let row = world.row(mail).await;
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (STATEMENT, r#"{"auto-submitted": "no"}"#));
    assert_eq!((row.get::<_, i32>(2), row.get::<_, bool>(3)), (0, true));
    assert_eq!(world.amount("b").await, Some(4812.37));
    assert_eq!(world.row("select count(*) from decisions").await.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_after_the_claim_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::ClaimCommitted).await;
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_while_it_fetches_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::MailOnItsWay).await;
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_after_its_finish_was_sent_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::FinishSent).await;
}

#[tokio::test]
async fn a_mail_whose_fetcher_is_killed_after_its_finish_was_committed_ends_in_one_debt_update() {
    a_kill_leaves_one_debt_update(Point::FinishCommitted).await;
}
