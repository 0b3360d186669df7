//! The heartbeat of a lease.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Workshop;
use crate::domain::task::Progress;
use crate::failpoints::FailPoint;
use crate::store::{Fenced, Held};

/// Renews one lease in good time, and carries progress to the store.
pub struct Pulse {
    shop: Workshop,
    held: Held,
    /// Until when the lease is ours for certain, by our own clock from before the renewal.
    until: Instant,
    beat_at: Instant,
    beaten_at: Option<Instant>,
    progress: Option<Progress>,
}

/// What the store said to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Held,
    /// The attempt should stop: its result would be refused.
    CancelRequested,
    Lost,
}

/// At most four progress reports a second.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// After a heartbeat that failed, in shares of the lease.
const RETRY_SHARE: u32 = 10;

impl Pulse {
    pub fn new(shop: Workshop, held: Held, leased_at: Instant) -> Self {
        Pulse {
            until: leased_at + held.lease,
            beat_at: leased_at + held.lease / 3,
            beaten_at: None,
            progress: None,
            shop,
            held,
        }
    }

    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Until when the lease is ours for certain.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Takes the newest progress along: at once, unless there was a report just now.
    pub fn take(&mut self, progress: Progress) {
        self.progress = Some(progress);
        let now = Instant::now();
        let earliest = self.beaten_at.map_or(now, |at| at + PROGRESS_EVERY);
        self.beat_at = self.beat_at.min(earliest.max(now));
    }

    /// What was told and not carried yet goes before the end; without any this costs nothing.
    pub async fn last_progress(&mut self, heard: &mut mpsc::Receiver<Progress>) {
        while let Ok(progress) = heard.try_recv() {
            self.progress = Some(progress);
        }
        if self.progress.is_some() {
            self.beat().await;
        }
    }

    /// The next heartbeat is due at once.
    pub fn hurry(&mut self) {
        self.beat_at = Instant::now();
    }

    /// Resolves when the next heartbeat is due. May be dropped and called again.
    pub async fn due(&self) {
        tokio::time::sleep_until(self.beat_at).await;
    }

    /// One heartbeat.
    pub async fn beat(&mut self) -> Beat {
        FailPoint::BeforeHeartbeat.reached();
        let began = Instant::now();
        let carried = self.progress.take();
        let answer = self.shop.store.extend(self.held.clone(), carried.clone());
        match answer.await {
            Ok(Fenced::Recorded(extension)) => {
                self.until = began + self.held.lease;
                self.beaten_at = Some(began);
                self.beat_at = began + self.held.lease / 3;
                match extension.cancel_requested {
                    true => Beat::CancelRequested,
                    false => Beat::Held,
                }
            }
            Ok(Fenced::Lost) => Beat::Lost,
            // Unknown whether it was renewed: ask again soon, and give up when the lease may be over.
            Err(error) => {
                tracing::warn!(task = %self.held.task, %error, "a heartbeat failed");
                self.progress = carried;
                let now = Instant::now();
                self.beat_at = now + (self.held.lease / RETRY_SHARE).min(Duration::from_secs(1));
                if now >= self.until {
                    Beat::Lost
                } else {
                    Beat::Held
                }
            }
        }
    }
}
