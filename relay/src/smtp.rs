//! SMTP: the only file that names lettre. Owns the connections to the firm's mail server and what its answers mean for a message.
//!
//! lettre's own transport does not tell whether a letter was lost before or after its content was sent, so the steps of a delivery are
//! taken here one by one. Never logs or returns an address, a subject or a body.

use crate::{
    letters::Letter,
    outcome::{Failure, FailureClass},
};
use lettre::{
    Message,
    message::{
        Mailbox, Mailboxes, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        Error,
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use percent_encoding::percent_decode_str;
use regex::Regex;
use std::{
    error::Error as _,
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};
use url::{Host, Url};

/// For TCP, TLS, greeting and login.
const CONNECT: Duration = Duration::from_secs(8);
/// For sender and recipients.
const ENVELOPE: Duration = Duration::from_secs(6);
/// For the content: servers look for spam and viruses before they answer.
const CONTENT: Duration = Duration::from_secs(16);
/// For a goodbye that nobody needs.
const QUIT: Duration = Duration::from_secs(1);
/// The longest that [`Mailer::send`] takes: a look at an idle connection, a new one, the letter, and a look at the server after a loss.
pub const LONGEST: Duration = Duration::from_secs(2 + 8 + 6 + 16 + 2 + 1);
/// For a look whether the server answers.
const LOOK: Duration = Duration::from_secs(2);
/// Letters on their way at the same time, and connections kept for the next ones: mail servers allow few for one client.
pub const CONCURRENCY: usize = 4;
/// Servers close an idle connection after five minutes (RFC 5321); this is well before.
const IDLE: Duration = Duration::from_secs(60);
/// Most recipients: a list of people, not a mailing list.
const RECIPIENTS: usize = 20;
/// So much of a server's words is kept.
const WORDS: usize = 300;

/// Sends letters to the firm.
#[derive(Clone)]
pub struct Mailer {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
    idle: Mutex<Vec<(AsyncSmtpConnection, Instant)>>,
}

enum Security {
    None,
    StartTls(TlsParameters),
    Tls(TlsParameters),
}

/// Addresses and passwords stay out of every print.
impl fmt::Debug for Mailer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Mailer {{ host: {}, port: {}, .. }}", self.inner.host, self.inner.port)
    }
}

impl Mailer {
    /// A mailer that has not connected yet. `url`: `smtp://`, `smtp://...?tls=required` (STARTTLS) or `smtps://`, with user and
    /// password percent-encoded; `to`: addresses with commas between; `ca`: a certificate authority (PEM) to trust beside the system's.
    ///
    /// # Errors
    /// Every problem, each with the variable's name and without its value.
    pub fn new(url: &str, to: &str, from: &str, ca: Option<&[u8]>) -> Result<Mailer, Vec<String>> {
        let mut problems = Vec::new();
        let server = server(url, ca).map_err(|problem| problems.push(problem)).ok();
        let to = recipients(to).map_err(|problem| problems.push(problem)).ok();
        let from = from.parse::<Mailbox>().ok().filter(is_ascii);
        if from.is_none() {
            problems.push("NOTIFY_FROM must be one e-mail address in ASCII".into());
        }
        match (server, to, from) {
            (Some((host, port, security, credentials)), Some(to), Some(from)) => {
                let idle = Mutex::default();
                let inner = Inner { host, port, security, credentials, from, to, idle };
                Ok(Mailer { inner: Arc::new(inner) })
            }
            _ => Err(problems),
        }
    }

    /// Delivers a letter to all recipients. `key` becomes its Message-ID, so that a repeat can be recognised. A recipient that the
    /// server refuses for good does not keep the letter from the others; one that it refuses for now does, until `is_last`.
    ///
    /// # Errors
    /// The [`Failure`] by class. `UnknownOutcome` only when the server is away afterwards: a server that goes on answering and yet drops
    /// the connection after this letter holds something against it, and the repeats have to be counted.
    pub async fn send(&self, letter: &Letter, key: &str, is_last: bool) -> Result<(), Failure> {
        let content = self.compose(letter, key)?;
        let mut connection = self.connection().await?;
        let late = |_| Err(Failure::new(FailureClass::SinkDown, "SMTP: no reply to the envelope"));
        let envelope = timeout(ENVELOPE, self.envelope(&mut connection, is_last));
        if let Err(failure) = envelope.await.unwrap_or_else(late) {
            goodbye(connection).await;
            return Err(failure);
        }
        match timeout(CONTENT, connection.message(&content)).await {
            Ok(Ok(_)) => {
                self.keep(connection);
                Ok(())
            }
            Ok(Err(error)) if error.status().is_some() => {
                goodbye(connection).await;
                Err(refusal(&error))
            }
            Ok(Err(_)) | Err(_) => {
                drop(connection);
                let class = match timeout(LOOK, self.connect()).await {
                    Ok(Ok(connection)) => {
                        self.keep(connection);
                        FailureClass::Transient
                    }
                    Ok(Err(_)) | Err(_) => FailureClass::UnknownOutcome,
                };
                Err(Failure::new(class, "SMTP: no reply after the letter was sent"))
            }
        }
    }

