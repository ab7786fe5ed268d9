//! What was written now, and what only stands below it as quoted history.
//!
//! Owns the marks that mail programs put around older mails (`>`, "Am ... schrieb ...:", header blocks, separators) and the two
//! exceptions: answers between quoted lines are new, and so is a forwarded answer with almost nothing above it, unless the mail
//! below is our own letter. It reads lines, never sentences about the claim.

use super::{MailText, pattern};
use regex::Regex;
use std::sync::LazyLock;

/// Mails inside mails that are followed; a chain of forwards is rarely longer than three.
const NESTING: usize = 6;
/// Lines of a header block or of a wrapped "On ... wrote:" that are looked at together.
const HEADER_LINES: usize = 9;

/// Splits cleaned text into what is new and what is history.
pub(super) fn split(text: &str) -> MailText {
    let mut current = String::new();
    let mut history = String::new();
    let lines: Vec<&str> = text.lines().collect();
    let mut rest = lines.as_slice();
    for _ in 0..NESTING {
        let Some(mark) = find_mark(rest) else { break };
        let (head, from_mark) = rest.split_at(mark.at);
        let (header, below) = from_mark.split_at(mark.lines.min(from_mark.len()));
        let (new, quoted) = unquoted(head);
        append(&mut current, &new);
        append(&mut history, &quoted);
        append(&mut history, &header.join("\n"));
        if is_from_law_firm(header) || !is_passed_on(&current, below, mark.forward) {
            append(&mut history, &below.iter().map(|line| without_mark(line)).collect::<Vec<_>>().join("\n"));
            return finish(current, history);
        }
        rest = below;
    }
    let (new, quoted) = unquoted(rest);
    append(&mut current, &new);
    append(&mut history, &quoted);
    finish(current, history)
}

fn finish(current: String, history: String) -> MailText {
    let older: Vec<&str> = history.lines().collect();
    // A forward that a mail program set entirely in quotation marks.
    let headed = older.get(..HEADER_LINES.min(older.len())).unwrap_or_default();
    if !is_from_law_firm(headed) && is_passed_on(&current, &older, FORWARD_LINE.is_match(&history)) {
        let inner = older.iter().map(|line| without_mark(line)).collect::<Vec<_>>();
        let mark = find_mark(&inner).map_or(0, |mark| mark.at + mark.lines);
        let below = inner.get(mark..).unwrap_or_default().join("\n");
        return MailText { current: format!("{current}\n{below}"), history: String::new() };
    }
    MailText { current, history }
}

fn append(text: &mut String, more: &str) {
    if !more.trim().is_empty() {
        text.push_str(more);
        text.push('\n');
    }
}

struct Mark {
    at: usize,
    lines: usize,
    forward: bool,
}

static SEPARATOR: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[\s*]*[-_=]{2,}.{0,6}\b(?:urspr(?:ü|ue)ngliche\s+(?:nachricht|e-?mail)|original\s*(?:message|nachricht)|original-?nachricht|weitergeleitete\s+(?:nachricht|e-?mail)|forwarded\s+(?:message|by)|below this line)",
    )
});
static FORWARD_LINE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?im)^[\s*>_=-]*(?:anfang der weitergeleiteten|weitergeleitete\s+(?:nachricht|e-?mail)|(?:begin )?forwarded\s+(?:message|by))",
    )
});
static FROM_LINE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^[\s*_]*(?:von|from|absender)\s*:[\s*]*\S"));
static HEADER_LINE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[\s*_]*(?:gesendet(?: am)?|sent|datum|date|an|to|empfänger|cc|betreff|subject|antwort an|reply-to)\s*:",
    )
});
static WROTE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^[\s*]*(?:(?:am|on|den|quoting|zitat von)\b.{0,300}\b(?:schrieb|geschrieben|wrote)\b.{0,200}:|.{2,120}\b(?:schrieb am|wrote on|hat am .{4,60} geschrieben)\b.{0,200}:)[\s*]*$",
    )
});
static WROTE_START: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^[\s*]*(?:am|on|den|quoting)\b|\b(?:schrieb am|wrote on|hat am)\b"));

/// The first line from which on everything below is an older mail.
fn find_mark(lines: &[&str]) -> Option<Mark> {
    let mut skip_to = 0;
    for (at, line) in lines.iter().enumerate() {
        if at < skip_to || line.starts_with('>') {
            continue;
        }
        let forward = FORWARD_LINE.is_match(line);
        if forward || SEPARATOR.is_match(line) {
            return Some(Mark { at, lines: 1 + header_length(lines, at + 1), forward });
        }
        let block = if FROM_LINE.is_match(line) { header_length(lines, at) } else { 0 };
        if block > 0 {
            let ruled =
                at.checked_sub(1).and_then(|above| lines.get(above)).is_some_and(|above| is_rule(above));
            let rule = usize::from(ruled);
            return Some(Mark { at: at - rule, lines: block + rule, forward: false });
        }
        if let Some(length) = attribution(lines, at) {
            let below = lines.iter().skip(at + length).find(|line| !line.trim().is_empty());
            if below.is_some_and(|line| line.starts_with('>')) {
                skip_to = at + length;
            } else {
                return Some(Mark { at, lines: length, forward: false });
            }
        }
    }
    None
}

