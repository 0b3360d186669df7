//! `/problems`: what each problem means, and what to do about it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::code::{Row, TABLE};
use super::openapi::ProblemDocument;
use super::problem::Problem;

/// All problems that the service answers with
#[utoipa::path(
    get, path = "/problems", tag = "documentation", operation_id = "list_problems", security(()),
    responses((status = 200, description = "A page, or JSON unless the client prefers HTML", content(
        (Vec<ProblemPage> = "application/json"),
        (String = "text/html"),
    )))
)]
pub async fn list_problems(State(api): State<Api>, headers: HeaderMap) -> Response {
    if !prefers_html(&headers) {
        let pages: Vec<_> = TABLE.iter().map(|row| ProblemPage::of(row, &api)).collect();
        return cached(Json(pages));
    }
    let mut rows = String::new();
    for row in TABLE {
        let (slug, status, title) = (row.slug, row.status.as_u16(), row.title);
        let link = problem_path(&api, slug);
        rows += &format!(
            "<tr><td>{status}</td><td><a href=\"{link}\">{slug}</a></td><td>{title}</td></tr>"
        );
    }
    cached(page("Problems", &format!("<table>{rows}</table>")))
}

/// What one problem means
#[utoipa::path(
    get, path = "/problems/{slug}", tag = "documentation", operation_id = "get_problem", security(()),
    params(("slug" = String, Path, description = "The problem's code, such as `queue-full`")),
    responses(
        (status = 200, description = "A page, or JSON unless the client prefers HTML", content(
            (ProblemPage = "application/json"),
            (String = "text/html"),
        )),
        (status = 404, response = ProblemDocument),
    )
)]
pub async fn get_problem(
    State(api): State<Api>,
    Path(slug): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = TABLE.iter().find(|row| row.slug == slug);
    let row = row.ok_or_else(Problem::not_found)?;
    let content = ProblemPage::of(row, &api);
    if !prefers_html(&headers) {
        return Ok(cached(Json(content)));
    }
    let again = match (row.retryable, row.same_key) {
        (true, true) => "The same request, with the same key, may succeed later.",
        (true, false) => "The same request may succeed later.",
        (false, _) => "The same request will not succeed if it is only repeated.",
    };
    let body = format!(
        "<p><code>{}</code>, status {}</p><p>{}</p><p>{again}</p><p><a href=\"{}\">All problems</a></p>",
        row.slug,
        row.status,
        escaped(row.advice),
        api.link("/problems"),
    );
    Ok(cached(page(row.title, &body)))
}

#[derive(Serialize, ToSchema)]
pub struct ProblemPage {
    r#type: String,
    code: &'static str,
    title: &'static str,
    status: u16,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// Whether the outcome may be unknown, so that a repeat must carry the same key.
    same_key: bool,
    /// What it means and what to do.
    advice: &'static str,
}

impl ProblemPage {
    fn of(row: &Row, api: &Api) -> Self {
        ProblemPage {
            r#type: problem_path(api, row.slug),
            code: row.slug,
            title: row.title,
            status: row.status.as_u16(),
            retryable: row.retryable,
            same_key: row.same_key,
            advice: row.advice,
        }
    }
}

fn problem_path(api: &Api, slug: &str) -> String {
    format!("{}/problems/{slug}", api.edge.base_path)
}

/// Browsers name `text/html` before `*/*`; programs name neither, or JSON first.
fn prefers_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let accept = accept.unwrap_or_default().to_ascii_lowercase();
    match (accept.find("text/html"), accept.find("json")) {
        (Some(html), Some(json)) => html < json,
        (html, _) => html.is_some(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn page(title: &str, body: &str) -> impl IntoResponse {
    let policy =
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} · JustOnce</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;\
         color-scheme:light dark}}td{{padding:.2rem 1rem .2rem 0;vertical-align:top}}</style>\
         <h1>{title}</h1>{body}</html>"
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html))
}

fn cached(answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=3600"),
    );
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_pages_and_programs_json() {
        let prefers = |accept: &'static str| {
            let value = HeaderValue::from_static(accept);
            prefers_html(&HeaderMap::from_iter([(header::ACCEPT, value)]))
        };
        assert!(prefers("text/html,application/xhtml+xml,*/*;q=0.8"));
        assert!(!prefers("*/*"));
        assert!(!prefers("application/json, text/html"));
        assert!(!prefers_html(&HeaderMap::new()));
    }

    #[test]
    fn titles_can_stand_in_html_as_they_are() {
        for row in TABLE {
            assert!(!row.title.contains(['<', '&', '"']), "{}", row.slug);
        }
    }
}
