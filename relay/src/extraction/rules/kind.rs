//! What kind of mail it is: a reply of the creditor's side or not, and what it wants to say.
//!
//! Owns the intent. It reads phrases of the new text and the subject; amounts only as "there is a claim" or "it is zero".

use super::{
    pattern,
    signs::{Mailing, Signs},
};
use crate::extraction::{Intent, Mail};
use regex::Regex;
use std::sync::LazyLock;

static BOUNCE_SENDER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^(?:mailer-daemon|postmaster|mail-?delivery)"));
static BOUNCE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)undeliver|unzustellbar|delivery (?:status notification|has failed|failure|to the following)|failure notice|returned (?:mail|to sender)|could not be delivered|(?:konnte|konnten) nicht (?:zugestellt|übermittelt)|nicht zustellbar|zustellung .{0,40}fehlgeschlagen|recipient address rejected|user unknown|mailbox (?:unavailable|(?:is )?full)|(?:postfach|mailbox)\p{L}* .{0,60}(?:voll|überfüllt|überschritten|erschöpft|exceeded)|(?:over|exceeded) (?:the )?(?:storage )?quota|(?:zustellung|delivery) .{0,40}(?:verzögert|delayed)|noch nicht zugestellt|\b5[05][0-9][ -]#?5\.[0-9]\.[0-9]",
    )
});
static AUTO_SUBJECT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^\W*(?:(?:gelesen|nicht gelesen|zugestellt|übermittelt|lesebestätigung|empfangsbestätigung|read|not read|delivered|read receipt)\s*:|automatische? (?:antwort|reply|response)|auto(?:matic)?[- ]?(?:reply|response|antwort)|out of (?:the )?office|abwesen\p{L}*|abwesenheitsnotiz|eingangsbestätigung)|bei uns eingegangen|(?:we have|we've) received your|abwesenheit(?:s|\b)|ticket .{0,30}(?:erstellt|created|eröffnet)|eingangsbestätigung",
    )
});
static ABSENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bbin\b.{0,80}\b(?:nicht (?:im|in der|am|erreichbar|anwesend)|außer haus|ausser haus|abwesend|in urlaub|im urlaub|in elternzeit|wieder (?:im|für sie|erreichbar|zurück))|\bout of (?:the )?office\b|\bon (?:annual |parental )?leave\b|\bbüro .{0,40}(?:nicht besetzt|geschlossen)\b",
    )
});
static RECEIVED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:nachricht|anfrage|anliegen|e-?mail|schreiben|mitteilung|unterlagen|message|request|enquiry|inquiry|email)\b.{0,80}\b(?:eingegangen|erhalten|erfasst|received|registriert|weitergeleitet|logged|angelegt)\b|\b(?:haben|have)\b.{0,30}\b(?:erhalten|received)\b",
    )
});
static PROMISED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:melden uns|bearbeite\p{L}*|bearbeitung\p{L}*|rückmeldung|antwort\p{L}*|kommen .{0,30}auf sie zu|get back to you|respond|reply|processed)\b.{0,100}\b(?:werktag\p{L}*|tag\p{L}*|stunden|schnellst\p{L}*|baldmöglichst|in kürze|innerhalb|zeitnah|umgehend|möglich|unaufgefordert|reihenfolge|working days|business days|hours|soon|shortly)\b",
    )
});
static MACHINE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)automatisch\p{L}* (?:erzeugt|generiert|erstellt|versandt|versendet|verschickt|antwort|nachricht|e-?mail|eingangs|empfangs)\p{L}*|antworten sie (?:bitte )?nicht auf diese|(?:vorgangs|ticket|bearbeitungs|fall)-?\s?(?:nummer|nr|id)|ticket\b|oberhalb dieser (?:zeile|linie)|above this line|automat(?:ed|ically)|do not reply|no-?reply@",
    )
});
/// So many words of an advertisement, and it is one even if it speaks of debtors.
const CLEARLY: usize = 3;
static BY_ITSELF: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)automatisch\p{L}* (?:erzeugt|generiert|erstellt|versandt|versendet|verschickt)|automatically (?:generated|sent)",
    )
});
static ADVERT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:newsletter|abmelden|abbestellen|unsubscribe|opt-?out|sofortkredit\p{L}*|wunschkredit\p{L}*|ohne schufa|jetzt (?:beantragen|sichern|bestellen|klicken|anfragen|testen|buchen|zugreifen|anmelden|registrieren)|hier klicken|click here|rabatt\p{L}*|gutschein\p{L}*|gratis|kostenlos\p{L}* (?:testen|beratung|webinar|demo|probe)|webinar|\p{L}*-?seminar\p{L}*|frühbucher\p{L}*|teilnahmegebühr\p{L}*|platz sichern|letzte chance|last chance|limited time|nur heute|exklusiv\p{L}*|sonderangebot\p{L}*|gewinn(?:spiel|en sie)\p{L}*|casino|bitcoin|krypto\p{L}*|seo|backlinks?|umschuld\p{L}*|repräsentatives beispiel|angemeldet haben|leads|ihr wettbewerb|% (?:sparen|günstiger|off))\b",
    )
});
static IN_THE_MATTER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:ihr\p{L}* (?:zeichen|az\b|aktenzeichen|akte|gz|schreiben vom|mandant(?:in|en)?\b)|your (?:client|ref)|schuldner(?:in)?\b|unser\p{L}* (?:forderung|kund|mitglied|mieter|versicherungsnehmer))",
    )
});

