//! What is read out of a mail, by rules and by a model: nothing that the mail does not say.

use crate::input::{mode, texts};
use relay::{
    extraction::{
        ExtractedEntities, Headers, Mail,
        model::{Answer, Model, ModelConfig, Provider},
        rules as by_rules,
    },
    mail_text,
    write_guard::LEAST_CONFIDENCE,
};
use serde_json::Value;
use shared::money::Amount;
use std::{sync::LazyLock, time::Duration};

/// An amount, a case number, a reference number that the rules find stands in the mail.
pub(crate) fn rules(data: &[u8]) {
    let [subject, from_name, from_email, headers, html, body] = texts(data);
    let text = mail_text::read(Some(&body), Some(&html));
    let headers: Option<Value> = serde_json::from_str(&headers).ok();
    let mail = Mail {
        subject: &subject,
        from_email: &from_email,
        from_name: (!from_name.is_empty()).then_some(&*from_name),
        text: &text,
        headers: Headers::new(headers.as_ref()),
    };
    let found = by_rules::extract(&mail);
    sound(&found, &mail);
    assert!(found.debt_amount.is_none() || found.confidence >= LEAST_CONFIDENCE, "unsure is null");
}

/// A figure in an otherwise plain sentence or row is read as its digits say, or not at all.
pub(crate) fn figures(data: &[u8]) {
    // Every byte is a part of a figure, so that none is spent on letters.
    let text = String::from_utf8_lossy(data);
    let parts: Vec<char> = format!("0123456789., \u{a0}'’´{DASHES}").chars().collect();
    let part = |c: char| if parts.contains(&c) { c } else { parts[u32::from(c) as usize % parts.len()] };
    let figure: String = text.chars().take(40).map(part).collect();
    for money in [
        format!("die Gesamtforderung beträgt {figure} EUR."),
        format!("die Gesamtforderung beträgt EUR {figure}."),
        format!("Gesamtforderung     {figure} EUR"),
    ] {
        let text =
            mail_text::read(Some(&format!("Guten Tag,\n\n{money}\n\nMit freundlichen Grüßen\n")), None);
        let mail = Mail {
            subject: "Forderungsaufstellung",
            from_email: "post@gross.example",
            from_name: None,
            text: &text,
            headers: Headers::default(),
        };
        let Some(amount) = by_rules::extract(&mail).debt_amount else { continue };
        let words = words(&figure);
        let last = (0..words.len()).rfind(|&at| forms(amount).contains(&words[at]));
        let last = last.unwrap_or_else(|| panic!("{money:?} became {amount}"));
        // A minus belongs to the first number.
        let is_below_zero = last == 0 && figure.trim_start().starts_with(|c| DASHES.contains(c));
        assert!(!is_below_zero, "{money:?} became {amount}, and is below zero");
    }
}

const DASHES: &str = "-‒–—―";

