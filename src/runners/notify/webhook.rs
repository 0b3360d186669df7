//! Webhooks, signed as Standard Webhooks 1.0.0 says.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Serialize;

use super::Notification;
use crate::domain::task::{Task, TaskId};
use crate::domain::webhook::WebhookSecret;
use crate::egress::{Egress, Request};
use crate::runner::AttemptError;
use crate::runners::outgoing;

#[derive(Clone, Debug)]
pub struct Sender {
    egress: Egress,
    secret: WebhookSecret,
}

/// What is sent.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// When the notification was submitted.
    timestamp: crate::domain::timestamp::Timestamp,
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

/// The whole answer must be there by then.
const TIMEOUT: Duration = Duration::from_secs(20);
const GONE: u16 = 410;

impl Sender {
    pub fn new(egress: Egress, secret: WebhookSecret) -> Self {
        Sender { egress, secret }
    }

    /// Gives the message's `webhook-id`.
    pub async fn send(
        &self,
        task: &Task,
        notification: &Notification,
    ) -> Result<String, AttemptError> {
        let url = self.egress.rules().url(&notification.to);
        let url = url.map_err(|refusal| outgoing::attempt_error(refusal.into()))?;
        let id = format!("msg_{}", task.id);
        let body = payload(task, notification);
        let now = Timestamp::now().as_second();
        let fields = [
            ("webhook-id", id.clone()),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", self.secret.sign(&id, now, &body)),
        ];
        let mut request = Request::post_json(url, body, outgoing::deadline(TIMEOUT));
        for (name, value) in fields {
            let value = HeaderValue::try_from(value).ok();
            let name = HeaderName::from_static(name);
            request.headers.extend(value.map(|value| (name, value)));
        }
        let answer = self.egress.send(request).await;
        let answer = answer.map_err(outgoing::attempt_error)?;
        match answer.status().as_u16() {
            200..=299 => Ok(id),
            // Whoever is there wants no more; all other refusals may be mended until the next attempt.
            status => Err(AttemptError {
                permanent: status == GONE || (300..=399).contains(&status),
                ..outgoing::refused(&answer)
            }),
        }
    }
}

/// The same for every attempt.
fn payload(task: &Task, notification: &Notification) -> Vec<u8> {
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
