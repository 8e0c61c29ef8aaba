//! What a device says about when: `ts` to microseconds since 1970, UTC. No clock here.
//!
//! A number is seconds, milliseconds, microseconds or nanoseconds by its magnitude (so that every
//! instant from 1973 to 5138 is told right); with a fraction it is rounded to the microsecond. A
//! text is RFC 3339 with its offset. Whether a time is believed is [`is_suspect`]'s matter.

use super::number::Number;
use super::rule::TimeUnit;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 2000-01-01T00:00:00Z.
const YEAR_2000: i64 = 946_684_800 * SECOND;
/// 2100-01-01T00:00:00Z.
const YEAR_2100: i64 = 4_102_444_800 * SECOND;

/// Magnitudes below which a number is seconds, milliseconds, microseconds; above: nanoseconds.
const SECONDS_BELOW: u64 = 100_000_000_000;
const MILLIS_BELOW: u64 = SECONDS_BELOW * 1_000;
const MICROS_BELOW: u64 = MILLIS_BELOW * 1_000;

/// Whether nobody should believe this event time.
pub(super) fn is_suspect(event_time: i64, received_time: i64) -> bool {
    !(YEAR_2000..YEAR_2100).contains(&event_time) || event_time > received_time.saturating_add(DAY)
}

/// A number's unit, when its magnitude says it.
fn by_magnitude(size: u64) -> TimeUnit {
    match size {
        size if size < SECONDS_BELOW => TimeUnit::Seconds,
        size if size < MILLIS_BELOW => TimeUnit::Milliseconds,
        size if size < MICROS_BELOW => TimeUnit::Microseconds,
        _ => TimeUnit::Nanoseconds,
    }
}

const BEYOND: &str = "is beyond any time that can be kept";
const NO_NUMBER: &str = "is a number, where its rule says RFC 3339";

pub(super) fn from_integer(ts: i64, unit: TimeUnit) -> Result<i64, &'static str> {
    match unit {
        TimeUnit::Auto => from_integer(ts, by_magnitude(ts.unsigned_abs())),
        TimeUnit::Seconds => ts.checked_mul(SECOND).ok_or(BEYOND),
        TimeUnit::Milliseconds => ts.checked_mul(1_000).ok_or(BEYOND),
        TimeUnit::Microseconds => Ok(ts),
        TimeUnit::Nanoseconds => Ok(ts.div_euclid(1_000)),
        TimeUnit::Rfc3339 => Err(NO_NUMBER),
    }
}

pub(super) fn from_float(ts: f64, unit: TimeUnit) -> Result<i64, &'static str> {
    if !ts.is_finite() {
        return Err("is not a finite number");
    }
    let micros = match unit {
        // As an integer: what is beyond all magnitudes is nanoseconds.
        TimeUnit::Auto => return from_float(ts, by_magnitude(ts.abs() as u64)),
        TimeUnit::Seconds => ts * 1e6,
        TimeUnit::Milliseconds => ts * 1e3,
        TimeUnit::Microseconds => ts,
        TimeUnit::Nanoseconds => ts / 1e3,
        TimeUnit::Rfc3339 => return Err(NO_NUMBER),
    };
    if micros.abs() >= i64::MAX as f64 {
        return Err(BEYOND);
    }
    Ok(micros.round() as i64)
}

/// The time in a text: RFC 3339, UTC where no offset is said, or a number by its magnitude.
///
/// # Errors
/// Why it is none.
pub fn time_of(text: &str) -> Result<i64, &'static str> {
    match super::number::bare(text) {
        Some(Number::I64(ts)) => from_integer(ts, TimeUnit::Auto),
        Some(Number::F64(ts)) => from_float(ts, TimeUnit::Auto),
        _ => parse(&[text.as_bytes(), b"Z"].concat())
            .map_or_else(|| from_text(text, TimeUnit::Auto), Ok),
    }
}

/// RFC 3339, section 5.6; a space instead of `T` is taken too. Fractions beyond the microsecond
/// are cut off, a leap second is the second after it. Where the rule says what a number counts, a
/// number in quotes is one.
pub(super) fn from_text(text: &str, unit: TimeUnit) -> Result<i64, &'static str> {
    let counted = !matches!(unit, TimeUnit::Auto | TimeUnit::Rfc3339);
    if counted {
        return match super::number::bare(text.trim_ascii()) {
            Some(Number::I64(ts)) => from_integer(ts, unit),
            Some(Number::F64(ts)) => from_float(ts, unit),
            _ => Err("is no number, where its rule says what a number counts"),
        };
    }
    parse(text.as_bytes()).ok_or_else(|| match parse(&[text.as_bytes(), b"Z"].concat()) {
        Some(_) => "has no offset from UTC: add `Z`, or one like `+02:00`",
        None => "is not RFC 3339: expected a number, or a text like `2026-01-31T08:30:00.250Z`",
    })
}

fn parse(text: &[u8]) -> Option<i64> {
    let [
        y0,
        y1,
        y2,
        y3,
        b'-',
        m0,
        m1,
        b'-',
        d0,
        d1,
        b'T' | b't' | b' ',
        rest @ ..,
    ] = text
    else {
        return None;
    };
    let [h0, h1, b':', i0, i1, b':', s0, s1, rest @ ..] = rest else {
        return None;
    };
    let year = number(&[*y0, *y1, *y2, *y3])?;
    let (month, day) = (number(&[*m0, *m1])?, number(&[*d0, *d1])?);
    let (hour, minute, second) = (
        number(&[*h0, *h1])?,
        number(&[*i0, *i1])?,
        number(&[*s0, *s1])?,
    );
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset(rest)?) * SECOND + fraction)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + i64::from(digit - b'0'))
    })
}

/// Microseconds of a fraction of a second, and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else {
        return Some((0, text));
    };
    let count = digits
        .iter()
        .take_while(|digit| digit.is_ascii_digit())
        .count();
    let (digits, rest) = digits.split_at_checked(count)?;
    if digits.is_empty() {
        return None;
    }
    let kept = digits.get(..digits.len().min(6))?;
    let scale = 10i64.pow(6 - kept.len() as u32);
    Some((number(kept)? * scale, rest))
}

/// Seconds by which the local time is ahead of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h0, h1, b':', m0, m1] => {
            let (hours, minutes) = (number(&[h0, h1])?, number(&[m0, m1])?);
            let ahead = hours * 3_600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if sign == b'-' { -ahead } else { ahead })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar (Howard Hinnant, "chrono-compatible
/// low-level date algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}
