//! The store on Redis beside its limit: a bare axum server that takes one small script for each submission. Both
//! have a Redis server of their own, set up alike.

use std::time::Duration;

use crate::client::{self, Load};
use crate::process::{Server, Setup};
use crate::redis_server::{Durability, RedisServer};
use crate::table::Table;
use crate::{
    Options, Part, end_to_end, followers, outside, requests, run, runners, wait_until_done,
};

const CONNECTIONS: [usize; 3] = [16, 64, 256];
/// How long an idle service is watched.
const IDLE: Duration = Duration::from_secs(6);
/// Tasks that memory is measured with.
const REMEMBERED: u64 = 20_000;
const REMEMBERED_CONNECTIONS: usize = 64;

pub fn measure(options: &Options) {
    for durability in [Durability::Memory, Durability::Fsync] {
        println!("Redis, {}\n", durability.name());
        if options.wants(Part::Submissions) {
            submissions(options, durability);
        }
        if options.wants(Part::EndToEnd) {
            end_to_end(options, &start(durability, None));
        }
        if options.wants(Part::Runners) {
            runners::measure(options, || Some(RedisServer::start(durability)));
        }
        if options.wants(Part::Outside) {
            let (service, limit) = (start(durability, Some(0)), Server::start(&Setup::Limit));
            outside::measure(&service, &limit, options.outside_tasks());
        }
        if options.wants(Part::Followers) {
            followers::measure(options, |workers| start(durability, workers));
        }
    }
    if !options.wants(Part::Idle) {
        return;
    }
    let service = start(Durability::Memory, None);
    idle(&service);
    remembered(&service);
}

fn start(durability: Durability, workers: Option<usize>) -> Server {
    let redis = RedisServer::start(durability);
    Server::start_on(&Setup::Service { workers }, Some(redis))
}

fn submissions(options: &Options, durability: Durability) {
    let limit = Server::start_on(&Setup::RedisLimit, Some(RedisServer::start(durability)));
    let service = {
        // The task that the duplicates name has ended before they come.
        let worker = start(durability, None);
        let echo = requests::fixed(worker.address, "bench-duplicate");
        client::send_once(worker.address, &requests::waiting(&echo));
        worker.restarted(Some(0))
    };
    let fixed = |server: &Server| requests::fixed(server.address, "bench-duplicate");
    client::send_once(limit.address, &fixed(&limit));
    let mut table = Table::new([
        "work",
        "c",
        "per second",
        "p50 ms",
        "p99 ms",
        "of the limit",
        "CPU s / 1,000",
        "of its CPU",
    ]);
    for connections in CONNECTIONS {
        for (work, expected) in [("duplicate", 200), ("new", 202)] {
            let measure = |server: &Server| {
                let request = match work {
                    "new" => requests::unique(server.address),
                    _ => fixed(server),
                };
                let load = Load {
                    address: server.address,
                    connections,
                    seconds: options.seconds,
                    request,
                    expected,
                    answers_max: u64::MAX,
                };
                run(server, &load)
            };
            let (bare, ours) = (measure(&limit), measure(&service));
            for (name, measured) in [(format!("{work}, limit"), &bare), (work.to_owned(), &ours)] {
                measured.report_unexpected(&name);
                table.row([
                    name,
                    connections.to_string(),
                    format!("{:.0}", measured.per_second()),
                    format!("{:.2}", measured.outcome.p50_ms),
                    format!("{:.2}", measured.outcome.p99_ms),
                    format!("{:.2}", measured.per_second() / bare.per_second()),
                    format!("{:.3}", measured.cpu_per_thousand()),
                    format!(
                        "{:.2}",
                        measured.cpu_per_thousand() / bare.cpu_per_thousand()
                    ),
                ]);
            }
        }
    }
    println!("{table}");
}

/// What one replica with nothing to do asks of Redis.
fn idle(service: &Server) {
    std::thread::sleep(Duration::from_secs(2));
    let redis = service.redis();
    let before = redis.commands();
    std::thread::sleep(IDLE);
    let commands = redis.commands() - before;
    println!(
        "one idle replica: {:.1} commands per second, those within scripts included",
        commands / IDLE.as_secs_f64()
    );
}

/// What Redis keeps of a finished task with a key and a fingerprint, beside what came and what was given.
fn remembered(service: &Server) {
    let redis = service.redis();
    let load = Load {
        address: service.address,
        connections: REMEMBERED_CONNECTIONS,
        seconds: 600.0,
        request: requests::unique(service.address),
        expected: 202,
        answers_max: REMEMBERED,
    };
    let before = redis.data_bytes();
    let answers = run(service, &load).outcome.answers as f64;
    wait_until_done(service.address);
    let each = (redis.data_bytes() - before) / answers;
    let carried = requests::params_bytes() + requests::result_bytes();
    println!(
        "memory of a finished task with key and fingerprint: {:.0} bytes beyond the {carried} of params and result",
        each - carried as f64
    );
}
