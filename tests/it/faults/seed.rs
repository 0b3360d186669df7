//! Where all choices of a trial come from.

use std::fmt;

/// Names a trial. Everything that the harness chooses and times follows from it; how the processes
/// interleave does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

/// Set to run a trial again.
pub const VARIABLE: &str = "FAULTS_SEED";

impl Seed {
    /// The one that the environment names, else a new one.
    pub fn draw() -> Seed {
        match std::env::var(VARIABLE) {
            Ok(text) => Seed(
                text.parse()
                    .unwrap_or_else(|_| panic!("{VARIABLE} is a whole number")),
            ),
            Err(_) => Seed(fastrand::u64(..1_000_000_000)),
        }
    }

    /// The seed of one of several trials, which can be run again alone; the first is this one.
    pub fn of_round(self, round: usize) -> Seed {
        Seed(self.0 + round as u64)
    }

    /// The choices of one part, whatever the other parts do meanwhile.
    pub fn choices(self, part: &str, number: usize) -> fastrand::Rng {
        let mut state = self.0 ^ 0x9e37_79b9_7f4a_7c15;
        for byte in part.bytes().chain(number.to_le_bytes()) {
            state = mixed(state ^ u64::from(byte));
        }
        fastrand::Rng::with_seed(state)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A step of SplitMix64.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
