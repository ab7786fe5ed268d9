//! The configuration of `ingest`: every setting with its variable, default and unit, and what must hold between them.
//!
//! clap only collects texts; they are read here, so that a wrong flag and a wrong variable are reported alike, all at once,
//! and an empty variable is no variable.

use crate::{
    access::Access,
    bearer::Tokens,
    source::{MIN_SECRET_BYTES, Verifiers, standard, zendesk},
};
use shared::process::{LogFormat, Secret, log_filter, secret};
use std::{fmt::Display, net::SocketAddr, ops::RangeInclusive, path::Path, str::FromStr, time::Duration};

const LISTEN: &str = "127.0.0.1:8080";
const ADMIN_LISTEN: &str = "127.0.0.1:9464";
const LOG_FORMAT: &str = "text";

/// Where the programs listen, what they trust and what they allow, as texts from flags and variables.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Postgres, as postgres://user@host:port/database
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

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident, $variable:literal, $default:literal, $range:expr;)*) => {
        /// The bounds, as texts.
        #[derive(Debug, Clone, clap::Args)]
        pub struct LimitSettings {
            $($(#[$doc])* #[arg(long, env = $variable, value_name = "NUMBER", default_value = $default)] $name: String,)*
        }

        /// The bounds, as numbers in the unit that ends their name.
        struct LimitNumbers { $($name: u64,)* }

        impl LimitSettings {
            fn read(&self, problems: &mut Vec<String>) -> Option<LimitNumbers> {
                $(let $name = number(problems, $variable, &self.$name, $default, $range);)*
                Some(LimitNumbers { $($name: $name?,)* })
            }
        }
    };
}

limits! {
    /// Open connections; further ones wait in the kernel
    connections, "INGEST_CONNECTIONS", "4096", 1..=1_000_000;
    /// Time for a request's headers, in milliseconds; also closes idle connections
    header_timeout_ms, "INGEST_HEADER_TIMEOUT_MS", "10000", 1..=600_000;
    /// Time for a request's body, in milliseconds
    body_timeout_ms, "INGEST_BODY_TIMEOUT_MS", "10000", 1..=600_000;
    /// Size of one body, in bytes
    body_bytes, "INGEST_BODY_BYTES", "1048576", 1..=33_554_432;
    /// Size of all bodies being handled together, in bytes
    body_budget_bytes, "INGEST_BODY_BUDGET_BYTES", "33554432", 1..=4_294_967_295;
    /// Time from the end of the body to the answer, in milliseconds
    handler_timeout_ms, "INGEST_HANDLER_TIMEOUT_MS", "4000", 1..=600_000;
    /// Time for open requests to end after SIGTERM, in milliseconds
    drain_timeout_ms, "INGEST_DRAIN_TIMEOUT_MS", "15000", 1..=600_000;
    /// Connections to Postgres
    pool_size, "INGEST_POOL_SIZE", "16", 1..=1000;
    /// Wait for a free or new connection to Postgres, in milliseconds
    pool_wait_ms, "INGEST_POOL_WAIT_MS", "500", 1..=60_000;
    /// Requests that are committed together; 1 commits each alone
    batch_max, "INGEST_BATCH_MAX", "64", 1..=1000;
    /// Requests that wait for their commit; further ones are refused
    queue_rows, "INGEST_QUEUE_ROWS", "1024", 1..=100_000;
    /// Wait for a rival request with the same key, in milliseconds
    lock_wait_ms, "INGEST_LOCK_WAIT_MS", "1000", 1..=60_000;
    /// How long a request key is remembered, in seconds
    key_lifetime_seconds, "INGEST_KEY_LIFETIME_SECONDS", "86400", 1..=31_536_000;
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
    /// Open connections.
    pub connections: usize,
    /// For a request's headers.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Bytes of all bodies.
    pub body_budget_bytes: usize,
    /// From the end of the body to the answer.
    pub handler_timeout: Duration,
    /// For open requests after the shutdown began.
    pub drain_timeout: Duration,
    /// Connections to Postgres.
    pub pool_size: usize,
    /// For a connection to Postgres.
    pub pool_wait: Duration,
    /// Requests of one commit.
    pub batch_max: usize,
    /// Requests that wait for their commit.
    pub queue_rows: usize,
    /// For a rival with the same key.
    pub lock_wait: Duration,
    /// Of a request key.
    pub key_lifetime: Duration,
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
                if let Err(error) = shared::postgres::config(url.expose(), "ingest") {
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
        if let Some(limits) = &limits {
            limits.relate(&mut problems);
        }
        let complete = || {
            let limits = limits?;
            let milliseconds = Duration::from_millis;
            Some(Config {
                listen: listen?,
                admin_listen: admin_listen?,
                database_url: database_url?,
                access,
                log_format: log_format?,
                connections: size(limits.connections),
                header_timeout: milliseconds(limits.header_timeout_ms),
                body_timeout: milliseconds(limits.body_timeout_ms),
                body_bytes: size(limits.body_bytes),
                body_budget_bytes: size(limits.body_budget_bytes),
                handler_timeout: milliseconds(limits.handler_timeout_ms),
                drain_timeout: milliseconds(limits.drain_timeout_ms),
                pool_size: size(limits.pool_size),
                pool_wait: milliseconds(limits.pool_wait_ms),
                batch_max: size(limits.batch_max),
                queue_rows: size(limits.queue_rows),
                lock_wait: milliseconds(limits.lock_wait_ms),
                key_lifetime: Duration::from_secs(limits.key_lifetime_seconds),
            })
        };
        complete().filter(|_| problems.is_empty()).ok_or(problems)
    }
}

impl LimitNumbers {
    /// What must hold between the bounds.
    fn relate(&self, problems: &mut Vec<String>) {
        // A contested request waits for two connections: in its batch, and alone.
        if 2 * self.pool_wait_ms + self.lock_wait_ms >= self.handler_timeout_ms {
            problems.push(
                "INGEST_HANDLER_TIMEOUT_MS must be longer than twice INGEST_POOL_WAIT_MS and INGEST_LOCK_WAIT_MS together".into(),
            );
        }
        if self.body_bytes > self.body_budget_bytes {
            problems.push("INGEST_BODY_BUDGET_BYTES must be at least INGEST_BODY_BYTES".into());
        }
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

fn number<N: FromStr + PartialOrd + Display>(
    problems: &mut Vec<String>,
    variable: &str,
    text: &str,
    default: &str,
    range: RangeInclusive<N>,
) -> Option<N> {
    let rule = format!("must be a whole number from {} to {}", range.start(), range.end());
    let value = parsed(problems, variable, text, default, &rule)?;
    if range.contains(&value) {
        return Some(value);
    }
    problems.push(format!("{variable} {rule}"));
    None
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

/// The ranges above keep every number within a pointer's width.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
