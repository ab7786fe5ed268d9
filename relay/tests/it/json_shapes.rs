//! `deploy/JSON.md` is true: each command prints the members that it names.

use crate::world::{Update, World, seeblick, turmhaus};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The members of each command's value; those with a question mark may be missing.
fn documented() -> BTreeMap<String, Vec<(String, bool)>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/JSON.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
        let members = rest.split_once('{')?.1.split_once('}')?.0;
        let member = |text: &str| (text.trim().trim_end_matches('?').to_owned(), text.trim().ends_with('?'));
        Some((name.to_owned(), members.split(',').map(member).collect()))
    });
    rows.collect()
}

#[tokio::test]
async fn every_command_prints_what_its_page_says() {
    let world = World::new().await;
    world.client(vec![turmhaus("b"), seeblick("a")]).await;
    world.commit(Update::default()).await;
    world.commit(Update { amount: None, ..Update::default() }).await;
    world.commit(Update { amount: None, ..Update::default() }).await;
    for email in [98, 99] {
        world.message("creditor_debt_update", email, json!({ "email_id": "none" })).await;
    }
    let mail = json!({ "from_email": "a@b.example", "subject": "x", "body_text": "y" }).to_string();
    let update =
        json!({ "client_name": "X, Y", "creditor_email": "a@b.example", "new_debt_amount": "5" }).to_string();
    let old = testkit::Database::empty().await;
    old.client().await.batch_execute(include_str!("../legacy_schema.sql")).await.unwrap();
    let files = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (mail_file, update_file) = (files.join("shape_mail.json"), files.join("shape_update.jsonl"));
    std::fs::write(&mail_file, mail).unwrap();
    std::fs::write(&update_file, update).unwrap();
    let (mail_file, update_file) = (mail_file.to_str().unwrap(), update_file.to_str().unwrap());
    let calls: Vec<(&str, Vec<&str>)> = vec![
        ("run --once", vec!["run", "--once"]),
        ("migrate", vec!["migrate"]),
        ("check-config", vec!["check-config"]),
        ("status", vec!["status"]),
        ("pause", vec!["pause", "email_fetch"]),
        ("resume", vec!["resume", "email_fetch"]),
        ("dead-letters list", vec!["dead-letters", "list"]),
        ("dead-letters show", vec!["dead-letters", "show", "4"]),
        ("dead-letters requeue", vec!["dead-letters", "requeue", "4"]),
        ("dead-letters discard", vec!["dead-letters", "discard", "5", "--reason", "x"]),
        ("review list", vec!["review", "list"]),
        ("review accept", vec!["review", "accept", "2", "--amount", "5"]),
        ("review reject", vec!["review", "reject", "3"]),
        ("correct", vec!["correct", "1", "--amount", "9"]),
        ("replay", vec!["replay", "--email", "1", "--dry-run"]),
        ("explain EMAIL_ID", vec!["explain", "1"]),
        ("explain CLIENT", vec!["explain", "2024_118"]),
        ("reconcile", vec!["reconcile"]),
        ("audit", vec!["audit"]),
        ("apply", vec!["apply", "--dry-run", "--file", update_file]),
        ("erase", vec!["erase", "--client", "2024/118"]),
        ("import-legacy", vec!["import-legacy", "--from", &old.url]),
        ("extract", vec!["extract", "--file", mail_file]),
    ];
    let mut documented = documented();
    // Needs a database of its own: `shadow.rs` holds it against the page's line.
    assert!(documented.remove("audit --shadow").is_some());
    assert_eq!(
        documented.keys().collect::<Vec<_>>(),
        calls.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>().iter().collect::<Vec<_>>()
    );
    for (name, arguments) in calls {
        let output = world.program(&world.mongo.url, &arguments).arg("--json").output().await.unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(stdout.trim()).unwrap_or_else(|_| {
            panic!("{name}: one JSON value: {stdout} {}", String::from_utf8_lossy(&output.stderr))
        });
        let object = value.as_array().map_or(&value, |list| &list[0]).as_object().unwrap();
        let members = &documented[name];
        let printed: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        let known: BTreeSet<&str> = members.iter().map(|(member, _)| member.as_str()).collect();
        let needed: BTreeSet<&str> =
            members.iter().filter(|(_, may_miss)| !may_miss).map(|(member, _)| member.as_str()).collect();
        assert!(printed.is_subset(&known), "{name}: not on the page: {:?}", printed.difference(&known));
        assert!(needed.is_subset(&printed), "{name}: only on the page: {:?}", needed.difference(&printed));
    }
}
