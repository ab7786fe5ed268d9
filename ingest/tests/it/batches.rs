//! Whatever is delivered at the same moment, by one program or by several, in batches of any size: answers and rows are as in a small
//! model, which is told what came and finds in Postgres what was stored of it.
//!
//! A case is a list of rounds; the deliveries of a round come at once. That the model sees anything is shown by a database that is broken
//! on purpose, and by answers that are mixed up. `PROPTEST_CASES` raises the number of cases.

use crate::{
    group_commit::{request, start, submit},
    harness::*,
};
use ingest::{
    commit::{Answer, AnswerKind},
    problem::Problem,
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::{collections::HashMap, time::Duration};
use testkit::Database;
use tokio_postgres::Client;

/// The provider's id that the database refuses.
const REFUSED: u8 = 9;

/// One request, as numbers: its key, the provider's id, its content; and whether its client leaves before the answer.
#[derive(Debug, Clone, Copy)]
struct Delivery {
    key: u8,
    says: Says,
    leaves: bool,
}

type Says = (u8, u8);

#[derive(Debug, Clone)]
struct Round {
    deliveries: Vec<Delivery>,
    /// A key that somebody else holds for the whole round, and gives back.
    rival: Option<u8>,
}

/// How many programs, and how many requests each commits at once.
const WAYS: [(usize, usize); 4] = [(1, 1), (1, 64), (2, 64), (2, 3)];

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let delivery = (0..12_u8, 0..=REFUSED, 0..2_u8, prop::bool::weighted(0.1))
        .prop_map(|(key, id, content, leaves)| Delivery { key, says: (id, content), leaves });
    let rival = prop::option::weighted(0.15, 0..12_u8);
    let round = (prop::collection::vec(delivery, 1..40), rival)
        .prop_map(|(deliveries, rival)| Round { deliveries, rival });
    prop::collection::vec(round, 1..4)
}

/// What is stored: the mail of each key, and what it says.
type Stored = HashMap<u8, (i64, Says)>;

async fn stored(client: &Client) -> Stored {
    let query = "select k.key, e.id, e.webhook_id, e.body_text from idempotency_keys k
        join incoming_emails e on e.id = (k.result ->> 'email_id')::bigint";
    let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter()
        .map(|row| (number(row.get(0)), (row.get(1), (number(row.get(2)), number(row.get(3))))))
        .collect()
}

fn holds(condition: bool, what: &str, about: impl std::fmt::Debug) -> Result<(), TestCaseError> {
    if condition { Ok(()) } else { Err(TestCaseError::fail(format!("{what}: {about:?}"))) }
}

/// What may be answered, given what was stored before the round and after it.
fn judge(
    delivery: Delivery,
    answer: &Result<Answer, Problem>,
    before: &Stored,
    now: &Stored,
    rival: Option<u8>,
) -> bool {
    let Delivery { key, says, .. } = delivery;
    if let Some((id, other)) = before.get(&key) {
        let duplicate = Answer { kind: AnswerKind::Duplicate, email_id: *id };
        return *answer == if *other == says { Ok(duplicate) } else { Err(Problem::KeyReused) };
    }
    // Which of those that came at once is stored is open, what follows from it is not.
    let mut related =
        now.iter().filter(|(other, (_, said))| **other == key || said.0 == says.0).map(|(_, row)| row);
    match answer {
        Ok(Answer { kind: AnswerKind::Accepted, email_id }) => now.get(&key) == Some(&(*email_id, says)),
        Ok(Answer { kind: AnswerKind::Duplicate, email_id }) => related.any(|row| *row == (*email_id, says)),
        Err(Problem::KeyReused) => related.any(|(_, said)| *said != says),
        Err(Problem::Internal) => says.0 == REFUSED,
        Err(Problem::RivalInFlight) => rival == Some(key),
        Err(_) => false,
    }
}

