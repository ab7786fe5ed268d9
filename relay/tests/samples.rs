//! The rules extractor on the sample mails and on those of `mails/`, against what a careful clerk would enter.
//!
//! `mails/` holds mails that the rules have read wrongly once, or might; they have the form of the samples (`deploy/samples/README.md`).
//! The rules were written with all of these in view, so the shares here say nothing about other mails.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers too"
)]

use relay::{
    extraction::{ExtractedEntities, Headers, Mail, rules},
    mail_text,
};
use serde_json::Value;
use std::{fs, path::Path};

fn samples() -> Vec<(String, Value, ExtractedEntities)> {
    let read = |path: &Path| {
        let sample: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let mail = &sample["webhook"];
        let text = mail_text::read(mail["body_text"].as_str(), mail["body_html"].as_str());
        let entities = rules::extract(&Mail {
            subject: mail["subject"].as_str().unwrap_or_default(),
            from_email: mail["from_email"].as_str().unwrap(),
            from_name: mail["from_name"].as_str(),
            text: &text,
            headers: Headers::default(),
        });
        (path.file_stem().unwrap().to_string_lossy().into_owned(), sample["expected"].clone(), entities)
    };
    let folder = |name: &str| fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let files = folder("../deploy/samples/mails").chain(folder("tests/mails"));
    files.map(|file| read(&file.unwrap().path())).collect()
}

/// Names without regard to case and ß/ss.
fn folded(text: Option<&str>) -> Option<String> {
    text.map(|text| text.to_lowercase().replace('ß', "ss"))
}

#[test]
fn no_amount_is_wrong_and_nearly_every_stated_one_is_found() {
    let (mut stated, mut missed) = (0, Vec::new());
    for (name, expected, found) in samples() {
        let amount = found.debt_amount.map(|amount| amount.to_string());
        let expected = expected["debt_amount"].as_str();
        stated += usize::from(expected.is_some());
        if amount.is_none() && expected.is_some() {
            missed.push(name);
            continue;
        }
        assert_eq!(amount.as_deref(), expected, "{name}");
        assert!(found.debt_amount.is_none() || found.confidence >= 0.75, "{name}: the guard would hold it");
    }
    assert!(missed.len() * 20 <= stated, "missed of {stated}: {missed:?}");
}

#[test]
fn who_writes_about_whom_is_right_nearly_always() {
    let samples = samples();
    let share = |right: &dyn Fn(&Value, &ExtractedEntities) -> bool| {
        let right = samples.iter().filter(|(_, expected, found)| right(expected, found)).count();
        right as f64 / samples.len() as f64
    };
    assert!(share(&|expected, found| expected["is_creditor_reply"] == found.is_creditor_reply) >= 0.95);
    let number = |expected: &Value, found: &ExtractedEntities| {
        expected["client_aktenzeichen"].as_str() == found.client_aktenzeichen.as_deref()
    };
    assert!(share(&number) >= 0.95);
    let client = |expected: &Value, found: &ExtractedEntities| {
        folded(expected["client_name"].as_str()) == folded(found.client_name.as_deref())
    };
    assert!(share(&client) >= 0.85);
}