/// The digits of what stands between blanks and dashes: each a number. What may join two of them makes them one: a no-break space or a
/// dash between digits, and a blank before a group of three behind at most three that stand alone.
fn words(figure: &str) -> Vec<String> {
    let all: Vec<char> = figure.chars().collect();
    let run = |from: usize| all.iter().skip(from).take_while(|c| c.is_ascii_digit()).count();
    let run_before = |to: usize| all.iter().take(to).rev().take_while(|c| c.is_ascii_digit()).count();
    let is_gap = |c: char| c == ' ' || DASHES.contains(c);
    let joins = |at: usize| {
        let (left, right) = (run_before(at), run(at + 1));
        let stands_alone = at == left
            || match all[at - left - 1] {
                '\u{a0}' => run_before(at - left - 1) == 0,
                before => !"0123456789.,".contains(before),
            };
        left > 0 && right > 0 && (all[at] != ' ' || (left <= 3 && right == 3 && stands_alone))
    };
    let is_end = |at: usize| (is_gap(all[at]) || all[at] == '\u{a0}') && !joins(at);
    let shown: String = (0..all.len()).map(|at| if is_end(at) { '\n' } else { all[at] }).collect();
    shown.split('\n').map(digits).filter(|word| !word.is_empty()).collect()
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// The digits of an amount with its cents, and without the zeros at their end.
fn forms(amount: Amount) -> Vec<String> {
    let cents = digits(&amount.to_string());
    let shorter = ["0", "00"].into_iter().filter_map(|zeros| cents.strip_suffix(zeros).map(str::to_owned));
    shorter.chain([cents.clone()]).collect()
}

/// A model's answer counts as far as the mail says the same.
pub(crate) fn model_answer(data: &[u8]) {
    static MODEL: LazyLock<Model> = LazyLock::new(|| {
        let config = ModelConfig {
            provider: Provider::OpenAi,
            url: "http://127.0.0.1:1/".parse().unwrap(),
            model: "none".into(),
            key: None,
            timeout: Duration::from_secs(1),
            concurrency: 1,
            requests_per_minute: 0,
            daily_tokens: 0,
        };
        Model::new(config).unwrap()
    });
    let (mode, rest) = mode(data);
    let [answer, subject, from_name, body] = texts(rest);
    let answer = match serde_json::from_str(&answer) {
        Ok(object) if mode % 2 == 0 => Answer::Object(object),
        Ok(_) | Err(_) => Answer::Text(answer.into_owned()),
    };
    let text = mail_text::read(Some(&body), None);
    let mail = Mail {
        subject: &subject,
        from_email: "post@gross.example",
        from_name: (!from_name.is_empty()).then_some(&*from_name),
        text: &text,
        headers: Headers::default(),
    };
    let Ok(found) = MODEL.check(&answer, &mail) else { return };
    sound(&found, &mail);
    for name in [&found.client_name, &found.creditor_name].into_iter().flatten() {
        assert!((1..=120).contains(&name.chars().count()), "a name's bounds");
    }
}

/// What holds for the entities of every extractor.
fn sound(found: &ExtractedEntities, mail: &Mail<'_>) {
    let new = format!("{} \n {}", mail_text::read(Some(mail.subject), None).current, mail.text.current);
    let everything = one_line(&format!("{new} {} {}", mail.text.history, mail.from_name.unwrap_or_default()));
    assert!((0.0..=1.0).contains(&found.confidence), "{}", found.confidence);
    if let Some(amount) = found.debt_amount {
        assert!(writes(&new, amount), "{amount} is not in the mail");
    }
    let numbers = found.client_aktenzeichen.iter().chain(&found.reference_numbers);
    for number in numbers {
        assert!(everything.contains(&one_line(number)), "{number} is not in the mail");
        assert!(number.len() <= 200 && !number.is_empty(), "a number's bounds");
    }
    assert!(found.reference_numbers.len() <= 20, "too many numbers");
    assert!(found.summary.as_ref().is_none_or(|text| text.chars().count() <= 300), "a summary's bounds");
    if !found.is_creditor_reply {
        assert!(
            found.debt_amount.is_none() && found.client_name.is_none(),
            "nothing is read of what is no reply"
        );
    }
}

/// Whether the digits of an amount stand in a text, with or without its cents, whatever marks are between them. Mails write more than
/// amounts, so any row of digits counts.
fn writes(text: &str, amount: Amount) -> bool {
    let is_part = |c: char| c.is_ascii_digit() || "., '’´\u{a0}".contains(c) || DASHES.contains(c);
    // Zeros in front are not written, but of nothing one zero is.
    let shown = |form: String| match form.trim_start_matches('0') {
        "" => "0".to_owned(),
        rest => rest.to_owned(),
    };
    let forms: Vec<String> = forms(amount).into_iter().map(shown).collect();
    text.split(|c: char| !is_part(c))
        .map(digits)
        .any(|run| forms.iter().any(|form| run.contains(form.as_str())))
}

fn one_line(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}
