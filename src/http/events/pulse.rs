//! What a stream does while nothing is told of its tasks.

use std::future::Future;
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::domain::principal::Scope;
use crate::http::api::Api;
use crate::http::authentication;
use crate::http::caller::Caller;

/// Revoked keys end their streams within this time. News of one task may be lost: this often it is looked at anyway.
const BEAT: Duration = Duration::from_secs(5);

/// A comment is written at every so many beats.
const BEATS_OF_COMMENT: u32 = 3;

/// Many tasks are looked at without news at every so many beats.
const BEATS_OF_LOOK: u32 = 12;

/// The rhythm of one stream, and whether its client may go on.
pub struct Pulse {
    api: Api,
    caller: Caller,
    headers: HeaderMap,
    beats: Interval,
    count: u32,
}

/// Why a stream was woken.
pub enum Woken<T> {
    News(T),
    /// It is time to look, and perhaps to write a comment.
    Beat {
        comment: bool,
        /// Whether to look at many tasks, too.
        look: bool,
    },
    /// The replica goes away, or the client may not read any more.
    Over,
}

impl Pulse {
    pub fn new(api: &Api, caller: &Caller, headers: HeaderMap) -> Self {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beats.reset();
        Pulse {
            api: api.clone(),
            caller: caller.clone(),
            headers,
            beats,
            count: 0,
        }
    }

    pub async fn wait<T>(&mut self, news: impl Future<Output = T>) -> Woken<T> {
        tokio::select! {
            biased;
            () = self.api.draining.cancelled() => return Woken::Over,
            _ = self.beats.tick() => {}
            news = news => return Woken::News(news),
        }
        self.count += 1;
        let Pulse {
            api,
            caller,
            headers,
            ..
        } = self;
        if !authentication::still_allows(api, headers, caller, Scope::Read).await {
            return Woken::Over;
        }
        Woken::Beat {
            comment: self.count.is_multiple_of(BEATS_OF_COMMENT),
            look: self.count.is_multiple_of(BEATS_OF_LOOK),
        }
    }
}
