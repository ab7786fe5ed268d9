//! Standard Webhooks 1.0 (github.com/standard-webhooks/standard-webhooks), as Svix and Resend send them: symmetric
//! signatures v1 over id, timestamp and raw body, and Resend's event `email.received`.

use super::{SigningKey, Verified, header, in_window, matching_key, unix_seconds};
use crate::{
    commit::FirstMessage,
    email::{self, Email, UNBOUNDED},
    json_body::{Fields, parse as parse_json},
    problem::Problem,
    received_at::received_at,
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hyper::{HeaderMap, body::Bytes};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::{message::EmailFetch, process::Secret};

/// Signatures of one request that are looked at: a sender rotating its keys sends two.
const MAX_SIGNATURES: usize = 16;
/// Characters of a webhook id: with the source in front it has to fit the key's column.
const MAX_ID_BYTES: usize = 255;

/// Secrets come with and without their padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Knows the secrets of Standard Webhooks.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Vec<SigningKey>,
}

impl Verifier {
    /// How many secrets there are.
    pub(super) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Reads the comma-separated `whsec_` secrets, each of at least `least` bytes.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn new(secrets: &Secret, least: usize) -> Result<Verifier, String> {
        let key = |text: &str| {
            let bytes = text.strip_prefix("whsec_").and_then(|text| BASE64.decode(text).ok());
            let bytes = bytes.filter(|bytes| !bytes.is_empty());
            let form = "every secret must be whsec_ followed by base64; separate several by commas";
            SigningKey::new(&bytes.ok_or(form)?, least)
        };
        let keys: Result<_, String> = secrets.expose().split(',').map(|text| key(text.trim())).collect();
        Ok(Verifier { keys: keys? })
    }

    /// Proves that one of the secrets signed id, timestamp and body, now.
    ///
    /// # Errors
    /// The three signature problems.
    pub fn verify(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        now: Timestamp,
    ) -> Result<Verified<Bytes>, Problem> {
        let named = |prefix: &str| {
            let part = |name: &str| header(headers, &format!("{prefix}-{name}"));
            Some((part("id")?, part("timestamp")?, part("signature")?))
        };
        let (id, timestamp, signatures) =
            named("webhook").or_else(|| named("svix")).ok_or(Problem::SignatureMissing)?;
        if !is_id(id) {
            return Err(Problem::SignatureInvalid);
        }
        let given: Vec<_> = signatures
            .split(' ')
            .take(MAX_SIGNATURES)
            .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
            .collect();
        let signed: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body];
        let key = matching_key(&self.keys, &given, &signed).ok_or(Problem::SignatureInvalid)?;
        in_window(unix_seconds(timestamp).ok_or(Problem::SignatureStale)?, now)?;
        Ok(Verified { content: body, signed_id: Some(id.to_owned()), key: Some(key) })
    }

    /// The headers that a sender would send with this body, made with the first secret. Without an id, the id is made from
    /// the body: the same body again is the same delivery again.
    #[must_use]
    pub fn sign(&self, id: Option<&str>, timestamp: Timestamp, body: &[u8]) -> Vec<(&'static str, String)> {
        let made = || {
            Sha256::digest(body).iter().take(16).fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
        };
        let id = id.map_or_else(made, str::to_owned);
        let seconds = timestamp.as_second().to_string();
        let signed: [&[u8]; 5] = [id.as_bytes(), b".", seconds.as_bytes(), b".", body];
        let mac = self.keys.first().map(|key| key.sign(&signed)).unwrap_or_default();
        let signature = format!("v1,{}", BASE64.encode(mac));
        vec![("webhook-id", id), ("webhook-timestamp", seconds), ("webhook-signature", signature)]
    }
}

/// Whether a verifier takes this id. A dot in it would let the same signed bytes be cut in two ways.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.')
}

