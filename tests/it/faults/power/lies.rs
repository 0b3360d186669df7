//! Disks and clocks that lie: a sync that fails, a disk that is full, an hour that comes twice.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::disk::Disk;
use super::expected::Expected;
use super::image::{self, Luck};
use super::inspection::inspect;
use super::load::{Work, setup, submit};
use super::log::{self, Entry};
use super::shim::{Lie, Shim};
use super::trials::{advance, data, folder};
use crate::faults::seed::{self, Seed};
use crate::faults::setting::setting;
use crate::support::Service;
use crate::support::client::is_ended;
use crate::support::deadline::until;

const SIGABRT: i32 = 6;

/// After a sync that failed nobody knows what the disk holds: whatever it is, the next start finds all that was
/// acknowledged. The process must not go on after a failure of its database.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_loses_nothing_acknowledged() {
    const SYNCS: i64 = 60;
    let seed = Seed::draw();
    println!("failed syncs: {} {seed}", seed::VARIABLE);
    let mut aborted = 0;
    for round in 0..setting("FAULTS_SYNCS", 8) {
        let mut choices = seed.choices("failed syncs", round);
        let root = folder();
        let shim = Arc::new(Shim::over(root.path()));
        let service = begin(&shim, root.path()).await;
        shim.tell(Lie::FailedSync, choices.i64(1..SYNCS));
        let next = Arc::new(AtomicUsize::new(0));
        submit(&service, &shim, &next, 100).await;
        assert_eq!(shim.told_lies(), 1, "seed {seed}: no sync failed");
        let log = shim.log();
        let entries = log::read(&log);
        if of_the_database(&entries) {
            let (status, _) = service.ended().await;
            assert_eq!(status.signal(), Some(SIGABRT), "seed {seed}: {status}");
            aborted += 1;
        } else {
            drop(service.kill().await);
        }
        look_at_images(&shim, seed, &mut choices).await;
    }
    println!("failed syncs: {aborted} ended the process");
}

/// Refused before anything is acknowledged, and all goes on as soon as there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let seed = Seed::draw();
    println!("full disks: {} {seed}", seed::VARIABLE);
    for round in 0..setting("FAULTS_FULL_DISKS", 4) {
        let mut choices = seed.choices("full disks", round);
        let root = folder();
        let shim = Arc::new(Shim::over(root.path()));
        let service = begin(&shim, root.path()).await;
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            shim.tell(Lie::RoomInBytes, choices.i64(1..400_000));
            let before = shim.told_lies();
            tokio::select! {
                () = submit(&service, &shim, &next, usize::MAX) => panic!("seed {seed}: it ended"),
                () = until("a full disk", async || (shim.told_lies() > before + 3).then_some(())) => {}
            }
            shim.tell(Lie::RoomInBytes, 0);
            submit(&service, &shim, &next, 20).await;
        }
        drop(service.kill().await);
        look_at_images(&shim, seed, &mut choices).await;
    }
}

/// A clock that is set delays or repeats work; it makes no second task and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_by_an_hour_neither_loses_nor_doubles() {
    const HOUR_NS: i64 = 3_600_000_000_000;
    let seed = Seed::draw();
    println!("moved clocks: {} {seed}", seed::VARIABLE);
    let mut choices = seed.choices("clocks", 0);
    let root = folder();
    let shim = Arc::new(Shim::over(root.path()));
    let mut service = begin(&shim, root.path()).await;
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..setting("FAULTS_CLOCKS", 12) {
        shim.tell(Lie::ClockShiftNs, HOUR_NS * choices.i64(-1..=1));
        submit(&service, &shim, &next, 15).await;
        if choices.u8(..4) == 0 {
            service = service.kill().await.start().await;
        }
    }
    shim.tell(Lie::ClockShiftNs, 0);
    let log = shim.log();
    let mut expected = Expected::default();
    for entry in log::read(&log) {
        if let Entry::Note(note) = entry {
            expected.hear(&note);
        }
    }
    for (key, id) in &expected.acknowledged {
        let work = Work(expected.sent[key]);
        let client = service.client().user(&work.user());
        let path = format!("/v1/tasks/{id}");
        until(&format!("the end of {key}, seed {seed}"), async || {
            let task = client.get(&path).wait(5).send().await.expect(200).json();
            is_ended(&task).then_some(())
        })
        .await;
        let again = work.send(&service.client()).await.unwrap();
        assert_eq!(again.id(), *id, "seed {seed}: {key}");
    }
    let stats = service.client().stats().await;
    assert_eq!(stats["completed"], stats["total_tasks"], "seed {seed}");
    // Whoever was cut off by a kill may have been heard.
    let cut_off = next.load(Ordering::Relaxed) as u64;
    let total = stats["total_tasks"].as_u64().unwrap();
    let acknowledged = expected.acknowledged.len() as u64;
    assert!((acknowledged..=cut_off).contains(&total), "seed {seed}");
}

async fn begin(shim: &Shim, root: &Path) -> Service {
    let data = data(root);
    setup(shim, data.to_str().unwrap()).start().await
}

/// Whether it was the database whose sync failed, or its log.
fn of_the_database(entries: &[Entry<'_>]) -> bool {
    let failed = entries.iter().find_map(|entry| match entry {
        Entry::SyncFailed { inode } => Some(*inode),
        _ => None,
    });
    let mut path = "";
    for entry in entries {
        match entry {
            Entry::SyncFailed { .. } => break,
            Entry::Create { inode, path: made } if Some(*inode) == failed => path = made,
            _ => {}
        }
    }
    path.contains("justonce.db")
}

/// What the disk may hold now.
async fn look_at_images(shim: &Shim, seed: Seed, choices: &mut fastrand::Rng) {
    const IMAGES: usize = 5;
    let log = shim.log();
    let entries = log::read(&log);
    let (mut disk, mut expected) = (Disk::default(), Expected::default());
    advance(&mut disk, &mut expected, &entries, entries.len(), seed);
    for _ in 0..IMAGES {
        let luck = Luck::draw(choices);
        let image = folder();
        image::write(&disk, luck, choices, image.path());
        let inspected = inspect(&data(image.path()), &expected, choices).await;
        inspected.unwrap_or_else(|why| panic!("seed {seed}, {luck:?}: {why}"));
    }
}
