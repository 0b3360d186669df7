//! `DELETE /v1/tasks/{id}`

use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{missing, task_id};
use crate::http::admission::delete;
use crate::http::api::Api;
use crate::http::caller::Caller;
use crate::http::code::Code;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::store::Forgotten;

/// Forget an ended task
///
/// Its content may run anew. Every key that named it answers 410 until its own retention ends.
#[utoipa::path(
    delete,
    path = "/v1/tasks/{id}",
    tag = "tasks",
    params(("id" = String, Path, description = "The task's id")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 404, description = "`not-found`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`task-unfinished`: cancel it first", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`: it was forgotten before", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn forget_task(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    match api.store.forget(&caller.0.user, &task_id(&id)?).await? {
        Forgotten::Done { disowned } => {
            delete(&api, disowned.as_slice()).await;
            Ok(StatusCode::NO_CONTENT)
        }
        Forgotten::Unfinished => Err(Problem::new(
            Code::TaskUnfinished,
            "Only an ended task can be forgotten.",
        )),
        Forgotten::Unknown(why) => Err(missing(why)),
    }
}
