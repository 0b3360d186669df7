//! `justonce doctor` over stores of both kinds: nothing is wrong after real work, also while it goes on, and each
//! kind of damage is found.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use justonce::domain::digest::Sha256Digest;
use reqwest::multipart::{Form, Part};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::deadline::{until, within};
use crate::support::redis::{RedisServer, prefix};
use crate::support::service::Service;
use crate::support::{Client, Setup, World};

/// A store in which there is something of everything, and whose service was killed.
struct Scene {
    setup: Setup,
    queued: String,
    running: String,
    scheduled: String,
    succeeded: String,
    long: String,
    _world: World,
}

/// A copy of a file or result on disk.
struct Blob(PathBuf);

async fn doctor(setup: &Setup) -> (bool, String) {
    let mut command = setup.command();
    command.arg("doctor");
    let output = within("the doctor", command.output()).await.unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    text += &String::from_utf8(output.stderr).unwrap();
    (output.status.success(), text)
}

async fn is_well(setup: &Setup) {
    let (is_well, text) = doctor(setup).await;
    assert!(is_well, "{text}");
    assert!(
        text.contains("records: they agree with each other"),
        "{text}"
    );
}

/// The line that names what is wrong is there.
async fn finds(setup: &Setup, words: &str) {
    let (is_well, text) = doctor(setup).await;
    let mut lines = text.lines().filter(|line| line.starts_with("wrong: "));
    assert!(
        lines.any(|line| line.contains(words)),
        "no {words:?} in {text}"
    );
    assert!(!is_well, "{text}");
}

fn types(world: &World) -> String {
    let gate = world.gate("gate");
    let broken = world.command("broken", "exit 1");
    let script = "printf '\"'; head -c 1200000 /dev/zero | tr '\\0' a; echo '\"'";
    let large = world.command("large", script);
    format!(
        "[task_types.gated]\nrunner = {{ {gate} }}\n\
         [task_types.broken]\nrunner = {{ {broken} }}\nretry = {{ max_attempts = 1 }}\n\
         [task_types.again]\nrunner = {{ {broken} }}\nretry = {{ max_attempts = 3, first_delay_seconds = 600 }}\n\
         [task_types.large]\nrunner = {{ {large} }}\n"
    )
}

async fn upload(client: &Client, task: &Value, bytes: &'static str) -> String {
    let form = Form::new()
        .part(
            "task",
            Part::text(task.to_string())
                .mime_str("application/json")
                .unwrap(),
        )
        .part("file", Part::bytes(bytes.as_bytes()).file_name("a.csv"));
    client
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .expect(202)
        .id()
}

async fn post(client: &Client, id: &str, verb: &str) {
    let reply = client.post(&format!("/v1/tasks/{id}/{verb}")).send().await;
    assert!(matches!(reply.status, 200 | 202), "{}", reply.text());
}

