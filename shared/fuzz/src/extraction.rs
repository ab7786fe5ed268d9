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

/// A figure in an otherwise plain sentence is read as its digits say, or not at all.
pub(crate) fn figures(data: &[u8]) {
    const PARTS: [char; 20] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '.', ',', ' ', '\'', '’', '´', '\u{a0}', '-', '–',
        '—',
    ];
    // Every byte is a part of a figure, so that none is spent on letters.
    let text = String::from_utf8_lossy(data);
    let part = |c: char| if PARTS.contains(&c) { c } else { PARTS[u32::from(c) as usize % PARTS.len()] };
    let figure: String = text.chars().take(40).map(part).collect();
    for money in [format!("{figure} EUR"), format!("EUR {figure}")] {
        let body = format!("Guten Tag,\n\ndie Gesamtforderung beträgt {money}.\n\nMit freundlichen Grüßen\n");
        let text = mail_text::read(Some(&body), None);
        let mail = Mail {
            subject: "Forderungsaufstellung",
            from_email: "post@gross.example",
            from_name: None,
            text: &text,
            headers: Headers::default(),
        };
        let Some(amount) = by_rules::extract(&mail).debt_amount else { continue };
        assert!(writes(&figure, amount), "{money} became {amount}");
        let is_below_zero = figure.trim_start().starts_with(['-', '–', '—']) && !is_later(&figure, amount);
        assert!(!is_below_zero, "{money} became {amount}, and is below zero");
    }
}

/// Whether another number than a text's first is an amount: a minus before the first does not belong to it.
fn is_later(text: &str, amount: Amount) -> bool {
    let text = text.replace('\u{a0}', " ");
    let is_any = |parts: Vec<&str>| {
        parts.iter().filter(|part| !part.is_empty()).skip(1).any(|part| writes(part, amount))
    };
    is_any(text.split([' ', '-', '–', '—']).collect()) || is_any(text.split("  ").collect())
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

/// Whether the digits of an amount stand in a text, with or without its cents, whatever marks are between them.
fn writes(text: &str, amount: Amount) -> bool {
    let cents = amount.to_string().replace('.', "");
    let cents = cents.trim_start_matches('0');
    let forms = [Some(cents), cents.strip_suffix('0'), cents.strip_suffix("00")];
    let is_part = |c: char| c.is_ascii_digit() || "., '’´\u{a0}-–—".contains(c);
    let runs = text
        .split(|c: char| !is_part(c))
        .map(|run| run.chars().filter(char::is_ascii_digit).collect::<String>());
    runs.filter(|run| !run.is_empty()).any(|run| {
        let is_zero = cents.is_empty() && run.contains('0');
        is_zero || forms.into_iter().flatten().any(|form| !form.is_empty() && run.contains(form))
    })
}

fn one_line(text: &str) -> String {
    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}
