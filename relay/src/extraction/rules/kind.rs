//! What kind of mail it is: no creditor's answer at all, or what the creditor wants to say.

use super::pattern;
use crate::extraction::{Intent, Mail};
use regex::Regex;
use shared::money::Amount;
use std::sync::LazyLock;

static BOUNCE_SENDER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^(?:mailer-daemon|postmaster|mail-daemon|bounces?)[@+-]"));
static BOUNCE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)undeliver(?:ed|able)|returned (?:mail|to sender)|delivery (?:status notification|failed|failure)|unzustellbar|nicht zugestellt|zustellung fehlgeschlagen|mail delivery (?:failed|system)",
    )
});
static ABSENCE_SUBJECT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\s*(?:automatische antwort|auto(?:matic)?[- ]?reply|abwesend|abwesenheit\w*|out of (?:the )?office|autoantwort|automatische? (?:eingangs|empfangs)\w*|eingangsbestätigung|empfangsbestätigung)",
    )
});
static ABSENCE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)nicht im (?:hause?|büro)|bin (?:ich )?(?:bis|ab|vom)\b.{0,60}(?:abwesend|urlaub|nicht)|out of (?:the )?office|e-?mails? w(?:ird|erden) nicht weitergeleitet|in dringenden fällen",
    )
});
static RECEIPT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?is)(?:nachricht|anfrage|anliegen|schreiben|e-?mail|message|request|ticket).{0,120}(?:eingegangen|erhalten|erfasst|received|registriert|angelegt)",
    )
});
static AUTOMATIC: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)automatisch (?:erzeugt|generiert|erstellt|versandt|versendet)\w*|automatische (?:antwort|nachricht|e-?mail|bestätigung)|antworten sie (?:bitte )?nicht auf diese|do not reply|automated (?:message|reply|response)|werktagen|schnellstmöglich|so bald wie möglich",
    )
});
static NO_REPLY_SENDER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)^(?:no-?reply|do-?not-?reply|noreply|newsletter|news|marketing|info-?mail)[@+._-]")
});
static ADVERT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)newsletter|\babmelden\b|abbestellen|unsubscribe|jetzt (?:beantragen|bestellen|sichern|anfragen|kaufen)|sofortkredit|ohne schufa|eff(?:\.|ektiver) jahreszins|repräsentatives beispiel|rabatt|gratis|letzte chance|nur heute|gewinnspiel|click here|limited offer",
    )
});

/// Which kind of no answer a mail is; None = a creditor's side says something in the matter.
pub(super) fn no_reply(mail: &Mail<'_>) -> Option<Intent> {
    let text = mail.text.current.as_str();
    if BOUNCE_SENDER.is_match(mail.from_email) || (BOUNCE.is_match(mail.subject) && BOUNCE.is_match(text)) {
        return Some(Intent::Bounce);
    }
    if ABSENCE_SUBJECT.is_match(mail.subject) || (ABSENCE.find_iter(text).count() > 1 && text.len() < 1500) {
        return Some(Intent::AutoReply);
    }
    let unattended = NO_REPLY_SENDER.is_match(mail.from_email);
    if RECEIPT.is_match(&format!("{}\n{text}", mail.subject))
        && AUTOMATIC.is_match(text)
        && super::claim::find(text).is_none_or(|_| unattended)
    {
        return Some(Intent::AutoReply);
    }
    let adverts: std::collections::BTreeSet<String> = ADVERT
        .find_iter(&format!("{} {text}", mail.subject))
        .map(|found| found.as_str().to_lowercase())
        .collect();
    (adverts.len() > 2 || (unattended && adverts.len() > 1)).then_some(Intent::Spam)
}

static REJECTION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?is)\blehnen\b.{0,80}\bab\b|nicht (?:zustimmen|zu\b|annehmen|akzeptieren|einverstanden)|abgelehnt|ablehnung|\breject\b|cannot accept",
    )
});
static ACCEPTANCE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?is)stimmen (?:wir )?.{0,120}\bzu\b|zugestimmt|einverstanden|zustimmung|\baccept\b|we agree")
});
static COUNTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)bereit, gegen|vorstellbar wäre|gegenvorschlag|gegen (?:eine )?(?:einmal)?zahlung|abschließende erledigung|counter-?offer",
    )
});
static INSTALMENTS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)\braten?\b|ratenzahlung|instal?ments"));
static QUESTION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)bitte (?:nennen|teilen sie uns|übersenden|prüfen sie)|benötigen wir|nicht (?:bekannt|geführt|zuordnen)|treffer|rückfrage",
    )
});

/// What the creditor wants to say; shown to people, decides nothing.
pub(super) fn intent(text: &str, amount: Option<Amount>) -> Intent {
    static NOTHING_OWED: LazyLock<Regex> = LazyLock::new(|| {
        pattern(
            r"(?i)keine forderung(?:en)? mehr|ausgeglichen und|vollständig (?:bezahlt|beglichen)|erledigt",
        )
    });
    let rejected = REJECTION.is_match(text);
    if amount.is_some_and(|amount| amount.to_decimal().is_zero())
        || (amount.is_none() && NOTHING_OWED.is_match(text))
    {
        Intent::Settled
    } else if COUNTER.is_match(text) && !text.contains("Ihren Vorschlag") {
        Intent::CounterOffer
    } else if INSTALMENTS.is_match(text) && !rejected {
        Intent::PaymentPlan
    } else if rejected {
        Intent::Rejection
    } else if ACCEPTANCE.is_match(text) {
        Intent::Acceptance
    } else if amount.is_none() && (QUESTION.is_match(text) || text.trim().is_empty()) {
        Intent::Question
    } else {
        Intent::DebtStatement
    }
}
