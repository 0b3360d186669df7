//! Requests that the service makes, in the OpenAPI document: callbacks of submissions, and webhooks.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::task_view::TaskView;

/// What a callback is told: how a task has ended.
#[derive(ToSchema)]
#[schema(as = TaskEnd)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct EndDocument<'a> {
    r#type: EndName,
    /// When the task ended.
    #[schema(format = DateTime)]
    timestamp: String,
    /// The task as it ended then.
    data: TaskView<'a>,
}

#[derive(ToSchema)]
#[schema(as = TaskEndType)]
pub enum EndName {
    #[schema(rename = "task.succeeded")]
    Succeeded,
    #[schema(rename = "task.failed")]
    Failed,
    #[schema(rename = "task.cancelled")]
    Cancelled,
}

/// What a notification over the channel `webhook` says.
#[derive(ToSchema)]
#[schema(as = Notification)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct NotificationDocument {
    #[schema(example = "notification")]
    r#type: String,
    /// When the notification was submitted.
    #[schema(format = DateTime)]
    timestamp: String,
    data: NotificationData,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct NotificationData {
    task_id: String,
    #[schema(nullable = false)]
    subject: Option<String>,
    #[schema(nullable = false)]
    title: Option<String>,
    #[schema(nullable = false)]
    level: Option<String>,
    body: String,
}

/// Adds them to the document.
pub fn add(document: &mut Value) {
    let end = message(
        "A task has ended",
        "Sent to every `callback_url` of a task when it has ended, once for each end.",
        "TaskEnd",
    );
    for (path, url) in [
        ("/v1/tasks", "{$request.body#/callback_url}"),
        ("/v1/files", "{$request.query.callback_url}"),
    ] {
        document["paths"][path]["post"]["callbacks"] = json!({"taskEnded": {url: {"post": end}}});
    }
    let notification = message(
        "A notification",
        "Sent by tasks of the type `send_notification` over the channel `webhook`.",
        "Notification",
    );
    document["webhooks"] = json!({
        "taskEnded": {"post": end},
        "notification": {"post": notification},
    });
}

fn message(summary: &str, description: &str, schema: &str) -> Value {
    let header = |name: &str, description: &str| {
        json!({
            "name": name, "in": "header", "required": true, "description": description,
            "schema": {"type": "string"},
        })
    };
    let description = format!(
        "{description} Signed as Standard Webhooks 1.0.0 says. Whatever is not answered with 2xx within 20 s is \
         sent again, save 410 and redirects, so that one message may arrive twice: `webhook-id` tells."
    );
    json!({
        "summary": summary,
        "description": description,
        "security": [],
        "parameters": [
            header("webhook-id", "The same for every attempt to deliver this message."),
            header("webhook-timestamp", "When it was sent, in seconds since 1970."),
            header("webhook-signature", "`v1,` and the HMAC-SHA256 of id, timestamp and body in Base64; while secrets change, one of each with a blank between."),
        ],
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}},
        },
        "responses": {
            "2XX": {"description": "Received"},
            "410": {"description": "No more of this: it is not sent again"},
            "default": {"description": "It is sent again later"},
        },
    })
}
