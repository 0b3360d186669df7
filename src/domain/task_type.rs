//! What is declared about a kind of task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::callback::Callback;
use super::fingerprint::{Algorithm, FingerprintRule, FingerprintScope};
use super::params_check::ParamsCheck;
use super::retry::RetryPolicy;
use super::schema::{ParamsSchema, Violation};
use super::task::Priority;
use super::turns::{Bounds, Rate};

/// The declared contract of one task type.
#[derive(Clone, Debug)]
pub struct TaskType {
    pub name: String,
    pub description: String,
    pub runner: RunnerSpec,
    pub params_schema: Option<ParamsSchema>,
    /// Looked at besides the schema, whichever that is.
    pub params_check: Option<ParamsCheck>,
    /// Part of the fingerprint: a new version makes all work new.
    pub version: u32,
    /// Whether a submission without `Idempotency-Key` is refused.
    pub require_key: bool,
    pub files: FilesRule,
    pub dedup: DedupPolicy,
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How long a worker may be silent before its attempt is given up.
    pub lease: Duration,
    pub priority: Priority,
    /// Attempts at a time in this process; no bound of its own when absent, as always with workers outside.
    pub concurrency: Option<usize>,
    /// Attempts of one user at a time, over all processes and workers outside.
    pub concurrency_per_user: Option<u32>,
    /// JSON pointer into params: of a user's tasks with the same value there, one runs at a time.
    pub concurrency_key: Option<String>,
    /// Starts of attempts, of all users together.
    pub rate: Option<Rate>,
    pub rate_per_user: Option<Rate>,
    /// Within a user's tasks, one that has waited for so long counts as one level more important.
    pub ageing: Duration,
    pub retention: Retention,
}

/// What executes a task type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerSpec {
    /// Rust code in this process.
    Builtin(String),
    /// A parser of foreign files: a child process of the same binary, with limits.
    Sandboxed(String),
    /// A program of the operator's and its arguments.
    Command(Vec<String>),
    /// A service of the operator's.
    Http(Url),
    /// Nothing here: workers outside lease its tasks over HTTP.
    External,
}

/// Whether a task type takes files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FilesRule {
    None,
    Optional,
    Required,
    /// Unless the param of this name is there.
    #[serde(rename = "required_without")]
    RequiredWithout(&'static str),
}

impl FilesRule {
    /// What is missing of a submission without files.
    pub fn missing(self, params: Option<&Value>) -> Option<String> {
        match self {
            FilesRule::None | FilesRule::Optional => None,
            FilesRule::Required => Some("this task type needs a file".to_owned()),
            FilesRule::RequiredWithout(param) => {
                let is_there = params.is_some_and(|params| params.get(param).is_some());
                (!is_there).then(|| format!("this task type needs a file, or the param {param}"))
            }
        }
    }
}

/// How repeated work is told and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DedupPolicy {
    pub mode: DedupMode,
    /// JSON pointers into params whose values tell what a conflict mode matches; the whole content when empty.
    pub by: Vec<String>,
    /// With [`DedupMode::Debounce`], and there always.
    pub debounce: Option<Debounce>,
    /// JSON pointers into params that are no part of the work's identity.
    pub ignore: Vec<String>,
    /// Whether a file's name is part of the work's identity.
    pub file_name: bool,
    /// Types of one group share their fingerprints within a user.
    pub group: Option<String>,
    /// How long a succeeded task answers for its fingerprint.
    pub window: Duration,
    /// The longest window that a submission may ask for.
    pub window_max: Duration,
    /// New tasks for one fingerprint within a window after its first failure.
    pub max_resubmissions: u32,
    pub on_older_version: OnOlderVersion,
}

/// What becomes of content that was submitted under an older version of its type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnOlderVersion {
    /// It is new work.
    #[default]
    Rerun,
    /// A task of an older version that has not ended, or succeeded within its window, answers for it.
    Reuse,
}

/// How long a debounced submission waits for a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debounce {
    /// From the newest submission.
    pub delay: Duration,
    /// From the first one of the chain: it starts no later, however many follow.
    pub max_delay: Duration,
}

impl Debounce {
    /// The longest wait, in delays, where none is given.
    pub const DELAYS_MAX: u32 = 10;

    /// None when the longest wait is shorter than one delay.
    pub fn new(delay: Duration, max_delay: Option<Duration>) -> Option<Self> {
        let max_delay = max_delay.unwrap_or_else(|| delay.saturating_mul(Self::DELAYS_MAX));
        (delay <= max_delay).then_some(Debounce { delay, max_delay })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DedupMode {
    /// A duplicate gets the existing task.
    Return,
    /// A duplicate gets a conflict that names the existing task.
    Reject,
    /// No fingerprint match is made, and the task answers for no other.
    None,
    /// A newer submission takes the place of one that waits.
    Replace,
    /// As [`DedupMode::Replace`], and each waits for a while whether a newer one comes.
    Debounce,
    /// One submission within a window; the others get its task.
    Throttle,
    /// While a task runs one more waits for its end: that of the newest submission.
    KeepLast,
}

impl DedupMode {
    pub const ALL: [DedupMode; 7] = [
        DedupMode::Return,
        DedupMode::Reject,
        DedupMode::None,
        DedupMode::Replace,
        DedupMode::Debounce,
        DedupMode::Throttle,
        DedupMode::KeepLast,
    ];

    pub fn name(self) -> &'static str {
        match self {
            DedupMode::Return => "return",
            DedupMode::Reject => "reject",
            DedupMode::None => "none",
            DedupMode::Replace => "replace",
            DedupMode::Debounce => "debounce",
            DedupMode::Throttle => "throttle",
            DedupMode::KeepLast => "keep_last",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether it looks at more than the content: at what `dedup.by` names.
    pub fn is_of_conflicts(self) -> bool {
        match self {
            DedupMode::Return | DedupMode::Reject | DedupMode::None => false,
            DedupMode::Replace
            | DedupMode::Debounce
            | DedupMode::Throttle
            | DedupMode::KeepLast => true,
        }
    }
}

/// How long things are kept after a task's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    #[serde(with = "seconds")]
    pub key: Duration,
    /// Never less than key or window.
    #[serde(with = "seconds")]
    pub result: Duration,
    #[serde(with = "seconds")]
    pub task: Duration,
    #[serde(with = "seconds")]
    pub failed_task: Duration,
    /// After the file's last reference.
    #[serde(with = "seconds")]
    pub file: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            key: Duration::from_secs(86_400),
            result: Duration::from_secs(86_400),
            task: Duration::from_secs(604_800),
            failed_task: Duration::from_secs(2_592_000),
            file: Duration::from_secs(86_400),
        }
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(span.as_secs())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_secs)
    }
}