    /// Whether the server answers and lets us in.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), Failure> {
        let connection = self.connection().await?;
        self.keep(connection);
        Ok(())
    }

    /// An idle connection that still answers, or a new one.
    async fn connection(&self) -> Result<AsyncSmtpConnection, Failure> {
        let idle = || self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((mut connection, since)) = idle()
            && since.elapsed() < IDLE
            && timeout(LOOK, connection.test_connected()).await == Ok(true)
        {
            return Ok(connection);
        }
        let late = |_| Err(Failure::new(FailureClass::SinkDown, "SMTP: no reply to the connection"));
        timeout(CONNECT, self.connect()).await.unwrap_or_else(late)
    }

    fn keep(&self, connection: AsyncSmtpConnection) {
        let mut idle = self.inner.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < IDLE);
        if idle.len() < CONCURRENCY {
            idle.push((connection, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let Inner { host, port, security, credentials, .. } = &*self.inner;
        let (wrapped, upgrade) = match security {
            Security::None => (None, None),
            Security::StartTls(tls) => (None, Some(tls.clone())),
            Security::Tls(tls) => (Some(tls.clone()), None),
        };
        let (hello, address) = (ClientId::default(), (host.as_str(), *port));
        let connected = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &hello, wrapped, None);
        let mut connection = connected.await.map_err(|error| no_way_in(&error))?;
        if let Some(tls) = upgrade {
            connection.starttls(tls, &hello).await.map_err(|error| no_way_in(&error))?;
        }
        if let Some(credentials) = credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, credentials).await.map_err(|error| no_way_in(&error))?;
        }
        Ok(connection)
    }

    /// Sender, recipients and DATA.
    async fn envelope(&self, connection: &mut AsyncSmtpConnection, is_last: bool) -> Result<(), Failure> {
        let from = Mail::new(Some(self.inner.from.email.clone()), Vec::new());
        connection.command(from).await.map_err(|error| refusal(&error))?;
        let mut refused = Vec::new();
        for mailbox in &self.inner.to {
            let recipient = connection.command(Rcpt::new(mailbox.email.clone(), Vec::new())).await;
            if let Err(failure) = recipient.map_err(|error| refusal(&error)) {
                refused.push(failure);
            }
        }
        for failure in go_on(self.inner.to.len(), refused, is_last)? {
            tracing::warn!(%failure, "the letter goes to the other recipients only");
        }
        connection.command(Data).await.map_err(|error| refusal(&error))?;
        Ok(())
    }

    /// The letter as it goes over the wire: ASCII throughout.
    fn compose(&self, letter: &Letter, key: &str) -> Result<Vec<u8>, Failure> {
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted"); // else holiday notices answer it
        let from = &self.inner.from;
        let mut builder = Message::builder()
            .from(from.clone())
            .subject(&letter.subject)
            .message_id(Some(format!("<{}@{}>", key.replace(':', "."), from.email.domain())))
            .raw_header(HeaderValue::new(automatic, "auto-generated".into()))
            .date_now();
        for mailbox in &self.inner.to {
            builder = builder.to(mailbox.clone());
        }
        let parts = MultiPart::alternative_plain_html(letter.text.clone(), letter.html.clone());
        let composed = builder.multipart(parts);
        let failure = |_| Failure::new(FailureClass::Permanent, "SMTP: the letter cannot be composed");
        composed.map(|message| message.formatted()).map_err(failure)
    }
}

type Server = (String, u16, Security, Option<Credentials>);

