//! `deliver_webhook`: tells a callback of a task's end.
//!
//! What names the message is made of the delivery's own id, which is the same for every attempt of it. The task is
//! read when it is told of: one that was forgotten meanwhile is told to nobody.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::webhooks::Webhooks;
use super::{Surroundings, outgoing};
use crate::domain::callback::{Delivery, End};
use crate::domain::task::{State, Task, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::links::Links;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::store::{Found, Store};
use crate::task_view::TaskView;

pub struct Deliver {
    webhooks: Webhooks,
    store: Arc<dyn Store>,
    links: Links,
}

/// What is sent.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    event: &'static str,
    /// Of the end.
    timestamp: Timestamp,
    data: TaskView<'a>,
}

/// The result of the delivery.
#[derive(Serialize)]
struct Delivered<'a> {
    status: &'static str,
    message_id: &'a str,
}

impl Deliver {
    pub fn new(surroundings: &Surroundings) -> Self {
        Deliver {
            webhooks: surroundings.webhooks.clone(),
            store: surroundings.store.clone(),
            links: surroundings.links.clone(),
        }
    }

    async fn deliver(&self, task: &Task) -> Result<Success, AttemptError> {
        let invalid =
            |_| AttemptError::permanent("invalid-params", "these are not the params of a delivery");
        let Delivery { url, task_id, end } =
            serde_json::from_str(task.params.get()).map_err(invalid)?;
        let ended = self.told_of(task, &task_id).await?;
        // Only the record of a success shows what it gave.
        if end.state == State::Succeeded && ended.state != State::Succeeded {
            let message = "the end that it tells of is not on record";
            return Err(AttemptError::retryable("end-unknown", message));
        }
        let body = payload(&self.links, &end, ended)?;
        let message_id = format!("msg_{}", task.id);
        self.webhooks
            .send(&task.user, &url, &message_id, body)
            .await?;
        let delivered = Delivered {
            status: "success",
            message_id: &message_id,
        };
        let written: Result<Box<RawValue>, _> = to_raw_value(&delivered);
        written.map(Success::from).map_err(crashed)
    }

    async fn told_of(&self, delivery: &Task, task_id: &str) -> Result<Task, AttemptError> {
        let forgotten = || {
            let message = "the task that it tells of was deleted, or its retention is over";
            AttemptError::permanent("task-forgotten", message)
        };
        let id = TaskId::parse(task_id).ok_or_else(forgotten)?;
        let found = self.store.get(&delivery.user, &id).await;
        match found.map_err(outgoing::store_error)? {
            Found::Here(task) => Ok(task),
            Found::Missing(_) => Err(forgotten()),
        }
    }
}

#[async_trait]
impl Runner for Deliver {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        tokio::select! {
            ended = self.deliver(&attempt.task) => ended,
            () = attempt.cancel.cancelled() => Err(AttemptError::stopped()),
        }
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

fn payload(links: &Links, end: &End, task: Task) -> Result<Vec<u8>, AttemptError> {
    let task = end.shown_by(task);
    let payload = Payload {
        event: end.event(),
        timestamp: end.finished_at(),
        data: TaskView::of(links, &task),
    };
    serde_json::to_vec(&payload).map_err(crashed)
}

fn crashed(error: serde_json::Error) -> AttemptError {
    AttemptError::permanent("crashed", error.to_string())
}
