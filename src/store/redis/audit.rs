//! Holds the records in Redis against each other, while replicas are at work. Names are scanned, and each batch
//! of them is looked at by one script that only reads: it sees one state of the partition, so that nothing is
//! called wrong for having changed meanwhile.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use redis::{Cmd, FromRedisValue, from_redis_value};
use tokio::time::{sleep, timeout};

use super::agreement::expect_known;
use super::keys::{self, Keys, Partition};
use super::leases::expect;
use super::link::RESPONSE_WAIT_MAX;
use super::marks::Marks;
use super::reply::{Reply, senseless};
use super::scripts::{AUDIT, AUDIT_COUNTS, AUDIT_MEMBERS, AUDIT_NEEDS, UNOWNED};
use super::step::{Step, Steps, unavailable};
use super::{Options, StartError};
use crate::domain::file::BlobName;
use crate::domain::task::State;
use crate::store::StoreError;
use crate::store::audit::Audit;

/// Names that one scan looks through, about.
const SCANNED: usize = 500;
/// Records or members that one script looks at.
const LOOKED_AT: usize = 100;
/// Tasks of a user that one script counts at most.
const COUNTED_MAX: u64 = 5_000;
/// Looks at counters that others are changing.
const COUNTS_TRIED: usize = 5;
/// Scans that are tried when the connection breaks.
const SCANS_TRIED: u32 = 5;

/// A store, open for reading.
pub struct Auditor {
    steps: Steps,
    keys: Keys,
}

/// What one partition says of itself, as far as it was scanned.
#[derive(Default)]
struct Scanned {
    users: BTreeSet<String>,
    /// Copies that were on record before the records were scanned.
    copies: HashSet<BlobName>,
    /// By file: tasks that need it, and what its record counts.
    needs: HashMap<String, Needs>,
}

#[derive(Default)]
struct Needs {
    tasks: u64,
    counted: u64,
}

/// Tasks by state.
type Totals = [i64; State::ALL.len()];

impl Auditor {
    /// Nothing where no replica has ever begun.
    pub async fn open(options: &Options) -> Result<Option<Self>, StartError> {
        let link = options.address.connect().await?;
        let steps = Steps::new(link.clone(), link, Arc::new(Marks::nobodys()));
        let step = Step::command("HMGET")
            .arg(keys::agreement(&options.prefix))
            .arg(&["schema", "partitions"]);
        let mut agreed = steps.take(step).await?;
        let Some(schema) = agreed.text()? else {
            return Ok(None);
        };
        match schema.parse() {
            Ok(schema) => expect_known(schema)?,
            Err(_) => return Err(senseless().into()),
        }
        let keys = Keys::new(&options.prefix, agreed.number()?);
        Ok(Some(Auditor { steps, keys }))
    }

    pub async fn run(&self, audit: &mut Audit) -> Result<(), StoreError> {
        let partitions = self.keys.partitions();
        let mut scanned: Vec<Scanned> = partitions.map(|_| Scanned::default()).collect();
        for partition in self.keys.partitions() {
            let root = self.keys.root(partition);
            let of = &mut scanned[partition.index()];
            of.copies = self.copies(root).await?;
        }
        self.records(&mut scanned, audit).await?;
        for partition in self.keys.partitions() {
            let root = self.keys.root(partition);
            let of = &scanned[partition.index()];
            self.counts(partition, &of.users, audit).await?;
            self.needs(root, &of.needs, audit).await?;
            for copy in &of.copies {
                if !audit.copies.contains_key(copy) && self.owns(copy).await? {
                    audit.found(&format!("copy {copy}: no file and no result is in it"));
                }
            }
        }
        audit.saw("copies of files and results", audit.copies.len());
        Ok(())
    }

