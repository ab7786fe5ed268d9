//! Resend's API: fetches received mails.

/// The provider's API.
#[derive(Debug, Clone)]
pub struct Resend;
