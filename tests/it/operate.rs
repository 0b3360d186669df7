//! What operators see and do: workers, stop and go, limits.

use serde_json::{Value, json};

use crate::support::deadline::until;
use crate::support::leasing::{FAR, Worker, submit};
use crate::support::{Client, Setup, World};

async fn workers(client: &Client) -> Vec<Value> {
    let reply = client.get("/v1/workers").send().await.expect(200).json();
    reply["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn workers_are_shown_with_what_they_work_on() {
    let world = World::new();
    let gate = world.gate("gate");
    let config = format!("{FAR}[task_types.gate]\nrunner = {{ {gate} }}\n");
    let service = Setup::new().config(&config).start().await;
    let client = service.client();
    let [idle] = &workers(&client).await[..] else {
        panic!("more than one worker");
    };
    assert_eq!(
        (&idle["place"], &idle["capacity"]),
        (&json!("inside"), &json!(4))
    );
    assert_eq!((&idle["running"], &idle["tasks"]), (&json!(0), &json!([])));
    let types: Vec<_> = idle["types"].as_array().unwrap().iter().collect();
    assert!(types.contains(&&json!("gate")) && !types.contains(&&json!("far")));

    let id = client.submit(&json!({"type": "gate"}), "k").await.id();
    world.runs_reach(1).await;
    let far = submit(&client, 1).await;
    let worker = Worker::of(&service);
    let lease = worker.lease(json!({"worker": "printer 7"})).await.remove(0);
    let shown = workers(&client).await;
    assert_eq!(shown.len(), 2, "{shown:?}");
    assert_eq!(
        (&shown[0]["running"], &shown[0]["tasks"]),
        (&json!(1), &json!([id]))
    );
    assert_eq!(shown[1]["name"], "printer 7");
    assert_eq!(
        (&shown[1]["place"], &shown[1]["capacity"]),
        (&json!("outside"), &Value::Null)
    );
    assert_eq!(
        (&shown[1]["types"], &shown[1]["tasks"]),
        (&json!(["far"]), &json!([far]))
    );
    assert!(shown[1]["since"].is_string() && shown[1]["last_heartbeat_at"].is_string());
    worker.complete(&lease, json!(1)).await.expect(200);
    world.open_gate();
    client.ended(&id).await;
    until("an idle worker", async || {
        let shown = workers(&client).await;
        (shown.len() == 1 && shown[0]["running"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_paused_type_takes_tasks_and_runs_none_until_it_is_resumed() {
    let service = Setup::new().config(FAR).start().await;
    let client = service.client();
    let set = async |client: &Client, name: &str, verb: &str| {
        let path = format!("/v1/task-types/{name}/{verb}");
        client.post(&path).send().await
    };
    for _ in 0..2 {
        let paused = set(&client, "echo", "pause").await.expect(200).json();
        assert_eq!(
            (&paused["name"], &paused["paused"]),
            (&json!("echo"), &json!(true))
        );
    }
    set(&client, "far", "pause").await.expect(200);
    let id = client.submit(&json!({"type": "echo"}), "k").await.id();
    let far = submit(&client, 1).await;
    assert!(
        Worker::of(&service)
            .lease(json!({"wait": 0.5}))
            .await
            .is_empty()
    );
    // Others go on.
    let file = client
        .post("/v1/files?type=process_file&filename=a.csv")
        .body("a,b\n1,2\n");
    client.ended(&file.send().await.id()).await;
    assert_eq!(client.task(&id).await["state"], "queued");

    let service = service.kill().await.start().await;
    let client = service.client();
    let types = client.get("/v1/task-types").send().await.expect(200).json();
    let paused = |types: &Value, name: &str| {
        let mut items = types["items"].as_array().unwrap().iter();
        items.find(|item| item["name"] == name).unwrap()["paused"].clone()
    };
    assert_eq!(
        (paused(&types, "echo"), paused(&types, "process_file")),
        (json!(true), json!(false))
    );
    assert_eq!(client.task(&id).await["state"], "queued");
    let resumed = set(&client, "echo", "resume").await.expect(200).json();
    assert_eq!(resumed["paused"], false);
    assert_eq!(client.ended(&id).await["state"], "succeeded");
    set(&client, "far", "resume").await.expect(200);
    assert_eq!(Worker::of(&service).next().await.task["id"], far.as_str());

    set(&client, "near", "pause")
        .await
        .problem(404, "not-found");
    let with_members = client
        .post("/v1/task-types/echo/pause")
        .json(&json!({"for": 5}));
    with_members.send().await.problem(422, "validation-failed");
}

#[tokio::test]
async fn limits_are_shown_with_their_use() {
    let setup = Setup::new().config("[limits]\nqueue_tasks_max = 50\n");
    let service = setup.start().await;
    let client = service.client().user("ann");
    let other = service.client().user("bob");
    let later = json!({"type": "echo", "delay_seconds": 600});
    client.submit(&later, "k1").await.id();
    client.echo(json!({"done": true})).await;
    other.submit(&later, "k").await.id();
    let limits = client.get("/v1/limits").send().await.expect(200).json();
    assert_eq!(limits["user"], "ann");
    assert_eq!(limits["unfinished_tasks"], json!({"max": null, "used": 1}));
    assert_eq!(limits["queue_tasks"], json!({"max": 50, "used": 2}));
    assert_eq!(
        limits["requests_per_minute"],
        json!({"max": null, "used": null})
    );
    assert_eq!(limits["wait_seconds"]["max"], 50);
    let refused = client.get("/v1/limits?user=bob").send().await;
    refused.problem(422, "validation-failed");
}