fn is_rule(line: &str) -> bool {
    line.len() > 9 && line.trim().chars().all(|c| matches!(c, '_' | '-' | '=' | '*'))
}

/// Lines of a header block that starts at or right below `at`; 0 if there is none.
fn header_length(lines: &[&str], at: usize) -> usize {
    let window = lines.iter().skip(at).take(HEADER_LINES).enumerate();
    let (mut last, mut from, mut others) = (0, false, 0);
    for (offset, line) in window {
        if FROM_LINE.is_match(line) {
            (last, from) = (offset + 1, true);
        } else if HEADER_LINE.is_match(line) {
            (last, others) = (offset + 1, others + 1);
        } else if line.trim().is_empty() && from {
            break;
        }
    }
    if from && others >= 2 { last } else { 0 }
}

/// Lines of "Am ... schrieb ...:" at `at`, which mail programs wrap into up to four.
fn attribution(lines: &[&str], at: usize) -> Option<usize> {
    if !lines.get(at).is_some_and(|line| WROTE_START.is_match(line)) {
        return None;
    }
    let mut joined = String::new();
    for (offset, line) in lines.iter().skip(at).take(4).enumerate() {
        if line.trim().is_empty() || (offset > 0 && line.starts_with('>')) || line.len() > 400 {
            return None;
        }
        joined.push_str(line);
        if WROTE.is_match(&joined) {
            return Some(offset + 1);
        }
        joined.push(' ');
    }
    None
}

fn without_mark(line: &str) -> &str {
    line.trim_start_matches(['>', ' '])
}

/// The lines without a quotation mark, and those with one; the line that introduces a quote belongs to it.
fn unquoted(lines: &[&str]) -> (String, String) {
    let (mut new, mut quoted) = (String::new(), String::new());
    let mut quoted_until = 0;
    for (at, line) in lines.iter().enumerate() {
        if at >= quoted_until
            && let Some(length) = attribution(lines, at)
        {
            quoted_until = at + length;
        }
        let is_quoted = line.starts_with('>') || at < quoted_until;
        let target = if is_quoted { &mut quoted } else { &mut new };
        target.push_str(if is_quoted { without_mark(line) } else { line });
        target.push('\n');
    }
    (new, quoted)
}

static COURTESY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\s*(?:sehr geehrte|guten (?:tag|morgen)|hallo|liebe|dear|hello|hi\b|moin|grüß gott)[^.]{0,120}$",
    )
});
static CLOSING: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\s*(?:--\s*$|mit (?:freundlich|kollegial|best)|(?:freundliche|viele|beste|liebe|schöne|sportliche)\w* gr(?:ü|ue)(?:ß|ss)|gruß|grüße|mfg\b|hochachtungsvoll|im auftrag|i\. ?a\.|(?:kind|best|warm)? ?regards|sincerely|von meine?m .{3,20} gesendet|sent from my)",
    )
});
static PASSES_ON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:anbei|weiter(?:ge)?leite\w*|leite\w*\b.{0,60}\bweiter|unten\w*|nachfolgend\w*|nachstehend\w*|folgende\w*|siehe|s\. ?u\.|stellungnahme|z\. ?k\.|zur (?:kenntnis|weiteren)|zuständig\w*|fyi|below|forward\w*)",
    )
});
/// The sender points at an older mail of its own: that one may be out of date, and it is no answer passed on.
static REFERS_BACK: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:wie (?:schon|bereits|mehrfach|zuvor|oben)\b|(?:bereits|schon|mehrfach|mehrmals) (?:\w+ ){0,2}(?:mitgeteilt|geschrieben|beantwortet|gesagt|erklärt|übersandt|geschickt|gesendet)|nichts (?:\w+ ){0,2}geändert|unverändert|keine änderung\w*|nach wie vor|weiterhin gültig|erinnerung\w*|letzten? (?:e-?mail|mail|nachricht|schreiben|antwort)|as (?:already|previously|stated)|nothing has changed|still stands)",
    )
});
static DECIDES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:ablehn\w*|lehnen|abgelehnt|zustimm\w*|stimmen|einverstanden|akzeptier\w*|\d[\d.,]*\s*(?:eur|€)|€\s*\d|eur\s*\d)",
    )
});

/// Whether the mail `below` is passed on rather than answered: almost nothing stands above it, and it is not our own letter.
fn is_passed_on(above: &str, below: &[&str], forward: bool) -> bool {
    let core =
        above.lines().take_while(|line| !CLOSING.is_match(line)).filter(|line| !COURTESY.is_match(line));
    let core: String = core.collect::<Vec<_>>().join(" ");
    let words = core.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count();
    let thin = words <= 3 || (words <= 30 && (forward || PASSES_ON.is_match(&core)));
    // An empty answer above a long exchange says nothing either, but then the outermost letter below is ours.
    thin && !DECIDES.is_match(&core)
        && !REFERS_BACK.is_match(&core)
        && below.iter().any(|line| !line.trim().is_empty())
        && !is_our_letter(below)
}

