//! What stands in a request's headers: signatures, tokens, the idempotency key, the trace.

use crate::input::{arrival, fields, headers, mode, texts};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{HeaderMap, body::Bytes};
use ingest::{
    problem::Problem,
    request_key,
    request_trace::RequestTrace,
    source::{MIN_SECRET_BYTES, standard, zendesk},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sha2::{Digest, Sha256};
use shared::{
    bearer::Tokens,
    idempotency_key::{generate_idempotency_key, python_json},
    trace::TraceParent,
};
use std::sync::LazyLock;

const ZENDESK: [&str; 2] = ["an-old-secret-of-enough-bytes", "a-new-secret-of-enough-bytes-"];
const STANDARD_KEYS: [&[u8; 24]; 2] = [b"the old 24 bytes secret.", b"the new 24 bytes secret."];
const TOKEN: &str = "a-token-of-the-fuzzer";
const WINDOW: SignedDuration = SignedDuration::from_secs(300);

struct Verifiers {
    zendesk: zendesk::Verifier,
    legacy: zendesk::Verifier,
    standard: standard::Verifier,
    tokens: Tokens,
}

static VERIFIERS: LazyLock<Verifiers> = LazyLock::new(|| {
    let zendesk = |legacy| {
        zendesk::Verifier::new(&ZENDESK.join(",").parse().unwrap(), legacy, MIN_SECRET_BYTES).unwrap()
    };
    let secrets = STANDARD_KEYS.map(|key| format!("whsec_{}", STANDARD.encode(key))).join(",");
    Verifiers {
        zendesk: zendesk(false),
        legacy: zendesk(true),
        standard: standard::Verifier::new(&secrets.parse().unwrap(), MIN_SECRET_BYTES).unwrap(),
        tokens: Tokens::new(&TOKEN.parse().unwrap()).unwrap(),
    }
});

/// A request is let in only with a signature that a secret has made over exactly what it says, in time; what a sender signs is let in.
pub(crate) fn signature(data: &[u8]) {
    let (mode, rest) = mode(data);
    match mode % 4 {
        0 => as_given(rest),
        1 => as_signed(rest),
        2 => secrets(rest),
        _ => token(rest),
    }
}

/// RFC 2104, written down once more.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let mut inner = Sha256::new_with_prefix(block.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    Sha256::new_with_prefix(block.map(|byte| byte ^ 0x5c)).chain_update(inner.finalize()).finalize().into()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
}

fn is_now(text: &str) -> bool {
    let seconds = text.parse().ok().and_then(|second| Timestamp::from_second(second).ok());
    let signed: Option<Timestamp> = seconds.or_else(|| text.parse().ok());
    signed.is_some_and(|signed| signed.duration_since(arrival()).abs() <= WINDOW)
}

fn is_mac(given: &str, made: [u8; 32]) -> bool {
    given.trim_end_matches('=') == STANDARD.encode(made).trim_end_matches('=')
}

/// Headers and body as a stranger wrote them.
fn as_given(data: &[u8]) {
    let [id, timestamp, signature, legacy, body] = fields(data);
    let body = Bytes::copy_from_slice(body);
    let verifiers = &*VERIFIERS;

    let map = headers(&[(zendesk::SIGNATURE, signature), (zendesk::TIMESTAMP, timestamp)]);
    if verifiers.zendesk.verify(&map, body.clone(), arrival()).is_ok() {
        let (timestamp, signature) = (text(&map, zendesk::TIMESTAMP), text(&map, zendesk::SIGNATURE));
        let made = |key: &str| is_mac(signature, mac(key.as_bytes(), &[timestamp.as_bytes(), &body]));
        assert!(ZENDESK.iter().any(|key| made(key)) && is_now(timestamp), "a forged signature of Zendesk");
    }
    let map = headers(&[(zendesk::LEGACY_SIGNATURE, legacy)]);
    assert!(verifiers.zendesk.verify(&map, body.clone(), arrival()).is_err(), "legacy where it is off");
    if verifiers.legacy.verify(&map, body.clone(), arrival()).is_ok() {
        let given = text(&map, zendesk::LEGACY_SIGNATURE).to_ascii_lowercase();
        let hex = |mac: [u8; 32]| mac.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert!(ZENDESK.iter().any(|key| hex(mac(key.as_bytes(), &[&body])) == given), "a forged legacy one");
    }
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let map = headers(&[(names[0], id), (names[1], timestamp), (names[2], signature)]);
    if let Ok(verified) = verifiers.standard.verify(&map, body.clone(), arrival()) {
        let [id, timestamp, signatures] = names.map(|name| text(&map, name));
        let signed: [&[u8]; 5] = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body];
        let made = |key: &[u8; 24]| {
            let given = signatures.split(' ').filter_map(|given| given.strip_prefix("v1,"));
            given.into_iter().any(|given| is_mac(given, mac(key, &signed)))
        };
        assert!(STANDARD_KEYS.iter().any(|key| made(key)) && is_now(timestamp), "a forged standard webhook");
        assert!(verified.signed_id() == Some(id) && !id.contains('.'), "the id is the signed one");
    }
}

