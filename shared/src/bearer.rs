//! Bearer tokens: of ingest's structured endpoints and of the relay's console. Compared as hashes in constant time, so that neither content nor length shows.

use crate::process::Secret;
use hyper::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// The tokens that are let in.
#[derive(Clone)]
pub struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// Reads the comma-separated tokens.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(tokens: &Secret) -> Result<Tokens, String> {
        let texts: Vec<_> = tokens.expose().split(',').map(str::trim).collect();
        if texts.iter().any(|text| text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("must be tokens of printable ASCII without blanks, separated by commas".into());
        }
        Ok(Tokens(texts.into_iter().map(|text| Sha256::digest(text).into()).collect()))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Which of the tokens a request has, counted from 0 in the order of the configuration; None = none.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap) -> Option<usize> {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|text| {
            let (scheme, token) = text.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let given = given.map(Sha256::digest)?;
        // All are compared, whichever it is.
        let fits =
            |(place, token): (usize, &[u8; 32])| bool::from(token.as_slice().ct_eq(&given)).then_some(place);
        self.0.iter().enumerate().map(fits).fold(None, Option::or)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configured_token_passes_and_nothing_else() {
        let tokens = Tokens::new(&"first-token, second-token".parse().unwrap()).unwrap();
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            tokens.admit(&headers).is_some()
        };
        assert!(check("Bearer first-token") && check("bearer second-token"));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer first",
            "first-token",
            "Basic first-token",
            "Bearer first-token, second-token",
        ] {
            assert!(!check(value), "{value}");
        }
        assert!(tokens.admit(&HeaderMap::new()).is_none());
        for bad in ["", ",", "a,", "a b"] {
            assert!(Tokens::new(&bad.parse().unwrap()).is_err(), "{bad:?}");
        }
    }
}
