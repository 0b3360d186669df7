//! `POST /v1/tasks/batch`

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::submit::{admission_of, replay};
use crate::domain::idempotency_key::IdempotencyKey;
use crate::domain::task_type::TaskTypes;
use crate::domain::timestamp::Timestamp;
use crate::http::answer;
use crate::http::api::Api;
use crate::http::body::read_limited;
use crate::http::code::Code;
use crate::http::head::{SentKey, SubmissionHead};
use crate::http::media_type;
use crate::http::openapi::ProblemDocument;
use crate::http::outliving::finish;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::submission::document::ItemDocument;
use crate::http::submission::{Draft, items};
use crate::http::views;
use crate::store::{Admission, Admitted, StoreError};
use crate::task_view::TaskView;

/// What became of each submission, in the order in which they were sent.
#[derive(ToSchema)]
#[schema(as = Batch)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct BatchDocument<'a> {
    items: Vec<VerdictView<'a>>,
}

/// What became of one submission: a task, or a problem.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchVerdict)]
pub struct VerdictView<'a> {
    /// The status that the submission would have got alone.
    #[schema(example = 202)]
    status: u16,
    /// The key that it went under: its own, or the one that was derived from the batch's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    idempotency_key: Option<&'a IdempotencyKey>,
    /// Until when that key is kept; absent until the task has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    idempotency_expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    task: Option<TaskView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemDocument>, nullable = false)]
    problem: Option<Value>,
}

/// Items that are read, admitted and answered together: so many tasks are in memory at a time.
const TOGETHER_MAX: usize = 128;

/// Look-ups of files under way at a time.
const LOOK_UPS_MAX: usize = 16;

