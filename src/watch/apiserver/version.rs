//! The resource versions of a kind, which show whether a list is older than what was seen before.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// A `resourceVersion`: a decimal number of any length (KEP-5504).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourceVersion(String);

impl ResourceVersion {
    /// Returns the version of a field; the API server writes "" or "0" for none.
    pub(super) fn new(text: Option<&str>) -> Option<Self> {
        text.filter(|text| !text.is_empty() && *text != "0")
            .map(|text| Self(text.to_owned()))
    }

    /// Returns the text for a request.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `self` is older than `other`; no version that is not a number is.
    fn is_older_than(&self, other: &Self) -> bool {
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (own, other) = (self.0.as_str(), other.0.as_str());
        is_number(own)
            && is_number(other)
            && own.len().cmp(&other.len()).then_with(|| own.cmp(other)) == Ordering::Less
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the version of a complete list says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListAge {
    /// The list is at least as new as everything before it.
    Current,
    /// The list is older than what was seen before: it may lack objects that exist.
    Older,
    /// The lists have been older for so long that the API server has lost its newer versions, as
    /// after etcd is restored from a backup.
    WentBack,
}

/// The newest version of a kind that was seen, and since when the lists are older.
#[derive(Debug, Default)]
pub(super) struct SeenVersions {
    /// The newest version.
    newest: Option<ResourceVersion>,
    /// The time of the first of the consecutive lists that were older.
    older_since: Option<Instant>,
}

impl SeenVersions {
    /// Returns the newest version.
    pub(super) fn newest(&self) -> Option<&ResourceVersion> {
        self.newest.as_ref()
    }

    /// Records the version of a watch event or bookmark.
    pub(super) fn record(&mut self, version: &ResourceVersion) {
        if !self.is_past(version) {
            self.newest = Some(version.clone());
        }
    }

    /// Returns whether a version is older than the newest.
    pub(super) fn is_past(&self, version: &ResourceVersion) -> bool {
        self.newest
            .as_ref()
            .is_some_and(|newest| version.is_older_than(newest))
    }

    /// Judges a list, complete or not, by its version.
    ///
    /// Lists count as [`ListAge::WentBack`] when they have been older for `patience`.
    pub(super) fn judge(
        &mut self,
        version: &ResourceVersion,
        now: Instant,
        patience: Duration,
    ) -> ListAge {
        if !self.is_past(version) {
            self.older_since = None;
            return ListAge::Current;
        }
        if now - *self.older_since.get_or_insert(now) < patience {
            ListAge::Older
        } else {
            ListAge::WentBack
        }
    }

    /// Returns the time at which older lists will have been older for `patience`.
    pub(super) fn older_until(&self, patience: Duration) -> Option<Instant> {
        self.older_since.map(|since| since + patience)
    }

    /// Records the version of a complete list, which holds from now on even if it is older.
    pub(super) fn restart(&mut self, version: &ResourceVersion) {
        self.older_since = None;
        self.newest = Some(version.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_mins(3);

    fn version(text: &str) -> ResourceVersion {
        ResourceVersion::new(Some(text)).unwrap()
    }

    #[test]
    fn versions_compare_as_numbers_of_any_length() {
        assert!(version("9").is_older_than(&version("10")));
        assert!(
            version("99999999999999999999998").is_older_than(&version("99999999999999999999999"))
        );
        assert!(!version("10").is_older_than(&version("9")));
        assert!(!version("10").is_older_than(&version("10")));
        assert!(!version("a1").is_older_than(&version("20")));
        assert!(!version("1").is_older_than(&version("2b")));
    }

    #[test]
    fn no_version_is_empty_or_zero() {
        assert_eq!(ResourceVersion::new(None), None);
        assert_eq!(ResourceVersion::new(Some("")), None);
        assert_eq!(ResourceVersion::new(Some("0")), None);
    }

    #[test]
    fn a_list_is_older_only_than_what_was_seen() {
        let now = Instant::now();
        let mut seen = SeenVersions::default();
        assert_eq!(seen.judge(&version("7"), now, PATIENCE), ListAge::Current);
        seen.restart(&version("7"));
        seen.record(&version("12"));
        seen.record(&version("11"));
        assert_eq!(seen.newest(), Some(&version("12")));
        assert_eq!(seen.judge(&version("11"), now, PATIENCE), ListAge::Older);
        assert_eq!(seen.newest(), Some(&version("12")));
        assert_eq!(seen.judge(&version("12"), now, PATIENCE), ListAge::Current);
    }

    #[test]
    fn lists_that_stay_older_show_that_the_versions_went_back() {
        let start = Instant::now();
        let mut seen = SeenVersions::default();
        seen.record(&version("100"));
        assert_eq!(seen.judge(&version("40"), start, PATIENCE), ListAge::Older);
        let almost = start + PATIENCE - Duration::from_secs(1);
        assert_eq!(seen.judge(&version("41"), almost, PATIENCE), ListAge::Older);
        let later = start + PATIENCE;
        assert_eq!(
            seen.judge(&version("42"), later, PATIENCE),
            ListAge::WentBack
        );
        assert_eq!(
            seen.judge(&version("42"), later, PATIENCE),
            ListAge::WentBack
        );
        seen.restart(&version("42"));
        assert_eq!(
            seen.judge(&version("43"), later, PATIENCE),
            ListAge::Current
        );
    }

    #[test]
    fn a_current_list_between_older_ones_starts_the_patience_over() {
        let start = Instant::now();
        let mut seen = SeenVersions::default();
        seen.record(&version("100"));
        assert_eq!(seen.judge(&version("40"), start, PATIENCE), ListAge::Older);
        assert_eq!(
            seen.judge(&version("100"), start, PATIENCE),
            ListAge::Current
        );
        let later = start + PATIENCE;
        assert_eq!(seen.judge(&version("40"), later, PATIENCE), ListAge::Older);
    }
}
