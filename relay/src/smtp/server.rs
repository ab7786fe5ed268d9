//! Which mail server, how it is spoken to, and who gets the letters: what SMTP_URL and NOTIFY_TO say. Pure.

use lettre::{
    message::{Mailbox, Mailboxes},
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, TlsParameters},
    },
};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Most recipients: a list of people, not a mailing list.
const RECIPIENTS: usize = 20;

pub(super) enum Security {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

pub(super) type Server = (String, u16, Security, Option<Credentials>);

pub(super) fn server(url: &str, ca: Option<&[u8]>) -> Result<Server, String> {
    let shape = "SMTP_URL must be smtp://user:password@host:port?tls=required, smtp://host:port or smtps://user:password@host:port";
    let url = Url::parse(url).map_err(|_| shape)?;
    let host = url.host().ok_or(shape)?;
    // An IPv6 address without its brackets, as names and sockets want it.
    let (name, is_local) = match host {
        Host::Domain(name) => (name.to_owned(), name == "localhost"),
        Host::Ipv4(ip) => (ip.to_string(), ip.is_loopback()),
        Host::Ipv6(ip) => (ip.to_string(), ip.is_loopback()),
    };
    // A scheme that is not known to the crate has its host as it was written, addresses too.
    let is_local = is_local || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !matches!(url.path(), "" | "/") || url.fragment().is_some() {
        return Err("SMTP_URL must have nothing after the port but ?tls=required".into());
    }
    let wants_tls = match url.query() {
        None | Some("") => false,
        Some("tls=required") => true,
        Some(_) => return Err("SMTP_URL: after the question mark only tls=required is known".into()),
    };
    let tls = || tls_parameters(name.clone(), ca);
    let (security, default_port) = match (url.scheme(), wants_tls) {
        ("smtp", false) => (Security::None, 25),
        ("smtp", true) => (Security::StartTls(tls()?), 587),
        ("smtps", _) => (Security::Tls(tls()?), 465),
        _ => return Err(shape.into()),
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let password = url.password().unwrap_or_default();
    let user = decoded(url.username()).map_err(|_| "SMTP_URL: the user is not UTF-8")?;
    let password = decoded(password).map_err(|_| "SMTP_URL: the password is not UTF-8")?;
    if user.is_empty() != password.is_empty() {
        return Err("SMTP_URL must have both a user and a password, or neither".into());
    }
    let credentials = (!user.is_empty()).then(|| Credentials::new(user, password));
    if credentials.is_some() && !is_local && matches!(security, Security::None) {
        return Err(
            "SMTP_URL: the password would go over the network unencrypted: use ?tls=required or smtps://"
                .into(),
        );
    }
    Ok((name, url.port().unwrap_or(default_port), security, credentials))
}

fn tls_parameters(host: String, ca: Option<&[u8]>) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host);
    if let Some(pem) = ca {
        let certificate =
            Certificate::from_pem(pem).map_err(|_| "SMTP_CA_FILE must hold a certificate as PEM")?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().map_err(|error| format!("SMTP_URL: TLS cannot be set up: {error}"))
}

pub(super) fn recipients(text: &str) -> Result<Vec<Mailbox>, String> {
    let problem =
        || format!("NOTIFY_TO must be 1 to {RECIPIENTS} e-mail addresses in ASCII with commas between");
    let mailboxes: Vec<Mailbox> = text.parse::<Mailboxes>().map_err(|_| problem())?.into_iter().collect();
    let fits = (1..=RECIPIENTS).contains(&mailboxes.len()) && mailboxes.iter().all(is_ascii);
    fits.then_some(mailboxes).ok_or_else(problem)
}

/// Others need an extension of SMTP that servers often lack.
pub(super) fn is_ascii(mailbox: &Mailbox) -> bool {
    let address: &str = mailbox.email.as_ref();
    address.is_ascii()
}
