//! `send_notification`: tells someone something, over a webhook or by e-mail.
//!
//! What names the message to its recipient is made of the task's id, so that it is the same for every attempt:
//! one that got through although its answer was lost can be told from a new one.

pub mod email;
pub mod webhook;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::webhooks::Webhooks;
use crate::domain::task::Task;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use email::Mailer;

#[derive(Clone)]
pub struct Notify {
    webhooks: Webhooks,
    /// None: this service sends no e-mail.
    mailer: Option<Mailer>,
}

/// The task's params; the schema has been checked at admission.
#[derive(Debug, Deserialize)]
pub struct Notification {
    pub channel: Channel,
    #[serde(default)]
    pub to: String,
    pub subject: Option<String>,
    pub body: String,
    pub title: Option<String>,
    pub level: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    Webhook,
    Email,
    Stream,
}

/// The result of the task.
#[derive(Serialize)]
struct Sent {
    status: &'static str,
    channel: Channel,
    /// What the recipient knows the message by.
    message_id: String,
}

impl Notify {
    pub fn new(webhooks: Webhooks, mailer: Option<Mailer>) -> Self {
        Notify { webhooks, mailer }
    }

    async fn send(&self, task: &Task) -> Result<Success, AttemptError> {
        let notification: Notification = serde_json::from_str(task.params.get()).map_err(|_| {
            AttemptError::permanent(
                "invalid-params",
                "the params are not those of a notification",
            )
        })?;
        let message_id = match (notification.channel, &self.mailer) {
            (Channel::Webhook, _) => self.post(task, &notification).await?,
            (Channel::Email, Some(mailer)) => mailer.send(task, &notification).await?,
            (Channel::Email, None) => {
                return Err(not_there("this service is not set up to send e-mail"));
            }
            (Channel::Stream, _) => return Err(not_there("the channel stream is not built yet")),
        };
        result(notification.channel, message_id)
    }

    /// Gives the message's `webhook-id`.
    async fn post(&self, task: &Task, notification: &Notification) -> Result<String, AttemptError> {
        let id = format!("msg_{}", task.id);
        let body = webhook::payload(task, notification);
        let sent = self.webhooks.send(&task.user, &notification.to, &id, body);
        sent.await.map(|()| id)
    }
}

#[async_trait]
impl Runner for Notify {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        tokio::select! {
            ended = self.send(&attempt.task) => ended,
            () = attempt.cancel.cancelled() => Err(AttemptError::stopped()),
        }
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

fn result(channel: Channel, message_id: String) -> Result<Success, AttemptError> {
    let sent = Sent {
        status: "success",
        channel,
        message_id,
    };
    let written: Result<Box<RawValue>, _> = serde_json::value::to_raw_value(&sent);
    let written = written.map_err(|error| AttemptError::permanent("crashed", error.to_string()))?;
    Ok(written.into())
}

fn not_there(message: &str) -> AttemptError {
    AttemptError::permanent("channel-unavailable", message)
}
