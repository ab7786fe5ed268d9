//! Settings of Resend, the provider that keeps the mails whose events carry only an id.

use super::{given, is_confidential, keep, number, path};
use clap::Args;
use reqwest::{Url, header::HeaderValue};
use shared::process::{Secret, secret};
use std::time::Duration;

const URL: &str = "https://api.resend.com";
/// Four of these, a batch of fetches, have to fit into the time for it.
const TIMEOUT_MS: &str = "10000";

/// As given on the command line and in the environment. An empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct ResendSettings {
    /// Key of Resend's API with full access; without it mails that have to be fetched wait for a relay that has one
    #[arg(long, env = "RESEND_API_KEY", hide_env_values = true, global = true)]
    resend_api_key: Option<Secret>,
    /// File that holds RESEND_API_KEY
    #[arg(long, env = "RESEND_API_KEY_FILE", global = true)]
    resend_api_key_file: Option<String>,
    /// Where Resend's API is; https, or http on this machine
    #[arg(long, env = "RESEND_URL", default_value = URL, global = true)]
    resend_url: String,
    /// Milliseconds for fetching one mail, from the request to the end of the answer [100 to 10000]
    #[arg(long, env = "RESEND_TIMEOUT_MS", default_value = TIMEOUT_MS, global = true)]
    resend_timeout_ms: String,
}

/// How to reach Resend, checked.
#[derive(Debug, Clone)]
pub struct ResendConfig {
    /// `Bearer` and the key; marked as sensitive, so that a `Debug` print does not show it.
    pub authorization: HeaderValue,
    /// The address below which the API is.
    pub url: Url,
    /// For one mail, from the request to the end of the answer.
    pub timeout: Duration,
}

impl ResendSettings {
    /// None where no key is given, or where something is wrong: then it is on the list.
    pub(super) fn check(&self, problems: &mut Vec<String>) -> Option<ResendConfig> {
        let file = path(self.resend_api_key_file.as_ref());
        let key = keep(problems, secret("RESEND_API_KEY", self.resend_api_key.as_ref(), file)).flatten();
        let authorization = key.and_then(|key| keep(problems, authorization(&key)));
        let url = keep(problems, usable_url(given(&self.resend_url, URL)));
        let timeout = given(&self.resend_timeout_ms, TIMEOUT_MS);
        let timeout = keep(problems, number("RESEND_TIMEOUT_MS", timeout, 100..=10_000));
        Some(ResendConfig {
            authorization: authorization?,
            url: url?,
            timeout: Duration::from_millis(timeout?),
        })
    }
}

fn authorization(key: &Secret) -> Result<HeaderValue, String> {
    let key = key.expose().trim();
    let wrong = || "RESEND_API_KEY must be printable ASCII without blanks".to_owned();
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong());
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| wrong())?;
    header.set_sensitive(true);
    Ok(header)
}

/// The key goes to this address: over the network only encrypted, and to nothing that a query or a login would lead to.
fn usable_url(text: &str) -> Result<Url, String> {
    let wrong = || {
        Err("RESEND_URL must be an address such as https://api.resend.com (http only on this machine)"
            .to_owned())
    };
    let Ok(url) = Url::parse(text) else { return wrong() };
    let is_plain = url.username().is_empty() && url.password().is_none();
    let is_whole = url.query().is_none() && url.fragment().is_none();
    if is_plain && is_whole && is_confidential(&url) { Ok(url) } else { wrong() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_over_the_network_only_encrypted() {
        for good in [
            "https://api.resend.com",
            "https://proxy.example/resend/",
            "http://127.0.0.1:9",
            "http://[::1]:9",
            "http://localhost:9",
        ] {
            assert!(usable_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.resend.com",
            "api.resend.com",
            "ftp://x",
            "https://u:p@x",
            "https://x/?a=b",
            "https://x/#a",
            "http://127.0.0.1.example",
            "",
        ] {
            assert!(usable_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_never_shows() {
        let header = authorization(&"re_secret".parse().unwrap()).unwrap();
        assert!(!format!("{header:?}").contains("re_secret"));
        assert!(authorization(&"re_two words".parse().unwrap()).is_err());
    }
}
