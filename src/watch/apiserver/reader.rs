//! One kind of object, from its first list on.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, ExponentialBackoff};
use kube::{Api, Client};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::WatchTimeouts;
use super::failure::{self, LoggedFailures, WatchPhase, WatchRecovery};
use super::kinds::Watched;
use super::known::KnownNames;
use super::slim::WatchedObject;
use crate::logging::LogEvent;
use crate::planner::model::{Event, Events, Object, ObjectKey, Update};

/// Reads the objects of kind `W` and reports them until nobody receives `events`.
pub(super) fn read<'a, W: Watched>(
    client: &'a Client,
    our_node: &'a str,
    timeouts: &'a WatchTimeouts,
    events: &'a Sender<Events>,
) -> BoxFuture<'a, ()> {
    let mut reader = WatchReader::<W> {
        client,
        our_node,
        timeouts,
        events,
        known: KnownNames::default(),
        pauses: pauses(timeouts.first_pause),
        absences: absences(timeouts.unavailable),
        told: LoggedFailures::default(),
        streaming: true,
        cut_off: 0,
        failures: 0,
        listed: false,
        without: false,
        kind: PhantomData,
    };
    async move { while let Err(WatchEnd::Renew) = reader.follow().await {} }.boxed()
}

struct WatchReader<'a, W> {
    client: &'a Client,
    our_node: &'a str,
    timeouts: &'a WatchTimeouts,
    events: &'a Sender<Events>,
    known: KnownNames,
    pauses: ResetTimerBackoff<ExponentialBackoff>,
    /// The pauses while it is unavailable.
    absences: ExponentialBackoff,
    told: LoggedFailures,
    /// Whether lists are asked for as streams; once refused, always in pages.
    streaming: bool,
    /// Streaming lists in a row that the API server closed before their end.
    cut_off: u32,
    /// Failures in a row.
    failures: u32,
    /// Whether [`Event::Listed`] was reported.
    listed: bool,
    /// Whether this kind was reported as unavailable since it was last listed.
    without: bool,
    kind: PhantomData<W>,
}

/// With jitter; from the first one again when the last is long ago.
fn pauses(first: Duration) -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .without_max_times()
        .with_jitter();
    ResetTimerBackoff::new(pauses.into(), Duration::from_mins(2))
}

/// A place that cannot be watched from so many times in a row is given up, and all listed again: not
/// every server says 410 of a place that it has lost.
const RELIST_AFTER: u32 = 6;

/// How long after a kind was unavailable it is asked for again; each time in a row twice as long, up to
/// [`WatchTimeouts::unavailable`].
const FIRST_ABSENCE: Duration = Duration::from_secs(2);

/// With jitter: all nodes are refused at the same time.
fn absences(longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_ABSENCE.min(longest))
        .with_max_delay(longest)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .into()
}

/// The watcher is of no more use: make another, or stop when nobody receives events.
enum WatchEnd {
    Renew,
    Stop,
}

