//! Clients that note in the log of the shim what they send and what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use justonce::domain::digest::Sha256Digest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::log::Note;
use super::shim::Shim;
use crate::support::client::is_ended;
use crate::support::{Client, Reply, Service, Setup};

/// Numbered work, so that everything on record can be traced to it.
#[derive(Clone, Copy)]
pub struct Work(pub usize);

pub enum Kind {
    Echo,
    /// With a result that is kept as a file.
    LargeEcho,
    /// A submission that brings a file.
    WithFile,
    /// A file alone.
    FileAlone,
}

const USERS: usize = 4;
const CLIENTS: usize = 6;

impl Work {
    pub fn kind(self) -> Kind {
        match self.0 % 12 {
            3 => Kind::LargeEcho,
            5 | 9 => Kind::WithFile,
            7 => Kind::FileAlone,
            _ => Kind::Echo,
        }
    }

    pub fn key(self) -> String {
        format!("key-{}", self.0)
    }

    pub fn user(self) -> String {
        format!("user-{}", self.0 % USERS)
    }

    pub fn params(self) -> Value {
        match self.kind() {
            Kind::LargeEcho => json!({"n": self.0, "pad": "x".repeat(700)}),
            Kind::Echo | Kind::WithFile | Kind::FileAlone => json!({"n": self.0}),
        }
    }

    pub fn file(self) -> Vec<u8> {
        format!("number;text\n{};", self.0)
            .into_bytes()
            .repeat(1 + self.0 % 300)
    }

    pub fn sha256(self) -> String {
        Sha256Digest::of(&self.file()).to_string()
    }

    pub async fn send(self, client: &Client) -> Option<Reply> {
        let client = client.user(&self.user());
        match self.kind() {
            Kind::Echo | Kind::LargeEcho => {
                let task = json!({"type": "echo", "params": self.params()});
                let request = client.post("/v1/tasks").key(&self.key());
                request.json(&task).try_send().await
            }
            Kind::WithFile => {
                let request = client.post("/v1/files?type=echo").key(&self.key());
                let request = request.header("content-type", "text/csv");
                request.body(self.file()).try_send().await
            }
            Kind::FileAlone => {
                let request = client.post("/v1/files");
                let request = request.header("content-type", "text/csv");
                request.body(self.file()).try_send().await
            }
        }
    }
}

pub fn users() -> impl Iterator<Item = String> {
    (0..USERS).map(|number| Work(number).user())
}

/// A service on this folder, with small results inline only.
pub fn setup(shim: &Shim, data: &str) -> Setup {
    let setup = Setup::new()
        .config("[limits]\nresult_inline_bytes_max = 200\n")
        .env("JUSTONCE_STORE", "embedded")
        .env("JUSTONCE_DATA", data)
        .env("RUST_LOG", "warn");
    let environment = shim.environment().into_iter();
    environment.fold(setup, |setup, (name, value)| setup.env(name, &value))
}

/// Submits new work until there are so many acknowledgements, or the service is gone.
pub async fn submit(
    service: &Service,
    shim: &Arc<Shim>,
    next: &Arc<AtomicUsize>,
    acknowledgements: usize,
) {
    let left = Arc::new(AtomicUsize::new(acknowledgements));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, shim, next) = (service.client(), shim.clone(), next.clone());
        let left = left.clone();
        clients.spawn(async move {
            while left.load(Ordering::Relaxed) > 0 {
                let work = Work(next.fetch_add(1, Ordering::Relaxed));
                let (key, content) = (work.key(), work.0);
                shim.note(&Note::Sent { key, content });
                let Some(reply) = work.send(&client).await else {
                    return;
                };
                if !told(work, &client, &shim, &reply).await {
                    continue;
                }
                let _ = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
}

/// Whether it was an acknowledgement. Of some tasks the end is waited for.
async fn told(work: Work, client: &Client, shim: &Shim, reply: &Reply) -> bool {
    match (work.kind(), reply.status) {
        (Kind::FileAlone, 200 | 201) => {
            let (user, sha256) = (work.user(), work.sha256());
            shim.note(&Note::Kept { user, sha256 });
        }
        (Kind::Echo | Kind::LargeEcho | Kind::WithFile, 200 | 202) => {
            let (key, id) = (work.key(), reply.id());
            shim.note(&Note::Acknowledged { key, id });
            if work.0.is_multiple_of(3) {
                watch(work, client, shim, &reply.id()).await;
            }
        }
        (_, 429 | 500 | 503 | 507) => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            return false;
        }
        (_, status) => panic!("{status}: {}", reply.text()),
    }
    true
}

async fn watch(work: Work, client: &Client, shim: &Shim, id: &str) {
    let client = client.user(&work.user());
    let request = client.get(&format!("/v1/tasks/{id}")).wait(5);
    if let Some(reply) = request.try_send().await
        && reply.status == 200
        && is_ended(&reply.json())
    {
        let (id, task) = (id.to_owned(), reply.json());
        shim.note(&Note::Ended { id, task });
    }
}
