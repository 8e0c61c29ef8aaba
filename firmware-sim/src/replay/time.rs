//! Times of CSV files: RFC 3339, or `YYYY-MM-DD HH:MM:SS` in UTC, to microseconds since 1970.
//!
//! Civil dates by H. Hinnant's `days_from_civil` and `civil_from_days`. No leap seconds: `:60` is
//! refused.

use std::fmt;

const DAY_US: i64 = 86_400_000_000;

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let doe = days.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

/// Exactly `digits` ASCII digits at the front of `rest`.
fn number(rest: &mut &str, digits: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(digits)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    *rest = tail;
    head.parse().ok()
}

fn mark(rest: &mut &str, marks: &[char]) -> Option<()> {
    *rest = rest.strip_prefix(marks)?;
    Some(())
}

/// The fraction of a second in microseconds; what a reader cannot hold must be zeros.
fn fraction_us(rest: &mut &str) -> Option<i64> {
    let Some(tail) = rest.strip_prefix('.') else {
        return Some(0);
    };
    let len = tail.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = tail.split_at_checked(len)?;
    *rest = after;
    let kept = digits.get(..len.min(6))?;
    let beyond = digits.get(kept.len()..)?;
    if kept.is_empty() || beyond.bytes().any(|byte| byte != b'0') {
        return None;
    }
    let scale = 10i64.checked_pow(6 - kept.len() as u32)?;
    Some(kept.parse::<i64>().ok()? * scale)
}

/// The offset from UTC in microseconds; nothing or `Z` is UTC.
fn offset_us(rest: &mut &str) -> Option<i64> {
    let sign = match rest.chars().next() {
        None => return Some(0),
        Some('Z' | 'z') => {
            mark(rest, &['Z', 'z'])?;
            return Some(0);
        }
        Some('+') => 1,
        Some('-') => -1,
        Some(_) => return None,
    };
    mark(rest, &['+', '-'])?;
    let hours = number(rest, 2)?;
    mark(rest, &[':'])?;
    let minutes = number(rest, 2)?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes) * 60_000_000)
}

/// Microseconds since 1970 of `text`; `None` when it is no time, or finer than a microsecond.
pub fn parse(text: &str) -> Option<i64> {
    let mut rest = text;
    let year = number(&mut rest, 4)?;
    mark(&mut rest, &['-'])?;
    let month = number(&mut rest, 2)?;
    mark(&mut rest, &['-'])?;
    let day = number(&mut rest, 2)?;
    mark(&mut rest, &['T', 't', ' '])?;
    let hour = number(&mut rest, 2)?;
    mark(&mut rest, &[':'])?;
    let minute = number(&mut rest, 2)?;
    mark(&mut rest, &[':'])?;
    let second = number(&mut rest, 2)?;
    let fraction = fraction_us(&mut rest)?;
    let offset = offset_us(&mut rest)?;
    let days = days_from_civil(year, month, day);
    let real = (1..=12).contains(&month) && civil_from_days(days) == (year, month, day);
    if !rest.is_empty() || !real || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Some(days * DAY_US + seconds * 1_000_000 + fraction - offset)
}

/// Prints microseconds since 1970 as RFC 3339 in UTC, with a fraction only where there is one.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(pub i64);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.0.div_euclid(DAY_US));
        let us = self.0.rem_euclid(DAY_US);
        let (hour, minute) = (us / 3_600_000_000, us / 60_000_000 % 60);
        let (second, fraction) = (us / 1_000_000 % 60, us % 1_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if fraction != 0 {
            write!(f, ".{fraction:06}")?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ways_of_writing_agree() {
        let expected = Some(1_170_288_060_000_000);
        assert_eq!(parse("2007-02-01T00:01:00Z"), expected);
        assert_eq!(parse("2007-02-01 00:01:00"), expected);
        assert_eq!(parse("2007-02-01T02:01:00.000+02:00"), expected);
        assert_eq!(
            parse("2007-02-01T00:01:00.25Z"),
            Some(1_170_288_060_250_000)
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "timestamp",
            "2007-02-29 00:00:00",
            "2007-13-01 00:00:00",
            "2007-02-01",
            "2007-02-01 24:00:00",
            "2007-02-01 00:00:60",
            "2007-02-01 00:00:00 UTC",
            "2007-02-01T00:00:00.0000001Z",
            "2007-02-01T00:00:00.Z",
            "07-02-01 00:00:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_microsecond_comes_back(us in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            prop_assert_eq!(parse(&Rfc3339(us).to_string()), Some(us));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
