//! How the unfinished tasks of a user stand, read once for all streams that ask for it at the same time: a thousand
//! followers of one user cost those who submit no more reads than one does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, WeakShared};

use crate::domain::principal::UserId;
use crate::domain::task::{State, TaskId};
use crate::domain::timestamp::Timestamp;
use crate::http::api::Api;
use crate::store::{Cursor, ListFilter, StoreError};

/// Tasks of each state that are looked at, newest first.
const LOOKED_AT_MAX: usize = 1_000;

/// Tasks of one page of those.
const PAGE: usize = 200;

/// What it costs though there is nothing, in looks at single tasks.
const LOOKS: u32 = 2;

/// So many tasks that are read in pages cost as much as a look at a single one.
const TASKS_OF_A_LOOK: usize = 5;

/// A task as it stood.
#[derive(Clone, Debug)]
pub struct Stand {
    pub id: TaskId,
    /// Of its newest event.
    pub number: u64,
    pub created_at: Timestamp,
}

/// By state, the newest first.
type Stands = Result<Arc<[Stand]>, StoreError>;
type Survey = BoxFuture<'static, Stands>;

/// Surveys that have not begun yet, by user. Who asks meanwhile shares them.
#[derive(Default)]
pub struct Surveys(Mutex<HashMap<UserId, WeakShared<Survey>>>);

impl Surveys {
    /// Read after this call, at the pace of all streams.
    pub async fn of(&self, api: &Api, user: &UserId) -> Stands {
        let survey = {
            let mut waiting = self.waiting();
            let known = waiting.get(user).and_then(WeakShared::upgrade);
            known.unwrap_or_else(|| {
                let survey = begin_in_turn(api.clone(), user.clone()).boxed().shared();
                // Those whose streams have all gone will never begin.
                waiting.retain(|_, survey| survey.upgrade().is_some());
                waiting.extend(survey.downgrade().map(|survey| (user.clone(), survey)));
                survey
            })
        };
        survey.await
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<UserId, WeakShared<Survey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn begin_in_turn(api: Api, user: UserId) -> Stands {
    api.pace().turn(LOOKS).await;
    // From here on it may miss what who asks now wants to know of.
    api.surveys().waiting().remove(&user);
    let mut stands = Vec::new();
    for state in State::ALL.into_iter().filter(|state| !state.is_ended()) {
        let (mut cursor, mut looked_at): (Option<Cursor>, _) = (None, 0);
        while looked_at < LOOKED_AT_MAX {
            let filter = ListFilter {
                state: Some(state),
                limit: PAGE,
                cursor,
                ..ListFilter::default()
            };
            let page = api.store.list(&user, filter).await?;
            let pace = api.pace();
            pace.turn_for(page.tasks.len(), TASKS_OF_A_LOOK).await;
            looked_at += PAGE;
            stands.extend(page.tasks.into_iter().map(|task| Stand {
                number: task.changes.count(),
                created_at: task.created_at,
                id: task.id,
            }));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(stands.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::future::join_all;

    use super::*;
    use crate::http::api::AuthMode;
    use crate::http::stand_in::{StandIn, api};

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_before_it_begins_share_a_survey() {
        let store = Arc::new(StandIn::default());
        let (api, user) = (api(&store, AuthMode::Off), UserId::anonymous());
        // Others have the next turns.
        api.pace().turn(10).await;
        // One that has gone begins nothing.
        assert!(api.surveys().of(&api, &user).now_or_never().is_none());
        let all = join_all((0..100).map(|_| api.surveys().of(&api, &user))).await;
        assert!(
            all.iter()
                .all(|stands| matches!(stands, Ok(stands) if stands.is_empty()))
        );
        let lists = || store.lists.load(Ordering::Relaxed);
        let once = lists();
        assert_eq!(
            once,
            State::ALL.iter().filter(|state| !state.is_ended()).count()
        );
        assert!(api.surveys().waiting().is_empty());
        // Who asks later wants to know what has changed since.
        let later = api.surveys().of(&api, &user).await;
        assert!(later.is_ok_and(|stands| stands.is_empty()));
        assert_eq!(lists(), 2 * once);
        store.is_down.store(true, Ordering::Relaxed);
        assert!(api.surveys().of(&api, &user).await.is_err());
    }
}
