//! The configuration of `ingest`: every setting with its variable, default and unit, and what must hold between them.
//!
//! clap only collects texts; they are read here, so that a wrong flag and a wrong variable are reported alike, all at once,
//! and an empty variable is no variable.

mod limits;

use crate::{
    access::Access,
    source::{MIN_SECRET_BYTES, Verifiers, standard, zendesk},
};
pub use limits::{LimitSettings, Limits};
use shared::bearer::Tokens;
use shared::process::{LogFormat, Secret, log_filter, secret};
use std::{net::SocketAddr, path::Path, str::FromStr};

const LISTEN: &str = "127.0.0.1:8080";
const ADMIN_LISTEN: &str = "127.0.0.1:9464";
const LOG_FORMAT: &str = "text";

/// Where the programs listen, what they trust and what they allow, as texts from flags and variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Postgres, as postgres://user:password@host:port/database; with TLS: ?sslmode=verify-full&sslrootcert=FILE
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<Secret>,
    /// File that holds it
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<String>,
    /// Address of the public listener; port 0 takes a free one
    #[arg(long, env = "INGEST_LISTEN", value_name = "ADDRESS", default_value = LISTEN)]
    listen: String,
    /// Address of the admin listener: /livez, /readyz, /metrics; port 0 takes a free one
    #[arg(long, env = "INGEST_ADMIN_LISTEN", value_name = "ADDRESS", default_value = ADMIN_LISTEN)]
    admin_listen: String,
    #[command(flatten)]
    access: AccessSettings,
    /// Form of the log lines on standard error (json|text); RUST_LOG filters them, default info
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = LOG_FORMAT)]
    log_format: String,
    #[command(flatten)]
    limits: LimitSettings,
}

/// Who may send.
#[derive(Debug, Clone, clap::Args)]
pub struct AccessSettings {
    #[command(flatten)]
    sources: SourceSettings,
    /// Accept also the replaced service's header X-Zendesk-Signature, hex HMAC of the body alone (true|false)
    #[arg(long, env = "ZENDESK_LEGACY_SIGNATURE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    zendesk_legacy_signature: String,
    /// Tokens for /v1/debt-updates and /v1/emails, comma-separated; without any, both do not exist
    #[arg(long, env = "API_TOKENS", hide_env_values = true, value_name = "TOKENS")]
    api_tokens: Option<Secret>,
    /// File that holds them
    #[arg(long, env = "API_TOKENS_FILE", value_name = "FILE")]
    api_tokens_file: Option<String>,
    /// Take webhooks of sources without a secret as they come, unsigned; warns each minute (true|false)
    #[arg(long, env = "INGEST_INSECURE_ALLOW_UNSIGNED", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    insecure_allow_unsigned: String,
    /// Take webhook secrets of less than 24 bytes, for test set-ups (true|false)
    #[arg(long, env = "INGEST_INSECURE_ALLOW_SHORT_SECRETS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", default_value = "false")]
    insecure_allow_short_secrets: String,
}

/// The secrets of the webhook sources; a source without one does not exist.
#[derive(Debug, Clone, clap::Args)]
pub struct SourceSettings {
    /// Zendesk's signing secrets, comma-separated
    #[arg(long, env = "ZENDESK_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRETS")]
    zendesk_webhook_secret: Option<Secret>,
    /// File that holds them
    #[arg(long, env = "ZENDESK_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    zendesk_webhook_secret_file: Option<String>,
    /// Secrets of Standard Webhooks (Svix, Resend): `whsec_` and base64, comma-separated
    #[arg(long, env = "STANDARD_WEBHOOK_SECRET", hide_env_values = true, value_name = "SECRETS")]
    standard_webhook_secret: Option<Secret>,
    /// File that holds them
    #[arg(long, env = "STANDARD_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    standard_webhook_secret_file: Option<String>,
}

/// What the programs run with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub listen: SocketAddr,
    /// The admin listener.
    pub admin_listen: SocketAddr,
    /// Postgres.
    pub database_url: Secret,
    /// Who may send.
    pub access: Access,
    /// The form of log lines.
    pub log_format: LogFormat,
    /// The bounds.
    pub limits: Limits,
}

impl Settings {
    /// What is read again on SIGHUP.
    #[must_use]
    pub const fn access(&self) -> &AccessSettings {
        &self.access
    }

