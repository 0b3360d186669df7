//! Which replicas are there, and what their workers do.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::record::{from_json, to_json};
use super::reply::{Reply, senseless};
use super::scripts::MUSTER;
use super::step::{Step, Steps};
use crate::domain::stats::Crew;
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::domain::worker::{Place, Worker};
use crate::store::StoreError;

/// What a replica tells of its workers, besides how many are busy.
#[derive(Serialize, Deserialize)]
struct Report {
    name: String,
    capacity: u64,
    types: BTreeSet<String>,
    tasks: Vec<String>,
    since: i64,
}

/// Says what the own workers do; gives what those of all replicas do.
pub async fn muster(steps: &Steps, keys: &Keys, own: &Worker) -> Result<Crew, StoreError> {
    let mut reply = tell(steps, keys, own, "sums").await?;
    Ok(Crew {
        busy: reply.number()?,
        idle: reply.number()?,
        replicas: reply.number()?,
    })
}

/// Says what the own workers do; gives those of all replicas, by name.
pub async fn all(steps: &Steps, keys: &Keys, own: &Worker) -> Result<Vec<Worker>, StoreError> {
    let mut reply = tell(steps, keys, own, "all").await?;
    for _sum in ["busy", "idle", "replicas"] {
        reply.value()?;
    }
    let mut workers = Vec::new();
    while !reply.is_over() {
        let heard_at = Timestamp::from_ms(reply.number()?);
        let running = reply.number()?;
        workers.push(worker(&reply.word()?, heard_at, running)?);
    }
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(workers)
}

async fn tell(steps: &Steps, keys: &Keys, own: &Worker, what: &str) -> Result<Reply, StoreError> {
    let Crew { busy, idle, .. } = Crew::of(own);
    let report = Report {
        name: own.name.clone(),
        capacity: match own.place {
            Place::Inside { capacity } => capacity,
            Place::Outside => 0,
        },
        types: own.types.clone(),
        tasks: own.tasks.iter().map(TaskId::to_string).collect(),
        since: own.since.as_ms(),
    };
    let root = keys.root(Partition::FIRST);
    let step = Step::new(&MUSTER, &[root, &keys::replicas(root)])
        .arg(steps.marks().replica())
        .arg(busy)
        .arg(idle)
        .arg(to_json(&report)?)
        .arg(what);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "mustered")?;
    Ok(reply)
}

fn worker(report: &str, heard_at: Timestamp, running: u64) -> Result<Worker, StoreError> {
    let report: Report = from_json(report)?;
    let tasks = report.tasks.iter().map(|id| TaskId::parse(id));
    Ok(Worker {
        name: report.name,
        place: Place::Inside {
            capacity: report.capacity,
        },
        types: report.types,
        running,
        tasks: tasks.collect::<Option<_>>().ok_or_else(senseless)?,
        since: Timestamp::from_ms(report.since),
        heard_at,
    })
}
