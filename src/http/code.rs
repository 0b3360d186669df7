//! Every problem that the service can answer with, in one table.

use axum::http::StatusCode;

/// What went wrong, as a word that programs can tell problems apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidJson,
    InvalidRequest,
    IdempotencyKeyMissing,
    IdempotencyKeyInvalid,
    DigestMismatch,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    DuplicateSubmission,
    TaskFailed,
    TaskEnded,
    TaskUnfinished,
    LeaseLost,
    ResultExpired,
    TaskForgotten,
    PayloadTooLarge,
    UnsupportedMediaType,
    FileUnknown,
    CallbackUrlRejected,
    IdempotencyKeyReused,
    ValidationFailed,
    UnknownTaskType,
    QuotaExceeded,
    Internal,
    StoreUnavailable,
    StateLost,
    QueueFull,
    Overloaded,
    Draining,
    StorageFull,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub code: Code,
    pub slug: &'static str,
    pub status: StatusCode,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Whether the outcome may be unknown, so that the repeat must carry the same key.
    pub same_key: bool,
    pub title: &'static str,
    /// What to do about it: the page behind the problem's `type`.
    pub advice: &'static str,
}

impl Code {
    pub fn row(self) -> &'static Row {
        // The table is in the order of the enum: a test holds it there.
        &TABLE[self as usize]
    }
}

const fn row(
    code: Code,
    slug: &'static str,
    status: StatusCode,
    [retryable, same_key]: [bool; 2],
    title: &'static str,
    advice: &'static str,
) -> Row {
    Row {
        code,
        slug,
        status,
        retryable,
        same_key,
        title,
        advice,
    }
}

const NO: [bool; 2] = [false, false];
const LATER: [bool; 2] = [true, false];
const REPEAT: [bool; 2] = [true, true];

