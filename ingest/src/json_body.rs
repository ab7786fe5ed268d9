//! Reading a JSON body field by field: bounded, and with a JSON pointer for everything that is wrong.
//!
//! Pure. Knows no field by name. NUL is stripped from texts, because Postgres cannot store it; the request's own bytes are
//! kept elsewhere.

use crate::problem::{FieldError, Problem};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::{collections::HashSet, fmt};

/// Errors reported at once; a hostile body must not make a long answer.
const MAX_ERRORS: usize = 20;
/// Characters of a client's own field name that an answer repeats.
const MAX_NAME_CHARACTERS: usize = 100;

/// Bytes of the pointers to names that occur twice: the longest has 25 kB, and few of a thousand such places help anybody.
const MAX_POINTER_BYTES: usize = 4096;

/// Looks through a JSON value for names that occur twice in one object, and notes where. A pointer is made for these alone: one for
/// each item of a long list far below would cost a thousand times the reading.
#[derive(Default)]
struct Repeats {
    /// The names and numbers that lead to the value.
    path: Vec<String>,
    found: Vec<FieldError>,
}

impl Repeats {
    fn below<T>(&mut self, part: String, look: impl FnOnce(&mut Repeats) -> T) -> T {
        self.path.push(part);
        let looked = look(self);
        self.path.pop();
        looked
    }

