//! HTML to text: what a mail program would show, line by line.
//!
//! Owns the walk over the tokens of html5ever's tokenizer. The tree builder is left out on purpose: it searches its stack of
//! open elements at every tag, which is quadratic for a million nested ones. Rows of tables become one line, their cells two
//! blanks apart; quoted blocks become lines that start with `> `. Text that nobody sees (see `style`) never comes out.

use super::style::{self, Look, Sheet};
use html5ever::tokenizer::states::{RawKind, Rawtext, Rcdata, ScriptData};
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use html5ever::{LocalName, tendril::StrTendril};
use std::{cell::RefCell, collections::HashMap};

/// A cell's end inside a row that is still open; cleaning removes such controls from what the sender wrote.
const CELL: char = '\u{1f}';
/// Longest row that is made one line: rows of data are short, a longer one is the layout of a page.
const ROW_LIMIT: usize = 600;
/// Open elements looked at for an end tag: real mails nest a few elements between a tag and its end.
const REACH: usize = 64;
/// Longest tag that is read; the tokenizer compares each attribute with all before it. Only embedded pictures are longer.
const TAG_LIMIT: usize = 16 << 10;

/// The visible text of an HTML body.
pub(super) fn to_text(source: &str) -> String {
    let tokenizer = Tokenizer::new(Sink(RefCell::new(Page::default())), TokenizerOpts::default());
    let input = BufferQueue::default();
    for piece in readable_pieces(source) {
        input.push_back(StrTendril::from_slice(piece));
    }
    // The sink never asks for a pause, so one call reads everything.
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    let mut page = tokenizer.sink.0.into_inner();
    while let Some(element) = page.open.pop() {
        page.close(&element);
    }
    page.text.replace(CELL, "\n")
}

/// The source without comments and without pictures embedded in a tag; it ends before any other tag of that size.
fn readable_pieces(source: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while let Some(found) = source.get(at..).and_then(|rest| rest.find('<')) {
        let start = at + found;
        let rest = source.get(start..).unwrap_or_default();
        if let Some((skip, close)) = comment(rest) {
            // Left out here: the tokenizer takes quadratic time for a comment that opens again and again.
            pieces.extend(source.get(from..start));
            let Some(end) = rest.get(skip..).and_then(|inner| inner.find(close)) else { return pieces };
            at = start + skip + end + close.len();
            from = at;
            continue;
        }
        let is_tag = rest.as_bytes().get(1).is_some_and(u8::is_ascii_alphabetic);
        let end = rest.bytes().take(TAG_LIMIT).position(|byte| byte == b'>');
        match end {
            Some(end) if is_tag => at = start + end + 1,
            None if is_tag => {
                pieces.extend(source.get(from..start));
                let picture = rest.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("<img"));
                let Some(end) = rest.find('>').filter(|_| picture) else { return pieces };
                at = start + end + 1;
                from = at;
            }
            _ => at = start + 1,
        }
    }
    pieces.extend(source.get(from..));
    pieces
}

/// If a comment or a declaration starts here: where to look for its end, and the end.
fn comment(rest: &str) -> Option<(usize, &'static str)> {
    let mut after = rest.bytes().skip(1);
    match (after.next(), after.next()) {
        _ if rest.starts_with("<!--") => Some((2, "-->")),
        (Some(b'!' | b'?'), _) => Some((1, ">")),
        (Some(b'/'), next) if !next.is_some_and(|byte| byte.is_ascii_alphabetic()) => Some((1, ">")),
        _ => None,
    }
}

struct Sink(RefCell<Page>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut page = self.0.borrow_mut();
        match token {
            Token::TagToken(tag) if tag.kind == TagKind::StartTag => {
                page.start(&tag);
                if let Some(kind) = raw_content(&tag.name) {
                    return TokenSinkResult::RawData(kind);
                }
            }
            Token::TagToken(tag) => page.end(&tag.name),
            Token::CharacterTokens(text) => page.text(&text),
            Token::DoctypeToken(_)
            | Token::CommentToken(_)
            | Token::NullCharacterToken
            | Token::EOFToken
            | Token::ParseError(_) => {}
        }
        TokenSinkResult::Continue
    }
}

fn raw_content(name: &LocalName) -> Option<RawKind> {
    match &**name {
        "script" => Some(ScriptData),
        "style" | "xmp" | "iframe" | "noembed" | "noframes" => Some(Rawtext),
        "title" | "textarea" => Some(Rcdata),
        _ => None,
    }
}

struct Element {
    name: LocalName,
    look: Look,
    quoted: bool,
    row_start: Option<usize>,
}

