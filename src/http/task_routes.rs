//! Every route for tasks, task types and files, on one screen.

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api::Api;
use super::events::{of_task, of_user};
use super::files::{download, upload};
use super::task_types;
use super::tasks::{
    batch, cancel, check, duplicates, forget, get, list, redrive, redrive_many, result, submit,
};

pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(submit::submit_task, list::list_tasks))
        .routes(routes!(check::check_submission))
        .routes(routes!(batch::submit_batch))
        .routes(routes!(redrive_many::redrive_tasks))
        .routes(routes!(get::get_task, forget::forget_task))
        .routes(routes!(result::get_result))
        .routes(routes!(of_task::follow_task))
        .routes(routes!(of_user::follow_tasks))
        .routes(routes!(duplicates::list_duplicates))
        .routes(routes!(cancel::cancel_task))
        .routes(routes!(redrive::redrive_task))
        .routes(routes!(task_types::list_task_types))
        .routes(routes!(upload::post_file, upload::put_file))
        .routes(routes!(download::get_file))
}
