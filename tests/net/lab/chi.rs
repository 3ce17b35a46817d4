//! The check that endpoints are drawn with equal probability.

use super::Tally;

/// The quantile of the normal distribution that is exceeded once in a million.
const ONCE_IN_A_MILLION: f64 = 4.753_424;

/// Panics unless these servers, and no others, answered with equal probability and nothing failed.
///
/// A correct program fails this check less than once in a million times. The check compares
/// Pearson's statistic with the chi-squared distribution; its number of degrees of freedom is one
/// less than the number of servers.
#[track_caller]
pub(crate) fn assert_uniform(tally: &Tally, servers: &[&str], context: &str) {
    assert!(
        tally.failures.is_empty(),
        "{context}: {:?}",
        tally.failures.first()
    );
    let strangers = tally
        .servers
        .keys()
        .find(|name| !servers.contains(&name.as_str()));
    assert_eq!(strangers, None, "{context}: {:?}", tally.servers);
    let counts: Vec<usize> = servers
        .iter()
        .map(|name| tally.servers.get(*name).copied().unwrap_or(0))
        .collect();
    let (statistic, bound) = (statistic(&counts), critical_value(counts.len() - 1));
    assert!(
        statistic < bound,
        "{context}: {:?}: chi squared is {statistic:.1}, at most {bound:.1}",
        tally.servers
    );
}

/// Computes Pearson's statistic of these counts against equal probabilities.
fn statistic(counts: &[usize]) -> f64 {
    let expected = float(counts.iter().sum()) / float(counts.len());
    counts
        .iter()
        .map(|count| (float(*count) - expected).powi(2) / expected)
        .sum()
}

/// Returns the value that chi-squared exceeds less than once in a million times.
///
/// The approximation of Wilson and Hilferty is slightly too large for few degrees of freedom,
/// which is the safe side.
fn critical_value(degrees_of_freedom: usize) -> f64 {
    let variance = 2.0 / (9.0 * float(degrees_of_freedom));
    float(degrees_of_freedom) * (1.0 - variance + ONCE_IN_A_MILLION * variance.sqrt()).powi(3)
}

fn float(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("a small number"))
}

pub(crate) fn the_bound_is_no_lower_than_the_tables_and_not_much_higher() {
    // (degrees of freedom, the value with an upper tail of 1e-6)
    for (degrees, exact) in [
        (1, 23.928),
        (2, 27.631),
        (3, 30.665),
        (9, 44.811),
        (99, 180.792),
    ] {
        let ratio = critical_value(degrees) / exact;
        assert!(
            (1.0..1.16).contains(&ratio),
            "{degrees}: {}",
            critical_value(degrees)
        );
    }
}

pub(crate) fn a_skew_of_a_tenth_is_detected_in_a_few_thousand_draws() {
    assert!(statistic(&[1000, 1010, 990]) < critical_value(2));
    assert!(statistic(&[1200, 1000, 800]) > critical_value(2));
    assert!(statistic(&[1500, 1500, 0]) > critical_value(2));
}
