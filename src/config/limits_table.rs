//! `[limits]` of the configuration file.

use serde::Deserialize;

use super::error::ConfigError;
use super::seconds::Seconds;
use crate::limits::Limits;

/// Each member in the unit that its name ends in; what is absent stays at its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsTable {
    header_timeout_seconds: Option<Seconds>,
    body_grace_seconds: Option<Seconds>,
    body_bytes_per_second_min: Option<u64>,
    keep_alive_idle_seconds: Option<Seconds>,
    header_bytes_max: Option<usize>,
    header_fields_max: Option<usize>,
    json_body_bytes_max: Option<usize>,
    batch_body_bytes_max: Option<usize>,
    batch_items_max: Option<usize>,
    file_bytes_max: Option<u64>,
    multipart_parts_max: Option<usize>,
    connections_max: Option<usize>,
    waiting_requests_max: Option<usize>,
    event_streams_max: Option<usize>,
    queue_tasks_max: Option<u64>,
    requests_per_minute_max: Option<u32>,
    unfinished_tasks_max: Option<u64>,
    result_bytes_max: Option<usize>,
    result_inline_bytes_max: Option<usize>,
    page_bytes_max: Option<usize>,
    page_timeout_seconds: Option<Seconds>,
}

/// The HTTP library refuses to work with less.
const HEADER_BYTES_MIN: usize = 8 * 1024;

impl LimitsTable {
    /// Those that are settings of their own, in the order of [`super::quotas::SETTINGS`].
    pub fn of_users(&self) -> [Option<u64>; 2] {
        let requests = self.requests_per_minute_max.map(u64::from);
        [requests, self.unfinished_tasks_max]
    }

    pub fn limits(self) -> Result<Limits, ConfigError> {
        let usual = Limits::default();
        let span = |given: Option<Seconds>, usual| given.map_or(usual, |seconds| seconds.0);
        let limits = Limits {
            header_timeout: span(self.header_timeout_seconds, usual.header_timeout),
            body_grace: span(self.body_grace_seconds, usual.body_grace),
            body_bytes_per_second_min: self
                .body_bytes_per_second_min
                .unwrap_or(usual.body_bytes_per_second_min),
            keep_alive_idle: span(self.keep_alive_idle_seconds, usual.keep_alive_idle),
            header_bytes_max: self.header_bytes_max.unwrap_or(usual.header_bytes_max),
            header_fields_max: self.header_fields_max.unwrap_or(usual.header_fields_max),
            json_body_bytes_max: self
                .json_body_bytes_max
                .unwrap_or(usual.json_body_bytes_max),
            batch_body_bytes_max: self
                .batch_body_bytes_max
                .unwrap_or(usual.batch_body_bytes_max),
            batch_items_max: self.batch_items_max.unwrap_or(usual.batch_items_max),
            file_bytes_max: self.file_bytes_max.unwrap_or(usual.file_bytes_max),
            multipart_parts_max: self
                .multipart_parts_max
                .unwrap_or(usual.multipart_parts_max),
            connections_max: self.connections_max.unwrap_or(usual.connections_max),
            waiting_requests_max: self
                .waiting_requests_max
                .unwrap_or(usual.waiting_requests_max),
            event_streams_max: self.event_streams_max.unwrap_or(usual.event_streams_max),
            queue_tasks_max: self.queue_tasks_max.unwrap_or(usual.queue_tasks_max),
            quotas: usual.quotas,
            result_bytes_max: self.result_bytes_max.unwrap_or(usual.result_bytes_max),
            result_inline_bytes_max: match self.result_inline_bytes_max {
                Some(given) => given,
                None => usual
                    .result_inline_bytes_max
                    .min(self.result_bytes_max.unwrap_or(usual.result_bytes_max)),
            },
            page_bytes_max: self.page_bytes_max.unwrap_or(usual.page_bytes_max),
            page_timeout: span(self.page_timeout_seconds, usual.page_timeout),
        };
        check(&limits).map_err(|error| error.at("[limits]"))?;
        Ok(limits)
    }
}

/// Bounds that contradict each other, or that nothing could pass, refuse to start.
fn check(limits: &Limits) -> Result<(), ConfigError> {
    let refuse = |member, text: &str| Err(ConfigError::new(text).of(member));
    if limits.header_timeout.is_zero() || limits.keep_alive_idle.is_zero() {
        let member = match limits.header_timeout.is_zero() {
            true => "header_timeout_seconds",
            false => "keep_alive_idle_seconds",
        };
        return refuse(
            member,
            "header_timeout_seconds and keep_alive_idle_seconds must be above 0",
        );
    }
    if limits.header_bytes_max < HEADER_BYTES_MIN {
        return refuse("header_bytes_max", "header_bytes_max must be at least 8192");
    }
    if limits.result_inline_bytes_max > limits.result_bytes_max {
        return refuse(
            "result_inline_bytes_max",
            "result_inline_bytes_max is above result_bytes_max",
        );
    }
    let counts = [
        ("header_fields_max", limits.header_fields_max),
        ("json_body_bytes_max", limits.json_body_bytes_max),
        ("batch_body_bytes_max", limits.batch_body_bytes_max),
        ("batch_items_max", limits.batch_items_max),
        ("multipart_parts_max", limits.multipart_parts_max),
        ("connections_max", limits.connections_max),
        ("result_bytes_max", limits.result_bytes_max),
        ("page_bytes_max", limits.page_bytes_max),
    ];
    match counts.into_iter().find(|(_, count)| *count == 0) {
        Some((name, _)) => refuse(name, &format!("{name} must be above 0")),
        None => Ok(()),
    }
}
