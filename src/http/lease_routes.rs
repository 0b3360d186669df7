//! Every route for workers outside, on one screen.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::leases::{complete, fail, file, heartbeat, lease};

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(lease::lease_tasks))
        .routes(routes!(heartbeat::renew_lease))
        .routes(routes!(complete::complete_lease))
        .routes(routes!(fail::fail_lease))
        .routes(routes!(file::get_leased_file))
}
