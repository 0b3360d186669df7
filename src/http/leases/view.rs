//! Leases as workers see them.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::lease_id::LeaseId;
use crate::domain::task::{FencingToken, State, Task, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::http::api::Api;
use crate::store::{Extension, Lease};
use crate::task_view::{TaskState, TaskView};

#[derive(Serialize, ToSchema)]
#[schema(as = LeaseList)]
pub struct LeasesView<'a> {
    /// Empty when there was nothing to do.
    leases: Vec<LeaseView<'a>>,
}

/// The right to run one attempt.
#[derive(Serialize, ToSchema)]
#[schema(as = Lease)]
pub struct LeaseView<'a> {
    /// Opaque; stands in the paths of what follows.
    lease_id: String,
    /// To be sent with everything that concerns this attempt.
    #[schema(value_type = u64)]
    fencing_token: FencingToken,
    /// Without a heartbeat until then, someone else runs the task.
    #[schema(value_type = String, format = DateTime)]
    lease_expires_at: Timestamp,
    task: LeasedTask<'a>,
}

/// The task, with what it is to be done with.
#[derive(Serialize, ToSchema)]
#[schema(as = LeasedTask)]
struct LeasedTask<'a> {
    #[serde(flatten)]
    task: TaskView<'a>,
    #[schema(value_type = Object)]
    params: &'a RawValue,
    /// The key that the task was first submitted with, to be passed on.
    idempotency_key: Option<&'a str>,
}

impl<'a> LeasesView<'a> {
    pub fn of(api: &'a Api, leases: &'a [Lease]) -> Self {
        let view = |lease: &'a Lease| LeaseView {
            lease_id: id(lease).to_string(),
            fencing_token: lease.token,
            lease_expires_at: lease.expires_at,
            task: LeasedTask {
                task: TaskView::of(api, &lease.task),
                params: &lease.task.params,
                idempotency_key: lease.idempotency_key.as_deref(),
            },
        };
        LeasesView {
            leases: leases.iter().map(view).collect(),
        }
    }
}

pub fn id(lease: &Lease) -> LeaseId {
    LeaseId {
        task: lease.task.id.clone(),
        user: lease.task.user.clone(),
        token: lease.token,
    }
}

/// A renewed lease.
#[derive(Serialize, ToSchema)]
#[schema(as = Heartbeat)]
pub struct HeartbeatView {
    #[schema(value_type = String, format = DateTime)]
    lease_expires_at: Timestamp,
    /// The task was cancelled: stop, and confirm it with `fail`. A result would be refused.
    cancel_requested: bool,
}

impl HeartbeatView {
    pub fn of(extension: &Extension) -> Self {
        HeartbeatView {
            lease_expires_at: extension.expires_at,
            cancel_requested: extension.cancel_requested,
        }
    }
}

/// What has become of the task.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptEnd)]
pub struct EndView<'a> {
    #[schema(value_type = String)]
    id: &'a TaskId,
    #[schema(value_type = TaskState)]
    state: State,
    attempt: u32,
    max_attempts: u32,
    /// While `retrying`.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
}

impl<'a> EndView<'a> {
    pub fn of(task: &'a Task) -> Self {
        EndView {
            id: &task.id,
            state: task.state,
            attempt: task.attempt,
            max_attempts: task.max_attempts,
            next_attempt_at: task.next_attempt_at,
        }
    }
}
