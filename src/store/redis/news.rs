//! News between replicas: one channel on a connection of its own. It gives latency; after every gap
//! everything counts as unknown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use redis::Value;
use redis::aio::PubSub;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::agenda::Agenda;
use super::horizon::Horizon;
use super::keys::Partition;
use super::link::{Commands, RESPONSE_WAIT_MAX};
use super::pauses::Pauses;
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::store::signals::Signals;

const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A server may be gone without a word.
const PROBE_EVERY: Duration = Duration::from_secs(5);

pub struct Listener {
    pub link: Arc<dyn Commands>,
    pub channel: String,
    pub horizon: Arc<Horizon>,
    pub agenda: Arc<Agenda>,
    pub signals: Signals,
    pub pauses: Arc<Pauses>,
    pub stop: CancellationToken,
}

impl Listener {
    pub async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.listen() => {}
        }
    }

    async fn listen(&self) {
        let mut pause = PAUSE;
        loop {
            match self.link.subscribe(&self.channel).await {
                Ok(subscribed) => {
                    pause = PAUSE;
                    self.catch_up();
                    self.hear_all(subscribed).await;
                    tracing::warn!("the connection for news between replicas has ended");
                }
                Err(error) => tracing::debug!(%error, "cannot listen for news between replicas"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Until the connection ends, or falls silent.
    async fn hear_all(&self, subscribed: PubSub) {
        let (mut probe, mut messages) = subscribed.split();
        let mut probes = interval(PROBE_EVERY);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => {
                        self.hear(&String::from_utf8_lossy(message.get_payload_bytes()));
                    }
                    None => return,
                },
                _ = probes.tick() => {
                    let answer = timeout(RESPONSE_WAIT_MAX, probe.ping::<Value>()).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }

    fn catch_up(&self) {
        self.horizon.is_unknown();
        self.agenda.is_unknown();
        self.pauses.have_changed();
        self.signals.work_is_ready();
        self.signals.due_is_sooner();
        self.signals.schedules_have_changed();
        self.signals.news_were_missed();
    }

    /// `work p07` · `due p07 1732…` · `pauses p00` · `schedules p07` · `task id id …`
    pub fn hear(&self, news: &str) {
        let mut words = news.split(' ');
        let (kind, about) = (words.next(), words.next().unwrap_or_default());
        match (kind, Partition::parse(about)) {
            (Some("work"), Some(partition)) => {
                self.horizon.work(partition);
                self.signals.work_is_ready();
            }
            (Some("due"), Some(partition)) => {
                if let Some(at) = words.next().and_then(|ms| ms.parse().ok()) {
                    self.horizon.due(partition, Timestamp::from_ms(at));
                    self.signals.due_is_sooner();
                }
            }
            (Some("schedules"), Some(partition)) => {
                self.agenda.changed(partition);
                self.signals.schedules_have_changed();
            }
            (Some("pauses"), Some(_)) => self.pauses.have_changed(),
            (Some("task"), None) => {
                for id in news.split(' ').skip(1).filter_map(TaskId::parse) {
                    self.signals.task_changed(&id);
                }
            }
            _ => tracing::debug!(news, "news that this release does not know"),
        }
    }
}
