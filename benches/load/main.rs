//! What the service does per second and per processor second, beside the limit of the same machine in the same
//! run. `cargo bench --bench load [-- --store embedded | redis | all] [--seconds 2] [--upload-mb 256 | --upload-gb 5]
//! [--only submissions | end-to-end | runners | outside | followers | uploads | idle]`
//!
//! Figures of shared machines mean nothing by themselves, so every row says its share of the limit: a bare axum
//! server that parses JSON, hashes it and replies; on Redis, the same with one small script; for uploads, the same
//! bytes hashed, written and synced in one process. There are no verdicts here. The store on Redis needs
//! `redis-server` on the path, and starts its own.

mod client;
mod followers;
mod limit;
mod outside;
mod process;
mod redis_limit;
mod redis_server;
mod redis_store;
mod requests;
mod runners;
mod table;
mod upload;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Load, Outcome};
use process::{Server, Setup};
use table::Table;

/// Connections at a time.
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        // The programs that this one starts of itself.
        Some("limit-program") => match args.get(1) {
            Some(redis) => redis_limit::serve(redis),
            None => limit::serve(),
        },
        Some("load-client") => client::run_from_stdin(),
        Some("followers") => followers::follow(&args[1], &args[2]),
        _ => measure(&Options::parse(&args)),
    }
}

struct Options {
    stores: Stores,
    /// How long each row is measured.
    seconds: f64,
    upload_bytes: u64,
    /// All of them when none is named.
    only: Option<Part>,
}

/// A part of the measurements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Submissions,
    EndToEnd,
    Runners,
    Outside,
    Followers,
    Uploads,
    Idle,
}

impl Part {
    fn parse(name: &str) -> Option<Part> {
        match name {
            "submissions" => Some(Part::Submissions),
            "end-to-end" => Some(Part::EndToEnd),
            "runners" => Some(Part::Runners),
            "outside" => Some(Part::Outside),
            "followers" => Some(Part::Followers),
            "uploads" => Some(Part::Uploads),
            "idle" => Some(Part::Idle),
            _ => None,
        }
    }
}

/// Which stores are measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stores {
    Embedded,
    Redis,
    All,
}

impl Stores {
    fn parse(name: &str) -> Option<Stores> {
        match name {
            "embedded" => Some(Stores::Embedded),
            "redis" => Some(Stores::Redis),
            "all" => Some(Stores::All),
            _ => None,
        }
    }
}

impl Options {
    fn parse(args: &[String]) -> Options {
        let mut options = Options {
            stores: Stores::Embedded,
            seconds: 1.5,
            upload_bytes: 256 << 20,
            only: None,
        };
        let mut args = args.iter().filter(|arg| *arg != "--bench");
        while let Some(arg) = args.next() {
            let value = args.next().map_or("", String::as_str);
            if options.set(arg, value).is_none() {
                eprintln!(
                    "options: --store embedded|redis|all, --seconds N, --upload-mb N, --upload-gb N, \
                     --only submissions|end-to-end|runners|outside|followers|uploads|idle"
                );
                std::process::exit(2);
            }
        }
        options
    }

    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    fn outside_tasks(&self) -> u64 {
        (self.seconds * 10_000.0) as u64
    }

    fn set(&mut self, name: &str, value: &str) -> Option<()> {
        let number = || value.parse::<f64>().ok();
        match name {
            "--only" => self.only = Some(Part::parse(value)?),
            "--store" => self.stores = Stores::parse(value)?,
            "--seconds" => self.seconds = number()?,
            "--upload-mb" => self.upload_bytes = (number()? * 1_048_576.0) as u64,
            "--upload-gb" => self.upload_bytes = (number()? * 1_073_741_824.0) as u64,
            _ => return None,
        }
        Some(())
    }
}

fn measure(options: &Options) {
    println!(
        "service and limit in turn, one load client, {} s a row\n",
        options.seconds
    );
    if options.stores != Stores::Redis {
        let service = |workers| Server::start(&Setup::Service { workers });
        let limit = || Server::start(&Setup::Limit);
        if options.wants(Part::Submissions) {
            submissions(options, &limit());
        }
        if options.wants(Part::EndToEnd) {
            end_to_end(options, &service(None));
        }
        if options.wants(Part::Runners) {
            runners::measure(options, || None);
        }
        if options.wants(Part::Outside) {
            outside::measure(&service(Some(0)), &limit(), options.outside_tasks());
        }
        if options.wants(Part::Followers) {
            followers::measure(options, service);
        }
        if options.wants(Part::Uploads) {
            uploads(options);
        }
    }
    if options.stores != Stores::Embedded {
        redis_store::measure(options);
    }
}

