//! The text of a mail as a reader would see it, in two parts: what the sender wrote now and the history below it.
//!
//! Owns the choice between the text part and the HTML part, the cleaning of characters, HTML to text (`html`) and the cutting
//! off of quoted history (`quotes`), and the words of a header that were sent encoded (`encoded_words`). Pure and bounded: linear in the input, no recursion over the depth of the markup.
//! It never interprets what the mail says; that is `extraction`.

mod encoded_words;
mod html;
mod quotes;
mod style;

pub use encoded_words::decode_words;
use regex::Regex;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization as _;

/// Bytes read of each part of a mail. The longest ledgers that creditors send as text have some 100 kB; two megabytes leave
/// room for the markup of a mail program and keep the work on a hostile body under a second.
const READ_LIMIT: usize = 2 << 20;

/// A mail's text after cleaning, in two parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailText {
    /// What the sender wrote now: a forwarded answer and answers between quoted lines included, signatures too.
    pub current: String,
    /// Older mails quoted below or between, without their quotation marks.
    pub history: String,
}

/// Reads a mail's bodies; either may be missing. Lines end in `\n`, characters are in NFC, invisible ones are gone.
#[must_use]
pub fn read(body_text: Option<&str>, body_html: Option<&str>) -> MailText {
    let plain = body_text.map(|text| within_limit(text, READ_LIMIT)).unwrap_or_default();
    let plain = if LOOKS_LIKE_HTML.is_match(plain) { clean(&html::to_text(plain)) } else { clean(plain) };
    let from_html = match body_html {
        Some(source) if !source.trim().is_empty() => clean(&html::to_text(within_limit(source, READ_LIMIT))),
        _ => String::new(),
    };
    quotes::split(if html_is_better(&plain, &from_html) { &from_html } else { &plain })
}

static LOOKS_LIKE_HTML: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^\s*<(?:!doctype html|html|head|body|div|table|p)\b"));

/// What mail programs put into the text part when they only wrote HTML.
static ONLY_A_HINT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?is)\bhtml\b.{0,80}(?:nicht|kein\w*|unterst|anzeig|darstell|not|support|display|view|enable)|(?:nicht|kein\w*|unterst|anzeig|not|support|view|online).{0,80}\bhtml\b|im browser (?:ansehen|öffnen)|view .{0,30}in (?:your )?browser",
    )
});

fn html_is_better(plain: &str, from_html: &str) -> bool {
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    let (plain_length, html_length) = (visible(plain), visible(from_html));
    if html_length == 0 || plain_length == 0 {
        return plain_length == 0;
    }
    // A text part with a third of the HTML's text is a stub, not the same letter without its markup.
    let stub = html_length > plain_length.saturating_mul(3) && html_length > plain_length.saturating_add(200);
    let half = html_length.saturating_mul(2) > plain_length;
    stub || (plain_length < 400 && half && ONLY_A_HINT.is_match(plain))
        || (half && (lost_its_figures(plain, from_html) || is_glued(plain)))
}

static MONEY: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[0-9],[0-9]{2}\b|[0-9],-|(?:[0-9]\s?(?:EUR|€))|(?:EUR|€)\s?[0-9]"));
/// A cell's text that runs into the figure of the next cell, or a figure into the next row.
static GLUED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"\p{Ll}[0-9]{1,3}(?:\.[0-9]{3})*,[0-9]{2}\b|[0-9],[0-9]{2}\s?(?:EUR|€)\p{Lu}\p{Ll}")
});

/// The same letter in both parts, and only the HTML has the figures: the mail program dropped the table.
fn lost_its_figures(plain: &str, from_html: &str) -> bool {
    let same = |line: &str| line.trim().len() >= 15 && from_html.contains(line.trim());
    !MONEY.is_match(plain) && MONEY.is_match(from_html) && plain.lines().take(20).any(same)
}

/// A text part whose lines and cells were run together.
fn is_glued(plain: &str) -> bool {
    GLUED.find_iter(plain).take(2).count() == 2
}

/// The longest start of `text` that has at most `limit` bytes and ends at a character's end.
fn within_limit(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// One spelling for every character that only differs in how it was sent.
fn clean(text: &str) -> String {
    let repaired = decoded_twice(text);
    let mut kept = String::with_capacity(text.len());
    let mut previous_was_return = false;
    for c in repaired.as_deref().unwrap_or(text).chars() {
        let after_return = std::mem::replace(&mut previous_was_return, c == '\r');
        match c {
            '\n' if after_return => {}
            '\r' | '\n' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => kept.push('\n'),
            '\u{80}'..='\u{9f}' => kept.push(windows_1252(c)),
            '\u{2010}' | '\u{2011}' | '\u{2212}' => kept.push('-'),
            '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
                kept.push('\u{a0}')
            }
            c if is_invisible(c) => {}
            c => kept.push(c),
        }
    }
    let composed: String = kept.nfc().collect();
    let mut cleaned = String::with_capacity(composed.len());
    let mut blank_lines = 0;
    for line in composed.lines() {
        let line = plain_spaces(line);
        let line = line.trim_end();
        blank_lines = if line.is_empty() { blank_lines + 1 } else { 0 };
        if blank_lines < 3 {
            cleaned.push_str(line);
            cleaned.push('\n');
        }
    }
    cleaned
}

