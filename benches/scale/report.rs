//! The report: one line of JSON per figure on standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cluster::Cluster;

/// The values of one measurement.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Figure {
    /// The measured program.
    pub(crate) subject: String,
    /// The size of the cluster, as `SERVICESxENDPOINTS`.
    pub(crate) cluster: String,
    /// The measured operation.
    pub(crate) what: String,
    /// The values by name; the name ends with the unit.
    pub(crate) values: BTreeMap<String, f64>,
}

/// A report that prints each figure at once.
pub(crate) struct Report;

impl Report {
    #[expect(
        clippy::unused_self,
        reason = "only the holder of the report prints figures"
    )]
    pub(crate) fn add<'a>(
        &mut self,
        subject: &str,
        cluster: Cluster,
        what: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let rounded = values
            .into_iter()
            .map(|(name, value)| (name.to_owned(), (value * 1e3).round() / 1e3));
        let figure = Figure {
            subject: subject.to_owned(),
            cluster: cluster.to_string(),
            what: what.to_owned(),
            values: rounded.collect(),
        };
        println!("{}", serde_json::to_string(&figure).expect("JSON"));
    }
}
