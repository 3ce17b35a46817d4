//! Durations as Go writes and reads them (`time.ParseDuration`, `Duration.String`).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The units in nanoseconds, largest first. The micro sign and the Greek letter mu are both valid.
const UNITS: [(&str, u128); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ns", 1),
];

/// A duration in whole nanoseconds with Go's syntax. It can be negative: `1h2m3.5s`, `-250ms`, `0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    /// The whole duration.
    nanoseconds: i64,
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a duration such as 30s or 1h30m")]
pub struct NotADuration(String);

impl GoDuration {
    /// Creates a duration from nanoseconds.
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self { nanoseconds }
    }

    /// Creates a duration from seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i32) -> Self {
        Self {
            nanoseconds: seconds as i64 * 1_000_000_000,
        }
    }

    /// The duration in nanoseconds.
    #[must_use]
    pub const fn nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// Whether the duration is zero, which selects the default in most fields.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanoseconds == 0
    }

    /// Whether the duration is negative.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanoseconds < 0
    }

    /// Converts the duration. A negative duration becomes zero.
    #[must_use]
    pub fn to_std(self) -> Duration {
        Duration::from_nanos(self.nanoseconds.max(0).unsigned_abs())
    }
}

impl FromStr for GoDuration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, NotADuration> {
        parse(text).ok_or_else(|| NotADuration(format!("\"{text}\"")))
    }
}

/// Parses a duration like Go's `time.ParseDuration`.
fn parse(text: &str) -> Option<GoDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut total: u128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() && rest != "0" {
        let (nanoseconds, after) = part(rest)?;
        total = total.checked_add(nanoseconds)?;
        // Only a lone 0 has no unit.
        if after == "0" {
            return None;
        }
        rest = after;
    }
    let total = i128::try_from(total).ok()?;
    let signed = if negative { -total } else { total };
    i64::try_from(signed).ok().map(GoDuration::from_nanoseconds)
}

/// Parses the first number and its unit. Returns the nanoseconds and the remaining text.
fn part(text: &str) -> Option<(u128, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest
        .find(|letter: char| letter == '.' || letter.is_ascii_digit())
        .unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
    let whole = match whole {
        "" => 0,
        whole => whole.parse::<u128>().ok()?,
    };
    let mut nanoseconds = whole.checked_mul(*unit)?;
    let mut place_value = *unit;
    for digit in fraction.bytes() {
        // Fractions of a nanosecond are dropped.
        nanoseconds = nanoseconds.checked_add(u128::from(digit - b'0') * place_value / 10)?;
        place_value /= 10;
    }
    Some((nanoseconds, after))
}

/// Splits the leading digits from the remaining text.
fn digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_negative() {
            f.write_str("-")?;
        }
        let total = self.nanoseconds.unsigned_abs();
        match total {
            0 => return f.write_str("0s"),
            1..1_000 => return write!(f, "{total}ns"),
            1_000..1_000_000 => return write!(f, "{}\u{b5}s", decimal(total, 1_000)),
            1_000_000..1_000_000_000 => return write!(f, "{}ms", decimal(total, 1_000_000)),
            _ => {}
        }
        let (hours, rest) = (total / 3_600_000_000_000, total % 3_600_000_000_000);
        let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", decimal(rest, 1_000_000_000))
    }
}

/// Formats `value / unit` exactly, without trailing zeros.
fn decimal(value: u64, unit: u64) -> String {
    let width = unit.ilog10() as usize;
    let text = format!("{}.{:0width$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let parsed = match value.as_str() {
            Some(text) => text.parse(),
            None => Err(NotADuration(value.to_string())),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_formatted_like_in_go() {
        let cases = [
            ("0", 0, "0s"),
            ("+0", 0, "0s"),
            ("0s", 0, "0s"),
            ("30s", 30_000_000_000, "30s"),
            ("15m", 900_000_000_000, "15m0s"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("1h2m3.5s", 3_723_500_000_000, "1h2m3.5s"),
            ("2m1h", 3_720_000_000_000, "1h2m0s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("-250ms", -250_000_000, "-250ms"),
            ("1.5ms", 1_500_000, "1.5ms"),
            ("3us", 3_000, "3\u{b5}s"),
            ("3\u{3bc}s", 3_000, "3\u{b5}s"),
            ("7ns", 7, "7ns"),
            ("0.1234567899s", 123_456_789, "123.456789ms"),
            (
                "9223372036854775807ns",
                i64::MAX,
                "2562047h47m16.854775807s",
            ),
        ];
        for (text, nanoseconds, written) in cases {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration.nanoseconds(), nanoseconds, "{text}");
            assert_eq!(duration.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(duration), "{written}");
        }
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in [
            "",
            "-",
            "30",
            "1h30",
            "1d",
            "s",
            ".s",
            "1 s",
            "1s ",
            "1h0",
            "--1s",
            "1e3s",
            "9223372036854775808ns",
            "400000000000h",
            "0x1s",
            "00",
        ] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }
}
