//! What was measured: as JSON, one line a figure, on standard output.

use serde_json::{Map, json};

/// Values that belong together.
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) group: &'static str,
    /// On what.
    pub(crate) name: String,
    /// Each value's name, with its unit, and the value.
    pub(crate) values: Vec<(String, f64)>,
}

/// Prints figures as they come.
pub(crate) struct Report;

impl Report {
    #[expect(
        clippy::unused_self,
        reason = "whoever measures is given one, and nothing else prints"
    )]
    pub(crate) fn add(&mut self, figure: Figure) {
        let values = figure.values.into_iter();
        let values: Map<_, _> = values
            .map(|(name, value)| (name, json!((value * 1e3).round() / 1e3)))
            .collect();
        println!(
            "{}",
            json!({ "group": figure.group, "name": figure.name, "values": values })
        );
    }
}
