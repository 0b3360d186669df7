//! `[task_types.NAME]` of the configuration file.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::builtin;
use super::defaults::Defaults;
use super::error::{ConfigError, with_suggestion};
use super::retention_table::RetentionTable;
use super::seconds::Seconds;
use crate::domain::callback::Callback;
use crate::domain::json;
use crate::domain::matching::Matching;
use crate::domain::schema::ParamsSchema;
use crate::domain::submission::Submission;
use crate::domain::task::Priority;
use crate::domain::task_type::{
    Debounce, DedupMode, DedupPolicy, FilesRule, OnOlderVersion, RunnerSpec, TaskType,
};
use crate::domain::turns::Rate;
use crate::egress::rules::Refusal;

/// What a table may say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypeTable {
    runner: Option<RunnerTable>,
    description: Option<String>,
    params_schema: Option<SchemaSource>,
    version: Option<u32>,
    require_key: Option<bool>,
    files: Option<FilesWord>,
    dedup: Option<DedupTable>,
    retry: Option<RetryTable>,
    timeout_seconds: Option<Seconds>,
    lease_seconds: Option<Seconds>,
    priority: Option<u64>,
    concurrency: Option<usize>,
    retention: Option<RetentionTable>,
    concurrency_key: Option<String>,
    concurrency_per_user: Option<u32>,
    rate: Option<RateTable>,
    rate_per_user: Option<RateTable>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateTable {
    attempts: u32,
    seconds: Seconds,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunnerTable {
    command: Option<Vec<String>>,
    builtin: Option<String>,
    http: Option<String>,
    external: Option<bool>,
}

/// A path, relative to the configuration file, or the schema itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum SchemaSource {
    Path(String),
    Schema(Value),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FilesWord {
    None,
    Optional,
    Required,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DedupTable {
    mode: Option<String>,
    ignore: Option<Vec<String>>,
    include_file_name: Option<bool>,
    group: Option<String>,
    window_seconds: Option<Seconds>,
    window_max_seconds: Option<Seconds>,
    max_resubmissions: Option<u32>,
    on_older_version: Option<String>,
    by: Option<Vec<String>>,
    delay_seconds: Option<Seconds>,
    max_delay_seconds: Option<Seconds>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryTable {
    max_attempts: Option<u32>,
    first_delay_seconds: Option<Seconds>,
    factor: Option<f64>,
    max_delay_seconds: Option<Seconds>,
    jitter: Option<f64>,
}

/// Leases are looked after once a second.
const LEASE_MIN: Seconds = Seconds(std::time::Duration::from_secs(1));
const ATTEMPTS_MAX: u32 = 1000;
const FACTOR_MAX: f64 = 100.0;
const NAME_LENGTH_MAX: usize = 64;

impl TypeTable {
    /// The type of that name as the table says, over what holds without it.
    pub fn task_type(
        &self,
        name: &str,
        defaults: &Defaults,
        folder: &Path,
    ) -> Result<TaskType, ConfigError> {
        let place = format!("task type `{name}`");
        self.build(name, defaults, folder)
            .map_err(|error| error.at(&place))
    }

    fn build(
        &self,
        name: &str,
        defaults: &Defaults,
        folder: &Path,
    ) -> Result<TaskType, ConfigError> {
        check_word("the name", name)?;
        let base = self.base(name, defaults);
        let mut made = base.map_err(|error| error.of("runner"))?;
        if let Some(source) = &self.params_schema {
            let schema = source.compile(folder);
            made.params_schema = Some(schema.map_err(|error| error.of("params_schema"))?);
        }
        if let Some(priority) = self.priority {
            made.priority = Priority::new(priority)
                .ok_or_else(|| ConfigError::new("priority is 0 (first) to 9 (last)"))
                .map_err(|error| error.of("priority"))?;
        }
        if self.concurrency == Some(0) {
            return Err(ConfigError::new("concurrency must be above 0").of("concurrency"));
        }
        made.description = self.description.clone().unwrap_or(made.description);
        made.version = self.version.unwrap_or(made.version);
        made.require_key = self.require_key.unwrap_or(made.require_key);
        made.files = self.files.map_or(made.files, FilesWord::rule);
        made.concurrency = self.concurrency.or(made.concurrency);
        self.set_times(&mut made)?;
        self.set_turns(&mut made)?;
        if let Some(dedup) = &self.dedup {
            dedup.set(&mut made)?;
        }
        if let Some(retry) = &self.retry {
            retry.set(&mut made)?;
        }
        let retention = self.retention.unwrap_or_default().or(defaults.retention);
        made.retention = retention
            .retention(made.dedup.window)
            .map_err(|error| error.of("retention.result_seconds"))?;
        Ok(made)
    }

    /// What tasks wait for beside a free worker.
    fn set_turns(&self, made: &mut TaskType) -> Result<(), ConfigError> {
        if let Some(pointer) = &self.concurrency_key {
            check_pointer("concurrency_key", pointer)
                .map_err(|error| error.of("concurrency_key"))?;
            if made.name == Callback::TASK_TYPE {
                let error = ConfigError::new("deliveries have no concurrency_key");
                return Err(error.of("concurrency_key"));
            }
            made.concurrency_key = Some(pointer.clone());
        }
        if self.concurrency_per_user == Some(0) {
            let error = ConfigError::new("concurrency_per_user must be above 0");
            return Err(error.of("concurrency_per_user"));
        }
        made.concurrency_per_user = self.concurrency_per_user.or(made.concurrency_per_user);
        if let Some(table) = self.rate {
            made.rate = Some(table.rate().map_err(|error| error.of("rate"))?);
        }
        if let Some(table) = self.rate_per_user {
            let rate = table.rate().map_err(|error| error.of("rate_per_user"))?;
            made.rate_per_user = Some(rate);
        }
        Ok(())
    }

    /// The built-in type that the table changes or borrows the runner of, or a new one.
    fn base(&self, name: &str, defaults: &Defaults) -> Result<TaskType, ConfigError> {
        let Some(runner) = &self.runner else {
            return builtin::task_type(name, defaults)?.ok_or_else(|| {
                ConfigError::new("it needs a runner, such as { command = [\"…\"] }")
            });
        };
        if name == Callback::TASK_TYPE || runner.builtin.as_deref() == Some(Callback::TASK_TYPE) {
            return Err(ConfigError::new(
                "deliver_webhook is the service's own: it keeps its runner, and no other type has it",
            ));
        }
        match (
            &runner.command,
            &runner.builtin,
            &runner.http,
            &runner.external,
        ) {
            (None, None, Some(url), None) => {
                let url = defaults.egress.url(url).map_err(|refusal| match refusal {
                    Refusal::NotPublic => ConfigError::new(
                        "runner.http leads to an address that is not on the Internet: allow it with [egress] allow = [\"…\"]",
                    ),
                    refusal => ConfigError::new(format!("runner.http {refusal}")),
                })?;
                defaults.task_type(name, RunnerSpec::Http(url))
            }
            (None, None, None, Some(true)) => {
                if self.concurrency.is_some() {
                    return Err(ConfigError::new(
                        "concurrency bounds attempts in this process, and runner.external runs none here",
                    )
                    .of("concurrency"));
                }
                defaults.task_type(name, RunnerSpec::External)
            }
            (None, None, None, Some(false)) => {
                Err(ConfigError::new("runner.external is true, or not there"))
            }
            (Some(command), None, None, None) => {
                if command.first().is_none_or(String::is_empty) {
                    return Err(ConfigError::new("runner.command names no program"));
                }
                if command.iter().any(|word| word.contains('\0')) {
                    return Err(ConfigError::new("runner.command holds a NUL character"));
                }
                defaults.task_type(name, RunnerSpec::Command(command.clone()))
            }
            (None, Some(builtin), None, None) => {
                let base = builtin::task_type(builtin, defaults)?.ok_or_else(|| {
                    with_suggestion(
                        format!("there is no built-in runner `{builtin}`"),
                        builtin,
                        builtin::NAMES,
                    )
                })?;
                let name = name.to_owned();
                Ok(TaskType { name, ..base })
            }
            _ => Err(ConfigError::new(
                "runner needs exactly one of command, http, builtin and external",
            )),
        }
    }

    fn set_times(&self, made: &mut TaskType) -> Result<(), ConfigError> {
        if let Some(Seconds(timeout)) = self.timeout_seconds {
            if timeout.is_zero() {
                let error = ConfigError::new("timeout_seconds must be above 0");
                return Err(error.of("timeout_seconds"));
            }
            made.timeout = timeout;
        }
        match self.lease_seconds {
            Some(lease) if lease < LEASE_MIN => {
                let error = ConfigError::new("lease_seconds must be at least 1");
                return Err(error.of("lease_seconds"));
            }
            Some(Seconds(lease)) if lease > made.timeout => {
                return Err(ConfigError::new(format!(
                    "lease_seconds ({}) is above timeout_seconds ({})",
                    lease.as_secs_f64(),
                    made.timeout.as_secs_f64()
                ))
                .of("lease_seconds"));
            }
            Some(Seconds(lease)) => made.lease = lease,
            None => {}
        }
        Ok(())
    }
}

impl RateTable {
    fn rate(self) -> Result<Rate, ConfigError> {
        let RateTable {
            attempts,
            seconds: Seconds(span),
        } = self;
        if !(1..=Rate::ATTEMPTS_MAX).contains(&attempts) {
            return Err(ConfigError::new("attempts of a rate are 1 to 10000"));
        }
        if !(Rate::SPAN_MIN..=Rate::SPAN_MAX).contains(&span) {
            return Err(ConfigError::new("seconds of a rate are 0.01 to 86400"));
        }
        Ok(Rate { attempts, span })
    }
}

impl FilesWord {
    fn rule(self) -> FilesRule {
        match self {
            FilesWord::None => FilesRule::None,
            FilesWord::Optional => FilesRule::Optional,
            FilesWord::Required => FilesRule::Required,
        }
    }
}

impl SchemaSource {
    fn compile(&self, folder: &Path) -> Result<ParamsSchema, ConfigError> {
        let document = match self {
            SchemaSource::Schema(document) => document.clone(),
            SchemaSource::Path(path) => {
                let path = folder.join(path);
                let refuse = |why: String| ConfigError::new(why).at(&path.display().to_string());
                let text = std::fs::read(&path).map_err(|error| refuse(error.to_string()))?;
                serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?
            }
        };
        ParamsSchema::compile(document)
            .map_err(|error| ConfigError::new(format!("params_schema: {error}")))
    }
}

impl DedupTable {
    fn set(&self, made: &mut TaskType) -> Result<(), ConfigError> {
        let dedup = &mut made.dedup;
        if let Some(word) = &self.on_older_version {
            let word = on_older_version(word);
            dedup.on_older_version = word.map_err(|error| error.of("dedup.on_older_version"))?;
        }
        if let Some(word) = &self.mode {
            dedup.mode = mode(word).map_err(|error| error.of("dedup.mode"))?;
        }
        if let Some(pointers) = &self.ignore {
            let check = |pointer: &String| check_pointer("dedup.ignore", pointer);
            pointers.iter().try_for_each(check)?;
            dedup.ignore = pointers.clone();
        }
        if let Some(group) = &self.group {
            check_word("dedup.group", group).map_err(|error| error.of("dedup.group"))?;
            dedup.group = Some(group.clone());
        }
        dedup.file_name = self.include_file_name.unwrap_or(dedup.file_name);
        dedup.window = self.window_seconds.map_or(dedup.window, |span| span.0);
        dedup.window_max = match self.window_max_seconds {
            Some(Seconds(longest)) if longest < dedup.window => {
                return Err(ConfigError::new(
                    "dedup.window_seconds is above dedup.window_max_seconds",
                )
                .of("dedup.window_max_seconds"));
            }
            Some(Seconds(longest)) => longest,
            None => dedup.window.max(Defaults::WINDOW_MAX),
        };
        dedup.max_resubmissions = self.max_resubmissions.unwrap_or(dedup.max_resubmissions);
        self.set_conflicts(dedup)
    }

    /// What the conflict modes match on, and how long debounced tasks wait.
    fn set_conflicts(&self, dedup: &mut DedupPolicy) -> Result<(), ConfigError> {
        let refuse = |member: &'static str, text: String| Err(ConfigError::new(text).of(member));
        let mode = dedup.mode.name();
        if let Some(pointers) = &self.by {
            if !dedup.mode.is_of_conflicts() {
                return refuse(
                    "dedup.by",
                    format!("dedup.by says nothing with mode {mode:?}"),
                );
            }
            if !(1..=Matching::POINTERS_MAX).contains(&pointers.len()) {
                return refuse("dedup.by", "dedup.by has 1 to 16 JSON pointers".to_owned());
            }
            let check = |pointer: &String| check_pointer("dedup.by", pointer);
            pointers.iter().try_for_each(check)?;
            dedup.by = pointers.clone();
        }
        let delay = self.delay_seconds.map(|span| span.0);
        let max_delay = self.max_delay_seconds.map(|span| span.0);
        let waits = dedup.mode == DedupMode::Debounce;
        for (member, given) in [
            ("dedup.delay_seconds", delay),
            ("dedup.max_delay_seconds", max_delay),
        ] {
            if given.is_some() && !waits {
                return refuse(member, format!("{member} says nothing with mode {mode:?}"));
            }
            if given.is_some_and(|span| span > Submission::DELAY_MAX) {
                return refuse(member, format!("{member} is at most a year"));
            }
        }
        if !waits {
            return Ok(());
        }
        let Some(delay) = delay else {
            return refuse(
                "dedup.mode",
                "dedup.mode = \"debounce\" needs dedup.delay_seconds".to_owned(),
            );
        };
        dedup.debounce = Debounce::new(delay, max_delay);
        match dedup.debounce {
            Some(_) => Ok(()),
            None => refuse(
                "dedup.max_delay_seconds",
                "dedup.delay_seconds is above dedup.max_delay_seconds".to_owned(),
            ),
        }
    }
}

impl RetryTable {
    fn set(&self, made: &mut TaskType) -> Result<(), ConfigError> {
        let refuse = |member, text: &str| Err(ConfigError::new(text).of(member));
        let retry = &mut made.retry;
        retry.max_attempts = self.max_attempts.unwrap_or(retry.max_attempts);
        retry.factor = self.factor.unwrap_or(retry.factor);
        retry.jitter = self.jitter.unwrap_or(retry.jitter);
        retry.first_delay = self.first_delay_seconds.map_or(retry.first_delay, |s| s.0);
        retry.max_delay = match self.max_delay_seconds {
            Some(Seconds(longest)) if longest < retry.first_delay => {
                return refuse(
                    "retry.max_delay_seconds",
                    "retry.first_delay_seconds is above retry.max_delay_seconds",
                );
            }
            Some(Seconds(longest)) => longest,
            None => retry.max_delay.max(retry.first_delay),
        };
        if !(1..=ATTEMPTS_MAX).contains(&retry.max_attempts) {
            return refuse("retry.max_attempts", "retry.max_attempts is 1 to 1000");
        }
        if !(1.0..=FACTOR_MAX).contains(&retry.factor) {
            return refuse("retry.factor", "retry.factor is 1.0 to 100.0");
        }
        if !(0.0..=1.0).contains(&retry.jitter) {
            return refuse("retry.jitter", "retry.jitter is 0.0 to 1.0");
        }
        Ok(())
    }
}

fn mode(word: &str) -> Result<DedupMode, ConfigError> {
    DedupMode::parse(word).ok_or_else(|| {
        with_suggestion(
            format!("there is no dedup.mode {word:?}"),
            word,
            DedupMode::ALL.map(DedupMode::name),
        )
    })
}

fn on_older_version(word: &str) -> Result<OnOlderVersion, ConfigError> {
    match word {
        "rerun" => Ok(OnOlderVersion::Rerun),
        "reuse" => Ok(OnOlderVersion::Reuse),
        _ => Err(with_suggestion(
            format!("there is no dedup.on_older_version {word:?}"),
            word,
            ["rerun", "reuse"],
        )),
    }
}

/// Names of types and groups: 1 to 64 of `[A-Za-z0-9._-]`.
fn check_word(what: &str, word: &str) -> Result<(), ConfigError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=NAME_LENGTH_MAX).contains(&word.len()) && word.bytes().all(legal) {
        return Ok(());
    }
    Err(ConfigError::new(format!(
        "{what} is 1 to 64 letters, digits, dots, dashes and underscores"
    )))
}

/// A JSON pointer to a member of params.
fn check_pointer(member: &'static str, pointer: &str) -> Result<(), ConfigError> {
    if json::is_pointer(pointer) {
        return Ok(());
    }
    let refused = format!("{member}: {pointer:?} is no JSON pointer, such as \"/trace_id\"");
    Err(ConfigError::new(refused).of(member))
}
