//! A network of its own for Redis: a namespace, and one way to it for each replica, on which packets can be lost in either
//! direction. Nobody is told: no reset, no refusal, as with a switch that has failed.
//!
//! A way is a subnet on one virtual cable. Packets are lost by an address of the hardware that nobody has.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;

pub struct Network {
    namespace: String,
    /// The ends of the cable: here, and in the namespace.
    here: String,
    there: String,
    /// The first two of four bytes, of those that are set apart for measurements, and the third.
    block: [u8; 3],
}

/// Whose packets are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Replica,
    Redis,
}

/// The way that is never cut, for the harness.
pub const OWN_WAY: usize = 0;

const NAMES_BEGIN: &str = "justonce-";
const NOBODY: &str = "02:00:00:00:00:01";

impl Network {
    /// With ways from 0 to this one. The error says why this machine has none.
    pub fn new(last_way: usize) -> Result<Network, String> {
        remove_left_over();
        let pid = std::process::id();
        let [.., high, low] = pid.to_be_bytes();
        let network = Network {
            namespace: format!("{NAMES_BEGIN}{pid}"),
            here: format!("jo{pid}h"),
            there: format!("jo{pid}t"),
            block: [198, 18 + high % 2, low],
        };
        let Network {
            namespace,
            here,
            there,
            ..
        } = &network;
        ip(&format!("netns add {namespace}"))?;
        ip(&format!(
            "link add {here} type veth peer name {there} netns {namespace}"
        ))?;
        for way in 0..=last_way {
            let (near, far) = (network.near(way), network.far(way));
            ip(&format!("addr add {near}/30 dev {here}"))?;
            ip(&format!("-n {namespace} addr add {far}/30 dev {there}"))?;
        }
        ip(&format!("link set {here} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} link set {there} up"))?;
        Ok(network)
    }

    /// What runs a program in there.
    pub fn within(&self) -> Vec<String> {
        let words = ["ip", "netns", "exec", &self.namespace];
        words.map(str::to_owned).into()
    }

    /// The replicas' end of a way.
    fn near(&self, way: usize) -> Ipv4Addr {
        self.address(4 * way + 1)
    }

    /// Redis' end of a way.
    pub fn far(&self, way: usize) -> IpAddr {
        self.address(4 * way + 2).into()
    }

    fn address(&self, last: usize) -> Ipv4Addr {
        let [a, b, c] = self.block;
        Ipv4Addr::new(a, b, c, u8::try_from(last).unwrap())
    }

    /// From now on, what this end of a way sends is lost.
    pub fn lose_what_is_sent_by(&self, end: End, way: usize) {
        let neighbour = self.neighbour(end, "replace", way);
        ip(&format!("{neighbour} lladdr {NOBODY} nud permanent")).unwrap();
    }

    pub fn mend(&self, way: usize) {
        for end in [End::Replica, End::Redis] {
            // It may not have been cut.
            let _ = ip(&self.neighbour(end, "del", way));
        }
    }

    /// A command about whom this end of the way sends to.
    fn neighbour(&self, end: End, verb: &str, way: usize) -> String {
        let (near, far) = (self.near(way), self.far(way));
        let Network {
            namespace,
            here,
            there,
            ..
        } = self;
        match end {
            End::Replica => format!("neigh {verb} {far} dev {here}"),
            End::Redis => format!("-n {namespace} neigh {verb} {near} dev {there}"),
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}", self.here));
        let _ = ip(&format!("netns del {}", self.namespace));
    }
}

/// Of processes that had no chance to do so themselves.
fn remove_left_over() {
    let Ok(names) = std::fs::read_dir("/run/netns") else {
        return;
    };
    for name in names.flatten() {
        let name = name.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(NAMES_BEGIN) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = ip(&format!("link del jo{pid}h"));
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    // Debian installs it beside the programs of the administrator.
    let program = ["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let program = program.ok_or("iproute2 is not installed")?;
    let mut command = Command::new(program);
    let output = command.args(words.split(' ')).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {words}: {}", said.trim()))
}
