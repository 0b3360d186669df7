//! The way of a whole submission through the store, and of the bytes that came with it.

use super::api::Api;
use super::code::Code;
use super::outliving::finish;
use super::problem::Problem;
use crate::blobs::{BlobError, Incoming};
use crate::domain::file::BlobName;
use crate::failpoints::FailPoint;
use crate::store::{Admission, Admitted, StoreError};

/// Admits a submission whose `uploads`, when there are any, are the bytes of its files in order.
///
/// Runs to its end even if the client goes away: what it sent is whole, and it will ask again.
pub async fn admit(
    api: &Api,
    admission: Admission,
    uploads: Vec<Box<dyn Incoming>>,
) -> Result<Admitted, Problem> {
    let arrival = Arrival {
        api: api.clone(),
        admission,
        uploads: uploads.into_iter().map(Some).collect(),
        published: Vec::new(),
    };
    let whole = async {
        FailPoint::BeforeAdmission.reached();
        let admitted = arrival.admit().await;
        FailPoint::AfterAdmission.reached();
        admitted
    };
    finish(&api.unfinished, whole).await
}

struct Arrival {
    api: Api,
    admission: Admission,
    /// None once published.
    uploads: Vec<Option<Box<dyn Incoming>>>,
    published: Vec<BlobName>,
}

impl Arrival {
    async fn admit(mut self) -> Result<Admitted, Problem> {
        if self.uploads.is_empty() {
            return Ok(self.api.store.admit(self.admission).await?);
        }
        let known = self.known().await?;
        self.publish(|index| !known[index]).await?;
        let admitted = match self.api.store.admit(self.admission.clone()).await {
            // The copy on record has expired since we looked. Nothing was recorded, so that the same
            // step may be tried with a copy of our own.
            Ok(Admitted::FileUnknown(_)) if self.uploads.iter().any(Option::is_some) => {
                self.publish(|_| true).await?;
                self.api.store.admit(self.admission.clone()).await
            }
            admitted => admitted,
        };
        clean_up(&self.api, &self.published, &admitted).await;
        Ok(admitted?)
    }

    /// Which of the files the user has stored before: they are published only if that copy turns out
    /// to be gone.
    async fn known(&mut self) -> Result<Vec<bool>, Problem> {
        let Admission {
            user, submission, ..
        } = &self.admission;
        let mut known = Vec::new();
        for file in &submission.files {
            known.push(self.api.store.file(user, &file.sha256).await?.is_some());
        }
        Ok(known)
    }

    async fn publish(&mut self, which: impl Fn(usize) -> bool) -> Result<(), Problem> {
        for index in 0..self.uploads.len() {
            let Some(upload) = self.uploads[index].take_if(|_| which(index)) else {
                continue;
            };
            match upload.publish().await {
                Ok(name) => {
                    self.admission.submission.files[index].generation =
                        Some(name.generation.clone());
                    self.published.push(name);
                }
                Err(error) => {
                    delete(&self.api, &self.published).await;
                    return Err(not_stored(error));
                }
            }
        }
        Ok(())
    }
}

/// Deletes the copies that no record names.
async fn clean_up(api: &Api, published: &[BlobName], admitted: &Result<Admitted, StoreError>) {
    match admitted {
        Ok(Admitted::New(answer) | Admitted::Duplicate { answer, .. }) => {
            delete(api, &answer.disowned).await;
        }
        Ok(
            Admitted::KeyReused { .. }
            | Admitted::KeyForgotten
            | Admitted::Rejected(_)
            | Admitted::FileUnknown(_)
            | Admitted::QueueFull
            | Admitted::QuotaExceeded { .. },
        )
        | Err(StoreError::Full) => delete(api, published).await,
        // The submission may have been recorded: the sweep for orphans knows more, later.
        Err(StoreError::Unavailable(_) | StoreError::StateLost) => {}
    }
}

/// A copy that cannot be deleted now is left to the sweep for orphans.
pub async fn delete(api: &Api, names: &[BlobName]) {
    for name in names {
        if let Err(error) = api.blobs.delete(name).await {
            tracing::warn!(%name, %error, "a stored copy could not be deleted");
        }
    }
}

/// Bytes that could not be stored. `Missing` would be an error of ours here, not an unknown resource.
pub fn not_stored(error: BlobError) -> Problem {
    match error {
        BlobError::Missing => Problem::new(Code::Internal, "The file could not be stored.")
            .caused_by("the storage folder is gone"),
        error @ (BlobError::Full | BlobError::Failed(_)) => error.into(),
    }
}
