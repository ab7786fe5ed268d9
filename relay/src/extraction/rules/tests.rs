//! Mails of other wordings than the samples: each is a kind of trap, with what a careful clerk would make of it.

mod amounts;

use super::extract;
use crate::extraction::{ExtractedEntities, Headers, Intent, Mail};
use crate::mail_text;
use serde_json::{Value, json};

fn read(subject: &str, body: &str) -> ExtractedEntities {
    read_with(&Value::Null, subject, body)
}

fn read_with(headers: &Value, subject: &str, body: &str) -> ExtractedEntities {
    let text = mail_text::read(Some(body), None);
    extract(&Mail {
        subject,
        from_email: "post@firma.invalid",
        from_name: Some("Beispiel Handel GmbH"),
        text: &text,
        headers: Headers::new(Some(headers)),
    })
}

#[test]
fn who_and_whose_number() {
    let found = read(
        "Ihr Zeichen 543018 / unser Zeichen 4711-AB-26",
        "namens und in Vollmacht unserer Mandantin, der Muster Versand GmbH, teilen wir mit, dass gegen Ihren Mandanten\nGero von der Falke eine Forderung in Höhe von insgesamt 640,12 EUR besteht.\n\nMit freundlichen Grüßen\nMahn Inkasso GmbH\n",
    );
    assert_eq!(found.client_name.as_deref(), Some("von der Falke, Gero"));
    assert_eq!(found.client_aktenzeichen.as_deref(), Some("543018"));
    assert_eq!(found.creditor_name.as_deref(), Some("Muster Versand GmbH"));
    assert_eq!(found.reference_numbers, ["4711-AB-26"]);
    assert_eq!(found.debt_amount.map(|amount| amount.to_string()).as_deref(), Some("640.12"));
    assert!(found.confidence >= 0.85 && found.summary.is_some_and(|summary| summary.contains("640,12")));
    let several = read(
        "Eheleute Anna und Ralf Busch",
        "Forderung gegen Frau Anna Busch: 300,00 EUR, gegen Herrn Ralf Busch: 450,00 EUR",
    );
    assert_eq!((several.client_name, several.debt_amount), (None, None));
}

#[test]
fn what_is_no_reply_carries_nothing() {
    for (subject, body, intent) in [
        (
            "Automatic reply: 543015",
            "Thank you. I am out of the office until 12 May 2026.",
            Intent::AutoReply,
        ),
        (
            "Unzustellbar: 543015",
            "Die Nachricht konnte nicht zugestellt werden. Gesamtforderung 500,00 EUR",
            Intent::Bounce,
        ),
        ("Mehr Kunden", "Unser SEO Paket ab 199 EUR im Monat. Jetzt anfragen! Abmelden", Intent::Spam),
    ] {
        let found = read(subject, body);
        assert_eq!((found.is_creditor_reply, found.intent), (false, intent), "{subject}");
        assert!(
            found.debt_amount.is_none() && found.client_aktenzeichen.is_none() && found.client_name.is_none()
        );
    }
    let answer = read(
        "Ihr Zeichen 543016",
        "Ihre Anfrage haben wir erhalten. Der offene Betrag beläuft sich auf 88,15 EUR. Diese E-Mail wurde automatisch erzeugt.",
    );
    assert!(answer.is_creditor_reply && answer.debt_amount.is_some());
}

#[test]
fn receipts_and_bait_are_no_replies_whatever_figure_they_name() {
    for (subject, body, intent) in [
        (
            "Gelesen: Forderungsanfrage Ines Rohrbach, unser Az. 543000",
            "Ihre Nachricht wurde am Freitag, 20. März 2026 10:04:47 gelesen.",
            Intent::AutoReply,
        ),
        (
            "[Ticket 884-2231] Re: Forderungsanfrage Ines Rohrbach, Az. 543000",
            "##- Bitte schreiben Sie Ihre Antwort oberhalb dieser Zeile -##\n\nIhre Anfrage ist eingegangen. Die Bearbeitung dauert etwa 7 Werktage. Mahngebühren (5,00 EUR) sehen Sie im Portal.",
            Intent::AutoReply,
        ),
        (
            "Abwesend: Forderungsanfrage 543000",
            "ich bin bis 27.03.2026 im Urlaub. Bei einer Forderung von 5.000,00 EUR hilft die Rechtsabteilung.",
            Intent::AutoReply,
        ),
        ("Unzustellbar: Forderungsanfrage 543000", "Das Postfach des Empfängers ist voll.", Intent::Bounce),
        (
            "LETZTE MAHNUNG: Offene Forderung 389,20 EUR",
            "Sehr geehrter Kunde,\n\ndie offene Gesamtforderung beträgt 389,20 EUR. Ihr Konto wird gesperrt, wenn Sie nicht innerhalb 24 Stunden Ihre Zugangsdaten bestätigen: http://login.firma.invalid/",
            Intent::Spam,
        ),
    ] {
        let found = read(subject, body);
        assert_eq!((found.intent, found.debt_amount), (intent, None), "{subject}");
        assert!(!found.is_creditor_reply && found.client_name.is_none(), "{subject}");
    }
}

