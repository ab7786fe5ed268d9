//! TLS to Postgres: what a URL says about it, which connections have it, and whom they trust.
//!
//! There is no unverified TLS: `require` and `verify-ca` check the certificate and the host's name, as `verify-full` does. Without
//! a mode, this machine and Unix sockets need none, and everything else has it where the server offers it: a certificate that
//! cannot be verified then ends the attempt, since it may be anybody's. Only `sslmode=verify-full` also refuses a server that
//! offers none. Trusted are the system's authorities, or those of `sslrootcert` alone; naming them without a mode is `verify-full`.

use super::PostgresError;
use percent_encoding::percent_decode_str;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;
use std::{error::Error as _, io, net::IpAddr, sync::Arc};
use tokio_postgres::{
    Config, Error,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What encrypts a connection, where its configuration asks for that.
pub(super) type Tls = MakeRustlsConnect;

/// For `sslrootcert`, as libpq has it.
const SYSTEM: &str = "system";
/// What only a client with a certificate of its own needs.
const CLIENT_CERTIFICATE: [&str; 3] = ["sslcert", "sslkey", "sslpassword"];

/// What a URL says about TLS, and what is left of it for the driver, which knows less.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    rest: String,
    mode: Option<String>,
    authorities: Option<String>,
    client_certificate: Option<String>,
}

impl Parts {
    /// Keeps a setting that is about TLS; false for any other.
    fn take(&mut self, name: &str, value: String) -> bool {
        match name {
            "sslmode" => self.mode = Some(value),
            "sslrootcert" => self.authorities = Some(value),
            name if CLIENT_CERTIFICATE.contains(&name) => self.client_certificate = Some(name.to_owned()),
            _ => return false,
        }
        true
    }

    fn of(text: &str) -> Parts {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Parts::of_url(text)
        } else {
            Parts::of_pairs(text)
        }
    }

    fn of_url(url: &str) -> Parts {
        let mut parts = Parts::default();
        let (base, query) = url.rsplit_once('?').unwrap_or((url, ""));
        let others = query.split('&').filter(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            !parts.take(name, percent_decode_str(value).decode_utf8_lossy().into_owned())
        });
        let others = others.collect::<Vec<_>>().join("&");
        parts.rest = if others.is_empty() { base.to_owned() } else { format!("{base}?{others}") };
        parts
    }

    /// `name = value` pairs, where a value may be quoted, and a backslash takes the next character as it is.
    fn of_pairs(text: &str) -> Parts {
        let mut parts = Parts::default();
        let mut left = text.trim();
        while let Some((name, after)) = left.split_once('=') {
            let after = after.trim_start();
            let (value, length) = value_of_pair(after);
            let pair = left.get(..left.len() - after.len() + length).unwrap_or(left);
            if !parts.take(name.trim(), value) {
                parts.rest.push_str(pair);
                parts.rest.push(' ');
            }
            left = after.get(length..).unwrap_or_default().trim_start();
        }
        parts.rest.push_str(left);
        parts
    }
}

/// The value that a text begins with, and how many bytes of the text it takes.
fn value_of_pair(text: &str) -> (String, usize) {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return (value, at + 1),
            blank if !is_quoted && blank.is_whitespace() => return (value, at),
            other => value.push(other),
        }
    }
    (value, text.len())
}

/// Reads a URL or key=value string: where to connect, and with what TLS.
pub(super) fn read(text: &str) -> Result<(Config, Tls), PostgresError> {
    let parts = Parts::of(text.trim());
    let mut config: Config = parts.rest.parse().map_err(|error: Error| {
        PostgresError::Url(error.source().map_or_else(|| error.to_string(), ToString::to_string))
    })?;
    if config.get_hosts().is_empty() {
        return Err(PostgresError::Url(
            "no host; expected postgres://user:password@host:port/database".into(),
        ));
    }
    if let Some(name) = parts.client_certificate {
        let text = format!("{name}: client certificates are not supported; give the user a password");
        return Err(PostgresError::Url(text));
    }
    let authorities = parts.authorities.as_deref().filter(|file| !file.is_empty());
    let mode = mode(parts.mode.as_deref(), authorities.is_some(), &config)?;
    config.ssl_mode(mode);
    let tls =
        if mode == SslMode::Disable { trusting(RootCertStore::empty()) } else { verifying(authorities) };
    Ok((config, MakeRustlsConnect::new(tls.map_err(PostgresError::Url)?)))
}

