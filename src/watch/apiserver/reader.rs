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

use super::Timeouts;
use super::failure::{self, Phase, Remedy, Told};
use super::kinds::Watched;
use super::known::Known;
use super::slim::Slim;
use crate::planner::model::{Event, Events, Object, ObjectKey, Update};

/// Reads the objects of kind `W` and reports them until nobody receives `events`.
pub(super) fn read<'a, W: Watched>(
    client: &'a Client,
    our_node: &'a str,
    timeouts: &'a Timeouts,
    events: &'a Sender<Events>,
) -> BoxFuture<'a, ()> {
    let mut reader = Reader::<W> {
        client,
        our_node,
        timeouts,
        events,
        known: Known::default(),
        pauses: pauses(timeouts.first_pause),
        absences: absences(timeouts.unavailable),
        told: Told::default(),
        streaming: true,
        cut_off: 0,
        failures: 0,
        listed: false,
        without: false,
        kind: PhantomData,
    };
    async move { while let Err(End::Renew) = reader.follow().await {} }.boxed()
}

struct Reader<'a, W> {
    client: &'a Client,
    our_node: &'a str,
    timeouts: &'a Timeouts,
    events: &'a Sender<Events>,
    known: Known,
    pauses: ResetTimerBackoff<ExponentialBackoff>,
    /// The pauses while it is unavailable.
    absences: ExponentialBackoff,
    told: Told,
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
/// [`Timeouts::unavailable`].
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
enum End {
    Renew,
    Stop,
}

impl<W: Watched> Reader<'_, W> {
    /// The life of one watcher.
    async fn follow(&mut self) -> Result<Infallible, End> {
        let api = Api::<Slim<W>>::all(self.client.clone());
        let mut stream = watcher::watcher(api, self.config()).boxed();
        let mut phase = Phase::Connecting;
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
                None => return Err(End::Renew),
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
    fn patience(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Listing if self.streaming => Some(self.timeouts.streaming_list),
            Phase::Connecting | Phase::Listing => Some(self.timeouts.answer),
            Phase::Watching => None,
        }
    }

    async fn event(&mut self, event: watcher::Event<Slim<W>>, phase: Phase) -> Result<Phase, End> {
        match event {
            watcher::Event::Init => self.begin(phase).await,
            watcher::Event::InitApply(slim) => self.apply(&slim).await.map(|()| Phase::Listing),
            watcher::Event::InitDone => self.finish().await.map(|()| Phase::Watching),
            watcher::Event::Apply(slim) => {
                self.well();
                self.apply(&slim).await.map(|()| Phase::Watching)
            }
            watcher::Event::Delete(slim) => {
                self.well();
                let key = slim.key();
                self.known.remove(&key.name);
                self.update(key, None).await.map(|()| Phase::Watching)
            }
        }
    }

    async fn begin(&mut self, phase: Phase) -> Result<Phase, End> {
        self.known.begin();
        if phase == Phase::Listing {
            self.cut_off += 1;
            debug!(kind = %W::KIND, "The API server closed a list before its end");
            if self.streaming && self.cut_off > 1 {
                return Err(self.in_pages("two streaming lists broke off"));
            }
            self.pause(Duration::ZERO).await;
        }
        Ok(Phase::Listing)
    }

    async fn apply(&mut self, slim: &Slim<W>) -> Result<(), End> {
        let update = slim.update(self.our_node);
        self.known.insert(&update.key.name);
        self.report(Event::Update(update)).await
    }

    async fn finish(&mut self) -> Result<(), End> {
        for name in self.known.finish() {
            let kind = W::KIND;
            self.update(ObjectKey { kind, name }, None).await?;
        }
        debug!(kind = %W::KIND, "Listed");
        self.well();
        self.without = false;
        self.absences = absences(self.timeouts.unavailable);
        self.listed().await
    }

    async fn listed(&mut self) -> Result<(), End> {
        if self.listed {
            return Ok(());
        }
        self.listed = true;
        self.report(Event::Listed(W::KIND)).await
    }

    async fn update(&self, key: ObjectKey, object: Option<Object>) -> Result<(), End> {
        let rejected = Vec::new();
        let update = Update {
            key,
            object,
            rejected,
            triggered: None,
        };
        self.report(Event::Update(update)).await
    }

    async fn report(&self, event: Event) -> Result<(), End> {
        self.events.send(vec![event]).await.ok().ok_or(End::Stop)
    }

    fn well(&mut self) {
        self.cut_off = 0;
        self.failures = 0;
        self.pauses.reset();
        if self.told.forget() {
            info!(kind = %W::KIND, "The API server answers again");
        }
    }

    async fn failure(&mut self, error: &watcher::Error, phase: Phase) -> Result<Phase, End> {
        let remedy = failure::remedy(error, phase, self.streaming, W::OPTIONAL);
        let text = failure::text(error);
        match remedy {
            Remedy::InPages => return Err(self.in_pages(&text)),
            Remedy::Without => return self.without(&text).await,
            Remedy::Again | Remedy::Relist => self.tell(error, &text),
        }
        self.report(Event::Interrupted(W::KIND)).await?;
        self.pause(failure::retry_after(error)).await;
        self.failures += 1;
        if remedy == Remedy::Relist || self.failures >= RELIST_AFTER {
            self.failures = 0;
            return Err(End::Renew);
        }
        // A list that fails is begun again by the watcher.
        let is_watching = phase == Phase::Watching && !failure::loses_place(error);
        Ok(if is_watching {
            Phase::Watching
        } else {
            Phase::Connecting
        })
    }

    fn tell(&mut self, error: &watcher::Error, text: &str) {
        if failure::is_routine(error) || !self.told.is_news(text, Instant::now()) {
            debug!(error = %text, kind = %W::KIND, "A watch failed");
        } else if failure::is_refusal(error) {
            error!(error = %text, kind = %W::KIND, "The API server refuses to be watched");
        } else {
            warn!(error = %text, kind = %W::KIND, "The API server cannot be watched");
        }
    }

    async fn silence(&mut self, phase: Phase) -> End {
        let text = "no answer from the API server";
        if self.streaming && phase == Phase::Listing {
            return self.in_pages(text);
        }
        if self.told.is_news(text, Instant::now()) {
            warn!(error = %text, kind = %W::KIND, "The API server cannot be watched");
        }
        self.pause(Duration::ZERO).await;
        End::Renew
    }

    fn in_pages(&mut self, reason: &str) -> End {
        debug!(%reason, kind = %W::KIND, "Listing in pages from now on");
        self.streaming = false;
        End::Renew
    }

    /// What was reported before stays: it is no news that any of it is gone.
    async fn without(&mut self, error: &str) -> Result<Phase, End> {
        if !self.without {
            self.without = true;
            warn!(%error, kind = %W::KIND, "Going on without this kind of object");
        }
        self.listed().await?;
        // For a moment after its start an API server answers 403 until it has its RBAC, and 404 until it
        // serves every kind.
        sleep(self.absences.next().unwrap_or(self.timeouts.unavailable)).await;
        Err(End::Renew)
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
