//! Looks through logs and metrics for anything of the sample data.
//!
//! What it looks for is specific enough to be no accident: names, addresses, numbers and amounts as whole words, and any three words
//! in a row of a subject or a body.

use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) struct Scanner {
    tokens: Regex,
    phrases: BTreeSet<String>,
}

impl Scanner {
    /// For everything personal of these mails and clients, and for these secrets.
    pub(super) fn of(mails: &[Value], clients: &[Value], secrets: &[&str]) -> Scanner {
        let mut tokens: BTreeSet<String> = secrets.iter().map(|secret| secret.to_lowercase()).collect();
        let mut phrases = BTreeSet::new();
        let mut name = |value: &Value| {
            let text = value.as_str().unwrap_or_default().to_lowercase();
            if text.chars().count() >= 4 {
                tokens.insert(text);
            }
        };
        for client in clients {
            for field in ["firstName", "lastName", "email"] {
                name(&client[field]);
            }
            for entry in client["final_creditor_list"].as_array().into_iter().flatten() {
                for field in [
                    "sender_name",
                    "sender_email",
                    "glaeubiger_name",
                    "glaeubigervertreter_name",
                    "actual_creditor",
                ] {
                    name(&entry[field]);
                }
            }
        }
        for mail in mails {
            name(&mail["webhook"]["from_name"]);
            name(&mail["webhook"]["from_email"]);
            name(&mail["expected"]["client_name"]);
            name(&mail["expected"]["creditor_name"]);
            for field in ["subject", "body_text", "body_html"] {
                let words = words(mail["webhook"][field].as_str().unwrap_or_default());
                phrases
                    .extend(words.windows(3).map(|three| three.join(" ")).filter(|three| three.len() >= 12));
            }
        }
        let entries =
            || clients.iter().filter_map(|client| client["final_creditor_list"].as_array()).flatten();
        for entry in entries() {
            tokens.extend(
                ["claim_amount", "current_debt_amount"].iter().flat_map(|field| amounts(&entry[*field])),
            );
            tokens.extend(numbers(&entry["reference_number"]));
        }
        for client in clients {
            tokens.extend(numbers(&client["aktenzeichen"]));
        }
        for mail in mails {
            tokens.extend(amounts(&mail["expected"]["debt_amount"]));
            tokens.extend(numbers(&mail["expected"]["client_aktenzeichen"]));
            let references = mail["expected"]["reference_numbers"].as_array();
            tokens.extend(references.into_iter().flatten().flat_map(numbers));
        }
        let mut tokens: Vec<String> = tokens.iter().map(|token| regex::escape(token)).collect();
        tokens.sort_by_key(|token| std::cmp::Reverse(token.len())); // the longest of those that begin alike
        let tokens = RegexBuilder::new(&tokens.join("|")).size_limit(100 << 20).build().unwrap();
        Scanner { tokens, phrases }
    }

    /// What of it stands in the text.
    pub(super) fn found_in(&self, text: &str) -> Vec<String> {
        // As JSON and Debug write it.
        let text =
            text.replace("\\n", " ").replace("\\r", " ").replace("\\t", " ").replace('\\', "").to_lowercase();
        let tokens = self.tokens.find_iter(&text).filter(|found| {
            let before = text[..found.start()].chars().next_back();
            let mut after = text[found.end()..].chars();
            let (next, one_more) = (after.next(), after.next());
            let is_digit = |character: Option<char>| character.is_some_and(|c| c.is_ascii_digit());
            let begins = !before.is_some_and(|c| c.is_alphanumeric() || c == '.');
            let goes_on = next.is_some_and(char::is_alphanumeric)
                || (matches!(next, Some('.' | ',')) && is_digit(one_more));
            begins && !goes_on
        });
        let mut found: Vec<String> = tokens.map(|found| found.as_str().to_owned()).collect();
        let words = words(&text);
        let threes = words.windows(3).map(|three| three.join(" "));
        found.extend(threes.filter(|three| self.phrases.contains(three)));
        found
    }
}

/// Without tags and punctuation around them.
fn words(text: &str) -> Vec<String> {
    let tag = Regex::new("<[^>]*>").unwrap();
    let text = tag.replace_all(text, " ").to_lowercase();
    let words = text.split(|c: char| c.is_whitespace() || "\"'{}[]=,;:()".contains(c));
    let words = words.map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// An amount as computers, Germans and Britons write it. Whole ones only with their cents: others are anybody's numbers.
fn amounts(value: &Value) -> Vec<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let Ok(amount) = text.parse::<f64>() else { return Vec::new() };
    if amount < 1.0 {
        return Vec::new();
    }
    let plain = format!("{amount:.2}");
    let (euros, cents) = plain.split_once('.').unwrap();
    let grouped = |separator: &str| {
        let digits: Vec<char> = euros.chars().collect();
        let groups = digits.rchunks(3).rev().map(|group| group.iter().collect::<String>());
        groups.collect::<Vec<_>>().join(separator)
    };
    let mut forms = vec![
        format!("{euros}.{cents}"),
        format!("{euros},{cents}"),
        format!("{},{cents}", grouped(".")),
        format!("{}.{cents}", grouped(",")),
        format!("{},{cents}", grouped(" ")),
        format!("{euros}{cents}00000"), // as cents of a cent, should anybody compute in those
    ];
    if cents.ends_with('0') && cents != "00" {
        forms.push(format!("{euros}.{}", &cents[..1])); // as a double
    }
    forms
}

/// A number of the firm or of a creditor, with the separators that mails and documents have.
fn numbers(value: &Value) -> Vec<String> {
    let text = value.as_str().unwrap_or_default().to_lowercase();
    if text.len() < 5 || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Vec::new();
    }
    vec![text.replace('_', "/"), text.replace('/', "_"), text]
}
