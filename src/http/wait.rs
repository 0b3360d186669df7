//! Waiting for a task's end on behalf of a client.

use std::time::Duration;

use tokio::time::Instant;

use super::api::Api;
use crate::domain::task::Task;
use crate::store::Found;

/// A signal ends a wait early; this poll ends it when a signal was lost, or came to another replica.
const POLL: Duration = Duration::from_secs(1);

/// A task as it was last seen.
#[derive(Debug)]
pub struct Waited {
    pub task: Task,
    /// Whether the wish to wait was granted: not beyond the bound of waiting requests, and not while
    /// the replica drains.
    pub granted: bool,
}

/// Waits until the task has ended, at most as long as the client wishes.
pub async fn for_end(api: &Api, task: Task, wish: Option<Duration>) -> Waited {
    let Some(wish) = wish else {
        return Waited {
            task,
            granted: false,
        };
    };
    if task.state.is_ended() {
        return Waited {
            task,
            granted: true,
        };
    }
    let Ok(_permit) = api.waiting.try_acquire() else {
        return Waited {
            task,
            granted: false,
        };
    };
    if api.draining.is_cancelled() {
        return Waited {
            task,
            granted: false,
        };
    }
    let task = until_ended(api, task, Instant::now() + wish).await;
    Waited {
        task,
        granted: true,
    }
}

async fn until_ended(api: &Api, mut task: Task, deadline: Instant) -> Task {
    let mut watch = api.store.watch(&task.id);
    loop {
        match api.store.get(&task.user, &task.id).await {
            Ok(Found::Here(seen)) => task = seen,
            Ok(Found::Missing(_)) => return task,
            // The task was acknowledged; what is known of it is the answer until the store is back.
            Err(_) => {}
        }
        let now = Instant::now();
        if task.state.is_ended() || now >= deadline {
            return task;
        }
        tokio::select! {
            () = watch.changed() => {}
            () = tokio::time::sleep_until(deadline.min(now + POLL)) => {}
            () = api.draining.cancelled() => return task,
        }
    }
}
