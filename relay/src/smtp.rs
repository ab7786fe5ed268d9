//! SMTP: the only file that names lettre.

/// Sends mail.
#[derive(Debug, Clone)]
pub struct Mailer;
