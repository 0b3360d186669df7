//! What must hold of a partition after every step, whatever happened before.

use std::collections::{BTreeMap, BTreeSet};

use super::data::{Data, Entry, word};
use super::packing::{self, Plain};
use crate::store::redis::scripts::Script;

type Found = Result<(), String>;

/// A task's record, as `record.lua` orders its values.
pub struct Record(Vec<Plain>);

impl Record {
    fn of(entry: &Entry) -> Option<Self> {
        Self::read(entry.text()?)
    }

    pub fn read(packed: &[u8]) -> Option<Self> {
        packing::read(packed).map(Record)
    }

    fn text(&self, at: usize) -> String {
        match self.0.get(at) {
            Some(Plain::Text(text)) => text.escape_ascii().to_string(),
            _ => String::new(),
        }
    }

    fn number(&self, at: usize) -> Option<f64> {
        match self.0.get(at) {
            Some(Plain::Number(number)) => Some(*number),
            _ => None,
        }
    }

    pub fn state(&self) -> String {
        self.text(0)
    }
    fn seq(&self) -> f64 {
        self.number(1).unwrap_or(0.0)
    }
    pub fn is_held(&self) -> bool {
        self.0.get(7) == Some(&Plain::Flag(true))
    }
    fn attempt(&self) -> f64 {
        self.number(8).unwrap_or(0.0)
    }
    fn token(&self) -> f64 {
        self.number(9).unwrap_or(0.0)
    }
    fn result(&self) -> (String, String) {
        (self.text(16), self.text(17))
    }
    fn user(&self) -> String {
        self.text(23)
    }
    fn task_type(&self) -> String {
        self.text(24)
    }
    fn slot(&self) -> Option<String> {
        Some(self.text(47)).filter(|slot| !slot.is_empty())
    }
    /// Where it is queued.
    fn line(&self) -> String {
        let slot = self.slot().map(|slot| format!(",{slot}"));
        format!(
            "{},{}{}",
            self.task_type(),
            self.user(),
            slot.unwrap_or_default()
        )
    }
    fn fingerprint(&self) -> Option<String> {
        let counts = self.0.get(28) == Some(&Plain::Flag(true));
        counts.then(|| self.text(26))
    }
    fn matching(&self) -> Option<String> {
        Some(self.text(41)).filter(|matching| !matching.is_empty())
    }
    fn is_behind(&self) -> bool {
        self.0.get(44) == Some(&Plain::Flag(true))
    }
    fn is_superseded(&self) -> bool {
        !self.text(45).is_empty()
    }
    pub fn is_ended(&self) -> bool {
        let state = self.state();
        ["succeeded", "failed", "cancelled", "tombstone"].contains(&state.as_str())
    }
}

pub fn records(data: &Data, root: &str) -> BTreeMap<String, Record> {
    let start = format!("{root}task:");
    let all = data.under(&start);
    all.filter_map(|(id, entry)| Some((id.to_owned(), Record::of(entry)?)))
        .collect()
}

pub fn step(
    script: &Script,
    root: &str,
    args: &[Vec<u8>],
    (before, after): (&Data, &Data),
    now: i64,
) -> Found {
    changes(script.name, root, before, after)?;
    stale(script.name, root, args, before, after)?;
    keys(root, before, after, now)?;
    let records = records(after, root);
    places(root, after, &records)?;
    conflicts(root, after, &records)?;
    counts(root, after, &records)
}

