//! The webhook providers: who may send, proven on the raw bytes before anything is parsed.
//!
//! Owns [`Verified`], which only a verifier can make, and the choice of the provider. One file below per provider holds its
//! signature and its parser; a new one is a new file and what the compiler then names here.

pub mod standard;
pub mod zendesk;

use crate::{commit::FirstMessage, email::Email, problem::Problem};
use hmac::{Hmac, KeyInit, Mac};
use hyper::{HeaderMap, body::Bytes};
use jiff::{SignedDuration, Timestamp};
use sha2::Sha256;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// How far the signed timestamp may be from our clock, either way: what every library of the Standard Webhooks uses.
pub const WINDOW: SignedDuration = SignedDuration::from_secs(300);

/// Bytes of a secret: what Standard Webhooks demands. A shorter one could be guessed from one recorded request.
pub const MIN_SECRET_BYTES: usize = 24;

/// A webhook provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Zendesk's signed webhooks with the body that the replaced service defined.
    Zendesk,
    /// Standard Webhooks 1.0, as Svix and Resend send them.
    Standard,
}

impl Source {
    /// Every provider.
    pub const ALL: [Source; 2] = [Source::Zendesk, Source::Standard];

    /// The name in paths, in the tables and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Source::Zendesk => "zendesk",
            Source::Standard => "standard",
        }
    }

    /// The provider of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name)
    }

    /// Reads the mail from an authentic body, and what is to be done with it first.
    ///
    /// # Errors
    /// [`Problem::InvalidPayload`], [`Problem::UnsupportedEvent`], [`Problem::MailWithoutBody`].
    pub fn parse(self, body: &Verified<Bytes>, arrival: Timestamp) -> Result<(Email, FirstMessage), Problem> {
        match self {
            Source::Zendesk => Ok((zendesk::parse(body.content(), arrival)?, FirstMessage::Extraction)),
            Source::Standard => standard::parse(body.content(), arrival),
        }
    }
}

/// Something whose sender is proven. Its fields are private to this module and the providers below it.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    content: T,
    signed_id: Option<String>,
    /// Which secret signed it, counted from 0 in the order of the configuration; None = nobody did.
    key: Option<usize>,
}

impl<T> Verified<T> {
    /// What was verified.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// The provider's id of the delivery, where the signature covers it.
    pub fn signed_id(&self) -> Option<&str> {
        self.signed_id.as_deref()
    }
}

/// The providers that are switched on.
#[derive(Debug, Clone, Default)]
pub struct Verifiers {
    /// Zendesk's secrets.
    pub zendesk: Option<zendesk::Verifier>,
    /// The secrets of Standard Webhooks.
    pub standard: Option<standard::Verifier>,
    /// Take a source without a secret as it comes. For a developer's machine; warns each minute.
    pub allow_unsigned: bool,
}

impl Verifiers {
    /// Whether requests of this source have a chance at all.
    #[must_use]
    pub fn enabled(&self, source: Source) -> bool {
        let configured = match source {
            Source::Zendesk => self.zendesk.is_some(),
            Source::Standard => self.standard.is_some(),
        };
        configured || self.allow_unsigned
    }

    /// How many secrets a source has.
    #[must_use]
    pub fn keys(&self, source: Source) -> usize {
        match source {
            Source::Zendesk => self.zendesk.as_ref().map_or(0, zendesk::Verifier::keys),
            Source::Standard => self.standard.as_ref().map_or(0, standard::Verifier::keys),
        }
    }

    /// Proves the sender of a body.
    ///
    /// # Errors
    /// [`Problem::UnknownSource`] and the three signature problems.
    pub fn verify(
        &self,
        source: Source,
        headers: &HeaderMap,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Verified<Bytes>, Problem> {
        let verified = match source {
            Source::Zendesk => {
                self.zendesk.as_ref().map(|verifier| verifier.verify(headers, body.clone(), now))
            }
            Source::Standard => {
                self.standard.as_ref().map(|verifier| verifier.verify(headers, body.clone(), now))
            }
        };
        match verified {
            Some(verified) => verified.inspect(|verified| {
                if let Some(place) = verified.key {
                    key_used(source.name(), place, 1);
                }
            }),
            None if self.allow_unsigned => Ok(Verified { content: body, signed_id: None, key: None }),
            None => Err(Problem::UnknownSource),
        }
    }
}

/// Counts the use of a secret or token, so that an operator sees when one that is to go is used no more. `place` counts from 0 in the
/// order of the configuration, the label from 1.
pub fn key_used(source: &'static str, place: usize, times: u64) {
    metrics::counter!("ingest_key_used_total", "source" => source, "key" => (place + 1).to_string())
        .increment(times);
}

/// A secret ready for HMAC-SHA256.
#[derive(Clone)]
struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// A key of at least `least` bytes.
    ///
    /// # Errors
    /// A text for the operator.
    fn new(secret: &[u8], least: usize) -> Result<SigningKey, String> {
        if secret.len() < least {
            return Err(format!("holds a secret of {} bytes; the least is {least}", secret.len()));
        }
        // HMAC takes keys of every length.
        Hmac::new_from_slice(secret).map(SigningKey).map_err(|error| error.to_string())
    }

    /// The MAC over the parts, one after the other.
    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKey(..)")
    }
}

/// Which of the keys made one of the given MACs. Every pair is compared, each in constant time: neither the place of a match nor
/// its first wrong byte shows in the time it takes.
fn matching_key(keys: &[SigningKey], given: &[Vec<u8>], signed: &[&[u8]]) -> Option<usize> {
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        let expected = key.sign(signed);
        let made = given.iter().fold(Choice::from(0), |made, mac| made | expected.as_slice().ct_eq(mac));
        found = if made.into() { Some(index) } else { found };
    }
    found
}

/// Whether a signed time is within the window.
fn in_window(signed: Timestamp, now: Timestamp) -> Result<(), Problem> {
    if signed.duration_since(now).abs() <= WINDOW { Ok(()) } else { Err(Problem::SignatureStale) }
}

/// Unix seconds: digits only, as both providers' libraries write them.
fn unix_seconds(text: &str) -> Option<Timestamp> {
    let plain = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { Timestamp::from_second(text.parse().ok()?).ok() } else { None }
}

/// A header's text, where it is there once and readable.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}