#[test]
fn names_and_numbers_of_many_writings() {
    for (subject, body, name, number) in [
        (
            "Vollmacht / Ihr Az. 543000",
            "vielen Dank für Ihre Anfrage zu Ines Rohrbach.",
            "Rohrbach, Ines",
            "543000",
        ),
        ("Kd.-Nr. 55", "Ihre Akte 1506_25, Mandantin Ines Rohrbach", "Rohrbach, Ines", "1506_25"),
        (
            "re: anfrage",
            "der herr jens rohrbach schuldet uns geld, ihr zeichen war glaub ich 543000",
            "Rohrbach, Jens",
            "543000",
        ),
        (
            "Forderung",
            "Zu Ihrem GZ 543000: Das Konto des Herrn DI (FH) Jens Rohrbach ist offen.",
            "Rohrbach, Jens",
            "543000",
        ),
        ("Forderungen gegen ZUR LINDE, JENS", "Ihr Zeichen: 543000 zac", "zur Linde, Jens", "543000"),
        (
            "Re: Anfrage",
            "für Ihren Mandanten Jens dal Monte (Ihre Anfrage vom 11.02.2026, Az. 1502_25) melden wir uns.",
            "dal Monte, Jens",
            "1502_25",
        ),
    ] {
        let found = read(subject, body);
        assert_eq!(found.client_name.as_deref(), Some(name), "{body}");
        assert_eq!(found.client_aktenzeichen.as_deref(), Some(number), "{body}");
    }
    let found = read(
        "Kundennummer PW 40077 / 2025-00352",
        "Konto 33 118 04, BG-Nummer: 41702//0018, Vertrag L-330 118/22\n\nKassenzeichen      Betrag\n5.1180.004417.1      418,60 EUR\n5.1180.004418.9      635,00 EUR\n",
    );
    assert_eq!(found.client_aktenzeichen.as_deref(), Some("2025-00352"));
    let numbers =
        ["PW 40077", "33 118 04", "41702//0018", "L-330 118/22", "5.1180.004417.1", "5.1180.004418.9"];
    assert_eq!(found.reference_numbers, numbers);
}

/// Whoever sends a mail decides what is in it. Before there were bounds, these took minutes.
#[test]
fn hostile_texts_end() {
    for piece in ["ü 1 ", "Herr Aa Bb ", "\"ä"] {
        let text = piece.repeat(400_000 / piece.len());
        read(&text, &text);
        read("kurz", &text.replace(' ', "\n"));
    }
}

#[test]
fn a_mail_as_long_as_a_book_is_left_to_a_person() {
    let claim = "die Gesamtforderung gegen Ihren Mandanten Ines Rohrbach beträgt 1.780,00 EUR.\n\n";
    let found = read("Ihr Zeichen 543000", &format!("{claim}{}", "Nichts weiter. ".repeat(30_000)));
    assert_eq!((found.debt_amount, found.client_name.as_deref()), (None, Some("Rohrbach, Ines")));
}

#[test]
fn intents() {
    for (body, intent) in [
        ("Ihrem Plan stimmen wir zu.", Intent::Acceptance),
        ("Ihren Plan lehnen wir ab.", Intent::Rejection),
        (
            "Gegen eine Einmalzahlung von 400,00 EUR wären wir bereit, auf den Rest zu verzichten.",
            Intent::CounterOffer,
        ),
        ("Mit monatlichen Raten von 50,00 EUR sind wir einverstanden.", Intent::PaymentPlan),
        ("Es bestehen keine Forderungen mehr.", Intent::Settled),
        ("Bitte übersenden Sie uns eine Vollmacht.", Intent::Question),
        ("", Intent::Question),
    ] {
        assert_eq!(read("Ines Rohrbach", body).intent, intent, "{body}");
    }
}

const CLAIM: &str = "Guten Tag,\n\ndie Gesamtforderung gegen Ihren Mandanten Ines Rohrbach beträgt 1.780,00 EUR.\n\nMit freundlichen Grüßen\nBeispiel Handel GmbH\n";
const REFUSAL: &str = "Guten Tag,\n\ndem Plan für Frau Ines Rohrbach können wir nicht zustimmen.\n\nMit freundlichen Grüßen\nBeispiel Handel GmbH\n";
const SUBJECT: &str = "AW: Ihr Zeichen 543000, Ines Rohrbach";

