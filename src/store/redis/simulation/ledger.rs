//! What was acknowledged, and must stay so.

use std::collections::{BTreeMap, BTreeSet};

use super::data::Data;

#[derive(Default)]
pub struct Ledger {
    /// By user and key: the content and the task that an answer has named.
    keys: BTreeMap<(String, String), (u8, String)>,
    facts: BTreeMap<String, Fact>,
    /// By task: the server's start in which it was made.
    made_in: BTreeMap<String, u64>,
    /// By task: the token that a success was recorded with.
    pub completed: BTreeMap<String, u64>,
    /// By replica and partition: its epoch when something was gone that it had been told, and the start that
    /// showed it.
    doomed: BTreeMap<(usize, String), (String, u64)>,
    pub forgotten: BTreeSet<String>,
    pub acknowledged: u64,
}

/// An acknowledged task.
struct Fact {
    root: String,
    /// Who has told it, in which epoch.
    told: BTreeSet<(usize, String)>,
}

/// An acknowledgement as a replica gives it.
pub struct Told<'a> {
    pub replica: usize,
    /// None when it is not known.
    pub epoch: Option<&'a str>,
    pub root: &'a str,
    pub id: &'a str,
    pub is_new: bool,
}

impl Ledger {
    pub fn created(&mut self, id: &str, boot: u64) {
        self.made_in.entry(id.to_owned()).or_insert(boot);
    }

    pub fn acknowledge(&mut self, told: Told, data: &Data, is_fsynced: bool) -> Result<(), String> {
        let Told {
            replica,
            epoch,
            root,
            id,
            is_new,
        } = told;
        self.acknowledged += 1;
        if let Some((doomed, boot)) = self.doomed.get(&(replica, root.to_owned()))
            && Some(doomed.as_str()) == epoch
            && is_new
            && self.made_in.get(id).is_some_and(|made| made >= boot)
        {
            return Err(format!(
                "replica {replica} acknowledges {id} though what it was told before is gone"
            ));
        }
        if data.text(&format!("{root}task:{id}")).is_none() {
            // Told while its server was ending.
            return match is_fsynced && is_new {
                true => Err(format!("{id} was acknowledged, and is not there")),
                false => Ok(()),
            };
        }
        let fact = self.facts.entry(id.to_owned()).or_insert_with(|| Fact {
            root: root.to_owned(),
            told: BTreeSet::new(),
        });
        if is_new && let Some(epoch) = epoch {
            fact.told.insert((replica, epoch.to_owned()));
        }
        Ok(())
    }

    /// One id for a user's key, and one content.
    pub fn key(
        &mut self,
        (user, key): (&str, &str),
        content: u8,
        id: &str,
        data: &Data,
        is_fsynced: bool,
    ) -> Result<(), String> {
        let Some(fact) = self.facts.get(id) else {
            return Ok(());
        };
        let record = format!("{}key:{user},{key}", fact.root);
        if !is_fsynced && data.text(&record).is_none() {
            // Bound while its server was ending.
            return Ok(());
        }
        let place = (user.to_owned(), key.to_owned());
        match self.keys.get(&place) {
            Some((of, known)) if known != id => Err(format!(
                "key {key} of {user} named {known} (content {of}), and now {id}"
            )),
            Some((of, known)) if *of != content => Err(format!(
                "key {key} named {known} for content {of}, and for {content} too"
            )),
            _ => {
                self.keys.insert(place, (content, id.to_owned()));
                Ok(())
            }
        }
    }

    pub fn key_is(&self, user: &str, key: &str) -> Option<&(u8, String)> {
        self.keys.get(&(user.to_owned(), key.to_owned()))
    }

    /// Everything that was acknowledged is there.
    pub fn holds(&self, data: &Data) -> Result<(), String> {
        for (id, fact) in &self.facts {
            if data.text(&format!("{}task:{id}", fact.root)).is_none() {
                return Err(format!("{id} was acknowledged, and is gone"));
            }
        }
        Ok(())
    }

    /// A replica meets a server: gives what it was told that is not there.
    pub fn judge_loss(&mut self, replica: usize, data: &Data, boot: u64) -> Option<String> {
        let mut lost = None;
        for (id, fact) in &self.facts {
            let by = fact.told.iter().rev().find(|(by, _)| *by == replica);
            let is_gone = data.text(&format!("{}task:{id}", fact.root)).is_none();
            if let Some((_, epoch)) = by.filter(|_| is_gone) {
                let place = (replica, fact.root.clone());
                self.doomed.insert(place, (epoch.clone(), boot));
                lost = Some(id.clone());
            }
        }
        lost
    }

    /// What is gone was to be expected, and is looked for no more.
    pub fn forget_lost(&mut self, data: &Data) {
        let is_there =
            |id: &str, fact: &Fact| data.text(&format!("{}task:{id}", fact.root)).is_some();
        let gone: BTreeSet<String> = (self.facts.iter())
            .filter(|(id, fact)| !is_there(id, fact))
            .map(|(id, _)| id.clone())
            .collect();
        self.facts.retain(|id, _| !gone.contains(id));
        let facts = &self.facts;
        // A key that was bound to another's task may be unbound again while the task is there.
        self.keys.retain(|(user, key), (_, id)| {
            let fact = facts.get(id);
            fact.is_some_and(|fact| {
                data.text(&format!("{}key:{user},{key}", fact.root))
                    .is_some()
            })
        });
        self.completed.clear();
    }

    /// A replica that has begun anew knows only what it has written down.
    pub fn restarts(&mut self, replica: usize) {
        self.doomed.retain(|(by, _), _| *by != replica);
        for fact in self.facts.values_mut() {
            fact.told.retain(|(by, _)| *by != replica);
        }
    }

    /// Whether a replica in this epoch was told what is gone.
    pub fn is_doomed(&self, replica: usize, epoch: &str) -> bool {
        let mut all = self.doomed.iter();
        all.any(|((by, _), (doomed, _))| *by == replica && doomed == epoch)
    }
}
