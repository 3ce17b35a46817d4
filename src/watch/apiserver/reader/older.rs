//! A list that is older than what was seen before, from an API server that lags behind, or after
//! etcd was restored from a backup.

use std::time::Duration;

use futures::StreamExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{NextStep, ReadEnd, Stopped, WatchReader};
use crate::config::ContentType;
use crate::watch::apiserver::answer::Frames;
use crate::watch::apiserver::decode::{self, WatchFrame};
use crate::watch::apiserver::failure::WatchFailure;
use crate::watch::apiserver::kinds::Watched;
use crate::watch::apiserver::version::ListAge;

impl<W: Watched> WatchReader<'_, W> {
    /// Follows the watch of an API server whose list is older: what exists there is reported, and
    /// what does not exist there is kept.
    ///
    /// Meanwhile it asks for the newest version. When an API server is new enough, or all stay older
    /// for too long, the reader lists again.
    pub(super) async fn follow_older(
        &mut self,
        mut watch: Option<(ContentType, Frames)>,
    ) -> Result<(), ReadEnd> {
        self.report_failure(&WatchFailure::Older).await?;
        loop {
            // Another API server may be newer.
            self.distrust();
            let accepted_at = self.versions.older_until(self.timeouts.older_lists);
            let check_at = next_check(Instant::now(), self.pauses.failure(), accepted_at);
            self.apply_until(check_at, &mut watch).await?;
            match self.newest_version().await {
                Ok(version) if self.judge(&version) != ListAge::Older => break,
                Ok(_older) => {}
                Err(failure) => self.report_failure(&failure).await?,
            }
        }
        self.next = NextStep::ListNewest;
        Ok(())
    }

    /// Reports the objects that a watch adds or changes, until a time.
    async fn apply_until(
        &mut self,
        end: Instant,
        watch: &mut Option<(ContentType, Frames)>,
    ) -> Result<(), Stopped> {
        while let Some((format, frames)) = watch {
            self.flush_before(frames).await?;
            let Ok(frame) = timeout_at(end, frames.next()).await else {
                return Ok(());
            };
            let frame = frame.and_then(Result::ok);
            match frame.map(|frame| decode::watch_frame::<W>(*format, frame)) {
                Some(Ok(WatchFrame::Applied(object))) => self.apply(&object).await?,
                // An object that is deleted here may have been created again.
                Some(Ok(WatchFrame::Deleted(_) | WatchFrame::Bookmark { .. })) => {}
                Some(Ok(WatchFrame::Failed(_)) | Err(_)) | None => *watch = None,
            }
        }
        self.flush().await?;
        sleep_until(end).await;
        Ok(())
    }
}

/// Returns the time of the next question for the newest version: after a pause, or when the older
/// versions are accepted.
fn next_check(now: Instant, pause: Duration, accepted_at: Option<Instant>) -> Instant {
    let pause_ends = now + pause;
    accepted_at
        .filter(|at| (now..pause_ends).contains(at))
        .unwrap_or(pause_ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_check_is_not_later_than_the_acceptance() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let pause = Duration::from_mins(1);
        assert_eq!(next_check(now, pause, None), after(60));
        assert_eq!(next_check(now, pause, Some(after(20))), after(20));
        assert_eq!(next_check(now, pause, Some(after(100))), after(60));
        // It was due, and the answer did not come.
        let late = Some(now).map(|at| at - Duration::from_secs(1));
        assert_eq!(next_check(now, pause, late), after(60));
    }
}
