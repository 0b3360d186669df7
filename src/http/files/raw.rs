//! A file as the whole body of a request; the query says the rest.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use http_body::Body as _;

use super::digest_field::{Claims, WANT_CONTENT_DIGEST};
use super::form::MEMBERS;
use super::received::{Label, Received, too_large};
use super::stored::{self, Kept};
use super::upload::submit;
use crate::domain::file::{File, clean_file_name};
use crate::domain::submission::Submission;
use crate::http::admission::admit;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::clock;
use crate::http::head::SubmissionHead;
use crate::http::media_type;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::submission::{Carries, Draft};
use crate::store::{Admission, Admitted};

/// A raw upload before its body is read: all that can be refused or answered already.
struct RawUpload<'a> {
    api: &'a Api,
    head: &'a SubmissionHead,
    /// None when the file is only to be stored.
    submission: Option<Submission>,
    label: Label,
    claims: Claims,
    /// From Content-Length.
    length: Option<u64>,
}

pub async fn upload(
    api: &Api,
    head: &SubmissionHead,
    query: Option<&str>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (draft, file_name) = read_query(query)?;
    let submission = match draft.is_empty() {
        true => None,
        false => {
            let drafted = draft.read(&api.types.now(), head.key(), Carries::Bytes, clock::now())?;
            Some(drafted.submission)
        }
    };
    let declared = headers.get(header::CONTENT_TYPE);
    let upload = RawUpload {
        api,
        head,
        submission,
        label: Label {
            part: None,
            name: file_name.as_deref().and_then(clean_file_name),
            media_type: media_type::of_file(declared.and_then(|value| value.to_str().ok())),
        },
        claims: Claims::of(headers)?,
        length: body.size_hint().exact(),
    };
    if upload
        .length
        .is_some_and(|length| length > api.limits.file_bytes_max)
    {
        return Err(too_large());
    }
    if let Some(response) = upload.answer_unread().await? {
        return Ok(response);
    }
    upload.receive(body).await
}

/// The query's parameters are the members of a submission, and the file's name.
fn read_query(query: Option<&str>) -> Result<(Draft, Option<String>), Problem> {
    let known = [&MEMBERS[..], &["filename"]].concat();
    let mut query = Query::read(query, &known);
    query.check()?;
    let file_name = query.text("filename");
    let mut draft = Draft::default();
    for (name, text) in query.rest() {
        draft.set_text(&name, text)?;
    }
    Ok((draft, file_name))
}

fn without_copy(known: File) -> File {
    File {
        generation: None,
        ..known
    }
}

impl RawUpload<'_> {
    /// The answer before a byte of the body is read, when this user has sent these bytes before: a
    /// client that waits for `100 Continue` never sends them again.
    async fn answer_unread(&self) -> Result<Option<Response>, Problem> {
        let Some(sha256) = self.claims.sha256() else {
            return Ok(None);
        };
        let known = self.api.store.file(&self.head.user, &sha256).await?;
        let of_length = |known: &File| self.length.is_none_or(|length| length == known.size);
        let Some(known) = known.filter(of_length) else {
            return Ok(None);
        };
        let Some(submission) = &self.submission else {
            let kept = self
                .api
                .store
                .keep_file(&self.head.user, without_copy(known))
                .await?;
            // Without one it has expired since we looked: the bytes are needed after all.
            let Some(file) = kept else { return Ok(None) };
            return stored::answer(self.api, &[Kept { file, new: false }]).map(Some);
        };
        let mut submission = submission.clone();
        submission.files = vec![self.label.clone().file(sha256, known.size)];
        let mut admission = self.admission(submission);
        admission.bytes_not_sent = known.size;
        match admit(self.api, admission, Vec::new()).await? {
            // It has expired since we looked: the bytes are needed after all.
            Admitted::FileUnknown(_) => Ok(None),
            admitted @ (Admitted::New(_)
            | Admitted::Duplicate { .. }
            | Admitted::KeyReused { .. }
            | Admitted::KeyForgotten
            | Admitted::Rejected(_)
            | Admitted::QueueFull
            | Admitted::QuotaExceeded { .. }) => {
                let took = self.head.received_at.elapsed();
                self.api.store.record_submit_latency(&self.head.user, took);
                let response = answer::to_submission(self.api, self.head, admitted).await?;
                Ok(Some(response))
            }
        }
    }

    async fn receive(self, body: Body) -> Result<Response, Problem> {
        let received = Received::from_body(self.api, body, self.label.clone()).await?;
        self.claims.verify(&received.file.sha256)?;
        let mut response = match &self.submission {
            Some(submission) => {
                submit(self.api, self.head, submission.clone(), vec![received]).await?
            }
            None => {
                let kept = stored::keep(self.api, &self.head.user, vec![received]).await?;
                stored::answer(self.api, &kept)?
            }
        };
        if let Some(wanted) = self.claims.wanted() {
            response.headers_mut().insert(WANT_CONTENT_DIGEST, wanted);
        }
        Ok(response)
    }

    fn admission(&self, submission: Submission) -> Admission {
        let SubmissionHead {
            user, request_id, ..
        } = self.head;
        let key = self.head.key().cloned();
        Admission::new(user.clone(), key, submission, request_id.clone())
            .within(self.api.limits.quotas.of(user))
    }
}
