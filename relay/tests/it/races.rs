//! The portal and other relays change the document between our read and our write.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::{Document, doc};
use relay::lane::Summary;

/// The first bytes of the update command: a string member called `update`.
const UPDATE_COMMAND: &[u8] = b"\x02update\0";

/// Runs the relay up to the update command, lets the portal write, and lets the relay go on.
async fn with_a_portal_write(world: &World, change: Document) -> Summary {
    let (context, wire) = world.context_over_wire().await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let relay = world.try_once(&context);
    let portal = async {
        let go_on = point.reached().await;
        world.mongo.clients.update_one(doc! {}, change).await.unwrap();
        go_on.send(()).unwrap();
    };
    let ((summary, end), ()) = tokio::join!(relay, portal);
    assert_eq!(end, Ok(()));
    summary
}

fn list(entries: Vec<Document>) -> Document {
    doc! { "$set": { "final_creditor_list": entries } }
}

#[tokio::test]
async fn a_reordered_list_still_gets_the_right_entry() {
    let without_id = |mut entry: Document| {
        entry.remove("id");
        entry
    };
    let forms: [&dyn Fn(Document) -> Document; 2] = [&|entry| entry, &without_id];
    for form in forms {
        let world = World::new().await;
        world.client(vec![form(turmhaus("b")), form(seeblick("a"))]).await;
        let email = world.commit(Update::default()).await;
        let moved = vec![form(seeblick("a")), form(turmhaus("b"))];
        let summary = with_a_portal_write(&world, list(moved)).await;
        assert_eq!(summary.applied, 1);
        assert_eq!(world.state(email).await, "done/applied/0");
        let entries = world.entries().await;
        assert!(!entries[0].contains_key("current_debt_amount"), "the other creditor has no debt of ours");
        assert_eq!(entries[1].get_f64("current_debt_amount").unwrap(), 1234.56);
    }
}

#[tokio::test]
async fn a_rewrite_that_drops_our_mark_lets_the_newer_through_and_the_older_not() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    world.commit(Update::of("1000", "2026-01-02T00:00:00Z")).await;
    world.once().await;
    let newer = world.commit(Update::of("1100", "2026-01-03T00:00:00Z")).await;
    let drop_mark = doc! { "$unset": { "final_creditor_list.0._relay": "" } };
    with_a_portal_write(&world, drop_mark.clone()).await;
    assert_eq!(world.state(newer).await, "done/applied/0");
    assert_eq!(world.amount("b").await, Some(1100.0));

    let older = world.commit(Update::of("1200", "2026-01-02T12:00:00Z")).await;
    world.mongo.clients.update_one(doc! {}, drop_mark).await.unwrap();
    world.once().await;
    assert_eq!(world.state(older).await, "done/superseded/0");
    assert_eq!(world.amount("b").await, Some(1100.0));
}

#[tokio::test]
async fn an_older_message_loses_even_when_the_list_is_reordered_and_our_mark_dropped_before_its_write() {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("a")]).await;
    let older = world.commit(Update::of("1200", "2026-01-01T00:00:00Z")).await;
    let (context, wire) = world.context_over_wire().await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let slow = world.try_once(&context);
    let others = async {
        let go_on = point.reached().await;
        world.commit(Update::of("1300", "2026-01-02T00:00:00Z")).await;
        assert_eq!(world.once().await.applied, 1);
        let mut entry = world.entries().await.remove(0);
        entry.remove("_relay");
        let rewritten = list(vec![seeblick("a"), entry]);
        world.mongo.clients.update_one(doc! {}, rewritten).await.unwrap();
        go_on.send(()).unwrap();
    };
    let ((_, end), ()) = tokio::join!(slow, others);
    assert_eq!(end, Ok(()));
    assert_eq!(world.state(older).await, "done/superseded/0");
    assert_eq!(world.amount("b").await, Some(1300.0));
    assert_eq!(world.amount("a").await, None);
}

#[tokio::test]
async fn an_amount_that_somebody_raises_meanwhile_is_guarded_anew() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    with_a_portal_write(&world, doc! { "$set": { "final_creditor_list.0.current_debt_amount": 5000 } }).await;
    assert_eq!(world.state(email).await, "done/held_for_review/0");
    assert!(world.row("select reason from decisions").await.get::<_, &str>(0).contains("lower"));
    let entry = world.entries().await.remove(0);
    assert_eq!(entry.get_i32("current_debt_amount").unwrap(), 5000);
}

#[tokio::test]
async fn a_newer_update_that_another_relay_writes_meanwhile_wins() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let older = world.commit(Update::of("2000", "2026-01-01T00:00:00Z")).await;
    let (context, wire) = world.context_over_wire().await;
    let point = wire.hold_at(UPDATE_COMMAND);
    let slow = world.try_once(&context);
    let fast = async {
        let go_on = point.reached().await;
        let newer = world.commit(Update::of("3000", "2026-01-02T00:00:00Z")).await;
        assert_eq!(world.once().await.applied, 1);
        go_on.send(()).unwrap();
        newer
    };
    let ((summary, _), newer) = tokio::join!(slow, fast);
    assert_eq!(summary.superseded, 1);
    assert_eq!(
        (world.state(older).await, world.state(newer).await),
        ("done/superseded/0".into(), "done/applied/0".into())
    );
    assert_eq!(world.amount("b").await, Some(3000.0));
}

