//! Who calls, and whether they may.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tower::layer::layer_fn;
use tower::{Layer, Service};

use super::api::{Api, AuthMode};
use super::api_key::PresentedKey;
use super::caller::{Arrival, Caller};
use super::clock;
use super::code::Code;
use super::problem::Problem;
use super::rate_limit;
use super::scopes::{self, Access, Lookup};
use crate::domain::principal::{Principal, Scope, Scopes, UserId};
use crate::store::{ApiKey, StoreError};

/// How long a request waits for the store to look its key up.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

/// The layer that asks who calls.
pub fn layer<S>(api: &Api) -> impl Layer<S, Service = Authenticated<S>> + Clone + use<S> {
    let api = api.clone();
    layer_fn(move |inner| Authenticated {
        api: api.clone(),
        inner,
    })
}

/// What lies behind the authentication.
#[derive(Clone)]
pub struct Authenticated<S> {
    api: Api,
    inner: S,
}

impl<S> Service<Request> for Authenticated<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Authenticated { api, inner } = self.clone();
        let answer = authenticate(api, request, inner);
        Box::pin(answer.map(|answer| Ok(answer.into_response())))
    }
}

/// Lets a request through to its handler, with its [`Caller`], if the table of scopes allows it, and the caller's
/// quota.
async fn authenticate<S>(api: Api, mut request: Request, mut inner: S) -> Result<Response, Problem>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let Some(path) = request.extensions().get::<MatchedPath>() else {
        // No route: the fallback answers 404, to everyone.
        let Ok(response) = inner.call(request).await;
        return Ok(response);
    };
    let access = scopes::lookup(request.method(), api.route(path.as_str()));
    let counts = matches!(access, Lookup::Found(access) if access.counts());
    let caller = match access {
        Lookup::Found(Access::Open) => None,
        Lookup::Found(Access::OpenInPart) => caller(&api, request.headers()).await.ok(),
        Lookup::Found(Access::AnyKey) => Some(caller(&api, request.headers()).await?),
        Lookup::Found(Access::Needs(scope)) => {
            let caller = caller(&api, request.headers()).await?;
            if !caller.0.scopes.allow(scope) {
                return Err(forbidden(scope));
            }
            Some(caller)
        }
        Lookup::MethodMissing(allow) => return Err(method_not_allowed(&allow)),
        Lookup::PathMissing => {
            let cause = format!("{} is not in the table of scopes", path.as_str());
            return Err(Problem::new(Code::Internal, "").caused_by(cause));
        }
    };
    let Some(caller) = caller else {
        let Ok(response) = inner.call(request).await;
        return Ok(response);
    };
    if let Some(arrival) = request.extensions().get::<Arrival>() {
        let _ = arrival.user.set(caller.0.user.clone());
    }
    let standing = match counts {
        true => rate_limit::spend(&api, &caller.0.user).await?,
        false => None,
    };
    request.extensions_mut().insert(caller);
    if let Some(standing) = standing {
        request.extensions_mut().insert(standing);
    }
    let Ok(mut response) = inner.call(request).await;
    if let Some(standing) = standing {
        standing.show(&mut response);
    }
    Ok(response)
}

/// Whether whoever sent these headers may still do what they were let through for, as the store knows it now. One
/// that does not answer changes nothing.
pub async fn still_allows(api: &Api, headers: &HeaderMap, before: &Caller, scope: Scope) -> bool {
    if let Some(id) = &before.0.key_id {
        api.keys().forget(id);
    }
    match caller(api, headers).await {
        Ok(Caller(now)) => now.user == before.0.user && now.scopes.allow(scope),
        Err(problem) => !matches!(problem.code(), Code::Unauthenticated | Code::Forbidden),
    }
}

