//! `GET /v1/leases/{id}/file`

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::{held, lease_id, lost};
use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::http::api::Api;
use crate::http::etag::ETag;
use crate::http::files::download::{described, pieces};
use crate::http::openapi::ProblemDocument;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::store::{Fenced, LeaseRequest};

/// The file of a leased task
#[utoipa::path(
    get,
    path = "/v1/leases/{id}/file",
    tag = "leases",
    params(
        ("id" = String, Path, description = "The lease's id"),
        ("sha256" = Option<String>, Query, description = "Which one, of several"),
    ),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream", body = Vec<u8>, headers(
            ("ETag" = String, description = "The digest"),
            ("Content-Disposition" = String, description = "`attachment`, and the file's name"),
        )),
        (status = 404, description = "`not-found`: not the id of a lease, or a task without that file", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "`lease-lost`: the lease is not held any more", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`: there are several files", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn get_leased_file(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = lease_id(&id)?;
    let mut query = Query::read(query.as_deref(), &["sha256"]);
    let wanted = query.parsed(
        "sha256",
        "must be 64 hexadecimal digits",
        Sha256Digest::parse_hex,
    );
    query.check()?;
    let token = id.token;
    let held = held(id, token, LeaseRequest::LEASE_DEFAULT);
    let Fenced::Recorded(task) = api.store.held(&held).await? else {
        return Err(lost());
    };
    let file = choose(&task.files, wanted)?;
    let name = file.blob().ok_or_else(Problem::not_found)?;
    let blob = api.blobs.open(&name).await?;
    let mut response = described(file, Body::from_stream(pieces(blob)));
    let fields = response.headers_mut();
    fields.insert(header::ETAG, ETag::of_digest(&file.sha256).value());
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn choose(files: &[File], wanted: Option<Sha256Digest>) -> Result<&File, Problem> {
    match (files, wanted) {
        ([], _) => Err(Problem::not_found()),
        (files, Some(wanted)) => {
            let found = files.iter().find(|file| file.sha256 == wanted);
            found.ok_or_else(Problem::not_found)
        }
        ([file], None) => Ok(file),
        (_, None) => Err(Problem::invalid(
            "query:sha256",
            "must say which, since the task has several files",
        )),
    }
}
