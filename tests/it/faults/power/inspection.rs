//! Opens what a power cut has left with the code of the service, and compares it with what clients were told.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use justonce::blobs::local::LocalBlobs;
use justonce::domain::digest::Sha256Digest;
use justonce::domain::file::BlobName;
use justonce::domain::principal::UserId;
use justonce::domain::task::{State, TaskId};
use justonce::store::audit::Audit;
use justonce::store::embedded::{Auditor, EmbeddedStore, Location};
use justonce::store::{Found, Store};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use super::expected::Expected;
use super::load::{Kind, Work};

/// Tasks that are asked for through the store; the others are looked up in its file.
const ASKED: usize = 8;

const TOMBSTONE: usize = 7;

/// What is wrong, if anything.
pub async fn inspect(
    data: &Path,
    expected: &Expected,
    choices: &mut fastrand::Rng,
) -> Result<(), String> {
    if !data.exists() && expected.count() == 0 {
        return Ok(());
    }
    let said = |error: &dyn std::fmt::Display| format!("it does not open: {error}");
    std::fs::create_dir_all(data).map_err(|error| said(&error))?;
    let blobs = data.join("blobs");
    LocalBlobs::open(blobs, false).map_err(|error| said(&error))?;
    let location = Location::Folder(data.to_owned());
    let store = EmbeddedStore::open(&location, 1_000_000).map_err(|error| said(&error))?;
    let asked = ask(&store, expected, choices).await;
    store.close().await;
    asked?;
    look(data, expected).map_err(|error| format!("{error:#}"))
}

async fn ask(
    store: &EmbeddedStore,
    expected: &Expected,
    choices: &mut fastrand::Rng,
) -> Result<(), String> {
    let acknowledged: Vec<_> = expected.acknowledged.iter().collect();
    for (key, id) in choices.choose_multiple(acknowledged, ASKED) {
        let work = Work(expected.sent[key]);
        let user = UserId::parse(&work.user()).unwrap();
        let found = store.get(&user, &TaskId::parse(id).unwrap()).await;
        match found {
            Ok(Found::Here(task)) => {
                let params: Value = serde_json::from_str(task.params.get()).unwrap();
                if !matches!(work.kind(), Kind::WithFile) && params != work.params() {
                    return Err(format!("{key} has other params: {params}"));
                }
            }
            other => return Err(format!("{key} is lost, {id}: {other:?}")),
        }
    }
    Ok(())
}

struct Row {
    seq: i64,
    user: String,
    state: usize,
    result_kind: i64,
    result: Option<String>,
    submission: Value,
}

fn look(data: &Path, expected: &Expected) -> anyhow::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let conn = Connection::open_with_flags(data.join("justonce.db"), flags)?;
    let mut audit = Audit::default();
    Auditor::open(data)?.run(&mut audit)?;
    anyhow::ensure!(audit.wrong() == 0, "audit: {:?}", audit.findings());
    let tasks = tasks(&conn)?;
    let keys = keys(&conn)?;
    let files = files(&conn)?;
    look_for_lost(&tasks, &keys, &files, expected)?;
    look_for_phantoms(&tasks, &keys, expected)?;
    look_at_bytes(data, &conn, &tasks, &files)
}

