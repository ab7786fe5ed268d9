//! A person's decision about a held mail.

use crate::world::{Update, World, turmhaus};
use relay::operator::{self, ReviewError};

async fn held_world() -> (World, i64) {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 5000.0);
    world.client(vec![entry]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    (world, email)
}

#[tokio::test]
async fn an_accepted_amount_is_written_past_the_guard_as_the_next_revision() {
    let (world, email) = held_world().await;
    let connection = world.context().await.pool.get().await.unwrap();
    let held = operator::held(&connection, 10).await.unwrap();
    assert_eq!((held.len(), held[0].email_id, held[0].new_amount.as_deref()), (1, email, Some("1234.56")));
    assert!(held[0].reason.contains("lower"));

    operator::accept(&connection, email, None, "Frau Kundig").await.unwrap();
    assert!(operator::held(&connection, 10).await.unwrap().is_empty(), "decided");
    assert!(matches!(
        operator::accept(&connection, email, None, "Herr Zweit").await,
        Err(ReviewError::NotHeld(_))
    ));
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(1234.56));
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let stamp: String =
        world.entries().await[0].get_document("_relay").unwrap().get_str("stamp").unwrap().into();
    assert_eq!(stamp.parse::<i64>().unwrap() & 0xF, 1);
    let actors =
        world.row("select string_agg(decision || ' ' || actor, ', ' order by id) from decisions").await;
    assert_eq!(actors.get::<_, &str>(0), "held_for_review relay, accepted Frau Kundig, applied Frau Kundig");
}

#[tokio::test]
async fn a_decision_that_comes_after_a_newer_mail_is_superseded() {
    let (world, email) = held_world().await;
    world.commit(Update::of("6000", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    let connection = world.context().await.pool.get().await.unwrap();
    operator::accept(&connection, email, "4000".parse().ok(), "clerk").await.unwrap();
    assert_eq!(world.once().await.superseded, 1);
    assert_eq!(world.amount("b").await, Some(6000.0));
}
