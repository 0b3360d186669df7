//! Submits what schedules have made due. Every replica does it: the store hands a schedule that is due to one of them
//! for a moment, and the key of a firing is the same wherever it comes from, so that it runs once.
//!
//! ```text
//! due ── put off for the others ──> submit under the firing's key ──> record where the schedule goes on
//! ```
//!
//! Why record after the submission, not before? A replica that is killed between the two submits again under the same
//! key, which changes nothing. The other way round, a firing would be lost.

mod firings;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::catalogue::Catalogue;
use crate::domain::callback::Callback;
use crate::domain::quota::Quotas;
use crate::domain::schedule::Schedule;
use crate::domain::submission::{DedupRequest, Start, Submission};
use crate::domain::task::TaskId;
use crate::domain::task_type::{DedupMode, TaskType};
use crate::domain::timestamp::Timestamp;
use crate::store::{
    Admission, Admitted, DueSchedule, Fired, Firing, ListFilter, Store, StoreError,
};

/// Looks again after this at the latest, whatever was said to be due.
const POLL: Duration = Duration::from_secs(1);
/// The store rounds to milliseconds, and may call something due a moment later than we do.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Schedules that one look takes up.
const SCHEDULES_MAX: usize = 100;
/// Schedules that fire at a time.
const TOGETHER_MAX: usize = 32;
/// Firings of one schedule that one look submits; then others have their turn.
const FIRINGS_MAX: usize = 100;
/// How long a replica has a schedule to itself, and how long one waits that could not be submitted.
const PUT_OFF: Duration = Duration::from_secs(5);
/// How long one waits that this release cannot read; another one may.
const UNREADABLE_FOR: Duration = Duration::from_secs(60);
/// The tag of tasks that schedules submit; its value is the schedule's name.
pub const TAG: &str = "schedule";

/// Fires until `stop` does.
pub async fn run(store: Arc<dyn Store>, types: Catalogue, quotas: Quotas, stop: CancellationToken) {
    let scheduler = Scheduler {
        store,
        types,
        quotas,
    };
    while !stop.is_cancelled() {
        let pause = match scheduler.look().await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::warn!(%error, "schedules that are due wait");
                POLL
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
            () = scheduler.store.signals().schedules() => {}
        }
    }
}

struct Scheduler {
    store: Arc<dyn Store>,
    types: Catalogue,
    quotas: Quotas,
}

/// What came of a firing that was to be submitted.
enum Submitted {
    /// Its task as far as it is known.
    Task(Option<TaskId>),
    NoRoom,
}

impl Scheduler {
    /// Fires what is due; gives how long there is nothing to do. Schedules of types that are not known here are left to
    /// replicas that know them. One that cannot be fired now keeps no other one waiting.
    async fn look(&self) -> Result<Duration, StoreError> {
        let types = self.types.now().names().map(str::to_owned).collect();
        let due = self.store.due_schedules(types, SCHEDULES_MAX).await?;
        let firings = stream::iter(due.schedules.into_iter().map(|due| self.fire(due)));
        let mut fired = firings.buffer_unordered(TOGETHER_MAX);
        let mut all = Ok(());
        while let Some(one) = fired.next().await {
            all = all.and(one);
        }
        all?;
        Ok(match due.next_due_in {
            Some(Duration::ZERO) => Duration::ZERO,
            Some(span) => span.clamp(PAUSE_MIN, POLL),
            None => POLL,
        })
    }

    /// Submits what a schedule has missed, as its user wants it, and what is due.
    async fn fire(&self, due: DueSchedule) -> Result<(), StoreError> {
        let DueSchedule { mut schedule, now } = due;
        let (Some(first), Some(task_type)) = (
            schedule.next_fire_at,
            self.types.get(&schedule.plan.task_type),
        ) else {
            return Ok(());
        };
        if !self
            .go_on(&mut schedule, None, Some(first), PUT_OFF)
            .await?
        {
            return Ok(());
        }
        let refused = |at, detail: String| {
            let outcome = Err(detail);
            Some(Fired { at, outcome })
        };
        let cadence = match schedule.plan.cadence() {
            Ok(cadence) => cadence,
            Err(error) => {
                let fired = refused(first, format!("the schedule cannot be read: {error}"));
                self.go_on(&mut schedule, fired, Some(first), UNREADABLE_FOR)
                    .await?;
                return Ok(());
            }
        };
        let due = firings::to_submit(&cadence, first, now, schedule.plan.missed);
        let Some(&last) = due.last() else {
            let next = cadence.next_after(now);
            self.go_on(&mut schedule, None, next, Duration::ZERO)
                .await?;
            return Ok(());
        };
        let taken = takes(&task_type, &schedule).and_then(|()| self.callback(&schedule));
        let callback = match taken {
            Ok(callback) => callback,
            Err(detail) => {
                let next = cadence.next_after(now);
                self.go_on(&mut schedule, refused(last, detail), next, Duration::ZERO)
                    .await?;
                return Ok(());
            }
        };
        let some = &due[..due.len().min(FIRINGS_MAX)];
        let what = (&task_type, callback.as_ref());
        let submitted = self.submit(&schedule, what, some).await?;
        let count = submitted.len();
        let newest = some[..count].last().copied().zip(submitted.last().cloned());
        let fired = newest.map(|(at, task)| Fired {
            at,
            outcome: Ok(task),
        });
        let next = due.get(count).copied();
        let put_off = match count == some.len() {
            true => Duration::ZERO,
            false => PUT_OFF,
        };
        let next = next.or_else(|| cadence.next_after(now));
        self.go_on(&mut schedule, fired, next, put_off).await?;
        Ok(())
    }

