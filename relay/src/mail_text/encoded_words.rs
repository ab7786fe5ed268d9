//! Encoded words (RFC 2047) in a subject or a display name, where the source has passed them on as they were sent.

use mail_parser::{HeaderValue, parsers::MessageStream};
use std::borrow::Cow;

/// Bytes of a header that are looked at; longer ones are no subjects that anybody wrote, and stay as they are.
const LIMIT: usize = 4 << 10;

/// The text with its encoded words decoded, such as `=?iso-8859-1?Q?Gl=E4ubiger?=`. A text without any, or with what only looks
/// like one, stays as it is.
#[must_use]
pub fn decode_words(text: &str) -> Cow<'_, str> {
    if text.len() > LIMIT || !text.contains("=?") || !text.contains("?=") {
        return Cow::Borrowed(text);
    }
    // One line with an end is what the parser takes for a whole header.
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).chain(['\n']).collect();
    let decoded = MessageStream::new(line.as_bytes()).parse_unstructured();
    if let HeaderValue::Text(decoded) = decoded { decoded.into_owned().into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded_in_every_common_form() {
        for (sent, meant) in [
            ("=?UTF-8?Q?Re:_Gl=C3=A4ubigeranfrage_542902?=", "Re: Gläubigeranfrage 542902"),
            ("=?utf-8?B?TcO2w59iYXVlciwgSsO8cmdlbg==?=", "Mößbauer, Jürgen"),
            ("=?iso-8859-1?Q?M=F6=DFbauer?= Inkasso", "Mößbauer Inkasso"),
            ("=?ISO-8859-15?Q?5_=A4?=", "5 €"),
            ("=?windows-1252?Q?5_=80_=96_Ende?=", "5 € – Ende"),
            ("AW: =?UTF-8?Q?Ihr_Zeichen?= =?UTF-8?Q?_2024/118?=", "AW: Ihr Zeichen 2024/118"),
            ("=?UTF-8?Q?Ihr_Zeichen?=\r\n =?UTF-8?Q?_2024/118?=", "Ihr Zeichen 2024/118"),
            ("=?us-ascii*de?Q?Forderung?=", "Forderung"),
        ] {
            assert_eq!(decode_words(sent), meant, "{sent}");
        }
    }

    #[test]
    fn what_is_none_stays_as_it_is() {
        for text in [
            "",
            "Ihr Zeichen 2024/118",
            "a =? b",
            "x ?= y =? z",
            "Größe =?UTF-8?X?abc?=",
            "=?UTF-8?Q?ohne Ende =?",
        ] {
            assert_eq!(decode_words(text), text);
        }
    }

    #[test]
    fn hostile_headers_end_soon() {
        for piece in
            ["=?", "=?UTF-8?Q?", "?=", "=?UTF-8?B?AAAA", "=?x?Q?=", "=?UTF-8?Q?=ZZ?=", "=?UTF-8?B?%%%?= "]
        {
            let _ = decode_words(&piece.repeat(LIMIT / piece.len()));
            let long = format!("{}?=", piece.repeat(1_000_000 / piece.len()));
            assert_eq!(decode_words(&long), long);
        }
    }
}
