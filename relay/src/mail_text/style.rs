//! Whether a reader sees the text of an element: the few CSS properties that mails hide text with.
//!
//! Owns the inherited look of an element (hidden, size, colours) and the class rules of style blocks. Sizes and colours are
//! inherited and can be set back further in, `display: none` cannot. It never lays anything out.

use super::pattern;
use html5ever::tokenizer::Tag;
use regex::Regex;
use std::{collections::HashSet, sync::LazyLock};

/// Red, green, blue.
type Colour = [u8; 3];

/// How an element's text looks, inherited from element to element.
#[derive(Clone, Copy)]
pub(super) struct Look {
    dropped: bool,
    invisible: bool,
    tiny: bool,
    ink: Option<Colour>,
    paper: Option<Colour>,
}

impl Default for Look {
    fn default() -> Look {
        Look { dropped: false, invisible: false, tiny: false, ink: Some([0; 3]), paper: Some([255; 3]) }
    }
}

impl Look {
    pub(super) fn is_hidden(self) -> bool {
        // An unknown colour is taken for visible; equal but for a shade is not.
        let on_own_colour = match (self.ink, self.paper) {
            (Some(ink), Some(paper)) => ink.iter().zip(paper).all(|(one, other)| one.abs_diff(other) < 32),
            _ => false,
        };
        self.dropped || self.invisible || self.tiny || on_own_colour
    }

    fn declare(&mut self, declarations: &str) {
        let mut clipped = false;
        let mut flat = false;
        for declaration in declarations.to_ascii_lowercase().split(';') {
            let Some((property, value)) = declaration.split_once(':') else { continue };
            let value = value.replace("!important", "");
            let value = value.trim();
            match property.trim() {
                "display" => self.dropped |= value == "none",
                "mso-hide" => self.dropped |= value == "all",
                "visibility" => self.invisible = matches!(value, "hidden" | "collapse"),
                // Struck out: its writer has taken it back.
                "text-decoration" | "text-decoration-line" => self.dropped |= value.contains("line-through"),
                "opacity" => self.dropped |= value.parse::<f32>().is_ok_and(|opacity| opacity < 0.1),
                "font-size" => self.tiny = is_tiny(value),
                "max-height" | "max-width" | "height" | "width" => {
                    flat |= matches!(value, "0" | "0px" | "0pt")
                }
                "overflow" => clipped = value == "hidden",
                "text-indent" | "left" | "top" | "margin-left" => self.dropped |= is_far_away(value),
                "color" => self.ink = if value == "transparent" { self.paper } else { colour(value) },
                "background" | "background-color" => self.paper = paper(value, self.paper),
                _ => {}
            }
        }
        self.dropped |= clipped && flat;
    }
}

/// The look of the element that `tag` starts inside of `outer`.
pub(super) fn look(outer: Look, tag: &Tag, sheet: &Sheet) -> Look {
    let mut look = outer;
    look.dropped |= matches!(
        &*tag.name,
        "title"
            | "script"
            | "style"
            | "template"
            | "textarea"
            | "iframe"
            | "select"
            | "object"
            | "svg"
            | "s"
            | "strike"
            | "del" // taken back by its writer
    );
    let mut inline = None;
    for attribute in &tag.attrs {
        let value = &*attribute.value;
        match &*attribute.name.local {
            "hidden" => look.dropped = true,
            "bgcolor" => look.paper = colour(&value.to_ascii_lowercase()),
            "color" => look.ink = colour(&value.to_ascii_lowercase()),
            "class" => look.dropped |= value.split_ascii_whitespace().any(|class| sheet.hides(".", class)),
            "id" => look.dropped |= sheet.hides("#", value),
            "style" => inline = Some(value),
            _ => {}
        }
    }
    if let Some(declarations) = inline {
        look.declare(declarations);
    }
    look
}

fn is_tiny(size: &str) -> bool {
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%' || c == ' ');
    let Ok(number) = digits.parse::<f32>() else { return false };
    match size.get(digits.len()..).unwrap_or_default().trim() {
        "em" | "rem" => number < 0.15,
        "%" => number < 15.0,
        _ => number < 2.0,
    }
}

fn is_far_away(offset: &str) -> bool {
    offset.strip_prefix('-').is_some_and(|rest| rest.chars().take_while(char::is_ascii_digit).count() >= 3)
}

fn paper(value: &str, outer: Option<Colour>) -> Option<Colour> {
    match value {
        "none" | "transparent" | "inherit" | "initial" => outer,
        _ if value.contains("url(") => None,
        _ => colour(value),
    }
}

static RGB: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"rgba?\(\s*([0-9]{1,3})\s*[, ]\s*([0-9]{1,3})\s*[, ]\s*([0-9]{1,3})"));
static HEX: LazyLock<Regex> = LazyLock::new(|| pattern(r"#?\b([0-9a-f]{6}|[0-9a-f]{3})\b"));

fn colour(value: &str) -> Option<Colour> {
    let value = value.trim();
    if value
        .split_whitespace()
        .any(|word| matches!(word, "white" | "snow" | "ivory" | "whitesmoke" | "ghostwhite"))
    {
        return Some([255; 3]);
    }
    if value.split_whitespace().any(|word| word == "black") {
        return Some([0; 3]);
    }
    if let Some(found) = RGB.captures(value) {
        let part = |index: usize| found.get(index).and_then(|part| part.as_str().parse::<u8>().ok());
        return Some([part(1)?, part(2)?, part(3)?]);
    }
    let digits = HEX.captures(value)?.get(1)?.as_str();
    let width = digits.len() / 3;
    let part = |index: usize| {
        let part = digits.get(index * width..(index + 1) * width)?;
        u8::from_str_radix(&if width == 1 { part.repeat(2) } else { part.to_owned() }, 16).ok()
    };
    Some([part(0)?, part(1)?, part(2)?])
}

/// Classes and ids that a style block hides on every screen.
#[derive(Default)]
pub(super) struct Sheet(HashSet<String>);

static RULE: LazyLock<Regex> = LazyLock::new(|| pattern(r"([^{}]*)\{([^{}]*)\}"));
static HIDES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*hidden|mso-hide\s*:\s*all|font-size\s*:\s*[01](?:px|pt)?\s*(?:;|$))",
    )
});

impl Sheet {
    pub(super) fn read(&mut self, css: &str) {
        // A rule inside a media query holds for some screens only; the braces tell its depth.
        let mut depth = 0_i32;
        let mut plain = String::new();
        for block in css.split_inclusive(['{', '}']) {
            let media = depth == 0 && block.trim_start().starts_with('@');
            if media && block.ends_with('{') {
                depth = 1;
            } else if depth > 0 {
                depth += if block.ends_with('{') { 1 } else { -1 };
            } else {
                plain.push_str(block);
            }
        }
        for rule in RULE.captures_iter(&plain) {
            let (selectors, body) =
                (rule.get(1).map_or("", |m| m.as_str()), rule.get(2).map_or("", |m| m.as_str()));
            if HIDES.is_match(body) {
                // Only a selector of one class or id is sure to mean this element.
                let single = selectors
                    .split(',')
                    .map(str::trim)
                    .filter(|one| !one.contains([' ', ':', '>', '+', '~']));
                let named = single.filter_map(|one| one.find(['.', '#']).and_then(|at| one.get(at..)));
                self.0.extend(named.map(str::to_owned));
            }
        }
    }

    fn hides(&self, mark: &str, name: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&format!("{mark}{name}"))
    }
}