static OUR_VOICE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:(?:unser|mein)(?:e|en|er|em|es)?\s+mandant\w*|our client\w*|(?:unser|our) (?:az\b|aktenzeichen|zeichen|ref)|(?:wir|ich) vertrete[n]?|vertretung (?:von|der|des) .{2,60} anzeige\w*|schuldenbereinigungsplan|erinnern wir|wir erinnern|(?:auf|an) unsere? (?:anfrage|schreiben|erinnerung)|bitten? (?:wir|ich) (?:sie )?um|teilen sie uns .{0,80}mit)",
    )
});
/// Who asks creditors for figures calls itself so; a creditor's lawyers write to their principal, and then it is in doubt.
static LAW_FIRM: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:kanzlei|schuld(?:ner|en)beratung|schuldenhilfe|insolvenzberatung)\w*")
});
static TO_LINE: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^[\s*_]*(?:an|to|empfänger)\s*:"));

fn is_from_law_firm(header: &[&str]) -> bool {
    let named = |label: &Regex| header.iter().any(|line| label.is_match(line) && LAW_FIRM.is_match(line));
    named(&FROM_LINE) && !named(&TO_LINE)
}

static THEIR_VOICE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:ihr(?:e|en|er|em|es)?\s+mandant\w*|your client\w*|(?:ihr|your) (?:az\b|aktenzeichen|zeichen|ref)|unsere (?:gesamt)?forderung|die kanzlei)",
    )
});

/// Our own letter speaks of "unsere Mandantin"; a creditor of "Ihre Mandantin" and of "unsere Forderung".
fn is_our_letter(lines: &[&str]) -> bool {
    let outermost: Vec<&str> = lines.iter().take(60).copied().collect();
    let length =
        find_mark(outermost.get(1..).unwrap_or_default()).map_or(outermost.len(), |mark| mark.at + 1);
    let text = outermost.get(..length).unwrap_or_default().join(" ");
    OUR_VOICE.find_iter(&text).count() > THEIR_VOICE.find_iter(&text).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "Von: Kanzlei Muster <post@kanzlei.invalid>\nGesendet: Montag, 1. Juni 2026 10:00\nAn: Firma\nBetreff: Anfrage\n\n\
        wir vertreten Herrn A. Unser Az. 1. Bitte teilen Sie uns die Höhe mit. Forderung 900,00 EUR.\n";

    #[test]
    fn history_is_cut_and_answers_between_quotes_stay() {
        let mail = split(&format!("Wir lehnen ab.\n\n{OURS}"));
        assert_eq!(mail.current.trim(), "Wir lehnen ab.");
        assert!(mail.history.contains("900,00"));
        let mail = split(
            "Im Text.\n\nOn Mon, 1 Jun 2026 at 10:00, A. Person\n<a@b.invalid> wrote:\n> How much?\n\n500 EUR\n\n> When?\nToday\n",
        );
        assert!(mail.current.contains("500 EUR") && mail.current.contains("Today"));
        assert!(!mail.current.contains("wrote") && mail.history.contains("How much?"));
        assert!(split(OURS).current.trim().is_empty(), "our own letter is never an answer");
    }

    #[test]
    fn a_forwarded_answer_stays() {
        let inner = "Von: Bauer <b@firma.invalid>\nDatum: 2. Juni 2026\nAn: Zentrale\nBetreff: AW: Anfrage\n\nUnsere Forderung gegen Ihren Mandanten beträgt 750 EUR.\n";
        let with_letter = format!("Zur Kenntnis.\n\n{inner}\n{OURS}");
        let mail = split(&with_letter);
        assert!(mail.current.contains("750 EUR") && !mail.current.contains("900,00"), "{mail:?}");
        let mail = split(&format!("---------- Weitergeleitete Nachricht ---------\n{inner}"));
        assert!(mail.current.contains("750 EUR"), "{mail:?}");
        let quoted: String = inner.lines().map(|line| format!("> {line}\n")).collect();
        assert!(split(&quoted).current.contains("750 EUR"));
        let mail = split(&format!(
            "Wir bleiben bei unserer Ablehnung vom letzten Mal und bitten um Beachtung.\n\n{inner}"
        ));
        assert!(!mail.current.contains("750 EUR"));
        for above in ["Es bleibt dabei, siehe unten, bereits mitgeteilt.", "siehe unten, unverändert"] {
            assert!(!split(&format!("{above}\n\n{inner}")).current.contains("750 EUR"), "{above}");
        }
        let reminder = "Von: Kanzlei Muster <a@b.invalid>\nGesendet: heute\nAn: Bauer\nBetreff: x\n\nWo bleibt die Antwort?\n";
        assert!(!split(&format!("s. u.\n\n{reminder}\n{inner}")).current.contains("750 EUR"));
    }
}
