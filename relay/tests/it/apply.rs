//! `relay apply`: MongoDB without Postgres, as a user meets it.

use crate::world::{Update, World, seeblick, turmhaus};
use mongodb::bson::doc;
use serde_json::{Value, json};
use std::{
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::io::AsyncWriteExt;

fn line(amount: &str, received_at: &str) -> Value {
    json!({"client_name": "Adler, Eva", "client_aktenzeichen": "2024/118", "creditor_email": "konto@turmhaus.example",
        "new_debt_amount": amount, "received_at": received_at})
}

fn of(field: &str, value: &str) -> Value {
    let mut line = line("77.00", "2026-02-17T09:14:22Z");
    line[field] = value.into();
    line
}

/// Exit code, standard output and standard error; Postgres is nowhere.
async fn apply(world: &World, url: &str, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = world.program(url, &[&["apply"], arguments].concat());
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none").stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = tokio::spawn(async move {
        let _ = stdin.write_all(input.as_bytes()).await; // it may have ended before it has read all
    });
    let output = child.wait_with_output().await.unwrap();
    writing.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

async fn receipts(world: &World, arguments: &[&str], input: &str) -> (i32, Vec<Value>) {
    let arguments = [arguments, &["--json"]].concat();
    let (code, stdout, stderr) = apply(world, &world.mongo.url, &arguments, input).await;
    let receipts = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!stderr.contains("error"), "{stderr}");
    (code, receipts)
}

fn outcomes(receipts: &[Value]) -> Vec<(i64, &str)> {
    receipts
        .iter()
        .map(|receipt| (receipt["line"].as_i64().unwrap(), receipt["outcome"].as_str().unwrap()))
        .collect()
}

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// 900 EUR with the Turmhaus, and two entries of the Seeblick that nobody can tell apart by a mail.
async fn world() -> World {
    let world = World::new().await;
    let mut entry = turmhaus("b");
    entry.insert("current_debt_amount", 900.0);
    world.client(vec![entry, seeblick("s"), seeblick("t")]).await;
    world
}

#[tokio::test]
async fn every_line_gets_its_receipt_and_the_good_ones_are_written() {
    let world = world().await;
    let good = line("1234.56", "2026-02-17T09:14:22Z");
    let all = [
        good.to_string(),
        "{\"client_name\": \"Adler\"".to_owned(),
        String::new(),
        good.to_string(),
        of("creditor_email", "post@seeblick.example").to_string(),
        line("1000", "2026-03-01T00:00:00Z").to_string(),
        {
            let mut missing = of("client_aktenzeichen", "9/9");
            missing["client_name"] = "Niemand, Nina".into();
            missing.to_string()
        },
        of("new_debt_amount", "1.234,56").to_string(),
        line("950", "2026-02-01T00:00:00Z").to_string(),
    ];
    let (code, first) = receipts(&world, &[], &all.join("\n")).await;
    let expected = [
        (1, "applied"),
        (2, "malformed"),
        (4, "already"),
        (5, "held_for_review"),
        (6, "held_for_review"),
        (7, "client_missing"),
        (8, "malformed"),
        (9, "superseded"),
    ];
    assert_eq!((code, outcomes(&first)), (1, expected.to_vec()), "{first:?}");
    assert_eq!(world.amount("b").await, Some(1234.56));
    let receipt = &first[0];
    assert_eq!(
        (&receipt["old_amount"], &receipt["new_amount"], &receipt["entry_key"]),
        (&"900.00".into(), &"1234.56".into(), &"b".into())
    );
    let mark = world.entries().await[0].get_document("_relay").unwrap().clone();
    assert_eq!(Some(mark.get_str("stamp").unwrap()), receipt["stamp"].as_str());
    assert!(mark.get_i64("email").unwrap() < 0, "none of a mail");
    assert!(
        first[3]["reason"].as_str().unwrap().contains("several creditor entries")
            && first[3]["entry_key"].is_null()
    );
    assert!(first[4]["reason"].as_str().unwrap().contains("lower"), "{first:?}");
    assert!(first[6]["reason"].as_str().unwrap().contains("plain decimal"), "{first:?}");

    let entries = world.entries().await;
    let (code, again) = receipts(&world, &[], &lines(&[good])).await;
    assert_eq!((code, outcomes(&again)), (0, vec![(1, "already")]), "the same line in another run");
    assert_eq!(again[0]["old_amount"], "900.00");
    assert_eq!(world.entries().await, entries);
}

#[tokio::test]
async fn held_and_missing_are_no_failure_and_a_dry_run_writes_nothing() {
    let world = world().await;
    let before = world.entries().await;
    let good = line("1234.56", "2026-02-17T09:14:22Z");
    let input = lines(&[good.clone(), good, of("creditor_email", "post@seeblick.example")]);
    let (code, dry) = receipts(&world, &["--dry-run"], &input).await;
    assert_eq!((code, outcomes(&dry)), (0, vec![(1, "applied"), (2, "already"), (3, "held_for_review")]));
    assert!(dry.iter().all(|receipt| receipt["dry_run"] == true));
    assert_eq!(world.entries().await, before);

    let file = std::env::temp_dir().join(format!("{}.jsonl", world.mongo.name));
    std::fs::write(&file, &input).unwrap();
    let (code, said, _) = apply(&world, &world.mongo.url, &["--file", file.to_str().unwrap()], "").await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(code, 0);
    assert!(
        said.contains("line 1: applied: written; client ")
            && said.contains(", creditor b; 900.00 -> 1234.56 EUR, stamp 0"),
        "{said}"
    );
    assert!(said.ends_with("1 already, 1 applied, 1 held_for_review\n"), "{said}");
    let (code, _, stderr) = apply(&world, &world.mongo.url, &["--file", "/nowhere"], "").await;
    assert!(code == 1 && stderr.contains("cannot open /nowhere"), "{stderr}");
    let (code, _, stderr) = apply(&world, &world.mongo.url, &["--file", "/"], "").await;
    assert!(code == 1 && stderr.contains("the input cannot be read"), "{stderr}");
    let (code, said, _) = apply(&world, &world.mongo.url, &[], "").await;
    assert_eq!((code, said.as_str()), (0, "no lines\n"));
}

