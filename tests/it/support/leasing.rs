//! A worker outside, as a program of somebody else's would be.

use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::deadline::until;
use super::service::Service;

/// A type whose tasks workers outside run; more of its table may follow.
pub const FAR: &str = "[task_types.far]\nrunner = { external = true }\n";

pub struct Worker {
    client: Client,
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub id: String,
    pub token: u64,
    pub expires_at: Option<String>,
    pub task: Value,
}

/// Submits a task of the type [`FAR`] with a key.
pub async fn submit(client: &Client, n: u32) -> String {
    let task = json!({"type": "far", "params": {"n": n}});
    client.submit(&task, &format!("k{n}")).await.id()
}

/// Those in the answer to a call for leases.
pub fn leases_in(answer: &Value) -> Vec<Lease> {
    let lease = |lease: &Value| Lease {
        id: lease["lease_id"].as_str().unwrap().to_owned(),
        token: lease["fencing_token"].as_u64().unwrap(),
        expires_at: lease["lease_expires_at"].as_str().map(str::to_owned),
        task: lease["task"].clone(),
    };
    answer["leases"]
        .as_array()
        .unwrap()
        .iter()
        .map(lease)
        .collect()
}

impl Worker {
    pub fn of(service: &Service) -> Self {
        Worker {
            client: service.client(),
        }
    }

    /// Leases tasks of the type [`FAR`]; `more` is what else is asked for.
    pub async fn lease(&self, mut more: Value) -> Vec<Lease> {
        if more["types"].is_null() {
            more["types"] = json!(["far"]);
        }
        let reply = self.client.post("/v1/leases").json(&more).send().await;
        leases_in(&reply.expect(200).json())
    }

    /// The next task, as soon as there is one.
    pub async fn next(&self) -> Lease {
        until("a task", async || {
            self.lease(json!({"wait": 5})).await.pop()
        })
        .await
    }

    pub async fn heartbeat(&self, lease: &Lease, more: Value) -> Reply {
        self.tell(lease, "heartbeat", more).await
    }

    pub async fn complete(&self, lease: &Lease, result: Value) -> Reply {
        self.tell(lease, "complete", json!({"result": result}))
            .await
    }

    pub async fn fail(&self, lease: &Lease, error: Value, permanent: bool) -> Reply {
        let body = json!({"error": error, "permanent": permanent});
        self.tell(lease, "fail", body).await
    }

    async fn tell(&self, lease: &Lease, verb: &str, mut body: Value) -> Reply {
        body["fencing_token"] = json!(lease.token);
        let path = format!("/v1/leases/{}/{verb}", lease.id);
        self.client.post(&path).json(&body).send().await
    }
}
