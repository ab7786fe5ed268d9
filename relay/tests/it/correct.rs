//! `relay correct`: an amount that a mail has brought is put right, or the one before it given back.

use crate::{
    mail_server::MailServer,
    world::{Update, World, seeblick, turmhaus},
};
use relay::{
    correct::{CorrectError, Corrected, Right, State, Wish, correct},
    review::{self, Choice},
};
use serde_json::Value;
use shared::message::EmailId;

/// 900 EUR was there, and a mail has brought 1234.56.
async fn written_world() -> (World, EmailId) {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 900.0);
    world.client(vec![entry, seeblick("s")]).await;
    let email = world.commit(Update::default()).await;
    assert_eq!(world.once().await.applied, 1);
    (world, email)
}

fn amount(text: &str) -> Right {
    Right::Amount(text.parse().unwrap())
}

async fn ask(world: &World, email: EmailId, right: Right) -> Result<Corrected, CorrectError> {
    ask_for(world, email, right, None).await
}

async fn ask_for(
    world: &World,
    email: EmailId,
    right: Right,
    entry: Option<&str>,
) -> Result<Corrected, CorrectError> {
    let entry = entry.map(str::to_owned);
    let wish = Wish { right, entry, by: "Frau Kundig".into(), reason: "a slip".into() };
    correct(&mut world.operator().await, email, &wish).await
}

async fn messages(world: &World) -> i64 {
    world.row("select count(*) from outbox_messages").await.get(0)
}

#[tokio::test]
async fn the_right_amount_is_written_past_the_guard_with_its_own_time_and_everything_is_kept() {
    let (world, email) = written_world().await;
    let before =
        world.entries().await[0].get_document("_relay").unwrap().get_str("stamp").unwrap().to_owned();
    let corrected = ask(&world, email, amount("100")).await.unwrap();
    assert_eq!(corrected.state, State::Enqueued);
    assert_eq!((corrected.entry_key.as_str(), corrected.old_amount), ("b", "1234.56".parse().ok()));
    assert_eq!(world.shows(email).await, "completed/auto_matched/pending");
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(100.0));
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
    let mark = world.entries().await[0].get_document("_relay").unwrap().clone();
    assert!(mark.get_str("stamp").unwrap() > before.as_str());
    assert_eq!((mark.get_i64("email").unwrap(), mark.get_f64("previous").unwrap()), (email, 1234.56));

    let decisions = "select string_agg(concat_ws(' ', decision, actor, old_amount, new_amount), ', ' order by id) from decisions";
    assert_eq!(
        world.row(decisions).await.get::<_, &str>(0),
        "applied relay 900.00 1234.56, corrected Frau Kundig 1234.56 100.00, applied Frau Kundig 1234.56 100.00"
    );
    let act = world.row("select action, actor, message_id, email_id, detail from operator_actions").await;
    assert_eq!((act.get::<_, &str>(0), act.get::<_, &str>(1)), ("correct", "Frau Kundig"));
    assert_eq!((act.get::<_, Option<i64>>(2), act.get::<_, i64>(3)), (corrected.message_id, email));
    let detail: Value = act.get(4);
    assert_eq!((&detail["reason"], &detail["new_amount"]), (&"a slip".into(), &"100.00".into()));
    let key: String =
        world.row("select idempotency_key from outbox_messages order by id desc limit 1").await.get(0);
    assert!(key.starts_with(&format!("creditor_debt_update:{email}:correct:0")), "{key}");
}

