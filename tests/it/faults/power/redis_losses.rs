//! A Redis that comes back with less than it had, or is emptied under load: what was acknowledged is there, or the replica
//! that has acknowledged it says that it is lost before it acknowledges anything else. So do replicas that lived on, and
//! those that start anew with what they remember.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::image::{self, Luck};
use super::load::{Kind, Work};
use super::log;
use super::redis_server::RedisAt;
use super::shim::Shim;
use super::trials::{copy_all, folder};
use crate::faults::seed::{self, Seed};
use crate::faults::setting::setting;
use crate::support::deadline::{until, within};
use crate::support::{Client, Reply, Service, Setup};

/// Images of each power cut. Each is met by a replica that starts anew, the first also by one that has lived on.
const IMAGES: usize = 4;
/// Requests at a time.
const AT_ONCE: usize = 32;

#[derive(Debug, Default)]
struct Report {
    acknowledged: usize,
    images: usize,
    images_with_losses: usize,
    /// Acknowledged and gone, over all images.
    lost: usize,
    /// Replicas that have said so, over all images.
    noticed: usize,
}

/// What the clients of a replica were told: ids, by number of the work.
type Told = BTreeMap<usize, String>;

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_syncs_each_write_comes_back_with_everything() {
    let report = power_cuts("always", setting("FAULTS_REDIS_CUTS", 1)).await;
    assert_eq!((report.lost, report.noticed), (0, 0), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redis_that_syncs_each_second_comes_back_without_is_said() {
    power_cuts("everysec", setting("FAULTS_REDIS_CUTS", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redis_that_is_emptied_under_load_had_is_said_to_be_lost() {
    let seed = Seed::draw();
    println!("Redis, emptied: {} {seed}", seed::VARIABLE);
    let mut report = Report::default();
    for round in 0..setting("FAULTS_FLUSHES", 2) {
        emptied(seed, &mut seed.choices("emptied", round), &mut report).await;
    }
    println!("Redis, emptied, seed {seed}: {report:?}");
    assert!(report.lost > 0 && report.noticed > 0, "{report:?}");
}

async fn power_cuts(sync: &'static str, rounds: usize) -> Report {
    let seed = Seed::draw();
    println!("Redis, {sync}: {} {seed}", seed::VARIABLE);
    let mut report = Report::default();
    for round in 0..rounds {
        power_cut(sync, seed, &mut seed.choices(sync, round), &mut report).await;
    }
    println!("Redis, {sync}, seed {seed}: {report:?}");
    report
}

/// One load, whose end is the end of the power, and what the disk may hold then.
async fn power_cut(
    sync: &'static str,
    seed: Seed,
    choices: &mut fastrand::Rng,
    report: &mut Report,
) {
    let root = folder();
    let redis = RedisAt::free_port(sync);
    // What it makes at its very first start is on disk.
    redis.start(root.path(), None).await.kill().await.unwrap();
    let shim = Shim::over(root.path());
    let mut disk = Disk::holding(root.path());
    let mut server = redis.start(root.path(), Some(&shim)).await;
    let replicas = [redis.replica().start().await, redis.replica().start().await];
    let load = Load::start(&replicas);
    sleep(Duration::from_millis(choices.u64(200..2_500))).await;
    server.kill().await.unwrap();
    let told = load.end().await;
    report.acknowledged += told.iter().map(Told::len).sum::<usize>();
    let log = shim.log();
    for entry in log::read(&log) {
        disk.apply(&entry, choices);
    }
    let [stops, lives_on] = replicas;
    // Without a Redis to talk to; what it was told it remembers.
    stops.terminate();
    let (_, setup) = stops.ended().await;
    let mut lives_on = Some(lives_on);
    for number in 0..IMAGES {
        let image = folder();
        image::write(&disk, Luck::of_a_log(choices), choices, image.path());
        let name = format!("seed {seed}, {sync}, image {number}");
        let mut server = redis.start(image.path(), None).await;
        let missing = missing(&redis, &told).await;
        report.images += 1;
        report.images_with_losses += usize::from(!missing.is_empty());
        report.lost += missing.len();
        let mut replicas = vec![started_anew(&setup, number).await];
        replicas.extend(lives_on.take());
        let is_silent = expect_said(&name, &replicas, &told, &missing, report).await;
        if number == 0 {
            accept_and_serve(&replicas, is_silent).await;
        }
        server.kill().await.unwrap();
    }
}

/// `FLUSHALL`. What is acknowledged from then on may be in the new state or gone with the old one.
async fn emptied(seed: Seed, choices: &mut fastrand::Rng, report: &mut Report) {
    let root = folder();
    let redis = RedisAt::free_port("always");
    let _server = redis.start(root.path(), None).await;
    let replicas = [redis.replica().start().await, redis.replica().start().await];
    let load = Load::start(&replicas);
    sleep(Duration::from_millis(choices.u64(200..1_800))).await;
    assert_eq!(redis.command(&["FLUSHALL"]).await, ["OK"]);
    sleep(Duration::from_millis(choices.u64(0..200))).await;
    let told = load.end().await;
    let missing = missing(&redis, &told).await;
    report.acknowledged += told.iter().map(Told::len).sum::<usize>();
    report.images += 1;
    report.images_with_losses += usize::from(!missing.is_empty());
    report.lost += missing.len();
    let name = format!("seed {seed}, emptied");
    let silent = expect_said(&name, &replicas, &told, &missing, report).await;
    accept_and_serve(&replicas, silent).await;
}

/// Of what was told, the ids that are not on record.
async fn missing(redis: &RedisAt, told: &[Told]) -> BTreeSet<String> {
    let keys = redis.command(&["--scan", "--pattern", "*:task:*"]).await;
    let on_record: BTreeSet<_> = keys
        .iter()
        .filter_map(|key| key.rsplit(':').next())
        .collect();
    let ids = told.iter().flat_map(Told::values);
    ids.filter(|id| !on_record.contains(id.as_str()))
        .cloned()
        .collect()
}

/// Each key is sent once more to the replica that has acknowledged it: it names its task, or the loss is said, and always
/// when something is missing. Gives whether nobody misses anything.
async fn expect_said(
    name: &str,
    replicas: &[Service],
    told: &[Told],
    missing: &BTreeSet<String>,
    report: &mut Report,
) -> bool {
    let mut is_silent = true;
    for (number, (replica, told)) in replicas.iter().zip(told).enumerate() {
        let client = replica.client();
        let replies = stream::iter(told).map(async |(work, id)| {
            let reply = settled(&client, Work(*work)).await;
            let says_lost = is_lost(&reply);
            let names_it = reply.status < 300 && reply.id() == *id;
            assert!(
                says_lost || names_it && !missing.contains(id),
                "{name}: {id} was acknowledged by replica {number}, which says now {}: {}",
                reply.status,
                reply.text()
            );
            says_lost
        });
        let replies: Vec<bool> = replies.buffer_unordered(AT_ONCE).collect().await;
        if replies.contains(&true) {
            report.noticed += 1;
            is_silent = false;
        }
    }
    is_silent
}

/// What was lost is accepted, and then all replicas serve again.
async fn accept_and_serve(replicas: &[Service], nothing_is_lost: bool) {
    if !nothing_is_lost {
        until("the loss to be accepted", async || {
            let mut doctor = replicas[0].setup().command();
            doctor.args(["doctor", "--accept-state-loss"]);
            let output = within("the doctor", doctor.output()).await.unwrap();
            output.stdout.starts_with(b"Accepted").then_some(())
        })
        .await;
    }
    // An echo, above all that was sent before.
    const FIRST: usize = 12_000_000;
    for (number, replica) in replicas.iter().enumerate() {
        let work = Work(FIRST + 12 * number);
        until("an acknowledgement after the loss", async || {
            let reply = work.send(&replica.client()).await?;
            (reply.status < 300).then_some(())
        })
        .await;
    }
}

/// What a replica says once it reaches Redis again.
async fn settled(client: &Client, work: Work) -> Reply {
    until("a settled answer", async || {
        let reply = work.send(client).await?;
        (reply.status < 300 || is_lost(&reply)).then_some(reply)
    })
    .await
}

fn is_lost(reply: &Reply) -> bool {
    reply.status == 503 && reply.json()["code"] == "state-lost"
}

/// With a copy of what the replica remembers.
async fn started_anew(setup: &Setup, number: usize) -> Service {
    let copy = setup.folder().join(format!("data {number}"));
    std::fs::create_dir(&copy).unwrap();
    copy_all(&setup.folder().join("data"), &copy);
    Service::launch(setup.clone().env("JUSTONCE_DATA", copy.to_str().unwrap())).await
}

/// Clients of all replicas, until they are told to end.
struct Load {
    over: CancellationToken,
    told: Vec<Arc<Mutex<Told>>>,
    clients: JoinSet<()>,
}

impl Load {
    fn start(replicas: &[Service]) -> Load {
        const CLIENTS_OF_EACH: usize = 3;
        let (next, over) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (mut all_told, mut clients) = (Vec::new(), JoinSet::new());
        for replica in replicas {
            let told = Arc::new(Mutex::new(Told::new()));
            for _ in 0..CLIENTS_OF_EACH {
                let (client, next, told) = (replica.client(), next.clone(), told.clone());
                let over = over.clone();
                clients.spawn(async move {
                    while !over.is_cancelled() {
                        let work = Work(next.fetch_add(1, Ordering::Relaxed));
                        submit(&client, work, &told).await;
                    }
                });
            }
            all_told.push(told);
        }
        Load {
            over,
            told: all_told,
            clients,
        }
    }

    /// By replica.
    async fn end(mut self) -> Vec<Told> {
        self.over.cancel();
        while let Some(client) = within("a client", self.clients.join_next()).await {
            client.unwrap();
        }
        let told = self.told.iter();
        told.map(|told| std::mem::take(&mut *told.lock().unwrap()))
            .collect()
    }
}

async fn submit(client: &Client, work: Work, told: &Mutex<Told>) {
    if matches!(work.kind(), Kind::Echo)
        && let Some(reply) = work.send(client).await
        && reply.status < 300
    {
        told.lock().unwrap().insert(work.0, reply.id());
    }
}
