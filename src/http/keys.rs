//! `/v1/keys`: who may use the service. Needs the scope `admin`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::api::Api;
use super::api_key::PresentedKey;
use super::body::read_limited;
use super::clock;
use super::code::Code;
use super::openapi::ProblemDocument;
use super::problem::Problem;
use crate::domain::json;
use crate::domain::principal::{Scope, Scopes, UserId};
use crate::domain::schema::Violation;
use crate::domain::timestamp::Timestamp;
use crate::store::ApiKey;

/// The API keys, without their secrets
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", operation_id = "list_keys",
    responses(
        (status = 200, description = "Keys that are not revoked", body = KeyList),
    )
)]
pub async fn list_keys(State(api): State<Api>) -> Result<Json<KeyList>, Problem> {
    let keys = api.store.api_keys().await?;
    let kept = keys.iter().filter(|key| key.revoked_at.is_none());
    let items = kept.map(KeyRecord::from).collect();
    Ok(Json(KeyList { items }))
}

/// Make an API key
///
/// Its secret is in this answer only.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", operation_id = "create_key",
    request_body = KeyRequest,
    responses(
        (status = 201, description = "The key, with its secret", body = NewKey),
        (status = 400, response = ProblemDocument),
        (status = 415, response = ProblemDocument),
        (status = 422, response = ProblemDocument),
    )
)]
pub async fn create_key(State(api): State<Api>, request: Request) -> Result<Response, Problem> {
    expect_json(request.headers())?;
    let body = read_limited(request.into_body(), api.limits.json_body_bytes_max).await?;
    let wanted = Wanted::parse(&body, clock::now())?;
    let (secret, key) = PresentedKey::random()
        .map_err(|error| Problem::new(Code::Internal, "").caused_by(error))?;
    let key = key.into_record(wanted.user, wanted.scopes, clock::now(), wanted.expires_at);
    api.store.create_api_key(key.clone()).await?;
    let new = NewKey {
        key: secret,
        record: KeyRecord::from(&key),
    };
    let location = HeaderValue::from_str(&api.link(format_args!("/v1/keys/{}", key.id)));
    let location = location.map_err(|error| Problem::new(Code::Internal, "").caused_by(error))?;
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(new),
    )
        .into_response())
}

/// Revoke an API key
///
/// It is refused at once by this replica, and within 5 s everywhere.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", operation_id = "revoke_key",
    params(("id" = String, Path, description = "The key's id, which is not its secret")),
    responses(
        (status = 204, description = "Revoked"),
        (status = 404, response = ProblemDocument),
    )
)]
pub async fn revoke_key(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let was_there = api.store.revoke_api_key(&id).await?;
    api.keys().forget(&id);
    if was_there {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::not_found())
    }
}