/// A kind of mail that is no reply of the creditor's side. `states_claim`: it carries a claim of its own.
pub(super) fn not_a_reply(mail: &Mail<'_>, states_claim: bool, has_our_number: bool) -> Option<Intent> {
    let (subject, body) = (mail.subject, mail.text.current.as_str());
    let from = mail.from_email;
    let signs = Signs::of(mail.headers);
    if signs.report.is_some() {
        return signs.report;
    }
    if BOUNCE_SENDER.is_match(from)
        || (BOUNCE.is_match(subject) && (BOUNCE.is_match(body) || body.trim().is_empty()))
        || (signs.has_no_return_path && !states_claim && (BOUNCE.is_match(subject) || BOUNCE.is_match(body)))
    {
        return Some(Intent::Bounce);
    }
    if (AUTO_SUBJECT.is_match(subject) || signs.is_automatic_answer) && !states_claim {
        return Some(Intent::AutoReply);
    }
    // Both at once leave no doubt, whatever figure the note names.
    if ABSENT.is_match(body) && (!states_claim || AUTO_SUBJECT.is_match(subject)) && body.len() < 1500 {
        return Some(Intent::AutoReply);
    }
    // A receipt that repeats what a form was filled in with.
    let is_receipt = RECEIVED.is_match(body) && PROMISED.is_match(body);
    if RECEIVED.is_match(body) && AUTO_SUBJECT.is_match(subject) && BY_ITSELF.is_match(body) {
        return Some(Intent::AutoReply);
    }
    if baits(mail) && !has_our_number {
        return Some(Intent::Spam);
    }
    let by_machine = MACHINE.is_match(body)
        || MACHINE.is_match(subject)
        || MACHINE.is_match(from)
        || AUTO_SUBJECT.is_match(subject)
        || signs.is_by_machine;
    if is_receipt && by_machine && !states_claim {
        return Some(Intent::AutoReply);
    }
    let mut adverts: Vec<String> =
        ADVERT.find_iter(subject).chain(ADVERT.find_iter(body)).map(|m| m.as_str().to_lowercase()).collect();
    adverts.sort_unstable();
    adverts.dedup();
    // What went to many needs fewer words of an advertisement; but not what may be a creditor's letter through a mass mailer.
    let needed = match signs.mailing {
        _ if states_claim || is_unknown(body) => 2,
        Mailing::No => 2,
        Mailing::Perhaps => 1,
        Mailing::List => 0,
    };
    let is_advert = adverts.len() >= CLEARLY || (adverts.len() >= needed && !IN_THE_MATTER.is_match(body));
    (is_advert && !has_our_number).then_some(Intent::Spam)
}

