//! Times as people and programs read them: RFC 3339, UTC.

/// A time in microseconds since 1970, to the millisecond.
pub fn rfc3339(time_us: i64) -> String {
    let millis = time_us.div_euclid(1_000);
    format!("{}.{:03}Z", seconds(time_us), millis.rem_euclid(1_000))
}

/// A time in microseconds since 1970, to the microsecond.
pub fn rfc3339_micros(time_us: i64) -> String {
    format!("{}.{:06}Z", seconds(time_us), time_us.rem_euclid(1_000_000))
}

fn seconds(time_us: i64) -> String {
    let seconds = time_us.div_euclid(1_000_000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// The date of the Gregorian calendar, so many days after 1970-01-01 (Howard Hinnant,
/// "chrono-compatible low-level date algorithms", `civil_from_days`).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_micros(-1), "1969-12-31T23:59:59.999999Z");
        let leap = 1_709_210_096_789_012;
        assert_eq!(rfc3339(leap), "2024-02-29T12:34:56.789Z");
        assert_eq!(rfc3339_micros(leap), "2024-02-29T12:34:56.789012Z");
        // Nothing from outside panics.
        assert!(rfc3339_micros(i64::MIN).ends_with('Z') && rfc3339(i64::MAX).ends_with('Z'));
    }
}
