//! Every bound has a name and a unit. `[limits]` in the configuration file may change each.

use std::time::Duration;

use crate::domain::quota::Quotas;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// First request and request headers: then 408 and close.
    pub header_timeout: Duration,
    /// A body may be this late before its pace is looked at.
    pub body_grace: Duration,
    /// The slowest pace of a body, after the grace.
    pub body_bytes_per_second_min: u64,
    /// A connection without a request. Must exceed the load balancer's.
    pub keep_alive_idle: Duration,
    pub header_bytes_max: usize,
    pub header_fields_max: usize,
    pub json_body_bytes_max: usize,
    /// Of a batch as a whole; each of its items is bounded as a submission alone.
    pub batch_body_bytes_max: usize,
    pub batch_items_max: usize,
    pub file_bytes_max: u64,
    pub multipart_parts_max: usize,
    pub connections_max: usize,
    /// Requests that wait for a task's end at a time.
    pub waiting_requests_max: usize,
    /// Streams of events that are open at a time.
    pub event_streams_max: usize,
    /// Unfinished tasks.
    pub queue_tasks_max: u64,
    /// Of each user.
    pub quotas: Quotas,
    pub result_bytes_max: usize,
    /// Larger results are kept in blob storage and not shown in the task.
    pub result_inline_bytes_max: usize,
    /// Of a page that is scraped, packed or not.
    pub page_bytes_max: usize,
    /// Until a page that is scraped must be there, redirects included.
    pub page_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            header_timeout: Duration::from_secs(10),
            body_grace: Duration::from_secs(10),
            body_bytes_per_second_min: 1024,
            keep_alive_idle: Duration::from_secs(75),
            header_bytes_max: 32 * 1024,
            header_fields_max: 64,
            json_body_bytes_max: 1024 * 1024,
            batch_body_bytes_max: 16 * 1024 * 1024,
            batch_items_max: 1000,
            file_bytes_max: 10 * 1024 * 1024 * 1024,
            multipart_parts_max: 32,
            connections_max: 10_000,
            waiting_requests_max: 10_000,
            event_streams_max: 5_000,
            queue_tasks_max: 1_000_000,
            quotas: Quotas::default(),
            result_bytes_max: 16 * 1024 * 1024,
            result_inline_bytes_max: 1024 * 1024,
            page_bytes_max: 16 * 1024 * 1024,
            page_timeout: Duration::from_secs(60),
        }
    }
}
