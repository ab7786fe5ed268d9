//! `relay extract`: what an extractor makes of one mail. Needs neither Postgres nor MongoDB and counts nothing.

use crate::{
    extraction::{Extractor, Headers, Mail, estimated_tokens, model::ModelConfig},
    mail_text::{self, MailText},
};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of the input: a mail of 10 MB with its escapes, more than any source sends.
const LONGEST_INPUT: u64 = 16 << 20;

/// The mail of a webhook's body; other fields do not matter here.
#[derive(Deserialize)]
struct Webhook {
    from_email: String,
    from_name: Option<String>,
    subject: Option<String>,
    body_text: Option<String>,
    body_html: Option<String>,
    #[serde(default)]
    headers: Option<serde_json::Value>,
}

/// Reads the mail, prints its entities as JSON and, without `--json`, how much text there was.
pub(super) async fn run(file: Option<&Path>, json: bool, model: Option<&ModelConfig>) -> anyhow::Result<()> {
    let webhook = parse(&input(file)?)?;
    let extractor = Extractor::new(model).map_err(anyhow::Error::msg)?;
    let text = mail_text::read(webhook.body_text.as_deref(), webhook.body_html.as_deref());
    let (name, address) = sender(&webhook.from_email);
    let mail = Mail {
        subject: webhook.subject.as_deref().unwrap_or_default(),
        from_email: address,
        from_name: webhook.from_name.as_deref().filter(|name| !name.trim().is_empty()).or(name),
        text: &text,
        headers: Headers::new(webhook.headers.as_ref()),
    };
    let entities = extractor.read(&mail).await?;
    if json {
        println!("{}", serde_json::to_string(&entities)?);
    } else {
        println!("{}\n\n{}", serde_json::to_string_pretty(&entities)?, measures(&webhook, &text));
    }
    Ok(())
}

fn input(file: Option<&Path>) -> anyhow::Result<String> {
    let name = file.map_or("standard input".into(), |file| file.display().to_string());
    let reader: Box<dyn Read> = match file {
        Some(file) => Box::new(File::open(file).with_context(|| format!("cannot open {name}"))?),
        None => Box::new(io::stdin()),
    };
    let mut bytes = Vec::new();
    reader.take(LONGEST_INPUT + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > LONGEST_INPUT {
        bail!("{name} has more than {LONGEST_INPUT} bytes");
    }
    String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8"))
}

/// A webhook's body, or a sample file that holds one.
fn parse(input: &str) -> anyhow::Result<Webhook> {
    if input.trim().is_empty() {
        bail!("the input is empty: give a mail as the webhook's JSON body, on standard input or by --file");
    }
    let mut value: serde_json::Value = serde_json::from_str(input).context("the input is no JSON")?;
    if let Some(webhook) = value.get_mut("webhook") {
        value = webhook.take();
    }
    let shape = "the input is no mail: expected an object with from_email, and subject, from_name, body_text, body_html";
    serde_path_to_error::deserialize(value).context(shape)
}

/// `Name <address>` in two; most senders give the address alone.
fn sender(from: &str) -> (Option<&str>, &str) {
    match from.trim().strip_suffix('>').and_then(|from| from.rsplit_once('<')) {
        Some((name, address)) => {
            (Some(name.trim().trim_matches('"')).filter(|name| !name.is_empty()), address.trim())
        }
        None => (None, from.trim()),
    }
}

fn measures(webhook: &Webhook, text: &MailText) -> String {
    let length = |text: &str| text.chars().count();
    let body = |body: &Option<String>| body.as_deref().map_or(0, length);
    let (plain, html) = (body(&webhook.body_text), body(&webhook.body_html));
    let (current, history) = (length(&text.current), length(&text.history));
    format!(
        "received: {plain} characters of text, {html} of HTML, about {} tokens\n\
         cleaned text: {current} characters, about {} tokens\n\
         cut off as quoted history: {history} characters",
        estimated_tokens(plain + html),
        estimated_tokens(current),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_name_may_stand_before_the_address() {
        assert_eq!(sender(" a@b.example "), (None, "a@b.example"));
        assert_eq!(sender("\"Bank AG\" <a@b.example>"), (Some("Bank AG"), "a@b.example"));
        assert_eq!(sender("<a@b.example>"), (None, "a@b.example"));
    }

    #[test]
    fn a_webhooks_body_and_a_sample_file_are_read() {
        let mail = r#"{"from_email": "a@b.example", "subject": null, "extra": 1}"#;
        assert_eq!(parse(mail).unwrap().from_email, "a@b.example");
        assert_eq!(parse(&format!(r#"{{"webhook": {mail}, "expected": {{}}}}"#)).unwrap().subject, None);
        for wrong in ["", "no JSON", "[]", "{}", r#"{"webhook": 1}"#, r#"{"from_email": 1}"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