    fn note(&mut self) {
        let bytes: usize = self.found.iter().map(|error| error.pointer.len()).sum();
        if self.found.len() < MAX_ERRORS && bytes < MAX_POINTER_BYTES {
            let pointer = self.path.iter().fold(String::new(), |pointer, part| pointer + "/" + part);
            self.found.push(FieldError { pointer, detail: "must occur once".into() });
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Repeats {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Repeats {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = access.next_key::<String>()? {
            self.below(escaped(&name), |below| {
                if names.contains(&name) {
                    below.note();
                }
                access.next_value_seed(below)
            })?;
            names.insert(name);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut index = 0_u64;
        while self.below(index.to_string(), |below| access.next_element_seed(below))?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A name as a part of a JSON pointer, cut.
fn escaped(name: &str) -> String {
    let name: String = name.chars().take(MAX_NAME_CHARACTERS).collect();
    name.replace('~', "~0").replace('/', "~1")
}

/// Reads a body that has to be one JSON object.
///
/// # Errors
/// [`Problem::InvalidPayload`] for an empty body, invalid UTF-8, anything but JSON, nesting deeper than 127, other JSON values, and
/// names that occur twice in one object: readers do not agree which of the two counts.
pub fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let whole = |detail: String| Problem::field("", detail);
    if body.is_empty() {
        return Err(whole("must be a JSON object; the body is empty".into()));
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(whole("must not begin with a UTF-8 byte order mark".into()));
    }
    let text = std::str::from_utf8(body)
        .map_err(|error| whole(format!("must be UTF-8; byte {} is not", error.valid_up_to())))?;
    let refused = |error: serde_json::Error| {
        // The category and the place only: serde_json's own words may quote the body.
        let place = format!("(line {}, column {})", error.line(), error.column());
        whole(match error.classify() {
            serde_json::error::Category::Data => format!("must be a JSON object {place}"),
            serde_json::error::Category::Eof => format!("must be JSON; it ends too early {place}"),
            // serde_json tells its limit of depth from bad syntax in words only.
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                format!("is not valid JSON {place}, or is nested deeper than 127 levels")
            }
        })
    };
    let values = serde_json::from_str(text).map_err(refused)?;
    let mut repeats = Repeats::default();
    repeats.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(refused)?;
    if repeats.found.is_empty() { Ok(values) } else { Err(Problem::InvalidPayload(repeats.found)) }
}

/// Takes the fields of one object and collects what is wrong with them.
#[derive(Debug)]
pub struct Fields {
    values: Map<String, Value>,
    pointer: String,
    errors: Vec<FieldError>,
}

impl Fields {
    /// The fields of the object at `pointer`.
    #[must_use]
    pub fn new(values: Map<String, Value>, pointer: impl Into<String>) -> Fields {
        Fields { values, pointer: pointer.into(), errors: Vec::new() }
    }

    /// The fields of an object below this one; `inner` is the rest of the pointer to it.
    #[must_use]
    pub fn below(&self, inner: &str, values: Map<String, Value>) -> Fields {
        Fields::new(values, format!("{}{inner}", self.pointer))
    }

    /// The value of a field, taken out; a null is an absent field.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    /// Notes an error at a field; `inner` is the rest of the pointer below it.
    pub fn wrong(&mut self, name: &str, inner: &str, detail: impl Into<String>) {
        if self.errors.len() < MAX_ERRORS {
            let pointer = format!("{}/{}{inner}", self.pointer, escaped(name));
            self.errors.push(FieldError { pointer, detail: detail.into() });
        }
    }

    /// Whether an error has been noted at this field.
    #[must_use]
    pub fn is_wrong(&self, name: &str) -> bool {
        let pointer = format!("{}/{name}", self.pointer);
        self.errors.iter().any(|error| error.pointer == pointer)
    }

    /// An optional text of at most `max` characters, without NUL.
    pub fn text(&mut self, name: &str, max: usize) -> Option<String> {
        let text = match self.take(name)? {
            Value::String(text) => text.replace('\0', ""),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.wrong(name, "", "must be a string or null");
                return None;
            }
        };
        if text.chars().nth(max).is_some() {
            self.wrong(name, "", format!("must have at most {max} characters"));
            return None;
        }
        Some(text)
    }

    /// A text that has to be there and to say something.
    pub fn required_text(&mut self, name: &str, max: usize) -> String {
        match self.text(name, max) {
            Some(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Some(_) => {
                self.wrong(name, "", "must not be empty");
                String::new()
            }
            None => {
                if !self.is_wrong(name) {
                    self.wrong(name, "", "is required");
                }
                String::new()
            }
        }
    }

    /// An id that some senders write as a number: its digits as text.
    pub fn id_text(&mut self, name: &str, max: usize) -> Option<String> {
        if let Some(Value::Number(number)) = self.values.get(name) {
            let digits = number.as_str().to_owned();
            if digits.bytes().all(|byte| byte.is_ascii_digit()) {
                self.values.insert(name.to_owned(), Value::String(digits));
            } else {
                self.values.remove(name);
                self.wrong(name, "", "must be a string or a whole number");
                return None;
            }
        }
        self.text(name, max).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// An e-mail address that has to be there, bare or as `Name <address>`; returns name and address.
    pub fn required_mailbox(&mut self, name: &str) -> (Option<String>, String) {
        let text = self.required_text(name, MAX_MAILBOX_CHARACTERS);
        if let Some(mailbox) = mailbox(&text) {
            return mailbox;
        }
        if !self.is_wrong(name) {
            self.wrong(name, "", "must be an e-mail address");
        }
        (None, String::new())
    }

    /// An optional list of texts.
    pub fn texts(&mut self, name: &str, max_items: usize, max: usize) -> Vec<String> {
        let items = match self.take(name) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                self.wrong(name, "", "must be a list of strings or null");
                return Vec::new();
            }
        };
        if items.len() > max_items {
            self.wrong(name, "", format!("must have at most {max_items} items"));
            return Vec::new();
        }
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if text.chars().nth(max).is_none() => texts.push(text.replace('\0', "")),
                Value::String(_) => {
                    self.wrong(name, &format!("/{index}"), format!("must have at most {max} characters"));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    self.wrong(name, &format!("/{index}"), "must be a string");
                }
            }
        }
        texts
    }

    /// Takes over the errors of a part that was read on its own.
    pub fn absorb(&mut self, part: Fields) {
        self.errors.extend(part.errors);
        self.errors.truncate(MAX_ERRORS);
    }

    /// Notes every field that nobody took; for bodies that must not say what is then ignored.
    pub fn refuse_unknown(&mut self) {
        for name in self.values.keys().cloned().collect::<Vec<_>>() {
            self.wrong(&name, "", "is not a known field");
        }
    }

    /// The end of the reading.
    ///
    /// # Errors
    /// [`Problem::InvalidPayload`] with everything that was noted.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::InvalidPayload(self.errors)) }
    }
}

/// Characters of a mailbox, name included; an address alone has at most 320.
const MAX_MAILBOX_CHARACTERS: usize = 700;