/// Plays rounds in a fresh database. `broken` is run there first; `mixed` may change the answers of a round.
async fn play(
    rounds: &[Round],
    (programs, batch_max): (usize, usize),
    broken: &str,
    mixed: impl Fn(&mut [Result<Answer, Problem>]),
) -> Result<(), TestCaseError> {
    let database = Database::new().await;
    let client = database.client().await;
    let refused = format!("check (webhook_id <> 'id-{REFUSED}')");
    let prepared = format!("alter table incoming_emails add constraint refused {refused}; {broken}");
    client.batch_execute(&prepared).await.unwrap();
    let mut config = config(&database.url);
    (config.limits.batch_max, config.limits.pool_size, config.limits.pool_wait) = (batch_max, 6, PATIENCE);
    config.limits.lock_wait = Duration::from_millis(100);
    let commits: Vec<_> = (0..programs).map(|_| start(&config)).collect();
    let mut before = Stored::new();
    for Round { deliveries, rival } in rounds {
        let rival = rival.filter(|key| !before.contains_key(key));
        let holder = match rival {
            Some(key) => Some(Rival::holds(&database, &format!("key-{key}")).await),
            None => None,
        };
        let (mut waiting, mut left) = (Vec::new(), Vec::new());
        let send = |index: usize, Delivery { key, says: (id, content), .. }: Delivery| {
            let body = mail(&format!("id-{id}")).replace("4.812,37", &content.to_string());
            submit(&commits[index % programs], request(&format!("key-{key}"), body))
        };
        for (index, delivery) in deliveries.iter().enumerate() {
            let answered = send(index, *delivery);
            if delivery.leaves { left.push(*delivery) } else { waiting.push((index, *delivery, answered)) }
        }
        let (mut asked, mut answers) = (Vec::new(), Vec::new());
        for (index, delivery, answered) in waiting {
            let mut answer = answered.await.unwrap();
            // On a slow machine the other program's commit may take longer than it is waited for: the sender asks again.
            for _ in 0..50 {
                if !matches!(answer, Err(Problem::RivalInFlight)) || rival == Some(delivery.key) {
                    break;
                }
                answer = send(index, delivery).await.unwrap();
            }
            asked.push(delivery);
            answers.push(answer);
        }
        mixed(&mut answers);
        // Those whose clients have left are carried out too.
        for commit in &commits {
            eventually("an empty queue", || async { commit.depth() == 0 }).await;
        }
        if let Some(holder) = holder {
            holder.rolls_back().await;
        }
        let now = stored(&client).await;
        for (delivery, answer) in asked.iter().zip(&answers) {
            let is_right = judge(*delivery, answer, &before, &now, rival);
            holds(is_right, "an answer that is not the one it would have had alone", (delivery, answer))?;
        }
        holds(before.iter().all(|(key, row)| now.get(key) == Some(row)), "what is stored stays", &now)?;
        let mails: std::collections::HashSet<_> = now.values().map(|(_, says)| says.0).collect();
        holds(mails.len() == now.len() && !mails.contains(&REFUSED), "each delivery is stored once", &now)?;
        for (key, row) in now.iter().filter(|(key, _)| !before.contains_key(key)) {
            let came = |delivery: &&Delivery| delivery.key == *key && delivery.says == row.1;
            let accepted = Ok(Answer { kind: AnswerKind::Accepted, email_id: row.0 });
            let told = asked
                .iter()
                .zip(&answers)
                .filter(|(delivery, answer)| came(delivery) && **answer == accepted)
                .count();
            let is_told = told == 1 || (told == 0 && left.iter().any(|delivery| came(&delivery)));
            holds(is_told && rival != Some(*key), "who is stored is told so, once", (key, row, told))?;
        }
        before = now;
    }
    holds(rows(&client).await == [i64::try_from(before.len()).unwrap(); 3], "rows without a key", &before)?;
    assert_whole(&client).await;
    Ok(())
}

fn run(
    mut runner: TestRunner,
    ways: &[(usize, usize)],
    broken: &str,
    mixed: impl Fn(&mut [Result<Answer, Problem>]),
) -> Result<(), TestError<Vec<Round>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runner.run(&rounds(), |rounds| {
        ways.iter().try_for_each(|way| runtime.block_on(play(&rounds, *way, broken, &mixed)))
    })
}

fn cases(cases: u32, max_shrink_iters: u32) -> Config {
    Config { cases, max_shrink_iters, failure_persistence: None, ..Config::default() }
}

#[test]
fn one_by_one_in_batches_and_in_two_programs_the_answers_are_the_same() {
    let number = std::env::var("PROPTEST_CASES").map_or(4, |cases| cases.parse().unwrap());
    let end = run(TestRunner::new(cases(number, 100)), &WAYS, "", |_| ());
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

/// The body of a trigger before each new mail, and whether the answers of a round are mixed up.
const BROKEN: [(&str, &str, bool); 4] = [
    ("a mail is swallowed", "if new.webhook_id = 'id-3' then return null; end if;", false),
    ("a mail gets another's content", "new.body_text := 'Die Forderung beträgt 7 EUR.';", false),
    ("the fingerprint is lost", "new.fingerprint := sha256('');", false),
    ("answers go by their place and not by their key", "", true),
];

#[test]
fn a_batch_that_is_broken_on_purpose_is_found_out() {
    for (what, body, mixes) in BROKEN {
        let broken = format!(
            "create function broken() returns trigger language plpgsql as $$ begin {body} return new; end $$;
            create trigger broken before insert on incoming_emails for each row execute function broken();"
        );
        // The same cases each time.
        let runner = TestRunner::new_with_rng(cases(20, 0), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let mixed = |answers: &mut [Result<Answer, Problem>]| {
            if mixes {
                answers.reverse()
            }
        };
        let end = run(runner, &[(1, 64)], &broken, mixed);
        let Err(TestError::Fail(reason, rounds)) = end else { panic!("not noticed: {what}: {end:?}") };
        println!("{what}: {reason} by {} rounds", rounds.len());
    }
}
