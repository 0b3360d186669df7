//! Files without a task: stored, to be named by later submissions.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::received::Received;
use crate::domain::digest::Sha256Digest;
use crate::domain::file::File;
use crate::domain::principal::UserId;
use crate::http::admission::{delete, not_stored};
use crate::http::answer::{self, DURABILITY};
use crate::http::api::Api;
use crate::http::code::Code;
use crate::http::outliving::finish;
use crate::http::problem::Problem;
use crate::http::views::to_bytes;
use crate::store::StoreError;

/// A stored file.
#[derive(Serialize, ToSchema)]
#[schema(as = StoredFile)]
pub struct FileView<'a> {
    #[schema(value_type = String)]
    sha256: Sha256Digest,
    size: u64,
    name: Option<&'a str>,
    media_type: Option<&'a str>,
}

/// Several files of one form.
#[derive(Serialize)]
struct FilesView<'a> {
    files: Vec<FileView<'a>>,
}

/// A file on record, and whether this request brought it.
pub struct Kept {
    pub file: File,
    pub new: bool,
}

/// Stores what was received, to its end even if the client goes away.
pub async fn keep(api: &Api, user: &UserId, received: Vec<Received>) -> Result<Vec<Kept>, Problem> {
    let (work_api, user) = (api.clone(), user.clone());
    let work = async move {
        let mut kept = Vec::new();
        for received in received {
            kept.push(keep_one(&work_api, &user, received).await?);
        }
        Ok(kept)
    };
    finish(&api.unfinished, work).await
}

async fn keep_one(api: &Api, user: &UserId, received: Received) -> Result<Kept, Problem> {
    let mut file = File {
        part: None,
        ..received.file.clone()
    };
    if let Some(known) = api.store.keep_file(user, file.clone()).await? {
        return Ok(Kept {
            file: known,
            new: false,
        });
    }
    let name = received
        .into_incoming()
        .publish()
        .await
        .map_err(not_stored)?;
    file.generation = Some(name.generation.clone());
    let kept = match api.store.keep_file(user, file).await {
        Ok(kept) => kept,
        Err(StoreError::Full) => {
            delete(api, &[name]).await;
            return Err(StoreError::Full.into());
        }
        // It may be on record: the sweep for orphans knows more, later.
        Err(error @ (StoreError::Unavailable(_) | StoreError::StateLost)) => {
            return Err(error.into());
        }
    };
    let is_kept = |kept: &File| kept.generation.as_ref() == Some(&name.generation);
    let new = kept.as_ref().is_some_and(is_kept);
    if !new {
        delete(api, &[name]).await;
    }
    let lost = || Problem::new(Code::Internal, "The file could not be kept.");
    Ok(Kept {
        file: kept.ok_or_else(lost)?,
        new,
    })
}

/// 201 when anything is new, else 200.
pub fn answer(api: &Api, kept: &[Kept]) -> Result<Response, Problem> {
    let mut response = answer::json(match kept {
        [one] => to_bytes(&FileView::of(&one.file))?,
        several => to_bytes(&FilesView {
            files: several
                .iter()
                .map(|kept| FileView::of(&kept.file))
                .collect(),
        })?,
    });
    if kept.iter().any(|kept| kept.new) {
        *response.status_mut() = StatusCode::CREATED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        DURABILITY,
        HeaderValue::from_static(api.store.durability().name()),
    );
    if let [one] = kept {
        let path = api.link(format_args!("/v1/files/{}", one.file.sha256));
        headers.extend(
            HeaderValue::try_from(path)
                .ok()
                .map(|path| (header::LOCATION, path)),
        );
    }
    Ok(response)
}

impl<'a> FileView<'a> {
    fn of(file: &'a File) -> Self {
        FileView {
            sha256: file.sha256,
            size: file.size,
            name: file.name.as_deref(),
            media_type: file.media_type.as_deref(),
        }
    }
}