/// What a key is to be.
#[derive(ToSchema)]
#[schema(as = KeyRequest)]
#[expect(
    dead_code,
    reason = "only the documentation reads it: Wanted::parse is what reads requests"
)]
pub struct KeyRequest {
    /// Whom it stands for: 1 to 128 characters of `[A-Za-z0-9._~:+/=@|-]`.
    #[schema(example = "user123")]
    user: String,
    /// Of submit, read, cancel, lease, metrics, act-as, admin; at least one.
    #[schema(example = json!(["submit", "read"]))]
    scopes: Vec<String>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct KeyList {
    items: Vec<KeyRecord>,
}

#[derive(Serialize, ToSchema)]
pub struct KeyRecord {
    id: String,
    user: String,
    scopes: Vec<&'static str>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub struct NewKey {
    /// The secret: send it as `Authorization: Bearer <key>`. It is not shown again.
    key: String,
    #[serde(flatten)]
    record: KeyRecord,
}

impl From<&ApiKey> for KeyRecord {
    fn from(key: &ApiKey) -> Self {
        KeyRecord {
            id: key.id.clone(),
            user: key.user.to_string(),
            scopes: key.scopes.names(),
            created_at: key.created_at.to_string(),
            expires_at: key.expires_at.map(|at| at.to_string()),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Wanted {
    user: UserId,
    scopes: Scopes,
    expires_at: Option<Timestamp>,
}

impl Wanted {
    const DEPTH_MAX: usize = 4;

    fn parse(body: &[u8], now: Timestamp) -> Result<Self, Problem> {
        let value = json::parse(body, Self::DEPTH_MAX)
            .map_err(|error| Problem::new(Code::InvalidJson, error.to_string()))?;
        let Value::Object(mut members) = value else {
            return Err(Problem::invalid("", "must be an object"));
        };
        let user = user(&mut members);
        let scopes = scopes(&mut members);
        let expires_at = expires_at(&mut members, now);
        let unknown = members.keys().map(|name| Violation {
            pointer: json::pointer("", name),
            detail: "is not known here".to_owned(),
        });
        let mut violations: Vec<_> = unknown.collect();
        match (user, scopes, expires_at) {
            (Ok(user), Ok(scopes), Ok(expires_at)) if violations.is_empty() => Ok(Wanted {
                user,
                scopes,
                expires_at,
            }),
            (user, scopes, expires_at) => {
                violations.extend(user.err());
                violations.extend(scopes.err());
                violations.extend(expires_at.err());
                Err(Problem::violations(violations))
            }
        }
    }
}

fn user(members: &mut Map<String, Value>) -> Result<UserId, Violation> {
    let user = members.remove("user");
    let user = user
        .as_ref()
        .and_then(Value::as_str)
        .and_then(UserId::parse);
    user.ok_or_else(|| {
        violation(
            "/user",
            "must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ : + / = @ | -",
        )
    })
}

fn scopes(members: &mut Map<String, Value>) -> Result<Scopes, Violation> {
    let Some(Value::Array(names)) = members.remove("scopes") else {
        return Err(violation("/scopes", "must be a list of scopes"));
    };
    let mut scopes = Scopes::NONE;
    for (index, name) in names.iter().enumerate() {
        let scope = name.as_str().and_then(Scope::parse).ok_or_else(|| {
            let known = Scope::ALL.map(Scope::name).join(", ");
            violation(
                &format!("/scopes/{index}"),
                &format!("must be one of {known}"),
            )
        })?;
        scopes = scopes.with(scope);
    }
    if scopes == Scopes::NONE {
        return Err(violation("/scopes", "must name at least one scope"));
    }
    Ok(scopes)
}

fn expires_at(
    members: &mut Map<String, Value>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Violation> {
    match members.remove("expires_at") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let at = value.as_str().and_then(Timestamp::parse_rfc3339);
            match at {
                Some(at) if at > now => Ok(Some(at)),
                Some(_) => Err(violation("/expires_at", "must be in the future")),
                None => Err(violation("/expires_at", "must be an RFC 3339 time")),
            }
        }
    }
}

fn violation(pointer: &str, detail: &str) -> Violation {
    Violation {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE);
    let value = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "Send application/json.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_700_000_000_000);

    #[test]
    fn a_key_request_is_read_whole() {
        let body = br#"{"user": "u1", "scopes": ["read", "submit"], "expires_at": "2030-01-01T00:00:00Z"}"#;
        let wanted = Wanted::parse(body, NOW).unwrap();
        assert_eq!(wanted.user.as_str(), "u1");
        assert_eq!(wanted.scopes.names(), ["submit", "read"]);
        assert!(wanted.expires_at.is_some());
    }

    #[test]
    fn whatever_is_wrong_with_it_is_named() {
        for (body, pointer) in [
            (r#"{"scopes": ["read"]}"#, "/user"),
            (r#"{"user": "a b", "scopes": ["read"]}"#, "/user"),
            (r#"{"user": "u", "scopes": []}"#, "/scopes"),
            (r#"{"user": "u", "scopes": ["read", "fly"]}"#, "/scopes/1"),
            (r#"{"user": "u", "scopes": ["read"], "x~": 1}"#, "/x~0"),
            (
                r#"{"user": "u", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}"#,
                "/expires_at",
            ),
            (r#"[]"#, ""),
        ] {
            let problem = Wanted::parse(body.as_bytes(), NOW).unwrap_err();
            assert_eq!(problem.code(), Code::ValidationFailed, "{body}");
            let document = problem.document("", None, None);
            assert_eq!(document["errors"][0]["pointer"], pointer, "{body}");
        }
        let problem = Wanted::parse(b"{", NOW).unwrap_err();
        assert_eq!(problem.code(), Code::InvalidJson);
    }
}
