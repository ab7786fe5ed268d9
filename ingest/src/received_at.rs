//! When a mail was received, read from whatever a sender writes. Pure.
//!
//! What cannot be read, lies before 2015 or in the future is replaced by the time of arrival, with a note: the time orders
//! the updates of a debt, so a wrong one must not put a mail before or behind all others.

use jiff::{Timestamp, civil::DateTime, fmt::rfc2822, fmt::strtime, tz::TimeZone};
use serde_json::Value;

/// 2015-01-01T00:00:00Z: before the service existed.
const EARLIEST_SECOND: i64 = 1_420_070_400;
/// Longer texts are no times.
const MAX_BYTES: usize = 100;

/// A time and, where it is not the sender's, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceivedAt {
    /// The time, in whole microseconds as Postgres keeps them.
    pub time: Timestamp,
    /// Why it is the time of arrival; None when it is what the sender wrote, or the sender wrote nothing.
    pub note: Option<&'static str>,
}

/// Reads the time from a string or a number (unix seconds); nothing given = the time of arrival.
#[must_use]
pub fn received_at(value: Option<&Value>, arrival: Timestamp) -> ReceivedAt {
    let arrived = |note| ReceivedAt { time: in_microseconds(arrival), note };
    let text = match value {
        None | Some(Value::Null) => return arrived(None),
        Some(Value::String(text)) if text.trim().is_empty() => return arrived(None),
        Some(Value::String(text)) => text.as_str(),
        Some(Value::Number(number)) => number.as_str(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => "",
    };
    let Some(time) = read(text) else { return arrived(Some("the sender's time cannot be read")) };
    if time.as_second() < EARLIEST_SECOND {
        arrived(Some("the sender's time is before 2015"))
    } else if time > arrival {
        arrived(Some("the sender's time is in the future"))
    } else {
        ReceivedAt { time: in_microseconds(time), note: None }
    }
}

fn in_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// A time without zone is Berlin time.
fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > MAX_BYTES {
        return None;
    }
    if let Some(time) = unix_time(text) {
        return Some(time);
    }
    let text = in_plain_words(text);
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    let (local, offset) = split_zone(&text);
    if let Some(local) = local.parse::<DateTime>().ok().or_else(|| local_time(local)) {
        return match offset {
            "" => TimeZone::get("Europe/Berlin").ok()?.to_timestamp(local).ok(),
            offset => format!("{local}{offset}").parse().ok(),
        };
    }
    // Last, because it takes a zone that it does not know, such as CET, for UTC. A wrong weekday is no reason to lose the time.
    rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(&text).ok()
}

/// Seconds, or by their length milli- or microseconds, since 1970.
fn unix_time(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    let time = match whole.len() {
        9..=11 => {
            let nanoseconds: String = fraction.chars().chain("000000000".chars()).take(9).collect();
            Timestamp::new(number, nanoseconds.parse().ok()?)
        }
        12..=14 => Timestamp::from_millisecond(number),
        15..=17 => Timestamp::from_microsecond(number),
        _ => return None,
    };
    time.ok()
}

/// Brings what people and programs write to what the parsers know: `17. März 2026 um 09:14 Uhr`, `2026/02/17 09:14:22`,
/// `17 Feb 2026 09:14:22 +0100 (CET)`.
fn in_plain_words(text: &str) -> String {
    let text = text.to_lowercase();
    let text = match text.split_once('(') {
        Some((time, comment)) if comment.ends_with(')') => time,
        _ => &text,
    };
    let words = text.split_whitespace().filter(|word| !matches!(*word, "um" | "uhr"));
    let text = words.map(month_abbreviated).collect::<Vec<_>>().join(" ");
    let starts_with_a_year = text.get(..4).is_some_and(|year| year.bytes().all(|byte| byte.is_ascii_digit()));
    if starts_with_a_year { text.replace('/', "-") } else { text }
}

/// The time and its zone as an offset in the form of ISO 8601; an empty one where none is given.
fn split_zone(text: &str) -> (&str, &str) {
    let (time, word) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let (time, offset) = match word {
        "utc" | "gmt" | "z" => (time, "Z"),
        "cet" | "mez" => (time, "+01"),
        "cest" | "mesz" => (time, "+02"),
        "" => match text.rfind(['+', '-']) {
            // The hyphens of a date stand before the time of day.
            Some(sign) if text.find(':').is_some_and(|colon| colon < sign) => text.split_at(sign),
            _ => (text, ""),
        },
        _ => (text, ""),
    };
    (time.trim_end().trim_end_matches(" gmt"), offset)
}

