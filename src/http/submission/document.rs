//! Submissions as the API's documentation shows them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// What is to be done.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Submission)]
pub struct SubmissionDocument {
    /// A task type: `GET /v1/task-types` lists them.
    #[serde(rename = "type")]
    #[schema(example = "echo")]
    task_type: String,
    /// As the type's schema says: `{type}.params` among the schemas here, and in `GET /v1/task-types`. Absent is
    /// the same as `{}`.
    #[schema(value_type = Option<Object>, nullable = false)]
    params: Option<serde_json::Value>,
    /// A file that this user uploaded before.
    #[schema(nullable = false)]
    file: Option<FileReferenceDocument>,
    /// Several of them. Not together with `file`.
    #[schema(nullable = false, max_items = 32)]
    files: Option<Vec<FileReferenceDocument>>,
    /// 0 goes first, 9 last. Default: the type's.
    #[schema(nullable = false, maximum = 9)]
    priority: Option<u8>,
    /// Start no sooner than this, up to a year ahead. Part of the work's identity.
    #[schema(nullable = false, format = DateTime)]
    run_at: Option<String>,
    /// Start no sooner than this many seconds from now. No part of the work's identity. Not together
    /// with `run_at`.
    #[schema(nullable = false, minimum = 0, maximum = 31_622_400)]
    delay_seconds: Option<f64>,
    /// Told when the task has ended: see the callback `taskEnded`. `http` or `https`, on the Internet. No part of
    /// the work's identity: a duplicate's own is told, too, at once where the task has ended already. A task has
    /// 16 at most; `ignored` names one that is too many.
    #[schema(nullable = false, format = "uri", max_length = 2048)]
    callback_url: Option<String>,
    #[schema(nullable = false)]
    dedup: Option<DedupDocument>,
    /// Up to 16 names and values of at most 128 characters, to find tasks by.
    #[schema(nullable = false)]
    tags: Option<BTreeMap<String, String>>,
}

/// One submission of a batch: as one alone, and its key.
pub struct ItemDocument;

impl PartialSchema for ItemDocument {
    fn schema() -> RefOr<Schema> {
        let mut item = SubmissionDocument::schema();
        if let RefOr::T(Schema::Object(item)) = &mut item {
            let key = Object::builder()
                .schema_type(Type::String)
                .description(Some(
                    "As the header `Idempotency-Key` of a submission alone.",
                ))
                .build();
            item.description = Some("One submission of a batch.".to_owned());
            item.properties
                .insert("idempotency_key".to_owned(), key.into());
        }
        item
    }
}

impl ToSchema for ItemDocument {
    fn name() -> Cow<'static, str> {
        "BatchItem".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        SubmissionDocument::schemas(schemas);
    }
}

/// How duplicates of this submission are told and answered. Default: as the type says.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DedupRequest)]
pub struct DedupDocument {
    #[schema(nullable = false)]
    mode: Option<DedupModeDocument>,
    /// With `replace`, `debounce`, `throttle` and `keep_last`: JSON pointers into params whose values tell what is in
    /// conflict; a value that is not there is another one than null. Default: as the type says, or the whole content.
    #[schema(nullable = false, min_items = 1, max_items = 16)]
    by: Option<Vec<String>>,
    /// With `debounce`, and required there unless the type says it: start so long after the newest submission.
    #[schema(nullable = false, minimum = 0, maximum = 31_622_400)]
    delay_seconds: Option<f64>,
    /// With `debounce`: start no later than so long after the first submission of the chain. Default: ten delays, or
    /// as the type says.
    #[schema(nullable = false, minimum = 0, maximum = 31_622_400)]
    max_delay_seconds: Option<f64>,
    /// How long the succeeded task answers for its content, or with `throttle` how long the task answers from its
    /// admission on; at most the type's longest window.
    #[schema(nullable = false)]
    window_seconds: Option<u64>,
}

/// `return`: a duplicate gets the existing task. `reject`: it gets a 409 that names the task. `none`: no
/// match by content is made. The others look at what `by` names: `replace` takes the place of a task that waits,
/// `debounce` does so and waits a while itself, `throttle` gives all submissions within a window the first one's task,
/// `keep_last` lets one wait while another runs. The same content gets the existing task with all of them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = DedupMode)]
pub enum DedupModeDocument {
    Return,
    Reject,
    None,
    Replace,
    Debounce,
    Throttle,
    KeepLast,
}

#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FileReference)]
pub struct FileReferenceDocument {
    #[schema(pattern = "^[0-9A-Fa-f]{64}$")]
    sha256: String,
    /// In bytes; refused when it is not the size of this file.
    #[schema(nullable = false)]
    size: Option<u64>,
}