/// Words of mails that are after a login or want something opened.
static BAIT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:zugangsdaten|kontodaten|kreditkartendaten|login|log-?in|passwort|password|tan-?nummer|verifizier\p{L}*|verify|account (?:will be|has been) (?:suspended|locked)|konto\p{L}* (?:wird |wurde |ist )?(?:gesperrt|eingeschränkt)|sperrung ihre\p{L}*|best(?:ä|a)tigen sie (?:\p{L}+ ){0,4}(?:daten|konto|identität|zugang)\p{L}*|innerhalb (?:von )?[0-9]+ stunden|[\w-]+\.(?:zip|exe|html?|iso|img|docm|xlsm))\b|https?://",
    )
});

/// Whether a mail is after its reader's secrets: several such words, and it greets a customer whom it cannot name.
fn baits(mail: &Mail<'_>) -> bool {
    let found = |text: &str| {
        BAIT.find_iter(text).take(50).map(|word| word.as_str().to_lowercase()).collect::<Vec<_>>()
    };
    let mut words: Vec<String> =
        [mail.subject, mail.text.current.as_str()].into_iter().flat_map(found).collect();
    words.sort_unstable();
    words.dedup();
    words.len() >= 3 && !IN_THE_MATTER.is_match(mail.text.current.as_str())
}

