//! Waiting for a condition, on a machine that may be busy or emulated.

use std::env;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The time after which a condition that does not hold fails a test. No test is about it.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Multiplies a deadline by `KUBE_DNAT_TEST_PATIENCE`, for emulated processors (`scripts/kernels.sh`).
pub(crate) fn patient(deadline: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| {
        env::var("KUBE_DNAT_TEST_PATIENCE").map_or(1, |factor| {
            factor
                .parse()
                .expect("KUBE_DNAT_TEST_PATIENCE is a whole number")
        })
    });
    deadline * *factor
}

/// Waits for a condition; panics if it does not become true before the [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until there is a value, and returns it.
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let (start, deadline) = (Instant::now(), patient(DEADLINE));
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(
            start.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
