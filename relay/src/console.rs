//! The operator's pages on the admin listener: what waits, what died, what a person has to decide, one mail's way. Reads only: the
//! command line acts, and each row shows the command.
//!
//! Owns who is let in, which page a path is, and the headers that keep a browser from doing anything else with it. The pages themselves
//! are `pages`', the plots `plot`'s.

mod history;
mod pages;
mod plot;

pub use history::History;

use crate::{dead_letters, explain, outbox::DeadLetterFilter, review, status};
use hyper::{
    HeaderMap, Method,
    header::{HOST, HeaderName, HeaderValue, WWW_AUTHENTICATE},
};
use maud::Markup;
use shared::{
    bearer::Tokens,
    http::{Reply, reply},
    postgres::{Connection, Pool, abandon, pool_reason, reason},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};

/// Rows of one list; the command line shows all.
const MOST_ROWS: usize = 100;
/// Pages that are read at the same time.
const READERS: usize = 2;
/// And those that wait for their turn: the listener's other places are for who watches.
const MOST_PAGES: usize = 64;
/// For everything that a page reads.
const PATIENCE: Duration = Duration::from_secs(8);
/// For the walk through the outbox.
const BUDGET: Duration = Duration::from_secs(2);

const CSS: &str = include_str!("console/console.css");
const SCRIPT: &str = include_str!("console/console.js");

