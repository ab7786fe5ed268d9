//! The relay's settings: one clap struct, checked as a whole, all problems reported at once.

mod extractor;
mod notification;
mod reconcile;
mod resend;
mod retention;

use crate::{extraction::model::ModelConfig, reconcile::Schedule, smtp::Mailer, write_guard::WriteGuard};
use clap::Args;
pub use extractor::ExtractorSettings;
pub use notification::NotificationSettings;
pub use reconcile::ReconcileSettings;
use reqwest::Url;
pub use resend::{ResendConfig, ResendSettings};
pub use retention::RetentionSettings;
use shared::bearer::Tokens;
use shared::process::{LogFormat, Secret, log_filter, secret};
use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::Path,
    time::Duration,
};

const ADMIN_LISTEN: &str = "127.0.0.1:9465";
const HOLD_LOWER_AMOUNTS: &str = "true";
const POOL_SIZE: &str = "8";
const SHADOW: &str = "false";
const LOG_FORMAT: &str = "text";

/// What MongoDB refuses in the name of a database.
const NOT_IN_A_DATABASE_NAME: [char; 13] =
    ['/', '\\', '.', ' ', '"', '$', '*', '<', '>', ':', '|', '?', '\0'];

/// As given on the command line and in the environment. An empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Postgres, as postgres://user:password@host:port/name; with TLS: ?sslmode=verify-full&sslrootcert=FILE
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<Secret>,
    /// File that holds DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", global = true)]
    database_url_file: Option<String>,
    /// Postgres for LISTEN and migrate, where DATABASE_URL is a PgBouncer [default: DATABASE_URL]
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true, global = true)]
    database_direct_url: Option<Secret>,
    /// File that holds DATABASE_DIRECT_URL
    #[arg(long, env = "DATABASE_DIRECT_URL_FILE", global = true)]
    database_direct_url_file: Option<String>,
    /// MongoDB, as mongodb://user:password@host:port/?replicaSet=name; with TLS: &tls=true&tlsCAFile=FILE
    #[arg(long, env = "MONGODB_URL", hide_env_values = true, global = true)]
    mongodb_url: Option<Secret>,
    /// File that holds MONGODB_URL
    #[arg(long, env = "MONGODB_URL_FILE", global = true)]
    mongodb_url_file: Option<String>,
    /// The MongoDB database that has the collection `clients`
    #[arg(long, env = "MONGODB_DATABASE", global = true)]
    mongodb_database: Option<String>,
    /// Where /livez, /readyz and /metrics are served; port 0 = any free one
    #[arg(long, env = "RELAY_ADMIN_LISTEN", default_value = ADMIN_LISTEN, global = true)]
    admin_listen: String,
    #[command(flatten)]
    extractor: ExtractorSettings,
    /// Hold an amount that is lower than the stored one for a person: true or false
    #[arg(long, env = "RELAY_HOLD_LOWER_AMOUNTS", default_value = HOLD_LOWER_AMOUNTS, global = true)]
    hold_lower_amounts: String,
    /// Postgres connections, at most; beside them one listens [5 to 100]
    #[arg(long, env = "RELAY_POOL_SIZE", default_value = POOL_SIZE, global = true)]
    pool_size: String,
    #[command(flatten)]
    retention: RetentionSettings,
    /// Only watch, in a database of its own: decide and record, and write no MongoDB and no letters: true or false
    #[arg(long, env = "RELAY_SHADOW", default_value = SHADOW, default_missing_value = "true", num_args = 0..=1, require_equals = true, global = true)]
    shadow: String,
    /// How log lines look: json or text
    #[arg(long, env = "LOG_FORMAT", default_value = LOG_FORMAT, global = true)]
    log_format: String,
    /// Bearer tokens that open the console, comma-separated; without any it is served on a loopback address only
    #[arg(long, env = "RELAY_CONSOLE_TOKENS", hide_env_values = true, global = true)]
    console_tokens: Option<Secret>,
    /// File that holds RELAY_CONSOLE_TOKENS
    #[arg(long, env = "RELAY_CONSOLE_TOKENS_FILE", global = true)]
    console_tokens_file: Option<String>,
    #[command(flatten)]
    reconcile: ReconcileSettings,
    #[command(flatten)]
    resend: ResendSettings,
    /// The letters to the firm
    #[command(flatten)]
    notification: NotificationSettings,
}