async fn work(setup: Setup) -> Scene {
    let world = World::new();
    let setup = setup.config(&types(&world)).env("JUSTONCE_WORKERS", "1");
    let service = setup.start().await;
    let client = service.client();
    let other = client.user("other");
    let tagged =
        json!({"type": "echo", "params": {"n": 1}, "tags": {"of": "mine", "and": "yours"}});
    let succeeded = client.submit(&tagged, "first").await.expect(202).id();
    client.ended(&succeeded).await;
    client.submit(&tagged, "first").await.expect(200);
    client.submit(&tagged, "bound.later").await.expect(200);
    let long = json!({"type": "echo", "params": {"text": "x".repeat(2_000)}});
    let long = other.submit(&long, "long").await.expect(202).id();
    other.ended(&long).await;
    let of_file = upload(&client, &json!({"type": "echo"}), "a,b\n1,2\n").await;
    client.ended(&of_file).await;
    // One that may be redriven keeps its file.
    let dead = upload(&client, &json!({"type": "broken"}), "a,b\n3,4\n").await;
    client.ended(&dead).await;
    let redriven = client
        .submit(&json!({"type": "broken", "params": {"n": 2}}), "r")
        .await
        .id();
    client.ended(&redriven).await;
    post(&client, &redriven, "redrive").await;
    client.ended(&redriven).await;
    let large = client
        .submit(&json!({"type": "large"}), "large")
        .await
        .expect(202)
        .id();
    client.ended(&large).await;
    let again = client
        .submit(&json!({"type": "again"}), "again")
        .await
        .expect(202)
        .id();
    client.in_state(&again, "retrying").await;
    let gone = client
        .submit(&json!({"type": "echo", "params": {"n": 3}}), "gone")
        .await
        .id();
    client.ended(&gone).await;
    client
        .delete(&format!("/v1/tasks/{gone}"))
        .send()
        .await
        .expect(204);
    let raw = client
        .post("/v1/files?filename=kept.csv")
        .body("not submitted");
    raw.send().await;
    for (name, cron) in [("yearly", "0 0 1 1 *"), ("often", "* * * * * *")] {
        let schedule = json!({"cron": cron, "type": "echo", "paused": name == "often"});
        let put = client.put(&format!("/v1/schedules/{name}"));
        put.json(&schedule).send().await.expect(201);
    }
    let of = |n: u32| {
        json!({"type": "echo", "params": {"n": n, "of": 4}, "delay_seconds": 3600,
               "callback_url": "https://a.example", "dedup": {"mode": "replace", "by": ["/of"]}})
    };
    client.submit(&of(3), "sooner").await.expect(202);
    let scheduled = client.submit(&of(4), "later").await.expect(202).id();
    client.submit(&of(4), "also").await.expect(202);
    let withdrawn = client.post(&format!("/v1/tasks/{scheduled}/cancel"));
    let withdrawn = withdrawn.json(&json!({"key": "also"})).send().await;
    withdrawn.expect(202);
    let never = json!({"type": "echo", "params": {"n": 5}, "delay_seconds": 3600});
    let never = other.submit(&never, "never").await.expect(202).id();
    post(&other, &never, "cancel").await;
    let running = client
        .submit(&json!({"type": "gated"}), "running")
        .await
        .expect(202)
        .id();
    world.runs_reach(1).await;
    let queued = json!({"type": "gated", "params": {"n": 2}});
    let queued = client.submit(&queued, "queued").await.expect(202).id();
    is_well(service.setup()).await;
    let setup = service.kill().await;
    is_well(&setup).await;
    Scene {
        setup,
        queued,
        running,
        scheduled,
        succeeded,
        long,
        _world: world,
    }
}

impl Scene {
    fn data(&self) -> PathBuf {
        self.setup.folder().join("data")
    }

    fn blobs(&self) -> Vec<Blob> {
        blobs(&self.data().join("blobs"))
    }
}

fn blobs(folder: &Path) -> Vec<Blob> {
    let mut found = Vec::new();
    for first in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        let name = first.file_name().unwrap().to_string_lossy();
        if name.len() == 2 {
            let inside = fs::read_dir(&first).unwrap();
            found.extend(inside.map(|entry| Blob(entry.unwrap().path())));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty());
    found
}