/// Reads the event `email.received`, and what is to be done first: a mail that comes without its words, as Resend's do, has to be
/// fetched by the id that it has there. Unknown fields are allowed: the request is kept as received.
///
/// # Errors
/// [`Problem::InvalidPayload`]; [`Problem::UnsupportedEvent`] for other types; [`Problem::MailWithoutBody`] where neither
/// text nor html nor an id to fetch it by is given, so that the sender keeps the mail.
pub fn parse(body: &[u8], arrival: Timestamp) -> Result<(Email, FirstMessage), Problem> {
    let mut event = Fields::new(parse_json(body)?, "");
    let kind = event.required_text("type", 100);
    let created_at = event.take("created_at");
    let data = event.take("data");
    if !kind.is_empty() && kind != "email.received" {
        return Err(Problem::UnsupportedEvent);
    }
    let Some(Value::Object(data)) = data else {
        event.wrong("data", "", "must be an object");
        return event.finish().and(Err(Problem::Internal));
    };
    let mut fields = Fields::new(data, "/data");
    let (name, from_email) = fields.required_mailbox("from");
    let webhook_id = fields.text("email_id", MAX_ID_BYTES).filter(|id| !id.trim().is_empty());
    let when = fields.take("created_at").or(created_at);
    for list in ["to", "cc", "bcc"] {
        fields.texts(list, 1000, UNBOUNDED);
    }
    fields.text("message_id", UNBOUNDED);
    let email = Email {
        webhook_id,
        ticket_id: None,
        from_email,
        from_name: name,
        subject: fields.text("subject", UNBOUNDED),
        body_text: fields.text("text", UNBOUNDED),
        body_html: fields.text("html", UNBOUNDED),
        attachments: email::attachments(&mut fields),
        received_at: received_at(when.as_ref(), arrival),
    };
    event.absorb(fields);
    event.finish()?;
    let first = first_message(&email).ok_or(Problem::MailWithoutBody)?;
    Ok((email, first))
}

