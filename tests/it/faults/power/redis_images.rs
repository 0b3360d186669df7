//! Redis with every write synced before its answer: whatever a power cut leaves of its append-only file holds all that
//! was acknowledged before, also when the power fails once more while Redis loads it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::disk::Disk;
use super::expected::Expected;
use super::image::{self, Luck};
use super::load::{Kind, Work, submit, users};
use super::log;
use super::redis_server::RedisAt;
use super::shim::Shim;
use super::trials::{Report, advance, conclude, copy_all, drawn, folder};
use crate::faults::seed::Seed;
use crate::faults::setting::setting;
use crate::support::{Client, Setup};

/// Requests to a reopened image at a time.
const AT_ONCE: usize = 32;

struct Extent {
    /// Of Redis, before the cuts.
    lives: usize,
    acknowledgements: usize,
    cuts: usize,
    /// Images that are cut once more while Redis loads them and serves a little.
    recoveries: usize,
    cuts_of_a_recovery: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_syncs_each_write_survives_power_cuts() {
    let extent = Extent {
        lives: 2,
        acknowledgements: setting("FAULTS_ACKNOWLEDGEMENTS", 60),
        cuts: setting("FAULTS_CUTS", 12),
        recoveries: setting("FAULTS_OPENINGS", 2),
        cuts_of_a_recovery: 3,
    };
    run(extent, Seed::draw()).await;
}

/// Through `make power-cuts-of-redis`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: see make power-cuts-of-redis"]
async fn a_redis_that_syncs_each_write_survives_hundreds_of_power_cuts() {
    let seed = Seed::draw();
    for round in 0..setting("FAULTS_ROUNDS", 5) {
        let extent = Extent {
            lives: 3,
            acknowledgements: setting("FAULTS_ACKNOWLEDGEMENTS", 100),
            cuts: setting("FAULTS_CUTS", 60),
            recoveries: setting("FAULTS_OPENINGS", 10),
            cuts_of_a_recovery: 4,
        };
        println!("round {round}");
        run(extent, seed.of_round(round)).await;
    }
}

async fn run(extent: Extent, seed: Seed) {
    println!("power cuts of Redis: seed {seed}");
    let root = folder();
    let redis = RedisAt::free_port("always");
    // What it makes at its very first start is on disk.
    redis.start(root.path(), None).await.kill().await.unwrap();
    let shim = Arc::new(Shim::over(root.path()));
    let mut disk = Disk::holding(root.path());
    let replica = live(&extent, &redis, &shim, root.path()).await;

    let log = shim.log();
    let entries = log::read(&log);
    let mut choices = seed.choices("cuts", 0);
    let cuts = drawn(extent.cuts, entries.len(), &mut choices);
    let step = (cuts.len() / extent.recoveries.max(1)).max(1);
    let (mut expected, mut report) = (Expected::default(), Report::default());
    for (number, cut) in cuts.into_iter().enumerate() {
        advance(&mut disk, &mut expected, &entries, cut, seed);
        let mut choices = seed.choices("image", number);
        let image = folder();
        image::write(
            &disk,
            Luck::of_a_log(&mut choices),
            &mut choices,
            image.path(),
        );
        let name = format!("cut at {cut} of {}", entries.len());
        if number % step == step / 2 && number / step < extent.recoveries {
            let recovery = Recovery {
                redis: &redis,
                replica: &replica,
                expected: expected.clone(),
                cuts: extent.cuts_of_a_recovery,
                seed,
                number,
            };
            recovery.cut(&name, image.path(), &mut report).await;
        }
        examine(
            &name,
            &redis,
            image.path(),
            &replica,
            &expected,
            &mut report,
        )
        .await;
    }
    report.acknowledged = expected.count();
    conclude(&report, seed);
}

/// Load on one replica, while Redis is killed and started again. The replica is gone afterwards, its files stay.
async fn live(extent: &Extent, redis: &RedisAt, shim: &Arc<Shim>, root: &Path) -> Setup {
    let next = Arc::new(AtomicUsize::new(0));
    let mut server = redis.start(root, Some(shim)).await;
    let service = redis.replica().start().await;
    for life in 0..extent.lives {
        if life > 0 {
            server.kill().await.unwrap();
            server = redis.start(root, Some(shim)).await;
        }
        submit(&service, shim, &next, extent.acknowledgements).await;
    }
    server.kill().await.unwrap();
    service.kill().await
}

/// An image that Redis loads and a replica works on while the power fails once more.
struct Recovery<'a> {
    redis: &'a RedisAt,
    replica: &'a Setup,
    expected: Expected,
    cuts: usize,
    seed: Seed,
    number: usize,
}