/// The same on either store: copies are gone, cut short, or nobody's.
async fn finds_damaged_copies(scene: &Scene) {
    let copies = scene.blobs();
    let Blob(path) = &copies[0];
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    finds(&scene.setup, "it is on record, and not in the folder").await;
    fs::write(path, &bytes[1..]).unwrap();
    finds(
        &scene.setup,
        &format!(
            "it has {} bytes in place of {}",
            bytes.len() - 1,
            bytes.len()
        ),
    )
    .await;
    fs::write(path, &bytes).unwrap();
    let digest = Sha256Digest::of(b"nobody's").to_string();
    let name = format!("{digest}-{}", "0".repeat(32));
    let nobodys = path
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join(&digest[..2])
        .join(name);
    fs::write(&nobodys, "nobody's").unwrap();
    // It may be on its way into a record.
    is_well(&scene.setup).await;
    let yesterday = SystemTime::now() - Duration::from_secs(86_400);
    File::options()
        .write(true)
        .open(&nobodys)
        .unwrap()
        .set_modified(yesterday)
        .unwrap();
    finds(&scene.setup, "no record names it").await;
    fs::remove_file(&nobodys).unwrap();
    is_well(&scene.setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_the_embedded_store_is_found() {
    let setup = Setup::new().env("JUSTONCE_STORE", "embedded");
    let scene = work(setup).await;
    finds_damaged_copies(&scene).await;
    let Scene {
        queued,
        running,
        scheduled,
        succeeded,
        ..
    } = &scene;
    let damages = [
        (
            format!("DELETE FROM task WHERE id = '{queued}'"),
            "key queued of anonymous: it names no task",
        ),
        (
            format!("DELETE FROM task WHERE id = '{queued}'"),
            "the counter does not agree with what is counted",
        ),
        (
            format!("UPDATE task SET ready_at = NULL WHERE id = '{queued}'"),
            "has no place in the queue",
        ),
        (
            "DELETE FROM turn".to_owned(),
            "it is queued, and its user has no turn",
        ),
        (
            format!("UPDATE task SET aside = 1, slot = 'k' WHERE id = '{queued}'"),
            "it waits for its concurrency key, and nobody calls it",
        ),
        (
            format!("UPDATE task SET state = 9 WHERE id = '{queued}'"),
            "it is in no known state",
        ),
        (
            format!("UPDATE task SET due_at = NULL WHERE id = '{running}'"),
            "it is running without a lease that ends",
        ),
        (
            format!("UPDATE task SET due_at = NULL WHERE id = '{scheduled}'"),
            "it waits for its time, and has none",
        ),
        (
            format!("UPDATE task SET callbacks = '{{' WHERE id = '{scheduled}'"),
            "its record cannot be read",
        ),
        (
            format!("UPDATE task SET kept_until = NULL WHERE id = '{succeeded}'"),
            "nothing says when it expires",
        ),
        (
            format!("UPDATE task SET result = NULL WHERE id = '{succeeded}'"),
            "it has succeeded, and has no result",
        ),
        (
            format!("UPDATE task SET result_kind = 3 WHERE id = '{queued}'"),
            "it has a result, and has not succeeded",
        ),
        (
            format!("UPDATE task SET fingerprint_hash = 1 WHERE id = '{queued}'"),
            "cannot be found by its id or content",
        ),
        (
            format!("UPDATE task SET id_hash = 1 WHERE id = '{queued}'"),
            "cannot be found by its id or content",
        ),
        (
            format!("UPDATE task SET matching_hash = 1 WHERE id = '{scheduled}'"),
            "cannot be found by its id or content",
        ),
        (
            format!("UPDATE task SET behind = 1 WHERE id = '{scheduled}'"),
            "it waits behind another, and there is none",
        ),
        (
            format!("UPDATE task SET submission = '{{' WHERE id = '{queued}'"),
            "its record cannot be read",
        ),
        (
            "DELETE FROM key WHERE key = 'queued'".to_owned(),
            "the key that it was submitted with does not name it",
        ),
        (
            "UPDATE key SET task = 1 WHERE key = 'queued'".to_owned(),
            "the key that it was submitted with does not name it",
        ),
        (
            "UPDATE key SET hash = 1 WHERE key = 'queued'".to_owned(),
            "key queued of anonymous: it cannot be found",
        ),
        (
            "UPDATE key SET expires_at = 4102444800000 WHERE key = 'queued'".to_owned(),
            "its task is unfinished, and it expires",
        ),
        (
            "UPDATE key SET expires_at = NULL WHERE key = 'first'".to_owned(),
            "its task has ended, and it never expires",
        ),
        (
            "UPDATE key SET forgotten = 0 WHERE key = 'gone'".to_owned(),
            "disagree on whether that was forgotten",
        ),
        (
            "UPDATE gauge SET count = count + 1 WHERE state = 1 AND user = ''".to_owned(),
            "tasks of everyone, type gated",
        ),
        (
            "UPDATE gauge SET count = count - 1 WHERE state = 1 AND user <> ''".to_owned(),
            "tasks of anonymous, type gated",
        ),
        (
            "DELETE FROM tag WHERE name = 'of'".to_owned(),
            "a tag of it is not on record",
        ),
        (
            "INSERT INTO tag VALUES ('anonymous', 'other', 1, 'x')".to_owned(),
            "tag other of anonymous: no task has it",
        ),
        (
            "INSERT INTO ledger VALUES (999, 1, '{}')".to_owned(),
            "task number 999: duplicates are noted of it",
        ),
        (
            "UPDATE file SET refs = refs + 1 WHERE refs > 0".to_owned(),
            "it does not count the tasks that need it",
        ),
        (
            "UPDATE file SET expires_at = NULL WHERE refs = 0".to_owned(),
            "whether it expires contradicts",
        ),
        (
            "DELETE FROM file WHERE refs > 0".to_owned(),
            "a file of it is not on record",
        ),
        (
            "UPDATE schedule SET plan = '{' WHERE name = 'yearly'".to_owned(),
            "schedule yearly of anonymous: its record cannot be read",
        ),
        (
            "UPDATE schedule SET type = 'other' WHERE name = 'often'".to_owned(),
            "schedule often of anonymous: its plan is one of another type",
        ),
        (
            "UPDATE schedule SET due_at = NULL WHERE name = 'yearly'".to_owned(),
            "schedule yearly of anonymous: nothing says when it is due",
        ),
        (
            "DELETE FROM blob".to_owned(),
            "nobody owns the copy that holds it",
        ),
        (
            "DELETE FROM blob".to_owned(),
            "nobody owns the copy that holds its result",
        ),
        (
            "DELETE FROM file WHERE refs > 0".to_owned(),
            "no file and no result is in it",
        ),
        (
            format!(
                "INSERT INTO task SELECT NULL, replace(id, '-', '_'), id_hash, user, type, state, fingerprint, \
                 fingerprint_hash, claim, resubmissions, first_failed_at, priority, attempt, max_attempts, token, held, \
                 created_at, ready_at, started_at, finished_at, due_at, dedup_expires_at, result_until, kept_until, \
                 duplicates, result_kind, progress, error, submission, result, worker, heard_at, revision, trail, \
                 callbacks, matching, matching_hash, throttles, chained_at, behind, superseded_by, keyless, slot, aside, \
                 ageing \
                 FROM task WHERE id = '{queued}'"
            ),
            "another task answers for its content",
        ),
    ];
    for (damage, words) in &damages {
        let copy = copy_of(&scene.data());
        let conn = Connection::open(copy.path().join("data/justonce.db")).unwrap();
        let changed = conn.execute(damage, []).unwrap();
        assert!(changed > 0, "{damage}");
        drop(conn);
        finds(&at(&scene.setup, copy.path()), words).await;
    }
    let copy = copy_of(&scene.data());
    let path = copy.path().join("data/justonce.db");
    let conn = Connection::open(&path).unwrap();
    let of_index = "SELECT rootpage FROM sqlite_schema WHERE name = 'task_by_id'";
    let page: usize = conn.query_row(of_index, [], |row| row.get(0)).unwrap();
    let size: usize = conn
        .query_row("PRAGMA page_size", [], |row| row.get(0))
        .unwrap();
    // Closed by somebody who writes, it is all in one file.
    drop(conn);
    let mut bytes = fs::read(&path).unwrap();
    bytes[(page - 1) * size..page * size].fill(0xff);
    fs::write(&path, bytes).unwrap();
    finds(&at(&scene.setup, copy.path()), "the file is damaged").await;
    // The store itself was left as it was.
    let service = scene.setup.clone().start().await;
    let client = service.client();
    assert_eq!(client.task(queued).await["id"], **queued);
    is_well(service.setup()).await;
}

fn copy_of(data: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(data).arg(folder.path());
    assert!(copy.status().unwrap().success());
    folder
}

fn at(setup: &Setup, folder: &Path) -> Setup {
    setup
        .clone()
        .env("JUSTONCE_DATA", folder.join("data").to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_store_on_redis_is_found() {
    let server = RedisServer::start(&["--enable-debug-command", "local"]);
    let setup = Setup::new()
        .env("JUSTONCE_STORE", &server.url())
        .env("JUSTONCE_REDIS_PREFIX", &prefix());
    let scene = work(setup).await;
    finds_damaged_copies(&scene).await;
    let Scene {
        queued,
        running,
        scheduled,
        succeeded,
        long,
        ..
    } = &scene;
    let damages = [
        (format!("del('task:{queued}')"), "key queued of anonymous: it names no task"),
        (format!("del('task:{queued}')"), "no such task is queued"),
        (format!("del('task:{queued}')"), "no such task is in this state"),
        (format!("redis.call('SET', root .. 'task:{queued}', 'x')"), "its record cannot be read"),
        ("del('key:anonymous,queued')".to_owned(), "the key that it was submitted with is gone"),
        (
            "redis.call('COPY', root .. 'key:anonymous,running', root .. 'key:anonymous,queued', 'REPLACE')".to_owned(),
            "the key that it was submitted with names another task",
        ),
        (
            "redis.call('COPY', root .. 'key:anonymous,running', root .. 'key:anonymous,new')".to_owned(),
            "the task that it names does not know it",
        ),
        ("del('key:anonymous,bound.later')".to_owned(), "bound.later in keys:"),
        ("for _, name in ipairs(names('claim:')) do redis.call('DEL', name) end".to_owned(), "its content is not claimed for it"),
        (
            "redis.call('SET', root .. 'claim:' .. string.rep('0', 64), cmsgpack.pack('nobody'))".to_owned(),
            "it names no task",
        ),
        (
            "local all = names('claim:') redis.call('COPY', all[1], all[2], 'REPLACE')".to_owned(),
            "the task that it names has another content",
        ),
        ("redis.call('PEXPIRE', names('claim:')[1], 3600000)".to_owned(), "it would vanish by itself"),
        ("del('line:gated,anonymous')".to_owned(), "it is queued, and has no place in the queue"),
        ("del('line:gated,anonymous')".to_owned(), "anonymous in turns:gated: nothing of this user is in line"),
        ("del('turns:gated')".to_owned(), "it is queued, and its user has no turn"),
        ("del('held:gated,anonymous')".to_owned(), "it may be running, and does not count as such"),
        (format!("redis.call('HSET', root .. 'held:gated,anonymous', '{queued}', '{queued}')"), "no such task runs"),
        (format!("redis.call('ZREM', root .. 'due', '{running}')"), "it is running, and has no deadline"),
        (format!("redis.call('ZREM', root .. 'due', '{scheduled}')"), "it is scheduled, and has no deadline"),
        (format!("del('callbacks:{scheduled}')"), "its callbacks are gone"),
        ("redis.call('DEL', names('matching:')[1])".to_owned(), "what it matches on does not name it"),
        (
            format!("redis.call('ZADD', names('matching:')[1], 5, '{queued}')"),
            "no such task matches on this",
        ),
        (
            "redis.call('SADD', root .. 'withdrawn:nobody', '1')".to_owned(),
            "keys of task nobody that have withdrawn: there is no such task",
        ),
        (format!("redis.call('SREM', root .. 'awaited', '{scheduled}')"), "contradicts whether its end was told"),
        (format!("redis.call('ZREM', root .. 'expiry', '{succeeded}')"), "it has ended, and nothing says when it expires"),
        (format!("redis.call('ZREM', root .. 'list:queued:anonymous', '{queued}')"), "it is not in the list of its state"),
        ("redis.call('ZADD', root .. 'due', 5, 'nobody')".to_owned(), "nobody in due: no such task waits for this"),
        (format!("redis.call('ZADD', root .. 'expiry', 5, '{queued}')"), "in expiry: no such task has ended"),
        ("redis.call('ZADD', root .. 'file-expiry', 5, 'ab:c')".to_owned(), "there is no such file, or it is needed"),
        ("del('tag:anonymous,of')".to_owned(), "it cannot be found by its tag of"),
        (format!("redis.call('ZADD', root .. 'tag:anonymous,new', 5, '{queued}')"), "no such task has this tag"),
        ("redis.call('INCR', root .. 'open')".to_owned(), "unfinished tasks ("),
        ("redis.call('HINCRBY', root .. 'gauge:anonymous', 'queued gated', 1)".to_owned(), "tasks of anonymous, state queued"),
        ("redis.call('HINCRBY', root .. 'gauge:', 'succeeded echo', 1)".to_owned(), "tasks of everyone in partition"),
        ("del('seq')".to_owned(), "its number is beyond the counter of tasks"),
        ("redis.call('HINCRBY', needed(), 'refs', 1)".to_owned(), "it does not count the tasks that need it"),
        ("redis.call('DEL', needed())".to_owned(), "is not on record"),
        ("redis.call('HDEL', needed(), 'refs')".to_owned(), "its record is not whole"),
        ("redis.call('HSET', needed(), 'expires_at', 5)".to_owned(), "whether it expires contradicts"),
        ("del('blobs')".to_owned(), "nobody owns the copy that holds it"),
        ("del('blobs')".to_owned(), "nobody owns the copy that holds its result"),
        (
            "redis.call('SADD', root .. 'blobs', string.rep('0', 64) .. '-' .. string.rep('0', 32))".to_owned(),
            "no file and no result is in it",
        ),
        ("redis.call('SET', root .. 'body:nobody', '{}')".to_owned(), "submission of task nobody: there is no such task"),
        ("redis.call('SET', root .. 'result:nobody', '1')".to_owned(), "result of task nobody: there is no such task"),
        ("redis.call('RPUSH', root .. 'ledger:nobody', '1')".to_owned(), "duplicates of task nobody: there is no such task"),
        ("redis.call('SADD', root .. 'keys:nobody', '1')".to_owned(), "keys of task nobody: there is no such task"),
        ("redis.call('HDEL', root .. 'schedule:anonymous,often', 'plan')".to_owned(), "often of anonymous: its record is not whole"),
        ("redis.call('HSET', root .. 'schedule:anonymous,often', 'plan', '{')".to_owned(), "its record cannot be read"),
        ("redis.call('HSET', root .. 'schedule:anonymous,often', 'next', 'x')".to_owned(), "its record cannot be read"),
        ("redis.call('SET', root .. 'schedule:anonymous,often', 'x')".to_owned(), "its record cannot be read"),
        ("redis.call('HSET', root .. 'schedule:anonymous,often', 'type', 'other')".to_owned(), "its plan is one of another type"),
        ("del('schedules-due:echo')".to_owned(), "yearly of anonymous: nothing says when it is due"),
        ("del('schedules:anonymous')".to_owned(), "it is not in the list of its user"),
        ("del('schedule:anonymous,yearly')".to_owned(), "yearly in schedules:anonymous: there is no such schedule"),
        ("del('schedule:anonymous,yearly')".to_owned(), "no such schedule is due then"),
        ("redis.call('HSET', root .. 'callbacks:nobody', 'u', 't')".to_owned(), "callbacks of task nobody: there is no such task"),
    ];
    server.command(&["SAVE"]);
    for (damage, words) in &damages {
        damaged(&server, "anonymous", damage);
        finds(&scene.setup, words).await;
        server.command(&["DEBUG", "RELOAD", "NOSAVE"]);
    }
    for (damage, words) in [
        (format!("del('body:{long}')"), "its submission is gone"),
        (
            format!("del('result:{long}')"),
            "it has succeeded, and has no result",
        ),
    ] {
        damaged(&server, "other", &damage);
        finds(&scene.setup, words).await;
        server.command(&["DEBUG", "RELOAD", "NOSAVE"]);
    }
    is_well(&scene.setup).await;
}

/// Runs a piece of Lua in the partition that holds this user.
fn damaged(server: &RedisServer, user: &str, damage: &str) {
    let script = format!(
        "local root = string.match(redis.call('KEYS', '*gauge:{user}')[1], '^(.*}}:)')\n\
         local function del(name) return redis.call('DEL', root .. name) end\n\
         local function names(kind)\n\
           local all = redis.call('KEYS', root .. kind .. '*') table.sort(all) return all\n\
         end\n\
         local function needed()\n\
           for _, name in ipairs(names('file:')) do\n\
             if redis.call('HGET', name, 'refs') ~= '0' then return name end\n\
           end\n\
         end\n\
         {damage}\n\
         return 'damaged'"
    );
    assert_eq!(
        server.command(&["EVAL", &script, "0"]),
        "damaged",
        "{damage}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_at_work_is_well() {
    let server = RedisServer::start(&[]);
    for store in ["embedded".to_owned(), server.url()] {
        let setup = Setup::new()
            .env("JUSTONCE_STORE", &store)
            .env("JUSTONCE_REDIS_PREFIX", &prefix());
        let service: Service = setup.start().await;
        let client = service.client();
        for n in 0..7 {
            let tick = json!({"cron": "* * * * * *", "type": "echo"});
            let put = client.user(&format!("user{n}"));
            let put = put.put("/v1/schedules/tick").json(&tick);
            put.send().await.expect(201);
        }
        let load = async {
            let mut n = 0;
            loop {
                let task = json!({"type": "echo", "params": {"n": n}, "tags": {"n": "x"}});
                let client = client.user(&format!("user{}", n % 7));
                let id = client
                    .submit(&task, &format!("k{n}"))
                    .await
                    .expect(202)
                    .id();
                client.submit(&task, &format!("k{n}")).await;
                if n % 3 == 0 {
                    client.ended(&id).await;
                    client
                        .delete(&format!("/v1/tasks/{id}"))
                        .send()
                        .await
                        .expect(204);
                }
                n += 1;
            }
        };
        let looks = async {
            for _ in 0..20 {
                is_well(service.setup()).await;
            }
        };
        tokio::select! {
            () = load => unreachable!(),
            () = looks => {}
        }
    }
}

#[tokio::test]
async fn where_no_store_is_there_is_nothing_to_look_at() {
    let setup = Setup::new().env("JUSTONCE_STORE", "embedded");
    let (is_well, text) = doctor(&setup).await;
    assert!(!is_well && text.contains("there is no store in"), "{text}");
    assert!(
        !setup.folder().join("data").exists(),
        "the doctor made a folder"
    );
    let (is_well, text) = doctor(&setup.env("JUSTONCE_STORE", "memory")).await;
    assert!(
        !is_well && text.contains("there is nothing to look at"),
        "{text}"
    );
}

#[tokio::test]
async fn a_service_starts_while_somebody_looks() {
    let setup = Setup::new().env("JUSTONCE_STORE", "embedded");
    let service = setup.start().await;
    let id = service
        .client()
        .submit(&json!({"type": "echo"}), "k")
        .await
        .expect(202)
        .id();
    service.client().ended(&id).await;
    service.terminate();
    let (_, setup) = service.ended().await;
    let path = setup.folder().join("data/justonce.db");
    let looking =
        Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let look = looking.unchecked_transaction().unwrap();
    let tasks = |conn: &Connection| -> i64 {
        conn.query_row("SELECT count(*) FROM task", [], |row| row.get(0))
            .unwrap()
    };
    assert_eq!(tasks(&look), 1);
    let service = setup.start().await;
    service
        .client()
        .submit(&json!({"type": "echo", "params": 1}), "k2")
        .await;
    assert_eq!(tasks(&look), 1, "a look sees one state");
    is_well(service.setup()).await;
    drop(look);
    until("the second task", async || {
        (tasks(&looking) >= 1).then_some(())
    })
    .await;
}
