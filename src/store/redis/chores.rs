//! What goes on beside the verbs, until the store is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::{Parts, agreement, guard, untold};
use crate::store::StoreError;

#[derive(Clone, Copy, Debug)]
enum Chore {
    /// Writes what was said about duplicates behind their answers.
    WriteNotes,
    /// News gives latency; this look at all partitions gives correctness.
    Look,
    /// Looks for work where there is none as far as this replica knows.
    LookAnew,
    /// Learns which types are paused by now, when there was news of it.
    HearPauses,
    /// Looks at the settings of Redis.
    Guard,
    /// Asks whether a silent Redis answers again.
    Probe,
    /// Tells of ends that an older release has told nobody of.
    TellEnds,
}

pub fn start(parts: &Arc<Parts>) {
    use Chore::{Guard, HearPauses, Look, LookAnew, Probe, TellEnds, WriteNotes};
    for chore in [
        WriteNotes, Look, LookAnew, HearPauses, Guard, Probe, TellEnds,
    ] {
        tokio::spawn(chore.run(Arc::downgrade(parts)));
    }
}

impl Chore {
    fn every(self) -> Duration {
        match self {
            Chore::WriteNotes => Duration::from_millis(50),
            Chore::Look => Duration::from_secs(1),
            Chore::LookAnew => Duration::from_secs(10),
            Chore::HearPauses => Duration::from_millis(25),
            Chore::Guard => guard::EVERY,
            Chore::Probe => Duration::from_millis(100),
            Chore::TellEnds => Duration::from_secs(30),
        }
    }

    async fn run(self, parts: Weak<Parts>) {
        let mut ticks = tokio::time::interval(self.every());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(parts) = parts.upgrade() else { return };
            if let Err(error) = self.once(&parts).await {
                tracing::debug!(chore = ?self, %error, "will be done later");
            }
        }
    }

    async fn once(self, parts: &Parts) -> Result<(), StoreError> {
        match self {
            Chore::WriteNotes => parts.write_notes().await,
            Chore::Look if parts.steps.marks().is_lost() => {
                agreement::report_loss(&parts.steps, &parts.keys).await
            }
            Chore::Look => {
                agreement::look(&parts.steps, &parts.keys).await?;
                parts.look().await?;
                parts.look_at_pauses().await?;
                parts.remember().await;
                Ok(())
            }
            Chore::LookAnew => {
                parts.horizon.work_anywhere();
                parts.signals.work_is_ready();
                Ok(())
            }
            Chore::HearPauses if parts.pauses.take_outdated() => parts.look_at_pauses().await,
            Chore::HearPauses => Ok(()),
            Chore::Guard => parts.guard.look(&parts.steps).await,
            Chore::Probe => {
                parts.steps.silence().probe(&parts.steps, &parts.keys).await;
                Ok(())
            }
            Chore::TellEnds => untold::tell(&parts.steps, &parts.keys).await,
        }
    }
}
