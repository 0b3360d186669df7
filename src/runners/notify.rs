//! `send_notification`: tells someone something, over a webhook, by e-mail, or on the user's own stream of events.
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
struct Sent<'a> {
    status: &'static str,
    channel: Channel,
    /// What the recipient knows the message by.
    message_id: String,
    /// What a stream tells its user.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    body: &'a str,
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
        let sent_as = match (notification.channel, &self.mailer) {
            (Channel::Webhook, _) => self.post(task, &notification).await?,
            (Channel::Email, Some(mailer)) => mailer.send(task, &notification).await?,
            (Channel::Email, None) => {
                return Err(not_there("this service is not set up to send e-mail"));
            }
            // The task's success brings the message to whoever follows the user's events.
            (Channel::Stream, _) => message_id(task),
        };
        result(&notification, sent_as)
    }

    /// Gives the message's `webhook-id`.
    async fn post(&self, task: &Task, notification: &Notification) -> Result<String, AttemptError> {
        let id = message_id(task);
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

fn result(notification: &Notification, message_id: String) -> Result<Success, AttemptError> {
    let is_told_by_it = notification.channel == Channel::Stream;
    let sent = Sent {
        status: "success",
        channel: notification.channel,
        message_id,
        message: is_told_by_it.then(|| Message {
            subject: notification.subject.as_deref(),
            title: notification.title.as_deref(),
            level: notification.level.as_deref(),
            body: &notification.body,
        }),
    };
    let written: Result<Box<RawValue>, _> = serde_json::value::to_raw_value(&sent);
    let written = written.map_err(|error| AttemptError::permanent("crashed", error.to_string()))?;
    Ok(written.into())
}

/// What names the message to its recipient.
fn message_id(task: &Task) -> String {
    format!("msg_{}", task.id)
}

fn not_there(message: &str) -> AttemptError {
    AttemptError::permanent("channel-unavailable", message)
}
