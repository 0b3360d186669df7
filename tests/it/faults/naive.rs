//! What many services do instead: `SET key NX`, then push to a list that workers pop from. Under the same
//! faults the same checkers must find what it loses and doubles: else they would find nothing in ours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, AsyncConnectionConfig, RedisResult, SetExpiry, SetOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::fault::{OF_THE_SHOW, Plan};
use super::modes::load;
use super::nemesis::Enough;
use super::seed::Seed;
use super::stage::Stage;
use super::trial::Trial;

#[tokio::test(flavor = "multi_thread")]
async fn what_sets_a_key_and_then_pushes_loses_work() {
    let seed = Seed::draw();
    let trial = Trial {
        name: "naive",
        seed,
        load: load(),
        plan: Plan::new(OF_THE_SHOW, 100..700, seed),
        enough: Enough::Faults(15),
        stall: Duration::from_secs(3),
    };
    let report = trial.run(Stage::naive(2).await).await;
    assert!(report.broken() > 0, "the checkers found nothing");
}

/// The command that serves naively: this test binary, told to run the function below.
pub fn command(listen: SocketAddr, redis: &str, program: &std::path::Path) -> Command {
    let settings = Settings {
        listen,
        redis: redis.to_owned(),
        program: program.to_owned(),
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "faults::naive::serves_naively"])
        .env(VARIABLE, serde_json::to_string(&settings).unwrap());
    command
}

const VARIABLE: &str = "FAULTS_NAIVE";
const LOCK_SECONDS: u64 = 3_600;
const WORKERS: usize = 8;

#[derive(Clone, Serialize, Deserialize)]
struct Settings {
    listen: SocketAddr,
    redis: String,
    program: PathBuf,
}

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    id: String,
    user: String,
    key: String,
    #[serde(rename = "type")]
    task_type: String,
    params: Value,
    tags: Value,
    attempt: u32,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the baseline's own process; does nothing by itself"]
async fn serves_naively() {
    let Ok(settings) = std::env::var(VARIABLE) else {
        return;
    };
    let settings: Settings = serde_json::from_str(&settings).unwrap();
    for _ in 0..WORKERS {
        tokio::spawn(work(settings.clone()));
    }
    let listener = tokio::net::TcpListener::bind(settings.listen)
        .await
        .unwrap();
    let router = Router::new()
        .route("/readyz", get(ready))
        .route("/stats", get(stats))
        .route("/v1/tasks", post(submit).get(list))
        .route("/v1/tasks/{id}", get(task))
        .with_state(Arc::new(Link::new(&settings.redis)));
    axum::serve(listener, router).await.unwrap();
}

/// A connection that all requests share.
struct Link {
    client: redis::Client,
    current: Mutex<Option<MultiplexedConnection>>,
}

impl Link {
    fn new(url: &str) -> Link {
        Link {
            client: redis::Client::open(url).unwrap(),
            current: Mutex::default(),
        }
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current {
            return Ok(connection.clone());
        }
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(2)));
        let client = &self.client;
        let made = client.get_multiplexed_async_connection_with_config(&config);
        Ok(current.insert(made.await?).clone())
    }

    async fn forget(&self) {
        *self.current.lock().await = None;
    }
}

/// Any error of Redis: try again.
struct Later;

