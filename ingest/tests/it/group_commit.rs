//! Many requests in one transaction, each with the answer that it would have had alone.

use crate::harness::*;
use hyper::body::Bytes;
use ingest::{
    commit::{self, Answer, AnswerKind, CommitLimits, CommitRequest, FirstMessage},
    config::Config,
    database::Database as Postgres,
    group_commit::GroupCommit,
    poke::Poker,
    problem::Problem,
    request_body::HeldBody,
    request_key,
    source::zendesk,
};
use std::time::{Duration, Instant};
use testkit::Database;
use tokio::sync::oneshot;

pub(crate) type Answered = oneshot::Receiver<Result<Answer, Problem>>;

pub(crate) fn start(config: &Config) -> GroupCommit {
    GroupCommit::start(config, Postgres::over(config).unwrap(), Poker::default())
}

pub(crate) fn request(key: &str, body: String) -> CommitRequest {
    CommitRequest {
        source: "zendesk",
        request_key: key.into(),
        fingerprint: request_key::fingerprint(body.as_bytes()),
        email: zendesk::parse(body.as_bytes(), jiff::Timestamp::now()).unwrap(),
        raw: body.into(),
        first: FirstMessage::Extraction,
        traceparent: shared::trace::TraceParent::root(),
    }
}

/// Puts it into the queue. Tests run on one thread, so all that is submitted without an await between is taken together.
pub(crate) fn submit(commits: &GroupCommit, request: CommitRequest) -> Answered {
    commits.submit(request, HeldBody { bytes: Bytes::new(), share: None }).unwrap()
}

fn deliver(commits: &GroupCommit, id: &str) -> Answered {
    submit(commits, request(id, mail(id)))
}

async fn kind(answered: Answered) -> Result<AnswerKind, Problem> {
    answered.await.unwrap().map(|answer| answer.kind)
}

#[tokio::test]
async fn what_waits_together_is_one_transaction_and_ids_follow_the_arrival() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    let answered: Vec<_> = (0..64).rev().map(|number| deliver(&commits, &format!("w{number}"))).collect();
    let mut ids = Vec::new();
    for answer in answered {
        let Answer { kind, email_id } = answer.await.unwrap().unwrap();
        assert_eq!(kind, AnswerKind::Accepted);
        ids.push(email_id);
    }
    assert!(ids.is_sorted(), "{ids:?}");
    let client = database.client().await;
    assert_eq!(count(&client, "select count(distinct xmin::text) from incoming_emails").await, 1);
    // Each answer names the mail of its own request.
    let ninth = count(&client, "select id from incoming_emails where webhook_id = 'w55'").await;
    assert_eq!((rows(&client).await, ids[8]), ([64, 64, 64], ninth));
    assert_whole(&client).await;
}

#[tokio::test]
async fn repeats_within_a_batch_are_answered_from_the_first_of_them() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    let first = deliver(&commits, "w1");
    let same = deliver(&commits, "w1");
    let other = submit(&commits, request("w1", mail("w1").replace("4.812,37", "1,00")));
    let elsewhere = submit(&commits, request("another key", mail("w1")));
    assert_eq!(kind(first).await, Ok(AnswerKind::Accepted));
    assert_eq!(kind(same).await, Ok(AnswerKind::Duplicate));
    assert_eq!(kind(other).await, Err(Problem::KeyReused));
    assert_eq!(kind(elsewhere).await, Ok(AnswerKind::Duplicate));
    // The same again, of an earlier batch.
    let (same, other) = (deliver(&commits, "w1"), submit(&commits, request("w1", mail("w2"))));
    assert_eq!((kind(same).await, kind(other).await), (Ok(AnswerKind::Duplicate), Err(Problem::KeyReused)));
    assert_eq!(rows(&database.client().await).await, [1, 1, 1]);
}

