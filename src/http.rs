//! The only place that knows HTTP.

pub mod admission;
pub mod answer;
pub mod api;
pub mod body;
pub mod caller;
pub mod clock;
pub mod code;
pub mod disposition;
pub mod etag;
pub mod files;
pub mod head;
pub mod media_type;
pub mod prefer;
pub mod problem;
pub mod query;
pub mod retry_after;
pub mod submission;
pub mod task_routes;
pub mod task_types;
pub mod task_view;
pub mod tasks;
pub mod unquoted;
pub mod wait;