    /// Reads everything.
    ///
    /// # Errors
    /// All problems, one line each; none repeats a secret.
    pub fn read(&self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let database_url = given(
            &mut problems,
            "DATABASE_URL",
            self.database_url.as_ref(),
            self.database_url_file.as_deref(),
        );
        match &database_url {
            Some(url) => {
                if let Err(error) = shared::postgres::check_url(url.expose()) {
                    problems.push(format!("DATABASE_URL: {error}"));
                }
            }
            None if problems.is_empty() => {
                problems.push("DATABASE_URL is required: postgres://user@host:port/database".into())
            }
            None => {}
        }
        let listen = parsed(
            &mut problems,
            "INGEST_LISTEN",
            &self.listen,
            LISTEN,
            "must be host:port with an IP address",
        );
        let admin_listen = parsed(
            &mut problems,
            "INGEST_ADMIN_LISTEN",
            &self.admin_listen,
            ADMIN_LISTEN,
            "must be host:port with an IP address",
        );
        let log_format =
            parsed(&mut problems, "LOG_FORMAT", &self.log_format, LOG_FORMAT, "must be json or text");
        problems.extend(log_filter().err());
        let access = self.access.read(&mut problems);
        let limits = self.limits.read(&mut problems);
        let complete = || {
            Some(Config {
                listen: listen?,
                admin_listen: admin_listen?,
                database_url: database_url?,
                access,
                log_format: log_format?,
                limits: limits?,
            })
        };
        complete().filter(|_| problems.is_empty()).ok_or(problems)
    }
}

impl AccessSettings {
    /// Reads the secrets and tokens, from their files too.
    pub fn read(&self, problems: &mut Vec<String>) -> Access {
        let legacy = switch(problems, "ZENDESK_LEGACY_SIGNATURE", &self.zendesk_legacy_signature);
        let allow_unsigned =
            switch(problems, "INGEST_INSECURE_ALLOW_UNSIGNED", &self.insecure_allow_unsigned);
        let allow_short =
            switch(problems, "INGEST_INSECURE_ALLOW_SHORT_SECRETS", &self.insecure_allow_short_secrets);
        let least = if allow_short { 1 } else { MIN_SECRET_BYTES };
        let tokens = given(problems, "API_TOKENS", self.api_tokens.as_ref(), self.api_tokens_file.as_deref());
        let tokens = usable(problems, "API_TOKENS", tokens.as_ref().map(Tokens::new));
        Access {
            verifiers: Verifiers { allow_unsigned, ..self.sources.read(legacy, least, problems) },
            tokens,
        }
    }
}

impl SourceSettings {
    /// The sources with a secret, each of at least `least` bytes; `legacy` accepts Zendesk's old header too.
    pub fn read(&self, legacy: bool, least: usize, problems: &mut Vec<String>) -> Verifiers {
        let secrets = (self.zendesk_webhook_secret.as_ref(), self.zendesk_webhook_secret_file.as_deref());
        let zendesk = given(problems, "ZENDESK_WEBHOOK_SECRET", secrets.0, secrets.1);
        let secrets = (self.standard_webhook_secret.as_ref(), self.standard_webhook_secret_file.as_deref());
        let standard = given(problems, "STANDARD_WEBHOOK_SECRET", secrets.0, secrets.1);
        let zendesk = zendesk.map(|secret| zendesk::Verifier::new(&secret, legacy, least));
        let standard = standard.map(|secret| standard::Verifier::new(&secret, least));
        Verifiers {
            zendesk: usable(problems, "ZENDESK_WEBHOOK_SECRET", zendesk),
            standard: usable(problems, "STANDARD_WEBHOOK_SECRET", standard),
            allow_unsigned: false,
        }
    }
}

/// A secret from its variable or its file.
fn given(
    problems: &mut Vec<String>,
    variable: &str,
    value: Option<&Secret>,
    file: Option<&str>,
) -> Option<Secret> {
    let file = file.filter(|path| !path.trim().is_empty()).map(Path::new);
    secret(variable, value, file).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    })
}

/// What was made from a secret, or the problem with it.
fn usable<T>(problems: &mut Vec<String>, variable: &str, made: Option<Result<T, String>>) -> Option<T> {
    match made? {
        Ok(made) => Some(made),
        Err(problem) => {
            problems.push(format!("{variable} {problem}"));
            None
        }
    }
}

/// A value, or its default where the text is empty.
fn parsed<T: FromStr>(
    problems: &mut Vec<String>,
    variable: &str,
    text: &str,
    default: &str,
    rule: &str,
) -> Option<T> {
    let text = if text.trim().is_empty() { default } else { text.trim() };
    let value = text.parse().ok();
    if value.is_none() {
        problems.push(format!("{variable} {rule}"));
    }
    value
}

fn switch(problems: &mut Vec<String>, variable: &str, text: &str) -> bool {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => true,
        "" | "false" | "0" | "no" | "off" => false,
        _ => {
            problems.push(format!("{variable} must be true or false"));
            false
        }
    }
}

/// The ranges of the limits keep every number within a pointer's width.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