/// A page loads nothing but our own style and script, and is shown in no other page.
const HEADERS: [(&str, &str); 5] = [
    (
        "content-security-policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// The pages of one relay.
#[derive(Debug, Clone)]
pub struct Console {
    pool: Pool,
    history: History,
    tokens: Option<Tokens>,
    is_loopback: bool,
    /// Pages that are read at the same time: the connections are the lanes'.
    readers: Arc<Semaphore>,
    /// Pages that are read or wait.
    places: Arc<Semaphore>,
}

/// Which page a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Page {
    Overview,
    DeadLetters,
    DeadLetter(i64),
    Review,
    Mail(i64),
    /// The form that asks for a mail.
    FindMail(Option<i64>),
    Css,
    Script,
}

impl Page {
    fn of(path: &str, query: Option<&str>) -> Option<Page> {
        let id = |text: &str| text.parse().ok().filter(|id| *id > 0);
        Some(match path {
            "/" => Page::Overview,
            "/dead-letters" => Page::DeadLetters,
            "/review" => Page::Review,
            "/console.css" => Page::Css,
            "/console.js" => Page::Script,
            "/emails" => Page::FindMail(query.and_then(|query| id(query.strip_prefix("id=")?.trim()))),
            path => match (path.strip_prefix("/emails/"), path.strip_prefix("/dead-letters/")) {
                (Some(email), _) => Page::Mail(id(email)?),
                (None, Some(message)) => Page::DeadLetter(id(message)?),
                (None, None) => return None,
            },
        })
    }
}

impl Console {
    /// The pages for a listener of this address. Beyond this machine nobody is let in without a token.
    #[must_use]
    pub fn new(pool: Pool, history: History, tokens: Option<Tokens>, listen: SocketAddr) -> Console {
        let [readers, places] = [READERS, MOST_PAGES].map(|count| Arc::new(Semaphore::new(count)));
        Console { pool, history, tokens, is_loopback: listen.ip().is_loopback(), readers, places }
    }

    /// Answers a request for a page; None = it is none, or there is no console here.
    pub async fn answer(
        &self,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Reply> {
        if self.tokens.is_none() && !self.is_loopback {
            return None;
        }
        let page = Page::of(path, query)?;
        let mut answer = match self.refusal(method, headers) {
            Some(refusal) => refusal,
            None => self.page(page).await,
        };
        for (name, value) in HEADERS {
            answer.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Some(answer)
    }

    fn refusal(&self, method: &Method, headers: &HeaderMap) -> Option<Reply> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Some(reply(405, "text/plain", "the console only reads: the command line acts\n"));
        }
        // Another site's name that leads to this machine would let its pages read ours.
        if self.tokens.is_none() && !names_this_machine(headers) {
            return Some(reply(403, "text/plain", "the console answers to 127.0.0.1 and localhost only\n"));
        }
        let is_let_in = self.tokens.as_ref().is_none_or(|tokens| tokens.admit(headers).is_some());
        (!is_let_in).then(|| {
            let mut refusal = reply(
                401,
                "text/plain",
                "a token is needed: Authorization: Bearer TOKEN (RELAY_CONSOLE_TOKENS)\n",
            );
            refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            refusal
        })
    }

    async fn page(&self, page: Page) -> Reply {
        if page == Page::Css {
            return reply(200, "text/css; charset=utf-8", CSS);
        }
        if page == Page::Script {
            return reply(200, "text/javascript; charset=utf-8", SCRIPT);
        }
        let too_many = || html(503, &pages::trouble("too many pages are asked for at the same time"));
        let Ok(_place) = self.places.try_acquire() else { return too_many() };
        let Ok(Ok(_reader)) = timeout(PATIENCE, self.readers.acquire()).await else { return too_many() };
        let connection = match self.pool.get().await {
            Ok(connection) => connection,
            Err(error) => return html(503, &pages::trouble(&pool_reason(&error))),
        };
        match timeout(PATIENCE, self.read(&connection, page)).await {
            Ok(Ok((status, markup))) => html(status, &markup),
            Ok(Err(text)) => html(503, &pages::trouble(&text)),
            Err(_) => {
                abandon(connection).await;
                html(503, &pages::trouble("no answer in time"))
            }
        }
    }

    async fn read(&self, connection: &Connection, page: Page) -> Result<(u16, Markup), String> {
        let text = |error: tokio_postgres::Error| reason(&error);
        Ok(match page {
            Page::Overview => {
                let look = status::look(connection, &self.history.floors(), BUDGET).await.map_err(text)?;
                (200, pages::overview(&look, &self.history.samples()))
            }
            Page::DeadLetters => {
                let listing =
                    dead_letters::listing(connection, &DeadLetterFilter::default(), MOST_ROWS).await;
                (200, pages::dead_letters(&listing.map_err(|error| error.to_string())?))
            }
            Page::DeadLetter(id) => match dead_letters::show(connection, id, false).await {
                Ok(shown) => (200, pages::dead_letter(&shown)),
                Err(error @ dead_letters::DeadLetterError::Unknown(_)) => {
                    (404, pages::unknown(&error.to_string()))
                }
                Err(error) => return Err(error.to_string()),
            },
            Page::Review => {
                let held =
                    review::held(connection, MOST_ROWS as i64).await.map_err(|error| error.to_string())?;
                (200, pages::review(&held, MOST_ROWS))
            }
            Page::Mail(id) | Page::FindMail(Some(id)) => {
                match explain::explain(connection, id).await.map_err(text)? {
                    Some(explanation) => (200, pages::mail(&explanation)),
                    None => (404, pages::unknown(&format!("there is no email {id}"))),
                }
            }
            Page::FindMail(None) => (200, pages::find_mail()),
            Page::Css | Page::Script => (404, pages::unknown("no page")),
        })
    }
}

/// Whether the request was made to this machine by an address or name that only means it.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    name.is_some_and(|name| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn html(status: u16, page: &Markup) -> Reply {
    reply(status, "text/html; charset=utf-8", page.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_pages_or_nothing() {
        assert_eq!(Page::of("/", None), Some(Page::Overview));
        assert_eq!(Page::of("/emails/17", None), Some(Page::Mail(17)));
        assert_eq!(Page::of("/emails", Some("id=17")), Some(Page::FindMail(Some(17))));
        assert_eq!(Page::of("/emails", Some("id=x")), Some(Page::FindMail(None)));
        for path in
            ["/metrics", "/emails/", "/emails/-1", "/emails/17/", "/dead-letters/x", "/console.css/x", "//"]
        {
            assert_eq!(Page::of(path, None), None, "{path}");
        }
    }

    #[test]
    fn only_a_name_of_this_machine_is_one() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            names_this_machine(&headers)
        };
        for host in ["127.0.0.1", "127.0.0.1:9465", "localhost:9465", "[::1]:9465"] {
            assert!(named(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1:9465", "[2001:db8::1]:80"] {
            assert!(!named(host), "{host}");
        }
        assert!(!names_this_machine(&HeaderMap::new()));
    }
}
