//! Complete lists, as streams or in pages.

use futures::StreamExt;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{NextStep, PAGE_LIMIT, ReadEnd, Stopped, WatchReader};
use crate::logging::LogEvent;
use crate::planner::model::ObjectKey;
use crate::watch::apiserver::answer;
use crate::watch::apiserver::decode::{self, WatchFrame};
use crate::watch::apiserver::failure::WatchFailure;
use crate::watch::apiserver::kinds::Watched;
use crate::watch::apiserver::request::ListStart;
use crate::watch::apiserver::version::{ListAge, ResourceVersion};

impl<W: Watched> WatchReader<'_, W> {
    /// Lists the objects as a stream, and watches them in the same stream.
    pub(super) async fn list_as_stream(&mut self) -> Result<(), ReadEnd> {
        let start = match (&self.next, self.versions.newest()) {
            (NextStep::ListNewest, _) => ListStart::Newest,
            (_, Some(newest)) => ListStart::NotOlderThan(newest.clone()),
            (_, None) => ListStart::Cached,
        };
        let (format, mut frames) = self
            .open_watch(self.requests.streaming_list::<W>(&start))
            .await?;
        self.known.begin();
        loop {
            self.flush_before(&mut frames).await?;
            let next = timeout(self.timeouts.streaming_list, frames.next());
            let Some(frame) = next.await.map_err(|_elapsed| WatchFailure::Stalled)? else {
                self.broken_lists += 1;
                return Err(WatchFailure::ClosedAtOnce.into());
            };
            match decode::watch_frame::<W>(format, frame?).map_err(WatchFailure::from)? {
                WatchFrame::Applied(object) => self.apply(&object).await?,
                WatchFrame::Bookmark { version, ends_list } if ends_list => {
                    return match self.complete_list(&version).await? {
                        ListAge::Older => self.follow_older(Some((format, frames))).await,
                        ListAge::Current | ListAge::WentBack => self.follow(format, frames).await,
                    };
                }
                // Some API servers send what changes before they mark the end of the list.
                WatchFrame::Deleted(object) => self.known.unlist(&object.key().name),
                WatchFrame::Bookmark { .. } => {}
                WatchFrame::Failed(status) => return Err(WatchFailure::Ended(status).into()),
            }
        }
    }

    /// Lists the objects in pages.
    pub(super) async fn list_in_pages(&mut self) -> Result<(), ReadEnd> {
        self.known.begin();
        let start = match (&self.next, self.versions.newest()) {
            (NextStep::List, None) => ListStart::Cached,
            _ => ListStart::Newest,
        };
        let mut token = None;
        loop {
            let request = self
                .requests
                .page::<W>(&start, self.page_limit, token.as_deref());
            let answer = self.send(request).await?;
            let page = answer::page::<W>(answer, self.timeouts.answer).await?;
            for object in &page.items {
                self.apply(object).await?;
            }
            self.flush().await?;
            token = page.next;
            if token.is_none() {
                return match self.complete_list(&page.version).await? {
                    ListAge::Older => {
                        let watch = self.requests.watch::<W>(&page.version);
                        let watch = self.open_watch(watch).await.ok();
                        self.follow_older(watch).await
                    }
                    ListAge::Current | ListAge::WentBack => Ok(()),
                };
            }
        }
    }

    /// Completes a list, and reports deleted objects unless the list is older.
    async fn complete_list(&mut self, version: &ResourceVersion) -> Result<ListAge, Stopped> {
        let age = self.judge(version);
        match age {
            ListAge::Current => {}
            ListAge::Older => return Ok(age),
            ListAge::WentBack => warn!(
                event = %LogEvent::ApiServerWentBack, kind = %W::KIND, %version,
                server = self.server(),
                "the API server has lost its newer versions, as after a restore of etcd; \
                 following the older ones"
            ),
        }
        for name in self.known.finish() {
            let kind = W::KIND;
            self.update(ObjectKey { kind, name }, None).await?;
        }
        self.flush().await?;
        debug!(kind = %W::KIND, "listed");
        self.versions.restart(version);
        self.next = NextStep::Watch(version.clone());
        self.page_limit = PAGE_LIMIT;
        self.unconfirmed = false;
        self.unavailable = false;
        self.pauses.available();
        self.succeeded();
        self.client.watches.listed(W::KIND, self.known.len());
        self.report_listed().await?;
        Ok(age)
    }

    /// Asks for the newest version with a list of one object, which costs next to nothing.
    pub(super) async fn newest_version(&mut self) -> Result<ResourceVersion, WatchFailure> {
        let answer = self
            .send(self.requests.page::<W>(&ListStart::Newest, 1, None))
            .await?;
        let page = answer::page::<W>(answer, self.timeouts.answer).await?;
        Ok(page.version)
    }

    /// Judges a list by its version.
    pub(super) fn judge(&mut self, version: &ResourceVersion) -> ListAge {
        let patience = self.timeouts.older_lists;
        self.versions.judge(version, Instant::now(), patience)
    }
}
