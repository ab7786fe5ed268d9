//! The relay's settings: one clap struct, checked as a whole, all problems reported at once.

use crate::write_guard::WriteGuard;
use clap::Args;
use shared::process::{LogFormat, Secret, log_filter, secret};
use std::{net::SocketAddr, path::PathBuf};

const ADMIN_LISTEN: &str = "127.0.0.1:9465";
const EXTRACTOR: &str = "rules";
const HOLD_LOWER_AMOUNTS: &str = "true";
const POOL_SIZE: &str = "6";
const LOG_FORMAT: &str = "text";

/// As given on the command line and in the environment. An empty variable counts as not set.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Postgres, as postgres://user:password@host:port/name
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true)]
    database_url: Option<Secret>,
    /// File that holds DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", global = true)]
    database_url_file: Option<PathBuf>,
    /// Postgres for LISTEN, where DATABASE_URL is a PgBouncer [default: DATABASE_URL]
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true, global = true)]
    database_direct_url: Option<Secret>,
    /// File that holds DATABASE_DIRECT_URL
    #[arg(long, env = "DATABASE_DIRECT_URL_FILE", global = true)]
    database_direct_url_file: Option<PathBuf>,
    /// MongoDB, as mongodb://user:password@host:port/?replicaSet=name; a replica set
    #[arg(long, env = "MONGODB_URL", hide_env_values = true, global = true)]
    mongodb_url: Option<Secret>,
    /// File that holds MONGODB_URL
    #[arg(long, env = "MONGODB_URL_FILE", global = true)]
    mongodb_url_file: Option<PathBuf>,
    /// The MongoDB database that has the collection `clients`
    #[arg(long, env = "MONGODB_DATABASE", global = true)]
    mongodb_database: Option<String>,
    /// Where /livez, /readyz and /metrics are served; port 0 = any free one
    #[arg(long, env = "RELAY_ADMIN_LISTEN", default_value = ADMIN_LISTEN, global = true)]
    admin_listen: String,
    /// What reads the mails: rules (needs no network)
    #[arg(long, env = "EXTRACTOR", default_value = EXTRACTOR, global = true)]
    extractor: String,
    /// Hold an amount that is lower than the stored one for a person: true or false
    #[arg(long, env = "RELAY_HOLD_LOWER_AMOUNTS", default_value = HOLD_LOWER_AMOUNTS, global = true)]
    hold_lower_amounts: String,
    /// Postgres connections, at most; beside them one listens [3 to 100]
    #[arg(long, env = "RELAY_POOL_SIZE", default_value = POOL_SIZE, global = true)]
    pool_size: String,
    /// How log lines look: json or text
    #[arg(long, env = "LOG_FORMAT", default_value = LOG_FORMAT, global = true)]
    log_format: String,
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
    /// Postgres connections.
    pub pool_size: usize,
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
    /// The problems, each with the variable's name.
    pub fn database(&self) -> Result<Secret, Vec<String>> {
        let url = needed("DATABASE_URL", self.database_url.as_ref(), self.database_url_file.as_ref());
        let url = url.and_then(|url| {
            let checked = shared::postgres::config(url.expose(), "check").map(|_| ());
            checked.map(|()| url).map_err(|error| format!("DATABASE_URL: {error}"))
        });
        url.map_err(|problem| vec![problem])
    }

    /// Everything that a running relay needs.
    ///
    /// # Errors
    /// All problems, each with the variable's name.
    pub fn check(&self) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let database_url = self.database().map_err(|found| problems.extend(found)).ok();
        let mut keep = |problem: String| problems.push(problem);
        let direct = secret(
            "DATABASE_DIRECT_URL",
            self.database_direct_url.as_ref(),
            self.database_direct_url_file.as_deref(),
        );
        let database_direct_url = direct.map_err(&mut keep).ok().flatten().or_else(|| database_url.clone());
        let mongodb_url = needed("MONGODB_URL", self.mongodb_url.as_ref(), self.mongodb_url_file.as_ref())
            .map_err(&mut keep)
            .ok();
        let mongodb_database = self.mongodb_database.clone().filter(|name| !name.trim().is_empty());
        if mongodb_database.is_none() {
            keep(
                "MONGODB_DATABASE is not set: the name of the database that has the collection `clients`"
                    .into(),
            );
        }
        let admin_listen: Option<SocketAddr> = given(&self.admin_listen, ADMIN_LISTEN).parse().ok();
        if admin_listen.is_none() {
            keep("RELAY_ADMIN_LISTEN must be an address and port such as 127.0.0.1:9465".into());
        }
        if given(&self.extractor, EXTRACTOR) != EXTRACTOR {
            keep("EXTRACTOR must be rules: this build has no other extractor".into());
        }
        let hold_lower: Option<bool> = given(&self.hold_lower_amounts, HOLD_LOWER_AMOUNTS).parse().ok();
        if hold_lower.is_none() {
            keep("RELAY_HOLD_LOWER_AMOUNTS must be true or false".into());
        }
        let pool_size: Option<usize> =
            given(&self.pool_size, POOL_SIZE).parse().ok().filter(|size| (3..=100).contains(size));
        if pool_size.is_none() {
            keep("RELAY_POOL_SIZE must be a number from 3 to 100".into());
        }
        if let Err(problem) = given(&self.log_format, LOG_FORMAT).parse::<LogFormat>() {
            keep(format!("LOG_FORMAT {problem}"));
        }
        if let Err(problem) = log_filter() {
            keep(problem);
        }
        match (
            database_url,
            database_direct_url,
            mongodb_url,
            mongodb_database,
            admin_listen,
            hold_lower,
            pool_size,
        ) {
            (
                Some(database_url),
                Some(database_direct_url),
                Some(mongodb_url),
                Some(mongodb_database),
                Some(admin_listen),
                Some(hold_lower),
                Some(pool_size),
            ) if problems.is_empty() => Ok(Config {
                database_url,
                database_direct_url,
                mongodb_url,
                mongodb_database,
                admin_listen,
                guard: WriteGuard { hold_lower },
                pool_size,
            }),
            _ => Err(problems),
        }
    }
}

/// What was given, or the default for an empty variable: systemd and Kubernetes pass those.
fn given<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.trim().is_empty() { default } else { text.trim() }
}

fn needed(name: &str, value: Option<&Secret>, file: Option<&PathBuf>) -> Result<Secret, String> {
    secret(name, value, file.map(PathBuf::as_path))?
        .ok_or_else(|| format!("{name} is not set (nor {name}_FILE)"))
}