impl TaskType {
    /// A type that refuses nothing, to read a submission by that was made under rules that are gone.
    pub fn unrestricted(name: &str) -> Self {
        TaskType {
            name: name.to_owned(),
            description: String::new(),
            runner: RunnerSpec::Builtin(name.to_owned()),
            params_schema: None,
            params_check: None,
            version: 1,
            require_key: false,
            files: FilesRule::Optional,
            dedup: DedupPolicy {
                mode: DedupMode::Return,
                by: Vec::new(),
                debounce: Debounce::new(Duration::ZERO, None),
                ignore: Vec::new(),
                file_name: false,
                group: None,
                window: Duration::ZERO,
                window_max: Duration::MAX,
                max_resubmissions: 0,
                on_older_version: OnOlderVersion::Rerun,
            },
            retry: RetryPolicy {
                max_attempts: 1,
                first_delay: Duration::ZERO,
                factor: RetryPolicy::FACTOR,
                max_delay: RetryPolicy::MAX_DELAY,
                jitter: RetryPolicy::JITTER,
            },
            timeout: Duration::ZERO,
            lease: Duration::ZERO,
            priority: Priority::DEFAULT,
            concurrency: None,
            concurrency_per_user: None,
            concurrency_key: None,
            rate: None,
            rate_per_user: None,
            ageing: Priority::AGEING,
            retention: Retention::default(),
        }
    }

    /// What whoever leases its tasks keeps to.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            per_user: self.concurrency_per_user,
            rate: self.rate,
            rate_per_user: self.rate_per_user,
        }
    }

    /// What is wrong with params, with pointers below `/params`.
    pub fn violations(&self, params: &Value) -> Vec<Violation> {
        let schema = self.params_schema.as_ref();
        let mut violations = schema.map_or(Vec::new(), |s| s.violations(params, "/params"));
        if let Some(check) = &self.params_check {
            violations.extend(check.violations(params));
        }
        violations
    }

    /// Whether only the service itself makes tasks of this type.
    pub fn is_internal(&self) -> bool {
        self.name == Callback::TASK_TYPE
    }

    /// Files of one submission that the runner can read; no bound of its own when absent.
    pub fn files_max(&self) -> Option<usize> {
        match self.runner {
            RunnerSpec::Sandboxed(_) => Some(1),
            RunnerSpec::Builtin(_)
            | RunnerSpec::Command(_)
            | RunnerSpec::Http(_)
            | RunnerSpec::External => None,
        }
    }

    /// Versions before today's that may answer, at most.
    pub const OLDER_VERSIONS_MAX: u32 = 8;

    /// The versions before today's whose tasks answer too, the newest first.
    pub fn older_versions(&self) -> impl Iterator<Item = u32> {
        let answering = match self.dedup.on_older_version {
            OnOlderVersion::Rerun => 0,
            OnOlderVersion::Reuse => Self::OLDER_VERSIONS_MAX,
        };
        let oldest = self.version.saturating_sub(answering);
        (oldest..self.version).rev()
    }

    /// The rule that makes fingerprints of this type today.
    pub fn fingerprint_rule(&self) -> FingerprintRule {
        FingerprintRule {
            algorithm: Algorithm::V1,
            scope: self
                .dedup
                .group
                .clone()
                .map_or(FingerprintScope::Type, FingerprintScope::Group),
            version: self.version,
            ignore: self.dedup.ignore.clone(),
            file_name: self.dedup.file_name,
        }
    }
}

/// All task types that this process knows, by name.
#[derive(Clone, Debug, Default)]
pub struct TaskTypes(BTreeMap<String, Arc<TaskType>>);

impl TaskTypes {
    pub fn get(&self, name: &str) -> Option<&Arc<TaskType>> {
        self.0.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Those that processes of the service run.
    pub fn run_inside(&self) -> impl Iterator<Item = &str> {
        let inside = self
            .iter()
            .filter(|made| made.runner != RunnerSpec::External);
        inside.map(|made| made.name.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<TaskType>> {
        self.0.values()
    }
}

impl FromIterator<TaskType> for TaskTypes {
    fn from_iter<I: IntoIterator<Item = TaskType>>(types: I) -> Self {
        TaskTypes(
            types
                .into_iter()
                .map(|t| (t.name.clone(), Arc::new(t)))
                .collect(),
        )
    }
}
