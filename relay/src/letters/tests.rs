use super::*;
use crate::{client::StoredAmount, write_guard::WriteGuard};
use proptest::prelude::*;
use shared::message::{Revision, Stamp};

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn update() -> DebtUpdateNotification {
    DebtUpdateNotification {
        email_id: 17,
        stamp: Stamp::new("2026-02-17T09:14:22Z".parse().unwrap(), 17, Revision::FIRST).unwrap(),
        client_name: Some("Adler, Eva".into()),
        client_aktenzeichen: Some("2024_118".into()),
        creditor_email: "konto@turmhaus.example".into(),
        creditor_name: Some("Turmhaus Kontor GmbH".into()),
        previous: Some(amount("980")),
        amount: amount("1234.56"),
        reference_numbers: vec!["TK-1".into(), "R 22/7".into()],
        extraction_confidence: Some(0.9),
        key: None,
        decided_by: None,
    }
}

fn waiting() -> Waiting {
    Waiting {
        email_id: 18,
        client_name: Some("Adler, Eva".into()),
        aktenzeichen: Some("2024/118".into()),
        creditor_name: Some("Böse & Söhne <script>alert('x')</script>".into()),
        creditor_email: "post@boese.example".into(),
        stored: Some(amount("2500")),
        amount: Some(amount("12.5")),
        ticket_id: Some("4711".into()),
        reason: "the amount is lower than the stored one".into(),
        choices: vec!["Böse & Söhne, Akte 2024_118 (client 65f, creditor a)".into()],
    }
}

/// Compares with a file of `tests/golden`; with GOLDEN_RENEW set it writes the file instead.
fn golden(name: &str, letter: &Letter) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    let now = format!("Subject: {}\n\n{}\n----\n\n{}", letter.subject, letter.text, letter.html);
    if std::env::var_os("GOLDEN_RENEW").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        now, wanted,
        "{path} says otherwise; if the letter is meant so: GOLDEN_RENEW=1 cargo test -p relay letters"
    );
}

#[test]
fn letters_are_as_in_the_golden_files() {
    golden("debt_update.txt", &debt_update(&update(), Some("4711")));
    let bare = DebtUpdateNotification {
        client_name: None,
        client_aktenzeichen: None,
        creditor_name: None,
        previous: None,
        reference_numbers: Vec::new(),
        extraction_confidence: None,
        decided_by: Some("Anna".into()),
        ..update()
    };
    golden("debt_update_bare.txt", &debt_update(&bare, None));
    golden("review.txt", &review(&waiting(), ReviewCause::NeedsReview));
    let missing = Waiting {
        reason: "no client of this number or name is in MongoDB".into(),
        choices: Vec::new(),
        stored: None,
        ..waiting()
    };
    golden("no_match.txt", &review(&missing, ReviewCause::NoMatch));
    golden("digest.txt", &digest(&[(waiting(), ReviewCause::NeedsReview), (missing, ReviewCause::NoMatch)]));
}

#[test]
fn amounts_are_written_the_german_way() {
    for (number, text) in [
        ("0", "0,00 EUR"),
        ("12.5", "12,50 EUR"),
        ("999.99", "999,99 EUR"),
        ("1000", "1.000,00 EUR"),
        ("999999999999.99", "999.999.999.999,99 EUR"),
    ] {
        assert_eq!(euros(amount(number)), text);
    }
    let change = |new: &str, old: &str| signed(amount(new).to_decimal() - amount(old).to_decimal());
    assert_eq!(
        [change("10", "9.5"), change("9.5", "1010"), change("5", "5")],
        ["+0,50 EUR", "-1.000,50 EUR", "0,00 EUR"]
    );
}

#[test]
fn every_reason_that_is_stored_has_its_german() {
    let texts = [include_str!("../matching.rs"), include_str!("../operations/creditor_debt_update/plan.rs")]
        .map(|source| source.split("#[cfg(test)]").next().unwrap().to_owned());
    let literal = regex::Regex::new(r#"(?:Unclear\(\s*|held\(|let reason = |HeldForReview, |            => |TargetMissing, )"([a-z][^"]+)""#).unwrap();
    let mut reasons: Vec<String> = texts
        .iter()
        .flat_map(|text| literal.captures_iter(text))
        .map(|found| found[1].to_owned())
        .filter(|reason| !reason.contains("newer"))
        .collect();
    let match_arms = regex::Regex::new(r#""(several [^"]+|the client has no [^"]+)""#).unwrap();
    reasons.extend(
        texts.iter().flat_map(|text| match_arms.captures_iter(text)).map(|found| found[1].to_owned()),
    );
    let guard = WriteGuard { hold_lower: true };
    let large = Some(amount("900000000"));
    for refused in [
        guard.check(None, None, StoredAmount::None, false),
        guard.check(large, None, StoredAmount::None, false),
        guard.check(Some(amount("1")), Some(0.1), StoredAmount::None, false),
        guard.check(Some(amount("1")), None, StoredAmount::Unreadable, false),
        guard.check(Some(amount("1")), None, StoredAmount::Known(amount("2")), false),
    ] {
        reasons.push(refused.unwrap_err());
    }
    assert!(reasons.len() >= 14, "{reasons:?}");
    for reason in reasons {
        assert_ne!(german(&reason), reason, "no German for it");
    }
    assert_eq!(german("a reason of tomorrow"), "a reason of tomorrow");
}

fn value() -> impl Strategy<Value = String> {
    let special =
        prop::sample::select(vec!['<', '>', '&', '"', '\'', '\r', '\n', '\u{2028}', '\u{202e}', '\0']);
    prop::collection::vec(prop_oneof![any::<char>(), special], 0..200).prop_map(String::from_iter)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a mail has for names and numbers: each value stays on its line and is text in HTML.
    #[test]
    fn no_value_breaks_a_line_or_becomes_markup(values in prop::collection::vec(value(), 6)) {
        let fill = |values: &[String]| {
            let update = DebtUpdateNotification {
                client_name: Some(values[0].clone()), client_aktenzeichen: Some(values[1].clone()), creditor_email: values[2].clone(),
                creditor_name: Some(values[3].clone()), reference_numbers: vec![values[4].clone()], decided_by: Some(values[5].clone()), ..update()
            };
            let waiting = Waiting {
                client_name: Some(values[0].clone()), aktenzeichen: Some(values[1].clone()), creditor_email: values[2].clone(),
                creditor_name: Some(values[3].clone()), ticket_id: Some(values[4].clone()), reason: values[5].clone(),
                choices: vec![values[0].clone()], ..waiting()
            };
            [
                debt_update(&update, Some(&values[4])),
                review(&waiting, ReviewCause::NeedsReview),
                digest(&[(waiting.clone(), ReviewCause::NoMatch), (waiting, ReviewCause::NeedsReview)]),
            ]
        };
        let plain: Vec<String> = (0..6).map(|_| "x".to_owned()).collect();
        for (letter, wanted) in fill(&values).iter().zip(fill(&plain)) {
            let breaks = |c: char| c.is_control() || c == '\u{2028}';
            prop_assert!(!letter.subject.contains(breaks));
            prop_assert!(letter.subject.chars().count() <= SUBJECT);
            let count = |text: &str, wanted: char| text.chars().filter(|c| *c == wanted).count();
            for character in ['<', '>', '"', '\n'] {
                prop_assert_eq!(count(&letter.html, character), count(&wanted.html, character), "{:?}", letter.html);
            }
            prop_assert_eq!(letter.text.lines().count(), wanted.text.lines().count());
            prop_assert!(!letter.text.contains('\r') && letter.html.len() < 60_000);
        }
    }
}