#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(Code::InvalidJson,           "invalid-json",            StatusCode::BAD_REQUEST,            NO,     "Body is not acceptable JSON",              "The body must be one UTF-8 JSON text without members that occur twice, lone surrogates, integers beyond 2^53 or more than 64 levels of params. Correct it and send it again."),
    row(Code::InvalidRequest,        "invalid-request",         StatusCode::BAD_REQUEST,            NO,     "Request is malformed",                     "A header, query parameter or body has a form that cannot be read. The detail names it."),
    row(Code::IdempotencyKeyMissing, "idempotency-key-missing", StatusCode::BAD_REQUEST,            NO,     "Idempotency-Key is required",              "This task type accepts submissions with an Idempotency-Key header only. Send one key for each intent, for example a UUID, and the same key with every retry."),
    row(Code::IdempotencyKeyInvalid, "idempotency-key-invalid", StatusCode::BAD_REQUEST,            NO,     "Idempotency-Key is malformed",             "Send one Idempotency-Key header: an RFC 9651 String in double quotes, or 1 to 255 characters of A-Z a-z 0-9 . _ ~ : + / = @ - without quotes."),
    row(Code::DigestMismatch,        "digest-mismatch",         StatusCode::BAD_REQUEST,            NO,     "Content does not match its digest",        "The bytes that arrived are not those that the digest header names. Nothing was stored; send the file again."),
    row(Code::Unauthenticated,       "unauthenticated",         StatusCode::UNAUTHORIZED,           NO,     "Credentials are missing or not valid",     "Send a valid API key: Authorization: Bearer <key>."),
    row(Code::Forbidden,             "forbidden",               StatusCode::FORBIDDEN,              NO,     "Not allowed with these credentials",       "The API key lacks the scope that this operation needs."),
    row(Code::NotFound,              "not-found",               StatusCode::NOT_FOUND,              NO,     "Not found",                                "There is no such resource, or it belongs to another user."),
    row(Code::MethodNotAllowed,      "method-not-allowed",      StatusCode::METHOD_NOT_ALLOWED,     NO,     "Method is not allowed here",               "The Allow header lists the methods of this resource."),
    row(Code::RequestTimeout,        "request-timeout",         StatusCode::REQUEST_TIMEOUT,        REPEAT, "Request was not received in time",         "Headers or body arrived too slowly, and the connection was closed. Send the same request again."),
    row(Code::DuplicateSubmission,   "duplicate-submission",    StatusCode::CONFLICT,               NO,     "A task with this content exists already",  "The submission asked to be refused if it is a duplicate, or a redrive is blocked by a newer task. The member task_id names the existing task."),
    row(Code::TaskFailed,            "task-failed",             StatusCode::CONFLICT,               NO,     "Task did not succeed",                     "The task ended without a result; its error says why. Redrive it, or submit it again with a new key."),
    row(Code::TaskEnded,             "task-ended",              StatusCode::CONFLICT,               NO,     "Task has ended",                           "An ended task cannot be changed this way."),
    row(Code::TaskUnfinished,        "task-unfinished",         StatusCode::CONFLICT,               NO,     "Task has not ended yet",                   "Wait for the end of the task, or cancel it first."),
    row(Code::LeaseLost,             "lease-lost",              StatusCode::CONFLICT,               NO,     "Lease is no longer held",                  "The lease has ended or the fencing token is stale; nothing was changed. Stop working on this attempt."),
    row(Code::ResultExpired,         "result-expired",          StatusCode::GONE,                   NO,     "Result is no longer kept",                 "The retention of this result is over. Submit the work again if it is still needed."),
    row(Code::TaskForgotten,         "task-forgotten",          StatusCode::GONE,                   NO,     "Task was forgotten",                       "The task was deleted or its retention is over. A key that named it cannot be used again until its own retention ends."),
    row(Code::PayloadTooLarge,       "payload-too-large",       StatusCode::PAYLOAD_TOO_LARGE,      NO,     "Body is too large",                        "Send less: the limits are in the documentation and can be raised by the operator."),
    row(Code::UnsupportedMediaType,  "unsupported-media-type",  StatusCode::UNSUPPORTED_MEDIA_TYPE, NO,     "Media type is not supported here",         "Send application/json to /v1/tasks, or to /v1/tasks/batch application/x-ndjson, too; files go to /v1/files."),
    row(Code::FileUnknown,           "file-unknown",            StatusCode::UNPROCESSABLE_ENTITY,   NO,     "File was never uploaded by this user",     "Upload the file to /v1/files first, or send it with the submission."),
    row(Code::CallbackUrlRejected,   "callback-url-rejected",   StatusCode::UNPROCESSABLE_ENTITY,   NO,     "Callback URL is not allowed",              "A callback goes to an http or https URL on the Internet, without a user name or a password in it. The operator can allow other addresses with [egress] allow."),
    row(Code::IdempotencyKeyReused,  "idempotency-key-reused",  StatusCode::UNPROCESSABLE_ENTITY,   NO,     "Key already used for other content",       "This key names an earlier submission with other content; the member differs lists the fields. Use a new key for a new intent."),
    row(Code::ValidationFailed,      "validation-failed",       StatusCode::UNPROCESSABLE_ENTITY,   NO,     "Submission is not valid",                  "The member errors lists each value that is wrong, as a JSON pointer and a text."),
    row(Code::UnknownTaskType,       "unknown-task-type",       StatusCode::UNPROCESSABLE_ENTITY,   NO,     "Task type is not known",                   "The member known lists the task types of this service; GET /v1/task-types describes them."),
    row(Code::QuotaExceeded,         "quota-exceeded",          StatusCode::TOO_MANY_REQUESTS,      LATER,  "Quota is used up",                         "The member violated-policies names what is used up: requests, those of this minute, or unfinished-tasks, until some of them end. Nothing was recorded; wait as long as Retry-After says."),
    row(Code::Internal,              "internal",                StatusCode::INTERNAL_SERVER_ERROR,  REPEAT, "Something failed inside the service",      "Send the same request again, with the same key. If it goes on, tell the operator the request id."),
    row(Code::StoreUnavailable,      "store-unavailable",       StatusCode::SERVICE_UNAVAILABLE,    REPEAT, "Store is unavailable",                     "The outcome may be unknown. Send the same request again, with the same key, and learn the truth."),
    row(Code::StateLost,             "state-lost",              StatusCode::SERVICE_UNAVAILABLE,    REPEAT, "Store has lost what it acknowledged",      "The store came back emptied or older. Nothing is accepted until an operator has looked at it and accepted the loss with `justonce doctor --accept-state-loss`; then send the same request again, with the same key."),
    row(Code::QueueFull,             "queue-full",              StatusCode::SERVICE_UNAVAILABLE,    LATER,  "Queue is full",                            "Nothing was recorded. Send the request again as Retry-After says."),
    row(Code::Overloaded,            "overloaded",              StatusCode::SERVICE_UNAVAILABLE,    LATER,  "Too many requests at a time",              "Nothing was recorded. Send the request again as Retry-After says."),
    row(Code::Draining,              "draining",                StatusCode::SERVICE_UNAVAILABLE,    LATER,  "This replica is shutting down",            "Send the request again: another replica, or this one after its restart, will answer."),
    row(Code::StorageFull,           "storage-full",            StatusCode::INSUFFICIENT_STORAGE,   LATER,  "Storage is full",                          "Nothing was recorded. Tell the operator, and send the request again later."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum_and_says_when_to_retry() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code as usize, index, "{}", row.slug);
            let status = row.status.as_u16();
            assert_eq!(
                row.retryable,
                matches!(status, 408 | 429 | 500..),
                "{}",
                row.slug
            );
        }
    }
}