fn server(url: &str, ca: Option<&[u8]>) -> Result<Server, String> {
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

fn recipients(text: &str) -> Result<Vec<Mailbox>, String> {
    let problem =
        || format!("NOTIFY_TO must be 1 to {RECIPIENTS} e-mail addresses in ASCII with commas between");
    let mailboxes: Vec<Mailbox> = text.parse::<Mailboxes>().map_err(|_| problem())?.into_iter().collect();
    let fits = (1..=RECIPIENTS).contains(&mailboxes.len()) && mailboxes.iter().all(is_ascii);
    fits.then_some(mailboxes).ok_or_else(problem)
}

/// Others need an extension of SMTP that servers often lack.
fn is_ascii(mailbox: &Mailbox) -> bool {
    let address: &str = mailbox.email.as_ref();
    address.is_ascii()
}

/// Whether the letter goes out although some recipients were refused; then the refusals that nobody will hear of again.
fn go_on(recipients: usize, refused: Vec<Failure>, is_last: bool) -> Result<Vec<Failure>, Failure> {
    let worst = refused.iter().find(|failure| failure.class.is_the_sinks());
    let temporary = refused.iter().find(|failure| failure.class == FailureClass::Transient);
    let none_left = refused.len() >= recipients;
    let waits = temporary.filter(|_| none_left || !is_last).or_else(|| refused.first().filter(|_| none_left));
    match worst.or(waits) {
        Some(failure) => Err(failure.clone()),
        None => Ok(refused),
    }
}

/// What is in the way before a letter is on its way: never the letter's fault.
fn no_way_in(error: &Error) -> Failure {
    let class = match error.status().map(u16::from) {
        Some(400..500) => FailureClass::SinkDown,
        Some(_) => FailureClass::SinkMisconfigured,
        // The client's own errors: the server offers no STARTTLS or no login.
        None if error.is_client() || is_certificate(error) => FailureClass::SinkMisconfigured,
        None => FailureClass::SinkDown,
    };
    Failure::new(class, format!("SMTP: {}", words(&error.to_string())))
}

/// What the server says to a letter.
fn refusal(error: &Error) -> Failure {
    Failure::new(class_of(error.status().map(u16::from)), format!("SMTP: {}", words(&error.to_string())))
}

/// The class of a reply to a letter; None = there was no proper reply.
fn class_of(code: Option<u16>) -> FailureClass {
    match code {
        None | Some(421) => FailureClass::SinkDown,
        Some(530 | 534 | 535 | 538) => FailureClass::SinkMisconfigured,
        Some(400..500) => FailureClass::Transient,
        Some(_) => FailureClass::Permanent,
    }
}

fn is_certificate(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(inner) = source {
        let tls = inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = tls.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        source = inner.source();
    }
    false
}

/// The local part of an address may be quoted, and then holds blanks and anything else.
#[expect(clippy::expect_used, reason = "the pattern is a constant and a test uses it")]
static QUOTED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#""[^"]*"@"#).expect("a constant pattern"));

/// A server's words, fit to be stored and logged: no address, no control character, not long.
fn words(text: &str) -> String {
    let text = QUOTED.replace_all(text, "quoted@");
    let is_edge = |c: char| c.is_whitespace() || c.is_control() || "<>()[]{},;:\"'=".contains(c);
    let mut kept = String::new();
    for piece in text.split_inclusive(is_edge) {
        let word = piece.trim_end_matches(is_edge);
        kept.push_str(if word.contains('@') { "(address)" } else { word });
        kept.extend(
            piece.get(word.len()..).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }),
        );
    }
    kept.chars().take(WORDS).collect()
}

