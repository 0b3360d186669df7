//! Files: sent with a submission or on their own, and fetched again.

pub mod digest_field;
pub mod download;
pub mod form;
pub mod form_body;
pub mod raw;
pub mod received;
pub mod stored;
pub mod upload;
