//! A moment as an option of a command gives it.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

/// A time as people give it: how long ago, a day or a time of day in Germany, or a time with its zone.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    let wrong =
        || "must be such as 90m, 2h, 7d, 2026-02-17, 2026-02-17T09:14 or 2026-02-17T09:14:22Z".to_owned();
    let text = text.trim();
    let ago = || {
        let (unit, seconds) = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)]
            .into_iter()
            .find(|(unit, _)| text.ends_with(*unit))?;
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        let length = SignedDuration::from_secs(i64::from(number) * seconds);
        Timestamp::now().checked_sub(length).ok()
    };
    if let Some(at) = ago() {
        return Ok(at);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let day =
        || text.parse::<civil::Date>().ok().map(|date| date.at(0, 0, 0, 0)).filter(|_| text.len() == 10);
    let local = day().or_else(|| text.parse::<civil::DateTime>().ok()).ok_or_else(wrong)?;
    let berlin = TimeZone::get("Europe/Berlin").map_err(|_| wrong())?;
    berlin.to_timestamp(local).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_age_a_day_or_a_time() {
        let at = |text: &str| moment(text).unwrap().to_string();
        assert_eq!(at("2026-02-17"), "2026-02-16T23:00:00Z");
        assert_eq!(at("2026-07-17T09:14"), "2026-07-17T07:14:00Z");
        assert_eq!(at("2026-02-17T09:14:22Z"), "2026-02-17T09:14:22Z");
        let age = Timestamp::now().duration_since(moment("2h").unwrap());
        assert!((7199..7260).contains(&age.as_secs()));
        for wrong in ["", "h", "-1h", "2x", "yesterday", "17.02.2026", "99999999999d"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