/// A no-break space stays one only between two digits, where it separates thousands and never columns.
fn plain_spaces(line: &str) -> String {
    let mut spaced = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    let mut before = ' ';
    while let Some(c) = rest.next() {
        let between_digits = before.is_ascii_digit() && rest.peek().is_some_and(char::is_ascii_digit);
        spaced.push(if c == '\u{a0}' && !between_digits { ' ' } else { c });
        before = c;
    }
    spaced
}

fn is_invisible(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The characters of windows-1252 from 0x80 on; where it has none, the control character itself.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A C1 control in a mail is a windows-1252 character that somebody read as Latin-1: U+0080 is the euro sign.
fn windows_1252(c: char) -> char {
    usize::try_from(u32::from(c) - 0x80).ok().and_then(|index| WINDOWS_1252.get(index)).copied().unwrap_or(c)
}

/// The text with every piece of UTF-8 that was read as windows-1252 (`â‚¬` for the euro sign) read again; None if it has none.
/// A mail may hold both kinds: a name from a sound database in a template that was decoded twice.
fn decoded_twice(text: &str) -> Option<String> {
    if !text.contains(['Ã', 'Â', 'â']) {
        return None;
    }
    let mut repaired = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars() {
        if c.is_ascii() {
            repaired.push_str(&reread(&run));
            run.clear();
            repaired.push(c);
        } else {
            run.push(c);
        }
    }
    repaired.push_str(&reread(&run));
    Some(repaired)
}

/// A run of characters beyond ASCII, read again if its bytes are sound UTF-8; else as it was.
fn reread(run: &str) -> String {
    let byte = |c: char| match WINDOWS_1252.iter().position(|known| *known == c) {
        Some(index) => u8::try_from(index + 0x80).ok(),
        None => u8::try_from(u32::from(c)).ok(),
    };
    let bytes: Option<Vec<u8>> = run.chars().map(byte).collect();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| run.to_owned())
}

#[expect(clippy::expect_used, reason = "the patterns are constants and a test compiles each")]
fn pattern(source: &str) -> Regex {
    Regex::new(source).expect("a constant pattern is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(text: &str) -> String {
        read(Some(text), None).current.trim().to_owned()
    }

    #[test]
    fn characters_get_one_spelling() {
        assert_eq!(
            current("\u{feff}Gesamt\u{ad}forde\u{ad}rung 1.\u{200b}038,65\u{2060}\u{a0}EUR"),
            "Gesamtforderung 1.038,65 EUR"
        );
        assert_eq!(current("Ko\u{308}ßler 5 \u{80}\r\n\u{96} Ende"), "Kößler 5 €\n– Ende");
        assert_eq!(current("12\u{202f}345,67\u{a0}€"), "12\u{a0}345,67 €");
        assert_eq!(current("GrÃ¼ÃŸe 5 â‚¬"), "Grüße 5 €");
        assert_eq!(current("Frau KÃ¼ssler, Jörg, Ângela"), "Frau Küssler, Jörg, Ângela");
    }

    #[test]
    fn the_text_part_wins_unless_it_is_a_stub() {
        let html = "<p>Unsere Forderung beträgt 733,10 EUR.</p>";
        assert_eq!(read(Some("Text part"), Some(html)).current.trim(), "Text part");
        assert!(read(Some(" \n"), Some(html)).current.contains("733,10"));
        assert!(read(Some("Ihr Programm kann kein HTML anzeigen."), Some(html)).current.contains("733,10"));
        assert!(read(Some("siehe HTML"), Some(&html.repeat(20))).current.contains("733,10"));
        assert!(read(Some(html), None).current.contains("733,10"));
        let letter = "<p>Sehr geehrte Damen und Herren,</p><table><tr><td>Zinsen</td><td>20,10 EUR</td></tr><tr><td>Gesamt</td><td>733,10 EUR</td></tr></table>";
        for text in [
            "Sehr geehrte Damen und Herren,\n\n(siehe Tabelle)",
            "Sehr geehrte Damen und Herren,Zinsen20,10 EURGesamt733,10 EUR",
        ] {
            let read = read(Some(text), Some(letter)).current;
            assert!(read.lines().any(|line| line.starts_with("Gesamt ")), "{read}");
        }
        assert_eq!(read(None, None), MailText::default());
    }

    #[test]
    fn hostile_bodies_end_without_growing_the_stack() {
        for piece in [
            "<div>",
            "<b>",
            "<table><tr><td>",
            "<p>a</i>",
            "<blockquote>",
            "<a b c d e f",
            "&amp",
            "<!--",
            "</div>",
            "> ",
        ] {
            let body = piece.repeat(1_000_000 / piece.len());
            let _ = read(None, Some(&body));
            let _ = read(Some(&body), None);
        }
        let attributes: String = (0..40_000).map(|n| format!(" a{n:x}")).collect();
        let _ = read(None, Some(&format!("<div{attributes}>text</div>")));
    }
}
