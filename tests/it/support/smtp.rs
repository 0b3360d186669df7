//! A real mail server, which keeps what it was given.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::deadline::{until, within};
use super::python::python;

pub struct MailServer {
    pub port: u64,
    messages: Arc<Mutex<Vec<Value>>>,
    _child: Child,
}

impl MailServer {
    pub async fn start() -> MailServer {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/smtp_server.py"
        );
        let mut child = Command::new(python())
            .arg(script)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("tests/setup.sh makes the Python environment");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = within("the mail server", lines.next_line()).await.unwrap();
        let first: Value =
            serde_json::from_str(&first.expect("the mail server has ended")).unwrap();
        let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = messages.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap());
            }
        });
        MailServer {
            port: first["port"].as_u64().unwrap(),
            messages,
            _child: child,
        }
    }

    pub fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    pub fn messages(&self) -> Vec<Value> {
        self.messages.lock().unwrap().clone()
    }

    pub async fn messages_reach(&self, count: usize) -> Vec<Value> {
        until("an e-mail", async || {
            let messages = self.messages();
            (messages.len() >= count).then_some(messages)
        })
        .await
    }
}
