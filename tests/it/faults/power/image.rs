//! One of the many states in which a power cut may leave a disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::{Content, Disk, Node, parent};

/// How much survives of what was not synced.
#[derive(Clone, Copy, Debug)]
pub struct Luck {
    bytes: Bytes,
    /// Of each change of a name.
    names: f64,
    /// Whether names survive in the order in which they were made, as with a journal.
    in_order: bool,
}

#[derive(Clone, Copy, Debug)]
enum Bytes {
    /// This share of the writes, in any order, some of them torn.
    Share(f64),
    /// Of each file this share, from its beginning: what was appended later survives only with all that was appended
    /// before, as file systems do that let a file grow once its bytes are on disk.
    FromTheBeginning(f64),
}

impl Luck {
    pub fn draw(choices: &mut fastrand::Rng) -> Luck {
        let shares = [0.0, 0.1, 0.5, 0.9, 1.0];
        Luck {
            bytes: Bytes::Share(shares[choices.usize(..shares.len())]),
            names: shares[choices.usize(..shares.len())],
            in_order: choices.bool(),
        }
    }

    /// For files that are only appended to.
    pub fn of_a_log(choices: &mut fastrand::Rng) -> Luck {
        let share = match choices.u8(..4) {
            0 => 0.0,
            1 => 1.0,
            _ => choices.f64(),
        };
        Luck {
            bytes: Bytes::FromTheBeginning(share),
            names: choices.f64(),
            in_order: true,
        }
    }
}

impl Bytes {
    /// What survives of a file.
    fn of(self, content: &Content<'_>, choices: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = content.synced.clone();
        match self {
            Bytes::Share(share) => {
                for (_, change) in &content.pending {
                    change.apply_partly(&mut bytes, share, choices);
                }
            }
            Bytes::FromTheBeginning(share) => {
                let pending = content.pending.iter().map(|(_, change)| change.bytes());
                let mut left = (pending.sum::<usize>() as f64 * share) as usize;
                for (_, change) in &content.pending {
                    let fits = change.bytes().min(left);
                    change.up_to(fits).apply(&mut bytes);
                    left -= fits;
                    if fits < change.bytes() {
                        break;
                    }
                }
            }
        }
        bytes
    }
}

/// Writes what the disk may hold into an empty folder.
pub fn write(disk: &Disk<'_>, luck: Luck, choices: &mut fastrand::Rng, folder: &Path) {
    let names = surviving_names(disk, luck, choices);
    // A folder comes before what is in it.
    for (path, node) in &names {
        if is_dropped(path) || !has_parents(path, &names) {
            continue;
        }
        match node {
            Node::Folder => std::fs::create_dir(folder.join(path)).unwrap(),
            Node::File(number) => {
                let bytes = luck.bytes.of(&disk.files[*number], choices);
                std::fs::write(folder.join(path), bytes).unwrap();
            }
        }
    }
}

/// SQLite's shared memory is a file by name only, and made anew after a crash.
fn is_dropped(path: &str) -> bool {
    path.ends_with("-shm")
}

fn has_parents(path: &str, names: &BTreeMap<&str, Node>) -> bool {
    let mut path = path;
    while path.contains('/') {
        path = parent(path);
        if names.get(path) != Some(&Node::Folder) {
            return false;
        }
    }
    true
}

fn surviving_names<'d>(
    disk: &'d Disk<'_>,
    luck: Luck,
    choices: &mut fastrand::Rng,
) -> BTreeMap<&'d str, Node> {
    // All changes until then survive, or some of each name.
    let until = if luck.in_order {
        let changes = disk.names.values().flat_map(|name| &name.pending);
        let mut whens: Vec<_> = changes.map(|change| change.when).collect();
        whens.sort_unstable();
        let count = (whens.len() as f64 * luck.names) as usize;
        whens.get(count).copied().unwrap_or(usize::MAX)
    } else {
        0
    };
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, name) in &disk.names {
        let mut count = name.pending.partition_point(|change| change.when < until);
        if !luck.in_order {
            while count < name.pending.len() && choices.f64() < luck.names {
                count += 1;
            }
        }
        kept.insert(path, count);
    }
    // What was moved is still where it was, or has arrived.
    for (path, name) in &disk.names {
        for change in &name.pending[..kept[path.as_str()]] {
            let Some((to, target)) = change
                .moved_to
                .as_ref()
                .and_then(|to| disk.names.get_key_value(to))
            else {
                continue;
            };
            let arrived = target.pending.partition_point(|at| at.when <= change.when);
            let kept = kept.get_mut(to.as_str()).unwrap();
            *kept = arrived.max(*kept);
        }
    }
    let names = disk.names.iter();
    names
        .filter_map(|(path, name)| {
            let node = match kept[path.as_str()] {
                0 => name.synced,
                count => name.pending[count - 1].node,
            };
            Some((path.as_str(), node?))
        })
        .collect()
}
