//! `/docs`: the API to read and to try, from this binary alone; `/openapi.json`.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::{OpenApi, Server};
use utoipa_swagger_ui::Config;

use super::api::Api;
use super::code::Code;
use super::openapi_types::with_task_types;
use super::problem::Problem;
use crate::domain::task_type::TaskTypes;

/// Swagger UI sets styles in attributes and shows images from `data:` URLs; all else is from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The document, but for the task types.
#[derive(Clone)]
struct Document(Arc<Rendering>);

struct Rendering {
    document: OpenApi,
    /// As it was sent last, and for which types: made anew when they are.
    sent: Mutex<Option<(Arc<TaskTypes>, Bytes)>>,
}

impl Rendering {
    fn of(&self, types: Arc<TaskTypes>) -> Bytes {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        match &*sent {
            Some((made_for, json)) if Arc::ptr_eq(made_for, &types) => return json.clone(),
            Some(_) | None => {}
        }
        let json = Bytes::from(with_task_types(&self.document, &types).to_string());
        *sent = Some((types, json.clone()));
        json
    }
}

/// Its routes are not part of the API, so they are not in the document.
pub fn router(mut document: OpenApi, base_path: &str) -> Router<Api> {
    let root = if base_path.is_empty() { "/" } else { base_path };
    document.servers = Some(vec![Server::new(root)]);
    let rendering = Rendering {
        document,
        sent: Mutex::default(),
    };
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/docs", get(index))
        .route("/docs/", get(index_of_folder))
        .route("/docs/{*file}", get(file))
        .layer(Extension(Document(Arc::new(rendering))))
        .layer(CompressionLayer::new())
}

async fn openapi(
    State(api): State<Api>,
    Extension(Document(rendering)): Extension<Document>,
) -> Response {
    let json = rendering.of(api.types.now());
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "public, max-age=60"),
    ];
    (headers, json).into_response()
}

/// At `/docs`, without the slash, names relative to the page need the folder in front.
async fn index(State(api): State<Api>) -> Result<Response, Problem> {
    let page = swagger_file(&api, "index.html")?;
    let page = String::from_utf8_lossy(&page.bytes).replace("\"./", "\"docs/");
    Ok(page_response(
        page.replace("href=\"index.css\"", "href=\"docs/index.css\"")
            .into(),
    ))
}

async fn index_of_folder(State(api): State<Api>) -> Result<Response, Problem> {
    let page = swagger_file(&api, "index.html")?;
    Ok(page_response(page.bytes))
}

async fn file(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let file = swagger_file(&api, &name)?;
    if name.ends_with(".html") {
        return Ok(page_response(file.bytes));
    }
    let is_current = request
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tags| tags == *ETAG);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_str(&file.media_type),
        ),
        (
            header::CACHE_CONTROL,
            Ok(HeaderValue::from_static("public, max-age=86400")),
        ),
        (header::ETAG, Ok(ETAG.clone())),
    ];
    let mut response = if is_current {
        axum::http::StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.bytes.into_response()
    };
    for (name, value) in headers {
        let value = value.map_err(|error| Problem::new(Code::Internal, "").caused_by(error))?;
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// The files change with the binary only. Weak, since they are compressed on their way.
static ETAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    HeaderValue::from_static(concat!("W/\"justonce-", env!("CARGO_PKG_VERSION"), "\""))
});

fn page_response(page: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, page).into_response()
}

struct SwaggerFile {
    bytes: Bytes,
    media_type: String,
}

fn swagger_file(api: &Api, name: &str) -> Result<SwaggerFile, Problem> {
    let config = Config::from(format!("{}/openapi.json", api.edge.base_path))
        .validator_url("none")
        .display_request_duration(true)
        .try_it_out_enabled(true);
    match utoipa_swagger_ui::serve(name, Arc::new(config)) {
        Ok(Some(file)) => Ok(SwaggerFile {
            bytes: Bytes::from(file.bytes.into_owned()),
            media_type: file.content_type,
        }),
        Ok(None) => Err(Problem::not_found()),
        Err(error) => Err(Problem::new(Code::Internal, "").caused_by(error)),
    }
}
