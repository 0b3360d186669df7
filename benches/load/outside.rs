//! Workers outside: they lease tasks that do nothing, many at a time, and complete each by itself.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use crate::client::{self, Connection, Load};
use crate::process::Server;
use crate::requests;
use crate::run;

/// Each with a connection of its own.
const WORKERS: usize = 32;
/// Tasks that a worker leases in one request.
const LEASES_MAX: u64 = 20;

/// Submits tasks, and then lets workers take them all.
pub fn measure(service: &Server, tasks: u64) {
    let load = Load {
        address: service.address,
        connections: 64,
        seconds: 600.0,
        request: requests::unique_far(service.address),
        expected: 202,
        answers_max: tasks,
    };
    let submitted = run(service, &load).outcome.answers;
    let cpu_before = service.cpu_seconds();
    let began = Instant::now();
    let ended = client::block_on(async {
        let workers = (0..WORKERS).map(|_| work(service.address));
        let ended = futures_util::future::join_all(workers).await;
        ended.into_iter().sum::<u64>()
    });
    let took = began.elapsed().as_secs_f64();
    let cpu = service.cpu_seconds() - cpu_before;
    println!(
        "external tasks, leased and completed over HTTP: {:.0} per second, {:.3} CPU s / 1,000 ({ended} of {submitted} tasks)\n",
        ended as f64 / took,
        cpu / ended.max(1) as f64 * 1e3,
    );
}

/// Until there is nothing to do.
async fn work(address: SocketAddr) -> u64 {
    let mut connection = Connection::open(address).await;
    let ask = format!(r#"{{"types":["far"],"max":{LEASES_MAX},"worker":"bench"}}"#);
    let ask = requests::post_json(address, "/v1/leases", &ask);
    let mut ended = 0;
    loop {
        let (status, answer) = connection.exchange(&ask).await.expect("an answer");
        assert_eq!(status, 200, "no leases were given");
        let answer: Value = serde_json::from_slice(&answer).expect("leases");
        let leases = answer["leases"].as_array().expect("leases");
        if leases.is_empty() {
            return ended;
        }
        for lease in leases {
            let id = lease["lease_id"].as_str().expect("its id");
            let body = format!(
                r#"{{"fencing_token":{},"result":null}}"#,
                lease["fencing_token"]
            );
            let path = format!("/v1/leases/{id}/complete");
            let complete = requests::post_json(address, &path, &body);
            let (status, _) = connection.exchange(&complete).await.expect("an answer");
            assert_eq!(status, 200, "a result was refused");
            ended += 1;
        }
    }
}
