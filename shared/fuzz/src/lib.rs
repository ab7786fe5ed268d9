//! What must hold for every input that strangers write: each target is a function on bytes that panics where it does not.
//!
//! Run on the kept files of `corpus/` in the ordinary test suite (`tests/corpus.rs`), and by libFuzzer, guided by coverage, in the crate
//! `libfuzzer` beside this one: `deploy/dev fuzz`. A target compares with a slow and plain reading of its own wherever there is one: that
//! nothing panics is the least of it. A crash that was mended leaves its input in the corpus.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target fails by panicking"
)]

mod bodies;
mod extraction;
mod headers;
mod input;
mod json;
mod mails;
mod money;
mod times;

/// A function on bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line; the folder of its corpus.
    pub name: &'static str,
    /// Panics if something does not hold.
    pub check: fn(&[u8]),
}

/// All of them. Where one reads several texts, bytes of 0xff stand between them.
pub const TARGETS: [Target; 14] = [
    Target { name: "signature", check: headers::signature },
    Target { name: "key", check: headers::key },
    Target { name: "traceparent", check: headers::traceparent },
    Target { name: "json", check: json::json },
    Target { name: "payloads", check: bodies::payloads },
    Target { name: "apply_line", check: bodies::apply_line },
    Target { name: "fetched_mail", check: bodies::fetched_mail },
    Target { name: "received_at", check: times::received_at },
    Target { name: "amount", check: money::amount },
    Target { name: "figures", check: extraction::figures },
    Target { name: "rules", check: extraction::rules },
    Target { name: "model_answer", check: extraction::model_answer },
    Target { name: "mail_text", check: mails::mail_text },
    Target { name: "header_words", check: mails::header_words },
];
