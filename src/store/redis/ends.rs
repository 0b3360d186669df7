//! An end that is shown is as durable as what is acknowledged. A primary shows what it has not passed on yet: if it
//! dies then, the task runs again on the one that takes over, and may end otherwise.
//!
//! Where acknowledgements wait for copies, so does whoever is shown an end: for all that the server had written by then,
//! and then looks again. A server that has taken over meanwhile has the same end, or it is not shown.

use super::record::Record;
use super::scripts::GET;
use super::step::{Step, Steps, unavailable};
use crate::domain::principal::UserId;
use crate::domain::task::Task;
use crate::store::StoreError;

/// Returns when the ends of these tasks, which were read just now, can be shown.
pub async fn stand<'a>(
    steps: &Steps,
    root: &str,
    user: &UserId,
    tasks: impl IntoIterator<Item = &'a Task>,
) -> Result<(), StoreError> {
    if steps.confirmations().demand()?.is_none() {
        return Ok(());
    }
    let ended = tasks.into_iter().filter(|task| task.state.is_ended());
    let ended: Vec<_> = ended.collect();
    if ended.is_empty() {
        return Ok(());
    }
    let confirmed_by = steps.confirm_all(root).await?;
    let mut step = Step::new(&GET, &[root]).arg(user.as_str());
    for task in &ended {
        step.also(task.id.as_str());
    }
    let (mut reply, server) = steps.take_from(step).await?;
    if !server.may_be(&confirmed_by) {
        steps.link().connect_anew();
        return Err(unavailable(
            "an end was read from another server than the one that confirms it",
        ));
    }
    for task in ended {
        let mut found = reply.part()?;
        let stands = found.word()? == "found" && {
            let again = Record::read(found.part()?)?.task;
            (again.state, again.attempt, again.finished_at)
                == (task.state, task.attempt, task.finished_at)
        };
        if !stands {
            return Err(unavailable("an end was gone before it was confirmed"));
        }
    }
    Ok(())
}