#[tokio::test]
async fn a_newer_update_that_only_confirms_the_stored_amount_wins_too() {
    for mark_is_dropped in [false, true] {
        let world = World::new().await;
        let mut entry = turmhaus("b");
        entry.insert("current_debt_amount", 1500.0);
        world.client(vec![entry]).await;
        let older = world.commit(Update::of("1600", "2026-01-01T00:00:00Z")).await;
        let (context, wire) = world.context_over_wire().await;
        let point = wire.hold_at(UPDATE_COMMAND);
        let slow = world.try_once(&context);
        let fast = async {
            let go_on = point.reached().await;
            // The amount stays as the slow relay has read it.
            world.commit(Update::of("1500", "2026-01-02T00:00:00Z")).await;
            assert_eq!(world.once().await.applied, 1);
            if mark_is_dropped {
                let drop_mark = doc! { "$unset": { "final_creditor_list.0._relay": "" } };
                world.mongo.clients.update_one(doc! {}, drop_mark).await.unwrap();
            }
            go_on.send(()).unwrap();
        };
        let ((summary, _), ()) = tokio::join!(slow, fast);
        assert_eq!(summary.superseded, 1, "mark_is_dropped {mark_is_dropped}");
        assert_eq!(world.state(older).await, "done/superseded/0");
        assert_eq!(world.amount("b").await, Some(1500.0));
    }
}

#[tokio::test]
async fn a_finish_that_comes_late_never_takes_the_ledger_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let older = world.commit(Update::of("2000", "2026-01-01T00:00:00Z")).await;
    let wire = testkit::Wire::before(&world.database.url).await;
    let mut config = world.config(&world.mongo.url);
    config.database_url = wire.instead(&world.relay_url()).parse().unwrap();
    let context = relay::relay::context(&config).await.unwrap();
    let point = wire.hold_at(b"fenced as (");
    let slow = world.try_once(&context);
    let fast = async {
        let go_on = point.reached().await; // the older amount is in MongoDB, its finish is on its way
        world.commit(Update::of("3000", "2026-01-02T00:00:00Z")).await;
        assert_eq!(world.once().await.applied, 1);
        go_on.send(()).unwrap();
    };
    let ((summary, _), ()) = tokio::join!(slow, fast);
    assert_eq!(summary.applied, 1);
    assert_eq!(world.state(older).await, "done/applied/0");
    assert_eq!(world.row("select amount::text from creditor_debts").await.get::<_, &str>(0), "3000.00");
}

#[tokio::test]
async fn an_entry_that_is_gone_when_we_write_ends_as_a_case_for_a_person() {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("a")]).await;
    let email = world.commit(Update::default()).await;
    with_a_portal_write(&world, list(vec![seeblick("a")])).await;
    assert_eq!(world.state(email).await, "done/held_for_review/0");
    assert_eq!(world.entries().await, [seeblick("a")]);
}

#[tokio::test]
async fn many_messages_and_two_relays_end_in_the_newest_amount_of_every_entry() {
    const ENTRIES: usize = 20;
    const UPDATES: usize = 30;
    let world = World::new().await;
    let keys: Vec<String> = (0..ENTRIES).map(|at| format!("e{at}")).collect();
    let entry = |key: &String| doc! { "id": key, "sender_email": format!("{key}@turmhaus.example") };
    world.client(keys.iter().map(entry).collect()).await;
    for round in 0..UPDATES {
        for at in 0..ENTRIES {
            // Every entry gets its amounts in another shuffled order.
            let day = (round * 7 + at * 3) % UPDATES;
            let (email, received_at) =
                (format!("e{at}@turmhaus.example"), format!("2026-01-{:02}T00:00:00Z", day + 1));
            let update = Update {
                amount: Some(format!("{}.25", 1000 + day)),
                received_at: received_at.leak(),
                creditor_email: email.leak(),
                ..Update::default()
            };
            world.commit(update).await;
        }
    }
    let (one, two) = (world.context().await, world.context().await);
    let ((first, one_end), (second, two_end)) = tokio::join!(world.try_once(&one), world.try_once(&two));
    assert_eq!((one_end, two_end), (Ok(()), Ok(())));
    let total = first + second;
    assert_eq!(total.claimed, (ENTRIES * UPDATES) as u64);
    assert_eq!(total.applied + total.superseded + total.held, total.claimed);
    assert_eq!(total.held, 0, "amounts never fall with time, so none is held: {total:?}");
    for key in &keys {
        assert_eq!(world.amount(key).await, Some(1000.25 + (UPDATES - 1) as f64), "{key}");
    }
    let wrong = "select count(*) from creditor_debts where amount <> 1029.25";
    assert_eq!(world.row(wrong).await.get::<_, i64>(0), 0);
}
