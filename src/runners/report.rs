//! `generate_analytics_report`: what the user's submissions of a period became, and what was saved.

mod chart;
mod csv;
mod numbers;
mod page;

use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use super::Surroundings;
use super::chores::result;
use crate::domain::cadence::zone_named;
use crate::domain::period::Period;
use crate::domain::timestamp::Timestamp;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::store::Store;
use numbers::Numbers;

pub struct AnalyticsReport {
    store: Arc<dyn Store>,
}

impl AnalyticsReport {
    pub fn new(surroundings: &Surroundings) -> Self {
        AnalyticsReport {
            store: surroundings.store.clone(),
        }
    }
}

#[async_trait]
impl Runner for AnalyticsReport {
    async fn run(&self, attempt: Attempt) -> Result<Success, AttemptError> {
        let task = &attempt.task;
        // The same for every attempt.
        let asked_at = task.scheduled_at.unwrap_or(task.created_at);
        let wishes = Wishes::read(task.params.get(), asked_at)?;
        let numbers = tokio::select! {
            numbers = Numbers::gather(&*self.store, &task.user, wishes.from, wishes.to) => numbers?,
            () = attempt.cancel.cancelled() => return Err(AttemptError::stopped()),
        };
        let (report, content) = match wishes.format {
            Format::Json => (Some(&numbers), None),
            Format::Csv => (None, Some(csv::write(&numbers))),
            Format::Html => (None, Some(page::write(&numbers))),
        };
        result(&Report {
            status: "success",
            format: wishes.format.name(),
            media_type: wishes.format.media_type(),
            report,
            content,
        })
    }

    fn load(&self) -> Load {
        Load::Waiting
    }
}

#[derive(Serialize)]
struct Report<'a> {
    status: &'static str,
    format: &'static str,
    media_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a Numbers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Html,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Html => "html",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::Html => "text/html; charset=utf-8",
        }
    }
}

#[derive(Debug)]
struct Wishes {
    from: Timestamp,
    to: Timestamp,
    format: Format,
}

impl Wishes {
    /// `asked_at`: what a period that a word names is counted back from.
    fn read(params: &str, asked_at: Timestamp) -> Result<Wishes, AttemptError> {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let (from, to) = match params["period"].as_str() {
            Some(name) => named_period(name, &params, asked_at)?,
            None => (time(&params, "from")?, time(&params, "to")?),
        };
        if from >= to {
            return Err(invalid("`from` must be earlier than `to`".to_owned()));
        }
        let format = match params["format"].as_str() {
            None | Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some("html") => Format::Html,
            Some(_) => return Err(invalid("`format` is none of json, csv, html".to_owned())),
        };
        Ok(Wishes { from, to, format })
    }
}

fn time(params: &Value, name: &str) -> Result<Timestamp, AttemptError> {
    let at = params[name].as_str().and_then(Timestamp::parse_rfc3339);
    at.ok_or_else(|| invalid(format!("`{name}` is not an RFC 3339 time with its offset")))
}

fn named_period(
    name: &str,
    params: &Value,
    asked_at: Timestamp,
) -> Result<(Timestamp, Timestamp), AttemptError> {
    let zone = zone_named(params["time_zone"].as_str().unwrap_or("UTC"));
    let zone = zone.ok_or_else(|| invalid("`time_zone` is no IANA time zone".to_owned()))?;
    let period = Period::parse(name).and_then(|period| period.before(asked_at, &zone));
    period.ok_or_else(|| invalid("`period` is none that is known".to_owned()))
}

fn invalid(message: String) -> AttemptError {
    AttemptError::permanent("invalid-params", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_begin_before_its_end() {
        let read = |from: &str, to: &str| {
            let params = serde_json::json!({"from": from, "to": to}).to_string();
            Wishes::read(&params, Timestamp::from_ms(0))
        };
        let hour = "2026-11-22T07:00:00Z";
        assert_eq!(
            read("2026-11-22T06:00:00Z", hour).unwrap().format,
            Format::Json
        );
        // The same instant, and one that comes later in spite of how it looks.
        for (from, to) in [
            (hour, hour),
            ("2026-11-22T06:59:00-02:00", hour),
            ("today", hour),
        ] {
            let error = read(from, to).unwrap_err();
            assert!(error.permanent && error.code == "invalid-params", "{from}");
        }
    }

    #[test]
    fn a_period_that_a_word_names_is_counted_back_from_when_it_was_asked_for() {
        let time = |text| Timestamp::parse_rfc3339(text).unwrap();
        let read = |params: Value| Wishes::read(&params.to_string(), time("2026-11-22T00:30:00Z"));
        let period = |params| read(params).map(|wishes| (wishes.from, wishes.to)).unwrap();
        let from_berlin = serde_json::json!({"period": "yesterday", "time_zone": "Europe/Berlin"});
        assert_eq!(
            period(serde_json::json!({"period": "yesterday"})),
            (time("2026-11-21T00:00:00Z"), time("2026-11-22T00:00:00Z"))
        );
        assert_eq!(
            period(from_berlin),
            (time("2026-11-20T23:00:00Z"), time("2026-11-21T23:00:00Z"))
        );
        for bad in [
            serde_json::json!({"period": "tomorrow"}),
            serde_json::json!({"period": "yesterday", "time_zone": "Mars/Base"}),
            serde_json::json!({"period": 1}),
        ] {
            assert_eq!(read(bad).unwrap_err().code, "invalid-params");
        }
    }
}