impl<W: Watched> WatchReader<'_, W> {
    /// The life of one watcher.
    async fn follow(&mut self) -> Result<Infallible, WatchEnd> {
        let api = Api::<WatchedObject<W>>::all(self.client.clone());
        let mut stream = watcher::watcher(api, self.config()).boxed();
        let mut phase = WatchPhase::Connecting;
        loop {
            let next = match self.patience(phase) {
                Some(limit) => match timeout(limit, stream.next()).await {
                    Ok(next) => next,
                    Err(_elapsed) => return Err(self.silence(phase).await),
                },
                None => stream.next().await,
            };
            phase = match next {
                Some(Ok(event)) => self.event(event, phase).await?,
                Some(Err(error)) => self.failure(&error, phase).await?,
                None => return Err(WatchEnd::Renew),
            };
        }
    }

    fn config(&self) -> watcher::Config {
        let config = watcher::Config {
            label_selector: W::LABELS.map(str::to_owned),
            field_selector: W::fields(self.our_node),
            ..watcher::Config::default()
        };
        let config = config.timeout(self.timeouts.watch);
        if self.streaming {
            config.streaming_lists()
        } else {
            config
        }
    }

    /// How long the watcher may be silent. It looks after a watch by itself.
    fn patience(&self, phase: WatchPhase) -> Option<Duration> {
        match phase {
            WatchPhase::Listing if self.streaming => Some(self.timeouts.streaming_list),
            WatchPhase::Connecting | WatchPhase::Listing => Some(self.timeouts.answer),
            WatchPhase::Watching => None,
        }
    }

    async fn event(
        &mut self,
        event: watcher::Event<WatchedObject<W>>,
        phase: WatchPhase,
    ) -> Result<WatchPhase, WatchEnd> {
        match event {
            watcher::Event::Init => self.begin(phase).await,
            watcher::Event::InitApply(slim) => {
                self.apply(&slim).await.map(|()| WatchPhase::Listing)
            }
            watcher::Event::InitDone => self.finish().await.map(|()| WatchPhase::Watching),
            watcher::Event::Apply(slim) => {
                self.well();
                self.apply(&slim).await.map(|()| WatchPhase::Watching)
            }
            watcher::Event::Delete(slim) => {
                self.well();
                let key = slim.key();
                self.known.remove(&key.name);
                self.update(key, None).await.map(|()| WatchPhase::Watching)
            }
        }
    }

    async fn begin(&mut self, phase: WatchPhase) -> Result<WatchPhase, WatchEnd> {
        self.known.begin();
        if phase == WatchPhase::Listing {
            self.cut_off += 1;
            debug!(kind = %W::KIND, "API server closed the list before its end");
            if self.streaming && self.cut_off > 1 {
                return Err(self.in_pages("two streaming lists broke off"));
            }
            self.pause(Duration::ZERO).await;
        }
        Ok(WatchPhase::Listing)
    }

    async fn apply(&mut self, slim: &WatchedObject<W>) -> Result<(), WatchEnd> {
        let update = slim.update(self.our_node);
        self.known.insert(&update.key.name);
        self.report(Event::Update(update)).await
    }

    async fn finish(&mut self) -> Result<(), WatchEnd> {
        for name in self.known.finish() {
            let kind = W::KIND;
            self.update(ObjectKey { kind, name }, None).await?;
        }
        debug!(kind = %W::KIND, "listed");
        self.well();
        self.without = false;
        self.absences = absences(self.timeouts.unavailable);
        self.listed().await
    }

    async fn listed(&mut self) -> Result<(), WatchEnd> {
        if self.listed {
            return Ok(());
        }
        self.listed = true;
        self.report(Event::Listed(W::KIND)).await
    }

    async fn update(&self, key: ObjectKey, object: Option<Object>) -> Result<(), WatchEnd> {
        let rejected = Vec::new();
        let update = Update {
            key,
            object,
            rejected,
            triggered: None,
        };
        self.report(Event::Update(update)).await
    }

    async fn report(&self, event: Event) -> Result<(), WatchEnd> {
        self.events
            .send(vec![event])
            .await
            .ok()
            .ok_or(WatchEnd::Stop)
    }

    fn well(&mut self) {
        self.cut_off = 0;
        self.failures = 0;
        self.pauses.reset();
        if self.told.forget() {
            info!(event = %LogEvent::WatchRecovered, kind = %W::KIND, "watch recovered");
        }
    }

    async fn failure(
        &mut self,
        error: &watcher::Error,
        phase: WatchPhase,
    ) -> Result<WatchPhase, WatchEnd> {
        let remedy = failure::remedy(error, phase, self.streaming, W::OPTIONAL);
        let text = failure::text(error);
        match remedy {
            WatchRecovery::InPages => return Err(self.in_pages(&text)),
            WatchRecovery::Without => return self.without(&text).await,
            WatchRecovery::Again | WatchRecovery::Relist => self.tell(error, &text),
        }
        self.report(Event::Interrupted(W::KIND)).await?;
        self.pause(failure::retry_after(error)).await;
        self.failures += 1;
        if remedy == WatchRecovery::Relist || self.failures >= RELIST_AFTER {
            self.failures = 0;
            return Err(WatchEnd::Renew);
        }
        // A list that fails is begun again by the watcher.
        let is_watching = phase == WatchPhase::Watching && !failure::loses_place(error);
        Ok(if is_watching {
            WatchPhase::Watching
        } else {
            WatchPhase::Connecting
        })
    }

    fn tell(&mut self, error: &watcher::Error, text: &str) {
        if failure::is_routine(error) || !self.told.is_news(text, Instant::now()) {
            debug!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        } else if failure::is_refusal(error) {
            error!(event = %LogEvent::WatchForbidden, error = %text, kind = %W::KIND, "watch forbidden by the API server");
        } else {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        }
    }

    async fn silence(&mut self, phase: WatchPhase) -> WatchEnd {
        let text = "no answer from the API server";
        if self.streaming && phase == WatchPhase::Listing {
            return self.in_pages(text);
        }
        if self.told.is_news(text, Instant::now()) {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        }
        self.pause(Duration::ZERO).await;
        WatchEnd::Renew
    }

    fn in_pages(&mut self, reason: &str) -> WatchEnd {
        debug!(%reason, kind = %W::KIND, "listing in pages from now on");
        self.streaming = false;
        WatchEnd::Renew
    }

    /// What was reported before stays: it is no news that any of it is gone.
    async fn without(&mut self, error: &str) -> Result<WatchPhase, WatchEnd> {
        if !self.without {
            self.without = true;
            warn!(event = %LogEvent::KindUnavailable, %error, kind = %W::KIND, "kind unavailable; continuing without it");
        }
        self.listed().await?;
        // For a moment after its start an API server answers 403 until it has its RBAC, and 404 until it
        // serves every kind.
        sleep(self.absences.next().unwrap_or(self.timeouts.unavailable)).await;
        Err(WatchEnd::Renew)
    }

    async fn pause(&mut self, at_least: Duration) {
        let pause = self.pauses.next().unwrap_or_default();
        // `Retry-After` gives every node the same pause; the jitter keeps a fleet from retrying at one time.
        sleep(at_least + pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_refused_at_one_time_do_not_ask_again_at_one_time() {
        let longest = Duration::from_mins(5);
        let pauses: Vec<Vec<_>> = (0..3)
            .map(|_| absences(longest).take(12).collect())
            .collect();
        assert_ne!(pauses[0], pauses[1]);
        assert_ne!(pauses[1], pauses[2]);
        for pauses in pauses {
            assert!((FIRST_ABSENCE..FIRST_ABSENCE * 2).contains(&pauses[0]));
            assert!((longest..longest * 2).contains(&pauses[11]));
        }
    }
}