/// Reads `address` or `Name <address>`. Only the shape of an address is tested: whether it exists, nobody can tell.
#[must_use]
pub fn mailbox(text: &str) -> Option<(Option<String>, String)> {
    let (name, address) = match text.trim().strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, address)) => (name.trim().trim_matches('"').trim(), address.trim()),
        None => ("", text.trim()),
    };
    let (local, domain) = address.rsplit_once('@')?;
    let strange = |character: char| {
        character.is_whitespace()
            || character.is_control()
            || matches!(character, '<' | '>' | ',' | ';' | '"' | '@')
    };
    let domain_is_plain = !domain.starts_with('.') && !domain.ends_with('.') && !domain.contains("..");
    let shape = !local.is_empty()
        && !domain.is_empty()
        && domain_is_plain
        && !address.replacen('@', "", 1).contains(strange);
    let name = (!name.is_empty()).then(|| name.to_owned());
    (shape && address.chars().count() <= 320).then(|| (name, address.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_an_address_with_or_without_a_name() {
        let read = |text: &str| mailbox(text);
        assert_eq!(read(" a@b.example "), Some((None, "a@b.example".into())));
        assert_eq!(read("\"Bank, AG\" <a@b.example>"), Some((Some("Bank, AG".into()), "a@b.example".into())));
        assert_eq!(read("<jürgen@müller.example>"), Some((None, "jürgen@müller.example".into())));
        for text in ["", "a", "@b", "a@", "a b@c", "a@b@c", "a@.b", "a@b..c", "a@b, c@d", "a\0@b", "Name <a>"]
        {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(read(&format!("{}@b.example", "a".repeat(320))), None);
    }

    #[test]
    fn a_body_that_is_not_one_object_is_refused_with_its_place() {
        let detail = |body: &[u8]| {
            let Err(Problem::InvalidPayload(errors)) = parse(body) else { panic!("accepted") };
            errors[0].detail.clone()
        };
        assert!(detail(b"").contains("empty"));
        assert!(detail(b"{\"a\": \"\xff\"}").contains("byte 7"));
        assert!(detail(b"{\"a\": 1").contains("too early"));
        assert!(detail(b"[1]").contains("object"));
        assert_eq!(
            detail(b"{\"a\": \"\\ud800\"}"),
            "is not valid JSON (line 1, column 14), or is nested deeper than 127 levels"
        );
        assert!(detail(b"{\"a\":\n,}").contains("not valid JSON (line 2, column 1)"));
        assert!(detail(b"\xef\xbb\xbf{}").contains("byte order mark"));
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(parse(nested(127).as_bytes()).is_ok());
        assert!(detail(nested(128).as_bytes()).ends_with("deeper than 127 levels"));
        let repeated = br#"{"a": 1.5, "b": [{"c/d": 2, "c/d": [true, null, "x"]}, 1e400], "a": {"a": -3}}"#;
        let Err(Problem::InvalidPayload(errors)) = parse(repeated) else { panic!("accepted") };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/b/0/c~1d", "/a"]);
    }

    #[test]
    fn names_that_occur_twice_far_below_make_no_long_answer() {
        let name = "~".repeat(100);
        let (open, close) = (format!(r#"{{"{name}":"#).repeat(120), "}".repeat(120));
        let twice = vec![r#""a":0"#; 1000].join(",");
        let Err(Problem::InvalidPayload(errors)) = parse(format!("{open}{{{twice}}}{close}").as_bytes())
        else {
            panic!("accepted")
        };
        let bytes: usize = errors.iter().map(|error| error.pointer.len()).sum();
        assert!(errors.len() == 1 && bytes < 25_000, "{} errors of {bytes} bytes", errors.len());
    }

    #[test]
    fn every_error_names_its_place() {
        let body =
            br#"{"text": 1, "long": "abcd", "list": ["x", 2], "id": 1.5, "a/b~c": null, "mail": "nobody"}"#;
        let mut fields = Fields::new(parse(body).unwrap(), "/data");
        fields.text("text", 10);
        fields.text("long", 3);
        fields.texts("list", 5, 5);
        fields.id_text("id", 20);
        fields.required_text("gone", 10);
        fields.required_mailbox("mail");
        fields.refuse_unknown();
        let Err(Problem::InvalidPayload(errors)) = fields.finish() else { panic!("accepted") };
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        let expected = [
            "/data/text",
            "/data/long",
            "/data/list/1",
            "/data/id",
            "/data/gone",
            "/data/mail",
            "/data/a~1b~0c",
        ];
        assert_eq!(pointers, expected);
    }
}
