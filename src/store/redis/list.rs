//! Lists, newest first. Each step reads a bounded part of a few lists.

use super::keys::{self, Keys};
use super::leases::expect;
use super::packed::Reader;
use super::record::Record;
use super::reply::{Reply, senseless};
use super::scripts::LIST;
use super::step::{Step, Steps};
use crate::domain::principal::UserId;
use crate::domain::task::{State, Task, TaskId};
use crate::store::{Cursor, ListFilter, Page, RedriveFilter, StoreError};

/// Tasks that one step looks at, at most.
const LOOKED_AT_MAX: usize = 500;
/// Steps that one page takes, at most; a page that finds fewer matches is short and has a next one.
const STEPS_MAX: usize = 4;
/// Records that one step gives, at most.
const RECORDS_MAX: usize = 50;

pub async fn list(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    filter: &ListFilter,
) -> Result<Page, StoreError> {
    let root = keys.root(keys.of_user(user));
    if let Some(key) = &filter.key {
        let step = Step::command("GET").arg(keys::key(root, user, key));
        let found = steps.value(step).await?;
        let bound: Option<Vec<u8>> = redis::from_redis_value(found).ok().flatten();
        let id = bound.as_deref().map(|bound| Reader::new(bound).word());
        let tasks = match id.transpose()?.and_then(TaskId::parse) {
            Some(id) => one(steps, root, user, &id, filter).await?,
            None => {
                steps.misses_nothing(root).await?;
                Vec::new()
            }
        };
        return Ok(Page { tasks, next: None });
    }
    let mut before = filter.cursor.map(|cursor| cursor.0);
    let mut tasks = Vec::new();
    for _ in 0..STEPS_MAX {
        let max = (filter.limit - tasks.len()).min(RECORDS_MAX);
        let part = part(steps, root, user, filter, before, max).await?;
        tasks.extend(part.tasks.into_iter().filter(|task| tagged(task, filter)));
        before = part.last.or(before);
        if !part.more {
            return Ok(Page { tasks, next: None });
        }
        if tasks.len() >= filter.limit {
            break;
        }
    }
    Ok(Page {
        tasks,
        next: before.map(Cursor),
    })
}

/// Failed tasks of a user after this number, oldest first, each with its number.
pub async fn dead_letters(
    steps: &Steps,
    keys: &Keys,
    user: &UserId,
    after: Option<Cursor>,
) -> Result<Vec<(TaskId, u64)>, StoreError> {
    let root = keys.root(keys.of_user(user));
    let after = after.map_or("-inf".to_owned(), |cursor| format!("({}", cursor.0));
    let step = Step::command("ZRANGE")
        .arg(format!("{root}list:{}:{user}", State::Failed.name()))
        .arg(&[after.as_str(), "+inf", "BYSCORE", "LIMIT", "0"])
        .arg(DEAD_LETTERS_MAX)
        .arg("WITHSCORES");
    let mut reply = steps.take(step).await?;
    let mut letters = Vec::new();
    while !reply.is_over() {
        let id = TaskId::parse(&reply.word()?).ok_or_else(senseless)?;
        letters.push((id, reply.number()?));
    }
    Ok(letters)
}

/// Failed tasks that one step of a bulk redrive looks at, at most.
pub const DEAD_LETTERS_MAX: usize = 200;

/// Whether a bulk redrive asks for this task.
pub fn is_asked_for(task: &Task, filter: &RedriveFilter) -> bool {
    let wanted = ListFilter {
        task_type: filter.task_type.clone(),
        tag: filter.tag.clone(),
        ..ListFilter::default()
    };
    let before = filter
        .before
        .is_none_or(|before| task.finished_at.is_some_and(|end| end < before));
    before && matches(task, &wanted)
}

struct Part {
    tasks: Vec<Task>,
    /// The number of the last task that was looked at.
    last: Option<u64>,
    more: bool,
}

async fn part(
    steps: &Steps,
    root: &str,
    user: &UserId,
    filter: &ListFilter,
    before: Option<u64>,
    max: usize,
) -> Result<Part, StoreError> {
    let fingerprint = filter.fingerprint.as_ref();
    let fingerprint = fingerprint.map_or(&[][..], |f| f.digest().as_bytes());
    let mut step = Step::new(&LIST, &[root])
        .arg(user.as_str())
        .arg(before.map(|seq| seq.to_string()).unwrap_or_default())
        .arg(max)
        .arg(LOOKED_AT_MAX)
        .arg(filter.task_type.as_deref().unwrap_or_default())
        .arg(fingerprint)
        .arg(filter.state.map_or("", State::name));
    for name in lists(user, filter) {
        step.also(name);
    }
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "listed")?;
    let more = reply.word()? == "more";
    let last = reply.optional()?;
    Ok(Part {
        tasks: records(reply)?,
        last,
        more,
    })
}

fn records(mut reply: Reply) -> Result<Vec<Task>, StoreError> {
    let mut tasks = Vec::new();
    while !reply.is_over() {
        tasks.push(Record::read(reply.part()?)?.task);
    }
    Ok(tasks)
}

/// The lists that are likely to hold the fewest tasks beside those that match.
fn lists(user: &UserId, filter: &ListFilter) -> Vec<String> {
    if let Some((name, _)) = &filter.tag {
        return vec![format!("tag:{user},{name}")];
    }
    let of_state = |state: State| format!("list:{}:{user}", state.name());
    match filter.state {
        Some(state) => vec![of_state(state)],
        None => State::ALL.map(of_state).to_vec(),
    }
}

/// The task that a key names, if it matches.
async fn one(
    steps: &Steps,
    root: &str,
    user: &UserId,
    id: &TaskId,
    filter: &ListFilter,
) -> Result<Vec<Task>, StoreError> {
    let crate::store::Found::Here(task) = super::lifecycle::get(steps, root, user, id).await?
    else {
        return Ok(Vec::new());
    };
    let is_wanted = filter.cursor.is_none() && matches(&task, filter);
    Ok(is_wanted.then_some(task).into_iter().collect())
}

fn matches(task: &Task, filter: &ListFilter) -> bool {
    tagged(task, filter)
        && filter.state.is_none_or(|state| task.state == state)
        && filter
            .task_type
            .as_ref()
            .is_none_or(|task_type| task.task_type == *task_type)
        && filter
            .fingerprint
            .is_none_or(|fingerprint| task.fingerprint == Some(fingerprint))
}

fn tagged(task: &Task, filter: &ListFilter) -> bool {
    filter.tag.as_ref().is_none_or(|(name, wanted)| {
        task.tags
            .get(name)
            .is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
    })
}