fn tasks(conn: &Connection) -> anyhow::Result<HashMap<String, Row>> {
    let sql = "SELECT id, seq, user, state, result_kind, result, submission FROM task";
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let submission: String = row.get(6)?;
        let found = Row {
            seq: row.get(1)?,
            user: row.get(2)?,
            state: row.get(3)?,
            result_kind: row.get(4)?,
            result: row.get(5)?,
            submission: serde_json::from_str(&submission).unwrap_or_default(),
        };
        Ok((row.get(0)?, found))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The number of the task, by user and key.
fn keys(conn: &Connection) -> anyhow::Result<HashMap<(String, String), i64>> {
    let mut statement = conn.prepare("SELECT user, key, task FROM key")?;
    let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The names of copies, by user and digest.
fn files(conn: &Connection) -> anyhow::Result<HashMap<(String, String), String>> {
    let mut statement = conn.prepare("SELECT user, sha256, generation FROM file")?;
    let rows = statement.query_map([], |row| {
        let sha256 = Sha256Digest::from_bytes(row.get(1)?).to_string();
        let generation: String = row.get(2)?;
        let name = format!("{sha256}-{generation}");
        Ok(((row.get(0)?, sha256), name))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn look_for_lost(
    tasks: &HashMap<String, Row>,
    keys: &HashMap<(String, String), i64>,
    files: &HashMap<(String, String), String>,
    expected: &Expected,
) -> anyhow::Result<()> {
    for (key, id) in &expected.acknowledged {
        let work = Work(expected.sent[key]);
        let Some(task) = tasks.get(id) else {
            anyhow::bail!("{key} is lost: no {id}");
        };
        anyhow::ensure!(task.user == work.user(), "{key} is of {}", task.user);
        anyhow::ensure!(task.state < TOMBSTONE, "{key} is forgotten");
        let named = keys.get(&(work.user(), key.clone()));
        anyhow::ensure!(named == Some(&task.seq), "{key} names {named:?}, not {id}");
        if let Kind::WithFile = work.kind() {
            let named = &task.submission["files"][0]["sha256"];
            anyhow::ensure!(*named == work.sha256(), "{key} has another file: {named}");
            let file = files.get(&(work.user(), work.sha256()));
            anyhow::ensure!(file.is_some(), "the file of {key} is not on record");
        } else {
            let params = &task.submission["params"];
            anyhow::ensure!(*params == work.params(), "{key} has other params: {params}");
        }
        if let Some(seen) = expected.ended.get(id) {
            let state = State::ALL[task.state].name();
            anyhow::ensure!(seen["state"] == state, "{id} was {seen} and is {state}");
            if let (1, Some(result)) = (task.result_kind, &task.result) {
                let result: Value = serde_json::from_str(result)?;
                anyhow::ensure!(seen["result"] == result, "{id} was {seen}, now {result}");
            }
        }
    }
    for kept in &expected.kept {
        anyhow::ensure!(files.contains_key(kept), "the file {kept:?} is lost");
    }
    Ok(())
}

fn look_for_phantoms(
    tasks: &HashMap<String, Row>,
    keys: &HashMap<(String, String), i64>,
    expected: &Expected,
) -> anyhow::Result<()> {
    let seqs: HashSet<_> = tasks.values().map(|task| task.seq).collect();
    let mut named = HashSet::new();
    for ((user, key), seq) in keys {
        let content = expected.sent.get(key);
        anyhow::ensure!(content.is_some(), "nobody has sent {key} of {user}");
        anyhow::ensure!(seqs.contains(seq), "{key} names no task");
        anyhow::ensure!(named.insert(*seq), "two keys name the task of {key}");
    }
    // Here each task has a key of its own.
    anyhow::ensure!(
        named.len() == tasks.len(),
        "{} tasks have {} keys",
        tasks.len(),
        named.len()
    );
    Ok(())
}

/// Every copy that a record names is there, whole.
fn look_at_bytes(
    data: &Path,
    conn: &Connection,
    tasks: &HashMap<String, Row>,
    files: &HashMap<(String, String), String>,
) -> anyhow::Result<()> {
    let mut statement = conn.prepare("SELECT name FROM blob")?;
    let owned: HashSet<String> = statement
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for name in &owned {
        let blob = BlobName::parse(name).ok_or_else(|| anyhow::anyhow!("{name} is no name"))?;
        let path = data.join("blobs").join(&name[..2]).join(name);
        let bytes = std::fs::read(path).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        let is_whole = Sha256Digest::of(&bytes) == blob.sha256;
        anyhow::ensure!(is_whole, "{name} has other bytes ({})", bytes.len());
    }
    for name in files.values() {
        anyhow::ensure!(owned.contains(name), "nobody owns {name}");
    }
    for (id, task) in tasks {
        if let (2, Some(result)) = (task.result_kind, &task.result) {
            let result: Value = serde_json::from_str(result)?;
            let name = result["name"].as_str().map(str::to_owned);
            let name = name.unwrap_or_else(|| {
                let part = |part: &str| result["name"][part].as_str().unwrap_or("?").to_owned();
                format!("{}-{}", part("sha256"), part("generation"))
            });
            anyhow::ensure!(
                owned.contains(&name),
                "nobody owns the result of {id}: {name}"
            );
        }
    }
    Ok(())
}
