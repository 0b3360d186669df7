//! Chores of a user: to look back, and to clean up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::config::defaults::Defaults;
use crate::config::error::ConfigError;
use crate::domain::cadence::zone_named;
use crate::domain::history::Span;
use crate::domain::params_check::ParamsCheck;
use crate::domain::period::Period;
use crate::domain::schema::{ParamsSchema, Violation};
use crate::domain::task_type::{FilesRule, RunnerSpec, TaskType};
use crate::domain::timestamp::Timestamp;

pub const REPORT: &str = "generate_analytics_report";
pub const CLEAN_UP: &str = "cleanup_old_data";

/// Two retries.
const ATTEMPTS_MAX: u32 = 3;
/// Long enough for a request that is sent again; after it there may be new work of the same content.
const CLEAN_UP_WINDOW: Duration = Duration::from_secs(60);
/// At a time in one process: they read a lot, and nobody waits for them in a hurry.
const CONCURRENCY: usize = 2;

pub fn task_type(name: &str, defaults: &Defaults) -> Result<Option<TaskType>, ConfigError> {
    let (description, schema) = match name {
        REPORT => (
            "Counts what the user's submissions of a period became and what was saved, as JSON, CSV or a page. \
             Its result: {\"status\", \"format\", \"media_type\"} with the numbers in `report` (json) or the \
             document as text in `content` (csv, html).",
            report_params(),
        ),
        CLEAN_UP => (
            "Forgets the user's ended tasks and removes files that nothing names, past an age. Its result: \
             {\"status\", \"dry_run\", \"older_than_seconds\", \"before\", \"tasks\": {\"count\", \"bytes\", \"by_state\"}, \
             \"files\": {\"count\", \"bytes\"}, \"more\"}.",
            clean_up_params(),
        ),
        _ => return Ok(None),
    };
    let runner = RunnerSpec::Builtin(name.to_owned());
    let mut made = TaskType {
        description: description.to_owned(),
        files: FilesRule::None,
        params_schema: Some(ParamsSchema::compile(schema).map_err(ConfigError::new)?),
        concurrency: Some(CONCURRENCY),
        ..defaults.task_type(name, runner)?
    };
    made.retry.max_attempts = ATTEMPTS_MAX;
    if name == REPORT {
        made.params_check = Some(ParamsCheck::new(|params| period_faults(params, now())));
    }
    if name == CLEAN_UP {
        made.dedup.window = made.dedup.window.min(CLEAN_UP_WINDOW);
    }
    Ok(Some(made))
}

fn report_params() -> Value {
    let time = |description: &str| {
        json!({
            "type": "string", "format": "date-time", "maxLength": 64,
            "description": description,
        })
    };
    json!({
        "type": "object",
        "properties": {
            "period": {
                "type": "string", "enum": Period::NAMES,
                "description": "In place of `from` and `to`: counted back from the task's `scheduled_at`, which of a \
                                schedule is when it fires, else from its `created_at`.",
            },
            "time_zone": {
                "type": "string", "maxLength": 64, "default": "UTC",
                "description": "IANA time zone whose midnights bound `yesterday`.",
            },
            "from": time("Begin of the period, RFC 3339; rounded down to 5 minutes within the last two hours, \
                          else to an hour. A week is kept."),
            "to": time("End of the period, RFC 3339; rounded up in the same way. What has not happened yet is \
                        not in the report."),
            "format": {
                "type": "string", "enum": ["json", "csv", "html"], "default": "json",
                "description": "What the report is written as.",
            },
        },
        "additionalProperties": false,
    })
}

