//! What is wrong with a configuration: all of it is said at once.

use std::ops::RangeInclusive;

use crate::config::{GoDuration, InvalidSetting};

/// So far.
#[derive(Debug, Default)]
pub(super) struct InvalidSettings(pub(super) Vec<InvalidSetting>);

impl InvalidSettings {
    pub(super) fn add(&mut self, field: &str, what: impl Into<String>) {
        self.0.push(InvalidSetting {
            field: field.to_owned(),
            what: what.into(),
        });
    }

    /// What was read of a field, or nothing in particular if it cannot be.
    pub(super) fn take<T: Default>(&mut self, field: &str, read: Result<T, String>) -> T {
        read.unwrap_or_else(|what| {
            self.add(field, what);
            T::default()
        })
    }

    pub(super) fn within(&mut self, field: &str, value: Option<i32>, range: RangeInclusive<i32>) {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let (least, most) = range.into_inner();
            let what = match most {
                i32::MAX => format!("{value} is less than {least}"),
                _ => format!("{value} is not within {least} and {most}"),
            };
            self.add(field, what);
        }
    }

    pub(super) fn not_negative(&mut self, field: &str, value: GoDuration) {
        if value.is_negative() {
            self.add(field, format!("{value} is less than 0"));
        }
    }
}