/// Each task goes only where it may go, in this step.
fn changes(step: &str, root: &str, before: &Data, after: &Data) -> Found {
    let start = format!("{root}task:");
    for (id, entry) in before.under(&start) {
        let key = format!("{start}{id}");
        let (was, is) = (entry.text(), after.text(&key));
        if was == is {
            continue;
        }
        let (Some(was), Some(is)) = (was.and_then(Record::read), is.map(Record::read)) else {
            if step == "rescue" {
                continue;
            }
            return Err(format!("{id} is gone"));
        };
        let is = is.ok_or(format!("{id} cannot be read"))?;
        let (from, to) = (was.state(), is.state());
        let is_allowed = from == to
            || match (from.as_str(), to.as_str()) {
                ("scheduled", "queued") => {
                    let ends = ["complete", "fail", "cancel", "release"];
                    ["rescue", "admit"].contains(&step) || was.is_behind() && ends.contains(&step)
                }
                ("retrying", "queued") => step == "rescue",
                ("queued", "running") => step == "lease",
                ("running", "queued") => ["rescue", "release"].contains(&step),
                ("running", "succeeded") => step == "complete",
                ("running", "retrying") => step == "fail",
                ("running", "failed") => ["fail", "rescue"].contains(&step),
                ("scheduled" | "queued" | "retrying", "cancelled") if is.is_superseded() => {
                    step == "admit"
                }
                ("scheduled" | "queued" | "retrying" | "running", "cancelled") => step == "cancel",
                ("failed" | "cancelled", "queued") => step == "redrive",
                ("succeeded" | "failed" | "cancelled", "tombstone") => {
                    ["forget", "rescue"].contains(&step)
                }
                _ => false,
            };
        if !is_allowed {
            return Err(format!("{id} went from {from} to {to}"));
        }
        let tokens = is.token() - was.token();
        let is_right = if step == "lease" {
            tokens >= 1.0
        } else {
            tokens == 0.0
        };
        if !is_right {
            return Err(format!(
                "the token of {id} went from {} to {}",
                was.token(),
                is.token()
            ));
        }
        let attempts = is.attempt() - was.attempt();
        let expected = match step {
            "lease" => 1.0,
            // It may also be what another has waited for.
            "release" if from == "running" && to == "queued" => -1.0,
            _ => 0.0,
        };
        if attempts != expected {
            return Err(format!(
                "{id} went from attempt {} to {}",
                was.attempt(),
                is.attempt()
            ));
        }
        if from == "succeeded"
            && to == "succeeded"
            && was.result() != is.result()
            && step != "rescue"
        {
            return Err(format!("the result of {id} changed"));
        }
        if was.user() != is.user() || was.seq() != is.seq() {
            return Err(format!("{id} is another task"));
        }
    }
    Ok(())
}

/// Who holds a lease no more changes nothing but counts.
fn stale(step: &str, root: &str, args: &[Vec<u8>], before: &Data, after: &Data) -> Found {
    let by_holder = match step {
        "extend" | "fail" | "release" => vec![args],
        // Its mark comes behind the tasks.
        "complete" => args[..args.len() / 6 * 6].chunks(6).collect(),
        _ => return Ok(()),
    };
    let key = |held: &[Vec<u8>]| format!("{root}task:{}", word(&held[0]));
    let is_current = |held: &&[Vec<u8>]| {
        let token: f64 = word(&held[2]).parse().unwrap_or(-1.0);
        let was = before.text(&key(held)).and_then(Record::read);
        was.is_some_and(|was| was.is_held() && was.token() == token)
    };
    let (current, stale): (Vec<&[Vec<u8>]>, Vec<_>) = by_holder.into_iter().partition(is_current);
    // One call may bring what a late holder says, and what the holder does.
    let current: Vec<_> = current.into_iter().map(key).collect();
    for key in stale.into_iter().map(key) {
        if before.text(&key) != after.text(&key) && !current.contains(&key) {
            return Err(format!("a stale token changed {key}"));
        }
    }
    if current.is_empty() {
        let counts = |key: &str| key.ends_with("}:fresh") || key.contains("}:mark:");
        let names = |data: &Data| -> Vec<String> {
            let names = data.entries().map(|(key, _)| key.to_owned());
            names.filter(|key| !counts(key)).collect()
        };
        if names(before) != names(after) {
            return Err("a stale token changed what is on record".to_owned());
        }
    }
    Ok(())
}

/// A key names one task until it is over.
fn keys(root: &str, before: &Data, after: &Data, now: i64) -> Found {
    let start = format!("{root}key:");
    for (key, entry) in before.under(&start) {
        let first = |packed: Option<&[u8]>| {
            let values = packing::read(packed?)?;
            match values.into_iter().next()? {
                Plain::Text(id) => Some(word(&id)),
                _ => None,
            }
        };
        let (was, is) = (
            first(entry.text()),
            first(after.text(&format!("{start}{key}"))),
        );
        if was == is {
            continue;
        }
        let Some(was) = was else { continue };
        let named = before
            .text(&format!("{root}task:{was}"))
            .and_then(Record::read);
        if let Some(named) = named {
            let kept = named.number(12).zip(named.number(31));
            let ends = kept.map(|(finished, kept)| finished + kept);
            if !named.is_ended() || ends.is_some_and(|ends| ends > now as f64) {
                return Err(format!("key {key} named {was}, and now {is:?}"));
            }
        }
    }
    Ok(())
}