static UNKNOWN: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bnicht (?:\p{L}+ ){0,3}als (?:\p{L}+ )?(?:kunde|kundin|mieter|mitglied|patient|schuldner|versicherte)\p{L}*|\b(?:nicht|keinem?r?)\b[^.]{0,60}\b(?:zuordnen|zugeordnet|zuzuordnen)\b|\b(?:namen?|person|mandant\p{L}*|kunde[n]?|kundin|herrn?|frau|angaben|daten|debitor)\b[^.]{0,120}\b(?:(?:nicht|nirgends)\s+(?:\p{L}+ )?(?:ermitteln|ermittelt|auffinden|finden|gefunden|identifizieren|identifiziert|bekannt|geführt|verzeichnet|registriert|gespeichert)|unbekannt)\b|\bweder (?:\p{L}+ ){0,3}(?:kund|mieter|mitglied|patient|schuldner|versichert|vertrag|konto)\p{L}*|\bkein\p{L}* (?:\p{L}+ ){0,2}(?:treffer|zuordnung|kunde|kunden|kundin|vertragsverhältnis\p{L}*|vertragsbeziehung\p{L}*|geschäftsbeziehung\p{L}*|kundenbeziehung\p{L}*|datensatz|kundenkonto)\b|\b(?:no record|no customer|(?:unable to|cannot|can not|could not|couldn't) (?:identify|locate|find|match|trace))\b",
    )
});
static SETTLED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:keine(?:rlei)? (?:\p{L}+ ){0,3}(?:forderung|forderungen|ansprüche|verbindlichkeiten?|außenstände|rückstände|zahlungsansprüche|offenen? (?:posten|beträge|rechnung|rechnungen|forderungen))(?: mehr)?|nichts (?:mehr )?(?:offen|zu zahlen)|(?:forderung|konto|saldo|rechnung|betrag|angelegenheit|schuld|vorgang|darlehen|rückstand|kunde|kundin|akte|vertrag)\p{L}*\b[^.;]{0,80}\b(?:ausgeglichen|beglichen|erledigt|abgeschlossen|bezahlt|getilgt|abgelöst|zurückgeführt|erloschen)|vollständig (?:ausgeglichen|beglichen|bezahlt|getilgt|gezahlt|zurückgeführt)|(?:ansprüche|forderungen|forderung)\b[^.]{0,60}\b(?:nicht|keine) mehr|(?:gebühr|forderung|rückst[aä]nd|betr[aä]g)\p{L}*\b[^.]{0,80}\berlassen|schuldet uns nichts|schuldenfrei|(?:paid|settled) in full|fully (?:paid|settled)|no (?:\p{L}+ )?(?:outstanding|open|claims?|balance|debt)\p{L}*)\b",
    )
});
/// A sentence that only speaks of when it would be settled, or that it is not.
static NOT_SETTLED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:nach (?:eingang|vollständiger|zahlung)|sobald|bis (?:unsere?|die|der|das|zur|alles)|danach|dann|betrachten wir|mit (?:dem |der |ihrer |seiner )?(?:eingang|zahlung|erhalt)|wenn|falls|sofern|sollte|würde\p{L}*|wäre\p{L}*|bei (?:eingang|zahlung)|gegen zahlung|nicht (?:\p{L}+ )?(?:ausgeglichen|beglichen|bezahlt|erledigt|getilgt)|unbezahlt|noch|teilweise|davon|hiervon|hierauf|darauf|restlich\p{L}*)\b",
    )
});
static REJECTS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\blehne[n]?\b[^.]*\bab\b|\bmach(?:e|en)\b[^.]{0,40}\bnicht mit\b|\b(?:plan|zustimmung|vergleich|einigung|vorschlag|angebot|das)\p{L}*\b[^.]{0,60}\bkommt\b[^.]{0,40}\bnicht (?:in betracht|in frage|infrage)\b|\b(?:nähertreten|näher treten)\b|\b(?:deutlich |viel )?zu (?:gering|niedrig|wenig)\b|\bnimmt\b[^.]*\bnicht an\b|\bnicht (?:\p{L}+ ){0,2}bereit\b|\btreten\b[^.]*\bnicht bei\b|\b(?:abgelehnt|ablehnung|ablehnen|abzulehnen|zurückgewiesen|weisen\b[^.]*\bzurück)\b|\b(?:nicht|keine\p{L}*)\b[^.]{0,80}\b(?:zustimm\p{L}*|zugestimmt|annehmen|anzunehmen|akzeptier\p{L}*|einverstanden|einlassen|in betracht|beitreten|zustimmung)\b|\bstimmen\b[^.]*\bnicht\b[^.]{0,40}\bzu\b|\bnicht\b[^.]{0,20}\beinverstanden\b|\bzustimmung\b[^.]{0,60}\b(?:verweiger\p{L}*|versag\p{L}*|nicht)\b|\b(?:reject|refuse|decline|(?:can ?not|cannot|unable to|we (?:do|will|would|can) not) (?:accept|agree|consent))\p{L}*\b|\bnicht möglich\b|\b(?:nicht|keinesfalls) näher\b",
    )
});
static WOULD_TAKE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:vorstellbar|wären (?:\p{L}+ ){0,5}(?:bereit|einverstanden|zufrieden)|(?:ist|bin|sind) (?:\p{L}+ ){0,5}bereit|könnten (?:wir )?(?:uns )?(?:\p{L}+ ){0,8}(?:vorstellen|zustimmen|akzeptieren|einlassen)|würden (?:wir )?(?:\p{L}+ ){0,10}(?:zufriedengeben|zufrieden geben|akzeptieren|zustimmen|annehmen|verzichten|erlassen|genügen|begnügen|ausbuchen|fallen ?lassen)|erwarten (?:wir )?(?:\p{L}+ ){0,2}mindestens|lassen wir (?:\p{L}+ ){0,3}(?:fallen|ruhen)|gegenvorschlag|gegenangebot|unser (?:vergleichs)?(?:angebot|vorschlag)|schlagen (?:\p{L}+ ){0,6}vor|gewähren|bieten|prepared to|willing to|(?:machen|haben) wir (?:\p{L}+ ){0,3}vorschlag|gehen\b.{0,60}\bein, (?:betrachten|sehen)|would (?:\p{L}+ ){0,2}(?:accept|settle|agree|take)|counter-?(?:offer|proposal))\b",
    )
});
static LESSER: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:einmal(?:ige[nrms]?)?[ -]?(?:zahlung|betrag)\p{L}*|gegen (?:\p{L}+ ){0,3}zahlung|quote|[0-9][0-9.,]*\s?(?:%|prozent)|vergleich\p{L}*|abfindung\p{L}*|abgeltung|erledigung|erledigt|single payment|verzicht\p{L}*|erlass\p{L}*|nachlass|auf einmal|den rest|restbetrag|lump sum|settlement|one-off)",
    )
});
static MONEY_OR_SHARE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)[0-9]\s?(?:%|prozent|eur|€)|(?:eur|€)\s?[0-9]"));
static COUNTER_SUBJECT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b(?:gegenvorschlag|gegenangebot|counter-?(?:offer|proposal))"));
static AGREES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bstimmen\b[^.]*\bzu\b|\b(?:zugestimmt|einverstanden|akzeptieren|akzeptiert|nehmen\b[^.]*\ban\b|(?:erteilen|erklären|geben)\b[^.]{0,60}\b(?:zustimmung|einverständnis)|findet (?:\p{L}+ )?(?:zu\s?stimmung)|zustimmung (?:wird|erteilt)|we (?:hereby )?(?:accept|agree|consent)|angenommen|schließen uns\b[^.]*\ban|treten\b[^.]*\bbei)\b",
    )
});
static INSTALMENTS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:tilgungsraten?|ratenvereinbarung|abzahlen|raten\s+(?:zu|von|à|in höhe)|monatsraten?|ratenzahlung(?:en|svereinbarung|sangebot|svorschlag|splan)?|ratenplan|teilzahlung(?:en|svereinbarung)|monatlich\p{L}*\s+(?:eur|€)?\s?[0-9]+|[0-9]+\s?(?:eur|euro|€)\s+(?:monatlich|im monat|pro monat)|(?:in )?monatlich\p{L}* (?:raten|zahlung\p{L}*|teilbetr\p{L}*|rate)|rate(?:n)? (?:von|in höhe)|instal?lments?)\b",
    )
});
static ARRANGES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:bieten|angebot|anbieten|vorschlag\p{L}*|schlagen|einverstanden|zustimm\p{L}*|stimmen|akzeptier\p{L}*|ermäßig\p{L}*|ermaessig\p{L}*|bestätig\p{L}*|vereinbar\p{L}*|einräumen|gewähren|möglich|kann|agree|accept|offer|propose|confirm)\p{L}*\b",
    )
});
static ASKS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bbitte\b[^.]{0,40}\b(?:nennen|teilen|übersenden|senden|schicken|reichen|übermitteln|legen|geben|prüfen|klären)\b[^.]*\b(?:uns|geburtsdatum|vollmacht|anschrift|kundennummer|angaben|mit|vor|nach|zu)\b|\b(?:benötigen|bitten) wir\b|\bwir (?:benötigen|bitten um)\b|\?|\b(?:rückfrage|please (?:provide|send|let us know))\b",
    )
});
static ATTACHED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:anlage|anbei|beigefügt\p{L}*|angehängt\p{L}*|anhang|beiliegend\p{L}*|attached|enclosed|abrufbar|abrufen|rufen sie\b.{0,60}\bab|steht\b.{0,60}\bbereit)\b",
    )
});
static CLAIM_WORD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)forderung\p{L}*|\b(?:schuldet|saldo|rückst[aä]nd\p{L}*|offene?n?|ausst[aä]nd\p{L}*|aufstellung|kontoauszug|claim|outstanding|debt|invoice|owes?|schuldig|steht\b.{0,40}\baus|zu (?:be)?zahlen)\b",
    )
});

