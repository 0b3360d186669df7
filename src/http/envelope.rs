//! The outermost layer: what every request and every answer has, whoever handles it.
//!
//! It gives the request its id, catches panics, writes problems out, adds the headers that all answers
//! carry, and logs one line a request. Neither queries nor credentials are ever logged.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tower::layer::layer_fn;
use tower::{Layer, Service};
use tracing::Instrument;

use super::api::Api;
use super::caller::Arrival;
use super::code::Code;
use super::connection::PeerAddress;
use super::forwarded::Client;
use super::problem::Problem;
use super::scopes;
use super::trace::TraceContext;
use crate::domain::principal::UserId;

/// The layer around all others.
pub fn layer<S>(api: &Api) -> impl Layer<S, Service = Enveloped<S>> + Clone + use<S> {
    let api = api.clone();
    layer_fn(move |inner| Enveloped {
        api: api.clone(),
        inner,
    })
}

/// What lies in the envelope.
#[derive(Clone)]
pub struct Enveloped<S> {
    api: Api,
    inner: S,
}

impl<S> Service<Request> for Enveloped<S>
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
        let Enveloped { api, inner } = self.clone();
        Box::pin(envelop(api, request, inner).map(Ok))
    }
}

async fn envelop<S>(api: Api, mut request: Request, mut inner: S) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let arrival = Arrival::now(request.headers());
    let trace = TraceContext::of(request.headers());
    let peer = request.extensions().get::<PeerAddress>().copied();
    let client = peer.map(|PeerAddress(peer)| {
        Client::of(peer.ip(), request.headers(), &api.edge.trusted_proxies)
    });
    let matched = request.extensions().get::<MatchedPath>();
    let line = Line {
        method: request.method().clone(),
        route: matched.and_then(|path| scopes::route(api.route(path.as_str()))),
        client: client.map(|client| client.address),
        trace_id: trace.map(|trace| trace.trace_id),
    };
    let instance = request.uri().clone();
    let span = tracing::info_span!(
        "request",
        request_id = &*arrival.id.0,
        trace_id = line.trace_id.as_deref()
    );
    request.extensions_mut().insert(arrival.clone());

    let handled = async { inner.call(request).await }.instrument(span.clone());
    let handled = AssertUnwindSafe(handled).catch_unwind().await;
    let response = handled
        .map(|Ok(response)| response)
        .unwrap_or_else(|panic| {
            let cause = format!("a handler panicked: {}", panic_text(panic.as_ref()));
            Problem::new(Code::Internal, "")
                .caused_by(cause)
                .into_response()
        });

    finish(&api, response, &line, &arrival, instance.path())
        .instrument(span)
        .await
}

async fn finish(
    api: &Api,
    mut response: Response,
    line: &Line,
    arrival: &Arrival,
    instance: &str,
) -> Response {
    let id = &arrival.id;
    let mut cause = None;
    if let Some(problem) = take_problem(&mut response).await {
        cause = problem.cause().map(str::to_owned);
        let base_path = &api.edge.base_path;
        let rendered = problem.into_document_response(base_path, instance, &id.0);
        response = keep_headers(rendered, response.headers());
    }
    let headers = response.headers_mut();
    headers.extend(id.header());
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // Whoever keeps this connection would send its next request to a replica that goes away; balancers
    // that do not read HTTP cannot see that.
    if api.draining.is_cancelled() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if line.method == Method::POST {
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    let took = arrival.at.elapsed();
    api.requests()
        .count(&line.method, line.route, response.status(), took);
    line.log(response.status(), arrival, took, cause.as_deref());
    response
}

/// The problem that a handler or layer left in its response; or one in place of a refusal in another
/// form, such as those of extractors.
async fn take_problem(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return Some(problem);
    }
    let status = response.status();
    let is_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    let media_type = response.headers().get(header::CONTENT_TYPE);
    if !media_type.is_none_or(is_text) {
        return None;
    }
    let code = match status {
        StatusCode::BAD_REQUEST => Code::InvalidRequest,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        StatusCode::UNPROCESSABLE_ENTITY => Code::ValidationFailed,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        StatusCode::SERVICE_UNAVAILABLE => Code::Overloaded,
        // A handler that answers with any other status means it.
        _ => return None,
    };
    const DETAIL_BYTES_MAX: usize = 1024;
    let body = std::mem::take(response.body_mut());
    let text = to_bytes(body, DETAIL_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    Some(if status.is_server_error() {
        Problem::new(code, "").caused_by(text)
    } else {
        Problem::new(code, text)
    })
}

/// What inner layers had said besides the problem, such as CORS headers.
fn keep_headers(mut rendered: Response, said: &HeaderMap) -> Response {
    let own = rendered.headers().clone();
    for (name, value) in said {
        let is_of_body = [header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
        if !is_of_body && !own.contains_key(name) {
            rendered.headers_mut().append(name, value.clone());
        }
    }
    rendered
}

/// What the log says of one request.
struct Line {
    method: Method,
    route: Option<&'static str>,
    client: Option<IpAddr>,
    trace_id: Option<String>,
}

impl Line {
    fn log(&self, status: StatusCode, arrival: &Arrival, took: Duration, cause: Option<&str>) {
        let ms = took.as_micros() as f64 / 1000.0;
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "justonce::access",
                    method = self.method.as_str(),
                    route = self.route,
                    status = status.as_u16(),
                    ms,
                    user = arrival.user.get().map(UserId::as_str),
                    request_id = &*arrival.id.0,
                    trace_id = self.trace_id.as_deref(),
                    client = self.client.map(tracing::field::display),
                    cause,
                    "request"
                )
            };
        }
        if status.is_server_error() {
            line!(error);
        } else {
            line!(info);
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a text")
}