/// Every task is where whoever must find it looks, and nowhere else.
fn places(root: &str, data: &Data, records: &BTreeMap<String, Record>) -> Found {
    let mut queued = BTreeMap::new();
    let mut slots = BTreeSet::new();
    for kind in ["line:", "aside:"] {
        let start = format!("{root}{kind}");
        for (line, entry) in data.under(&start) {
            for member in entry.sorted().into_keys() {
                let mut words = member.split(' ').skip(1).map(str::to_owned);
                let (id, slot) = (words.next().unwrap_or_default(), words.next());
                let line = match (kind, slot) {
                    ("line:", Some(slot)) => {
                        slots.insert(format!("{line},{slot}"));
                        format!("{line},{slot}")
                    }
                    _ => line.to_owned(),
                };
                if queued.insert(id.clone(), line).is_some() {
                    return Err(format!("{id} is queued twice"));
                }
            }
        }
    }
    turns(root, data, records, &slots)?;
    let mut listed = BTreeMap::new();
    let start = format!("{root}list:");
    for (list, entry) in data.under(&start) {
        for id in entry.sorted().into_keys() {
            if listed.insert(id.clone(), list.to_owned()).is_some() {
                return Err(format!("{id} is in two lists"));
            }
        }
    }
    let due = data.sorted(&format!("{root}due"));
    let expiry = data.sorted(&format!("{root}expiry"));
    let mut blocking = BTreeSet::new();
    for (id, record) in records {
        let state = record.state();
        let waits = ["scheduled", "retrying", "running"].contains(&state.as_str());
        let is = (
            queued.remove(id) == Some(record.line()),
            due.contains_key(id),
            expiry.contains_key(id),
        );
        if is != (state == "queued", waits, record.is_ended()) {
            return Err(format!(
                "{id} is {state}, and (queued, due, expiring) is {is:?}"
            ));
        }
        if record.is_held() != (state == "running") && state != "cancelled" {
            return Err(format!("{id} is {state}, and held: {}", record.is_held()));
        }
        let list = listed.remove(id).unwrap_or_default();
        if state != "tombstone" && list != format!("{state}:{}", record.user()) {
            return Err(format!("{id} is {state}, and in the list {list:?}"));
        }
        let blocks = !record.is_ended() || state == "cancelled" && record.is_held();
        if let Some(fingerprint) = record.fingerprint()
            && blocks
            && !blocking.insert((record.user(), fingerprint))
        {
            return Err(format!("{id} is the second unfinished task of its content"));
        }
    }
    match queued.into_keys().chain(listed.into_keys()).next() {
        Some(id) => Err(format!("{id} is queued or listed, and not there")),
        None => match due.keys().find(|id| !records.contains_key(*id)) {
            Some(id) => Err(format!("{id} is due, and not there")),
            None => Ok(()),
        },
    }
}

/// What may run is known to those that it is in conflict with, and nobody waits behind nothing.
fn conflicts(root: &str, data: &Data, records: &BTreeMap<String, Record>) -> Found {
    let mut known = BTreeMap::new();
    for (name, entry) in data.under(&format!("{root}matching:")) {
        let newest = entry
            .sorted()
            .into_iter()
            .max_by(|a, b| a.1.total_cmp(&b.1));
        for (id, at) in entry.sorted() {
            let is_newest = newest.as_ref().is_some_and(|(newest, _)| *newest == id);
            let record = records
                .get(&id)
                .ok_or(format!("{id} matches, and is not there"))?;
            let may_run = !record.is_ended() || record.is_held();
            if !may_run && !is_newest || record.seq() != at {
                return Err(format!("{id} is over, and still in conflict in {name}"));
            }
            known.insert(id, name.to_owned());
        }
    }
    let mut waiting: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for (id, record) in records {
        let Some(matching) = record.matching() else {
            continue;
        };
        if record.is_ended() && !record.is_held() {
            continue;
        }
        if !known.contains_key(id) {
            return Err(format!("{id} is in conflict, and nobody knows"));
        }
        let of = waiting.entry((record.user(), matching)).or_default();
        match record.is_behind() {
            true => of.0 += 1,
            false => of.1 += 1,
        }
    }
    match waiting
        .into_iter()
        .find(|(_, (behind, before))| *behind > 0 && *before == 0 || *behind > 1)
    {
        Some((of, _)) => Err(format!("of {of:?} one waits behind nothing, or two wait")),
        None => Ok(()),
    }
}