/// None: there is nothing to read and nothing to fetch it by.
fn first_message(email: &Email) -> Option<FirstMessage> {
    let bodies = [email.body_text.as_deref(), email.body_html.as_deref()];
    if bodies.iter().flatten().any(|body| !body.trim().is_empty()) {
        return Some(FirstMessage::Extraction);
    }
    let provider_id = email.webhook_id.as_deref().map(str::trim).filter(|id| EmailFetch::is_provider_id(id));
    match provider_id {
        Some(id) => Some(FirstMessage::Fetch { provider_id: id.to_owned() }),
        // A body that is said to be empty is one.
        None => bodies.iter().any(Option::is_some).then_some(FirstMessage::Extraction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MIN_SECRET_BYTES;
    use hyper::header::HeaderName;

    /// The two vectors that the Standard Webhooks libraries test with, and that of Svix's page on manual verification.
    const VECTORS: [(&str, &str, i64, &str, &str); 3] = [
        (
            "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            1_649_367_553,
            r#"{"email":"test@example.com","username":"test_user"}"#,
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        ),
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            1_731_705_121,
            r#"{"event_type":"ping","data":{"success":true}}"#,
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ];

    fn headers(prefix: &str, id: &str, timestamp: &str, signature: &str) -> HeaderMap {
        [("id", id), ("timestamp", timestamp), ("signature", signature)]
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| {
                (format!("{prefix}-{name}").parse::<HeaderName>().unwrap(), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn the_published_vectors_verify_under_both_names_and_are_what_sign_makes() {
        for (secret, id, second, body, signature) in VECTORS {
            let verifier = Verifier::new(&format!("whsec_AAAA, {secret}").parse().unwrap(), 1).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            for prefix in ["webhook", "svix"] {
                let headers = headers(prefix, id, &second.to_string(), &format!("v1,AAAA v2,x {signature}"));
                let verified = verifier.verify(&headers, Bytes::from_static(body.as_bytes()), now).unwrap();
                assert_eq!((verified.signed_id(), verified.key), (Some(id), Some(1)));
            }
            let signed =
                Verifier::new(&secret.parse().unwrap(), 1).unwrap().sign(Some(id), now, body.as_bytes());
            assert_eq!(signed[2], ("webhook-signature", signature.to_owned()));
        }
    }

    #[test]
    fn everything_but_the_signed_bytes_in_time_is_refused() {
        let (secret, id, second, body, signature) = VECTORS[0];
        let verifier = Verifier::new(&secret.parse().unwrap(), MIN_SECRET_BYTES).unwrap();
        let text = second.to_string();
        let at = |offset: i64, id: &str, timestamp: &str, signature: &str, body: &'static str| {
            let now = Timestamp::from_second(second + offset).unwrap();
            verifier
                .verify(
                    &headers("webhook", id, timestamp, signature),
                    Bytes::from_static(body.as_bytes()),
                    now,
                )
                .err()
        };
        assert_eq!(at(300, id, &text, signature, body), None);
        assert_eq!(at(-300, id, &text, signature, body), None);
        for offset in [301, -301] {
            assert_eq!(at(offset, id, &text, signature, body), Some(Problem::SignatureStale));
        }
        assert_eq!(at(0, "", &text, signature, body), Some(Problem::SignatureMissing));
        assert_eq!(at(0, id, "", signature, body), Some(Problem::SignatureMissing));
        assert_eq!(at(0, id, &text, "", body), Some(Problem::SignatureMissing));
        for wrong in [
            "v1,",
            "v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            "v1,AAAA",
        ] {
            assert_eq!(at(0, id, &text, wrong, body), Some(Problem::SignatureInvalid), "{wrong}");
        }
        assert_eq!(at(0, "msg_other", &text, signature, body), Some(Problem::SignatureInvalid));
        assert_eq!(at(0, id, "1649367554", signature, body), Some(Problem::SignatureInvalid));
        assert_eq!(
            at(0, id, &text, signature, r#"{"email":"tesT@example.com","username":"test_user"}"#),
            Some(Problem::SignatureInvalid)
        );
        assert_eq!(at(0, &format!("{id}.1"), &text, signature, body), Some(Problem::SignatureInvalid));
    }

    #[test]
    fn a_secret_is_whsec_and_base64_of_24_bytes() {
        let refused = |secret: &str, least| Verifier::new(&secret.parse().unwrap(), least).unwrap_err();
        for secret in
            ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%", "whsec_AAAA,", "whsec_AAAA,x"]
        {
            assert!(refused(secret, 1).contains("whsec_ followed by base64"), "{secret}");
        }
        assert!(Verifier::new(&"whsec_AAAAAA".parse().unwrap(), 1).is_ok());
        let short = format!("{},whsec_{}", VECTORS[0].0, "AAAA".repeat(7) + "AAA=");
        assert_eq!(refused(&short, MIN_SECRET_BYTES), "holds a secret of 23 bytes; the least is 24");
    }

    #[test]
    fn an_event_is_a_mail_with_its_body_or_with_an_id_to_fetch_it_by() {
        let arrival: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let event = |data: &str| {
            parse(
                format!(r#"{{"type":"email.received","created_at":"2026-02-17T08:14:22Z","data":{data}}}"#)
                    .as_bytes(),
                arrival,
            )
        };
        let (email, first) = event(r#"{"email_id":"e1","from":"Bank AG <a@b.example>","to":["x@y.example"],"subject":"S","text":"T"}"#).unwrap();
        assert_eq!(first, FirstMessage::Extraction);
        assert_eq!((email.from_name.as_deref(), email.body_text.as_deref()), (Some("Bank AG"), Some("T")));
        assert_eq!(email.received_at.time.to_string(), "2026-02-17T08:14:22Z");
        let first =
            |members: &str| event(&format!(r#"{{"from":"a@b.example"{members}}}"#)).map(|(_, first)| first);
        let fetch = |id: &str| Ok(FirstMessage::Fetch { provider_id: id.into() });
        assert_eq!(first(r#","email_id":" e2 ""#), fetch("e2"));
        assert_eq!(first(r#","email_id":"e2","text":"","html":" \n""#), fetch("e2"));
        assert_eq!(first(r#","email_id":"../e2?x#y""#), fetch("../e2?x#y"), "odd, and the relay's business");
        assert_eq!(first(r#","text":"""#), Ok(FirstMessage::Extraction));
        for without in [
            "",
            r#","email_id":null"#,
            r#","email_id":" ""#,
            r#","email_id":"e 2""#,
            r#","email_id":"..""#,
            r#","email_id":"é""#,
        ] {
            assert_eq!(first(without), Err(Problem::MailWithoutBody), "{without}");
        }
        let attached = event(r#"{"from":"a@b.example","text":"T","attachments":[{"size":"x"}]}"#);
        assert!(
            matches!(attached, Err(Problem::InvalidPayload(errors)) if errors[0].pointer == "/data/attachments/0/size")
        );
        assert!(matches!(event("1"), Err(Problem::InvalidPayload(errors)) if errors[0].pointer == "/data"));
        assert!(
            matches!(event("{}"), Err(Problem::InvalidPayload(errors)) if errors[0].pointer == "/data/from")
        );
        assert_eq!(
            parse(br#"{"type":"email.bounced","data":{}}"#, arrival).err(),
            Some(Problem::UnsupportedEvent)
        );
        assert!(matches!(
            parse(br#"{"data":{"from":"a@b.example","text":""}}"#, arrival),
            Err(Problem::InvalidPayload(_))
        ));
    }
}
