//! What can go wrong, and what goes wrong when.

use std::fmt;
use std::time::Duration;

use super::seed::Seed;

/// One thing that goes wrong: its class, where, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub class: Class,
    /// Chooses among the processes of the class.
    pub victim: usize,
    pub lasts: Duration,
    /// Time of peace before it.
    pub after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// SIGKILL of a replica; it is down for a while.
    KillReplica,
    /// SIGSTOP, and SIGCONT after its leases have ended.
    PauseReplica,
    /// SIGTERM under load, and a new start.
    RestartReplica,
    /// A replica may open no more files or connections, and start no program.
    OutOfFiles,
    /// A replica is held up and then ends at one of the places of its code (`failpoints`).
    #[cfg_attr(
        not(feature = "failpoints"),
        expect(dead_code, reason = "another build has it")
    )]
    FailPoint,
    /// A replica does not hear Redis; what both said meanwhile arrives late or never.
    Partition,
    /// Packets between a replica and Redis are lost, both ways.
    CutOff,
    /// Packets of Redis to a replica are lost: what it asks for is done, and it does not hear so.
    DeafReplica,
    /// Packets of a replica to Redis are lost.
    MuteReplica,
    /// SIGKILL of a worker outside; it is down for a while.
    KillWorker,
    /// SIGKILL of Redis; it is down for a while, and loads its file again.
    KillRedis,
    /// SIGSTOP of Redis.
    PauseRedis,
    /// Redis forgets all scripts.
    FlushScripts,
    /// Redis cuts all connections.
    CutConnections,
    /// Redis takes no more writes for want of memory.
    OutOfMemory,
    /// Redis does nothing for a while, and then everything at once.
    SleepRedis,
    /// A script of somebody else's keeps Redis busy.
    BusyScript,
    /// Redis lets its clients wait.
    HoldClients,
    /// Redis takes no writes, as a demoted primary does.
    ReadOnly,
    /// Redis is told that it may evict, and told better later; replicas that have looked meanwhile refuse.
    ChangePolicy,
    /// SIGKILL of a primary; one of its replicas takes over.
    KillPrimary,
    /// SIGSTOP of a primary, until a replica has taken over or shorter.
    PausePrimary,
    /// A replica takes over: in a cluster in agreement with its primary, with sentinels whatever that does.
    FailOver,
    /// A slot in use moves to another primary.
    MigrateSlot,
}

pub const OF_ONE_PROCESS: &[Class] = &[
    Class::KillReplica,
    Class::PauseReplica,
    Class::RestartReplica,
    Class::OutOfFiles,
];

pub const OF_A_DAY: &[Class] = &[Class::KillReplica, Class::KillWorker];

pub const OF_THE_SHOW: &[Class] = &[
    Class::KillReplica,
    Class::PauseReplica,
    Class::RestartReplica,
    Class::KillRedis,
    Class::PauseRedis,
];

pub const OF_REDIS: &[Class] = &[
    Class::KillReplica,
    Class::PauseReplica,
    Class::RestartReplica,
    Class::OutOfFiles,
    Class::Partition,
    Class::KillRedis,
    Class::PauseRedis,
    Class::FlushScripts,
    Class::CutConnections,
    Class::OutOfMemory,
    Class::SleepRedis,
    Class::BusyScript,
    Class::HoldClients,
    Class::ReadOnly,
    Class::ChangePolicy,
];

/// Where packets are lost.
pub const OF_A_NETWORK: &[Class] = &[
    Class::CutOff,
    Class::DeafReplica,
    Class::MuteReplica,
    Class::KillReplica,
];

/// Where sentinels watch over the servers.
pub const OF_SENTINELS: &[Class] = &[
    Class::KillPrimary,
    Class::PausePrimary,
    Class::FailOver,
    Class::KillReplica,
];

/// What a cluster must bear without losing anything.
pub const OF_A_CLUSTER: &[Class] = &[
    Class::KillReplica,
    Class::PauseReplica,
    Class::RestartReplica,
    Class::FlushScripts,
    Class::CutConnections,
    Class::FailOver,
    Class::MigrateSlot,
];

/// What a cluster may lose acknowledged work by: replication is not waited for.
pub const OF_PRIMARIES: &[Class] = &[Class::KillPrimary, Class::PausePrimary, Class::FailOver];

impl Class {
    /// How long it may last, in milliseconds.
    fn span(self) -> std::ops::Range<u64> {
        match self {
            Class::KillReplica | Class::KillWorker | Class::KillRedis => 10..800,
            // Leases last a second.
            Class::PauseReplica => 200..2_800,
            Class::OutOfFiles => 100..1_500,
            Class::Partition | Class::CutOff | Class::DeafReplica | Class::MuteReplica => {
                100..3_500
            }
            Class::PauseRedis | Class::SleepRedis | Class::HoldClients => 200..3_000,
            Class::OutOfMemory | Class::BusyScript | Class::ReadOnly => 100..1_500,
            // Replicas look every two seconds.
            Class::ChangePolicy => 500..4_000,
            Class::KillPrimary => 500..6_000,
            Class::PausePrimary => 200..4_000,
            Class::MigrateSlot => 1..20,
            Class::RestartReplica
            | Class::FailPoint
            | Class::FlushScripts
            | Class::CutConnections
            | Class::FailOver => 0..1,
        }
    }
}

/// Faults without end, in an order that has every class once before any comes again.
pub struct Plan {
    classes: Vec<Class>,
    coming: Vec<Class>,
    choices: fastrand::Rng,
    peace: std::ops::Range<u64>,
}

impl Plan {
    /// `peace`: milliseconds between two faults.
    pub fn new(classes: &[Class], peace: std::ops::Range<u64>, seed: Seed) -> Plan {
        Plan {
            classes: chosen(classes),
            coming: Vec::new(),
            choices: seed.choices("plan", 0),
            peace,
        }
    }
}

/// `FAULTS_CLASSES` names those of the plan that are to remain, such as `KillRedis,Partition`.
fn chosen(classes: &[Class]) -> Vec<Class> {
    let mut classes = classes.to_vec();
    if let Ok(names) = std::env::var("FAULTS_CLASSES") {
        let names: Vec<_> = names.split(',').collect();
        classes.retain(|class| names.contains(&format!("{class:?}").as_str()));
    }
    classes
}

impl Iterator for Plan {
    type Item = Fault;

    fn next(&mut self) -> Option<Fault> {
        if self.coming.is_empty() {
            self.coming = self.classes.clone();
            self.choices.shuffle(&mut self.coming);
        }
        let class = self.coming.pop()?;
        Some(Fault {
            class,
            victim: self.choices.usize(..),
            lasts: Duration::from_millis(self.choices.u64(class.span())),
            after: Duration::from_millis(self.choices.u64(self.peace.clone())),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.class)?;
        if !self.lasts.is_zero() {
            write!(f, " for {} ms", self.lasts.as_millis())?;
        }
        Ok(())
    }
}
