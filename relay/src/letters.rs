//! The letters to the firm, in German, as text and HTML. Pure.
//!
//! Every value from a mail goes through [`line`] before it stands anywhere, and through `escaped` before it stands in HTML: no line
//! break, no invisible character, nothing long. Owns the German of the reasons that `decisions` holds in English.

use crate::matching;
use rust_decimal::Decimal;
use shared::{
    message::{DebtUpdateNotification, EmailId, ReviewCause},
    money::Amount,
};
use std::fmt::Write as _;

/// A value of a letter has at most so many characters.
const VALUE: usize = 300;
/// A subject has at most so many characters.
const SUBJECT: usize = 150;
/// At most so many entries to choose from are listed.
const CHOICES: usize = 20;

/// A letter to the firm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// The text part.
    pub text: String,
    /// The same as HTML.
    pub html: String,
}

/// A mail that waits for a person.
#[derive(Clone, Default)]
pub struct Waiting {
    /// The mail.
    pub email_id: EmailId,
    /// Its client, as far as it is known.
    pub client_name: Option<String>,
    /// The case number of the mail.
    pub aktenzeichen: Option<String>,
    /// The creditor.
    pub creditor_name: Option<String>,
    /// The sender's address.
    pub creditor_email: String,
    /// What MongoDB has.
    pub stored: Option<Amount>,
    /// What the mail says.
    pub amount: Option<Amount>,
    /// The ticket.
    pub ticket_id: Option<String>,
    /// Why it waits, as `decisions` has it.
    pub reason: String,
    /// The entries that it may mean, one line each.
    pub choices: Vec<String>,
}

/// One block of a letter: its heading, and labels with values.
struct Part {
    heading: Option<String>,
    rows: Vec<(&'static str, String)>,
}

impl Letter {
    /// A letter of these parts; the subject is made one line.
    #[must_use]
    pub fn new(subject: &str, text: impl Into<String>, html: impl Into<String>) -> Letter {
        Letter { subject: cut(&line(subject), SUBJECT), text: text.into(), html: html.into() }
    }