/// What is wrong with the period of a report that is asked for now.
fn period_faults(params: &Value, now: Timestamp) -> Vec<Violation> {
    let mut faults = Vec::new();
    let mut fault = |name: &str, detail: String| {
        faults.push(Violation {
            pointer: format!("/params/{name}"),
            detail,
        });
    };
    let is_given = |name: &str| params.get(name).is_some();
    if let Some(zone) = params["time_zone"].as_str() {
        if params["period"] != "yesterday" {
            fault("time_zone", "goes with the period yesterday".to_owned());
        } else if zone_named(zone).is_none() {
            fault(
                "time_zone",
                "must be an IANA time zone, such as Europe/Berlin".to_owned(),
            );
        }
    }
    if is_given("period") {
        for name in ["from", "to"].into_iter().filter(|name| is_given(name)) {
            fault(name, "cannot stand beside a period".to_owned());
        }
        return faults;
    }
    let [from, to] = ["from", "to"].map(|name| {
        if !is_given(name) {
            fault(name, "is required, unless there is a period".to_owned());
        }
        let text = params[name].as_str()?;
        let time = Timestamp::parse_rfc3339(text);
        if time.is_none() {
            fault(name, "must be an RFC 3339 time with its offset".to_owned());
        }
        time
    });
    let Some(from) = from else { return faults };
    if to.is_some_and(|to| to <= from) {
        fault("to", "must be later than from".to_owned());
    }
    let earliest = Span::earliest(now);
    if from > now {
        fault("from", "is yet to come".to_owned());
    } else if from < earliest {
        fault(
            "from",
            format!("what happened before {earliest} is not kept any more"),
        );
    }
    faults
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn clean_up_params() -> Value {
    json!({
        "type": "object",
        "properties": {
            "dry_run": {
                "type": "boolean", "default": true,
                "description": "Only says what would go.",
            },
            "older_than_seconds": {
                "type": "integer", "minimum": 0, "maximum": 315_360_000, "default": 86_400,
                "description": "Tasks that ended so long ago, and files that were last kept so long ago.",
            },
        },
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_name_or_two_ends() {
        let now = Timestamp::parse_rfc3339("2026-06-15T12:00:00Z").unwrap();
        let noon = "2026-06-15T12:00:00Z";
        for (params, expected) in [
            (json!({"period": "last_7d"}), &[][..]),
            (
                json!({"period": "yesterday", "time_zone": "Asia/Tokyo"}),
                &[],
            ),
            (json!({}), &["/params/from", "/params/to"]),
            (json!({"to": noon}), &["/params/from"]),
            (json!({"period": "last_hour", "to": noon}), &["/params/to"]),
            (
                json!({"period": "yesterday", "time_zone": "Mars"}),
                &["/params/time_zone"],
            ),
            (
                json!({"period": "last_7d", "time_zone": "UTC"}),
                &["/params/time_zone"],
            ),
        ] {
            let faults = period_faults(&params, now).into_iter();
            let pointers: Vec<_> = faults.map(|fault| fault.pointer).collect();
            assert_eq!(pointers, expected, "{params}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_period_is_pointed_at() {
        let now = Timestamp::parse_rfc3339("2026-06-15T12:00:00Z").unwrap();
        let faults = |from: &str, to: &str| {
            let faults = period_faults(&json!({"from": from, "to": to}), now);
            let pointers = faults.into_iter().map(|fault| fault.pointer);
            pointers.collect::<Vec<_>>()
        };
        let noon = "2026-06-15T12:00:00Z";
        assert!(faults("2026-06-15T11:00:00Z", noon).is_empty());
        assert!(faults("2026-06-08T12:00:00Z", "2030-01-01T00:00:00Z").is_empty());
        for (from, to, expected) in [
            (noon, noon, "/params/to"),
            // Earlier, in spite of how it looks.
            ("2026-06-15T11:59:00-02:00", noon, "/params/to"),
            ("2026-06-08T09:00:00Z", noon, "/params/from"),
            (
                "2026-06-15T12:00:01Z",
                "2026-06-16T00:00:00Z",
                "/params/from",
            ),
            ("2026-02-30T12:00:00Z", noon, "/params/from"),
            ("2026-06-15T11:00:00Z", "2026-06-15T25:00:00Z", "/params/to"),
        ] {
            assert!(
                faults(from, to).contains(&expected.to_owned()),
                "{from} {to}"
            );
        }
        let twice = faults("2020-01-01T00:00:00Z", "2019-01-01T00:00:00Z");
        assert_eq!(twice, ["/params/to", "/params/from"]);
        // What the schema refuses is left to it.
        assert!(period_faults(&json!({"from": 1, "to": 1}), now).is_empty());
    }
}
