//! SMTP: the only module that names lettre. Owns the connections to the firm's mail server and what its answers mean for a message.
//!
//! lettre's own transport does not tell whether a letter was lost before or after its content was sent, so the steps of a delivery are
//! taken here one by one. Never logs or returns an address, a subject or a body.

mod refusal;
mod server;

use crate::{
    letters::Letter,
    outcome::{Failure, FailureClass},
};
use lettre::{
    Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Rcpt},
        extension::ClientId,
    },
};
use refusal::{go_on, no_way_in, refusal};
use server::{Security, is_ascii, recipients, server};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

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
        let Inner { host, port, security, credentials, from, .. } = &*self.inner;
        let (wrapped, upgrade) = match security {
            Security::None => (None, None),
            Security::StartTls(tls) => (None, Some(tls.clone())),
            Security::Tls(tls) => (Some(tls.clone()), None),
        };
        // Strict servers want a domain; the sender's is one that they can look up.
        let hello = ClientId::Domain(from.email.domain().to_owned());
        let address = (host.as_str(), *port);
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
