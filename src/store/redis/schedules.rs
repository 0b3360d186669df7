//! What is submitted again and again: each with its user.

use std::collections::HashMap;

use std::time::Duration;

use futures_util::future::join_all;

use super::agenda::{Agenda, Look};
use super::keys::Keys;
use super::leases::expect;
use super::record::{from_json, span_ms, to_json};
use super::reply::{Reply, senseless};
use super::scripts::{
    DELETE_SCHEDULE, DUE_SCHEDULES, PUT_OFF_SCHEDULE, PUT_SCHEDULE, RECORD_FIRING, SCHEDULES,
};
use super::step::{Step, Steps};
use crate::domain::principal::UserId;
use crate::domain::schedule::{Refusal, Schedule, ScheduleName};
use crate::domain::task::TaskId;
use crate::domain::timestamp::Timestamp;
use crate::store::{
    DueSchedule, DueSchedules, Fired, Firing, NewSchedule, PutSchedule, StoreError,
};

/// What is due and cannot be read is looked at again after so long: somebody may have mended it.
const UNREADABLE_FOR: Duration = Duration::from_secs(60);

pub async fn put(steps: &Steps, root: &str, new: NewSchedule) -> Result<PutSchedule, StoreError> {
    let step = Step::new(&PUT_SCHEDULE, &[root])
        .arg(new.user.as_str())
        .arg(new.name.as_str())
        .arg(&new.plan.task_type)
        .arg(to_json(&new.plan)?)
        .arg(new.plan.timing())
        .arg(new.revision)
        .arg(ms(new.next_fire_at))
        .arg(new.found_at.as_ms())
        .arg(span_ms(NewSchedule::APART_MAX))
        .arg(Schedule::PER_USER_MAX);
    let mut reply = steps.take(step).await?;
    match reply.word()?.as_str() {
        "created" => read(new.user, new.name, reply.part()?).map(PutSchedule::Created),
        "replaced" => read(new.user, new.name, reply.part()?).map(PutSchedule::Replaced),
        "full" => Ok(PutSchedule::Full),
        "otherwise" => Ok(PutSchedule::AnotherTime(Timestamp::from_ms(
            reply.number()?,
        ))),
        _ => Err(senseless()),
    }
}

pub async fn find(
    steps: &Steps,
    root: &str,
    user: &UserId,
    name: &ScheduleName,
) -> Result<Option<Schedule>, StoreError> {
    let step = Step::new(&SCHEDULES, &[root])
        .arg(user.as_str())
        .arg(name.as_str());
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "schedules")?;
    if reply.is_over() {
        return Ok(None);
    }
    reply.word()?;
    read(user.clone(), name.clone(), reply.part()?).map(Some)
}

