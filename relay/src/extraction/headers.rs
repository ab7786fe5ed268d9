//! A mail's headers as an extractor reads them.

use serde_json::{Map, Value};

/// The headers of a mail, name to value; none where the source gives none. Personal data, so without a `Debug` print.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(Option<&'a Map<String, Value>>);

impl<'a> Headers<'a> {
    /// From the object that is stored; anything else counts as no headers.
    #[must_use]
    pub fn new(stored: Option<&'a Value>) -> Headers<'a> {
        Headers(stored.and_then(Value::as_object))
    }

    /// The value of a header, whatever the case of its name, without blanks around; None if it is not there.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a str> {
        let (_, value) = self.0?.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.as_str().map(str::trim)
    }
}
