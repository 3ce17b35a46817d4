//! The reader of one kind of object, from its first list on.

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

/// Lists and watches the objects of kind `W` until the receiver of `events` is dropped.
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
        unavailable_pauses: unavailable_pauses(timeouts.unavailable),
        logged: LoggedFailures::default(),
        streaming: true,
        broken_lists: 0,
        failures: 0,
        listed: false,
        unavailable: false,
        kind: PhantomData,
    };
    async move { while let Err(WatchEnd::Renew) = reader.run_watcher().await {} }.boxed()
}

/// The state of the reader of kind `W`.
struct WatchReader<'a, W> {
    /// The client of the API server.
    client: &'a Client,
    /// The name of this node.
    our_node: &'a str,
    /// The timeouts and pauses.
    timeouts: &'a WatchTimeouts,
    /// The channel of the events.
    events: &'a Sender<Events>,
    /// The names of the known objects.
    known: KnownNames,
    /// The pauses after failures.
    pauses: ResetTimerBackoff<ExponentialBackoff>,
    /// The pauses while the kind is unavailable.
    unavailable_pauses: ExponentialBackoff,
    /// The failures that are in the log.
    logged: LoggedFailures,
    /// Whether to use streaming lists; after a rejection, lists come in pages for good.
    streaming: bool,
    /// The number of consecutive streaming lists that the API server closed before their end.
    broken_lists: u32,
    /// The number of consecutive failures.
    failures: u32,
    /// Whether [`Event::Listed`] was reported.
    listed: bool,
    /// Whether the kind was logged as unavailable since its last list.
    unavailable: bool,
    /// The kind that the reader lists.
    kind: PhantomData<W>,
}

/// The longest pause after a failure, without jitter.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Builds the pauses after failures, with jitter; they start over after two minutes without one.
fn pauses(first: Duration) -> ResetTimerBackoff<ExponentialBackoff> {
    let pauses = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(MAX_PAUSE)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter();
    ResetTimerBackoff::new(pauses.into(), Duration::from_mins(2))
}

/// The number of consecutive failures after which the reader relists.
///
/// Not every server answers 410 if it cannot continue a watch.
const RELIST_AFTER: u32 = 6;

/// The first pause while a kind is unavailable; each later one is twice as long, up to
/// [`WatchTimeouts::unavailable`].
const FIRST_UNAVAILABLE_PAUSE: Duration = Duration::from_secs(2);

/// Builds the pauses while a kind is unavailable, with jitter since it is unavailable to all nodes.
fn unavailable_pauses(longest: Duration) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_UNAVAILABLE_PAUSE.min(longest))
        .with_max_delay(longest)
        .with_factor(2.0)
        .without_max_times()
        .with_jitter()
        .into()
}

/// The reason why a watcher ended.
enum WatchEnd {
    /// Start another watcher, which lists again.
    Renew,
    /// Stop: the receiver of the events is dropped.
    Stop,
}