#[derive(Default)]
struct Page {
    open: Vec<Element>,
    count: HashMap<LocalName, usize>,
    sheet: Sheet,
    css: String,
    text: String,
}

impl Page {
    fn start(&mut self, tag: &Tag) {
        let name = &*tag.name;
        if matches!(name, "br" | "hr") {
            return self.line();
        }
        if is_void(name) {
            return;
        }
        self.close_implied(name);
        if is_block(name) {
            self.gap(name);
        }
        let (outer, was_quoted) =
            self.open.last().map_or((Look::default(), false), |outer| (outer.look, outer.quoted));
        let look = style::look(outer, tag, &self.sheet);
        let quoted = was_quoted || (name == "blockquote" && is_quote(tag));
        let row_start = (name == "tr").then_some(self.text.len());
        *self.count.entry(tag.name.clone()).or_default() += 1;
        self.open.push(Element { name: tag.name.clone(), look, quoted, row_start });
    }

    /// Ends what a start tag ends by itself: a paragraph before the next block, a cell before the next cell.
    fn close_implied(&mut self, name: &str) {
        let (ends, within): (&[&str], &[&str]) = match name {
            "td" | "th" => (&["td", "th"], &["tr", "table"]),
            "tr" => (&["tr"], &["table"]),
            "li" => (&["li"], &["ul", "ol", "table"]),
            "dt" | "dd" => (&["dt", "dd"], &["dl", "table"]),
            name if is_block(name) => (&["p"], &["div", "td", "th", "table", "blockquote", "li"]),
            _ => return,
        };
        let inner = self.open.iter().rev().take(REACH);
        let found = inner
            .take_while(|element| !within.contains(&&*element.name))
            .position(|element| ends.contains(&&*element.name));
        if let Some(depth) = found {
            self.pop(depth + 1);
        }
    }

    fn end(&mut self, name: &LocalName) {
        if self.count.get(name).is_none_or(|count| *count == 0) {
            if matches!(&**name, "p" | "br") {
                self.line();
            }
            return;
        }
        let inline = !is_block(name);
        let of_table =
            matches!(&**name, "table" | "tr" | "td" | "th" | "tbody" | "thead" | "tfoot" | "body" | "html");
        for depth in 0..self.open.len().min(REACH) {
            let Some(element) = self.open.iter().rev().nth(depth) else { return };
            if element.name == *name {
                return self.pop(depth + 1);
            }
            // As in a browser: an inline end tag does not reach out of a block, a block's not out of a cell.
            let wall = if of_table {
                &*element.name == "table"
            } else {
                matches!(&*element.name, "td" | "th" | "table")
            };
            if wall || (inline && is_block(&element.name)) {
                return;
            }
        }
    }

    fn pop(&mut self, elements: usize) {
        for _ in 0..elements {
            let Some(element) = self.open.pop() else { return };
            if let Some(count) = self.count.get_mut(&element.name) {
                *count = count.saturating_sub(1);
            }
            self.close(&element);
        }
    }

    fn close(&mut self, element: &Element) {
        if &*element.name == "style" {
            self.sheet.read(&std::mem::take(&mut self.css));
        } else if matches!(&*element.name, "td" | "th") && !element.look.is_hidden() {
            self.text.push(CELL);
        } else if let Some(start) = element.row_start {
            self.finish_row(start);
        } else if is_block(&element.name) {
            self.gap(&element.name);
        }
    }