    /// Who is to be told of the ends, or what is wrong with that by now.
    fn callback(&self, schedule: &Schedule) -> Result<Option<Callback>, String> {
        let url = schedule.plan.callback_url.as_deref();
        let Some((url, deliveries)) = url.zip(self.types.get(Callback::TASK_TYPE)) else {
            return Ok(None);
        };
        Callback::to(url, &deliveries)
            .map(Some)
            .map_err(|wrong| format!("{}: {}", wrong.pointer, wrong.detail))
    }

    /// Whether the schedule was still as it is known here.
    async fn go_on(
        &self,
        schedule: &mut Schedule,
        fired: Option<Fired>,
        next_fire_at: Option<Timestamp>,
        put_off: Duration,
    ) -> Result<bool, StoreError> {
        let firing = Firing {
            user: schedule.user.clone(),
            name: schedule.name.clone(),
            revision: schedule.revision,
            next_revision: fastrand::u64(..Schedule::REVISION_MAX),
            fired,
            next_fire_at,
            put_off,
        };
        schedule.revision = firing.next_revision;
        self.store.record_firing(firing).await
    }

    /// Submits firings, or learns that they were submitted before. Gives their tasks as far as they are known, up to the
    /// first that there is no room for now.
    async fn submit(
        &self,
        schedule: &Schedule,
        (task_type, callback): (&Arc<TaskType>, Option<&Callback>),
        firings: &[Timestamp],
    ) -> Result<Vec<Option<TaskId>>, StoreError> {
        let admissions = firings
            .iter()
            .map(|&at| {
                let admission = admission(schedule, task_type, callback, at);
                admission.within(self.quotas.of(&schedule.user))
            })
            .collect();
        let admitted = self.store.admit_many(admissions).await;
        let mut tasks = Vec::new();
        for (&at, admitted) in firings.iter().zip(admitted) {
            let submitted = match admitted {
                Ok(admitted) => self.submitted(schedule, at, admitted).await,
                Err(error) => Err(error),
            };
            match submitted {
                Ok(Submitted::Task(task)) => tasks.push(task),
                Ok(Submitted::NoRoom) => break,
                // What was submitted before is recorded first.
                Err(error) if tasks.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(tasks)
    }

    async fn submitted(
        &self,
        schedule: &Schedule,
        at: Timestamp,
        admitted: Admitted,
    ) -> Result<Submitted, StoreError> {
        Ok(match admitted {
            Admitted::New(answer) | Admitted::Duplicate { answer, .. } => {
                Submitted::Task(Some(answer.task.id))
            }
            Admitted::Rejected(task) => Submitted::Task(Some(task.id)),
            // It was submitted before its schedule was changed.
            Admitted::KeyReused { .. } => {
                let filter = ListFilter {
                    key: Some(schedule.name.key_of_firing(at)),
                    limit: 1,
                    ..ListFilter::default()
                };
                let page = self.store.list(&schedule.user, filter).await?;
                Submitted::Task(page.tasks.into_iter().next().map(|task| task.id))
            }
            Admitted::KeyForgotten => Submitted::Task(None),
            Admitted::QueueFull | Admitted::QuotaExceeded { .. } | Admitted::FileUnknown(_) => {
                tracing::warn!(user = %schedule.user, name = %schedule.name, %at, "there is no room for a firing now");
                Submitted::NoRoom
            }
        })
    }
}

/// The type may have changed since the schedule was kept: a firing is held to the same rules as any submission. Its key
/// is its own, whatever the type asks for.
fn takes(task_type: &TaskType, schedule: &Schedule) -> Result<(), String> {
    let params = &schedule.plan.params;
    if let Some(missing) = task_type.files.missing(Some(params)) {
        return Err(missing);
    }
    let violations = task_type.violations(params);
    match &violations[..] {
        [] => Ok(()),
        [first, ..] => Err(format!("{}: {}", first.pointer, first.detail)),
    }
}

fn admission(
    schedule: &Schedule,
    task_type: &Arc<TaskType>,
    callback: Option<&Callback>,
    at: Timestamp,
) -> Admission {
    let submission = Submission {
        task_type: task_type.clone(),
        params: schedule.plan.params.clone(),
        files: Vec::new(),
        priority: None,
        // It has come, and the task knows which firing it is.
        start: Start::At(at),
        // One firing is not another, although both ask for the same.
        dedup: DedupRequest {
            mode: Some(DedupMode::None),
            ..DedupRequest::default()
        },
        tags: [(TAG.to_owned(), schedule.name.to_string())].into(),
        callback: callback.cloned(),
    };
    let request_id = format!("schedule-{}-{at}", schedule.name);
    let key = schedule.name.key_of_firing(at);
    Admission::new(
        schedule.user.clone(),
        Some(key),
        submission,
        request_id.into(),
    )
}