fn mode(given: Option<&str>, has_authorities: bool, config: &Config) -> Result<SslMode, PostgresError> {
    let needs_none = config.get_hosts().iter().all(is_here)
        && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
        && !has_authorities;
    match given.filter(|mode| !mode.is_empty()) {
        Some("disable") => Ok(SslMode::Disable),
        Some("require" | "verify-ca" | "verify-full") => Ok(SslMode::Require),
        Some("prefer") | None if needs_none => Ok(SslMode::Disable),
        None if has_authorities => Ok(SslMode::Require),
        Some("prefer") | None => Ok(SslMode::Prefer),
        Some(_) => Err(PostgresError::Url(
            "sslmode must be disable, prefer, require, verify-ca or verify-full (the last three are the same here)"
                .into(),
        )),
    }
}

/// Whether what is sent there does not leave this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
    }
}

fn verifying(authorities: Option<&str>) -> Result<ClientConfig, String> {
    let Some(file) = authorities.filter(|file| *file != SYSTEM) else {
        let config = builder()?.with_platform_verifier();
        let config = config.map_err(|error| format!("the system's certificate authorities: {error}"))?;
        return Ok(config.with_no_client_auth());
    };
    let unreadable =
        |error: &dyn std::fmt::Display| format!("sslrootcert: {file}: {error}; expected a PEM file");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
        let certificate = certificate.map_err(|error| unreadable(&error))?;
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    if roots.is_empty() {
        return Err(unreadable(&"no certificate in it"));
    }
    trusting(roots)
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    Ok(builder()?.with_root_certificates(roots).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, String> {
    // Named, since not every program installs a default.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())
}

/// Why a server was not trusted, and what to do; None for any other error.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let cause = error.source()?.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    let is_unknown = matches!(cause, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
    let what_to_do = if is_unknown {
        "; name its authority in the URL, as sslrootcert=FILE, or go without TLS, as sslmode=disable"
    } else {
        ""
    };
    Some(format!("TLS: {cause}{what_to_do}"))
}

#[cfg(test)]
mod tests {
    use super::{Parts, mode, read};
    use tokio_postgres::config::SslMode;

    #[test]
    fn what_is_about_tls_is_taken_out_of_a_url_and_the_rest_stays_as_it_is() {
        let parts = |rest: &str, mode: Option<&str>, authorities: Option<&str>| Parts {
            rest: rest.into(),
            mode: mode.map(Into::into),
            authorities: authorities.map(Into::into),
            client_certificate: None,
        };
        let url =
            "postgres://u:p%40?x@h:1/d?application_name=a%20b&sslmode=verify-full&sslrootcert=%2Fa%20b.pem";
        let expected =
            parts("postgres://u:p%40?x@h:1/d?application_name=a%20b", Some("verify-full"), Some("/a b.pem"));
        assert_eq!(Parts::of(url), expected);
        assert_eq!(Parts::of("postgres://u:p?w@h/d"), parts("postgres://u:p?w@h/d", None, None));
        let pairs =
            r"host=h password = 'it\'s = sslmode=disable' sslrootcert='/a b.pem' sslmode = require dbname=d";
        let expected = parts(
            r"host=h password = 'it\'s = sslmode=disable' dbname=d ",
            Some("require"),
            Some("/a b.pem"),
        );
        assert_eq!(Parts::of(pairs), expected);
    }

    #[test]
    fn without_a_mode_only_what_leaves_this_machine_has_tls_and_a_named_authority_is_always_asked() {
        let mode_of = |url: &str| {
            let parts = Parts::of(url);
            let config = parts.rest.parse().unwrap();
            mode(parts.mode.as_deref(), parts.authorities.is_some(), &config).unwrap()
        };
        for (url, expected) in [
            ("postgres://u@localhost/d", SslMode::Disable),
            ("postgres://u@127.0.0.1,[::1]/d?sslmode=prefer", SslMode::Disable),
            ("host=/run/postgresql user=u", SslMode::Disable),
            ("postgres://u@127.0.0.1,db.example/d", SslMode::Prefer),
            ("postgres://u@localhost/d?hostaddr=192.0.2.1", SslMode::Prefer),
            ("postgres://u@db.example/d?sslmode=", SslMode::Prefer),
            ("postgres://u@db.example/d?sslmode=disable", SslMode::Disable),
            ("postgres://u@127.0.0.1/d?sslmode=verify-ca", SslMode::Require),
            ("host=localhost sslrootcert=system", SslMode::Require),
        ] {
            assert_eq!(mode_of(url), expected, "{url}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_without_the_password() {
        for (url, said) in [
            ("postgres://u:hunter2@h/d?sslmode=allow", "sslmode must be"),
            ("postgres://u:hunter2@h/d?sslrootcert=/nowhere/ca.pem", "sslrootcert: /nowhere/ca.pem"),
            ("host=h password=hunter2 sslmode=require sslrootcert=/dev/null", "no certificate in it"),
            ("postgres://u:hunter2@h/d?sslcert=a&sslkey=b", "client certificates are not supported"),
            ("postgres:///d?password=hunter2", "no host"),
        ] {
            let error = read(url).map(drop).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
