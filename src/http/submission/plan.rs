//! A schedule as it is sent: a submission, and when to make it.

use serde_json::Value;

use super::members::Members;
use super::{Carries, Draft};
use crate::domain::cadence::CadenceError;
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::json::{self, PARAMS_DEPTH_MAX};
use crate::domain::schedule::{Missed, Plan};
use crate::domain::schema::Violation;
use crate::domain::task_type::TaskTypes;
use crate::domain::timestamp::Timestamp;
use crate::http::code::Code;
use crate::http::problem::Problem;

/// Members of the submission itself.
const SUBMISSION: [&str; 3] = ["type", "params", "callback_url"];

/// A plan that would fire after `now`.
pub fn read(text: &[u8], types: &TaskTypes, now: Timestamp) -> Result<Plan, Problem> {
    // As in a submission, params are one level below.
    let value = json::parse(text, PARAMS_DEPTH_MAX + 1)
        .map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))?;
    let Value::Object(mut members) = value else {
        return Err(Problem::invalid("", "a schedule is an object"));
    };
    let submission = SUBMISSION.map(|name| (name, members.remove(name)));
    let draft = Draft::of(submission);
    let mut members = Members::new("", members);
    if members.peek("cron").is_none() {
        members.refuse("cron", "is required: a cron pattern such as 30 2 * * *");
    }
    let cron = members.text("cron");
    let time_zone = members
        .text("time_zone")
        .unwrap_or_else(|| "UTC".to_owned());
    let missed = members.read("missed", "must be skip, run_once or run_all", |value| {
        Missed::parse(value.as_str()?)
    });
    let paused = members.read("paused", "must be true or false", |value| value.as_bool());
    let mut plan = Plan {
        cron: cron.clone().unwrap_or_default(),
        time_zone,
        task_type: String::new(),
        params: Value::Null,
        callback_url: None,
        missed: missed.unwrap_or_default(),
        paused: paused.unwrap_or_default(),
    };
    if cron.is_some()
        && let Err(Violation { pointer, detail }) = cadence(&plan, now)
    {
        members.refuse(pointer.trim_start_matches('/'), &detail);
    }
    let violations = members.violations(&[]);
    let drafted = draft.read(
        types,
        Some(&any_key()),
        Carries::References { files_max: 0 },
        now,
    );
    match drafted {
        Ok(drafted) if violations.is_empty() => {
            plan.task_type = drafted.submission.task_type.name.clone();
            plan.params = drafted.submission.params;
            plan.callback_url = drafted.submission.callback.map(|callback| callback.url);
            Ok(plan)
        }
        Err(problem) => Err(problem.with_violations(violations)),
        Ok(_) => Err(Problem::violations(violations)),
    }
}

/// Firings have keys of their own, whatever their type asks for.
fn any_key() -> IdempotencyKey {
    IdempotencyKey::of_service("schedule", "")
}

/// The first firing after `now`; none while it is paused.
pub fn first_firing(plan: &Plan, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    match cadence(plan, now) {
        Ok(first) => Ok(Some(first).filter(|_| !plan.paused)),
        Err(wrong) => Err(Problem::violations(vec![wrong])),
    }
}

fn cadence(plan: &Plan, now: Timestamp) -> Result<Timestamp, Violation> {
    let wrong = |name: &str, detail: String| Violation {
        pointer: format!("/{name}"),
        detail,
    };
    match plan.cadence() {
        Ok(cadence) => {
            let first = cadence.next_after(now);
            first.ok_or_else(|| wrong("cron", "never fires".to_owned()))
        }
        Err(CadenceError::Zone) => Err(wrong("time_zone", CadenceError::Zone.to_string())),
        Err(CadenceError::Cron(detail)) => {
            Err(wrong("cron", format!("is not a cron pattern: {detail}")))
        }
    }
}
