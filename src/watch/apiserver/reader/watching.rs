//! A watch, from a version on.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::{NextStep, ReadEnd, WatchReader};
use crate::config::ContentType;
use crate::watch::apiserver::answer::Frames;
use crate::watch::apiserver::decode::{self, WatchFrame};
use crate::watch::apiserver::failure::WatchFailure;
use crate::watch::apiserver::kinds::Watched;
use crate::watch::apiserver::version::{ListAge, ResourceVersion};

/// A watch that ends within this time without an event was closed at once, as in client-go.
const SHORT_WATCH: Duration = Duration::from_secs(1);

impl<W: Watched> WatchReader<'_, W> {
    /// Watches the objects from a version on.
    pub(super) async fn watch(&mut self, after: &ResourceVersion) -> Result<(), ReadEnd> {
        let (format, frames) = self.open_watch(self.requests.watch::<W>(after)).await?;
        self.client.watches.continued(W::KIND);
        self.follow(format, frames).await
    }

    /// Follows a watch to its end.
    pub(super) async fn follow(
        &mut self,
        format: ContentType,
        mut frames: Frames,
    ) -> Result<(), ReadEnd> {
        let start = Instant::now();
        let end = start + self.requests.longest_watch();
        let confirmed_by = start + self.timeouts.confirmation;
        let mut is_empty = true;
        loop {
            self.flush_before(&mut frames).await?;
            let checks = self.unconfirmed && confirmed_by < end;
            let limit = if checks { confirmed_by } else { end };
            let frame = match timeout_at(limit, frames.next()).await {
                Ok(Some(frame)) => frame?,
                Ok(None) if is_empty && start.elapsed() < SHORT_WATCH => {
                    return Err(WatchFailure::ClosedAtOnce.into());
                }
                Ok(None) => {
                    // A watch that ends before its timeout ends with its API server.
                    self.unconfirmed |= start.elapsed() < self.requests.shortest_watch();
                    return Ok(());
                }
                Err(_elapsed) if checks => {
                    self.confirm().await?;
                    continue;
                }
                Err(_elapsed) => return Err(WatchFailure::Silent.into()),
            };
            is_empty = false;
            match decode::watch_frame::<W>(format, frame).map_err(WatchFailure::from)? {
                WatchFrame::Applied(object) => {
                    self.advance(object.version())?;
                    self.apply(&object).await?;
                }
                WatchFrame::Deleted(object) => {
                    self.advance(object.version())?;
                    let key = object.key();
                    self.known.remove(&key.name);
                    self.received();
                    self.update(key, None).await?;
                }
                WatchFrame::Bookmark { version, .. } => {
                    self.advance(Some(version))?;
                    self.received();
                }
                WatchFrame::Failed(status) => return Err(WatchFailure::Ended(status).into()),
            }
        }
    }

    /// Checks that the API server still has the version after which the watch continues.
    ///
    /// A watch of a later version than the newest one is silent, for a restored etcd for hours
    /// (kubernetes/kubernetes 107457). A bookmark, once a minute, makes the check needless.
    async fn confirm(&mut self) -> Result<(), WatchFailure> {
        let watched = self.server.clone();
        let version = self.newest_version().await?;
        if self.judge(&version) != ListAge::Current {
            self.next = NextStep::ListNewest;
            return Err(WatchFailure::Older);
        }
        self.unconfirmed = false;
        // Another server may have answered.
        self.server = watched;
        Ok(())
    }

    /// Records the version of a watch event, after a success.
    fn advance(&mut self, version: Option<ResourceVersion>) -> Result<(), WatchFailure> {
        let version = version.ok_or(WatchFailure::Malformed(decode::DecodeError::NoVersion))?;
        self.versions.record(&version);
        self.next = NextStep::Watch(version);
        self.unconfirmed = false;
        self.succeeded();
        Ok(())
    }
}
