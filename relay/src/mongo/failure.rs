//! What an error of the driver or the server says: about the server, about the message, or about neither.

use crate::outcome::{Failure, FailureClass};
use mongodb::{
    bson::Document,
    error::{Error, ErrorKind},
};

/// Sorts a driver's error by what it says about the server and the message.
pub(super) fn classify(error: &Error) -> Failure {
    let kind = error.kind.as_ref();
    if let ErrorKind::Command(command) = kind {
        // Not its message: that may repeat values of the document.
        let text = format!("MongoDB error {} {}", command.code, command.code_name);
        return Failure::new(class_of_code(command.code), text);
    }
    // The driver tells a refused login as such only once, then as a server that cannot be selected.
    if matches!(kind, ErrorKind::Authentication { .. }) || text_of(error).contains("Authentication failed") {
        return Failure::new(FailureClass::SinkMisconfigured, "login refused: Authentication failed");
    }
    let (class, what) =
        if matches!(kind, ErrorKind::InvalidTlsConfig { .. } | ErrorKind::IncompatibleServer { .. }) {
            (FailureClass::SinkMisconfigured, "cannot talk to this server")
        } else if matches!(kind, ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. }) {
            (FailureClass::SinkDown, "no primary found")
        } else if matches!(kind, ErrorKind::ConnectionPoolCleared { .. }) {
            (FailureClass::SinkDown, "connection lost")
        } else if matches!(kind, ErrorKind::Io(_)) {
            // A connection that breaks leaves open whether the server had the command.
            (FailureClass::UnknownOutcome, "network")
        } else {
            // Without the driver's words: they may repeat a value.
            return Failure::new(
                FailureClass::Permanent,
                "the driver cannot read the client document or send its update",
            );
        };
    Failure::new(class, format!("{what}: {}", text_of(error)))
}

/// The server's codes by class; an unlisted one may pass by itself and is counted.
pub(super) fn class_of_code(code: i32) -> FailureClass {
    match code {
        6 | 7 | 89 | 91 | 189 | 262 | 9001 | 10_058 | 10_107 | 11_600 | 11_602 | 13_435 | 13_436
        // Locks, cursors, keys, routes and memory of a server that restarts, elects or is busy; 134: it has no majority to read from yet.
        | 24 | 43 | 46 | 63 | 133 | 134 | 146 | 175 | 202 | 211 | 237 | 292 | 365 | 462 | 13_388 => FailureClass::SinkDown,
        13 | 18 | 79 | 100 | 8000 | 14_031 => FailureClass::SinkMisconfigured,
        50 | 64 | 11_601 => FailureClass::UnknownOutcome,
        9 | 14 | 15 | 22 | 40 | 52 | 57 | 66 | 121 | 10_334 | 11_000 | 17_419 => FailureClass::Permanent,
        // Among the others 2 and 28 on an entry that was there: the list has moved under us, and 112: a rival wrote first.
        _ => FailureClass::Transient,
    }
}

pub(super) fn code_of(error: &Document) -> i32 {
    error.get_i32("code").unwrap_or(0)
}

/// Code and name only: a server's message may repeat values of the document. A write error inside a reply comes without its name.
pub(super) fn server_text(error: &Document) -> String {
    let code = code_of(error);
    let name = error.get_str("codeName").unwrap_or_else(|_| name_of(code));
    format!("MongoDB error {code} {name}")
}

/// Of the codes that an update may be refused with.
fn name_of(code: i32) -> &'static str {
    match code {
        2 => "BadValue",
        9 => "FailedToParse",
        14 => "TypeMismatch",
        28 => "PathNotViable",
        66 => "ImmutableField",
        112 => "WriteConflict",
        121 => "DocumentValidationFailure",
        10_334 | 17_419 => "BSONObjectTooLarge",
        11_000 => "DuplicateKey",
        _ => "(without a name)",
    }
}

/// The driver's own text, cut; of a description of all servers only the first one's error.
pub(super) fn text_of(error: &Error) -> String {
    let text = error.kind.to_string();
    let servers =
        text.split_once("Error: Kind: ").map(|(_, rest)| rest.split(", labels:").next().unwrap_or(rest));
    servers.unwrap_or(&text).chars().take(200).collect()
}
