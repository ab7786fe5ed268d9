//! The interface as an OpenAPI 3.1 document, served as it stands in `openapi.json`. The tests hold it to the code.

/// The document.
pub const DOCUMENT: &str = include_str!("openapi.json");
