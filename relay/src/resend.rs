//! Resend's API: fetches mails that it has received. The only file that knows its addresses, its answers and what its failures mean.
//!
//! Owns the bounds of what is taken over from there. It stores nothing and never reads what a mail says; error texts name the
//! provider's answer, never the mail.

use crate::{
    config::ResendConfig,
    ledger::FetchedParts,
    outcome::{Failure, FailureClass},
};
use jiff::Timestamp;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};
use std::{
    error::Error,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bytes of an answer. Inline pictures stay outside of the HTML, so that a mail's words come to a small part of it.
const ANSWER_LIMIT: usize = 8 << 20;
/// Bytes of an answer that only says what is wrong.
const REFUSAL_LIMIT: usize = 4 << 10;
/// Bytes of one part of a mail: what ingest takes for a whole request.
const PART_LIMIT: usize = 1 << 20;
/// Headers of one mail; the most travelled ones have some 80.
const HEADERS: usize = 200;
/// Bytes of a header's value; longer ones are signatures and seals, which nobody reads here.
const HEADER_LIMIT: usize = 1000;
/// Bytes of a header's name.
const HEADER_NAME_LIMIT: usize = 100;
/// Attachments of one mail, as ingest bounds them.
const ATTACHMENTS: usize = 1000;
/// Bytes of an attachment's name, type and id.
const ATTACHMENT_LIMIT: usize = 255;
/// For the connection alone, within the time for the whole fetch.
const CONNECT: Duration = Duration::from_secs(5);
/// The limit counts requests per second, so this is what to wait where the provider does not say how long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that is believed.
const PAUSE_CAP: Duration = Duration::from_secs(3600);

/// The provider's API.
#[derive(Debug, Clone)]
pub struct Resend {
    http: Client,
    base: Url,
    authorization: HeaderValue,
    timeout: Duration,
    /// Until when the provider asked for patience; one for all lanes and batches.
    paused_until: Arc<Mutex<Option<Instant>>>,
}

/// A mail as fetched.
#[derive(Debug, Default)]
pub struct Received {
    /// What is to be stored of it.
    pub parts: FetchedParts,
    /// The names of the parts that were longer than what is kept.
    pub cut: Vec<&'static str>,
}

impl Resend {
    /// Prepares the way without touching the network.
    ///
    /// # Errors
    /// TLS cannot be set up on this machine: why.
    pub fn new(config: &ResendConfig) -> Result<Resend, String> {
        // Another part of the program may have been faster; it installs the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .redirect(Policy::none()) // the key goes to the configured address and nowhere else
            .timeout(config.timeout)
            .connect_timeout(CONNECT.min(config.timeout))
            .user_agent(concat!("relay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("cannot set up HTTPS: {}", root_cause(&error)))?;
        Ok(Resend {
            http,
            base: config.url.clone(),
            authorization: config.authorization.clone(),
            timeout: config.timeout,
            paused_until: Arc::default(),
        })
    }

    /// Whether a request may be sent.
    ///
    /// # Errors
    /// The provider has asked for patience, and the time is not over.
    pub fn ready(&self) -> Result<(), Failure> {
        let until = *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            // The same text until it is over, since every new one is logged.
            Some(left) if !left.is_zero() => {
                Err(Failure::new(FailureClass::SinkDown, "Resend has asked to be left alone for a while"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Fetches a mail. The id must be one that [`shared::message::EmailFetch::is_provider_id`] lets through.
    ///
    /// # Errors
    /// Sink down or misconfigured; transient: there is no such mail, or not yet, or the answer cannot be read; permanent: the
    /// provider refuses the id, or the answer is too large.
    pub async fn fetch(&self, provider_id: &str) -> Result<Received, Failure> {
        self.ready()?;
        let request = self.http.get(self.address(provider_id));
        let request = request.header(AUTHORIZATION, self.authorization.clone());
        let sent = request.header(ACCEPT, "application/json").send().await;
        let answer = sent.map_err(|error| self.unreachable(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_success() {
            let body = self.body(answer, ANSWER_LIMIT).await?;
            let too_large = || {
                let text = format!("the mail as Resend sends it has more than {ANSWER_LIMIT} bytes");
                Failure::new(FailureClass::Permanent, text)
            };
            return read(&body.ok_or_else(too_large)?);
        }
        let body = self.body(answer, REFUSAL_LIMIT).await.ok().flatten().unwrap_or_default();
        let pause = pause_of(status, &headers, Timestamp::now());
        if let Some(pause) = pause {
            let until = Instant::now() + pause;
            let mut paused = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
            *paused = (*paused).max(Some(until));
        }
        Err(refusal(status, &body, pause))
    }

    /// The mail's address: the id is one segment of the path, whatever it holds.
    fn address(&self, provider_id: &str) -> Url {
        let mut url = self.base.clone();
        // An https address has a path, so there is always one to extend.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["emails", "receiving", provider_id]);
        }
        // Else every inline picture comes within the HTML, in base64.
        url.query_pairs_mut().append_pair("html_format", "cid");
        url
    }

    /// The whole body; None if it is longer than the limit. Reads no more than that.
    async fn body(&self, mut answer: Response, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > limit {
                return Ok(None);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        if error.is_timeout() {
            let text = format!("Resend: no whole answer within {} ms", self.timeout.as_millis());
            return Failure::new(FailureClass::SinkDown, text);
        }
        let class =
            if is_about_tls(&error) { FailureClass::SinkMisconfigured } else { FailureClass::SinkDown };
        // The address names the mail.
        Failure::new(class, format!("Resend cannot be reached: {}", root_cause(&error.without_url())))
    }
}

/// What the provider's refusal means; `pause`: how long it asks to be left alone.
fn refusal(status: StatusCode, body: &[u8], pause: Option<Duration>) -> Failure {
    let class = match status.as_u16() {
        408 | 429 | 500.. => FailureClass::SinkDown,
        // Not readable yet, or gone: only trying again tells.
        404 => FailureClass::Transient,
        400 | 410 | 422 => FailureClass::Permanent,
        // The key, or an address where something else answers.
        _ => FailureClass::SinkMisconfigured,
    };
    let mut text = format!("Resend answers {}", status.as_u16());
    if let Some(name) = refusal_name(body) {
        text = format!("{text} ({name})");
    }
    if let Some(pause) = pause {
        text = format!("{text} and asks for patience for {} s", pause.as_secs());
    }
    Failure::new(class, text)
}

/// The provider's name for the failure, such as `restricted_api_key`. Its message is not repeated: it may quote the request.
fn refusal_name(body: &[u8]) -> Option<String> {
    let name = serde_json::from_slice::<Value>(body).ok()?.get("name")?.as_str()?.to_owned();
    let is_a_name = name.len() <= 40 && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_a_name && !name.is_empty()).then_some(name)
}

/// How long the provider asks to be left alone: `Retry-After` in seconds or as a date.
fn pause_of(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let is_limit = status == StatusCode::TOO_MANY_REQUESTS;
    if !is_limit && status != StatusCode::SERVICE_UNAVAILABLE {
        return None;
    }
    let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    let until = |text| {
        let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
        Some(Duration::try_from(at.duration_since(now)).unwrap_or(PAUSE))
    };
    let pause = text.parse().ok().map(Duration::from_secs).or_else(|| until(text));
    pause.or(is_limit.then_some(PAUSE)).map(|pause| pause.clamp(PAUSE, PAUSE_CAP))
}

/// The innermost of an error's causes, which is the one that says something.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Whether a certificate or the TLS handshake is what failed: that does not pass by itself.
fn is_about_tls(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        // An error of I/O hides what it carries from `source`.
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>() || carried.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = match carried {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// The members of the answer that are of use; the others are not even looked at.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    text: Option<Words>,
    #[serde(default)]
    html: Option<Words>,
    #[serde(default)]
    headers: Value,
    #[serde(default)]
    attachments: Value,
}

/// A text in which half a character, as is left where somebody cut an emoji in two, does not spoil the rest.
struct Words(String);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Words;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Words, E> {
                Ok(Words(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Reads the answer: what is stored of a mail, bounded and without NUL, which Postgres cannot store.
///
/// # Errors
/// Transient: it is not what the provider documents.
pub fn read(body: &[u8]) -> Result<Received, Failure> {
    let undocumented = |what: &str| {
        Failure::new(FailureClass::Transient, format!("Resend's answer is not as documented ({what})"))
    };
    // The category only: serde_json's own words may quote the mail.
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| undocumented(&format!("{:?}", error.classify()).to_lowercase()))?;
    // Else whatever answers with some JSON would make an empty mail of this one.
    if answer.id.is_null() && answer.headers.is_null() && answer.text.is_none() && answer.html.is_none() {
        return Err(undocumented("no mail"));
    }
    let mut cut = Vec::new();
    let mut part = |name, words: Option<Words>| {
        let text = words?.0;
        let kept = bounded(&text, PART_LIMIT);
        if text.len() > PART_LIMIT {
            cut.push(name);
        }
        Some(kept)
    };
    let body_text = part("text", answer.text);
    let body_html = part("html", answer.html);
    // Headers are stored even where there are none: they tell a mail that was fetched from one that was not.
    let headers = Some(Value::Object(headers_of(&answer.headers)));
    let attachments = attachments_of(&answer.attachments);
    Ok(Received { parts: FetchedParts { body_text, body_html, headers, attachments }, cut })
}

/// The headers as an object of texts, names in lower case; of a repeated one the first, which is that of the last server.
fn headers_of(given: &Value) -> Map<String, Value> {
    let pairs: Vec<(&str, &Value)> = match given {
        Value::Object(members) => members.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        Value::Array(items) => {
            items.iter().filter_map(|item| Some((item.get("name")?.as_str()?, item.get("value")?))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    };
    let mut headers = Map::new();
    for (name, value) in pairs {
        let value = value.as_str().or_else(|| value.get(0)?.as_str());
        let name = bounded(name.trim(), HEADER_NAME_LIMIT).to_ascii_lowercase();
        if let Some(value) = value
            && !headers.contains_key(&name)
            && headers.len() < HEADERS
        {
            headers.insert(name, bounded(value.trim(), HEADER_LIMIT).into());
        }
    }
    headers
}

/// The attachments as `incoming_emails.attachments` lists them; None where there are none, so that what the event listed stays.
fn attachments_of(given: &Value) -> Option<Value> {
    let attachment = |item: &Value| {
        let mut kept = Map::new();
        for name in ["id", "filename", "content_type"] {
            if let Some(text) = item.get(name).and_then(Value::as_str) {
                kept.insert(name.into(), bounded(text, ATTACHMENT_LIMIT).into());
            }
        }
        if let Some(size) = item.get("size").and_then(Value::as_u64) {
            kept.insert("size".into(), json!(size));
        }
        Value::Object(kept)
    };
    let list: Vec<_> = given.as_array()?.iter().take(ATTACHMENTS).map(attachment).collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

/// The start of a text without NUL, at most so many bytes, ending with a whole character.
fn bounded(text: &str, limit: usize) -> String {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text).replace('\0', "")
}

#[cfg(test)]
mod tests;