    fn of(subject: &str, introduction: &str, parts: &[Part], closing: &str) -> Letter {
        let (mut text, mut html) = (format!("{introduction}\n"), String::new());
        for part in parts {
            text.push('\n');
            if let Some(heading) = &part.heading {
                let _ = writeln!(text, "{heading}");
                let _ = writeln!(html, "<h3>{}</h3>", escaped(heading));
            }
            html.push_str("<table>\n");
            for (label, value) in &part.rows {
                let _ = writeln!(text, "{label}: {value}");
                let _ = writeln!(
                    html,
                    "<tr><th align=\"left\">{}</th><td>{}</td></tr>",
                    escaped(label),
                    escaped(value)
                );
            }
            html.push_str("</table>\n");
        }
        if !closing.is_empty() {
            let _ = write!(text, "\n{closing}\n");
        }
        let closing =
            if closing.is_empty() { String::new() } else { format!("<p>{}</p>\n", escaped(closing)) };
        let head = "<!doctype html>\n<html lang=\"de\">\n<head><meta charset=\"utf-8\"></head>\n<body>";
        let html = format!("{head}\n<p>{}</p>\n{html}{closing}</body>\n</html>\n", escaped(introduction));
        Letter::new(subject, text, html)
    }
}

/// An amount has been written.
#[must_use]
pub fn debt_update(update: &DebtUpdateNotification, ticket_id: Option<&str>) -> Letter {
    let client = name_of(update.client_name.as_deref(), update.client_aktenzeichen.as_deref());
    let creditor = name_of(update.creditor_name.as_deref(), Some(&update.creditor_email));
    let unknown = || "Unbekannt".to_owned();
    let change = |previous: Amount| signed(update.amount.to_decimal() - previous.to_decimal());
    let numbers: Vec<String> = update.reference_numbers.iter().map(|number| line(number)).collect();
    let numbers = if numbers.is_empty() { "Keine".to_owned() } else { numbers.join(", ") };
    let confidence = update.extraction_confidence.map(percent).unwrap_or_else(unknown);
    let mut rows = vec![
        row("Mandant", &client),
        row("Aktenzeichen", update.client_aktenzeichen.as_deref().unwrap_or("Unbekannt")),
        row("Gläubiger", &creditor),
        row("Adresse des Gläubigers", &update.creditor_email),
        row("Forderungsbetrag bisher", &update.previous.map_or_else(unknown, euros)),
        row("Forderungsbetrag aktuell", &euros(update.amount)),
        row("Änderung", &update.previous.map_or_else(unknown, change)),
        row("Ticket", ticket_id.unwrap_or("Keines")),
        row("Referenznummern", &numbers),
        row("Konfidenz", &confidence),
    ];
    rows.extend(update.decided_by.as_deref().map(|person| row("Entschieden von", person)));
    let subject = format!("Gläubiger-Antwort: {} - {}", name(&client), name(&creditor));
    let introduction = "Ein Gläubiger hat geantwortet, der Forderungsbetrag ist eingetragen.";
    let closing = format!("E-Mail Nr. {}: relay explain {}", update.email_id, update.email_id);
    Letter::of(&subject, introduction, &[Part { heading: None, rows }], &closing)
}

/// One mail waits for a person.
#[must_use]
pub fn review(waiting: &Waiting, cause: ReviewCause) -> Letter {
    let subject = format!("Prüfung nötig: {}", title(waiting));
    let introduction = match cause {
        ReviewCause::NeedsReview => {
            "Eine Gläubiger-Antwort wartet auf Ihre Entscheidung. Bis dahin wird nichts eingetragen."
        }
        ReviewCause::NoMatch => {
            "Zu einer Gläubiger-Antwort gibt es keinen Mandanten. Sobald er angelegt ist, wird der Betrag von selbst eingetragen; \
             gesucht wird sieben Tage lang."
        }
    };
    Letter::of(&subject, introduction, &[Part { heading: None, rows: review_rows(waiting, cause) }], "")
}

/// Many mails wait for a person: more than there may be single letters for.
#[must_use]
pub fn digest(waiting: &[(Waiting, ReviewCause)]) -> Letter {
    let subject = format!("Prüfung nötig: {} Gläubiger-Antworten", waiting.len());
    let introduction =
        "Diese Gläubiger-Antworten warten ebenfalls. Bis zu einer Entscheidung wird nichts eingetragen.";
    let part = |(waiting, cause): &(Waiting, ReviewCause)| Part {
        heading: Some(line(&title(waiting))),
        rows: review_rows(waiting, *cause),
    };
    Letter::of(
        &subject,
        introduction,
        &waiting.iter().map(part).collect::<Vec<_>>(),
        "Alle: relay review list",
    )
}

fn title(waiting: &Waiting) -> String {
    let client = name_of(waiting.client_name.as_deref(), waiting.aktenzeichen.as_deref());
    let creditor = name_of(waiting.creditor_name.as_deref(), Some(&waiting.creditor_email));
    format!("{} - {}", name(&client), name(&creditor))
}

fn review_rows(waiting: &Waiting, cause: ReviewCause) -> Vec<(&'static str, String)> {
    let id = waiting.email_id;
    let mut rows = vec![
        row("Grund", &german(&waiting.reason)),
        row("Mandant", &name_of(waiting.client_name.as_deref(), waiting.aktenzeichen.as_deref())),
        row("Aktenzeichen", waiting.aktenzeichen.as_deref().unwrap_or("Unbekannt")),
        row("Gläubiger", &name_of(waiting.creditor_name.as_deref(), Some(&waiting.creditor_email))),
        row("Adresse des Gläubigers", &waiting.creditor_email),
        row("Gespeicherter Betrag", &waiting.stored.map_or_else(|| "Unbekannt".into(), euros)),
        row("Betrag der Mail", &waiting.amount.map_or_else(|| "Keiner".into(), euros)),
        row("Ticket", waiting.ticket_id.as_deref().unwrap_or("Keines")),
    ];
    rows.extend(waiting.choices.iter().take(CHOICES).map(|choice| row("Möglich", choice)));
    if waiting.choices.len() > CHOICES {
        rows.push(row("Möglich", &format!("und {} weitere", waiting.choices.len() - CHOICES)));
    }
    rows.push(row("Übernehmen", &format!("relay review accept {id} [--client --creditor --amount]")));
    rows.push(row("Verwerfen", &format!("relay review reject {id}")));
    if cause == ReviewCause::NoMatch {
        rows.push(row("Verlauf", &format!("relay explain {id}")));
    }
    rows
}

fn row(label: &'static str, value: &str) -> (&'static str, String) {
    (label, line(value))
}

/// The name, else what stands in for it.
fn name_of(name: Option<&str>, instead: Option<&str>) -> String {
    let given = |text: Option<&str>| text.map(line).filter(|text| !text.is_empty());
    given(name).or_else(|| given(instead)).unwrap_or_else(|| "Unbekannt".into())
}

/// A name in a subject: short enough that both fit.
fn name(text: &str) -> String {
    cut(text, 60)
}

/// One line: without control characters, line separators and characters that are not seen or turn the order of others.
fn line(text: &str) -> String {
    let is_unseen = |c: &char| matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    // Enough of a hostile value to fill the line after the blanks are gone, and no more.
    let seen: String = text
        .chars()
        .filter(|c| !is_unseen(c))
        .take(VALUE * 4)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    cut(&seen.split_whitespace().collect::<Vec<_>>().join(" "), VALUE)
}

fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// `1.234,56 EUR`.
fn euros(amount: Amount) -> String {
    german_number(amount.to_decimal())
}

/// `+1.234,56 EUR` or `-1.234,56 EUR`.
fn signed(change: Decimal) -> String {
    let sign = if change.is_zero() {
        ""
    } else if change.is_sign_negative() {
        "-"
    } else {
        "+"
    };
    format!("{sign}{}", german_number(change.abs()))
}

fn german_number(number: Decimal) -> String {
    let text = format!("{number:.2}");
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push('.');
        }
        grouped.push(digit);
    }
    format!("{grouped},{cents} EUR")
}