/// A sender's own request: let in within the window, and not with one byte of the body changed.
fn as_signed(data: &[u8]) {
    let (late, rest) = mode(data);
    let (place, rest) = mode(rest);
    let (change, body) = mode(rest);
    let sent = arrival() + SignedDuration::from_secs(i64::from(late) * 3 - 384);
    let mut changed = body.to_vec();
    if let Some(byte) = changed.get_mut(usize::from(place)) {
        *byte ^= change;
    }
    let expected = if changed != body {
        Err(Problem::SignatureInvalid)
    } else if sent.duration_since(arrival()).abs() <= WINDOW {
        Ok(())
    } else {
        Err(Problem::SignatureStale)
    };
    let map = |made: Vec<(&'static str, String)>| -> HeaderMap {
        made.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    let changed = Bytes::from(changed);
    let zendesk = map(VERIFIERS.zendesk.sign(sent, body));
    let verified = VERIFIERS.zendesk.verify(&zendesk, changed.clone(), arrival());
    assert_eq!(verified.map(|_| ()), expected, "zendesk");
    let standard = map(VERIFIERS.standard.sign(None, sent, body));
    let verified = VERIFIERS.standard.verify(&standard, changed, arrival());
    assert_eq!(verified.map(|_| ()), expected, "standard");
}

/// Whatever is configured is a key or is refused, and no refusal repeats it: it has no words but these.
fn secrets(data: &[u8]) {
    const REFUSALS: [&str; 4] = [
        "holds a secret of  bytes; the least is ",
        "holds an empty secret between its commas",
        "every secret must be whsec_ followed by base; separate several by commas",
        "must be tokens of printable ASCII without blanks, separated by commas",
    ];
    let [secret] = texts(data);
    let refused = [
        zendesk::Verifier::new(&secret.parse().unwrap(), false, MIN_SECRET_BYTES).err(),
        standard::Verifier::new(&secret.parse().unwrap(), MIN_SECRET_BYTES).err(),
        Tokens::new(&secret.parse().unwrap()).err(),
    ];
    for refusal in refused.iter().flatten() {
        let words = refusal.replace(|c: char| c.is_ascii_digit(), "");
        assert!(REFUSALS.contains(&words.as_str()), "a refusal with other words: {refusal}");
    }
}

fn token(data: &[u8]) {
    let map = headers(&[("authorization", data)]);
    let given = text(&map, "authorization");
    let is_it = given
        .split_once(' ')
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token.trim() == TOKEN);
    assert_eq!(VERIFIERS.tokens.admit(&map).is_some(), is_it, "the token alone opens");
}

/// A key is printable and bounded, and quoted or bare the same; a generated one has its form, whatever the payload.
pub(crate) fn key(data: &[u8]) {
    let [header, operation, aggregate, payload] = fields(data);
    let read = |value: &[u8]| {
        let map = headers(&[("idempotency-key", value)]);
        request_key::from_header(&map).ok().flatten()
    };
    if let Some(key) = read(header) {
        assert!((1..=request_key::MAX_KEY_BYTES).contains(&key.len()), "the bounds of a key");
        assert!(key.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "a key is printable");
        let quoted = format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""));
        assert_eq!(read(quoted.as_bytes()).as_deref(), Some(key.as_str()), "quoted it is the same");
        if key.trim() == key && !key.starts_with('"') {
            assert_eq!(read(key.as_bytes()).as_deref(), Some(key.as_str()), "and bare");
        }
    }
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else { return };
    let [operation, aggregate] = [operation, aggregate].map(String::from_utf8_lossy);
    let key = generate_idempotency_key(&operation, &aggregate, &payload);
    let hash = key.strip_prefix(&format!("{operation}:{aggregate}:")).expect("the form of a generated key");
    assert!(hash.len() == 16 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{key}");
    let json = python_json(&payload);
    assert!(json.is_ascii(), "Python escapes what is not ASCII");
    // A float that overflows has a form of its own, which JSON does not know.
    if let Ok(again) = serde_json::from_str::<Value>(&json) {
        assert_eq!(python_json(&again), json, "its own form stays as it is");
    } else {
        assert!(json.contains("Infinity"), "not JSON: {json}");
    }
}

/// A traceparent is read as a whole or dropped; a request's id can hold no name.
pub(crate) fn traceparent(data: &[u8]) {
    let [parent, id] = fields(data);
    let map = headers(&[("traceparent", parent), ("x-request-id", id)]);
    let trace = RequestTrace::of(&map);
    let given = text(&map, "traceparent");
    match given.parse::<TraceParent>() {
        Ok(read) => {
            let written = read.to_string();
            assert_eq!(written.parse(), Ok(read), "it is read back");
            assert_eq!(written.get(3..52), given.get(3..52), "trace and place are the caller's");
            assert_eq!(trace.trace_id(), read.trace_id(), "the trace goes on");
            assert_ne!(trace.traceparent, read, "at a place of our own");
        }
        Err(_) => assert!(!is_traceparent(given), "a sound traceparent was dropped: {given}"),
    }
    let harmless = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    assert!((16..=64).contains(&trace.request_id.len()), "the bounds of an id");
    assert!(trace.request_id.bytes().all(harmless), "an id that could hold a name");
}

/// The grammar of version 00, letter by letter.
fn is_traceparent(text: &str) -> bool {
    let form = |place: usize, byte: u8| match place {
        0 | 1 => byte == b'0',
        2 | 35 | 52 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    text.len() == 55
        && text.bytes().enumerate().all(|(place, byte)| form(place, byte))
        && !is_zero(&text[3..35])
        && !is_zero(&text[36..52])
}
