//! What a worker asks for.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::digest::Sha256Digest;
use crate::domain::principal::UserId;
use crate::domain::schema::Violation;
use crate::domain::task_type::{RunnerSpec, TaskTypes};
use crate::http::code::Code;
use crate::http::prefer::Prefer;
use crate::http::problem::Problem;
use crate::http::submission::members::Members;
use crate::http::task_types;
use crate::store::{Holder, LeaseRequest};

const TYPES_MAX: usize = 100;
/// As many as one step of every store takes.
const LEASES_MAX: u64 = 100;
const WORKER_LENGTH_MAX: usize = 128;
const NONCE_LENGTH_MAX: usize = 255;

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeaseRequest)]
pub struct LeaseDocument {
    /// Types that are declared with `runner = { external = true }`.
    #[schema(min_items = 1, max_items = 100, example = json!(["thumbnail"]))]
    types: Vec<String>,
    /// Leases at most. Default 1.
    #[schema(nullable = false, minimum = 1, maximum = 100)]
    max: Option<u64>,
    /// Seconds to wait for work; more than 50 count as 50. Default 0.
    #[schema(nullable = false, minimum = 0)]
    wait: Option<f64>,
    /// What operators see the worker as. Default: the caller's user.
    #[schema(nullable = false, min_length = 1, max_length = 128)]
    worker: Option<String>,
    /// Of this call alone. Sent again within a minute, after a lost reply, it gives the leases of the first call that
    /// are still held, and no others.
    #[schema(nullable = false, min_length = 1, max_length = 255)]
    nonce: Option<String>,
}

#[derive(Debug)]
pub struct Wanted {
    pub request: LeaseRequest,
    pub wait: Duration,
}

impl Wanted {
    /// Of `caller`, whose nonces are its own.
    pub fn read(mut members: Members, types: &TaskTypes, caller: &UserId) -> Result<Self, Problem> {
        let names = names(&mut members);
        let max = members.read("max", "must be an integer from 1 to 100", |value| {
            value.as_u64().filter(|n| (1..=LEASES_MAX).contains(n))
        });
        let wait = members.read("wait", "must be a number of seconds", |value| {
            value.as_f64().filter(|seconds| *seconds >= 0.0)
        });
        let worker = text(&mut members, "worker", WORKER_LENGTH_MAX);
        let nonce = text(&mut members, "nonce", NONCE_LENGTH_MAX);
        match members.violations(&[]) {
            none if none.is_empty() => {}
            violations => return Err(Problem::violations(violations)),
        }
        let names = names.unwrap_or_default();
        expect_leasable(&names, types)?;
        let lease = |name: &String| Some((name.clone(), types.get(name)?.lease));
        let bounds = |name: &String| Some((name.clone(), types.get(name)?.bounds()));
        let worker = worker.unwrap_or_else(|| caller.to_string());
        let own = |nonce: String| {
            let text = format!("{caller} {} {worker} {nonce}", worker.len());
            Sha256Digest::of(text.as_bytes()).to_string()
        };
        let nonce = nonce.map(own);
        Ok(Wanted {
            request: LeaseRequest {
                max: usize::try_from(max.unwrap_or(1)).unwrap_or(1),
                lease: names.iter().filter_map(lease).collect(),
                bounds: names.iter().filter_map(bounds).collect(),
                types: names,
                holder: Holder::Outside { worker, nonce },
            },
            wait: Duration::from_secs_f64(wait.unwrap_or(0.0).min(Prefer::WAIT_SECONDS_MAX as f64)),
        })
    }
}

/// Each once, in an order that does not matter to the store.
fn names(members: &mut Members) -> Option<Vec<String>> {
    if members.peek("types").is_none() {
        members.refuse("types", "is required");
    }
    members.read("types", "must be a list of 1 to 100 names", |value| {
        let Value::Array(items) = value else {
            return None;
        };
        let mut seen = HashSet::new();
        let mut names = Vec::new();
        for item in items {
            let Value::String(name) = item else {
                return None;
            };
            if seen.insert(name.clone()) {
                names.push(name);
            }
        }
        (1..=TYPES_MAX).contains(&names.len()).then_some(names)
    })
}

fn text(members: &mut Members, name: &str, length_max: usize) -> Option<String> {
    let expected = format!("must be 1 to {length_max} characters, and none that controls");
    members.read(name, &expected, |value| match value {
        Value::String(text)
            if (1..=length_max).contains(&text.chars().count())
                && !text.chars().any(char::is_control) =>
        {
            Some(text)
        }
        _ => None,
    })
}

/// Whoever leases a type that this service runs itself would take its work away.
fn expect_leasable(names: &[String], types: &TaskTypes) -> Result<(), Problem> {
    if let Some(unknown) = names.iter().find(|name| types.get(name).is_none()) {
        let shown: String = unknown.chars().take(64).collect();
        let known: Vec<&str> = types.names().collect();
        let detail = format!("There is no task type {shown:?}.");
        return Err(Problem::new(Code::UnknownTaskType, detail).with("known", known));
    }
    let mut violations = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let runner = types.get(name).map(|known| &known.runner);
        if let Some(runner) = runner.filter(|runner| **runner != RunnerSpec::External) {
            let kind = task_types::kind(runner);
            violations.push(Violation {
                pointer: format!("/types/{index}"),
                detail: format!(
                    "is run by this service (runner {kind}); only types with runner external are leased"
                ),
            });
        }
    }
    match violations {
        none if none.is_empty() => Ok(()),
        violations => Err(Problem::violations(violations)),
    }
}
