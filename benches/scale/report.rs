//! What was measured: as JSON, one line a figure, on standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;

/// Values that belong together.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Figure {
    /// Which program.
    pub(crate) subject: String,
    /// `SERVICESxENDPOINTS`.
    pub(crate) cluster: String,
    /// What was measured.
    pub(crate) what: String,
    /// Each value's name, with its unit, and the value.
    pub(crate) values: BTreeMap<String, f64>,
}

/// Prints figures as they come.
pub(crate) struct Report;

impl Report {
    #[expect(
        clippy::unused_self,
        reason = "whoever measures is given one, and nothing else prints"
    )]
    pub(crate) fn add<'a>(
        &mut self,
        subject: &str,
        cluster: Cluster,
        what: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let values = values.into_iter();
        let values = values.map(|(name, value)| (name.to_owned(), (value * 1e3).round() / 1e3));
        let figure = Figure {
            subject: subject.to_owned(),
            cluster: cluster.to_string(),
            what: what.to_owned(),
            values: values.collect(),
        };
        println!("{}", serde_json::to_string(&figure).expect("JSON"));
    }
}