impl<W: Watched> WatchReader<'_, W> {
    /// Runs one watcher to its end.
    async fn run_watcher(&mut self) -> Result<Infallible, WatchEnd> {
        let api = Api::<WatchedObject<W>>::all(self.client.clone());
        let mut stream = watcher::watcher(api, self.config()).boxed();
        let mut phase = WatchPhase::Connecting;
        loop {
            let next = match self.silence_limit(phase) {
                Some(limit) => match timeout(limit, stream.next()).await {
                    Ok(next) => next,
                    Err(_elapsed) => return Err(self.timed_out(phase).await),
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

    /// Returns the configuration of the watcher.
    fn config(&self) -> watcher::Config {
        let config = watcher::Config {
            label_selector: W::LABEL_SELECTOR.map(str::to_owned),
            field_selector: W::field_selector(self.our_node),
            ..watcher::Config::default()
        };
        let config = config.timeout(self.timeouts.watch);
        if self.streaming {
            config.streaming_lists()
        } else {
            config
        }
    }

    /// Returns how long the watcher may be silent; for a watch it has a timeout of its own.
    fn silence_limit(&self, phase: WatchPhase) -> Option<Duration> {
        match phase {
            WatchPhase::Listing if self.streaming => Some(self.timeouts.streaming_list),
            WatchPhase::Connecting | WatchPhase::Listing => Some(self.timeouts.answer),
            WatchPhase::Watching => None,
        }
    }

    /// Handles an event of the watcher; returns the phase after it.
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
                self.succeeded();
                self.apply(&slim).await.map(|()| WatchPhase::Watching)
            }
            watcher::Event::Delete(slim) => {
                self.succeeded();
                let key = slim.key();
                self.known.remove(&key.name);
                self.update(key, None).await.map(|()| WatchPhase::Watching)
            }
        }
    }

    /// Starts a list, or starts it over.
    async fn begin(&mut self, phase: WatchPhase) -> Result<WatchPhase, WatchEnd> {
        self.known.begin();
        if phase == WatchPhase::Listing {
            self.broken_lists += 1;
            debug!(kind = %W::KIND, "API server closed the list before its end");
            if self.streaming && self.broken_lists > 1 {
                return Err(self.in_pages("two streaming lists broke off"));
            }
            self.pause(Duration::ZERO).await;
        }
        Ok(WatchPhase::Listing)
    }

    /// Reports an object that exists.
    async fn apply(&mut self, slim: &WatchedObject<W>) -> Result<(), WatchEnd> {
        let update = slim.update(self.our_node);
        self.known.insert(&update.key.name);
        self.report(Event::Update(update)).await
    }

    /// Completes a list, and reports deleted objects.
    async fn finish(&mut self) -> Result<(), WatchEnd> {
        for name in self.known.finish() {
            let kind = W::KIND;
            self.update(ObjectKey { kind, name }, None).await?;
        }
        debug!(kind = %W::KIND, "listed");
        self.succeeded();
        self.unavailable = false;
        self.unavailable_pauses = unavailable_pauses(self.timeouts.unavailable);
        self.listed().await
    }

    /// Reports once that the kind is listed.
    async fn listed(&mut self) -> Result<(), WatchEnd> {
        if self.listed {
            return Ok(());
        }
        self.listed = true;
        self.report(Event::Listed(W::KIND)).await
    }

    /// Reports an object, or its deletion.
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

    /// Sends an event to the receiver.
    async fn report(&self, event: Event) -> Result<(), WatchEnd> {
        self.events
            .send(vec![event])
            .await
            .ok()
            .ok_or(WatchEnd::Stop)
    }

    /// Ends a series of failures, and logs that if there were any.
    fn succeeded(&mut self) {
        self.broken_lists = 0;
        self.failures = 0;
        self.pauses.reset();
        if self.logged.clear() {
            info!(event = %LogEvent::WatchRecovered, kind = %W::KIND, "watch recovered");
        }
    }

    /// Handles a failure; returns the phase after it.
    async fn failure(
        &mut self,
        error: &watcher::Error,
        phase: WatchPhase,
    ) -> Result<WatchPhase, WatchEnd> {
        let recovery = failure::recovery(error, phase, self.streaming, W::OPTIONAL);
        let text = failure::describe(error);
        match recovery {
            WatchRecovery::InPages => return Err(self.in_pages(&text)),
            WatchRecovery::Unavailable => return self.continue_without(&text).await,
            WatchRecovery::Retry | WatchRecovery::Relist => self.log(error, &text),
        }
        self.report(Event::Interrupted(W::KIND)).await?;
        self.pause(failure::retry_after(error)).await;
        self.failures += 1;
        if recovery == WatchRecovery::Relist || self.failures >= RELIST_AFTER {
            self.failures = 0;
            return Err(WatchEnd::Renew);
        }
        // The watcher itself starts a failed list over.
        let is_watching = phase == WatchPhase::Watching && !failure::relists_itself(error);
        Ok(if is_watching {
            WatchPhase::Watching
        } else {
            WatchPhase::Connecting
        })
    }

    /// Logs a failure, at a level that fits it.
    fn log(&mut self, error: &watcher::Error, text: &str) {
        if failure::is_routine(error) || !self.logged.is_new(text, Instant::now()) {
            debug!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        } else if failure::is_forbidden(error) {
            error!(event = %LogEvent::WatchForbidden, error = %text, kind = %W::KIND, "watch forbidden by the API server");
        } else {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        }
    }

    /// Handles a watcher that is silent for too long.
    async fn timed_out(&mut self, phase: WatchPhase) -> WatchEnd {
        let text = "no answer from the API server";
        if self.streaming && phase == WatchPhase::Listing {
            return self.in_pages(text);
        }
        if self.logged.is_new(text, Instant::now()) {
            warn!(event = %LogEvent::WatchFailed, error = %text, kind = %W::KIND, "watch failed");
        }
        self.pause(Duration::ZERO).await;
        WatchEnd::Renew
    }

    /// Switches to lists in pages.
    fn in_pages(&mut self, reason: &str) -> WatchEnd {
        debug!(%reason, kind = %W::KIND, "listing in pages from now on");
        self.streaming = false;
        WatchEnd::Renew
    }

    /// Continues without an optional kind; objects that were reported before stay.
    async fn continue_without(&mut self, error: &str) -> Result<WatchPhase, WatchEnd> {
        if !self.unavailable {
            self.unavailable = true;
            warn!(event = %LogEvent::KindUnavailable, %error, kind = %W::KIND, "kind unavailable; continuing without it");
        }
        self.listed().await?;
        // For a moment after its start an API server answers 403 until it has its RBAC, and 404
        // until it serves every kind.
        sleep(
            self.unavailable_pauses
                .next()
                .unwrap_or(self.timeouts.unavailable),
        )
        .await;
        Err(WatchEnd::Renew)
    }

    /// Pauses after a failure, with jitter.
    async fn pause(&mut self, at_least: Duration) {
        let pause = self.pauses.next().unwrap_or(MAX_PAUSE);
        // `Retry-After` gives every node the same pause; the jitter keeps a fleet from retrying at
        // one time.
        sleep(at_least + pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_rejected_at_one_time_retry_at_different_times() {
        let longest = Duration::from_mins(5);
        let pauses: Vec<Vec<_>> = (0..3)
            .map(|_| unavailable_pauses(longest).take(12).collect())
            .collect();
        assert_ne!(pauses[0], pauses[1]);
        assert_ne!(pauses[1], pauses[2]);
        for pauses in pauses {
            assert!((FIRST_UNAVAILABLE_PAUSE..FIRST_UNAVAILABLE_PAUSE * 2).contains(&pauses[0]));
            assert!((longest..longest * 2).contains(&pauses[11]));
        }
    }
}