/// What the relay works with, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Postgres.
    pub database_url: Secret,
    /// Postgres for LISTEN.
    pub database_direct_url: Secret,
    /// MongoDB.
    pub mongodb_url: Secret,
    /// Its database.
    pub mongodb_database: String,
    /// The admin listener.
    pub admin_listen: SocketAddr,
    /// The write guard's settings.
    pub guard: WriteGuard,
    /// The model that reads the mails; None = the rules.
    pub extractor: Option<ModelConfig>,
    /// Postgres connections.
    pub pool_size: usize,
    /// How long finished messages stay.
    pub retention: Duration,
    /// How long the texts of mails stay after their end.
    pub mail_retention: Duration,
    /// Whether the relay only watches.
    pub is_shadow: bool,
    /// Where mails are fetched whose events carried only an id; None = this relay fetches none.
    pub resend: Option<ResendConfig>,
    /// What sends letters to the firm; None = nothing is sent.
    pub mailer: Option<Mailer>,
    /// Who may see the console; None = whoever is on this machine.
    pub console_tokens: Option<Tokens>,
    /// How MongoDB is compared with the ledger; None = this relay does not.
    pub reconcile: Option<Schedule>,
    /// Rows of the ledger that a comparison reads per second.
    pub reconcile_rows_per_second: u32,
}

impl Settings {
    /// The format of the log; a wrong one is reported by [`Settings::check`] and logs as text until then.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        given(&self.log_format, LOG_FORMAT).parse().unwrap_or(LogFormat::Text)
    }

    /// Postgres alone, for the commands that need nothing else.
    ///
    /// # Errors
    /// The problem, with the variable's name.
    pub fn database(&self) -> Result<Secret, String> {
        let url = needed("DATABASE_URL", self.database_url.as_ref(), self.database_url_file.as_ref())?;
        usable("DATABASE_URL", url)
    }

    /// Postgres past a `PgBouncer`: migrations need a session of their own.
    ///
    /// # Errors
    /// The problem, with the variable's name.
    pub fn postgres_itself(&self) -> Result<Secret, String> {
        self.direct_database()?.map_or_else(|| self.database(), Ok)
    }

    /// MongoDB and its database, for the commands that can do without; None = not configured.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub fn mongodb(&self) -> Result<Option<(Secret, String)>, Vec<String>> {
        let file = path(self.mongodb_url_file.as_ref());
        let url = secret("MONGODB_URL", self.mongodb_url.as_ref(), file).map_err(|problem| vec![problem])?;
        let Some(url) = url else { return Ok(None) };
        let database = self.mongodb_database().map_err(|problem| vec![problem])?;
        Ok(Some((url, database)))
    }

    /// The write guard, for the commands that need nothing else.
    ///
    /// # Errors
    /// The problem, with the variable's name.
    pub fn guard(&self) -> Result<WriteGuard, String> {
        let hold_lower = given(&self.hold_lower_amounts, HOLD_LOWER_AMOUNTS).parse();
        let hold_lower = hold_lower.or(Err("RELAY_HOLD_LOWER_AMOUNTS must be true or false"))?;
        Ok(WriteGuard { hold_lower })
    }

    /// Whether the relay only watches, for the commands that need nothing else.
    ///
    /// # Errors
    /// The problem, with the variable's name.
    pub fn is_shadow(&self) -> Result<bool, String> {
        given(&self.shadow, SHADOW).parse().or(Err("RELAY_SHADOW must be true or false".into()))
    }

    /// What reads the mails, for the commands that need nothing else; None = the rules.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub fn extractor(&self) -> Result<Option<ModelConfig>, Vec<String>> {
        self.extractor.check()
    }

    /// Everything that a running relay needs.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub fn check(&self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let database_url = keep(&mut problems, self.database());
        let direct_url =
            keep(&mut problems, self.direct_database()).flatten().or_else(|| database_url.clone());
        let mongodb_url = needed("MONGODB_URL", self.mongodb_url.as_ref(), self.mongodb_url_file.as_ref());
        let mongodb_url = keep(&mut problems, mongodb_url);
        let mongodb_database = keep(&mut problems, self.mongodb_database());
        let listen = "RELAY_ADMIN_LISTEN must be an address and port such as 127.0.0.1:9465";
        let admin_listen =
            keep(&mut problems, given(&self.admin_listen, ADMIN_LISTEN).parse().or(Err(listen.into())));
        let guard = keep(&mut problems, self.guard());
        let pool_size =
            keep(&mut problems, number("RELAY_POOL_SIZE", given(&self.pool_size, POOL_SIZE), 5..=100));
        let retention = self.retention.check(&mut problems);
        let is_shadow = keep(&mut problems, self.is_shadow());
        let extractor = keep_all(&mut problems, self.extractor());
        let console_tokens = keep(&mut problems, self.console_tokens());
        let resend = self.resend.check(&mut problems);
        let reconcile = self.reconcile.check(&mut problems);
        let reconcile_rows_per_second = reconcile
            .map_or_else(|| self.reconcile.rows_per_second(&mut problems), |s| Some(s.rows_per_second));
        let log_format = given(&self.log_format, LOG_FORMAT).parse::<LogFormat>();
        keep(&mut problems, log_format.map_err(|problem| format!("LOG_FORMAT {problem}")));
        keep(&mut problems, log_filter());
        let mailer = self.notification.check();
        let mailer = mailer.map_err(|found| problems.extend(found)).ok();
        let config = || {
            Some(Config {
                database_url: database_url?,
                database_direct_url: direct_url?,
                mongodb_url: mongodb_url?,
                mongodb_database: mongodb_database?,
                admin_listen: admin_listen?,
                guard: guard?,
                extractor: extractor?,
                pool_size: pool_size?.try_into().ok()?,
                retention: retention?.0,
                mail_retention: retention?.1,
                is_shadow: is_shadow?,
                resend,
                // A letter would tell of what nobody has written.
                mailer: mailer?.filter(|_| is_shadow == Some(false)),
                console_tokens: console_tokens?,
                reconcile: reconcile.filter(|_| is_shadow == Some(false)), // it would find all of the ledger missing
                reconcile_rows_per_second: reconcile_rows_per_second?,
            })
        };
        config().filter(|_| problems.is_empty()).ok_or(problems)
    }

    fn direct_database(&self) -> Result<Option<Secret>, String> {
        let file = path(self.database_direct_url_file.as_ref());
        let url = secret("DATABASE_DIRECT_URL", self.database_direct_url.as_ref(), file)?;
        url.map(|url| usable("DATABASE_DIRECT_URL", url)).transpose()
    }

    fn console_tokens(&self) -> Result<Option<Tokens>, String> {
        let name = "RELAY_CONSOLE_TOKENS";
        let given = secret(name, self.console_tokens.as_ref(), path(self.console_tokens_file.as_ref()))?;
        given.map(|given| Tokens::new(&given).map_err(|problem| format!("{name} {problem}"))).transpose()
    }

    fn mongodb_database(&self) -> Result<String, String> {
        let name = self.mongodb_database.as_deref().unwrap_or_default().trim();
        if name.is_empty() {
            return Err(
                "MONGODB_DATABASE is not set: the name of the database that has the collection `clients`"
                    .into(),
            );
        }
        if name.len() > 63 || name.contains(NOT_IN_A_DATABASE_NAME) {
            return Err(
                "MONGODB_DATABASE must be at most 63 bytes without blanks or any of /\\.\"$*<>:|?".into()
            );
        }
        Ok(name.to_owned())
    }
}

