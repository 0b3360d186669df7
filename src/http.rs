//! The only place that knows HTTP: every route on one screen, and the layers around them.

pub mod admission;
pub mod answer;
pub mod api;
pub mod api_key;
pub mod authentication;
pub mod body;
pub mod caller;
pub mod clock;
pub mod code;
pub mod connection;
pub mod cors;
pub mod disposition;
pub mod docs;
pub mod envelope;
pub mod etag;
pub mod events;
pub mod files;
pub mod forwarded;
pub mod head;
pub mod health;
pub mod host;
pub mod key_cache;
pub mod keys;
pub mod lease_routes;
pub mod leases;
pub mod limits;
pub mod listener;
pub mod media_type;
pub mod metrics;
pub mod openapi;
pub mod openapi_callbacks;
pub mod openapi_types;
pub mod outliving;
pub mod pauses;
pub mod prefer;
pub mod problem;
pub mod problems;
pub mod query;
pub mod rate_limit;
pub mod refusal;
pub mod request_metrics;
pub mod retry_after;
pub mod schedules;
pub mod scopes;
#[cfg(test)]
pub mod stand_in;
pub mod stats;
pub mod submission;
pub mod task_routes;
pub mod task_types;
pub mod tasks;
pub mod trace;
pub mod unquoted;
pub mod views;
pub mod wait;
pub mod webhook_secret;
pub mod wire;
pub mod workers;

use axum::Router;
use serde_json::Value;
use tower::util::option_layer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::task_type::TaskTypes;
use api::Api;
use problem::Problem;

/// The API: what is routed is what is documented. Each route needs its row in [`scopes::TABLE`], too.
#[rustfmt::skip]
fn routes() -> OpenApiRouter<Api> {
    let mut routes = OpenApiRouter::with_openapi(openapi::Document::openapi())
        .merge(task_routes::routes())
        .merge(lease_routes::routes())
        .routes(routes!(schedules::list_schedules))
        .routes(routes!(schedules::get_schedule, schedules::put_schedule, schedules::delete_schedule))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(webhook_secret::get_webhook_secret, webhook_secret::put_webhook_secret))
        .routes(routes!(limits::get_limits))
        .routes(routes!(workers::list_workers))
        .routes(routes!(pauses::pause_task_type))
        .routes(routes!(pauses::resume_task_type))
        .routes(routes!(stats::stats))
        .routes(routes!(metrics::metrics))
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz))
        .routes(routes!(health::healthz))
        .routes(routes!(health::health))
        .routes(routes!(problems::list_problems))
        .routes(routes!(problems::get_problem));
    openapi::add_answers_of_layers(routes.get_openapi_mut());
    routes
}

/// The service's OpenAPI document.
pub fn openapi() -> OpenApi {
    routes().into_openapi()
}

/// The same as JSON, with the params of these task types.
pub fn document(types: &TaskTypes) -> Value {
    openapi_types::with_task_types(&openapi(), types)
}

/// Everything that is served, with all layers. Below the base path, if there is one; the probes also
/// without it, since whatever asks them need not know it.
pub fn router(api: Api) -> Router {
    let (routes, document) = routes().split_for_parts();
    let document = docs::router(document, &api.edge.base_path);
    let routes = routes.merge(document);
    let routes = match api.edge.base_path.as_str() {
        "" => routes,
        prefix => Router::new().nest(prefix, routes).merge(probes()),
    };
    // From the outermost inwards, as one layer: each one that a router is given by itself costs a box of
    // its own in every request.
    let layers = (
        envelope::layer(&api),
        option_layer(cors::layer(&api.edge.cors_origins)),
        authentication::layer(&api),
    );
    routes
        .fallback(async || Problem::not_found())
        .layer(layers)
        .with_state(api)
}

fn probes() -> Router<Api> {
    let probes = OpenApiRouter::default()
        .routes(routes!(health::livez))
        .routes(routes!(health::readyz));
    probes.split_for_parts().0
}

#[cfg(test)]
mod tests;
