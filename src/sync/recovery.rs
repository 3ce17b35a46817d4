//! The recovery from a transaction that the kernel did not commit.

use tracing::{debug, info, warn};

use super::mode::SyncMode;
use super::{Skipped, Syncer};
use crate::logging::LogEvent;
use crate::netlink::{Error, Rejection};

/// The reaction to a transaction that was not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SyncRecovery {
    /// Read the tables back, since they may not hold the applied state.
    ReadBack,
    /// Skip the Services that the kernel rejects, or recreate the tables if there are none.
    Skip,
    /// Retry later.
    Wait,
}

fn recovery(error: &Error, mode: SyncMode) -> SyncRecovery {
    match (error, mode) {
        // A rebuild of the table would take more memory.
        (Error::Rejected(rejections), _) if rejections.iter().any(Rejection::lacks_memory) => {
            SyncRecovery::Wait
        }
        (Error::Lost, _) | (Error::Rejected(_), SyncMode::Incremental) => SyncRecovery::ReadBack,
        (Error::Rejected(_), SyncMode::ReadBack | SyncMode::Rebuild) => SyncRecovery::Skip,
        _ => SyncRecovery::Wait,
    }
}

impl Syncer {
    /// Prepares the next attempt after a transaction that was not committed.
    ///
    /// # Errors
    /// The same error, if the sync must wait.
    pub(super) fn recover(&mut self, error: Error) -> Result<(), Error> {
        match (recovery(&error, self.mode), &error) {
            (SyncRecovery::ReadBack, _) => {
                self.log_first_rejection(&error);
                self.cancel_reading();
                self.mode = SyncMode::ReadBack;
                return Ok(());
            }
            (SyncRecovery::Skip, Error::Rejected(rejections)) => {
                if self.restart_reading() {
                    return Ok(());
                }
                if self.skip_rejected(rejections) == Skipped::Newly {
                    return Ok(());
                }
            }
            (SyncRecovery::Skip | SyncRecovery::Wait, _) => return Err(error),
        }
        if self.mode == SyncMode::Rebuild {
            return Err(error);
        }
        warn!(event = %LogEvent::TablesRecreated, %error, "cannot repair the tables; recreating them");
        self.cancel_reading();
        self.mode = SyncMode::Rebuild;
        Ok(())
    }

    /// Skips the Services that the kernel rejects; returns whether there was a new one.
    fn skip_rejected(&mut self, rejections: &[Rejection]) -> Skipped {
        let mut outcome = Skipped::Already;
        for rejection in rejections {
            for service in &rejection.services {
                let (skipped, diagnostics) = self.state.skip(service, rejection);
                self.report_diagnostics(diagnostics);
                if skipped == Skipped::Newly {
                    outcome = skipped;
                }
            }
        }
        outcome
    }

    /// Logs a rejection, at a lower level if all its Services were rejected before.
    fn log_first_rejection(&self, error: &Error) {
        let Error::Rejected(rejections) = error else {
            return;
        };
        let is_repeated = |rejection: &Rejection| {
            let services = &rejection.services;
            !services.is_empty() && services.iter().all(|name| self.state.is_rejected(name))
        };
        if rejections.iter().all(is_repeated) {
            debug!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction again; reading the tables back");
        } else {
            // The outcome is logged separately: a repair, or a skipped Service.
            info!(event = %LogEvent::TransactionRejected, %error, "kernel rejected a transaction; reading the tables back");
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::netlink::RejectedAt;

    #[test]
    fn without_memory_no_service_is_skipped_and_no_table_recreated() {
        let rejected = |errno| {
            Error::Rejected(vec![Rejection {
                at: RejectedAt::Transaction,
                operation: "the transaction".to_owned(),
                services: Vec::new(),
                errno,
                explanation: None,
            }])
        };
        for mode in [SyncMode::Incremental, SyncMode::ReadBack, SyncMode::Rebuild] {
            assert_eq!(recovery(&rejected(Errno::ENOMEM), mode), SyncRecovery::Wait);
            assert_eq!(
                recovery(&rejected(Errno::ENOBUFS), mode),
                SyncRecovery::Wait
            );
        }
        let invalid = rejected(Errno::EINVAL);
        assert_eq!(
            recovery(&invalid, SyncMode::Incremental),
            SyncRecovery::ReadBack
        );
        assert_eq!(recovery(&invalid, SyncMode::ReadBack), SyncRecovery::Skip);
    }
}
