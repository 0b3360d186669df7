//! A load balancer before the replicas, where one is installed. It repeats nothing: that is for clients to do.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::process::Command;

use super::ports;
use super::process::Process;

pub struct Balancer {
    pub process: Process,
    pub address: SocketAddr,
    _folder: TempDir,
}

/// Debian installs it beside the programs of the administrator.
const PROGRAMS: [&str; 2] = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"];

impl Balancer {
    /// None where HAProxy is not installed.
    pub fn start(replicas: impl Iterator<Item = SocketAddr>) -> Option<Balancer> {
        let program = PROGRAMS
            .iter()
            .find(|path| std::path::Path::new(path).exists())?;
        let folder = TempDir::new().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let path = folder.path().join("haproxy.cfg");
        std::fs::write(&path, config(address, replicas)).unwrap();
        let process = Process::start(
            "the balancer".to_owned(),
            folder.path().join("log"),
            move || {
                let mut command = Command::new(program);
                command.arg("-db").arg("-f").arg(&path);
                command
            },
        );
        Some(Balancer {
            process,
            address,
            _folder: folder,
        })
    }
}

fn config(address: SocketAddr, replicas: impl Iterator<Item = SocketAddr>) -> String {
    let servers = replicas.enumerate().map(|(number, replica)| {
        format!("    server replica{number} {replica} check inter 200ms fall 2 rise 1\n")
    });
    format!(
        "global\n    nbthread 1\n    maxconn 1000\n\
         defaults\n    mode http\n    retries 0\n    timeout connect 1s\n    timeout client 75s\n    timeout server 60s\n\
         frontend clients\n    bind {address}\n    default_backend replicas\n\
         backend replicas\n    balance roundrobin\n    option httpchk GET /readyz\n    http-check send hdr host balancer\n{}",
        servers.collect::<String>()
    )
}