    /// Whether some record names the copy now.
    pub async fn owns(&self, name: &BlobName) -> Result<bool, StoreError> {
        for partition in self.keys.partitions() {
            let step = Step::new(&UNOWNED, &[self.keys.root(partition)]).arg(name.to_string());
            let mut reply = self.steps.take(step).await?;
            expect(&mut reply, "owned")?;
            if reply.number::<u8>()? == 1 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One server is scanned once; of a cluster, the server of each partition.
    async fn records(&self, scanned: &mut [Scanned], audit: &mut Audit) -> Result<(), StoreError> {
        if self.steps.link().is_one_server() {
            let all = format!("{}:{{p*", self.keys.prefix());
            return self
                .records_like(self.keys.root(Partition::FIRST), &all, scanned, audit)
                .await;
        }
        for partition in self.keys.partitions() {
            let root = self.keys.root(partition);
            self.records_like(root, &format!("{root}*"), scanned, audit)
                .await?;
        }
        Ok(())
    }

    async fn records_like(
        &self,
        at: &str,
        pattern: &str,
        scanned: &mut [Scanned],
        audit: &mut Audit,
    ) -> Result<(), StoreError> {
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(pattern)
                .arg("COUNT")
                .arg(SCANNED);
            let names: Vec<String>;
            (cursor, names) = self.page(at, &scan).await?;
            let mut by_partition: HashMap<usize, Vec<&str>> = HashMap::new();
            for name in &names {
                let Some(partition) = Partition::of_key(name) else {
                    continue;
                };
                let name = name.strip_prefix(self.keys.root(partition));
                by_partition
                    .entry(partition.index())
                    .or_default()
                    .extend(name);
            }
            for (index, names) in by_partition {
                if let Some(scanned) = scanned.get_mut(index) {
                    self.look(Partition::at(index), &names, scanned, audit)
                        .await?;
                }
            }
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn look(
        &self,
        partition: Partition,
        names: &[&str],
        scanned: &mut Scanned,
        audit: &mut Audit,
    ) -> Result<(), StoreError> {
        let root = self.keys.root(partition);
        let lasting: Vec<_> = names.iter().filter(|name| kind(name).is_some()).collect();
        for names in lasting.chunks(LOOKED_AT) {
            let step = Step::new(&AUDIT, &[root]).arg(names);
            let mut reply = self.audited(step, audit).await?;
            let mut copies = reply.part()?;
            while !copies.is_over() {
                let (name, size) = (copies.word()?, copies.optional()?);
                if let Some(name) = BlobName::parse(&name) {
                    audit.copies.insert(name, size.unwrap_or(0));
                }
            }
            let mut needed = reply.part()?;
            while !needed.is_over() {
                scanned.needs.entry(needed.word()?).or_default().tasks += 1;
            }
            let mut files = reply.part()?;
            while !files.is_over() {
                let file = scanned.needs.entry(files.word()?).or_default();
                file.counted = files.number()?;
            }
        }
        for name in lasting {
            let Some((word, scan)) = kind(name) else {
                continue;
            };
            audit.saw(word, 1);
            if let Some(scan) = scan {
                self.members(root, name, scan, audit).await?;
            }
            let user = match name.strip_prefix("gauge:") {
                Some(user) => Some(user),
                None => name
                    .strip_prefix("list:")
                    .and_then(|name| Some(name.split_once(':')?.1)),
            };
            scanned
                .users
                .extend(user.filter(|user| !user.is_empty()).map(str::to_owned));
        }
        Ok(())
    }

    /// Pages of a set, each looked at by one script.
    async fn members(
        &self,
        root: &str,
        name: &str,
        scan: Scan,
        audit: &mut Audit,
    ) -> Result<(), StoreError> {
        let mut cursor = 0;
        loop {
            let mut page = redis::cmd(scan.command);
            page.arg(format!("{root}{name}"))
                .arg(cursor)
                .arg("COUNT")
                .arg(SCANNED);
            let found: Vec<String>;
            (cursor, found) = self.page(root, &page).await?;
            let members: Vec<_> = found.iter().step_by(scan.words).collect();
            for members in members.chunks(LOOKED_AT) {
                let step = Step::new(&AUDIT_MEMBERS, &[root]).arg(name).arg(members);
                self.audited(step, audit).await?;
            }
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn copies(&self, root: &str) -> Result<HashSet<BlobName>, StoreError> {
        let (mut copies, mut cursor) = (HashSet::new(), 0);
        loop {
            let mut page = redis::cmd("SSCAN");
            page.arg(format!("{root}blobs"))
                .arg(cursor)
                .arg("COUNT")
                .arg(SCANNED);
            let names: Vec<String>;
            (cursor, names) = self.page(root, &page).await?;
            copies.extend(names.iter().filter_map(|name| BlobName::parse(name)));
            if cursor == 0 {
                return Ok(copies);
            }
        }
    }

    /// Each user's counters are held against the lists in one step. Those of everyone need many steps, and are
    /// judged as soon as nothing changes between the first and the last.
    async fn counts(
        &self,
        partition: Partition,
        users: &BTreeSet<String>,
        audit: &mut Audit,
    ) -> Result<(), StoreError> {
        let root = self.keys.root(partition);
        let (told, listed) = self.count(root, users, Some(audit)).await?;
        if told == listed {
            return Ok(());
        }
        for _ in 0..COUNTS_TRIED {
            let (before, _) = self.count(root, &BTreeSet::new(), None).await?;
            let users = self.users(root).await?;
            let (_, listed) = self.count(root, &users, None).await?;
            let (after, _) = self.count(root, &BTreeSet::new(), None).await?;
            if before == after && after == listed {
                return Ok(());
            }
            if before == after {
                audit.found(&format!(
                    "tasks of everyone in partition {} ({told:?} for {listed:?}): the counter does not agree \
                     with what is counted",
                    partition.index()
                ));
                return Ok(());
            }
        }
        audit.cannot_settle(format!(
            "counters of everyone in partition {}: they change too fast to be compared",
            partition.index()
        ));
        Ok(())
    }

    /// Tasks of everyone as they are counted when the first step looks, and those in the lists of these users.
    async fn count(
        &self,
        root: &str,
        users: &BTreeSet<String>,
        audit: Option<&mut Audit>,
    ) -> Result<(Totals, Totals), StoreError> {
        let mut nowhere = Audit::default();
        let audit = audit.unwrap_or(&mut nowhere);
        let (mut told, mut listed) = (None, Totals::default());
        let users: Vec<_> = users.iter().collect();
        let batches: Vec<_> = match users.is_empty() {
            true => vec![&users[..]],
            false => users.chunks(LOOKED_AT).collect(),
        };
        for users in batches {
            let step = Step::new(&AUDIT_COUNTS, &[root]).arg(users);
            let mut reply = self.audited(step, audit).await?;
            let as_told = totals(reply.part()?)?;
            told = told.or(Some(as_told));
            for (sum, size) in listed.iter_mut().zip(totals(reply.part()?)?) {
                *sum += size;
            }
        }
        Ok((told.unwrap_or_default(), listed))
    }

    async fn users(&self, root: &str) -> Result<BTreeSet<String>, StoreError> {
        let (mut users, mut cursor) = (BTreeSet::new(), 0);
        let lists = format!("{root}list:");
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(format!("{lists}*"))
                .arg("COUNT")
                .arg(SCANNED);
            let names: Vec<String>;
            (cursor, names) = self.page(root, &scan).await?;
            let user = |name: &String| {
                let (_, user) = name.strip_prefix(&lists)?.split_once(':')?;
                Some(user.to_owned())
            };
            users.extend(names.iter().filter_map(user));
            if cursor == 0 {
                return Ok(users);
            }
        }
    }

    /// Files whose record and tasks seemed to disagree are counted in one step.
    async fn needs(
        &self,
        root: &str,
        needs: &HashMap<String, Needs>,
        audit: &mut Audit,
    ) -> Result<(), StoreError> {
        for (file, _) in needs
            .iter()
            .filter(|(_, needs)| needs.tasks != needs.counted)
        {
            let Some((sha256, user)) = file.split_once(':') else {
                continue;
            };
            let step = Step::new(&AUDIT_NEEDS, &[root])
                .arg(sha256)
                .arg(user)
                .arg(COUNTED_MAX);
            let mut reply = self.steps.take(step).await?;
            match reply.word()?.as_str() {
                "agree" => {}
                "differ" => audit.found(&format!(
                    "file {sha256} of {user} ({} for {}): it does not count the tasks that need it",
                    reply.word()?,
                    reply.word()?
                )),
                "many" => audit.cannot_settle(format!(
                    "file {sha256} of {user}: its user has too many tasks to count those that need it"
                )),
                _ => return Err(senseless()),
            }
        }
        Ok(())
    }

    /// Takes down what is wrong; gives the rest.
    async fn audited(&self, step: Step, audit: &mut Audit) -> Result<Reply, StoreError> {
        let mut reply = self.steps.take(step).await?;
        expect(&mut reply, "audited")?;
        let mut faults = reply.part()?;
        while !faults.is_over() {
            audit.found(&faults.word()?);
        }
        Ok(reply)
    }

    /// One page of a scan on the server of this root: where to go on, and what was found.
    async fn page<T: FromRedisValue>(
        &self,
        root: &str,
        scan: &Cmd,
    ) -> Result<(u64, T), StoreError> {
        let mut tries = 1;
        loop {
            let page = self
                .steps
                .link()
                .run_together(root, std::slice::from_ref(scan));
            let failure = match timeout(RESPONSE_WAIT_MAX, page).await {
                Ok(Ok((mut answers, _))) => {
                    let answer = answers.pop().ok_or_else(senseless)?;
                    return from_redis_value(answer).map_err(|_| senseless());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            if tries == SCANS_TRIED {
                return Err(unavailable(&failure));
            }
            sleep(RESPONSE_WAIT_MAX / 10 * tries).await;
            tries += 1;
        }
    }
}

/// How the members of a set are listed, and how many words are said of each.
#[derive(Clone, Copy)]
struct Scan {
    command: &'static str,
    words: usize,
}

const SORTED: Option<Scan> = Some(Scan {
    command: "ZSCAN",
    words: 2,
});
const FIELDS: Option<Scan> = Some(Scan {
    command: "HSCAN",
    words: 2,
});
const UNSORTED: Option<Scan> = Some(Scan {
    command: "SSCAN",
    words: 1,
});

/// Records that must last: what they are called, and how their members are listed. None for what expires by
/// itself, and for marks.
fn kind(name: &str) -> Option<(&'static str, Option<Scan>)> {
    let kind = name.split_once(':').map_or(name, |(kind, _)| kind);
    Some(match kind {
        "task" => ("tasks", None),
        "key" => ("keys", None),
        "claim" => ("claims on contents", None),
        "file" => ("files", None),
        "schedule" => ("schedules", None),
        "held" => ("other records", FIELDS),
        "body" | "result" | "ledger" | "gauge" | "seq" | "open" | "fresh" | "blobs"
        | "schedules-version" | "callbacks" | "awaited" | "withdrawn" | "types" | "waits"
        | "holders" => ("other records", None),
        "keys" | "schedules" | "deliveries" => ("other records", UNSORTED),
        "list" | "line" | "aside" | "turns" | "due" | "expiry" | "file-expiry" | "tag"
        | "schedules-due" | "matching" => ("lists and queues", SORTED),
        _ => return None,
    })
}

fn totals(mut reply: Reply) -> Result<Totals, StoreError> {
    let mut totals = Totals::default();
    for total in &mut totals {
        *total = reply.number()?;
    }
    Ok(totals)
}
