//! The workers that users copy, run as they stand.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::support::deadline::{until, within};
use crate::support::redis::free_port;
use crate::support::{Client, Service, Setup};

const CONFIG: &str = "[task_types.count_words]\nrunner = { external = true }\nlease_seconds = 2\n\
    retry = { first_delay_seconds = 0.05, max_attempts = 3 }\n";

#[tokio::test]
async fn the_python_worker_works() {
    works("python3", "python/worker.py").await;
}

/// Where there is no Node.js, `tests/setup.sh` was not run.
#[tokio::test]
async fn the_javascript_worker_works() {
    let found = Command::new("node").arg("--version").output().await;
    assert!(
        found.is_ok(),
        "the JavaScript worker cannot be tried: there is no `node` on this machine"
    );
    works("node", "javascript/worker.mjs").await;
}

async fn works(program: &str, script: &str) {
    let address = format!("127.0.0.1:{}", free_port());
    let setup = Setup::new().env("JUSTONCE_LISTEN", &address).config(CONFIG);
    let service = setup.start().await;
    let client = service.client();
    let worker = Worker::start(program, script, &service);

    let id = submit(&client, json!({"text": "to be or\nnot to be"})).await;
    let done = client.ended(&id).await;
    assert_eq!(done["result"], json!({"lines": 2, "words": 6}), "{done}");
    let path = "/v1/files?type=count_words&filename=a.txt";
    let file = client
        .post(path)
        .body("ein Wort\nund n\u{e4}chstes\n")
        .send()
        .await;
    let done = client.ended(&file.id()).await;
    assert_eq!(done["result"], json!({"lines": 2, "words": 4}), "{done}");

    let nothing = client.ended(&submit(&client, json!({})).await).await;
    assert_eq!(nothing["error"]["code"], "no-text", "{nothing}");
    assert_eq!(
        (&nothing["attempt"], &nothing["error"]["permanent"]),
        (&json!(1), &json!(true))
    );
    let broken = client
        .ended(&submit(&client, json!({"text": 5})).await)
        .await;
    assert_eq!(
        (&broken["state"], &broken["attempt"]),
        (&json!("failed"), &json!(3)),
        "{broken}"
    );
    assert_eq!(broken["error"]["permanent"], false);

    reports_progress_and_keeps_its_lease(&client).await;
    stops_when_it_is_told(&client).await;

    // It goes on when the service comes back.
    let service = service.kill().await.start().await;
    let client = service.client();
    let id = submit(&client, json!({"text": "after all"})).await;
    assert_eq!(client.ended(&id).await["result"]["words"], 2);

    // What has begun is brought to its end.
    let last = submit(&client, json!({"text": "a\nb\nc", "pause_seconds": 0.4})).await;
    until("the work to begin", async || {
        client.task(&last).await["progress"]
            .is_object()
            .then_some(())
    })
    .await;
    worker.terminate();
    assert_eq!(worker.ended().await, Some(0));
    assert_eq!(client.task(&last).await["state"], "succeeded");

    // One that waits for work goes at once, and leaves nothing behind.
    let idle = Worker::start(program, script, &service);
    let id = submit(&client, json!({"text": "one more"})).await;
    client.ended(&id).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    idle.terminate();
    assert_eq!(idle.ended().await, Some(0));
    let waiting = submit(&client, json!({"text": "nobody is there"})).await;
    let next = crate::support::leasing::Worker::of(&service);
    let leases = next
        .lease(json!({"types": ["count_words"], "wait": 5}))
        .await;
    assert_eq!(
        (&leases[0].task["id"], &leases[0].task["attempt"]),
        (&json!(waiting), &json!(1))
    );
}

/// The lease is shorter than the work.
async fn reports_progress_and_keeps_its_lease(client: &Client) {
    let id = submit(
        client,
        json!({"text": "a\n".repeat(7), "pause_seconds": 0.5}),
    )
    .await;
    until("progress", async || {
        let progress = client.task(&id).await["progress"].clone();
        (progress["done"].as_f64()? >= 2.0 && progress["total"] == 7).then_some(())
    })
    .await;
    let done = client.ended(&id).await;
    assert_eq!(
        (&done["state"], &done["attempt"]),
        (&json!("succeeded"), &json!(1)),
        "{done}"
    );
}

async fn stops_when_it_is_told(client: &Client) {
    let id = submit(
        client,
        json!({"text": "a\n".repeat(1_000), "pause_seconds": 0.1}),
    )
    .await;
    client.in_state(&id, "running").await;
    let cancel = client.post(&format!("/v1/tasks/{id}/cancel")).send().await;
    cancel.expect(200);
    let next = submit(client, json!({"text": "the next one"})).await;
    client.ended(&next).await;
    assert_eq!(client.task(&id).await["state"], "cancelled");
}

async fn submit(client: &Client, params: serde_json::Value) -> String {
    let task = json!({"type": "count_words", "params": params});
    client.submit_keyless(&task).await.id()
}

struct Worker(Child);

impl Worker {
    fn start(program: &str, script: &str, service: &Service) -> Self {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let script: PathBuf = examples.join(script);
        let child = Command::new(program)
            .arg(script)
            .env("JUSTONCE_URL", format!("http://{}", service.address))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Worker(child.unwrap_or_else(|error| panic!("{program}: {error}")))
    }

    fn terminate(&self) {
        let pid = Pid::from_raw(self.0.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    async fn ended(mut self) -> Option<i32> {
        within("the worker's end", self.0.wait())
            .await
            .unwrap()
            .code()
    }
}
