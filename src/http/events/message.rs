//! Messages to a user: notifications over the channel `stream`.
//!
//! Why no record of their own? The success of the task that brings a message is recorded once and never changes. So the
//! message is told once, too, like any other event: over restarts, by every replica, and to whoever comes back.

use std::borrow::Cow;

use serde::Deserialize;

use crate::domain::event::{Event, EventKind};
use crate::domain::task::{State, Task};
use crate::domain::task_type::{RunnerSpec, TaskType};
use crate::http::api::Api;

/// What the event is called that a message comes with.
const NAME: &str = "notification";

/// The runner of the tasks that bring messages.
const RUNNER: &str = "send_notification";
const CHANNEL: &str = "stream";

#[derive(Deserialize)]
struct Addressed<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
}

/// What the event is called: in place of the success of a task, the message is told that it has brought.
pub fn name(api: &Api, event: &Event<'_>) -> &'static str {
    match event.kind {
        EventKind::State if is_brought_by(api, &event.task) => NAME,
        kind => kind.name(),
    }
}

/// Whether the task has brought its user a message.
pub fn is_brought_by(api: &Api, task: &Task) -> bool {
    task.state == State::Succeeded && is_of_runner(api, task) && {
        let addressed: Result<Addressed<'_>, _> = serde_json::from_str(task.params.get());
        addressed.is_ok_and(|addressed| addressed.channel == CHANNEL)
    }
}

/// The types of tasks that may bring messages.
pub fn types(api: &Api) -> Vec<String> {
    let types = api.types.now();
    let bring = types.iter().filter(|made| brings(made));
    bring.map(|made| made.name.clone()).collect()
}

fn is_of_runner(api: &Api, task: &Task) -> bool {
    api.types
        .get(&task.task_type)
        .is_some_and(|made| brings(&made))
}

fn brings(task_type: &TaskType) -> bool {
    matches!(&task_type.runner, RunnerSpec::Builtin(runner) if runner == RUNNER)
}
