//! What the OpenAPI document says besides its operations.

use axum::http::Method;
use utoipa::openapi::content::Content;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, Ref, RefOr};
use utoipa::{Modify, ToResponse, ToSchema};

use super::openapi_callbacks::{EndDocument, NotificationDocument};
use super::scopes::{self, Access, Lookup};

/// To be extended by the router with every operation.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "JustOnce",
        description = "Submit a task or a file as often as you like; it runs just once.\n\n\
            The status says where the work stands (202 accepted, 200 finished); the headers say whether \
            a submission was a duplicate. After a time-out, a 5xx or a lost connection, send the same \
            request with the same `Idempotency-Key` again.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "tasks", description = "Submit tasks and follow them"),
        (name = "files", description = "Submit files, and get them back"),
        (name = "leases", description = "Run tasks outside of the service"),
        (name = "schedules", description = "Submit again and again, by the clock"),
        (name = "keys", description = "Who may use the service"),
        (name = "operation", description = "What the service does, in numbers"),
        (name = "health", description = "Whether it lives, and whether it can serve"),
        (name = "documentation", description = "What problems mean"),
    ),
    components(schemas(ProblemDocument, EndDocument, NotificationDocument), responses(ProblemDocument, QuotaResponse)),
    security(("bearer" = [])),
    modifiers(&Shared),
)]
pub struct Document;

/// An RFC 9457 problem document: the form of every refusal. Some problems have further members.
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct ProblemDocument {
    /// A page about the problem, below `/problems`, or IANA's URI for registered types.
    #[schema(example = "/problems/idempotency-key-reused")]
    r#type: String,
    #[schema(example = "Key already used for other content")]
    title: String,
    #[schema(example = 422)]
    status: u16,
    /// A word that programs can tell problems apart by.
    #[schema(example = "idempotency-key-reused")]
    code: String,
    detail: String,
    /// The path that was asked for.
    #[schema(example = "/v1/tasks")]
    instance: Option<String>,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// Whether the outcome may be unknown, so that a repeat must carry the same key.
    same_key: bool,
    request_id: Option<String>,
    /// Each value that is wrong, where there are such.
    errors: Option<Vec<ProblemError>>,
    /// The fields in which a reused key's submission differs from the first one.
    differs: Option<Vec<String>>,
    /// The quotas that are used up: `requests` or `unfinished-tasks`.
    #[serde(rename = "violated-policies")]
    violated_policies: Option<Vec<String>>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct ProblemError {
    /// JSON pointer to the value.
    #[schema(example = "/params/url")]
    pointer: String,
    detail: String,
}

impl<'r> ToResponse<'r> for ProblemDocument {
    fn response() -> (&'r str, RefOr<Response>) {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let response = ResponseBuilder::new()
            .description("Refused: a problem document says why, and whether to try again")
            .content("application/problem+json", content)
            .build();
        ("Problem", response.into())
    }
}

/// The refusal of a user whose quota is used up.
pub struct QuotaResponse;

impl<'r> ToResponse<'r> for QuotaResponse {
    fn response() -> (&'r str, RefOr<Response>) {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let mut response = ResponseBuilder::new()
            .description(
                "`quota-exceeded`: the user has no more requests in this minute, or as many unfinished tasks as they may \
                 have. Nothing was recorded; `violated-policies` names the quota",
            )
            .content("application/problem+json", content);
        for (name, description) in [
            ("Retry-After", "Seconds"),
            (
                "RateLimit",
                "What is left: `\"requests\";r=0;t=23`, until `t` seconds from now",
            ),
            (
                "RateLimit-Policy",
                "Of how much: `\"requests\";q=200;w=60`, in `w` seconds",
            ),
        ] {
            let mut header = Header::new(Object::with_type(Type::String));
            header.description = Some(description.to_owned());
            response = response.header(name, header);
        }
        ("QuotaExceeded", response.build().into())
    }
}

/// What derives cannot say.
struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let bearer = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "An API key, `jo_…`. Not needed while authentication is off.",
            ))
            .build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// Adds to every operation what the layers around it may answer: 401, 403 and 429 as the table of scopes
/// says, and any other problem.
pub fn add_answers_of_layers(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let statuses: &[&str] = match scopes::lookup(&method, path) {
                Lookup::Found(Access::Needs(_)) => &["401", "403", "default"],
                Lookup::Found(Access::AnyKey) => &["401", "default"],
                Lookup::Found(Access::Open | Access::OpenInPart) => &["default"],
                Lookup::MethodMissing(_) | Lookup::PathMissing => &["default"],
            };
            let responses = &mut operation.responses.responses;
            if matches!(scopes::lookup(&method, path), Lookup::Found(access) if access.counts()) {
                let quota = Ref::from_response_name("QuotaExceeded");
                responses
                    .entry("429".to_owned())
                    .or_insert(RefOr::Ref(quota));
            }
            for status in statuses {
                let problem = Ref::from_response_name("Problem");
                responses
                    .entry((*status).to_owned())
                    .or_insert(RefOr::Ref(problem));
            }
        }
    }
}

/// The operations of a path, with their methods.
pub fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::HEAD, &mut item.head),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
        (Method::OPTIONS, &mut item.options),
    ];
    let given = all.into_iter().filter_map(|(m, o)| Some((m, o.as_mut()?)));
    given.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_operation_is_in_the_table_of_scopes() {
        let mut document = crate::http::openapi();
        for (path, item) in &mut document.paths.paths {
            for (method, _) in operations(item) {
                let lookup = scopes::lookup(&method, path);
                assert!(
                    matches!(lookup, Lookup::Found(_)),
                    "{method} {path}: {lookup:?}"
                );
            }
        }
    }

    #[test]
    fn references_lead_somewhere() {
        let document = serde_json::to_value(crate::http::openapi()).unwrap();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
