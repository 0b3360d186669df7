//! Wake-ups from a store to those who wait. A signal gives latency; a poll gives correctness.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::domain::task::TaskId;

/// Shared by one store and everyone who waits on it.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    work: Notify,
    due: Notify,
    tasks: Mutex<HashMap<TaskId, Waiters>>,
    /// Those who wait for work of some types on behalf of others.
    lines: Mutex<HashMap<Vec<String>, Waiters>>,
}

#[derive(Debug)]
struct Waiters {
    count: usize,
    notify: Arc<Notify>,
}

impl Signals {
    /// Tasks have become ready to run.
    pub fn work_is_ready(&self) {
        self.0.work.notify_one();
        for line in self.lines().values() {
            line.notify.notify_one();
        }
    }

    /// A place in the line of those who wait for work of these types.
    pub fn line(&self, types: &[String]) -> Line {
        let mut lines = self.lines();
        let waiters = lines.entry(types.to_vec()).or_insert_with(|| Waiters {
            count: 0,
            notify: Arc::default(),
        });
        waiters.count += 1;
        Line {
            types: types.to_vec(),
            signals: self.clone(),
            notify: waiters.notify.clone(),
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<Vec<String>, Waiters>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at once when work has become ready since the last call.
    pub async fn work(&self) {
        self.0.work.notified().await;
    }

    /// Something will be due sooner than was known.
    pub fn due_is_sooner(&self) {
        self.0.due.notify_one();
    }

    pub async fn due(&self) {
        self.0.due.notified().await;
    }

    pub fn task_changed(&self, id: &TaskId) {
        if let Some(waiters) = self.tasks().get(id) {
            waiters.notify.notify_waiters();
        }
    }

    pub fn watch(&self, id: &TaskId) -> Watch {
        let mut tasks = self.tasks();
        let waiters = tasks.entry(id.clone()).or_insert_with(|| Waiters {
            count: 0,
            notify: Arc::default(),
        });
        waiters.count += 1;
        let mut next = Box::pin(waiters.notify.clone().notified_owned());
        next.as_mut().enable();
        Watch {
            id: id.clone(),
            signals: self.clone(),
            notify: waiters.notify.clone(),
            next,
        }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TaskId, Waiters>> {
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Registered from its creation on: a change between that and [`Watch::changed`] is not missed.
#[derive(Debug)]
pub struct Watch {
    id: TaskId,
    signals: Signals,
    notify: Arc<Notify>,
    next: std::pin::Pin<Box<tokio::sync::futures::OwnedNotified>>,
}

impl Watch {
    /// Resolves when the task has changed since the last call, or since the watch began.
    pub async fn changed(&mut self) {
        self.next.as_mut().await;
        self.next.set(self.notify.clone().notified_owned());
        self.next.as_mut().enable();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut tasks = self.signals.tasks();
        if let Some(waiters) = tasks.get_mut(&self.id) {
            waiters.count -= 1;
            if waiters.count == 0 {
                tasks.remove(&self.id);
            }
        }
    }
}

/// One of those who wait in turn for the same work, on behalf of workers outside. News of work calls the first of them only, since most
/// often there is something for one; whoever takes as much as it can calls the next.
#[derive(Debug)]
pub struct Line {
    types: Vec<String>,
    signals: Signals,
    notify: Arc<Notify>,
}

impl Line {
    /// Resolves when it is one's turn to look for work. A call that nobody answered is kept for the next one who
    /// waits.
    pub async fn called(&self) {
        self.notify.notified().await;
    }

    /// There may be more than was taken.
    pub fn call_next(&self) {
        self.notify.notify_one();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut lines = self.signals.lines();
        if let Some(waiters) = lines.get_mut(&self.types) {
            waiters.count -= 1;
            if waiters.count == 0 {
                lines.remove(&self.types);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::principal::UserId;

    #[tokio::test]
    async fn a_change_between_registering_and_waiting_is_not_missed() {
        let signals = Signals::default();
        let id = TaskId::random(&UserId::anonymous());
        let mut watch = signals.watch(&id);
        signals.task_changed(&id);
        watch.changed().await;
        signals.task_changed(&id);
        watch.changed().await;
        drop(watch);
        assert!(signals.tasks().is_empty());
    }

    #[tokio::test]
    async fn news_of_work_calls_one_of_each_line_and_the_next_when_there_is_more() {
        use futures_util::FutureExt;
        let signals = Signals::default();
        let [a, b] = ["a", "b"].map(|name| vec![name.to_owned()]);
        let lines = [signals.line(&a), signals.line(&a), signals.line(&b)];
        let [first, second, other] = &lines;
        let mut waiting = [first.called().boxed(), second.called().boxed()];
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        signals.work_is_ready();
        let called = waiting.iter_mut().map(|one| one.now_or_never().is_some());
        assert_eq!(called.collect::<Vec<_>>(), [true, false]);
        first.call_next();
        let [_, second_called] = &mut waiting;
        second_called.await;
        // News that came while nobody waited is kept.
        other.called().await;
        drop(waiting);
        drop(lines);
        assert!(signals.lines().is_empty());
    }
}
