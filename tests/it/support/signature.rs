//! Signatures of webhooks, checked by the reference implementation.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::outside::Seen;
use super::python::python;

/// Whether the reference implementation takes the message for genuine.
pub async fn is_genuine(secret: &str, seen: &Seen) -> bool {
    let script = "import sys, json\nfrom standardwebhooks import Webhook\n\
        message = json.load(sys.stdin)\n\
        Webhook(message['secret']).verify(message['body'], message['headers'])";
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!(seen.header(name).unwrap())))
        .collect();
    let body = String::from_utf8(seen.body.clone()).unwrap();
    let message = json!({"secret": secret, "body": body, "headers": headers});
    let mut child = Command::new(python())
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tests/setup.sh makes the Python environment");
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(message.to_string().as_bytes())
        .await
        .unwrap();
    drop(stdin);
    child.wait().await.unwrap().success()
}
