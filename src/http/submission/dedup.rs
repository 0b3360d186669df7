//! The member `dedup` of a submission.

use std::time::Duration;

use serde_json::Value;

use super::members::Members;
use crate::domain::json;
use crate::domain::matching::Matching;
use crate::domain::submission::{DedupRequest, Start, Submission};
use crate::domain::task_type::{Debounce, DedupMode, TaskType};

const MODES: &str = "must be return, reject, none, replace, debounce, throttle or keep_last";
const DELAY: &str = "must be a number of seconds, at most a year";

pub fn take(members: &mut Members, task_type: Option<&TaskType>, start: Start) -> DedupRequest {
    let has_params =
        matches!(members.peek("params"), Some(Value::Object(params)) if !params.is_empty());
    let sent = members.object("dedup").unwrap_or_default();
    let mut sent = Members::new("/dedup", sent);
    let of_type = task_type.map(|made| &made.dedup);
    let is_said = sent.peek("mode").is_some();
    let mode = sent.text("mode").and_then(|word| {
        let mode = DedupMode::parse(&word);
        if mode.is_none() {
            sent.refuse("mode", MODES);
        }
        mode
    });
    // Of a mode that is none, nothing more is said.
    let holds = match is_said {
        true => mode,
        false => of_type.map(|dedup| dedup.mode),
    };
    let window_max = of_type.map_or(Duration::MAX, |dedup| dedup.window_max);
    let expected = format!("must be an integer from 0 to {}", window_max.as_secs());
    let window = sent.read("window_seconds", &expected, |value| {
        let window = Duration::from_secs(value.as_u64()?);
        (window <= window_max).then_some(window)
    });
    let by = by(&mut sent, holds, has_params);
    let debounce = debounce(&mut sent, holds, of_type.and_then(|dedup| dedup.debounce));
    members.refuse_all(sent.violations(&[]));
    if holds == Some(DedupMode::Debounce) && start != Start::Now {
        let member = match start {
            Start::At(_) => "run_at",
            Start::After(_) | Start::Now => "delay_seconds",
        };
        members.refuse(
            member,
            "a debounced task starts after its /dedup/delay_seconds",
        );
    }
    DedupRequest {
        mode,
        window,
        by,
        debounce,
    }
}

fn by(sent: &mut Members, mode: Option<DedupMode>, has_params: bool) -> Option<Vec<String>> {
    let pointers = sent.read("by", "must be a list of 1 to 16 JSON pointers", |value| {
        let Value::Array(pointers) = value else {
            return None;
        };
        let pointers = pointers.into_iter().map(|pointer| match pointer {
            Value::String(text) if json::is_pointer(&text) => Some(text),
            _ => None,
        });
        let pointers: Vec<String> = pointers.collect::<Option<_>>()?;
        (1..=Matching::POINTERS_MAX)
            .contains(&pointers.len())
            .then_some(pointers)
    })?;
    if let Some(mode) = mode.filter(|mode| !mode.is_of_conflicts()) {
        let detail = format!("says nothing with mode {}", mode.name());
        sent.refuse("by", &detail);
    } else if !has_params {
        sent.refuse("by", "points into params, and there are none");
    }
    Some(pointers)
}

/// What the type says counts where the submission says nothing.
fn debounce(
    sent: &mut Members,
    mode: Option<DedupMode>,
    of_type: Option<Debounce>,
) -> Option<Debounce> {
    let mut span = |name: &str| {
        let is_there = sent.peek(name).is_some();
        let span = sent.read(name, DELAY, |value| {
            let span = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
            (span <= Submission::DELAY_MAX).then_some(span)
        });
        let other = mode.filter(|&mode| mode != DedupMode::Debounce);
        if let (Some(_), Some(mode)) = (span, other) {
            sent.refuse(name, &format!("says nothing with mode {}", mode.name()));
        }
        (is_there, span)
    };
    let (has_delay, delay) = span("delay_seconds");
    let (_, max_delay) = span("max_delay_seconds");
    if mode != Some(DedupMode::Debounce) {
        return None;
    }
    let Some(wanted) = delay.or(of_type.map(|debounce| debounce.delay)) else {
        if !has_delay {
            sent.refuse("delay_seconds", "is required with mode debounce");
        }
        return None;
    };
    // The type's longest wait goes with the type's delay.
    let max_delay = max_delay.or(match delay {
        Some(_) => None,
        None => of_type.map(|debounce| debounce.max_delay),
    });
    let debounce = Debounce::new(wanted, max_delay);
    if debounce.is_none() {
        sent.refuse("max_delay_seconds", "must be at least delay_seconds");
    }
    debounce
}
