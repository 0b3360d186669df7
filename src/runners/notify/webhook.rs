//! What a notification says to a webhook.

use serde::Serialize;

use super::Notification;
use crate::domain::task::{Task, TaskId};
use crate::domain::timestamp::Timestamp;

/// What is sent.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the notification was submitted.
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    task_id: &'a TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'a str>,
    body: &'a str,
}

/// The same for every attempt.
pub fn payload(task: &Task, notification: &Notification) -> Vec<u8> {
    let payload = Payload {
        kind: "notification",
        timestamp: task.created_at,
        data: Data {
            task_id: &task.id,
            subject: notification.subject.as_deref(),
            title: notification.title.as_deref(),
            level: notification.level.as_deref(),
            body: &notification.body,
        },
    };
    // Texts and a time: nothing in it can fail.
    serde_json::to_vec(&payload).unwrap_or_default()
}