/// A month's German or English name becomes its English abbreviation; other words stay.
fn month_abbreviated(word: &str) -> &str {
    const MONTHS: [(&str, &str); 16] = [
        ("jan", "jan"),
        ("feb", "feb"),
        ("mär", "mar"),
        ("mrz", "mar"),
        ("mar", "mar"),
        ("apr", "apr"),
        ("mai", "may"),
        ("may", "may"),
        ("jun", "jun"),
        ("jul", "jul"),
        ("aug", "aug"),
        ("sep", "sep"),
        ("okt", "oct"),
        ("oct", "oct"),
        ("nov", "nov"),
        ("de", "dec"),
    ];
    let is_word = word.trim_end_matches('.').chars().all(char::is_alphabetic);
    MONTHS.iter().find(|(front, _)| is_word && word.starts_with(front)).map_or(word, |(_, english)| english)
}

/// Forms without a zone that are neither ISO 8601 nor RFC 2822. A slash between day and month is not read: nobody can tell
/// which is which.
fn local_time(text: &str) -> Option<DateTime> {
    const DATES: [&str; 8] = [
        "%d.%m.%y",
        "%d.%m.%Y",
        "%d. %b %Y",
        "%d %b %Y",
        "%b %d, %Y",
        "%a %b %d %Y", // JavaScript's Date.toString()
        "%Y-%m-%d",    // an hour of one digit is not ISO 8601
        "%d-%m-%Y",
    ];
    const TIMES: [&str; 7] =
        ["", " %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M"];
    // The weekday, if any, says nothing that the date does not say.
    let text = match text.split_once(' ') {
        Some((weekday, date))
            if weekday.ends_with([',', '.']) && weekday.starts_with(char::is_alphabetic) =>
        {
            date
        }
        _ => text,
    };
    if let Ok(time) = strtime::parse("%a %b %d %H:%M:%S %Y", text).and_then(|parts| parts.to_datetime()) {
        return Some(time);
    }
    DATES.iter().flat_map(|date| TIMES.iter().map(move |time| format!("{date}{time}"))).find_map(|format| {
        let parts = strtime::parse(&format, text).ok()?;
        let date = parts.to_date().ok()?;
        Some(date.to_datetime(parts.to_time().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ARRIVAL: &str = "2026-06-01T12:00:00Z";

    fn reading(text: &str) -> (String, Option<&'static str>) {
        let read = received_at(Some(&Value::String(text.into())), ARRIVAL.parse().unwrap());
        (read.time.to_string(), read.note)
    }

    #[test]
    fn every_common_form_is_read_and_a_time_without_zone_is_berlin_time() {
        for text in [
            "2026-02-17T09:14:22+01:00",
            "2026-02-17T08:14:22Z",
            "2026-02-17T08:14:22.000Z",
            "2026-02-17t08:14:22z",
            "2026-02-17 08:14:22Z",
            "2026-02-17 08:14:22 UTC",
            "2026-02-17 09:14:22 +0100",
            "2026-02-17 09:14:22+01",
            "2026-02-17 09:14:22 CET",
            "2026-02-17T09:14:22",
            "2026-02-17 09:14:22",
            " 2026-02-17  09:14:22 ",
            "2026/02/17 09:14:22",
            "20260217T091422",
            "20260217T081422Z",
            "Tue, 17 Feb 2026 09:14:22 +0100",
            "Tue, 17 Feb 2026 08:14:22 GMT",
            "Tue, 17 Feb 2026 08:14:22 UTC",
            "Tue, 17 Feb 2026 09:14:22 +0100 (CET)",
            "Mon, 17 Feb 2026 09:14:22 +0100",
            "17 Feb 2026 08:14:22 +0000",
            "17.02.2026 09:14:22",
            "17.02.2026, 09:14:22 Uhr",
            "17.2.2026 09:14:22",
            "17.02.26 09:14:22",
            "Dienstag, 17. Februar 2026 09:14:22",
            "17. Feb 2026, 09:14:22",
            "Feb 17, 2026 9:14:22 AM",
            "17. Feb. 2026, 09:14:22 Uhr",
            "February 17, 2026 09:14:22",
            "Tue Feb 17 09:14:22 2026",
            "17.02.2026 09:14:22 +0100",
            "17.02.2026 09:14:22+01:00",
            "17.02.2026 09:14:22 MEZ",
            "17. Februar 2026, um 09:14:22 Uhr (MEZ)",
            "17 Feb 2026 09:14:22 CET",
            "17 Feb 2026 03:14:22 EST",
            "2026/02/17 09:14:22+01:00",
            "2026/02/17 091422+0100",
            "2026-02-17 9:14:22",
            "2026-02-17 9:14:22 +0100",
            "Tue Feb 17 2026 09:14:22 GMT+0100 (Central European Standard Time)",
            "Mon Feb 16 2026 22:14:22 GMT-1000 (GMT-10:00)",
            "1771316062",
            "1771316062.0",
            "1771316062000",
            "1771316062000000",
        ] {
            assert_eq!(reading(text), ("2026-02-17T08:14:22Z".into(), None), "{text}");
        }
    }

    #[test]
    fn a_time_without_seconds_in_summer_or_in_a_number_is_read() {
        for text in [
            "17.02.2026 um 09:14 Uhr",
            "Dienstag, 17. Februar 2026 um 09:14 Uhr",
            "Di., 17. Feb. 2026 um 09:14 Uhr",
            "17.02.2026 09:14 MEZ",
            "17.02.2026 10:14 MESZ",
            "2026-02-17 9:14",
            "17-02-2026 09:14",
        ] {
            assert_eq!(reading(text), ("2026-02-17T08:14:00Z".into(), None), "{text}");
        }
        assert_eq!(reading("18.02.2026 06:30"), ("2026-02-18T05:30:00Z".into(), None));
        assert_eq!(reading("18.03.2026"), ("2026-03-17T23:00:00Z".into(), None));
        assert_eq!(reading("2026-03-18"), ("2026-03-17T23:00:00Z".into(), None));
        assert_eq!(reading("3. März 2026, 06:30 Uhr"), ("2026-03-03T05:30:00Z".into(), None));
        // Summer time.
        assert_eq!(reading("2026-05-18 06:30:01"), ("2026-05-18T04:30:01Z".into(), None));
        // The hour that does not exist and the hour that exists twice still have a time.
        assert_eq!(reading("2026-03-29 02:30:00").1, None);
        assert_eq!(reading("2025-10-26 02:30:00").1, None);
        assert_eq!(reading("2026-02-17T08:14:22.123456789Z").0, "2026-02-17T08:14:22.123456Z");
        let number = serde_json::json!(1_771_316_062);
        assert_eq!(
            received_at(Some(&number), ARRIVAL.parse().unwrap()).time.to_string(),
            "2026-02-17T08:14:22Z"
        );
    }

    #[test]
    fn what_is_unreadable_too_old_or_in_the_future_becomes_the_time_of_arrival_with_a_note() {
        let note = |text: &str| {
            let (time, note) = reading(text);
            assert_eq!(time, ARRIVAL, "{text}");
            note.unwrap_or("none")
        };
        for text in [
            "gestern",
            "2026-13-01",
            "2026-02-30 10:00",
            "2026-02-17 9:14 +0199",
            "17.02.2026 09:14 (",
            "02/03/2026 10:00",
            "0",
            "-1",
            "1e9",
            "\0",
            "12:30",
            "٢٠٢٦-٠٢-١٧",
        ] {
            assert!(note(text).contains("cannot be read"), "{text}");
        }
        assert!(note(&"9".repeat(5000)).contains("cannot be read"));
        assert!(note("2014-12-31T23:59:59Z").contains("before 2015"));
        assert!(note("0001-01-01T00:00:00Z").contains("before 2015"));
        assert!(note("2026-06-01T12:00:00.000001Z").contains("future"));
        assert!(note("9999-01-01").contains("future"));
        assert_eq!(note(" "), "none");
        assert_eq!(reading(ARRIVAL), (ARRIVAL.into(), None));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_no_result_lies_outside_the_bounds(text in "\\PC{0,60}") {
            let arrival: Timestamp = ARRIVAL.parse().unwrap();
            let read = received_at(Some(&Value::String(text)), arrival);
            prop_assert!(read.time.as_second() >= EARLIEST_SECOND && read.time <= arrival);
        }

        #[test]
        fn what_the_usual_writers_write_is_read_back(second in EARLIEST_SECOND..1_780_000_000) {
            let time = Timestamp::from_second(second).unwrap();
            let arrival: Timestamp = ARRIVAL.parse().unwrap();
            let zoned = time.in_tz("Europe/Berlin").unwrap();
            for text in [time.to_string(), rfc2822::to_string(&zoned).unwrap(), zoned.strftime("%FT%T%:z").to_string()] {
                prop_assert_eq!(received_at(Some(&Value::String(text)), arrival).time, time);
            }
        }
    }
}
