//! Submissions as clients send them, and the way to a valid one: every form (JSON, multipart, query)
//! becomes a [`Draft`] first, and every draft is read by the same rules.

mod callback;
mod dedup;
pub mod document;
pub mod draft;
pub mod file_reference;
pub mod items;
pub mod members;
pub mod plan;

pub use draft::{Carries, Draft, Drafted};
