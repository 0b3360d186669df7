//! One atomic step, as the verbs see it: the database, the time, and what is to follow the commit.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection};

use super::counters::{self, Counters};
use super::suppressed::{Pending, Suppressed};
use crate::domain::callback::Callback;
use crate::domain::principal::UserId;
use crate::domain::stats::Tally;
use crate::domain::task::{State, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::store::ended::EndedTask;

/// A database within a transaction.
#[derive(Clone, Copy)]
pub struct Sql<'c>(&'c Connection);

impl<'c> Sql<'c> {
    pub fn new(conn: &'c Connection) -> Self {
        Sql(conn)
    }

    pub fn prepare_cached(&self, text: &str) -> rusqlite::Result<CachedStatement<'c>> {
        self.0.prepare_cached(text)
    }

    /// Runs one statement and says how many rows it changed.
    pub fn execute(&self, text: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.0.prepare_cached(text)?.execute(params)
    }

    pub fn last_insert_rowid(&self) -> i64 {
        self.0.last_insert_rowid()
    }
}

/// What the verbs of one transaction have changed, to be told to others once it is committed.
#[derive(Default)]
pub struct Effects {
    pub changed: Vec<TaskId>,
    pub work: bool,
    /// The soonest new deadline.
    pub due: Option<Timestamp>,
    pub counters: Counters,
    /// In order: ended tasks that may be answered from memory, and tasks that no longer may.
    pub ended: Vec<EndedEffect>,
    /// Tasks that have not ended, as of this step.
    pub unfinished: i64,
    /// The same of those users that were asked about, without the service's own tasks.
    pub unfinished_of: HashMap<UserId, u64>,
    /// Duplicates that were answered, for the ledger.
    pub suppressed: Vec<Suppressed>,
    /// Notes that this transaction writes; they wait again if it is given up.
    pub written: Pending,
}

impl Effects {
    pub fn suppressed_of(&self, seq: i64) -> u64 {
        self.suppressed.iter().filter(|one| one.seq == seq).count() as u64
    }
}

pub enum EndedEffect {
    Remember(Box<EndedTask<i64>>),
    Drop(i64),
}

pub struct Step<'a> {
    pub sql: Sql<'a>,
    /// The store's clock, read once in a step.
    pub now: Timestamp,
    pub effects: &'a mut Effects,
}

impl Step<'_> {
    pub fn changed(&mut self, id: &TaskId) {
        self.effects.changed.push(id.clone());
    }

    pub fn due(&mut self, at: Timestamp) {
        let soonest = self.effects.due.map_or(at, |known| known.min(at));
        self.effects.due = Some(soonest);
    }

    /// A task came into the store, went from one state to another, or left.
    pub fn moved(
        &mut self,
        user: &UserId,
        task_type: &str,
        from: Option<State>,
        to: Option<State>,
    ) {
        for (state, change) in [(from, -1), (to, 1)] {
            let Some(state) = state else { continue };
            self.effects.counters.gauge(user, task_type, state, change);
            if state.is_ended() {
                continue;
            }
            self.effects.unfinished += change;
            if task_type != Callback::TASK_TYPE
                && let Some(count) = self.effects.unfinished_of.get_mut(user)
            {
                *count = count.saturating_add_signed(change);
            }
        }
    }

    /// Tasks of a user that have not ended, as of this step, without the service's own.
    pub fn unfinished_of(&mut self, user: &UserId) -> rusqlite::Result<u64> {
        if let Some(&count) = self.effects.unfinished_of.get(user) {
            return Ok(count);
        }
        let committed = counters::unfinished_of(&self.sql, user)?;
        let since = self.effects.counters.unfinished_of(user);
        let count = u64::try_from(committed + since).unwrap_or_default();
        self.effects.unfinished_of.insert(user.clone(), count);
        Ok(count)
    }

    pub fn tally(&mut self, user: &UserId, count: impl Fn(&mut Tally)) {
        self.effects.counters.tally(user, count);
    }

    pub fn drop_ended(&mut self, seq: i64) {
        self.effects.ended.push(EndedEffect::Drop(seq));
    }
}
