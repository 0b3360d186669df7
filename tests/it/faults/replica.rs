//! One process of the service, on an address that it keeps.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::connection::Connection;
use super::intent::read;
use super::ports;
use super::process::Process;
use crate::support::Setup;
use crate::support::deadline::until;

pub struct Replica {
    pub process: Process,
    pub address: SocketAddr,
    /// Of the service itself.
    pub setup: Option<Setup>,
}

impl Replica {
    pub fn start(name: String, setup: Setup) -> Replica {
        Replica::start_with(name, setup, Vec::new)
    }

    /// With these variables at each start.
    pub fn start_with(
        name: String,
        setup: Setup,
        variables: impl Fn() -> Vec<(&'static str, String)> + Send + 'static,
    ) -> Replica {
        let setup = setup
            .env("JUSTONCE_WORKERS", "8")
            .env("JUSTONCE_DRAIN_GRACE_SECONDS", "2")
            .env("RUST_LOG", "warn");
        let log = setup.folder().join("log");
        let kept = setup.clone();
        let replica = Replica::of(name, log, move |address| {
            let listen = address.to_string();
            let mut command = setup.clone().env("JUSTONCE_LISTEN", &listen).command();
            command.envs(variables());
            command
        });
        Replica {
            setup: Some(kept),
            ..replica
        }
    }

    /// A process that is made for an address.
    pub fn of(
        name: String,
        log: PathBuf,
        make: impl Fn(SocketAddr) -> Command + Send + 'static,
    ) -> Replica {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let process = Process::start(name, log, move || make(address));
        Replica {
            process,
            address,
            setup: None,
        }
    }

    pub async fn is_ready(&self) {
        let what = format!("{} to be ready", self.process.name);
        until(&what, async || answers(self.address).await.then_some(())).await;
    }
}

/// Whether somebody at this address says that all is well.
pub async fn answers(address: SocketAddr) -> bool {
    const WAIT_MAX: Duration = Duration::from_secs(3);
    let look = async {
        let mut connection = Connection::open(address).await.ok()?;
        let answer = connection.exchange(&read("nobody", "/readyz")).await.ok()?;
        Some(answer.status == 200)
    };
    timeout(WAIT_MAX, look).await.ok().flatten() == Some(true)
}
