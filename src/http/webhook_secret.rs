//! `/v1/webhook-secret`: what the caller's callbacks and notifications are signed with.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::answer::{self, DURABILITY};
use super::api::Api;
use super::caller::Caller;
use super::code::Code;
use super::openapi::ProblemDocument;
use super::problem::Problem;
use super::submission::members::Members;
use super::tasks::optional_members;
use super::{query, views};
use crate::domain::timestamp::Timestamp;
use crate::domain::webhook::{OwnSecret, WebhookSecret};

/// Both secrets are valid for so long after a change, unless the request says otherwise.
const OVERLAP: Duration = Duration::from_secs(86_400);
const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What the secret is to be.
#[derive(ToSchema)]
#[schema(as = WebhookSecretRequest)]
#[expect(dead_code, reason = "only the documentation reads it")]
pub struct SecretRequest {
    /// `whsec_` and 24 to 64 bytes in Base64. Absent: one is made, and shown in the answer.
    #[schema(nullable = false, pattern = "^whsec_[A-Za-z0-9+/]+={0,2}$")]
    secret: Option<String>,
    /// For so long the secret before is valid, too: messages carry a signature of each.
    #[schema(nullable = false, default = 86_400, maximum = 2_592_000)]
    overlap_seconds: Option<u64>,
}

/// The caller's secret, which is never shown again.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookSecret)]
pub struct SecretView {
    /// Only in the answer to a request that left it to the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<String>,
    /// Null when the caller has set none: then the one of the installation signs.
    #[schema(value_type = Option<String>, format = DateTime)]
    set_at: Option<Timestamp>,
    /// Until when the secret before is valid, too.
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_valid_until: Option<Timestamp>,
}

/// When the webhook secret was set
#[utoipa::path(
    get,
    path = "/v1/webhook-secret",
    tag = "tasks",
    responses((status = 200, description = "When it was set, without the secret", body = SecretView))
)]
pub async fn get_webhook_secret(
    State(api): State<Api>,
    Caller(principal): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let own = api.store.webhook_secret(&principal.user).await?;
    shown(SecretView::of(own.as_ref()))
}

/// Set the webhook secret
///
/// It signs the callbacks and notifications of the caller from now on, as Standard Webhooks 1.0.0 says. Until the
/// overlap is over, the secret before signs them, too. Setting the same one again changes nothing: give it yourself
/// where an answer may be lost.
#[utoipa::path(
    put,
    path = "/v1/webhook-secret",
    tag = "tasks",
    request_body = Option<SecretRequest>,
    responses(
        (status = 200, description = "When it was set, and the secret if it was made now", body = SecretView, headers(
            ("Durability" = String, description = "What the acknowledgement survives: `memory` or `fsync`"),
        )),
        (status = 400, description = "`invalid-json`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 415, description = "`unsupported-media-type`", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "`validation-failed`", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub async fn put_webhook_secret(
    State(api): State<Api>,
    Caller(principal): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    query::expect_none(query.as_deref())?;
    let members = optional_members(&api, &headers, body).await?;
    let wanted = Wanted::read(members)?;
    let (secret, made) = match wanted.secret {
        Some(secret) => (secret, None),
        None => {
            let secret = random()?;
            let made = secret.reveal();
            (secret, Some(made))
        }
    };
    let set = api
        .store
        .set_webhook_secret(&principal.user, &secret, wanted.overlap);
    let own = set.await?;
    tracing::info!(
        user = principal.user.as_str(),
        "the secret of webhooks was set"
    );
    let mut response = shown(SecretView {
        secret: made,
        ..SecretView::of(Some(&own))
    })?;
    let durability = HeaderValue::from_static(api.store.durability().name());
    response.headers_mut().insert(DURABILITY, durability);
    Ok(response)
}

struct Wanted {
    /// None: one is to be made.
    secret: Option<WebhookSecret>,
    overlap: Duration,
}

impl Wanted {
    fn read(members: Map<String, Value>) -> Result<Self, Problem> {
        let mut members = Members::new("", members);
        let expected = "must be whsec_ and 24 to 64 bytes in Base64";
        let secret = members.read("secret", expected, |value| {
            WebhookSecret::parse(value.as_str()?)
        });
        let expected = "must be an integer from 0 to 2592000";
        let overlap = members.read("overlap_seconds", expected, |value| {
            let overlap = Duration::from_secs(value.as_u64()?);
            (overlap <= OVERLAP_MAX).then_some(overlap)
        });
        match members.violations(&[]) {
            none if none.is_empty() => Ok(Wanted {
                secret,
                overlap: overlap.unwrap_or(OVERLAP),
            }),
            violations => Err(Problem::violations(violations)),
        }
    }
}

impl SecretView {
    fn of(own: Option<&OwnSecret>) -> Self {
        SecretView {
            secret: None,
            set_at: own.map(|own| own.set_at),
            previous_valid_until: own.map(|own| own.previous_until),
        }
    }
}

fn shown(view: SecretView) -> Result<Response, Problem> {
    let mut response = answer::json(views::to_bytes(&view)?);
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

fn random() -> Result<WebhookSecret, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::new(Code::Internal, "").caused_by(error))?;
    Ok(WebhookSecret::new(bytes))
}