/// The value, or None with its problem on the list.
fn keep<T>(problems: &mut Vec<String>, checked: Result<T, String>) -> Option<T> {
    checked.map_err(|problem| problems.push(problem)).ok()
}

/// The value, or None with all its problems on the list.
fn keep_all<T>(problems: &mut Vec<String>, checked: Result<T, Vec<String>>) -> Option<T> {
    checked.map_err(|more| problems.extend(more)).ok()
}

fn number(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let wrong = || format!("{name} must be a number from {} to {}", range.start(), range.end());
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(wrong)
}

fn usable(name: &str, url: Secret) -> Result<Secret, String> {
    match shared::postgres::check_url(url.expose()) {
        Ok(()) => Ok(url),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Whether nobody on the way reads what is sent there: it is encrypted, or does not leave this machine.
fn is_confidential(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

/// What was given, or the default for an empty variable: systemd and Kubernetes pass those.
fn given<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() { default } else { text.trim() }
}

/// A file's name as text: clap itself refuses an empty path, and an empty variable counts as not set.
fn path(file: Option<&String>) -> Option<&Path> {
    file.map(Path::new)
}

fn needed(name: &str, value: Option<&Secret>, file: Option<&String>) -> Result<Secret, String> {
    secret(name, value, path(file))?.ok_or_else(|| format!("{name} is not set (nor {name}_FILE)"))
}
