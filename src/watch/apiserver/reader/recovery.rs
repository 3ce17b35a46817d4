//! The recovery from failures.

use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::{ListForm, NextStep, Stopped, WatchReader};
use crate::config::AcceptedTypes;
use crate::logging::LogEvent;
use crate::planner::model::Event;
use crate::watch::apiserver::decode::DecodeError;
use crate::watch::apiserver::failure::{
    self, ReaderPhase, ReaderState, WatchFailure, WatchRecovery,
};
use crate::watch::apiserver::kinds::Watched;

/// The number of consecutive failures after which the reader relists.
///
/// Not every server answers 410 if it cannot continue a watch.
const RELIST_AFTER: u32 = 6;

impl<W: Watched> WatchReader<'_, W> {
    /// Ends a series of failures, and logs that if there were any.
    pub(super) fn succeeded(&mut self) {
        self.broken_lists = 0;
        self.failures = 0;
        self.malformed = 0;
        self.pauses.succeeded();
        if self.logged.clear() {
            info!(event = %LogEvent::WatchRecovered, kind = %W::KIND, "watch recovered");
        }
    }

    /// Handles a failure.
    pub(super) async fn recover(&mut self, failure: &WatchFailure) -> Result<(), Stopped> {
        let phase = match (&self.next, self.lists) {
            (NextStep::Watch(_), _) => ReaderPhase::Watching,
            (NextStep::List | NextStep::ListNewest, ListForm::Stream) => ReaderPhase::StreamingList,
            (NextStep::List | NextStep::ListNewest, ListForm::Pages) => ReaderPhase::Pages,
        };
        let is_listed = phase == ReaderPhase::Watching;
        let state = ReaderState {
            phase,
            protobuf: self.requests.accepted != AcceptedTypes::JsonOnly,
            optional: W::OPTIONAL,
            malformed: self.malformed,
        };
        let recovery = failure::recovery(failure, state);
        let text = failure.describe();
        match recovery {
            WatchRecovery::InPages => {
                self.in_pages(&text);
                return Ok(());
            }
            WatchRecovery::Unavailable => return self.continue_without(&text).await,
            WatchRecovery::Json => self.accept_json(&text),
            WatchRecovery::Retry | WatchRecovery::Relist => {}
        }
        self.report_failure(failure).await?;
        self.note(failure, is_listed);
        // A watch that reaches no server can well continue, and a whole fleet would list.
        if !failure.is_unsent() {
            self.failures += 1;
        }
        if recovery == WatchRecovery::Relist || (is_listed && self.failures >= RELIST_AFTER) {
            self.failures = 0;
            self.next = NextStep::List;
        }
        if recovery != WatchRecovery::Json {
            sleep(failure.retry_after() + self.pauses.failure()).await;
        }
        Ok(())
    }

    /// Records what a failure says about the next requests.
    fn note(&mut self, failure: &WatchFailure, is_listed: bool) {
        self.unconfirmed = is_listed;
        let has_pages = self.lists == ListForm::Pages;
        if matches!(self.next, NextStep::List) && (has_pages || self.versions.newest().is_some()) {
            // A list that fails from one version may succeed from another one, and the cache of the
            // API server does not divide a list into pages.
            self.next = NextStep::ListNewest;
        }
        match failure {
            // Another server may have what this one lacks, or answer.
            WatchFailure::Older | WatchFailure::Silent => self.distrust(),
            WatchFailure::Malformed(error) => {
                self.malformed += 1;
                if matches!(error, DecodeError::TooLarge) && self.lists == ListForm::Pages {
                    self.page_limit = (self.page_limit / 2).max(1);
                }
            }
            WatchFailure::MediaType(_) => self.malformed += 1,
            WatchFailure::Rejected(_)
            | WatchFailure::Ended(_)
            | WatchFailure::Connection(_)
            | WatchFailure::Broken(_)
            | WatchFailure::ClosedAtOnce
            | WatchFailure::Stalled => {}
        }
        if self.lists == ListForm::Stream && self.broken_lists > 1 {
            self.in_pages("two streaming lists broke off");
        }
    }

    /// Counts and logs a failure, at a level that fits it.
    pub(super) async fn report_failure(&mut self, failure: &WatchFailure) -> Result<(), Stopped> {
        let text = failure.describe();
        let server = self.server();
        let is_routine = failure.is_routine() && self.failures + 1 < RELIST_AFTER;
        if !is_routine {
            self.client.watches.failed(W::KIND, &text);
        }
        if is_routine || !self.logged.is_new(&failure.condition(), Instant::now()) {
            debug!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, server, "watch failed");
        } else if failure.is_forbidden() {
            error!(event = %LogEvent::WatchForbidden, error = %text, kind = %W::KIND, server, "watch forbidden by the API server");
        } else {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, server, "watch failed");
        }
        let interrupted = Event::Interrupted(W::KIND, failure.reason());
        self.report(interrupted).await
    }

    /// Switches to lists in pages.
    fn in_pages(&mut self, reason: &str) {
        debug!(%reason, kind = %W::KIND, "listing in pages for an hour");
        self.in_pages_since = Some(Instant::now());
    }

    /// Switches to JSON.
    fn accept_json(&mut self, reason: &str) {
        info!(event = %LogEvent::JsonOnly, error = %reason, kind = %W::KIND, "requesting JSON instead of protobuf for an hour");
        self.json_since = Some(Instant::now());
    }

    /// Continues without an optional kind; objects that were reported before stay.
    async fn continue_without(&mut self, error: &str) -> Result<(), Stopped> {
        self.client.watches.unavailable(W::KIND, error);
        if !self.unavailable {
            self.unavailable = true;
            let server = self.server();
            warn!(event = %LogEvent::KindUnavailable, %error, kind = %W::KIND, server, "kind unavailable; continuing without it");
        }
        self.next = NextStep::List;
        self.report_listed().await?;
        // For a moment after its start an API server answers 403 until it has its RBAC, and 404
        // until it serves every kind.
        sleep(self.pauses.unavailable()).await;
        Ok(())
    }
}