#[tokio::test]
async fn a_row_that_the_database_refuses_fails_alone() {
    let database = Database::new().await;
    let client = database.client().await;
    let poison = "alter table incoming_emails add constraint poison check (webhook_id <> 'w17' and webhook_id <> 'w18')";
    client.batch_execute(poison).await.unwrap();
    let commits = start(&config(&database.url));
    let answered: Vec<_> = (0..64).map(|number| deliver(&commits, &format!("w{number}"))).collect();
    for (number, answer) in answered.into_iter().enumerate() {
        let expected =
            if [17, 18].contains(&number) { Err(Problem::Internal) } else { Ok(AnswerKind::Accepted) };
        assert_eq!(kind(answer).await, expected, "w{number}");
    }
    assert_eq!(rows(&client).await, [62, 62, 62]);
    assert_whole(&client).await;
}

#[tokio::test]
async fn deadlocks_and_serialization_errors_are_tried_again() {
    for code in ["40P01", "40001"] {
        let database = Database::new().await;
        let client = database.client().await;
        // A sequence is not rolled back: the first three statements fail, whatever they hold.
        let injected = format!(
            "create sequence failures;
            create function fail() returns trigger language plpgsql security definer as $$ begin
                if nextval('failures') <= 3 then raise exception 'injected' using errcode = '{code}'; end if; return null;
            end $$;
            create trigger fail before insert on incoming_emails for each statement execute function fail();"
        );
        client.batch_execute(&injected).await.unwrap();
        let commits = start(&config(&database.url));
        let answered: Vec<_> = (0..16).map(|number| deliver(&commits, &format!("w{number}"))).collect();
        for answer in answered {
            assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted), "{code}");
        }
        assert_eq!(rows(&client).await, [16, 16, 16]);
        assert_whole(&client).await;
    }
}

#[tokio::test]
async fn a_contested_key_keeps_nobody_else_waiting_however_often_it_comes() {
    let database = Database::new().await;
    let mut config = config(&database.url);
    config.limits.pool_size = 6; // four for the batches
    let commits = start(&config);
    let rival = Rival::holds(&database, "w7").await;
    let began = Instant::now();
    let contested: Vec<_> = (0..30).map(|_| deliver(&commits, "w7")).collect();
    let others: Vec<_> = (0..30).map(|number| deliver(&commits, &format!("other-{number}"))).collect();
    for answer in others {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted));
    }
    // The lock wait is a second, that of a batch a twentieth.
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    for answer in contested {
        assert_eq!(kind(answer).await, Err(Problem::RivalInFlight));
    }
    assert!(
        began.elapsed() < Duration::from_millis(1900),
        "together, not one after the other: {:?}",
        began.elapsed()
    );
    let again = deliver(&commits, "w7");
    rival.is_waited_for_by(1).await;
    rival.rolls_back().await;
    assert_eq!(kind(again).await, Ok(AnswerKind::Accepted));
    assert_eq!(rows(&database.client().await).await, [31, 31, 31]);
}

#[tokio::test]
async fn an_expired_key_and_a_known_delivery_get_their_answers_beside_new_ones() {
    let database = Database::new().await;
    let client = database.client().await;
    let commits = start(&config(&database.url));
    for id in ["old", "kept"] {
        assert_eq!(kind(deliver(&commits, id)).await, Ok(AnswerKind::Accepted));
    }
    let expire = "update idempotency_keys set created_at = now() - interval '2 s', expires_at = now() - interval '1 s'";
    client.batch_execute(expire).await.unwrap();
    // The key's time is over and its mail is another: taken over. The delivery is known for ever: answered.
    let over = submit(&commits, request("old", mail("new under an old key")));
    let known = deliver(&commits, "kept");
    let fresh = deliver(&commits, "fresh");
    assert_eq!(kind(over).await, Ok(AnswerKind::Accepted));
    assert_eq!(kind(known).await, Ok(AnswerKind::Duplicate));
    assert_eq!(kind(fresh).await, Ok(AnswerKind::Accepted));
    assert_eq!(count(&client, "select count(*) from incoming_emails").await, 4);
    assert_whole(&client).await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_what_is_in_it_is_stored() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    (narrow.limits.queue_rows, narrow.limits.batch_max) = (8, 8);
    let commits = start(&narrow);
    let waiting: Vec<_> = (0..8).map(|number| deliver(&commits, &format!("w{number}"))).collect();
    let began = Instant::now();
    let held = HeldBody { bytes: Bytes::new(), share: None };
    assert_eq!(commits.submit(request("w9", mail("w9")), held).err(), Some(Problem::Overloaded));
    assert!(began.elapsed() < Duration::from_millis(5));
    for answer in waiting {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted));
    }
    assert_eq!(rows(&database.client().await).await, [8, 8, 8]);
}

