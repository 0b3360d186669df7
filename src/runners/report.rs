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
        let wishes = Wishes::read(attempt.task.params.get())?;
        let user = &attempt.task.user;
        let numbers = tokio::select! {
            numbers = Numbers::gather(&*self.store, user, wishes.from, wishes.to) => numbers?,
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
    fn read(params: &str) -> Result<Wishes, AttemptError> {
        let params: Value = serde_json::from_str(params).unwrap_or_default();
        let time = |name: &str| {
            let at = params[name].as_str().and_then(Timestamp::parse_rfc3339);
            at.ok_or_else(|| invalid(format!("`{name}` is not an RFC 3339 time with its offset")))
        };
        let (from, to) = (time("from")?, time("to")?);
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

fn invalid(message: String) -> AttemptError {
    AttemptError::permanent("invalid-params", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_has_a_begin_before_its_end() {
        let read = |from: &str, to: &str| {
            Wishes::read(&serde_json::json!({"from": from, "to": to}).to_string())
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
}