/// By name.
pub async fn all(steps: &Steps, root: &str, user: &UserId) -> Result<Vec<Schedule>, StoreError> {
    let step = Step::new(&SCHEDULES, &[root]).arg(user.as_str()).arg("");
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "schedules")?;
    let mut found = Vec::new();
    while !reply.is_over() {
        let (name, fields) = (reply.word()?, reply.part()?);
        match read_name(&name).and_then(|name| read(user.clone(), name, fields)) {
            Ok(schedule) => found.push(schedule),
            Err(_) => tracing::warn!(%user, name, "a schedule cannot be read"),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

pub async fn delete(
    steps: &Steps,
    root: &str,
    user: &UserId,
    name: &ScheduleName,
) -> Result<bool, StoreError> {
    let step = Step::new(&DELETE_SCHEDULE, &[root])
        .arg(user.as_str())
        .arg(name.as_str())
        .arg(revision());
    match steps.take(step).await?.word()?.as_str() {
        "deleted" => Ok(true),
        "unknown" => Ok(false),
        _ => Err(senseless()),
    }
}

/// Up to `max` of each partition where some may be due. One that does not answer is looked at later; parts of a cluster
/// may be well where others are not.
pub async fn due(
    steps: &Steps,
    keys: &Keys,
    agenda: &Agenda,
    types: &[String],
    max: usize,
) -> Result<DueSchedules, StoreError> {
    let looks = agenda.due(types);
    let answers = looks
        .iter()
        .map(|look| due_in(steps, keys.root(look.partition), types, max));
    let answers = join_all(answers).await;
    let (mut schedules, mut failure, mut are_any_well) = (Vec::new(), None, looks.is_empty());
    for (&look, answer) in looks.iter().zip(answers) {
        match answer {
            Ok(found) => {
                note(agenda, look, &found);
                schedules.extend(found.schedules);
                are_any_well = true;
            }
            Err(error) => {
                agenda.failed(look);
                if failure != Some(StoreError::StateLost) {
                    failure = Some(error);
                }
            }
        }
    }
    match failure {
        Some(StoreError::StateLost) => Err(StoreError::StateLost),
        Some(failure) if !are_any_well => Err(failure),
        _ => Ok(DueSchedules {
            schedules,
            next_due_in: agenda.next_look_in(),
        }),
    }
}

fn note(agenda: &Agenda, look: Look, found: &Found) {
    // Where something is due, there may be more of it, and nobody has put it off yet.
    let next = match found.schedules.is_empty() && !found.is_cut {
        true => found.next_due_in,
        false => Some(Duration::ZERO),
    };
    agenda.found(look, found.version, next);
}

struct Found {
    version: Option<u64>,
    schedules: Vec<DueSchedule>,
    /// Whether some were due that could not be read: they are put off now.
    is_cut: bool,
    next_due_in: Option<Duration>,
}

async fn due_in(
    steps: &Steps,
    root: &str,
    types: &[String],
    max: usize,
) -> Result<Found, StoreError> {
    let step = Step::new(&DUE_SCHEDULES, &[root]).arg(max).arg(types);
    let mut reply = steps.take(step).await?;
    expect(&mut reply, "due")?;
    let now = Timestamp::from_ms(reply.number()?);
    let version = version(reply.text()?.filter(|text| !text.is_empty()).as_deref());
    let next_due_at = reply.optional()?.map(Timestamp::from_ms);
    let mut found = Found {
        version,
        schedules: Vec::new(),
        is_cut: false,
        next_due_in: next_due_at.map(|at| at.since(now)),
    };
    while !reply.is_over() {
        let (task_type, member, fields) = (reply.word()?, reply.word()?, reply.part()?);
        match read_member(&member, fields) {
            Ok(schedule) if schedule.plan.task_type == task_type => {
                found.schedules.push(DueSchedule { schedule, now });
            }
            Ok(_) | Err(_) => {
                tracing::warn!(task_type, member, "a schedule is due that cannot be read");
                put_off(steps, root, &task_type, &member).await?;
                found.is_cut = true;
            }
        }
    }
    Ok(found)
}

/// Whatever stands there, some schedule was kept.
pub fn version(text: Option<&str>) -> Option<u64> {
    text.map(|text| text.parse().unwrap_or(0))
}

async fn put_off(
    steps: &Steps,
    root: &str,
    task_type: &str,
    member: &str,
) -> Result<(), StoreError> {
    let step = Step::new(&PUT_OFF_SCHEDULE, &[root])
        .arg(task_type)
        .arg(member)
        .arg(span_ms(UNREADABLE_FOR));
    expect(&mut steps.take(step).await?, "put_off")
}

pub async fn record_firing(steps: &Steps, root: &str, firing: &Firing) -> Result<bool, StoreError> {
    let (became, at, about) = match &firing.fired {
        None => ("", None, String::new()),
        Some(Fired {
            at,
            outcome: Ok(task),
        }) => {
            let task = task.as_ref().map_or(String::new(), TaskId::to_string);
            ("submitted", Some(*at), task)
        }
        Some(Fired {
            at,
            outcome: Err(detail),
        }) => ("refused", Some(*at), detail.clone()),
    };
    let step = Step::new(&RECORD_FIRING, &[root])
        .arg(firing.user.as_str())
        .arg(firing.name.as_str())
        .arg(firing.revision)
        .arg(firing.next_revision)
        .arg(ms(firing.next_fire_at))
        .arg(span_ms(firing.put_off))
        .arg(became)
        .arg(ms(at))
        .arg(about);
    match steps.take(step).await?.word()?.as_str() {
        "recorded" => Ok(true),
        "passed" => Ok(false),
        _ => Err(senseless()),
    }
}

/// One that no other call is likely to have.
fn revision() -> u64 {
    fastrand::u64(..Schedule::REVISION_MAX)
}

/// An empty word for none.
fn ms(at: Option<Timestamp>) -> String {
    at.map_or(String::new(), |at| at.as_ms().to_string())
}

fn read_name(text: &str) -> Result<ScheduleName, StoreError> {
    ScheduleName::parse(text).ok_or_else(senseless)
}

/// User and name, and what is on record of them.
fn read_member(member: &str, fields: Reply) -> Result<Schedule, StoreError> {
    let (user, name) = member.rsplit_once(',').ok_or_else(senseless)?;
    let user = UserId::parse(user).ok_or_else(senseless)?;
    read(user, read_name(name)?, fields)
}

fn read(user: UserId, name: ScheduleName, mut flat: Reply) -> Result<Schedule, StoreError> {
    let mut fields = HashMap::new();
    while !flat.is_over() {
        fields.insert(flat.word()?, flat.word()?);
    }
    let field = |name: &str| fields.get(name).map_or("", String::as_str);
    let time = |name: &str| match field(name) {
        "" => Ok(None),
        text => text.parse().map(|ms| Some(Timestamp::from_ms(ms))),
    };
    let time = |name: &str| time(name).map_err(|_: std::num::ParseIntError| senseless());
    Ok(Schedule {
        user,
        name,
        plan: from_json(field("plan"))?,
        revision: field("revision").parse().map_err(|_| senseless())?,
        next_fire_at: time("next")?,
        last_fired_at: time("fired_at")?,
        last_task: TaskId::parse(field("task")),
        last_refusal: time("refused_at")?.map(|at| Refusal {
            at,
            detail: field("refusal").to_owned(),
        }),
        created_at: time("created_at")?.ok_or_else(senseless)?,
        updated_at: time("updated_at")?.ok_or_else(senseless)?,
    })
}