#[tokio::test]
async fn what_waits_at_the_end_of_the_program_is_stored_and_nothing_after_it() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    let waiting: Vec<_> = (0..200).map(|number| deliver(&commits, &format!("w{number}"))).collect();
    commits.all_committed().await;
    for answer in waiting {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted));
    }
    let held = HeldBody { bytes: Bytes::new(), share: None };
    assert!(commits.submit(request("late", mail("late")), held).is_err());
    assert_eq!(rows(&database.client().await).await, [200, 200, 200]);
}

#[tokio::test]
async fn what_waits_alone_counts_as_well_until_it_is_answered() {
    let database = Database::new().await;
    let mut narrow = config(&database.url);
    (narrow.limits.queue_rows, narrow.limits.lock_wait) = (2, PATIENCE);
    let commits = start(&narrow);
    let rival = Rival::holds(&database, "w1").await;
    let waiting = [deliver(&commits, "w1"), deliver(&commits, "w1")];
    rival.is_waited_for_by(1).await;
    let held = HeldBody { bytes: Bytes::new(), share: None };
    assert_eq!(commits.submit(request("w2", mail("w2")), held).err(), Some(Problem::Overloaded));
    rival.rolls_back().await;
    for (answer, expected) in waiting.into_iter().zip([AnswerKind::Accepted, AnswerKind::Duplicate]) {
        assert_eq!(kind(answer).await, Ok(expected));
    }
    assert_eq!(kind(deliver(&commits, "w2")).await, Ok(AnswerKind::Accepted));
}

#[tokio::test]
async fn known_deliveries_whose_keys_are_gone_are_found_by_one_look_for_all() {
    let database = Database::new().await;
    let client = database.client().await;
    let commits = start(&config(&database.url));
    let ids: Vec<_> = (0..60).map(|number| format!("w{number}")).collect();
    for answer in ids.iter().map(|id| deliver(&commits, id)).collect::<Vec<_>>() {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted));
    }
    client.batch_execute("delete from idempotency_keys").await.unwrap();
    let changed = submit(&commits, request("w0", mail("w0").replace("4.812,37", "1,00")));
    let fresh = deliver(&commits, "fresh");
    let known: Vec<_> = ids.iter().skip(1).map(|id| deliver(&commits, id)).collect();
    for answer in known {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Duplicate));
    }
    assert_eq!(kind(changed).await, Err(Problem::KeyReused));
    assert_eq!(kind(fresh).await, Ok(AnswerKind::Accepted));
    // Each statement draws an id for each of its rows: all of them, all again, and the new one.
    assert_eq!(count(&client, "select last_value from incoming_emails_id_seq").await, 60 + 61 + 1);
    assert_eq!(count(&client, "select count(*) from incoming_emails").await, 61);
}

#[tokio::test]
async fn a_key_that_is_taken_decides_whatever_goes_wrong_beside_it() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    for (key, id) in [("k1", "m1"), ("k2", "m2")] {
        assert_eq!(kind(submit(&commits, request(key, mail(id)))).await, Ok(AnswerKind::Accepted));
    }
    let known = submit(&commits, request("k3", mail("m1")));
    let taken = submit(&commits, request("k2", mail("m1")));
    assert_eq!(kind(known).await, Ok(AnswerKind::Duplicate));
    assert_eq!(kind(taken).await, Err(Problem::KeyReused), "as it would be alone");
}