#[tokio::test]
async fn the_amount_before_the_mail_is_given_back_and_stays_the_one_before_the_mail() {
    let (world, email) = written_world().await;
    assert_eq!(ask(&world, email, Right::Before).await.unwrap().new_amount, "900".parse().unwrap());
    world.once().await;
    assert_eq!(world.amount("b").await, Some(900.0));
    // A second one does not swing back to what was wrong.
    let again = ask(&world, email, Right::Before).await.unwrap();
    assert_eq!((again.state, again.new_amount), (State::Stored, "900".parse().unwrap()));
    ask(&world, email, amount("700")).await.unwrap();
    world.once().await;
    ask(&world, email, Right::Before).await.unwrap();
    world.once().await;
    assert_eq!(world.amount("b").await, Some(900.0));
    let reverted = world.row("select count(*) from decisions where decision = 'reverted'").await;
    assert_eq!(reverted.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn without_an_amount_before_there_is_nothing_to_give_back() {
    let world = World::new().await;
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    world.once().await;
    let refused = ask(&world, email, Right::Before).await;
    assert!(matches!(refused, Err(CorrectError::NothingBefore(_))), "{refused:?}");
    assert_eq!(messages(&world).await, 1);
}

#[tokio::test]
async fn the_same_amount_twice_is_one_correction_and_another_one_takes_its_place() {
    let (world, email) = written_world().await;
    let first = ask(&world, email, amount("100")).await.unwrap();
    let second = ask(&world, email, amount("100.00")).await.unwrap();
    assert_eq!((second.state, second.message_id), (State::Waiting, first.message_id));
    // What is stored is not what is wanted while another one waits.
    assert_eq!(ask(&world, email, amount("1234.56")).await.unwrap().state, State::Enqueued);
    assert_eq!(messages(&world).await, 3);
    world.once().await;
    assert_eq!(world.amount("b").await, Some(1234.56), "the later one wins, whatever the order");
    assert_eq!(ask(&world, email, amount("1234.56")).await.unwrap().state, State::Stored);
    assert_eq!(messages(&world).await, 3);
    assert_eq!(world.row("select count(*) from operator_actions").await.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn what_a_newer_mail_has_written_is_not_corrected_through_an_older_one() {
    let (world, old) = written_world().await;
    let new = world.commit(Update::of("2000", "2026-03-01T00:00:00Z")).await;
    let late = world.commit(Update::of("1500", "2026-02-20T00:00:00Z")).await;
    world.once().await;
    for email in [old, late] {
        let refused = ask(&world, email, amount("1")).await.unwrap_err();
        assert!(matches!(refused, CorrectError::Newer(_, _, newer) if newer == new), "{refused}");
        assert!(refused.to_string().contains(&format!("relay correct {new}")), "{refused}");
    }
    assert_eq!(world.row("select count(*) from operator_actions").await.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_mail_that_has_written_nothing_or_several_entries_is_told() {
    let (world, email) = written_world().await;
    let parked = world.commit(Update { aktenzeichen: "9999", ..Update::default() }).await;
    world.once().await;
    assert!(matches!(ask(&world, parked, amount("1")).await, Err(CorrectError::NothingWritten(_))));
    assert!(matches!(ask(&world, 99, amount("1")).await, Err(CorrectError::NoMail(99))));

    // A person has sent the same mail to another entry too.
    world
        .run(&format!(
            "insert into decisions (email_id, message_id, new_amount, decision, reason, candidates, actor)
            select email_id, message_id, new_amount, decision, reason,
                jsonb_build_array(jsonb_build_object('client_id', candidates -> 0 -> 'client_id', 'entries', '[{{\"entry_key\": \"s\"}}]'::jsonb)), actor
            from decisions where email_id = {email};
            insert into creditor_debts select client_id, 's', aktenzeichen, amount, stamp, message_id, email_id from creditor_debts"
        ))
        .await;
    let several = ask(&world, email, amount("1")).await.unwrap_err().to_string();
    let client: String = world.row("select client_id from creditor_debts limit 1").await.get(0);
    assert!(several.contains(&format!("{client}/b, {client}/s")), "{several}");
    let other = ask_for(&world, email, amount("1"), Some("x/y")).await;
    assert!(matches!(other, Err(CorrectError::OtherEntry(..))), "{other:?}");
    ask_for(&world, email, amount("5"), Some(&format!("{client}/s"))).await.unwrap();
    world.once().await;
    assert_eq!((world.amount("s").await, world.amount("b").await), (Some(5.0), Some(1234.56)));
}

#[tokio::test]
async fn a_correction_outlasts_its_mails_message_and_a_replay_of_the_older_state() {
    let (world, email) = written_world().await;
    let payload: Value = world.row("select payload from outbox_messages").await.get(0);
    // Retention has removed the message; what is left is the mail.
    let extracted = serde_json::json!({"is_creditor_reply": true, "client_name": "Adler, Eva", "client_aktenzeichen": "2024/118",
        "creditor_name": null, "debt_amount": "1234.56", "reference_numbers": [], "confidence": null, "summary": null});
    world.sql.execute("update incoming_emails set extracted_data = $1", &[&extracted]).await.unwrap();
    world.run("delete from outbox_messages").await;
    ask(&world, email, amount("100")).await.unwrap();
    world.once().await;
    let mut replay = payload;
    replay["origin"] = "replay".into();
    let replay = world.message("creditor_debt_update", email, replay).await;
    world.once().await;
    assert_eq!(world.amount("b").await, Some(100.0));
    let outcome = format!("select outcome from outbox_messages where id = {replay}");
    assert_eq!(world.row(&outcome).await.get::<_, &str>(0), "superseded");
    assert_eq!(world.shows(email).await, "completed/auto_matched/synced");
}

#[tokio::test]
async fn a_correction_whose_entry_is_gone_is_held_and_can_be_decided() {
    let (world, email) = written_world().await;
    // So that revision 1 of the mail is taken: the correction's successor has another key.
    ask(&world, email, amount("100")).await.unwrap();
    world.run("update outbox_messages set payload = payload || '{\"entry_key\": \"gone\"}' where outcome is null").await;
    assert_eq!(world.once().await.held, 1);
    assert_eq!(world.shows(email).await, "completed/needs_review/not_applicable");
    let mut connection = world.operator().await;
    let choice = Choice { creditor: Some("b".into()), ..Choice::default() };
    review::accept(&mut connection, email, choice, "clerk").await.unwrap();
    assert_eq!(world.once().await.applied, 1);
    assert_eq!(world.amount("b").await, Some(100.0));
    let keys = "select count(*) from outbox_messages where idempotency_key like '%:correct:%'";
    assert_eq!(world.row(keys).await.get::<_, i64>(0), 2);
}

#[tokio::test]
async fn the_command_says_what_it_does_and_explain_shows_it() {
    let (world, email) = written_world().await;
    let id = email.to_string();
    for wrong in [
        vec!["correct", &id],
        vec!["correct", &id, "--amount", "1", "--revert"],
        vec!["correct", &id, "--amount", "-1"],
        vec!["correct", "x", "--amount", "1"],
    ] {
        assert_eq!(world.relay(&wrong).await.0, 2, "{wrong:?}");
    }
    assert_eq!(
        world.relay(&["correct", "99", "--amount", "1"]).await.2.trim(),
        "relay: there is no email 99"
    );
    let (code, said, _) = world.relay(&["correct", &id, "--amount", "100"]).await;
    assert!(
        code == 0 && said.contains("1234.56 -> 100.00 EUR for creditor b of client 2024_118 by clerk"),
        "{said}"
    );
    let json: Value =
        serde_json::from_str(&world.relay(&["correct", &id, "--amount", "100", "--json"]).await.1).unwrap();
    assert_eq!((&json["state"], &json["new_amount"]), (&"waiting".into(), &"100.00".into()));
    world.once().await;
    assert!(world.relay(&["correct", &id, "--amount", "100"]).await.1.contains("is what is stored"));
    let told = world.relay(&["explain", &id]).await.1;
    for words in [
        "corrected by clerk: a person puts the amount right; 1234.56 -> 100.00 EUR; client",
        "applied by clerk: written; 1234.56 -> 100.00 EUR",
        "ledger: client 2024_118",
        "MongoDB: client 2024_118, creditor b: 100.00 EUR, stamp 0",
        "before it 1234.56 EUR",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[tokio::test]
async fn the_firm_is_told_of_a_correction_by_a_letter_of_its_own() {
    let (world, server) = (World::new().await, MailServer::new().await);
    let mut context = world.context().await;
    context.mailer = Some(server.mailer());
    world.client(vec![turmhaus("b")]).await;
    let email = world.commit(Update::default()).await;
    world.try_once(&context).await.1.unwrap();
    ask(&world, email, amount("100")).await.unwrap();
    world.try_once(&context).await.1.unwrap();
    let letters = server.letters();
    assert_eq!(letters.len(), 2);
    let letter = &letters[1];
    assert!(letter.text().contains("Forderungsbetrag bisher: 1.234,56 EUR"), "{}", letter.text());
    assert!(letter.text().contains("Entschieden von: Frau Kundig"), "{}", letter.text());
    let id = letter.header("Message-ID").to_owned();
    assert!(id.starts_with(&format!("<debt_update_notification.{email}.correct.0")), "{id}");
    let told = world.program(&world.mongo.url, &["explain", &email.to_string()]).output().await.unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.matches("debt_update_notification enqueued").count() >= 1, "{told}");
    let letters = "select count(*) from outbox_messages where idempotency_key like 'debt_update_notification:%:correct:%'";
    assert_eq!(world.row(letters).await.get::<_, i64>(0), 1);
    assert!(told.contains(": sent"), "{told}");
}

#[tokio::test]
async fn of_two_people_with_the_same_amount_one_is_told_that_it_waits() {
    let (world, email) = written_world().await;
    let (one, other) = tokio::join!(ask(&world, email, amount("100")), ask(&world, email, amount("100")));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.state != other.state && one.message_id == other.message_id, "{one:?} {other:?}");
    assert_eq!(messages(&world).await, 2);
    assert_eq!(world.once().await.applied, 1);
}

#[tokio::test]
async fn a_mail_that_comes_after_the_correction_is_written_over_it() {
    let (world, email) = written_world().await;
    ask(&world, email, amount("100")).await.unwrap();
    world.once().await;
    let received_at: jiff::Timestamp = "2026-02-18T00:00:00Z".parse().unwrap();
    assert!(received_at < jiff::Timestamp::now());
    let before = world.commit(Update::of("3000", "2026-02-18T00:00:00Z")).await;
    world.once().await;
    assert_eq!(
        (world.state(before).await.as_str(), world.amount("b").await),
        ("done/superseded/0", Some(100.0))
    );
    let after = world.commit(Update::of("4000", "2200-01-01T00:00:00Z")).await;
    world.once().await;
    assert_eq!(
        (world.state(after).await.as_str(), world.amount("b").await),
        ("done/applied/0", Some(4000.0))
    );
}