async fn goodbye(mut connection: AsyncSmtpConnection) {
    drop(timeout(QUIT, connection.quit()).await);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mailer(url: &str) -> Result<Mailer, Vec<String>> {
        Mailer::new(
            url,
            "Kanzlei <akten@kanzlei.example>, zwei@kanzlei.example",
            "relay@kanzlei.example",
            None,
        )
    }

    #[test]
    fn a_password_goes_over_an_encrypted_connection_or_stays_on_this_machine() {
        for url in [
            "smtp://u:p@127.0.0.1:2525",
            "smtp://u:p@localhost",
            "smtp://u:p@[::1]:25",
            "smtps://u:p@mail.example",
            "smtp://u:p@mail.example?tls=required",
            "smtp://mail.example",
        ] {
            assert!(mailer(url).is_ok(), "{url}");
        }
        for (url, word) in [
            ("smtp://u:geheim@mail.example", "unencrypted"),
            ("smtp://u:geheim@10.0.0.1", "unencrypted"),
            ("smtp://u:geheim@mail.example?tls=none", "tls=required"),
            ("smtp://u@mail.example?tls=required", "neither"),
            ("smtp://mail.example/relay", "nothing after the port"),
            ("smtp://mail.example#tls", "nothing after the port"),
            ("http://u:geheim@mail.example", "smtp://"),
            ("geheim", "smtp://"),
        ] {
            let problems = mailer(url).unwrap_err().join("; ");
            assert!(problems.contains("SMTP_URL") && problems.contains(word), "{url}: {problems}");
            assert!(!problems.contains("geheim"), "{problems}");
        }
    }

    #[test]
    fn all_problems_of_the_addresses_are_told_at_once() {
        let problems =
            Mailer::new("smtp://", "nobody", "a@b.example, c@d.example", None).unwrap_err().join("; ");
        for name in ["SMTP_URL", "NOTIFY_TO", "NOTIFY_FROM"] {
            assert!(problems.contains(name), "{problems}");
        }
        assert!(Mailer::new("smtp://a.example", "büro@kanzlei.example", "a@b.example", None).is_err());
    }

    #[test]
    fn replies_have_their_classes() {
        let classes = [421, 451, 452, 535, 530, 550, 552, 554].map(|code| class_of(Some(code)).name());
        let expected = [
            "sink_down",
            "transient",
            "transient",
            "sink_misconfigured",
            "sink_misconfigured",
            "permanent",
            "permanent",
            "permanent",
        ];
        assert_eq!(classes, expected);
        assert_eq!(class_of(None), FailureClass::SinkDown);
    }

    #[test]
    fn one_recipient_that_is_refused_for_good_does_not_keep_the_letter_from_the_others() {
        let refused = |class| vec![Failure::new(class, "text")];
        let class = |result: Result<Vec<Failure>, Failure>| {
            result.map(|rest| rest.len()).map_err(|failure| failure.class)
        };
        assert_eq!(class(go_on(2, refused(FailureClass::Permanent), false)), Ok(1));
        assert_eq!(class(go_on(2, refused(FailureClass::Transient), false)), Err(FailureClass::Transient));
        assert_eq!(class(go_on(2, refused(FailureClass::Transient), true)), Ok(1));
        assert_eq!(class(go_on(1, refused(FailureClass::Transient), true)), Err(FailureClass::Transient));
        assert_eq!(class(go_on(1, refused(FailureClass::Permanent), true)), Err(FailureClass::Permanent));
        assert_eq!(class(go_on(2, refused(FailureClass::SinkDown), true)), Err(FailureClass::SinkDown));
        let mixed = [refused(FailureClass::Permanent), refused(FailureClass::Transient)].concat();
        assert_eq!(class(go_on(2, mixed, true)), Err(FailureClass::Transient));
    }

    #[test]
    fn a_servers_words_are_kept_without_addresses() {
        let said = words(
            "permanent error (550): 5.1.1 <Eva.Adler@kanzlei.example>: no such user eva@b.example;\r\nsee x@y",
        );
        assert_eq!(said, "permanent error (550): 5.1.1 <(address)>: no such user (address);  see (address)");
        assert_eq!(words("550 <\"eva adler\"@kanzlei.example> unknown"), "550 <(address)> unknown");
        assert_eq!(words(&"ü".repeat(1000)).chars().count(), WORDS);
    }

    fn headers(letter: &Letter) -> String {
        let mailer = mailer("smtp://localhost").unwrap();
        let content = mailer.compose(letter, "debt_update_notification:17:0").unwrap();
        let text = String::from_utf8(content).unwrap();
        text.split("\r\n\r\n").next().unwrap().to_owned()
    }

    proptest! {
        #[test]
        fn no_subject_adds_a_header_or_breaks_one(subject in "(?s).{0,300}", known in "(\\r\\n|\\n|\\r)Bcc: x@y.example(\\r\\n\\r\\n)?") {
            for subject in [subject.clone(), format!("{subject}{known}")] {
                let letter = crate::letters::Letter::new(&subject, "Text", "<p>Text</p>");
                let headers = headers(&letter);
                prop_assert!(headers.is_ascii());
                let names: Vec<&str> = headers.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])).map(|line| line.split(':').next().unwrap()).collect();
                prop_assert_eq!(names, vec!["From", "Subject", "Message-ID", "Auto-Submitted", "Date", "To", "MIME-Version", "Content-Type"]);
                prop_assert!(!headers.replace("\r\n", "").contains(['\r', '\n']));
            }
        }
    }
}
