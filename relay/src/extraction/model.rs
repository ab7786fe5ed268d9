//! The extractors that ask a language model: one client for both kinds of server.
//!
//! Owns the call: when one may be sent (slots, pace, a pause that the server asked for), its time and size limits, and which failure
//! is whose. The wire forms are `openai`'s and `anthropic`'s, the words are `question`'s, and what an answer is worth is `answer`'s:
//! nothing that a server sends is believed before it has passed there. It never counts a budget, that is `usage`'s, and no text of a
//! mail or of a server gets into a failure.

pub(super) mod answer;
mod anthropic;
mod openai;
mod question;
mod refusal;

use super::{ExtractedEntities, Headers, Mail, estimated_tokens, usage::Uncounted};
use crate::{
    mail_text::MailText,
    outcome::{Failure, FailureClass},
};
pub use answer::Answer;
use jiff::Timestamp;
use refusal::{class, error_code, is_tls, retry_after};
use reqwest::{
    Client, Response, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use serde_json::Value;
use shared::process::Secret;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until, timeout, timeout_at},
};

/// For TCP and TLS together; a server that is there answers in far less.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of an answer. An answer of ours has some 2 kB, a model's reasoning beside it some 100.
const LONGEST_REPLY: usize = 1 << 20;
/// More than any model reads and writes at once; a server that reports more is wrong and must not end the day's budget.
const MOST_TOKENS: u64 = 10_000_000;
/// Tokens that a model may write: an answer has some 300, the rest is for those that reason first.
const WRITTEN_TOKENS: u32 = 4096;

/// The wire form that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// `/v1/chat/completions` with a JSON schema: OpenAI, vLLM, Ollama, llama.cpp and others.
    OpenAi,
    /// `/v1/messages` with a forced tool.
    Anthropic,
}

impl Provider {
    /// Its name in the configuration, in texts and in `extractor_usage`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Provider::OpenAi => "openai",
            Provider::Anthropic => "anthropic",
        }
    }

    /// The hosted service.
    #[must_use]
    pub const fn url(self) -> &'static str {
        match self {
            Provider::OpenAi => "https://api.openai.com",
            Provider::Anthropic => "https://api.anthropic.com",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Provider::OpenAi => "/v1/chat/completions",
            Provider::Anthropic => "/v1/messages",
        }
    }
}

/// Which model reads the mails, and how much of it may be used.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// What the server speaks.
    pub provider: Provider,
    /// Its base URL, with or without `/v1`.
    pub url: Url,
    /// The model's name as the server knows it.
    pub model: String,
    /// The key; a local server may need none.
    pub key: Option<Secret>,
    /// For one call, from the connection to the last byte.
    pub timeout: Duration,
    /// Most calls at once of one relay; at least 1.
    pub concurrency: usize,
    /// Most calls per minute of one relay; 0 = no limit.
    pub requests_per_minute: u32,
    /// Most tokens per day (UTC) of all relays together; 0 = no limit.
    pub daily_tokens: u64,
}

/// A model behind a server. Clones share its limits.
#[derive(Clone)]
pub struct Model(Arc<Inner>);

struct Inner {
    config: ModelConfig,
    http: Client,
    endpoint: Url,
    headers: HeaderMap,
    slots: Semaphore,
    /// No call starts before it, so that calls are evenly spaced.
    next_call: Mutex<Instant>,
    /// Until when the server wants no call.
    paused_until: Mutex<Option<Instant>>,
    uncounted: Uncounted,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Model({})", self.provider().name())
    }
}

/// What a call came to.
#[derive(Debug)]
pub struct Reply {
    /// The model's answer, not yet checked.
    pub answer: Result<Answer, Failure>,
    /// What it used: as the server says, else estimated.
    pub tokens: u64,
    /// Whether there was no answer in time.
    pub late: bool,
    /// Whether a failure of the sink may be due to this mail: the server has stumbled over the request, or never got to its end.
    pub may_be_the_mails: bool,
}

/// A call without a reply that could be read.
struct NoReply {
    failure: Failure,
    may_be_the_mails: bool,
}

impl From<Failure> for NoReply {
    fn from(failure: Failure) -> NoReply {
        NoReply { failure, may_be_the_mails: false }
    }
}

