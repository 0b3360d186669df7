//! Two stores over one Redis, as two replicas of the service have them.

use std::time::Duration;

use justonce::domain::task::{Task, TaskId};
use justonce::store::{Admitted, StoreError};
use serde_json::json;
use tokio::time::timeout;

use super::deadline::until;
use super::store::{Draft, Subject, draft, redis_under_at};

pub struct Replicas {
    pub one: Subject,
    pub other: Subject,
}

impl Replicas {
    pub async fn over(url: &str) -> Self {
        let prefix = super::redis::prefix();
        Replicas {
            one: redis_under_at(&prefix, url).await,
            other: redis_under_at(&prefix, url).await,
        }
    }

    /// Both serve again, and know this submission as this task.
    pub async fn know(&self, draft: &Draft, id: &TaskId) {
        for subject in [&self.one, &self.other] {
            let admitted = subject.admit_soon(draft).await;
            let known =
                matches!(&admitted, Admitted::Duplicate { answer, .. } if answer.task.id == *id);
            assert!(known, "{id}: {admitted:?}");
        }
    }

    /// What either does wakes those who watch the other.
    pub async fn hear_each_other(&self) {
        hears(&self.other, &self.one).await;
        hears(&self.one, &self.other).await;
    }
}

async fn hears(listener: &Subject, speaker: &Subject) {
    until("news", async || {
        let unique = uuid::Uuid::new_v4().to_string();
        let task = task(speaker.admit_soon(&draft(json!({"unique": unique}))).await);
        let mut watch = listener.store.watch(&task.id);
        match speaker.store.cancel(&task.user, &task.id).await {
            Ok(_) => {}
            Err(StoreError::Unavailable(_)) => return None,
            Err(other) => panic!("{other}"),
        }
        let heard = timeout(Duration::from_millis(200), watch.changed()).await;
        heard.ok()
    })
    .await;
}

/// The task of a submission that was taken, now or before.
#[track_caller]
pub fn task(admitted: Admitted) -> Task {
    match admitted {
        Admitted::New(answer) | Admitted::Duplicate { answer, .. } => *answer.task,
        other => panic!("{other:?}"),
    }
}
