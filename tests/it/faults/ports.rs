//! Ports that a process can come back to: outside of the range from which the system takes ports for
//! outgoing connections.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A free one, with room above it for the bus of a cluster's node.
pub fn free() -> u16 {
    loop {
        let port = fastrand::u16(10_000..20_000);
        let both = [port, port + 10_000];
        let is_free = both
            .iter()
            .all(|&port| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
        if is_free && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}
