//! Wake-ups from a store to those who wait. A signal gives latency; a poll gives correctness.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast};

use crate::domain::principal::UserId;
use crate::domain::task::TaskId;

/// Changes that a follower of a user's tasks may be behind with.
const NEWS_MAX: usize = 1024;

#[derive(Clone, Debug)]
enum News {
    Changed(TaskId),
    Missed,
}

/// Shared by one store and everyone who waits on it.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    work: Notify,
    due: Notify,
    schedules: Notify,
    tasks: Mutex<HashMap<TaskId, Waiters>>,
    /// Those who follow all tasks of a user, by what its ids begin with.
    owners: Mutex<HashMap<String, broadcast::Sender<News>>>,
    /// How many owners are followed: nobody pays for what nobody follows.
    followed: AtomicUsize,
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

    /// A schedule was kept or changed.
    pub fn schedules_have_changed(&self) {
        self.0.schedules.notify_one();
    }

    pub async fn schedules(&self) {
        self.0.schedules.notified().await;
    }

    pub fn task_changed(&self, id: &TaskId) {
        if let Some(waiters) = self.tasks().get(id) {
            waiters.notify.notify_waiters();
        }
        if self.0.followed.load(Ordering::Relaxed) > 0
            && let Some(followers) = self.owners().get(id.owner())
        {
            // Whoever has just gone misses nothing.
            let _ = followers.send(News::Changed(id.clone()));
        }
    }

    /// Any task may have changed, and nobody was told of it.
    pub fn news_were_missed(&self) {
        for waiters in self.tasks().values() {
            waiters.notify.notify_waiters();
        }
        for followers in self.owners().values() {
            let _ = followers.send(News::Missed);
        }
    }

    /// From now on, which of the user's tasks change.
    pub fn follow(&self, user: &UserId) -> Following {
        let owner = TaskId::owner_of(user);
        let mut owners = self.owners();
        let followers = owners
            .entry(owner.clone())
            .or_insert_with(|| broadcast::Sender::new(NEWS_MAX));
        let news = followers.subscribe();
        self.0.followed.store(owners.len(), Ordering::Relaxed);
        Following {
            owner,
            signals: self.clone(),
            news: Some(news),
        }
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, broadcast::Sender<News>>> {
        self.0.owners.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Registered from its creation on, for all tasks of one user.
#[derive(Debug)]
pub struct Following {
    owner: String,
    signals: Signals,
    news: Option<broadcast::Receiver<News>>,
}

impl Following {
    /// The next task that has changed; it may be that of another user. None when some were missed: any may have
    /// changed.
    pub async fn changed(&mut self) -> Option<TaskId> {
        match self.news.as_mut()?.recv().await {
            Ok(News::Changed(id)) => Some(id),
            Ok(News::Missed) | Err(_) => None,
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut owners = self.signals.owners();
        self.news = None;
        if owners
            .get(&self.owner)
            .is_some_and(|followers| followers.receiver_count() == 0)
        {
            owners.remove(&self.owner);
        }
        self.signals
            .0
            .followed
            .store(owners.len(), Ordering::Relaxed);
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
    async fn whoever_follows_a_user_hears_of_its_tasks_and_of_what_was_missed() {
        let signals = Signals::default();
        let [user, other] = ["user", "other"].map(|name| UserId::parse(name).unwrap());
        let ids = [(); 2].map(|()| TaskId::random(&user));
        let mut following = signals.follow(&user);
        signals.task_changed(&ids[0]);
        signals.task_changed(&TaskId::random(&other));
        signals.task_changed(&ids[1]);
        for id in &ids {
            assert_eq!(following.changed().await.as_ref(), Some(id));
        }
        signals.news_were_missed();
        assert_eq!(following.changed().await, None);
        for _ in 0..=NEWS_MAX {
            signals.task_changed(&ids[0]);
        }
        assert_eq!(following.changed().await, None);
        assert!(following.changed().await.is_some());
        drop(following);
        assert!(signals.owners().is_empty());
        assert_eq!(signals.0.followed.load(Ordering::Relaxed), 0);
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
