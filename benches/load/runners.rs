//! Tasks that do nothing, from their submission to their recorded end, through each kind of runner; and what the same
//! machine does with that runner's work alone.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Load;
use crate::process::{Server, Setup, cores, program};
use crate::redis_server::RedisServer;
use crate::table::Table;
use crate::{Options, outside, requests, run, wait_until_done};

/// Of those who submit.
const CONNECTIONS: usize = 64;

/// A kind of runner.
struct Kind {
    name: &'static str,
    task_type: &'static str,
    params: &'static str,
    /// Tasks for each second that a row may take: about as many as it ends.
    tasks_per_second: f64,
    limit: Limit,
}

/// The runner's work without a service.
enum Limit {
    /// The same tasks, accepted and not run.
    Admission,
    /// The program is started and waited for, one on each core.
    Starts(fn() -> Command),
    /// As many requests as it takes to a bare server, by as many connections.
    Requests { connections: usize, each: f64 },
}

const KINDS: [Kind; 5] = [
    Kind {
        name: "builtin (echo)",
        task_type: "echo",
        params: r#"{"n":"0000000000000000"}"#,
        tasks_per_second: 8_000.0,
        limit: Limit::Admission,
    },
    Kind {
        name: "sandboxed (process_document)",
        task_type: "process_document",
        params: r#"{"document":"0000000000000000"}"#,
        tasks_per_second: 60.0,
        limit: Limit::Starts(start_of_the_binary),
    },
    Kind {
        name: "command (true)",
        task_type: "program",
        params: r#"{"n":"0000000000000000"}"#,
        tasks_per_second: 400.0,
        limit: Limit::Starts(start_of_true),
    },
    Kind {
        name: "http",
        task_type: "remote",
        params: r#"{"n":"0000000000000000"}"#,
        tasks_per_second: 3_000.0,
        limit: Limit::Requests {
            connections: CONNECTIONS,
            each: 1.0,
        },
    },
    Kind {
        name: "external",
        task_type: "far",
        params: r#"{"n":"0000000000000000"}"#,
        tasks_per_second: 4_000.0,
        limit: Limit::Requests {
            connections: outside::WORKERS,
            each: outside::REQUESTS_EACH,
        },
    },
];

/// `redis` starts one of its own for each service.
pub fn measure(options: &Options, redis: impl Fn() -> Option<RedisServer>) {
    let limit = Server::start(&Setup::Limit);
    let mut table = Table::new([
        "runner, end to end",
        "tasks",
        "per second",
        "CPU s / 1,000",
        "limit",
        "of the limit",
    ]);
    for kind in &KINDS {
        let remote = limit.address;
        let service = Server::start_on(&Setup::Runners { remote }, redis());
        let tasks = (kind.tasks_per_second * options.seconds).ceil() as u64;
        let load = |address, answers_max, seconds| Load {
            address,
            connections: CONNECTIONS,
            seconds,
            request: requests::unique_of(address, kind.task_type, kind.params),
            expected: 202,
            answers_max,
        };
        let cpu_before = service.cpu_seconds();
        let began = Instant::now();
        let submitted = std::thread::scope(|scope| {
            let workers = scope.spawn(|| {
                if kind.task_type == "far" {
                    outside::work_off(service.address, tasks, outside::MANY);
                }
            });
            let measured = run(&service, &load(service.address, tasks, 600.0));
            measured.report_unexpected(kind.name);
            workers.join().expect("the workers");
            measured.outcome.answers
        });
        wait_until_done(service.address);
        let took = began.elapsed().as_secs_f64();
        let cpu = service.cpu_seconds() - cpu_before;
        let bare = match &kind.limit {
            Limit::Admission => {
                let idle = Setup::Service { workers: Some(0) };
                let idle = Server::start_on(&idle, redis());
                run(&idle, &load(idle.address, u64::MAX, options.seconds)).per_second()
            }
            Limit::Starts(command) => starts_per_second(*command, options.seconds),
            &Limit::Requests { connections, each } => {
                let load = Load {
                    connections,
                    expected: 200,
                    ..load(limit.address, u64::MAX, options.seconds)
                };
                run(&limit, &load).per_second() / each
            }
        };
        let per_second = submitted as f64 / took;
        table.row([
            kind.name.to_owned(),
            submitted.to_string(),
            format!("{per_second:.0}"),
            format!("{:.3}", cpu / submitted.max(1) as f64 * 1e3),
            format!("{bare:.0}"),
            format!("{:.2}", per_second / bare),
        ]);
    }
    println!("{table}");
}

/// As the sandbox does for each parse, and then nothing.
fn start_of_the_binary() -> Command {
    let mut command = Command::new(program());
    command.arg("--version");
    command
}

fn start_of_true() -> Command {
    Command::new("true")
}

/// One on each core, one after the other.
fn starts_per_second(command: fn() -> Command, seconds: f64) -> f64 {
    let started = AtomicU64::new(0);
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(seconds);
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                while Instant::now() < until {
                    let mut command = command();
                    command.stdin(Stdio::null()).stdout(Stdio::null());
                    command.status().expect("a program");
                    started.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    started.into_inner() as f64 / began.elapsed().as_secs_f64()
}
