//! `POST /v1/tasks`

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;

use crate::domain::task_type::TaskTypes;
use crate::failpoints::FailPoint;
use crate::http::admission::admit;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::body::read_limited;
use crate::http::clock;
use crate::http::head::SubmissionHead;
use crate::http::media_type;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::submission::document::SubmissionDocument;
use crate::http::submission::{Carries, Draft};
use crate::store::{Admission, AdmissionAnswer, Admitted, Checked, MatchedBy};
use crate::task_view::TaskView;

/// Submit a task
///
/// Sent as often as you like, it runs just once. The status says where the work stands; `deduplicated` and
/// `matched_by` say whether there was such a task already.
#[utoipa::path(
    post,
    path = "/v1/tasks",
    tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "One key for one intent: an RFC 9651 String, or 1 to 255 of `A-Za-z0-9._~:+/=@-`. Required by some task types."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: hold the answer until the task has ended or N seconds (at most 50) have passed."),
    ),
    request_body(content = SubmissionDocument, content_type = "application/json"),
    responses(
        (status = 202, description = "Accepted, not finished. New, or a duplicate of an unfinished task.", body = TaskView, headers(
            ("Location" = String, description = "The task"),
            ("Retry-After" = u64, description = "Seconds until it is worth while to ask"),
            ("Durability" = String, description = "What the acknowledgement survives: `memory` or `fsync`"),
            ("Idempotency-Key" = String, description = "The key as it was sent"),
            ("Idempotent-Replayed" = String, description = "`true` when the key matched"),
            ("Preference-Applied" = String, description = "Such as `wait=10`"),
        )),
        (status = 200, description = "A task that has ended, with its result or error.", body = TaskView, headers(
            ("Location" = String, description = "The task"),
            ("Durability" = String, description = "What the acknowledgement survives: `memory` or `fsync`"),
            ("Idempotency-Key" = String, description = "The key as it was sent"),
            ("Idempotency-Expires" = String, description = "Until when the key is kept, RFC 3339"),
            ("Idempotent-Replayed" = String, description = "`true` when the key matched"),
            ("Preference-Applied" = String, description = "Such as `wait=10`"),
        )),
        (status = 400, description = "`invalid-json` `invalid-request` `idempotency-key-missing` `idempotency-key-invalid`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`duplicate-submission`, when the submission or its type asks for `reject`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`: the key names a deleted task", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed` `unknown-task-type` `idempotency-key-reused` `file-unknown` `callback-url-rejected`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "`queue-full` `store-unavailable`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, description = "`storage-full`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn submit_task(
    State(api): State<Api>,
    head: SubmissionHead,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    FailPoint::BeforeParsing.reached();
    query::expect_none(query.as_deref())?;
    let text = read_text(&api, &headers, body).await?;
    let draft = Draft::from_json(&text)?;
    let types = api.types.now();
    let admitted = match admission_of(&api, &head, draft, &types).await {
        Ok(admission) => admit(&api, admission, Vec::new()).await?,
        Err(refused) => {
            let draft = Draft::from_json(&text)?;
            replay(&api, &head, draft).await?.ok_or(refused)?
        }
    };
    api.store
        .record_submit_latency(&head.user, head.received_at.elapsed());
    answer::to_submission(&api, &head, admitted).await
}

/// A key is compared under the rule that it was recorded with: its replay is answered although today's
/// configuration would refuse the submission.
pub async fn replay(
    api: &Api,
    head: &SubmissionHead,
    draft: Draft,
) -> Result<Option<Admitted>, Problem> {
    let (Some(_), Some(types)) = (head.key(), draft.types_without_rules(&api.types.now())) else {
        return Ok(None);
    };
    let Ok(admission) = admission_of(api, head, draft, &types).await else {
        return Ok(None);
    };
    // Nothing joins a task by a submission that is refused today.
    let callback = admission.submission.callback.as_ref();
    let ignored = callback.map(|_| "/callback_url");
    Ok(match api.store.check(admission).await? {
        Checked::Duplicate {
            task,
            matched_by: MatchedBy::IdempotencyKey,
            expires_at,
        } => {
            let answer = AdmissionAnswer {
                task,
                key_expires_at: expires_at,
                ignored: ignored.into_iter().collect(),
                disowned: Vec::new(),
            };
            Some(Admitted::Duplicate {
                answer,
                matched_by: MatchedBy::IdempotencyKey,
            })
        }
        Checked::Duplicate { .. }
        | Checked::New
        | Checked::KeyReused { .. }
        | Checked::KeyForgotten
        | Checked::FileUnknown(_) => None,
    })
}

/// The submission in a JSON body, with the files that it names.
pub async fn read_admission(
    api: &Api,
    head: &SubmissionHead,
    headers: &HeaderMap,
    body: Body,
) -> Result<Admission, Problem> {
    let text = read_text(api, headers, body).await?;
    admission_of(api, head, Draft::from_json(&text)?, &api.types.now()).await
}

async fn read_text(api: &Api, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    media_type::require_json(headers, &body)?;
    read_limited(body, api.limits.json_body_bytes_max).await
}

/// The files that a submission names are looked up here.
pub async fn admission_of(
    api: &Api,
    head: &SubmissionHead,
    draft: Draft,
    types: &TaskTypes,
) -> Result<Admission, Problem> {
    let carries = Carries::References {
        files_max: api.limits.multipart_parts_max,
    };
    let drafted = draft.read(types, head.key(), carries, clock::now())?;
    let mut submission = drafted.submission;
    for reference in &drafted.references {
        let file = reference.resolve(&*api.store, &head.user).await?;
        submission.files.push(file);
    }
    let admission = Admission::new(
        head.user.clone(),
        head.key().cloned(),
        submission,
        head.request_id.clone(),
    );
    Ok(admission.within(api.limits.quotas.of(&head.user)))
}