/// Whether the mail says that the creditor does not know the client.
pub(super) fn is_unknown(text: &str) -> bool {
    UNKNOWN.is_match(text)
}

/// Whether a sentence says that nothing is owed any more.
pub(super) fn is_settled(sentence: &str) -> bool {
    SETTLED.is_match(sentence) && !NOT_SETTLED.is_match(sentence)
}

static DENIES: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\bkeine(?:rlei)? (?:(?:offenen?|fälligen?|bestehenden?|aktuellen?|eigenen) )?(?:forderung(?:en)?|ansprüche|verbindlichkeit(?:en)?|außenstände|rückstände)\b",
    )
});

/// Whether the mail denies any claim against the client, so that whatever it names is something else.
pub(super) fn denies_claim(text: &str) -> bool {
    sentences(text).any(|sentence| DENIES.is_match(sentence) && !NOT_SETTLED.is_match(sentence))
}

/// Whether the mail says that nothing is owed any more.
pub(super) fn says_settled(text: &str) -> bool {
    sentences(text).any(is_settled)
}

/// Pieces between full stops; good enough for phrases, and a paragraph's end counts too.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").flat_map(|paragraph| paragraph.split(". ")).flat_map(|part| part.split(".\n"))
}

/// The point in a number or date is no full stop.
static NUMBER_POINT: LazyLock<Regex> = LazyLock::new(|| pattern(r"([0-9])[.]([0-9])"));

