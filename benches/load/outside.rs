//! Workers outside: they lease tasks that do nothing, many at a time or one, and complete each by itself.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::client::{self, Connection, Load};
use crate::process::Server;
use crate::requests;
use crate::run;
use crate::table::Table;

/// Each with a connection of its own.
pub const WORKERS: usize = 32;
/// Tasks that a worker leases in one request.
pub const MANY: u64 = 20;
const ONE: u64 = 1;
/// Requests that a task takes when many are leased at a time.
pub const REQUESTS_EACH: f64 = 1.0 + 1.0 / MANY as f64;

/// Submits tasks, and then lets workers take them all. `limit`: a bare server.
pub fn measure(service: &Server, limit: &Server, tasks: u64) {
    let mut table = Table::new([
        "external tasks, leased and completed over HTTP",
        "tasks",
        "per second",
        "CPU s / 1,000",
        "limit",
        "of the limit",
    ]);
    for (name, at_a_time) in [("20 leases a request", MANY), ("one by one", ONE)] {
        let load = |address, connections, seconds, expected, answers_max| Load {
            address,
            connections,
            seconds,
            request: requests::unique_far(address),
            expected,
            answers_max,
        };
        let submit = load(service.address, 64, 600.0, 202, tasks);
        let submitted = run(service, &submit).outcome.answers;
        let cpu_before = service.cpu_seconds();
        let began = Instant::now();
        work_off(service.address, submitted, at_a_time);
        let per_second = submitted as f64 / began.elapsed().as_secs_f64();
        let cpu = service.cpu_seconds() - cpu_before;
        let requests_each = 1.0 + 1.0 / at_a_time as f64;
        let bare = load(limit.address, WORKERS, 1.0, 200, u64::MAX);
        let bare = run(limit, &bare).per_second() / requests_each;
        table.row([
            name.to_owned(),
            submitted.to_string(),
            format!("{per_second:.0}"),
            format!("{:.3}", cpu / submitted.max(1) as f64 * 1e3),
            format!("{bare:.0}"),
            format!("{:.2}", per_second / bare),
        ]);
    }
    println!("{table}");
}

/// Lets workers lease and complete, until so many tasks have ended.
pub fn work_off(address: SocketAddr, tasks: u64, at_a_time: u64) {
    let ended = AtomicU64::new(0);
    client::block_on(async {
        let workers = (0..WORKERS).map(|_| work(address, tasks, at_a_time, &ended));
        futures_util::future::join_all(workers).await
    });
}

async fn work(address: SocketAddr, tasks: u64, at_a_time: u64, ended: &AtomicU64) {
    let mut connection = Connection::open(address).await;
    let ask = format!(r#"{{"types":["far"],"max":{at_a_time},"wait":1,"worker":"bench"}}"#);
    let ask = requests::post_json(address, "/v1/leases", &ask);
    while ended.load(Ordering::Relaxed) < tasks {
        let (status, answer) = connection.exchange(&ask).await.expect("an answer");
        assert_eq!(status, 200, "no leases were given");
        let answer: Value = serde_json::from_slice(&answer).expect("leases");
        for lease in answer["leases"].as_array().expect("leases") {
            let id = lease["lease_id"].as_str().expect("its id");
            let body = format!(
                r#"{{"fencing_token":{},"result":null}}"#,
                lease["fencing_token"]
            );
            let path = format!("/v1/leases/{id}/complete");
            let complete = requests::post_json(address, &path, &body);
            let (status, _) = connection.exchange(&complete).await.expect("an answer");
            assert_eq!(status, 200, "a result was refused");
            ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}
