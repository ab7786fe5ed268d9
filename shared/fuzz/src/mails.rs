//! A mail's bodies and the words of its headers.

use crate::input::{fields, mode};
use relay::mail_text;

/// A small body many times over shows what grows faster than its input.
const REPEATED: usize = 1 << 14;
/// Bytes that one byte of a body may become: an item of a list gets its number, a piece of markup its line.
const GROWTH: usize = 8;

/// The text of a mail has one spelling, no character that nobody sees, and about the length of what was sent.
pub(crate) fn mail_text(data: &[u8]) {
    let (mode, rest) = mode(data);
    let [text, html] = fields(rest).map(|part: &[u8]| {
        let part = String::from_utf8_lossy(part);
        if mode & 4 != 0 && !part.is_empty() {
            part.repeat(REPEATED / part.len().max(16))
        } else {
            part.into_owned()
        }
    });
    let text = (mode & 1 == 0).then_some(text.as_str());
    let html = (mode & 2 == 0).then_some(html.as_str());
    let read = mail_text::read(text, html);
    let sent = text.map_or(0, str::len) + html.map_or(0, str::len);
    for part in [&read.current, &read.history] {
        assert!(part.len() <= GROWTH * sent + 100, "{sent} bytes became {}", part.len());
        let unseen = |c: char| {
            // Five places of windows-1252 are free; a character that stands there is no better known than its sender knew it.
            let is_free = matches!(c, '\u{81}' | '\u{8d}' | '\u{8f}' | '\u{90}' | '\u{9d}');
            (c.is_control() && !matches!(c, '\n' | '\t') && !is_free)
                || matches!(c, '\u{200b}' | '\u{feff}' | '\u{ad}')
        };
        assert!(!part.contains(unseen), "a character that nobody sees");
        assert!(part.lines().all(|line| line.trim_end() == line), "blanks at a line's end");
    }
}

/// Words are decoded within bounds, and what holds none stays as it is.
pub(crate) fn header_words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let decoded = mail_text::decode_words(&text);
    if !text.contains("=?") {
        assert_eq!(decoded, text, "no words to decode");
    }
    assert!(decoded.len() <= 4 * text.len() + 16, "{} bytes became {}", text.len(), decoded.len());
}
