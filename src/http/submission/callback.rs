//! `callback_url`: where the end of the task is to be told.

use serde_json::json;

use super::members::Members;
use crate::domain::callback::Callback;
use crate::domain::schema::Violation;
use crate::domain::task_type::TaskTypes;
use crate::http::code::Code;
use crate::http::problem::Problem;

/// Takes the member, if it is there. A URL that nothing is sent to is wrong.
pub fn take(members: &mut Members, types: &TaskTypes) -> Option<Result<Callback, Violation>> {
    let text = members.text("callback_url")?;
    // Types without rules have none for this either.
    let deliveries = types.get(Callback::TASK_TYPE)?;
    Some(Callback::to(&text, deliveries))
}

/// Where nothing else is wrong, this is a problem of its own.
pub fn refused(wrong: Violation) -> Problem {
    let text = format!("{}: {}", wrong.pointer, wrong.detail);
    let error = json!({"pointer": wrong.pointer, "detail": wrong.detail});
    Problem::new(Code::CallbackUrlRejected, text).with("errors", json!([error]))
}