    /// A short row becomes one line; the cells of a longer one keep their own lines.
    fn finish_row(&mut self, start: usize) {
        if self.text.len().saturating_sub(start) <= ROW_LIMIT {
            let row = self.text.get(start..).unwrap_or_default();
            let cells: Vec<&str> = row.split(CELL).map(str::trim).filter(|cell| !cell.is_empty()).collect();
            if let Some(rows) = side_by_side(&cells) {
                self.text.truncate(start);
                self.text.push_str(&rows);
            } else if cells.len() > 1
                && cells.iter().all(|cell| cell.lines().filter(|line| !line.is_empty()).count() <= 2)
            {
                let joined =
                    cells.iter().map(|cell| cell.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
                let joined = joined.collect::<Vec<_>>().join("  ").replace("  > ", "  ");
                self.text.truncate(start);
                self.text.push_str(&joined);
            }
        }
        self.line();
    }

    fn text(&mut self, text: &str) {
        let (look, quoted) = match self.open.last() {
            Some(element) if &*element.name == "style" => return self.css.push_str(text),
            Some(element) => (element.look, element.quoted),
            None => (Look::default(), false),
        };
        if look.is_hidden() {
            return;
        }
        let preformatted = self.count.get(&LocalName::from("pre")).is_some_and(|count| *count > 0);
        for c in text.chars() {
            if c == CELL || (c.is_ascii_control() && !c.is_ascii_whitespace()) {
                continue;
            }
            let at_start = self.text.is_empty() || self.text.ends_with(['\n', CELL]);
            if preformatted && c == '\n' {
                self.text.push('\n');
            } else if c.is_ascii_whitespace() {
                if preformatted || !(at_start || self.text.ends_with(' ')) {
                    self.text.push(' ');
                }
            } else {
                if at_start && quoted {
                    self.text.push_str("> ");
                }
                self.text.push(c);
            }
        }
    }

    fn line(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A block starts on its own line; a paragraph after an empty one.
    fn gap(&mut self, name: &str) {
        if self.text.is_empty() || self.text.ends_with(CELL) {
            return;
        }
        if !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        if matches!(name, "p" | "table" | "ul" | "ol" | "blockquote") && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
}

/// Two cells, labels with colons and as many values: one line for each pair.
fn side_by_side(cells: &[&str]) -> Option<String> {
    let [labels, values] = cells else { return None };
    let of = |cell: &str| -> Vec<String> {
        let lines = cell.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|line| !line.is_empty()).collect()
    };
    let (labels, values) = (of(labels), of(values));
    let pairs =
        labels.len() > 1 && labels.len() == values.len() && labels.iter().all(|label| label.ends_with(':'));
    pairs.then(|| {
        labels
            .iter()
            .zip(&values)
            .map(|(label, value)| format!("{label}  {value}"))
            .collect::<Vec<_>>()
            .join("\n")
    })
}

fn is_void(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "col"
            | "embed"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "param"
            | "source"
            | "track"
            | "wbr"
    )
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "center"
            | "dd"
            | "details"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "html"
            | "li"
            | "main"
            | "nav"
            | "ol"
            | "p"
            | "pre"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
    )
}

/// A block quote without a border is how mail programs indent; every other one is an older mail.
fn is_quote(tag: &Tag) -> bool {
    let value = |name: &str| {
        tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
    };
    let indent = value("style")
        .is_some_and(|style| style.to_ascii_lowercase().replace(' ', "").contains("border:none"));
    !indent || value("type").is_some() || value("class").is_some_and(|class| class.contains("quote"))
}

#[cfg(test)]
mod tests {
    use super::to_text;

    #[test]
    fn rows_become_lines_and_hidden_text_never_counts() {
        let html = "<head><title>T 1 EUR</title><style>.pre{display:none} @media x{.a{display:none}}</style></head><!-- 2 EUR -->\
            <div class=pre>3 EUR</div><div style='font-size:0'><span style='font-size:13px' class=a>Guten Tag</span>4 EUR</div>\
            <table><tr><td><p>Gesamt&shy;forderung</p><td><p>1.234,56&nbsp;&euro;</p></tr></table>\
            <p style='color:white'>5 EUR<p><font color='#fefefe'>6 EUR</font>\
            <div bgcolor='#000' style='color:#fff'>hell auf dunkel</div><div hidden>7 EUR</div><script>8 EUR</script>";
        let text = to_text(html);
        assert!(text.contains("Gesamt\u{ad}forderung  1.234,56\u{a0}€"), "{text}");
        assert!(text.contains("Guten Tag") && text.contains("hell auf dunkel"), "{text}");
        assert!(!text.contains("EUR"), "{text}");
    }

    #[test]
    fn what_is_struck_out_does_not_count_and_labels_find_their_values() {
        let html = "<p>Betrag: <s>3 EUR</s> <span style='text-decoration:line-through'>4 EUR</span> 5 EUR</p>\
            <table><tr><td>Ihr Zeichen:<br>Konto:</td><td>17<br>18</td></tr></table>";
        assert_eq!(
            to_text(html).split_whitespace().collect::<Vec<_>>().join(" "),
            "Betrag: 5 EUR Ihr Zeichen: 17 Konto: 18"
        );
    }

    #[test]
    fn a_wrong_end_tag_does_not_uncover_hidden_text() {
        assert!(!to_text("<b><div style='display:none'>x</b>geheim</div>").contains("geheim"));
        assert!(to_text("<p style='display:none'>x<p>sichtbar").contains("sichtbar"));
        assert!(to_text(&format!("<p>vor<img src='{}'>nach", "A".repeat(100_000))).contains("nach"));
    }

    #[test]
    fn block_quotes_are_quoted_lines() {
        let text =
            to_text("<div>neu</div><blockquote type=cite><p>alt<br>älter</p></blockquote><div>Antwort</div>");
        assert_eq!(text.trim(), "neu\n\n> alt\n> älter\n\nAntwort");
    }
}