/// A former creditor that sends us to somebody else.
static SENDS_ON: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)\b(?:verkauft|abgetreten|veräußert|zediert)\b.{0,300}\bwenden sie sich\b")
});

/// What a reply of the creditor's side says. `names_claims` tells whether it names claims or parts of
/// one at all, `has_claim` and `is_zero` what the claim is.
pub(super) fn intent(
    subject: &str,
    text: &str,
    has_claim: bool,
    is_zero: bool,
    names_claims: bool,
) -> Intent {
    let flat = NUMBER_POINT.replace_all(text, "$1$2").replace("\n\n", ".. ").replace('\n', " ");
    let text = flat.as_str();
    if (is_unknown(text) || SENDS_ON.is_match(text)) && !has_claim {
        return Intent::Question;
    }
    if is_zero || (says_settled(text) && !has_claim) {
        return Intent::Settled;
    }
    let offers = sentences(text).any(|sentence| {
        WOULD_TAKE.is_match(sentence) && LESSER.is_match(sentence) && MONEY_OR_SHARE.is_match(sentence)
    });
    let rejects = sentences(text).any(|sentence| REJECTS.is_match(sentence));
    let instalments = plans_instalments(subject, text);
    let agrees = sentences(text).any(|sentence| AGREES.is_match(sentence) && !REJECTS.is_match(sentence));
    if (offers && (rejects || !agrees)) || COUNTER_SUBJECT.is_match(subject) {
        return if offers || MONEY_OR_SHARE.is_match(text) {
            Intent::CounterOffer
        } else {
            Intent::Rejection
        };
    }
    let agrees_to_a_plan = sentences(text).any(|sentence| {
        AGREES.is_match(sentence)
            && A_PLAN.is_match(sentence)
            && !REJECTS.is_match(sentence)
            && !INSTALMENTS.is_match(sentence)
    });
    if instalments && !agrees_to_a_plan && (!rejects || ARRANGES.is_match(subject)) {
        return Intent::PaymentPlan;
    }
    if rejects {
        return Intent::Rejection;
    }
    if agrees {
        return Intent::Acceptance;
    }
    let asks = ASKS.is_match(text);
    let states =
        has_claim || names_claims || (CLAIM_WORD.is_match(text) && (ATTACHED.is_match(text) || !asks));
    if states { Intent::DebtStatement } else { Intent::Question }
}

static A_PLAN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b\p{L}*(?:plan|vergleich|vorschlag|angebot)\p{L}*\b"));

/// Instalments are arranged in one sentence or under one heading, not just mentioned in a ledger or in the terms.
fn plans_instalments(subject: &str, text: &str) -> bool {
    let mut previous = subject;
    sentences(text).any(|sentence| {
        let heading = std::mem::replace(&mut previous, sentence);
        INSTALMENTS.is_match(sentence)
            && !REJECTS.is_match(sentence)
            && !NO_INSTALMENTS.is_match(sentence)
            && (ARRANGES.is_match(sentence) || ARRANGES.is_match(heading))
    })
}

static NO_INSTALMENTS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)\b(?:unter\s+[0-9]|nehmen wir .{0,40}nicht|bisherig\p{L}*|gekündigt\p{L}*|war(?:en)? (?:in|mit)|nicht eingehalten|rückständig\p{L}*)",
    )
});