impl Recovery<'_> {
    async fn cut(mut self, name: &str, image: &Path, report: &mut Report) {
        const ACKNOWLEDGEMENTS: usize = 5;
        // Above all that was sent before.
        const FIRST: usize = 10_000_000;
        let copy = folder();
        copy_all(image, copy.path());
        let shim = Arc::new(Shim::over(copy.path()));
        let mut disk = Disk::holding(copy.path());
        let mut server = self.redis.start(copy.path(), Some(&shim)).await;
        let service = forgetful(self.replica).start().await;
        let next = Arc::new(AtomicUsize::new(FIRST));
        submit(&service, &shim, &next, ACKNOWLEDGEMENTS).await;
        server.kill().await.unwrap();
        drop(service.kill().await);
        let log = shim.log();
        let entries = log::read(&log);
        let mut choices = self.seed.choices("second cuts", self.number);
        for cut in drawn(self.cuts, entries.len(), &mut choices) {
            advance(&mut disk, &mut self.expected, &entries, cut, self.seed);
            let image = folder();
            image::write(
                &disk,
                Luck::of_a_log(&mut choices),
                &mut choices,
                image.path(),
            );
            let name = format!("{name}; again at {cut} of {}", entries.len());
            let (redis, replica) = (self.redis, self.replica);
            examine(&name, redis, image.path(), replica, &self.expected, report).await;
            report.cut_twice += 1;
        }
    }
}

/// The replica without what it knew of a later Redis.
fn forgetful(replica: &Setup) -> Setup {
    // One that did not live for long has written nothing down.
    let _ = std::fs::remove_file(replica.folder().join("data/redis-marks.json"));
    replica.clone()
}

async fn examine(
    name: &str,
    redis: &RedisAt,
    image: &Path,
    replica: &Setup,
    expected: &Expected,
    report: &mut Report,
) {
    report.images += 1;
    report.looked_for += expected.count();
    let mut server = redis.start(image, None).await;
    let service = forgetful(replica).start().await;
    if let Err(violation) = inspect(&service.client(), expected).await {
        println!("! {name}: {violation}");
        report.violations.push(violation);
    }
    drop(service.kill().await);
    server.kill().await.unwrap();
}

/// Every acknowledged key is sent once more and names its task; everything else is as it was told, and there is nothing
/// that nobody has sent.
async fn inspect(client: &Client, expected: &Expected) -> Result<(), String> {
    let recorded = recorded(client).await;
    let tasks_sent = |content: &&usize| !matches!(Work(**content).kind(), Kind::FileAlone);
    let sent = expected.sent.values().filter(tasks_sent).count();
    if recorded.len() > sent {
        return Err(format!("{} tasks of {sent} that were sent", recorded.len()));
    }
    let replays = stream::iter(&expected.acknowledged).map(async |(key, id)| {
        let Some(task) = recorded.get(id) else {
            return Err(format!("{key} is lost, {id}"));
        };
        if let Some(seen) = expected.ended.get(id)
            && (task["state"] != seen["state"] || task["result"] != seen["result"])
        {
            return Err(format!("{id} was {seen} and is {task}"));
        }
        let reply = Work(expected.sent[key]).send(client).await;
        let reply = reply.ok_or_else(|| format!("no answer to {key}"))?;
        let names_it = matches!(reply.status, 200 | 202) && reply.id() == *id;
        names_it
            .then_some(())
            .ok_or_else(|| format!("{key} is {id}, and answered with {}", reply.text()))
    });
    let replays: Vec<_> = replays.buffer_unordered(AT_ONCE).collect().await;
    replays.into_iter().collect::<Result<(), _>>()?;
    for (user, sha256) in &expected.kept {
        let path = format!("/v1/files/{sha256}");
        let status = client.user(user).get(&path).send().await.status;
        if status != 200 {
            return Err(format!("the file {sha256} of {user}: {status}"));
        }
    }
    Ok(())
}

/// All tasks, by id.
async fn recorded(client: &Client) -> BTreeMap<String, Value> {
    let mut recorded = BTreeMap::new();
    for user in users() {
        let client = client.user(&user);
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/tasks?limit=200{cursor}");
            let page = client.get(&path).send().await.expect(200).json();
            for task in page["items"].as_array().unwrap() {
                let id = task["id"].as_str().unwrap().to_owned();
                recorded.insert(id, task.clone());
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    recorded
}