/// Whoever has something in line has a turn, what runs is held, and what waits for a key is called when that is free.
fn turns(
    root: &str,
    data: &Data,
    records: &BTreeMap<String, Record>,
    in_line: &BTreeSet<String>,
) -> Found {
    let names = |kind: &str| -> BTreeSet<String> {
        let start = format!("{root}{kind}:");
        data.under(&start)
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    let mut with_turns = BTreeSet::new();
    let start = format!("{root}turns:");
    for (task_type, entry) in data.under(&start) {
        let users = entry.sorted().into_keys();
        with_turns.extend(users.map(|user| format!("{task_type},{user}")));
    }
    let with_lines = names("line");
    if with_turns != with_lines {
        return Err(format!("{with_turns:?} have turns, {with_lines:?} lines"));
    }
    let mut held = BTreeMap::new();
    let start = format!("{root}held:");
    for (line, entry) in data.under(&start) {
        for (slot, id) in entry.hash() {
            held.insert(id.clone(), (line.to_owned(), slot));
        }
    }
    let taken: BTreeSet<_> = held
        .values()
        .map(|(line, slot)| format!("{line},{slot}"))
        .collect();
    for (id, record) in records.iter().filter(|(_, record)| record.is_held()) {
        let line = format!("{},{}", record.task_type(), record.user());
        let slot = record.slot().unwrap_or_else(|| id.clone());
        if held.remove(id) != Some((line, slot)) {
            return Err(format!("{id} runs, and holds nothing"));
        }
    }
    if let Some(id) = held.into_keys().next() {
        return Err(format!("{id} holds something, and does not run"));
    }
    match names("aside")
        .into_iter()
        .find(|slot| !taken.contains(slot) && !in_line.contains(slot))
    {
        Some(slot) => Err(format!("nobody calls those that wait for {slot}")),
        None => Ok(()),
    }
}

/// What is counted is what is there.
fn counts(root: &str, data: &Data, records: &BTreeMap<String, Record>) -> Found {
    let open = records.values().filter(|record| !record.is_ended()).count();
    let counted = data.number(&format!("{root}open"));
    if counted != open as i64 {
        return Err(format!("{counted} tasks count as open, and {open} are"));
    }
    let mut sums: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut add = |user: &str, field: String, by: i64| {
        *sums.entry((user.to_owned(), field.clone())).or_default() += by;
        if !user.is_empty() {
            *sums.entry((String::new(), field)).or_default() += by;
        }
    };
    for record in records
        .values()
        .filter(|record| record.state() != "tombstone")
    {
        add(
            &record.user(),
            format!("{} {}", record.state(), record.task_type()),
            -1,
        );
    }
    for (what, by) in data.hash(&format!("{root}fresh")) {
        let by: i64 = by.parse().unwrap_or(0);
        match what.split(' ').collect::<Vec<_>>()[..] {
            ["accepted", _, state, user, kind] => add(user, format!("{state} {kind}"), by),
            ["moved", from, to, user, kind] => {
                for (state, by) in [(from, -by), (to, by)] {
                    if state != "-" {
                        add(user, format!("{state} {kind}"), by);
                    }
                }
            }
            _ => {}
        }
    }
    let start = format!("{root}gauge:");
    for (user, entry) in data.under(&start) {
        for (field, by) in entry.hash() {
            let sum = sums.entry((user.to_owned(), field)).or_default();
            *sum += by.parse::<i64>().unwrap_or(0);
        }
    }
    match sums.into_iter().find(|(_, sum)| *sum != 0) {
        Some((of, sum)) => Err(format!("the gauge {of:?} is off by {sum}")),
        None => Ok(()),
    }
}
