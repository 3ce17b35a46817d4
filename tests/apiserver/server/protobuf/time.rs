//! Times of the API as seconds.

/// Returns the seconds since 1970 of a time such as `2026-01-01T00:00:00Z`.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let numbers: Option<Vec<_>> = text
        .split(separator)
        .map(|part| part.parse().ok())
        .collect();
    numbers?.try_into().ok()
}

/// Returns the days since 1970, with years that begin in March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let days_of_years = year * 365 + year / 4 - year / 100 + year / 400;
    // From the first of March 0 to the first of January 1970.
    days_of_years + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[test]
fn times_are_seconds() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:00:01Z", Some(951_825_601)),
        ("2000-03-01T00:00:00Z", Some(951_868_800)),
        ("2026-01-01T00:00:00Z", Some(1_767_225_600)),
        ("2026-01-01", None),
        ("today", None),
    ] {
        assert_eq!(seconds(text), expected, "{text}");
    }
}