fn submissions(options: &Options, limit: &Server) {
    let service = Server::start(&Setup::Service { workers: Some(0) });
    println!("resident when idle: {:.1} MiB\n", service.resident_mib());
    let echo = requests::fixed(service.address, "bench-duplicate");
    let ended = {
        // A worker ends the task that the duplicates will name; then the service runs without any again.
        let worker = service.restarted(None);
        client::send_once(worker.address, &requests::waiting(&echo));
        worker.restarted(Some(0))
    };
    let mut table = Table::new([
        "work",
        "c",
        "per second",
        "p50 ms",
        "p99 ms",
        "of the limit",
        "CPU s / 1,000",
    ]);
    for connections in CONNECTIONS {
        let load = |address, request, expected| Load {
            address,
            connections,
            seconds: options.seconds,
            request,
            expected,
            answers_max: u64::MAX,
        };
        let fixed = |address| requests::fixed(address, "bench-duplicate");
        let bare = run(limit, &load(limit.address, fixed(limit.address), 200));
        let duplicate = run(&ended, &load(ended.address, fixed(ended.address), 200));
        let new = run(
            &ended,
            &load(ended.address, requests::unique(ended.address), 202),
        );
        for (work, measured) in [
            ("limit", &bare),
            ("duplicate", &duplicate),
            ("new, fsynced", &new),
        ] {
            table.row([
                work.to_owned(),
                connections.to_string(),
                format!("{:.0}", measured.per_second()),
                format!("{:.2}", measured.outcome.p50_ms),
                format!("{:.2}", measured.outcome.p99_ms),
                format!("{:.2}", measured.per_second() / bare.per_second()),
                format!("{:.3}", measured.cpu_per_thousand()),
            ]);
            measured.report_unexpected(work);
        }
    }
    println!("{table}");
}

/// Tasks that do nothing, from their submission to their recorded end.
fn end_to_end(options: &Options, service: &Server) {
    let mut alone = client::waits(service.address, 200);
    alone.sort_unstable();
    let at = |share: f64| alone[((alone.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "submit to done, alone: p50 {:.2} ms, p99 {:.2} ms",
        at(0.5),
        at(0.99)
    );

    let load = Load {
        address: service.address,
        connections: 64,
        seconds: options.seconds * 2.0,
        request: requests::unique(service.address),
        expected: 202,
        answers_max: u64::MAX,
    };
    let began = Instant::now();
    let measured = run(service, &load);
    let cpu_before = service.cpu_seconds() - measured.cpu_seconds;
    wait_until_done(service.address);
    let took = began.elapsed().as_secs_f64();
    let done = measured.outcome.answers as f64;
    let cpu = service.cpu_seconds() - cpu_before;
    println!(
        "echo tasks end to end: {:.0} per second, {:.3} CPU s / 1,000 ({done} tasks)",
        done / took,
        cpu / done * 1e3
    );
    println!("resident after that: {:.1} MiB\n", service.resident_mib());
}

fn wait_until_done(address: SocketAddr) {
    loop {
        let stats = client::send_once(address, &requests::stats(address));
        let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap_or_default();
        if stats["pending"] == 0 && stats["running"] == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn uploads(options: &Options) {
    let service = Server::start(&Setup::Service { workers: Some(0) });
    let mib = options.upload_bytes as f64 / 1_048_576.0;
    // A small one first, so that what every process needs once is not counted as growth.
    upload::send(&service, 100 << 10);
    let limit = upload::limit(options.upload_bytes);
    let (took, growth_mib) = upload::send(&service, options.upload_bytes);
    println!(
        "upload of {mib:.0} MiB: {:.0} MiB/s; hashed, written and synced in one process: {:.0} MiB/s ({:.2}); \
         resident +{growth_mib:.1} MiB",
        mib / took.as_secs_f64(),
        mib / limit.as_secs_f64(),
        limit.as_secs_f64() / took.as_secs_f64(),
    );
}

/// One row: what the client saw, and what the server used.
struct Measured {
    outcome: Outcome,
    cpu_seconds: f64,
}

fn run(server: &Server, load: &Load) -> Measured {
    let before = server.cpu_seconds();
    let outcome = client::run_in_process(load);
    Measured {
        outcome,
        cpu_seconds: server.cpu_seconds() - before,
    }
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.outcome.answers as f64 / self.outcome.seconds
    }

    fn cpu_per_thousand(&self) -> f64 {
        self.cpu_seconds / self.outcome.answers.max(1) as f64 * 1e3
    }

    fn report_unexpected(&self, work: &str) {
        if self.outcome.unexpected > 0 {
            println!(
                "{work}: {} answers with another status",
                self.outcome.unexpected
            );
        }
    }
}
