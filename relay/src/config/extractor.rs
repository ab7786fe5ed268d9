//! What reads the mails, and how much of a model may be used.

use super::{given, is_confidential, keep, number, path};
use crate::extraction::model::{ModelConfig, Provider};
use clap::Args;
use reqwest::Url;
use shared::process::{Secret, secret};
use std::time::Duration;

const EXTRACTOR: &str = "rules";
/// A hosted model takes 2 to 10 s for a long mail.
const TIMEOUT_SECONDS: &str = "30";
const CONCURRENCY: &str = "4";
const NO_LIMIT: &str = "0";

/// As given on the command line and in the environment. An empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct ExtractorSettings {
    /// What reads the mails: rules (needs no network), openai (any server that speaks /v1/chat/completions) or anthropic
    #[arg(long, env = "EXTRACTOR", default_value = EXTRACTOR, global = true)]
    extractor: String,
    /// Base URL of the model's server, with or without /v1; https, or http on this machine or without a key [default: the provider's own]
    #[arg(long, env = "EXTRACTOR_URL", global = true)]
    extractor_url: Option<String>,
    /// The model's name as its server knows it; needed by openai and anthropic
    #[arg(long, env = "EXTRACTOR_MODEL", global = true)]
    extractor_model: Option<String>,
    /// The key of the model's server; with openai a server of your own may need none
    #[arg(long, env = "EXTRACTOR_API_KEY", hide_env_values = true, global = true)]
    extractor_api_key: Option<Secret>,
    /// File that holds EXTRACTOR_API_KEY
    #[arg(long, env = "EXTRACTOR_API_KEY_FILE", global = true)]
    extractor_api_key_file: Option<String>,
    /// Seconds for one call of a model [1 to 300]; the lane's lease is made to fit
    #[arg(long, env = "EXTRACTOR_TIMEOUT_SECONDS", default_value = TIMEOUT_SECONDS, global = true)]
    extractor_timeout_seconds: String,
    /// Calls at once of this relay, at most [1 to 16]
    #[arg(long, env = "EXTRACTOR_CONCURRENCY", default_value = CONCURRENCY, global = true)]
    extractor_concurrency: String,
    /// Calls per minute of this relay, at most, evenly spaced [up to 10000; 0 = no limit]
    #[arg(long, env = "EXTRACTOR_REQUESTS_PER_MINUTE", default_value = NO_LIMIT, global = true)]
    extractor_requests_per_minute: String,
    /// Tokens per day (UTC) of all relays together, after which mails wait for the next day [0 = no limit]
    #[arg(long, env = "EXTRACTOR_DAILY_TOKENS", default_value = NO_LIMIT, global = true)]
    extractor_daily_tokens: String,
}

impl ExtractorSettings {
    /// The model that reads the mails; None = the rules.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub fn check(&self) -> Result<Option<ModelConfig>, Vec<String>> {
        let mut problems = Vec::new();
        let bounded = |name, text: &str, default, range| number(name, given(text, default), range);
        let seconds = keep(
            &mut problems,
            bounded("EXTRACTOR_TIMEOUT_SECONDS", &self.extractor_timeout_seconds, TIMEOUT_SECONDS, 1..=300),
        );
        let concurrency = keep(
            &mut problems,
            bounded("EXTRACTOR_CONCURRENCY", &self.extractor_concurrency, CONCURRENCY, 1..=16),
        );
        let per_minute = &self.extractor_requests_per_minute;
        let per_minute =
            keep(&mut problems, bounded("EXTRACTOR_REQUESTS_PER_MINUTE", per_minute, NO_LIMIT, 0..=10_000));
        let daily = &self.extractor_daily_tokens;
        let daily =
            keep(&mut problems, bounded("EXTRACTOR_DAILY_TOKENS", daily, NO_LIMIT, 0..=1_000_000_000_000));
        let provider = keep(&mut problems, self.provider()).flatten();
        let Some(provider) = provider else {
            return if problems.is_empty() { Ok(None) } else { Err(problems) };
        };
        let url = keep(&mut problems, self.url(provider));
        let model = keep(&mut problems, self.model());
        let key = keep(&mut problems, self.key(provider));
        if let (Some(url), Some(Some(_))) = (&url, &key)
            && !is_confidential(url)
        {
            problems.push(
                "EXTRACTOR_URL must be https where a key goes with each mail (http only on this machine)"
                    .into(),
            );
        }
        let config = || {
            Some(ModelConfig {
                provider,
                url: url?,
                model: model?,
                key: key?,
                timeout: Duration::from_secs(seconds?),
                concurrency: usize::try_from(concurrency?).ok()?,
                requests_per_minute: u32::try_from(per_minute?).ok()?,
                daily_tokens: daily?,
            })
        };
        config().filter(|_| problems.is_empty()).map(Some).ok_or(problems)
    }

    fn provider(&self) -> Result<Option<Provider>, String> {
        match given(&self.extractor, EXTRACTOR) {
            "rules" => Ok(None),
            "openai" => Ok(Some(Provider::OpenAi)),
            "anthropic" => Ok(Some(Provider::Anthropic)),
            _ => Err("EXTRACTOR must be rules, openai or anthropic".into()),
        }
    }

    /// A login in the URL would get into texts; the key has a variable of its own.
    fn url(&self, provider: Provider) -> Result<Url, String> {
        let text = given(self.extractor_url.as_deref().unwrap_or_default(), provider.url());
        let plain = |url: &Url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        };
        let wrong =
            "EXTRACTOR_URL must be a base URL such as http://127.0.0.1:11434, without login and query";
        Url::parse(text).ok().filter(plain).ok_or_else(|| wrong.into())
    }

    fn model(&self) -> Result<String, String> {
        let model = self.extractor_model.as_deref().unwrap_or_default().trim();
        if model.is_empty() {
            return Err("EXTRACTOR_MODEL is not set: the model's name as its server knows it".into());
        }
        let fits = model.len() <= 200 && model.chars().all(|c| c.is_ascii_graphic());
        fits.then(|| model.to_owned())
            .ok_or_else(|| "EXTRACTOR_MODEL must be at most 200 visible ASCII characters".into())
    }

    fn key(&self, provider: Provider) -> Result<Option<Secret>, String> {
        let file = path(self.extractor_api_key_file.as_ref());
        let key = secret("EXTRACTOR_API_KEY", self.extractor_api_key.as_ref(), file)?;
        let is_hosted = self.extractor_url.as_deref().unwrap_or_default().trim().is_empty();
        match key {
            Some(key) if !key.expose().bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("EXTRACTOR_API_KEY must be visible ASCII characters without blanks".into())
            }
            None if provider == Provider::Anthropic || is_hosted => {
                Err("EXTRACTOR_API_KEY is not set (nor EXTRACTOR_API_KEY_FILE)".into())
            }
            key => Ok(key),
        }
    }
}
