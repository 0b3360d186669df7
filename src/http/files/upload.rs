//! `POST /v1/files`, and `PUT` for `curl -T`.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::form::Form;
use super::form_body::FormBody;
use super::received::Received;
use super::stored::FileView;
use super::{form, raw, stored};
use crate::domain::submission::Submission;
use crate::http::admission::admit;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::head::SubmissionHead;
use crate::http::media_type;
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::submission::document::SubmissionDocument;
use crate::store::Admission;
use crate::task_view::TaskView;

/// A form: the submission as one part `task`, or its members as parts of their own (`params`, `tags` and
/// `dedup` as JSON), and one or more files. Any part with a file name is a file; their order is free.
#[derive(utoipa::ToSchema)]
#[schema(as = FileForm)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct FormDocument {
    #[schema(nullable = false)]
    task: Option<SubmissionDocument>,
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Submit a file
///
/// As `multipart/form-data`, or as the whole body. The members of the submission may stand in the query. Without a
/// type the file is only stored. With a digest of bytes that this user has sent before, the answer comes before
/// the body is read.
#[utoipa::path(
    post,
    path = "/v1/files",
    tag = "files",
    params(
        ("type" = Option<String>, Query, description = "The task type"),
        ("params" = Option<String>, Query, description = "The params as JSON"),
        ("filename" = Option<String>, Query, description = "The file's name; not for forms"),
        ("priority" = Option<u8>, Query, description = "0 goes first, 9 last"),
        ("run_at" = Option<String>, Query, description = "RFC 3339"),
        ("delay_seconds" = Option<f64>, Query, description = "Or how long to wait"),
        ("tags" = Option<String>, Query, description = "A JSON object"),
        ("dedup" = Option<String>, Query, description = "A JSON object"),
        ("Idempotency-Key" = Option<String>, Header, description = "One key for one intent"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`, at most 50 seconds"),
        ("Repr-Digest" = Option<String>, Header, description = "`sha-256=:<base64>:` of a raw body"),
        ("Content-Digest" = Option<String>, Header, description = "The same"),
    ),
    request_body(description = "A form, or the file itself", content(
        (FormDocument = "multipart/form-data"),
        (Vec<u8> = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "An ended task; or, without a type, a file that was stored before", body = TaskView),
        (status = 201, description = "Stored, without a task", body = FileView, headers(
            ("Location" = String, description = "The file"),
        )),
        (status = 202, description = "Accepted, not finished", body = TaskView, headers(
            ("Location" = String, description = "The task"),
            ("Retry-After" = u64, description = "Seconds until it is worth while to ask"),
        )),
        (status = 400, description = "`invalid-request` `invalid-json` `digest-mismatch` `idempotency-key-missing` `idempotency-key-invalid`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`duplicate-submission`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 410, description = "`task-forgotten`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`: a Content-Encoding", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed` `unknown-task-type` `idempotency-key-reused`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "`queue-full` `store-unavailable`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, description = "`storage-full`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn post_file(
    State(api): State<Api>,
    head: SubmissionHead,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    upload(&api, &head, query.as_deref(), &headers, body).await
}

/// Submit a file, as `curl -T` sends it
///
/// The same as `POST`.
#[utoipa::path(
    put,
    path = "/v1/files",
    tag = "files",
    params(
        ("type" = Option<String>, Query, description = "The task type"),
        ("params" = Option<String>, Query, description = "The params as JSON"),
        ("filename" = Option<String>, Query, description = "The file's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "One key for one intent"),
    ),
    request_body(description = "The file itself", content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "An ended task; or, without a type, a file that was stored before", body = TaskView),
        (status = 201, description = "Stored, without a task", body = FileView),
        (status = 202, description = "Accepted, not finished", body = TaskView),
        (status = "4XX", description = "As for `POST`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "As for `POST`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn put_file(
    State(api): State<Api>,
    head: SubmissionHead,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    upload(&api, &head, query.as_deref(), &headers, body).await
}

async fn upload(
    api: &Api,
    head: &SubmissionHead,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    media_type::refuse_content_codings(headers)?;
    if !media_type::is_form_data(headers) {
        return raw::upload(api, head, query, headers, body).await;
    }
    let mut query = Query::read(query, &form::MEMBERS);
    query.check()?;
    // One file of the largest size, or several that are as large together, and all texts.
    let limits = &api.limits;
    let bytes_max = limits
        .file_bytes_max
        .saturating_add(limits.json_body_bytes_max as u64);
    let form = FormBody::open(headers, body, bytes_max).await?;
    let form = Form::read(api, head, query.rest(), form).await?;
    match form.drafted {
        Some(drafted) => submit(api, head, drafted.submission, form.files).await,
        None => {
            let kept = stored::keep(api, &head.user, form.files).await?;
            stored::answer(api, &kept)
        }
    }
}

/// Submits a task with the files that came with it. The time it took counts from the whole body on.
pub async fn submit(
    api: &Api,
    head: &SubmissionHead,
    mut submission: Submission,
    received: Vec<Received>,
) -> Result<Response, Problem> {
    let whole_at = Instant::now();
    let mut uploads = Vec::new();
    for received in received {
        submission.files.push(received.file.clone());
        uploads.push(received.into_incoming());
    }
    let key = head.key().cloned();
    let admission = Admission::new(head.user.clone(), key, submission, head.request_id.clone())
        .within(api.limits.quotas.of(&head.user));
    let admitted = admit(api, admission, uploads).await?;
    api.store
        .record_submit_latency(&head.user, whole_at.elapsed());
    answer::to_submission(api, head, admitted).await
}
