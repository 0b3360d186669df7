//! Trials: load, cuts and a look at each image; some images are cut once more while they are opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tempfile::TempDir;

use super::disk::Disk;
use super::expected::Expected;
use super::image::{self, Luck};
use super::inspection::inspect;
use super::load::{setup, submit};
use super::log::{self, Entry};
use super::shim::Shim;
use crate::faults::seed::{self, Seed};
use crate::faults::setting::setting;
use crate::support::Service;

#[derive(Debug, Default)]
pub struct Report {
    pub acknowledged: usize,
    pub images: usize,
    /// Of these, images of images.
    pub cut_twice: usize,
    /// Acknowledgements that an image had to hold, over all images.
    pub looked_for: usize,
    pub violations: Vec<String>,
}

/// How much is done.
struct Extent {
    /// Lives of the service before the cuts.
    lives: usize,
    acknowledgements: usize,
    cuts: usize,
    /// Images that are opened by the real binary, and cut once more meanwhile.
    openings: usize,
    cuts_of_an_opening: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_survives_power_cuts() {
    let extent = Extent {
        lives: 3,
        acknowledgements: setting("FAULTS_ACKNOWLEDGEMENTS", 60),
        cuts: setting("FAULTS_CUTS", 200),
        openings: setting("FAULTS_OPENINGS", 10),
        cuts_of_an_opening: 10,
    };
    run(extent, Seed::draw()).await;
}

/// Through `make power-cuts`. Long enough for the log to be moved into the database while the service is used.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: see make power-cuts"]
async fn the_embedded_store_survives_thousands_of_power_cuts() {
    let seed = Seed::draw();
    let rounds = setting("FAULTS_ROUNDS", 10);
    for round in 0..rounds {
        let extent = Extent {
            lives: 4,
            acknowledgements: setting("FAULTS_ACKNOWLEDGEMENTS", 150),
            cuts: setting("FAULTS_CUTS", 900),
            openings: setting("FAULTS_OPENINGS", 25),
            cuts_of_an_opening: 4,
        };
        println!("round {round}");
        run(extent, seed.of_round(round)).await;
    }
}

async fn run(extent: Extent, seed: Seed) {
    println!("power cuts: seed {seed}");
    let root = folder();
    let shim = Arc::new(Shim::over(root.path()));
    live(&extent, &shim, root.path(), seed).await;
    let log = shim.log();
    let entries = log::read(&log);
    let mut report = Report::default();
    let mut choices = seed.choices("cuts", 0);
    let cuts = drawn(extent.cuts, entries.len(), &mut choices);
    let step = (cuts.len() / extent.openings.max(1)).max(1);
    let mut disk = Disk::default();
    let mut expected = Expected::default();
    for (number, cut) in cuts.into_iter().enumerate() {
        advance(&mut disk, &mut expected, &entries, cut, seed);
        let mut choices = seed.choices("image", number);
        let luck = Luck::draw(&mut choices);
        let image = folder();
        image::write(&disk, luck, &mut choices, image.path());
        if number % step == step / 2 && number / step < extent.openings {
            let name = format!("{cut} of {}, {luck:?}", entries.len());
            cut_again(
                &name,
                image.path(),
                &expected,
                &extent,
                number,
                seed,
                &mut report,
            )
            .await;
        }
        let name = format!("cut at {cut} of {}, {luck:?}", entries.len());
        examine(&name, image.path(), &expected, &mut choices, &mut report).await;
    }
    report.acknowledged = expected.count();
    conclude(&report, seed);
}

/// Lets the service live some lives, each with load, and each but the last ended in one way or the other.
async fn live(extent: &Extent, shim: &Arc<Shim>, root: &Path, seed: Seed) {
    let mut choices = seed.choices("lives", 0);
    let next = Arc::new(AtomicUsize::new(0));
    let mut setup = setup(shim, data(root).to_str().unwrap());
    for _ in 0..extent.lives {
        let service = setup.start().await;
        submit(&service, shim, &next, extent.acknowledgements).await;
        setup = if choices.bool() {
            service.kill().await
        } else {
            service.terminate();
            service.ended().await.1
        };
    }
}

/// Opens a copy of an image with the real binary and some load, and cuts the power meanwhile.
async fn cut_again(
    name: &str,
    image: &Path,
    expected: &Expected,
    extent: &Extent,
    number: usize,
    seed: Seed,
    report: &mut Report,
) {
    const ACKNOWLEDGEMENTS: usize = 5;
    // Above all that was sent before.
    const FIRST_OF_THE_SECOND: usize = 10_000_000;
    let copy = folder();
    copy_all(image, copy.path());
    let shim = Arc::new(Shim::over(copy.path()));
    let mut disk = Disk::holding(copy.path());
    let mut expected = expected.clone();
    let next = Arc::new(AtomicUsize::new(FIRST_OF_THE_SECOND));
    let service: Service = setup(&shim, data(copy.path()).to_str().unwrap())
        .start()
        .await;
    submit(&service, &shim, &next, ACKNOWLEDGEMENTS).await;
    drop(service.kill().await);
    let log = shim.log();
    let entries = log::read(&log);
    let mut choices = seed.choices("second cuts", number);
    let cuts = drawn(extent.cuts_of_an_opening, entries.len(), &mut choices);
    for cut in cuts {
        advance(&mut disk, &mut expected, &entries, cut, seed);
        let luck = Luck::draw(&mut choices);
        let image = folder();
        image::write(&disk, luck, &mut choices, image.path());
        let name = format!("{name}; again at {cut} of {}, {luck:?}", entries.len());
        examine(&name, image.path(), &expected, &mut choices, report).await;
        report.cut_twice += 1;
    }
}

async fn examine(
    name: &str,
    image: &Path,
    expected: &Expected,
    choices: &mut fastrand::Rng,
    report: &mut Report,
) {
    report.images += 1;
    report.looked_for += expected.count();
    if let Err(violation) = inspect(&data(image), expected, choices).await {
        println!("! {name}: {violation}");
        report.violations.push(violation);
    }
}

pub fn advance<'a>(
    disk: &mut Disk<'a>,
    expected: &mut Expected,
    entries: &[Entry<'a>],
    cut: usize,
    seed: Seed,
) {
    while disk.now < cut {
        let entry = &entries[disk.now];
        if let Entry::Note(note) = entry {
            expected.hear(note);
        }
        let mut luck = seed.choices("failed sync", disk.now);
        disk.apply(entry, &mut luck);
    }
}

/// Places in a log, in order.
pub fn drawn(count: usize, entries: usize, choices: &mut fastrand::Rng) -> Vec<usize> {
    let mut cuts: Vec<_> = (0..count).map(|_| choices.usize(0..=entries)).collect();
    cuts.sort_unstable();
    cuts
}

pub fn conclude(report: &Report, seed: Seed) {
    let rows = [
        ("acknowledged", report.acknowledged),
        ("images reopened", report.images),
        ("  cut twice", report.cut_twice),
        ("acknowledgements looked for", report.looked_for),
        ("violations", report.violations.len()),
    ];
    println!("seed                        {seed}");
    for (name, number) in rows {
        println!("{name:27} {number}");
    }
    let (violations, variable) = (report.violations.len(), seed::VARIABLE);
    assert!(
        violations == 0,
        "{violations} violations; run it again with {variable}={seed}"
    );
}

pub fn data(root: &Path) -> PathBuf {
    root.join("data")
}

/// In memory where there is room: nothing here needs a real disk.
pub fn folder() -> TempDir {
    const ENOUGH_BYTES: u64 = 1 << 30;
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
    if free >= ENOUGH_BYTES {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

pub fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
