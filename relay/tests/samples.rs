//! The rules extractor on the sample mails, against what a careful clerk would enter.

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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/samples/mails");
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
    fs::read_dir(folder).unwrap().map(|file| read(&file.unwrap().path())).collect()
}

/// Names without regard to case and ß/ss.
fn folded(text: Option<&str>) -> Option<String> {
    text.map(|text| text.to_lowercase().replace('ß', "ss"))
}

#[test]
fn no_amount_is_wrong_and_every_stated_one_is_found() {
    for (name, expected, found) in samples() {
        let amount = found.debt_amount.map(|amount| amount.to_string());
        assert_eq!(amount.as_deref(), expected["debt_amount"].as_str(), "{name}");
        assert!(found.debt_amount.is_none() || found.confidence >= 0.75, "{name}: the guard would hold it");
    }
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
