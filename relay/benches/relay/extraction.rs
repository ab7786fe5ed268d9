//! What an extractor makes of a folder of mails whose right answers are known, and how fast it reads.

use crate::report::{Figures, joined, print, ratio, say};
use anyhow::{Context as _, bail};
use futures_util::{StreamExt, stream};
use relay::{
    config::ExtractorSettings,
    extraction::{ExtractedEntities, Extractor, Headers, Intent, Mail, model::ModelConfig},
    mail_text,
    outcome::Failure,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use shared::money::Amount;
use std::{fs, path::Path, time::Instant};
use unicode_normalization::UnicodeNormalization as _;

/// A sample file; more fields are allowed.
#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(skip)]
    file: String,
    webhook: Webhook,
    expected: Expected,
}

#[derive(Debug, Deserialize)]
struct Webhook {
    from_email: String,
    from_name: Option<String>,
    subject: Option<String>,
    body_text: Option<String>,
    body_html: Option<String>,
}

/// What a careful clerk would enter.
#[derive(Debug, Deserialize)]
struct Expected {
    is_creditor_reply: bool,
    intent: Option<Intent>,
    client_name: Option<String>,
    client_aktenzeichen: Option<String>,
    creditor_name: Option<String>,
    debt_amount: Option<Amount>,
}

pub(crate) async fn run(folder: &Path, runs: u32, settings: &ExtractorSettings) -> anyhow::Result<()> {
    let config = settings.check().map_err(|problems| anyhow::anyhow!("{}", problems.join("; ")))?;
    let extractor = Extractor::new(config.as_ref()).map_err(anyhow::Error::msg)?;
    let samples = samples(folder)?;
    let side_by_side = config.as_ref().map_or(1, |config| config.concurrency);
    let mut rates = Figures::default();
    let mut judged = None;
    for _ in 0..runs {
        let began = Instant::now();
        let reading = stream::iter(&samples).map(|sample| read(&extractor, &sample.webhook));
        let answers: Vec<_> = reading.buffered(side_by_side).collect().await;
        #[expect(clippy::cast_precision_loss, reason = "a folder of mails")]
        rates.add("mails_per_second", samples.len() as f64 / began.elapsed().as_secs_f64());
        judged.get_or_insert(answers);
    }
    let answers = judged.unwrap_or_default();
    for (sample, answer) in samples.iter().zip(&answers) {
        if let Err(failure) = answer {
            say(&format!("{}: {failure}", sample.file));
        }
    }
    let line = json!({
        "bench": "extraction", "variant": config.as_ref().map_or("rules", |config| config.provider.name()),
        "model": config.as_ref().map(|config: &ModelConfig| &config.model), "n": samples.len(), "runs": runs,
        "amounts": amounts(&samples, &answers), "failed": files(&samples, &answers, |_, answer| answer.is_err()),
    });
    print(&joined([line, Value::Object(shares(&samples, &answers)), rates.spread()]))
}

type Read = Result<ExtractedEntities, Failure>;

async fn read(extractor: &Extractor, webhook: &Webhook) -> Read {
    let text = mail_text::read(webhook.body_text.as_deref(), webhook.body_html.as_deref());
    let mail = Mail {
        subject: webhook.subject.as_deref().unwrap_or_default(),
        from_email: &webhook.from_email,
        from_name: webhook.from_name.as_deref(),
        text: &text,
        headers: Headers::default(),
    };
    extractor.read(&mail).await
}

/// The sample files of a folder in the order of their names.
fn samples(folder: &Path) -> anyhow::Result<Vec<Sample>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    if paths.is_empty() {
        bail!("{} has no .json files", folder.display());
    }
    let sample = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path)?;
        let mut sample: Sample =
            serde_json::from_str(&text).with_context(|| format!("{} is no sample", path.display()))?;
        sample.file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(sample)
    };
    paths.iter().map(sample).collect()
}

fn files(samples: &[Sample], answers: &[Read], is_named: impl Fn(&Expected, &Read) -> bool) -> Vec<String> {
    let both = samples.iter().zip(answers);
    both.filter(|(sample, answer)| is_named(&sample.expected, answer))
        .map(|(sample, _)| sample.file.clone())
        .collect()
}

/// Precision counts a wrong amount and one where none should be; recall, those that should be there.
fn amounts(samples: &[Sample], answers: &[Read]) -> Value {
    let stated = |answer: &Read| answer.as_ref().ok().and_then(|found| found.debt_amount);
    let right = files(samples, answers, |expected, answer| {
        expected.debt_amount.is_some() && stated(answer) == expected.debt_amount
    });
    let wrong = files(samples, answers, |expected, answer| {
        stated(answer).is_some() && stated(answer) != expected.debt_amount
    });
    let missed = files(samples, answers, |expected, answer| {
        expected.debt_amount.is_some() && stated(answer).is_none()
    });
    let expected = samples.iter().filter(|sample| sample.expected.debt_amount.is_some()).count();
    json!({
        "expected": expected, "right": right.len(), "precision": share(right.len(), right.len() + wrong.len()),
        "recall": share(right.len(), expected), "wrong": wrong, "missed": missed,
    })
}

/// Of every other field the share that is right, and the files where it is not.
fn shares(samples: &[Sample], answers: &[Read]) -> Map<String, Value> {
    type IsRight = fn(&Expected, &ExtractedEntities) -> bool;
    let fields: [(&str, IsRight); 5] = [
        ("is_creditor_reply", |expected, found| expected.is_creditor_reply == found.is_creditor_reply),
        ("intent", |expected, found| expected.intent.is_none_or(|intent| intent == found.intent)),
        ("client_aktenzeichen", |expected, found| expected.client_aktenzeichen == found.client_aktenzeichen),
        ("client_name", |expected, found| folded(&expected.client_name) == folded(&found.client_name)),
        ("creditor_name", |expected, found| firm(&expected.creditor_name) == firm(&found.creditor_name)),
    ];
    let judge = |(name, is_right): (&str, IsRight)| {
        let wrong = files(samples, answers, |expected, answer| {
            !answer.as_ref().is_ok_and(|found| is_right(expected, found))
        });
        let value = json!({ "right": share(samples.len() - wrong.len(), samples.len()), "wrong": wrong });
        (name.to_owned(), value)
    };
    fields.into_iter().map(judge).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a folder of mails")]
fn share(part: usize, whole: usize) -> Value {
    ratio(part as f64, whole as f64)
}

/// Without regard to case, ß/ss and Unicode form.
fn folded(name: &Option<String>) -> Option<String> {
    name.as_ref().map(|name| name.nfc().collect::<String>().to_lowercase().replace('ß', "ss"))
}

/// A firm's name without its legal form.
fn firm(name: &Option<String>) -> Option<String> {
    const FORMS: [&str; 17] = [
        "gmbh",
        "&",
        "co.",
        "co",
        "kg",
        "kgaa",
        "ag",
        "eg",
        "e.v.",
        "ev",
        "ug",
        "ohg",
        "gbr",
        "se",
        "mbh",
        "ltd",
        "(haftungsbeschränkt)",
    ];
    let name = folded(name)?;
    Some(name.split_whitespace().filter(|word| !FORMS.contains(word)).collect::<Vec<_>>().join(" "))
}