/// Submit many tasks
///
/// Each item is a submission of its own, decided in the order sent: one that is refused harms no other, and
/// one that repeats an earlier one is its duplicate. After a time-out, a 5xx or a lost connection, send the
/// same batch again, with the same keys.
#[utoipa::path(
    post,
    path = "/v1/tasks/batch",
    tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Gives items without a key of their own the key `{key}/{index}`, counted from 0."),
    ),
    request_body(description = "An array, or one item on each line; at most 1,000 items and 16 MiB", content(
        (Vec<ItemDocument> = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 200, description = "One verdict for each item, in order", body = BatchDocument, headers(
            ("Durability" = String, description = "What the acknowledgements survive: `memory` or `fsync`"),
            ("Idempotency-Key" = String, description = "The key as it was sent"),
        )),
        (status = 400, description = "`invalid-json` `invalid-request` `idempotency-key-invalid`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 413, description = "`payload-too-large`: too many bytes, or too many items", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "`store-unavailable` `state-lost`: for all of them", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 507, description = "`storage-full`: for all of them", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn submit_batch(
    State(api): State<Api>,
    head: SubmissionHead,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let form = media_type::require_items(&headers, &body)?;
    let text = read_limited(body, api.limits.batch_body_bytes_max).await?;
    let items = items::of_batch(&text, form, api.limits.batch_items_max)?;
    let items = items.into_iter().map(|item| text.slice_ref(item)).collect();
    let batch = Batch {
        api: api.clone(),
        head: head.clone(),
    };
    let verdicts = finish(&api.unfinished, batch.submit(items)).await?;
    api.store
        .record_submit_latency(&head.user, head.received_at.elapsed());
    let mut response = answer::json(verdicts);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let durability = HeaderValue::from_static(api.store.durability().name());
    headers.insert(answer::DURABILITY, durability);
    if let Some(sent) = head.key {
        headers.insert(crate::http::head::IDEMPOTENCY_KEY, sent.as_sent);
    }
    Ok(response)
}

struct Batch {
    api: Api,
    head: SubmissionHead,
}

/// One item, read.
struct Item {
    key: Option<IdempotencyKey>,
    next: Next,
}

/// What is left to do for it.
enum Next {
    Admit(Box<Admission>),
    /// It is refused, or its key has answered already.
    Settled(Result<Box<Admitted>, Problem>),
}

/// An item's key, and what became of it, unless the store is yet to say.
type Known = (Option<IdempotencyKey>, Option<Result<Admitted, Problem>>);

impl Batch {
    /// The answer's text.
    async fn submit(self, texts: Vec<Bytes>) -> Result<Vec<u8>, Problem> {
        let types = self.api.types.now();
        let mut verdicts = b"{\"items\":[".to_vec();
        let mut refusal: Option<StoreError> = None;
        for (chunk, texts) in texts.chunks(TOGETHER_MAX).enumerate() {
            let first = chunk * TOGETHER_MAX;
            let (items, admissions) = self.read_all(first, texts, &types).await;
            let admitted = match &refusal {
                // Nobody waits for a store that does not answer once for each of the others.
                Some(error) => vec![Err(error.clone()); admissions.len()],
                None => self.api.store.admit_many(admissions).await,
            };
            if refusal.is_none() {
                refusal = refusal_of_all(&admitted);
            }
            if let Some(error) = refusal.as_ref().filter(|_| chunk == 0) {
                return Err(error.clone().into());
            }
            let mut admitted = admitted.into_iter();
            for (at, (key, settled)) in items.into_iter().enumerate() {
                if first + at > 0 {
                    verdicts.push(b',');
                }
                let settled = settled.or_else(|| Some(admitted.next()?.map_err(Problem::from)));
                verdicts.extend(self.verdict(key.as_ref(), settled)?);
            }
        }
        verdicts.extend(b"]}");
        Ok(verdicts)
    }

    /// The items from the one at `first` on, with the verdicts that are known already; and the admissions of
    /// the others, in the same order.
    async fn read_all(
        &self,
        first: usize,
        texts: &[Bytes],
        types: &TaskTypes,
    ) -> (Vec<Known>, Vec<Admission>) {
        let mut reads = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            reads.push(self.read(first + at, text.clone(), types));
        }
        let items: Vec<Item> = stream::iter(reads).buffered(LOOK_UPS_MAX).collect().await;
        let (mut known, mut admissions) = (Vec::new(), Vec::new());
        for Item { key, next } in items {
            known.push(match next {
                Next::Admit(admission) => {
                    admissions.push(*admission);
                    (key, None)
                }
                Next::Settled(settled) => (key, Some(settled.map(|admitted| *admitted))),
            });
        }
        (known, admissions)
    }

    async fn read(&self, index: usize, text: Bytes, types: &TaskTypes) -> Item {
        let mut key = None;
        let next = self.next(index, &text, types, &mut key).await;
        let next = next.unwrap_or_else(|refused| Next::Settled(Err(refused)));
        Item { key, next }
    }

    async fn next(
        &self,
        index: usize,
        text: &[u8],
        types: &TaskTypes,
        key: &mut Option<IdempotencyKey>,
    ) -> Result<Next, Problem> {
        if text.len() > self.api.limits.json_body_bytes_max {
            let detail = "The item is larger than a submission may be.";
            return Err(Problem::new(Code::PayloadTooLarge, detail));
        }
        let mut draft = Draft::from_json(text)?;
        let head = self.head_of(index, draft.take_key()?)?;
        *key = head.key().cloned();
        let refused = match admission_of(&self.api, &head, draft, types).await {
            Ok(admission) => return Ok(Next::Admit(Box::new(admission))),
            Err(refused) => refused,
        };
        let mut draft = Draft::from_json(text)?;
        draft.take_key()?;
        match replay(&self.api, &head, draft).await? {
            Some(admitted) => Ok(Next::Settled(Ok(Box::new(admitted)))),
            None => Err(refused),
        }
    }

    /// The head that the item would have had alone.
    fn head_of(
        &self,
        index: usize,
        own: Option<IdempotencyKey>,
    ) -> Result<SubmissionHead, Problem> {
        let key = match (own, self.head.key()) {
            (Some(own), _) => Some(own),
            (None, Some(key)) => Some(key.of_item(index).map_err(invalid_key)?),
            (None, None) => None,
        };
        let key = match key {
            Some(key) => {
                let as_sent = HeaderValue::from_str(key.as_str()).map_err(invalid_key)?;
                Some(SentKey { key, as_sent })
            }
            None => None,
        };
        Ok(SubmissionHead {
            key,
            ..self.head.clone()
        })
    }

    /// `settled` is there unless the store has given too few answers.
    fn verdict(
        &self,
        idempotency_key: Option<&IdempotencyKey>,
        settled: Option<Result<Admitted, Problem>>,
    ) -> Result<Vec<u8>, Problem> {
        let settled = settled.unwrap_or_else(|| {
            Err(Problem::new(Code::Internal, "").caused_by("the store has passed over an item"))
        });
        match settled.and_then(|admitted| answer::acknowledged(&self.api, admitted)) {
            Ok((found, matched_by)) => {
                let view = TaskView::of(&self.api, &found.task);
                views::to_bytes(&VerdictView {
                    status: if found.task.state.is_ended() {
                        200
                    } else {
                        202
                    },
                    idempotency_key,
                    idempotency_expires_at: found.key_expires_at,
                    task: Some(view.matched(matched_by, found.key_expires_at, &found.ignored)),
                    problem: None,
                })
            }
            Err(problem) => views::to_bytes(&VerdictView {
                status: problem.code().row().status.as_u16(),
                idempotency_key,
                idempotency_expires_at: None,
                task: None,
                problem: Some(self.document(&problem)),
            }),
        }
    }

    fn document(&self, problem: &Problem) -> Value {
        if let Some(cause) = problem.cause() {
            tracing::warn!(
                code = problem.code().row().slug,
                cause,
                "an item of a batch failed"
            );
        }
        let base_path = &self.api.edge.base_path;
        let instance = format!("{base_path}/v1/tasks/batch");
        problem.document(base_path, Some(&instance), Some(&self.head.request_id))
    }
}

fn invalid_key(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::IdempotencyKeyInvalid, error.to_string())
}

/// Why the store took none of them.
fn refusal_of_all(admitted: &[Result<Admitted, StoreError>]) -> Option<StoreError> {
    let mut errors = admitted.iter().map(|one| one.as_ref().err());
    let first = errors.next()??;
    errors.all(|error| error.is_some()).then(|| first.clone())
}