impl Model {
    /// Prepares the client without touching the network.
    ///
    /// # Errors
    /// What cannot be used and why.
    pub fn new(config: ModelConfig) -> Result<Model, String> {
        // Refused where another part of the program has installed it already: the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder().redirect(Policy::none()).connect_timeout(CONNECT).build();
        let http = http.map_err(|error| format!("EXTRACTOR: no HTTP client: {}", error.without_url()))?;
        let mut endpoint = config.url.clone();
        let base = endpoint.path().trim_end_matches('/');
        let path = format!("{}{}", base.strip_suffix("/v1").unwrap_or(base), config.provider.path());
        endpoint.set_path(&path);
        let headers = headers(&config).ok_or("EXTRACTOR_API_KEY has characters that no key has")?;
        let slots = Semaphore::new(config.concurrency.max(1));
        let (next_call, paused_until) = (Mutex::new(Instant::now()), Mutex::new(None));
        let uncounted = Uncounted::default();
        let inner = Inner { config, http, endpoint, headers, slots, next_call, paused_until, uncounted };
        Ok(Model(Arc::new(inner)))
    }

    /// What the server speaks.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.0.config.provider
    }

    /// Most tokens per day; None = no limit.
    #[must_use]
    pub fn daily_tokens(&self) -> Option<u64> {
        Some(self.0.config.daily_tokens).filter(|tokens| *tokens > 0)
    }

    /// For [`usage`](super::usage).
    pub(super) fn uncounted(&self) -> &Uncounted {
        &self.0.uncounted
    }

    /// For one call.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.config.timeout
    }

    /// Most calls at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.0.config.concurrency.max(1)
    }

    /// Whether the server has asked for a pause that is not over. Sends nothing.
    ///
    /// # Errors
    /// A [`Failure`] of the class sink down.
    pub fn pause(&self) -> Result<(), Failure> {
        let until = *lock(&self.0.paused_until);
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            Some(left) if !left.is_zero() => {
                let text = format!("asks for a pause, {} s are left", left.as_secs() + 1);
                Err(self.failure(FailureClass::SinkDown, &text))
            }
            _ => Ok(()),
        }
    }

    /// Waits until a call may be sent; None when that is not before `latest`. The slot is taken until the permit is dropped.
    ///
    /// # Errors
    /// The server has asked for a pause.
    pub async fn turn(&self, latest: Instant) -> Result<Option<SemaphorePermit<'_>>, Failure> {
        self.pause()?;
        let Ok(Ok(permit)) = timeout_at(latest, self.0.slots.acquire()).await else { return Ok(None) };
        let start = self.next_start(latest);
        // Without a place before `latest` all the same: who gives its message back at once would claim it again at once.
        sleep_until(start.unwrap_or(latest)).await;
        self.pause()?;
        Ok(Some(permit).filter(|_| start.is_some()))
    }

    fn next_start(&self, latest: Instant) -> Option<Instant> {
        let per_minute = self.0.config.requests_per_minute;
        let now = Instant::now();
        if per_minute == 0 {
            return Some(now);
        }
        let mut next = lock(&self.0.next_call);
        let start = (*next).max(now);
        if start > latest {
            return None;
        }
        *next = start + Duration::from_secs(60) / per_minute;
        Some(start)
    }

    /// Asks about one mail, which takes `within` at most. Needs a [`turn`](Model::turn).
    pub async fn ask(&self, mail: &Mail<'_>, within: Duration) -> Reply {
        let Inner { config, .. } = self.0.as_ref();
        let request = self.request(mail);
        let sent = estimated(request.to_string().chars().count());
        let within = within.min(config.timeout);
        let began = Instant::now();
        let without = |answer, tokens| Reply { answer, tokens, late: false, may_be_the_mails: false };
        let body = match timeout(within, self.send(&request)).await {
            Ok(Ok(body)) => body,
            Ok(Err(NoReply { failure, may_be_the_mails })) => {
                let left = within.saturating_sub(began.elapsed());
                let (failure, tokens) = self.whose(failure, left).await;
                return Reply { may_be_the_mails, ..without(Err(failure), tokens) };
            }
            Err(_) => {
                let text = format!("no answer within {:?}", within);
                // What was sent may well have been read, and paid for.
                let answer = Err(self.failure(FailureClass::SinkDown, &text));
                return Reply { answer, tokens: sent, late: true, may_be_the_mails: true };
            }
        };
        let Ok(reply) = serde_json::from_slice::<Value>(&body) else {
            let answer = Err(self.failure(FailureClass::Transient, "its reply is no JSON"));
            return without(answer, sent + estimated(body.len()));
        };
        let (answer, tokens) = match config.provider {
            Provider::OpenAi => (openai::answer(&reply), openai::tokens(&reply)),
            Provider::Anthropic => (anthropic::answer(&reply), anthropic::tokens(&reply)),
        };
        let answer = answer.map_err(|text| self.failure(FailureClass::Transient, text));
        without(answer, tokens.unwrap_or_else(|| sent + estimated(body.len())).min(MOST_TOKENS))
    }

    /// Whether the server answers about a mail that nobody could dislike; with the tokens that this took.
    pub async fn answers(&self, within: Duration) -> (bool, u64) {
        let request = self.harmless();
        match timeout(within.min(self.0.config.timeout), self.send(&request)).await {
            Ok(Ok(_)) => (true, estimated(request.to_string().chars().count())),
            Ok(Err(_)) | Err(_) => (false, 0),
        }
    }

    fn harmless(&self) -> Value {
        let text = MailText { current: "Guten Tag.".into(), ..MailText::default() };
        let (subject, from_email) = ("Test", "test@test.invalid");
        self.request(&Mail { subject, from_email, from_name: None, text: &text, headers: Headers::default() })
    }

    /// A refusal for good is the mail's only if the server takes another one: what it dislikes may be in every request of ours, a
    /// model without schemas for one. With the tokens that this took.
    async fn whose(&self, failure: Failure, within: Duration) -> (Failure, u64) {
        if failure.class != FailureClass::Permanent {
            return (failure, 0);
        }
        let request = self.harmless();
        match timeout(within, self.send(&request)).await {
            Ok(Ok(_)) => (failure, estimated(request.to_string().chars().count())),
            Ok(Err(NoReply { failure: again, .. })) if again.class == FailureClass::Permanent => {
                let text = format!("{}, whatever the mail", failure.text);
                (Failure::new(FailureClass::SinkMisconfigured, text), 0)
            }
            Ok(Err(NoReply { failure: again, .. })) => (again, 0),
            Err(_) => (Failure::new(FailureClass::SinkDown, failure.text), 0),
        }
    }

    fn request(&self, mail: &Mail<'_>) -> Value {
        let config = &self.0.config;
        match config.provider {
            Provider::OpenAi => openai::request(&config.model, mail),
            Provider::Anthropic => anthropic::request(&config.model, mail),
        }
    }

    /// What an answer is worth, in the light of the mail. Pure computation over the whole mail.
    ///
    /// # Errors
    /// A transient [`Failure`]: the answer has not the shape that was asked for.
    pub fn check(&self, answer: &Answer, mail: &Mail<'_>) -> Result<ExtractedEntities, Failure> {
        answer::entities(answer, mail).map_err(|text| self.failure(FailureClass::Transient, text))
    }

    async fn send(&self, request: &Value) -> Result<Vec<u8>, NoReply> {
        let Inner { http, endpoint, headers, .. } = self.0.as_ref();
        let sent = http.post(endpoint.clone()).headers(headers.clone()).json(request).send().await;
        let response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let pause = retry_after(response.headers(), Timestamp::now());
        let body = self.read(response).await;
        if status.is_success() {
            return body;
        }
        let class = class(status);
        let pause = pause.filter(|_| class == FailureClass::SinkDown);
        if let Some(pause) = pause {
            let mut until = lock(&self.0.paused_until);
            *until = (*until).max(Some(Instant::now() + pause));
        }
        let code = body.ok().and_then(|body| error_code(&body));
        let asks = pause.map(|pause| format!("it asks for a pause of {} s", pause.as_secs()));
        let parts = [Some(format!("status {}", status.as_u16())), code, asks];
        let failure = self.failure(class, &parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        // 429, 503, 529: it is busy, whoever asks.
        Err(NoReply { failure, may_be_the_mails: matches!(status.as_u16(), 500 | 502 | 504) })
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, NoReply> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > LONGEST_REPLY {
                let text = format!("its reply has more than {LONGEST_REPLY} bytes");
                return Err(self.failure(FailureClass::Transient, &text).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> NoReply {
        if is_tls(error) {
            return self.failure(FailureClass::SinkMisconfigured, "TLS cannot be agreed on").into();
        }
        let may_be_the_mails = !error.is_connect();
        let text = if may_be_the_mails { "the connection broke" } else { "no connection" };
        NoReply { failure: self.failure(FailureClass::SinkDown, text), may_be_the_mails }
    }

    fn failure(&self, class: FailureClass, text: &str) -> Failure {
        Failure::new(class, format!("{}: {text}", self.provider().name()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn estimated(characters: usize) -> u64 {
    u64::from(estimated_tokens(characters).unsigned_abs())
}

/// What identifies us; None if the key cannot stand in a header.
fn headers(config: &ModelConfig) -> Option<HeaderMap> {
    let secret = |text: String| {
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    let mut headers = HeaderMap::new();
    let key = config.key.as_ref().map(Secret::expose);
    match config.provider {
        Provider::OpenAi => {
            if let Some(key) = key {
                headers.insert(reqwest::header::AUTHORIZATION, secret(format!("Bearer {key}"))?);
            }
        }
        Provider::Anthropic => {
            if let Some(key) = key {
                headers.insert(HeaderName::from_static("x-api-key"), secret(key.to_owned())?);
            }
            headers
                .insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));
        }
    }
    Some(headers)
}
