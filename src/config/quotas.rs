//! What users may take: two settings for each of them, and `[users.NAME]` for one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::ConfigError;
use super::file::File;
use super::layer::{Given, Layer, Layers};
use crate::domain::principal::UserId;
use crate::domain::quota::{Quota, Quotas};
use crate::http::api::AuthMode;

/// The settings that `[limits]` may hold, too.
pub const SETTINGS: [&str; 2] = ["requests_per_minute_max", "unfinished_tasks_max"];

/// While authentication is on. Without it users are only names, and nothing limits them.
const USUAL: Quota = Quota {
    requests_per_minute: Some(200),
    unfinished_tasks: Some(1000),
};

/// `[users.NAME]` of the configuration file. Absent: as for everyone else; 0: no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserTable {
    requests_per_minute_max: Option<u32>,
    unfinished_tasks_max: Option<u64>,
}

/// What `[limits]` says stands in for the setting of the same name, unless that is there, too.
pub fn join(
    settings: &mut Layer,
    key: &'static str,
    max: Option<u64>,
    origin: String,
) -> Result<(), ConfigError> {
    let Some(max) = max else { return Ok(()) };
    if settings.contains_key(key) {
        return Err(ConfigError::new(format!("{key} stands here twice")).at(&origin));
    }
    let text = max.to_string();
    settings.insert(key, Given { text, origin });
    Ok(())
}

pub fn quotas(layers: &Layers, file: &File, auth: AuthMode) -> Result<Quotas, ConfigError> {
    let usual = match auth {
        AuthMode::Off => Quota::default(),
        AuthMode::Keys => USUAL,
    };
    let [requests, tasks] = SETTINGS;
    let usual = Quota {
        requests_per_minute: match layers.get(requests) {
            Some(given) => given.read("a number of requests, 0 for no limit", bound)?,
            None => usual.requests_per_minute,
        },
        unfinished_tasks: match layers.get(tasks) {
            Some(given) => given.read("a number of tasks, 0 for no limit", bound)?,
            None => usual.unfinished_tasks,
        },
    };
    let mut of_users = BTreeMap::new();
    for (name, table) in &file.users {
        let Some(user) = UserId::parse(name) else {
            let why = "a user has 1 to 128 characters of A-Z a-z 0-9 . _ ~ : + / = @ | -";
            return Err(file.locate(&format!("users.{name}"), ConfigError::new(why)));
        };
        of_users.insert(user, table.quota(usual));
    }
    Ok(Quotas { usual, of_users })
}

impl UserTable {
    fn quota(self, usual: Quota) -> Quota {
        Quota {
            requests_per_minute: match self.requests_per_minute_max {
                Some(max) => some(max),
                None => usual.requests_per_minute,
            },
            unfinished_tasks: match self.unfinished_tasks_max {
                Some(max) => some(max),
                None => usual.unfinished_tasks,
            },
        }
    }
}

/// None when it is no number; within that, none when it is 0.
fn bound<T: std::str::FromStr + PartialEq + Default>(text: &str) -> Option<Option<T>> {
    text.parse().ok().map(some)
}

fn some<T: PartialEq + Default>(max: T) -> Option<T> {
    (max != T::default()).then_some(max)
}
