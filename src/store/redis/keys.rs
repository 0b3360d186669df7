//! Names of keys. All keys of one user carry one hash tag, so that every step stays within one slot.

use crate::domain::digest::Sha256Digest;
use crate::domain::fingerprint::Fingerprint;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::principal::UserId;
use crate::domain::task::TaskId;

/// Partitions of a store that is new. Each costs one poll; a cluster spreads at most so many ways.
pub const PARTITIONS: u16 = 16;

/// One of the parts that users are spread over, by the hash of their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u16);

impl Partition {
    /// Holds what belongs to no user.
    pub const FIRST: Partition = Partition(0);

    pub fn at(index: usize) -> Self {
        Partition(u16::try_from(index).unwrap_or(u16::MAX))
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The partition whose root a key begins with.
    pub fn of_key(key: &str) -> Option<Self> {
        let (_, rest) = key.split_once('{')?;
        rest.split_once('}')
            .and_then(|(tag, _)| Partition::parse(tag))
    }

    /// Reads the hash tag without its braces.
    pub fn parse(tag: &str) -> Option<Self> {
        tag.strip_prefix('p')?.parse().ok().map(Partition)
    }
}

#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    roots: Vec<String>,
}

impl Keys {
    pub fn new(prefix: &str, partitions: u16) -> Self {
        let root = |n| format!("{prefix}:{{p{n:02}}}:");
        Keys {
            prefix: prefix.to_owned(),
            roots: (0..partitions).map(root).collect(),
        }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.roots.len()).map(Partition::at)
    }

    /// By the same hash as the first digits of the user's task ids.
    pub fn of_user(&self, user: &UserId) -> Partition {
        let hash = Sha256Digest::of(user.as_str().as_bytes());
        let [high, low, ..] = *hash.as_bytes();
        Partition(u16::from_be_bytes([high, low]) % u16::try_from(self.roots.len()).unwrap_or(1))
    }

    /// What all keys of a partition begin with.
    pub fn root(&self, partition: Partition) -> &str {
        self.roots.get(partition.index()).map_or("", String::as_str)
    }

    /// The channel of news between replicas.
    pub fn news(&self) -> String {
        format!("{}:news", self.prefix)
    }
}

pub fn agreement(prefix: &str) -> String {
    format!("{prefix}:{{p00}}:agreement")
}

/// Replicas that have noticed a loss, each with the epoch that it has known.
pub fn losses(prefix: &str) -> String {
    format!("{prefix}:{{p00}}:losses")
}

/// What is written for the sake of being waited for.
pub fn confirmed(root: &str) -> String {
    format!("{root}confirmed")
}

/// How often a replica was promised something here in this epoch.
pub fn mark(root: &str, name: &str) -> String {
    format!("{root}mark:{name}")
}

pub fn task(root: &str, id: &TaskId) -> String {
    format!("{root}task:{id}")
}

/// A user's name holds no comma.
pub fn key(root: &str, user: &UserId, key: &IdempotencyKey) -> String {
    format!("{root}key:{user},{key}")
}

/// The newest task of a content.
pub fn claim(root: &str, fingerprint: &Fingerprint) -> String {
    format!("{root}claim:{}", fingerprint.digest())
}

pub fn file(root: &str, user: &UserId, sha256: &Sha256Digest) -> String {
    format!("{root}file:{sha256}:{user}")
}

pub fn ledger(root: &str, id: &TaskId) -> String {
    format!("{root}ledger:{id}")
}

/// Grows with every task that is queued.
pub fn seq(root: &str) -> String {
    format!("{root}seq")
}

/// Tasks that have not ended.
pub fn open(root: &str) -> String {
    format!("{root}open")
}

/// Another one whenever a schedule may be due sooner than it was.
pub fn schedules_version(root: &str) -> String {
    format!("{root}schedules-version")
}

/// Replicas that are there.
pub fn replicas(root: &str) -> String {
    format!("{root}replicas")
}

/// Types that are paused.
pub fn paused(root: &str) -> String {
    format!("{root}paused")
}

/// What workers outside hold here: task, and when it was last renewed, when it was leased, its type, the worker.
pub fn outside(root: &str) -> String {
    format!("{root}outside")
}

/// Starts of a type's attempts, by when each was allowed.
pub fn permits(root: &str, task_type: &str) -> String {
    format!("{root}permits:{task_type}")
}

/// What was leased by the call with this nonce.
pub fn leased(root: &str, nonce: &str) -> String {
    format!("{root}leased:{nonce}")
}

/// Values that replicas agree on.
pub fn agreed(root: &str) -> String {
    format!("{root}agreed")
}

/// Tasks whose ends are still to be told.
pub fn awaited(root: &str) -> String {
    format!("{root}awaited")
}

/// What webhooks of users are signed with, by user.
pub fn webhook_secrets(root: &str) -> String {
    format!("{root}webhook-secrets")
}

pub fn api_keys(root: &str) -> String {
    format!("{root}api-keys")
}

pub fn api_keys_revoked(root: &str) -> String {
    format!("{root}api-keys-revoked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_user_share_one_hash_tag() {
        let keys = Keys::new("justonce", 16);
        let user = UserId::parse("user123").unwrap();
        let partition = keys.of_user(&user);
        let root = keys.root(partition);
        assert_eq!(Partition::of_key(root), Some(partition));
        assert!(task(root, &TaskId::random(&user)).starts_with(root));
        assert_eq!(keys.partitions().count(), 16);
    }
}