impl IntoResponse for Later {
    fn into_response(self) -> Response {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

/// The value, or 503 and a new connection.
async fn or_later<T>(link: &Link, answer: RedisResult<T>) -> Result<T, Later> {
    match answer {
        Ok(value) => Ok(value),
        Err(_) => {
            link.forget().await;
            Err(Later)
        }
    }
}

async fn ready(State(link): State<Arc<Link>>) -> Result<(), Later> {
    let connection = link.connection().await;
    let mut connection = or_later(&link, connection).await?;
    let pong = connection.ping::<()>().await;
    or_later(&link, pong).await
}

async fn submit(
    State(link): State<Arc<Link>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Result<Response, Later> {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let job = Job {
        id: uuid::Uuid::new_v4().simple().to_string(),
        user: header("x-user-id"),
        key: header("idempotency-key"),
        task_type: body["type"].as_str().unwrap().to_owned(),
        params: body["params"].clone(),
        tags: body["tags"].clone(),
        attempt: 1,
    };
    let connection = link.connection().await;
    let mut connection = or_later(&link, connection).await?;
    // The content is what must not run twice.
    let lock = format!("lock:{}:{}", job.user, job.params);
    let only_once = SetOptions::default()
        .conditional_set(redis::ExistenceCheck::NX)
        .with_expiration(SetExpiry::EX(LOCK_SECONDS));
    let locked = connection
        .set_options::<_, _, Option<String>>(&lock, &job.id, only_once)
        .await;
    if or_later(&link, locked).await?.is_none() {
        let holder = connection.get::<_, Option<String>>(&lock).await;
        let holder = or_later(&link, holder).await?.ok_or(Later)?;
        let found = view(&mut connection, &holder).await;
        let found = or_later(&link, found).await?;
        let unknown = json!({"id": holder, "state": "queued", "attempt": 0, "result": null});
        return Ok(Json(found.unwrap_or(unknown)).into_response());
    }
    if let Err(error) = push(&mut connection, &job).await {
        // As usual: whoever fails lets go of the lock, so that the client can try again.
        let _ = connection.del::<_, ()>(&lock).await;
        return or_later(&link, Err(error)).await;
    }
    let made = json!({"id": job.id, "state": "queued", "attempt": 0, "result": null});
    Ok((StatusCode::ACCEPTED, Json(made)).into_response())
}

async fn push(connection: &mut MultiplexedConnection, job: &Job) -> RedisResult<()> {
    let text = serde_json::to_string(job).unwrap();
    let task = format!("task:{}", job.id);
    let fields = [("job", text.as_str()), ("state", "queued")];
    connection
        .hset_multiple::<_, _, _, ()>(task, &fields)
        .await?;
    connection
        .sadd::<_, _, ()>(format!("tasks:{}", job.user), &job.id)
        .await?;
    connection.lpush("queue", text).await
}

async fn view(connection: &mut MultiplexedConnection, id: &str) -> RedisResult<Option<Value>> {
    let fields: std::collections::HashMap<String, String> =
        connection.hgetall(format!("task:{id}")).await?;
    let Some(job) = fields.get("job") else {
        return Ok(None);
    };
    let job: Job = serde_json::from_str(job).unwrap();
    let result = fields.get("result");
    let result: Option<Value> = result.map(|text| serde_json::from_str(text).unwrap());
    let attempt: u32 = fields
        .get("attempt")
        .map_or(0, |text| text.parse().unwrap());
    Ok(Some(json!({
        "id": id, "type": job.task_type, "state": fields["state"], "attempt": attempt,
        "tags": job.tags, "result": result,
    })))
}

async fn task(State(link): State<Arc<Link>>, Path(id): Path<String>) -> Result<Response, Later> {
    let connection = link.connection().await;
    let mut connection = or_later(&link, connection).await?;
    let found = view(&mut connection, &id).await;
    let found = or_later(&link, found).await?;
    Ok(match found {
        Some(task) => Json(task).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

async fn list(State(link): State<Arc<Link>>, headers: HeaderMap) -> Result<Response, Later> {
    let user = headers["x-user-id"].to_str().unwrap();
    let connection = link.connection().await;
    let mut connection = or_later(&link, connection).await?;
    let ids = connection
        .smembers::<_, Vec<String>>(format!("tasks:{user}"))
        .await;
    let mut items = Vec::new();
    for id in or_later(&link, ids).await? {
        let found = view(&mut connection, &id).await;
        items.extend(or_later(&link, found).await?);
    }
    Ok(Json(json!({"items": items, "next_cursor": null})).into_response())
}

async fn stats(State(link): State<Arc<Link>>) -> Result<Response, Later> {
    let connection = link.connection().await;
    let mut connection = or_later(&link, connection).await?;
    let completed = connection.get::<_, Option<u64>>("completed").await;
    let completed = or_later(&link, completed).await?.unwrap_or(0);
    Ok(Json(json!({ "completed": completed })).into_response())
}

async fn work(settings: Settings) {
    loop {
        let _ = work_while_connected(&settings).await;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn work_while_connected(settings: &Settings) -> RedisResult<()> {
    let client = redis::Client::open(settings.redis.as_str())?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    loop {
        let popped: Option<(String, String)> = connection.brpop("queue", 1.0).await?;
        let Some((_, text)) = popped else { continue };
        let mut job: Job = serde_json::from_str(&text).unwrap();
        let task = format!("task:{}", job.id);
        let begun = [
            ("state", "running".to_owned()),
            ("attempt", job.attempt.to_string()),
        ];
        connection
            .hset_multiple::<_, _, _, ()>(&task, &begun)
            .await?;
        match run(&settings.program, &job).await {
            Some(result) => {
                let ended = [("state", "succeeded".to_owned()), ("result", result)];
                connection
                    .hset_multiple::<_, _, _, ()>(&task, &ended)
                    .await?;
                connection.incr::<_, _, ()>("completed", 1).await?;
            }
            None => {
                job.attempt += 1;
                let text = serde_json::to_string(&job).unwrap();
                connection.lpush::<_, _, ()>("queue", text).await?;
            }
        }
    }
}

/// The program of the trial, as our own service runs it.
async fn run(program: &std::path::Path, job: &Job) -> Option<String> {
    if job.task_type == "echo" {
        return Some(job.params.to_string());
    }
    let mut child = Command::new("sh")
        .arg(program)
        .arg(&job.task_type)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let request = json!({
        "id": job.id, "type": job.task_type, "attempt": job.attempt,
        "fencing_token": job.attempt, "idempotency_key": job.key,
    });
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(format!("{request}\n").as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| text.trim().to_owned())
}