#[tokio::test]
async fn a_row_that_a_trigger_refuses_fails_alone_as_well() {
    let database = Database::new().await;
    let client = database.client().await;
    let refuse = "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
        create trigger refuse before insert on incoming_emails for each row when (new.webhook_id = 'w3') execute function refuse();";
    client.batch_execute(refuse).await.unwrap();
    let commits = start(&config(&database.url));
    let answered: Vec<_> = (0..8).map(|number| deliver(&commits, &format!("w{number}"))).collect();
    for (number, answer) in answered.into_iter().enumerate() {
        let expected = if number == 3 { Err(Problem::Internal) } else { Ok(AnswerKind::Accepted) };
        assert_eq!(kind(answer).await, expected, "w{number}");
    }
}

#[tokio::test]
async fn other_content_beside_a_known_delivery_under_the_same_key_is_new() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    assert_eq!(kind(deliver(&commits, "known")).await, Ok(AnswerKind::Accepted));
    let together = ["known", "known", "new", "new"].map(|id| submit(&commits, request("key", mail(id))));
    let [known, again, new, repeat] = together;
    for (answer, expected) in [
        (known, AnswerKind::Duplicate),
        (again, AnswerKind::Duplicate),
        (new, AnswerKind::Accepted),
        (repeat, AnswerKind::Duplicate),
    ] {
        assert_eq!(kind(answer).await, Ok(expected));
    }
    assert_eq!(rows(&database.client().await).await, [2, 2, 2]);
}

/// A statement that waits for a key holds only keys that sort before it: two of them never wait for each other.
#[tokio::test]
async fn keys_are_taken_in_their_order_and_not_in_that_of_arrival() {
    let database = Database::new().await;
    let rival = Rival::holds(&database, "a").await;
    let limits = CommitLimits { lock_wait: PATIENCE, key_lifetime: PATIENCE };
    let (waiting, free) = (pooled(&database).await, pooled(&database).await);
    let store = async |client: &shared::postgres::Connection, keys: &[&str]| {
        let requests: Vec<_> = keys.iter().map(|key| request(key, mail(&format!("mail {key}")))).collect();
        commit::store(client, &requests.iter().collect::<Vec<_>>(), limits).await.unwrap().len()
    };
    let other = async {
        rival.is_waited_for_by(1).await;
        let stored = store(&free, &["c"]).await; // would wait for the other statement, and that one for the rival
        rival.rolls_back().await;
        stored
    };
    assert_eq!(tokio::join!(store(&waiting, &["c", "b", "a"]), other), (2, 1));
}

#[tokio::test]
async fn a_client_that_has_left_changes_nothing_for_its_batch() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    drop(deliver(&commits, "left"));
    assert_eq!(kind(deliver(&commits, "stayed")).await, Ok(AnswerKind::Accepted));
    commits.all_committed().await;
    assert_eq!(rows(&database.client().await).await, [2, 2, 2]);
}

#[tokio::test]
async fn a_batch_of_large_mails_is_cut_into_several_transactions() {
    let database = Database::new().await;
    let commits = start(&config(&database.url));
    let large = |number: usize| {
        let text = mail(&format!("w{number}")).replace("4.812,37", &"9".repeat(900_000));
        submit(&commits, request(&format!("w{number}"), text))
    };
    let answered: Vec<_> = (0..20).map(large).collect();
    for answer in answered {
        assert_eq!(kind(answer).await, Ok(AnswerKind::Accepted));
    }
    let client = database.client().await;
    let transactions = "select count(distinct xmin::text) from incoming_emails";
    assert_eq!((rows(&client).await, count(&client, transactions).await), ([20, 20, 20], 5));
}