#[test]
fn no_header_but_a_mail_systems_report_costs_a_stated_claim() {
    for headers in [
        json!({ "Auto-Submitted": "auto-generated" }),
        json!({ "Auto-Submitted": "auto-replied" }),
        json!({ "X-Autoreply": "yes", "Precedence": "auto_reply" }),
        json!({ "Precedence": "bulk", "List-Unsubscribe": "<https://x.invalid/>", "List-Id": "<x.invalid>" }),
        json!({ "Return-Path": "<>", "X-Auto-Response-Suppress": "All" }),
    ] {
        let found = read_with(&headers, SUBJECT, CLAIM);
        assert_eq!(
            found.debt_amount.map(|amount| amount.to_string()).as_deref(),
            Some("1780.00"),
            "{headers}"
        );
        // Nor does what only hints at a machine cost a letter without an amount.
        if !headers.to_string().contains("repl") {
            assert_eq!(read_with(&headers, SUBJECT, REFUSAL).intent, Intent::Rejection, "{headers}");
        }
    }
    for headers in [
        json!({ "Content-Type": "multipart/report; report-type=delivery-status; boundary=x" }),
        json!({ "X-Failed-Recipients": "post@firma.invalid" }),
    ] {
        let found = read_with(&headers, SUBJECT, CLAIM);
        assert_eq!((found.is_creditor_reply, found.intent), (false, Intent::Bounce), "{headers}");
    }
}

#[test]
fn headers_tell_an_automatic_answer_whose_words_do_not() {
    let body =
        "Guten Tag,\n\nwir sind ab dem 3. März wieder für Sie da. In dringenden Fällen hilft Frau Becker.\n";
    assert!(read(SUBJECT, body).is_creditor_reply);
    for headers in [
        json!({ "Auto-Submitted": "auto-replied (vacation)" }),
        json!({ "X-Autorespond": SUBJECT }),
        json!({ "Precedence": "auto_reply" }),
    ] {
        let found = read_with(&headers, SUBJECT, body);
        assert_eq!((found.is_creditor_reply, found.intent), (false, Intent::AutoReply), "{headers}");
    }
}

#[test]
fn what_hints_at_a_machine_makes_a_receipt_of_words_that_sound_like_one() {
    let body = "Guten Tag,\n\nIhre Anfrage ist eingegangen. Wir melden uns innerhalb von fünf Werktagen.\n";
    assert!(read(SUBJECT, body).is_creditor_reply);
    for headers in
        [json!({ "Auto-Submitted": "auto-generated" }), json!({ "X-Auto-Response-Suppress": "DR, OOF" })]
    {
        assert_eq!(read_with(&headers, SUBJECT, body).intent, Intent::AutoReply, "{headers}");
    }
    let body = "Guten Tag,\n\nIhre Nachricht konnte nicht zugestellt werden.\n";
    assert!(read("Ihre Nachricht", body).is_creditor_reply);
    assert_eq!(read_with(&json!({ "Return-Path": "<>" }), "Ihre Nachricht", body).intent, Intent::Bounce);
}

#[test]
fn a_newsletter_is_told_by_its_list_and_a_creditors_letter_through_a_mass_mailer_is_not_lost() {
    let news = "Guten Tag,\n\nin dieser Ausgabe lesen Sie, was sich im März für unsere Leser ändert.\n";
    let list = json!({ "List-Id": "<news.firma.invalid>", "List-Unsubscribe": "<https://firma.invalid/>" });
    assert!(read("Neues im März", news).is_creditor_reply);
    assert_eq!(read_with(&list, "Neues im März", news).intent, Intent::Spam);
    let mass_mailer = json!({ "List-Unsubscribe": "<https://firma.invalid/>" });
    let advert = "Guten Tag,\n\nbesuchen Sie unser Webinar am 3. März.\n";
    assert_eq!(read_with(&mass_mailer, "Einladung", advert).intent, Intent::Spam);
    let unknown = "Guten Tag,\n\nwir können Ihre Anfrage leider keinem Kunden zuordnen. Bitte nennen Sie uns das Geburtsdatum.\n";
    for headers in [&list, &mass_mailer] {
        assert_eq!(read_with(headers, "Ihre Anfrage", unknown).intent, Intent::Question);
        assert_eq!(read_with(headers, SUBJECT, REFUSAL).intent, Intent::Rejection);
    }
}