fn percent(confidence: f64) -> String {
    format!("{:.0} %", (confidence * 100.0).clamp(0.0, 100.0))
}

/// The reasons of `operations/creditor_debt_update`, `matching` and `write_guard`; a text that is not here passes as it is.
const REASONS: [(&str, &str); 17] = [
    (
        "the mail names neither a case number nor a client",
        "Die Mail nennt weder ein Aktenzeichen noch einen Mandanten",
    ),
    (
        "a number of the mail is a case number, but of a client of another name",
        "Eine Nummer der Mail ist ein Aktenzeichen, gehört aber zu einem Mandanten anderen Namens",
    ),
    (
        "another amount of the same stamp is stored",
        "Zur selben Mail ist schon ein anderer Betrag gespeichert",
    ),
    ("the client that a person decided on is not in MongoDB", "Den Mandanten der Entscheidung gibt es nicht"),
    (matching::CLIENT_MISSING, "Es gibt keinen Mandanten dieses Aktenzeichens oder Namens"),
    ("the client has no list of creditors", "Der Mandant hat keine Gläubigerliste"),
    (
        "the client has no creditor entry of the key that was named",
        "Der Mandant hat keinen Gläubiger-Eintrag mit dem genannten Schlüssel",
    ),
    (
        "several clients of this name or number have an entry of the key that was named",
        "Mehrere Mandanten dieses Namens oder Aktenzeichens haben einen Eintrag mit dem genannten Schlüssel",
    ),
    ("no creditor of the client fits the mail", "Kein Gläubiger des Mandanten passt zu der Mail"),
    (
        "several creditor entries of the client fit equally",
        "Mehrere Gläubiger des Mandanten passen gleich gut",
    ),
    (
        "several clients of this name or number fit equally",
        "Mehrere Mandanten dieses Namens oder Aktenzeichens passen gleich gut",
    ),
    (
        "the creditor's entry cannot be told from another one",
        "Der Eintrag des Gläubigers ist von einem anderen nicht zu unterscheiden",
    ),
    ("the mail states no amount", "Die Mail nennt keinen Betrag"),
    ("the amount is over ", "Der Betrag liegt über "),
    ("the extraction's confidence is below ", "Die Konfidenz der Auslesung liegt unter "),
    (
        "the stored amount is not a plain amount of money",
        "Der gespeicherte Betrag ist kein lesbarer Geldbetrag",
    ),
    ("the amount is lower than the stored one", "Der Betrag ist niedriger als der gespeicherte"),
];

fn german(reason: &str) -> String {
    let known = REASONS.iter().find_map(|(english, german)| Some((german, reason.strip_prefix(english)?)));
    known.map_or_else(|| reason.to_owned(), |(german, rest)| format!("{german}{rest}"))
}

#[cfg(test)]
mod tests;
