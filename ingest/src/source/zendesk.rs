//! Zendesk: base64 HMAC-SHA256 over timestamp and raw body, and the body that the replaced service defined for its trigger.

use super::{SigningKey, Verified, header, in_window, matching_key, unix_seconds};
use crate::{
    email::{self, Email, MAX_ID_CHARACTERS, UNBOUNDED},
    json_body::{Fields, parse as parse_json},
    problem::Problem,
    received_at::received_at,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, body::Bytes};
use jiff::Timestamp;
use serde_json::Value;
use shared::process::Secret;

/// The signature over timestamp and body.
pub const SIGNATURE: &str = "x-zendesk-webhook-signature";
/// The signed timestamp, ISO 8601.
pub const TIMESTAMP: &str = "x-zendesk-webhook-signature-timestamp";
/// The replaced service's own header: hex HMAC-SHA256 of the body alone, so without any protection against a replay.
pub const LEGACY_SIGNATURE: &str = "x-zendesk-signature";

/// Knows Zendesk's secrets.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Vec<SigningKey>,
    legacy: bool,
}

impl Verifier {
    /// How many secrets there are.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Reads the comma-separated secrets, each of at least `least` bytes; `legacy` accepts the old header too.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(secrets: &Secret, legacy: bool, least: usize) -> Result<Verifier, String> {
        let texts: Vec<_> = secrets.expose().split(',').map(str::trim).collect();
        if texts.iter().any(|text| text.is_empty()) {
            return Err("holds an empty secret between its commas".into());
        }
        let keys: Result<_, String> =
            texts.iter().map(|text| SigningKey::new(text.as_bytes(), least)).collect();
        Ok(Verifier { keys: keys?, legacy })
    }

    /// Proves that one of the secrets signed the body, now.
    ///
    /// # Errors
    /// The three signature problems. A present new signature is decisive: the old one does not stand in for a wrong one.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Verified<Bytes>, Problem> {
        if self.legacy && !headers.contains_key(SIGNATURE) && headers.contains_key(LEGACY_SIGNATURE) {
            return self.verify_legacy(headers, body);
        }
        let (Some(signature), Some(timestamp)) = (header(headers, SIGNATURE), header(headers, TIMESTAMP))
        else {
            return Err(Problem::SignatureMissing);
        };
        let given = STANDARD.decode(signature).map_err(|_| Problem::SignatureInvalid)?;
        let key = matching_key(&self.keys, &[given], &[timestamp.as_bytes(), &body])
            .ok_or(Problem::SignatureInvalid)?;
        let signed =
            unix_seconds(timestamp).or_else(|| timestamp.parse().ok()).ok_or(Problem::SignatureStale)?;
        in_window(signed, now)?;
        Ok(Verified { content: body, signed_id: None, key: Some(key) })
    }

    fn verify_legacy(&self, headers: &HeaderMap, body: Bytes) -> Result<Verified<Bytes>, Problem> {
        let signature = header(headers, LEGACY_SIGNATURE).ok_or(Problem::SignatureMissing)?;
        let given = from_hex(signature).ok_or(Problem::SignatureInvalid)?;
        let key = matching_key(&self.keys, &[given], &[&body]).ok_or(Problem::SignatureInvalid)?;
        Ok(Verified { content: body, signed_id: None, key: Some(key) })
    }

    /// The headers that Zendesk would send with this body, made with the first secret.
    #[must_use]
    pub fn sign(&self, timestamp: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
        let timestamp = timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mac = self.keys.first().map(|key| key.sign(&[timestamp.as_bytes(), body])).unwrap_or_default();
        vec![
            ("X-Zendesk-Webhook-Signature", STANDARD.encode(mac)),
            ("X-Zendesk-Webhook-Signature-Timestamp", timestamp),
        ]
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if text.len() != 64 {
        return None;
    }
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

/// Reads the body. Unknown fields are allowed: the request is kept as received.
///
/// # Errors
/// [`Problem::InvalidPayload`].
pub fn parse(body: &[u8], arrival: Timestamp) -> Result<Email, Problem> {
    let mut fields = Fields::new(parse_json(body)?, "");
    let ticket_id = fields.id_text("ticket_id", MAX_ID_CHARACTERS);
    if ticket_id.is_none() && !fields.is_wrong("ticket_id") {
        fields.wrong("ticket_id", "", "is required");
    }
    let (name_in_address, from_email) = fields.required_mailbox("from_email");
    let when = fields.take("received_at");
    if matches!(when, Some(Value::Bool(_) | Value::Array(_) | Value::Object(_))) {
        fields.wrong("received_at", "", "must be a string, a number of unix seconds, or null");
    }
    let webhook_id = fields.text("webhook_id", MAX_ID_CHARACTERS);
    // Not stored apart from the request itself, but a body of another shape is not what we agreed on.
    for list in ["to_addresses", "cc_addresses"] {
        fields.texts(list, 1000, UNBOUNDED);
    }
    fields.text("in_reply_to", UNBOUNDED);
    let email = Email {
        webhook_id: webhook_id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()),
        ticket_id,
        from_email,
        from_name: fields
            .text("from_name", UNBOUNDED)
            .filter(|name| !name.trim().is_empty())
            .or(name_in_address),
        subject: fields.text("subject", UNBOUNDED),
        body_text: fields.text("body_text", UNBOUNDED),
        body_html: fields.text("body_html", UNBOUNDED),
        attachments: email::attachments(&mut fields),
        received_at: received_at(when.as_ref(), arrival),
    };
    fields.finish()?;
    Ok(email)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn verifier(legacy: bool) -> Verifier {
        Verifier::new(&"old secret, new secret".parse().unwrap(), legacy, 1).unwrap()
    }

    const NOW: &str = "2026-02-17T08:14:22Z";
    const BODY: &[u8] = br#"{"ticket_id":"1"}"#;

    #[test]
    fn the_signature_covers_timestamp_and_body_and_each_secret_counts() {
        // Made with: printf '2026-02-17T08:14:22Z{"ticket_id":"1"}' | openssl dgst -sha256 -hmac 'new secret' -binary |
        // base64
        let signature = "qVBQFXXyZHTUy0R6aXdiWx4Hw0U2lDftOStxzIcQsSA=";
        let given = |signature: &str, timestamp: &str, body: &'static [u8], now: &str| {
            let headers = headers(&[(SIGNATURE, signature), (TIMESTAMP, timestamp)]);
            verifier(false).verify(&headers, Bytes::from_static(body), now.parse().unwrap()).err()
        };
        assert_eq!(given(signature, NOW, BODY, NOW), None);
        assert_eq!(given(signature, NOW, br#"{"ticket_id":"2"}"#, NOW), Some(Problem::SignatureInvalid));
        assert_eq!(given(signature, "2026-02-17T08:14:23Z", BODY, NOW), Some(Problem::SignatureInvalid));
        assert_eq!(given("AAAA", NOW, BODY, NOW), Some(Problem::SignatureInvalid));
        assert_eq!(given("not base64", NOW, BODY, NOW), Some(Problem::SignatureInvalid));
        assert_eq!(given(signature, NOW, BODY, "2026-02-17T08:19:22Z"), None);
        assert_eq!(given(signature, NOW, BODY, "2026-02-17T08:19:23Z"), Some(Problem::SignatureStale));
        assert_eq!(given(signature, NOW, BODY, "2026-02-17T08:09:21Z"), Some(Problem::SignatureStale));
        assert_eq!(given(signature, "", BODY, NOW), Some(Problem::SignatureMissing));
        let none = verifier(false).verify(&HeaderMap::new(), Bytes::from_static(BODY), NOW.parse().unwrap());
        assert_eq!(none.err(), Some(Problem::SignatureMissing));
    }

    #[test]
    fn what_sign_makes_verifies_and_unix_seconds_are_a_timestamp_too() {
        let now: Timestamp = NOW.parse().unwrap();
        let signed = verifier(false).sign(now, BODY);
        let signed: Vec<_> = signed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert!(verifier(false).verify(&headers(&signed), Bytes::from_static(BODY), now).is_ok());
        let seconds = now.as_second().to_string();
        let mac = STANDARD.encode(verifier(false).keys[0].sign(&[seconds.as_bytes(), BODY]));
        let by_seconds = headers(&[(SIGNATURE, &mac), (TIMESTAMP, &seconds)]);
        assert!(verifier(false).verify(&by_seconds, Bytes::from_static(BODY), now).is_ok());
    }

    #[test]
    fn the_old_header_counts_only_when_switched_on_and_never_beside_a_wrong_new_one() {
        let mac =
            verifier(true).keys[1].sign(&[BODY]).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let check = |legacy, pairs: &[(&str, &str)]| {
            verifier(legacy).verify(&headers(pairs), Bytes::from_static(BODY), NOW.parse().unwrap()).err()
        };
        assert_eq!(check(true, &[(LEGACY_SIGNATURE, &mac)]), None);
        assert_eq!(check(false, &[(LEGACY_SIGNATURE, &mac)]), Some(Problem::SignatureMissing));
        assert_eq!(
            check(true, &[(LEGACY_SIGNATURE, &mac.replace('a', "b"))]),
            Some(Problem::SignatureInvalid)
        );
        assert_eq!(check(true, &[(LEGACY_SIGNATURE, "zz")]), Some(Problem::SignatureInvalid));
        let both = [(LEGACY_SIGNATURE, mac.as_str()), (SIGNATURE, "AAAA"), (TIMESTAMP, NOW)];
        assert_eq!(check(true, &both), Some(Problem::SignatureInvalid));
    }

    #[test]
    fn unknown_fields_pass_and_wrong_types_are_named() {
        let arrival = NOW.parse().unwrap();
        let body = br#"{"ticket_id": 17, "from_email": "Bank <a@b.example>", "extra": [1e999999], "subject": "a\u0000b", "webhook_id": " "}"#;
        let email = parse(body, arrival).unwrap();
        assert_eq!((email.ticket_id.as_deref(), email.from_email.as_str()), (Some("17"), "a@b.example"));
        assert_eq!((email.from_name.as_deref(), email.subject.as_deref()), (Some("Bank"), Some("ab")));
        assert_eq!(email.webhook_id, None);
        let body = br#"{"ticket_id": true, "from_email": "nobody", "attachments": [{"url": 1}, 2, {"size": -1}], "received_at": {}}"#;
        let Err(Problem::InvalidPayload(errors)) = parse(body, arrival) else { panic!("accepted") };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/ticket_id",
                "/from_email",
                "/received_at",
                "/attachments/0/url",
                "/attachments/1",
                "/attachments/2/size"
            ]
        );
    }
}