async fn caller(api: &Api, headers: &HeaderMap) -> Result<Caller, Problem> {
    let principal = match api.edge.auth {
        AuthMode::Off => Principal {
            user: named_user(headers)?.unwrap_or_else(UserId::anonymous),
            scopes: Scopes::ALL,
            key_id: None,
        },
        AuthMode::Keys => {
            let key = key_of(api, headers).await?;
            let user = match named_user(headers)? {
                Some(user) if user != key.user && !key.scopes.allow(Scope::ActAs) => {
                    return Err(forbidden(Scope::ActAs));
                }
                Some(user) => user,
                None => key.user,
            };
            Principal {
                user,
                scopes: key.scopes,
                key_id: Some(key.id),
            }
        }
    };
    Ok(Caller(principal))
}

/// The user in `X-User-Id`.
fn named_user(headers: &HeaderMap) -> Result<Option<UserId>, Problem> {
    let mut values = headers.get_all("x-user-id").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let user = value.to_str().ok().and_then(UserId::parse);
    match user.filter(|_| values.next().is_none()) {
        Some(user) => Ok(Some(user)),
        None => Err(Problem::new(
            Code::InvalidRequest,
            "X-User-Id must be sent once, with 1 to 128 characters of A-Z a-z 0-9 . _ ~ : + / = @ | -",
        )),
    }
}

/// The valid key that a request was sent with.
async fn key_of(api: &Api, headers: &HeaderMap) -> Result<ApiKey, Problem> {
    let presented = presented_key(headers).ok_or_else(|| {
        unauthenticated("Bearer", "Send one API key: Authorization: Bearer <key>.")
    })?;
    let record = match api.keys().get(presented.id()) {
        Some(key) => Some(key),
        None => stored_key(api, presented.id()).await?,
    };
    let is_right = presented.matches(record.as_ref());
    let now = clock::now();
    let is_valid = |key: &ApiKey| {
        key.revoked_at.is_none() && key.expires_at.is_none_or(|expires_at| now < expires_at)
    };
    let key = record.filter(|key| is_right && is_valid(key));
    key.ok_or_else(|| {
        unauthenticated(
            r#"Bearer error="invalid_token""#,
            "The API key is unknown, expired or revoked.",
        )
    })
}

async fn stored_key(api: &Api, id: &str) -> Result<Option<ApiKey>, Problem> {
    let late = |_| StoreError::Unavailable("no answer to the look-up of an API key".into());
    let key = timeout(STORE_WAIT_MAX, api.store.api_key(id))
        .await
        .map_err(late)??;
    if let Some(key) = &key {
        api.keys().keep(key.clone());
    }
    Ok(key)
}

/// From `Authorization: Bearer <key>`.
fn presented_key(headers: &HeaderMap) -> Option<PresentedKey> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    PresentedKey::parse(key.trim())
}

fn unauthenticated(challenge: &'static str, detail: &str) -> Problem {
    Problem::new(Code::Unauthenticated, detail).with_header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(challenge),
    )
}

fn forbidden(scope: Scope) -> Problem {
    let detail = format!("This needs the scope {}.", scope.name());
    Problem::new(Code::Forbidden, detail)
}

fn method_not_allowed(allow: &str) -> Problem {
    let problem = Problem::new(Code::MethodNotAllowed, format!("Allowed here: {allow}."));
    match HeaderValue::from_str(allow) {
        Ok(allow) => problem.with_header(header::ALLOW, allow),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_named_user_is_one_plain_word() {
        let user = named_user(&headers("x-user-id", &["user1"])).unwrap();
        assert_eq!(user, UserId::parse("user1"));
        assert_eq!(named_user(&HeaderMap::new()).unwrap(), None);
        for bad in [&["a b"][..], &[""], &["a", "a"]] {
            let problem = named_user(&headers("x-user-id", bad)).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest);
        }
    }

    #[test]
    fn keys_come_in_one_bearer_header() {
        let good = "Bearer jo_0123456789abcdef_secret";
        let lower = "bearer jo_0123456789abcdef_secret";
        for value in [good, lower] {
            let key = presented_key(&headers("authorization", &[value])).unwrap();
            assert_eq!(key.id(), "0123456789abcdef");
        }
        for bad in [
            &["Basic abcdefghijk"][..],
            &["Bearer"],
            &["Bearer "],
            &[good, good],
        ] {
            assert!(presented_key(&headers("authorization", bad)).is_none());
        }
    }
}