#[tokio::test]
async fn more_lines_than_a_round_has_are_all_written() {
    let world = World::new().await;
    let names: Vec<String> = (0..1200).map(|number| format!("{number}")).collect();
    let client = |number: &String| {
        doc! { "aktenzeichen": number, "firstName": "Eva", "lastName": "Adler", "final_creditor_list": [turmhaus("b")] }
    };
    world.mongo.clients.insert_many(names.iter().map(client)).await.unwrap();
    let input = lines(&names.iter().map(|number| of("client_aktenzeichen", number)).collect::<Vec<_>>());
    let (code, all) = receipts(&world, &[], &input).await;
    assert!(code == 0 && all.iter().all(|receipt| receipt["outcome"] == "applied"));
    assert_eq!(
        all.iter().map(|receipt| receipt["line"].as_i64().unwrap()).collect::<Vec<_>>(),
        (1..=1200).collect::<Vec<_>>()
    );
    let written = doc! { "final_creditor_list.current_debt_amount": 77.0 };
    assert_eq!(world.mongo.clients.count_documents(written).await.unwrap(), 1200);
}

#[tokio::test]
async fn that_mongodb_is_away_is_told_soon_with_the_first_line_that_was_not_done() {
    let world = world().await;
    let input = format!(
        "nonsense\n{}",
        lines(&[line("1234.56", "2026-02-17T09:14:22Z"), line("2000", "2026-03-17T09:14:22Z")])
    );
    // Nothing listens on the discard port; and a server that takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    for url in [
        "mongodb://127.0.0.1:9/".to_owned(),
        format!("mongodb://{}/?directConnection=true", silent.local_addr().unwrap()),
    ] {
        let began = Instant::now();
        let (code, said, stderr) = apply(&world, &url, &[], &input).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert_eq!(code, 1);
        assert!(said.contains("line 1: malformed: is not one JSON object"), "{said}");
        assert!(
            stderr.contains("MongoDB unreachable since")
                && stderr.contains("line 2 is the first that was not done"),
            "{stderr}"
        );
    }
    let mut command = world.program("", &["apply"]);
    let output = command.env_remove("DATABASE_URL").output().await.unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MONGODB_URL is not set"));
}

#[tokio::test]
async fn a_lost_reply_ends_in_one_write_and_the_rest_waits_for_another_run() {
    let world = world().await;
    let (url, wire) = world.mongo_wire().await;
    let point = wire.hold_at(b"\x02update\0");
    let input = lines(&[line("1234.56", "2026-02-17T09:14:22Z")]);
    let run = apply(&world, &url, &[], &input);
    let cut = async {
        let go_on = point.reached().await;
        wire.cut();
        drop(go_on);
    };
    let ((code, _, stderr), ()) = tokio::join!(run, cut);
    assert!(code == 1 && stderr.contains("line 1 is the first that was not done"), "{stderr}");
    let (code, after) = receipts(&world, &[], &input).await;
    assert_eq!(code, 0);
    assert!(["applied", "already"].contains(&after[0]["outcome"].as_str().unwrap()), "{after:?}");
    assert_eq!(world.amount("b").await, Some(1234.56));
}

#[tokio::test]
async fn the_outbox_goes_on_by_time_over_what_was_applied_without_it() {
    let world = world().await;
    let (code, _) = receipts(&world, &[], &lines(&[line("1500", "2026-02-20T00:00:00Z")])).await;
    assert_eq!(code, 0);
    let earlier = world.commit(Update::default()).await;
    world.once().await;
    assert_eq!(
        (world.state(earlier).await.as_str(), world.amount("b").await),
        ("done/superseded/0", Some(1500.0))
    );
    let later = world.commit(Update::of("1600", "2026-03-01T00:00:00Z")).await;
    world.once().await;
    assert_eq!(
        (world.state(later).await.as_str(), world.amount("b").await),
        ("done/applied/0", Some(1600.0))
    );
    let (_, late) = receipts(&world, &[], &lines(&[line("1700", "2026-02-25T00:00:00Z")])).await;
    assert_eq!(outcomes(&late), [(1, "superseded")]);
}

#[tokio::test]
async fn the_guards_setting_counts_here_too() {
    let world = world().await;
    let lower = lines(&[line("500", "2026-02-20T00:00:00Z")]);
    assert_eq!(outcomes(&receipts(&world, &[], &lower).await.1), [(1, "held_for_review")]);
    assert_eq!(
        outcomes(&receipts(&world, &["--hold-lower-amounts", "false"], &lower).await.1),
        [(1, "applied")]
    );
    assert_eq!(world.amount("b").await, Some(500.0));
}
