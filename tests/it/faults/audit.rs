//! Looks at everything once the faults are over: what is on record, what was remembered, and what the
//! programs left outside must tell one story.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use justonce::domain::timestamp::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::clients::{Caller, Way, text};
use super::completion;
use super::intent::read;
use super::ledger::{Acknowledged, Seen};
use super::seed::Seed;
use super::trace::{Execution, Traces};
use super::violation::Rule;

/// What was found, besides the violations in the ledger.
#[derive(Debug, Default)]
pub struct Findings {
    pub on_record: usize,
    pub lost: usize,
    pub phantoms: usize,
    pub duplicate_tasks: usize,
    pub duplicate_completions: usize,
    pub executions: usize,
    /// Executions beyond one for each task: allowed, since nobody can tell a dead worker from a slow one.
    pub repeated_executions: usize,
    /// Reports of workers whose lease was over.
    pub stale_refused: u64,
}

/// Callers at a time.
const CALLERS: usize = 8;
/// Keys that are submitted once more.
const REPLAYS_MAX: usize = 2_000;

pub struct Audit {
    way: Way,
    seed: Seed,
    /// Nothing has ended for so long: nothing will.
    stall: Duration,
}

/// A task of a list.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    pub id: String,
    pub state: String,
    /// Of the newest lease on record.
    pub attempt: u32,
    /// When that was given out.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    #[serde(default)]
    pub duplicates: u64,
    pub file: Option<RecordedFile>,
    tags: BTreeMap<String, String>,
    pub result: Option<Box<RawValue>>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct RecordedFile {
    pub size: u64,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Recorded>,
    next_cursor: Option<String>,
}

impl Recorded {
    /// The work that it was submitted for, unless nobody here did.
    pub fn content(&self) -> Option<usize> {
        self.tags.get("content")?.parse().ok()
    }
}

impl Audit {
    pub fn new(way: Way, seed: Seed, stall: Duration) -> Audit {
        Audit { way, seed, stall }
    }

    pub async fn run(&self, traces: &Traces) -> Findings {
        let mut findings = Findings::default();
        self.all_end().await;
        let recorded = self.recorded().await;
        findings.on_record = recorded.len();
        self.compare_with_memory(&recorded, &mut findings);
        self.compare_with_traces(&recorded, &traces.executions(), &mut findings);
        self.compare_with_counts(&recorded, &mut findings).await;
        self.replay().await;
        findings
    }

    fn violated(&self, rule: Rule, detail: String) {
        self.way.ledger.violated(rule, detail);
    }

    fn caller(&self, number: usize) -> Caller {
        Caller::new(&self.way, self.seed.choices("audit", number), number)
    }

    /// Waits until no acknowledged task is unfinished. Every one of them is asked for until its end.
    async fn all_end(&self) {
        let open = Arc::new(tokio::sync::Mutex::new(
            self.way
                .ledger
                .tasks()
                .into_iter()
                .rev()
                .collect::<Vec<_>>(),
        ));
        let progress = Arc::new(std::sync::Mutex::new(Instant::now()));
        let stall = self.stall;
        let mut askers = JoinSet::new();
        for number in 0..CALLERS {
            let (mut caller, open, progress) =
                (self.caller(number), open.clone(), progress.clone());
            askers.spawn(async move {
                loop {
                    let Some(task) = open.lock().await.pop() else {
                        return;
                    };
                    if is_over(&mut caller, &task).await {
                        *progress.lock().unwrap() = Instant::now();
                        continue;
                    }
                    if progress.lock().unwrap().elapsed() > stall {
                        let ledger = &caller.way.ledger;
                        ledger.violated(Rule::NotEnded, task.id.to_string());
                        continue;
                    }
                    open.lock().await.insert(0, task);
                    sleep(Duration::from_millis(20)).await;
                }
            });
        }
        while let Some(asked) = askers.join_next().await {
            asked.unwrap();
        }
    }

    /// Everything that the service has, by its lists. What nobody was told of ends too.
    async fn recorded(&self) -> Vec<Recorded> {
        let mut caller = self.caller(CALLERS);
        let deadline = Instant::now() + self.stall;
        loop {
            let mut recorded = Vec::new();
            for user in self.way.work.users() {
                recorded.extend(list(&mut caller, &user).await);
            }
            let is_open = |task: &Recorded| {
                !matches!(task.state.as_str(), "succeeded" | "failed" | "cancelled")
            };
            if !recorded.iter().any(is_open) {
                return recorded;
            }
            if Instant::now() > deadline {
                for task in recorded.iter().filter(|task| is_open(task)) {
                    self.violated(Rule::NotEnded, format!("{} is {}", task.id, task.state));
                }
                return recorded;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn compare_with_memory(&self, recorded: &[Recorded], findings: &mut Findings) {
        let intents = self.way.ledger.intents();
        let submitted: BTreeSet<_> = intents.iter().map(|(intent, _)| intent.content).collect();
        let mut of_content: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for task in recorded {
            match task.content().filter(|content| submitted.contains(content)) {
                Some(content) => of_content.entry(content).or_default().push(&task.id),
                None => {
                    findings.phantoms += 1;
                    self.violated(Rule::Phantom, format!("{task:?}"));
                }
            }
            let kind = task
                .content()
                .and_then(|content| self.way.work.kind_of(content));
            if kind.is_some_and(|kind| task.state != kind.end()) {
                self.violated(Rule::Failed, format!("{task:?}"));
            }
        }
        for (content, ids) in &of_content {
            if ids.len() > 1 {
                findings.duplicate_tasks += ids.len() - 1;
                self.violated(Rule::DuplicateTask, format!("content {content}: {ids:?}"));
            }
        }
        let on_record: BTreeSet<_> = recorded.iter().map(|task| task.id.as_str()).collect();
        for task in self.way.ledger.tasks() {
            if !on_record.contains(&*task.id) {
                findings.lost += 1;
                self.violated(Rule::Lost, format!("{} is in no list", task.id));
            }
        }
        for (intent, id) in intents {
            let ids = of_content.get(&intent.content);
            if let Some(id) = id
                && ids.is_none_or(|ids| !ids.contains(&&*id))
            {
                let detail = format!("{} was told {id}; on record: {ids:?}", intent.key());
                self.violated(Rule::Lost, detail);
            }
        }
    }

    fn compare_with_traces(
        &self,
        recorded: &[Recorded],
        executions: &[Execution],
        findings: &mut Findings,
    ) {
        findings.executions = executions.len();
        let mut of_task: HashMap<&str, Vec<&Execution>> = HashMap::new();
        for execution in executions {
            of_task.entry(&execution.id).or_default().push(execution);
        }
        findings.repeated_executions = executions.len() - of_task.len();
        for task in recorded {
            let ran = of_task.remove(task.id.as_str()).unwrap_or_default();
            let tokens: BTreeSet<_> = ran.iter().map(|run| run.fencing_token).collect();
            if tokens.len() < ran.len() {
                self.violated(Rule::Execution, format!("{}: one lease ran twice", task.id));
            }
            let newest_attempt = ran.iter().map(|run| run.attempt).max().unwrap_or(0);
            if newest_attempt > task.attempt {
                let detail = format!(
                    "{}: attempt {newest_attempt} ran, {} is on record",
                    task.id, task.attempt
                );
                self.violated(Rule::Uncounted, detail);
            }
            let kind = task
                .content()
                .and_then(|content| self.way.work.kind_of(content));
            let leaves_traces = kind.is_some_and(|kind| kind.leaves_traces());
            if task.state != "succeeded" || !leaves_traces {
                continue;
            }
            if let Some((rule, detail)) = completion::contradiction(task, &ran) {
                findings.duplicate_completions += usize::from(rule == Rule::CompletedTwice);
                self.violated(rule, format!("{}: {detail}", task.id));
            }
            let echoed = ran.iter().any(|run| run.idempotency_key.is_none());
            if echoed {
                self.violated(Rule::Execution, format!("{}: ran without its key", task.id));
            }
        }
        for id in of_task.keys() {
            self.violated(Rule::Vanished, format!("{id} ran and is not on record"));
        }
    }

    /// The service counts completions as they are recorded: as many as there are tasks.
    async fn compare_with_counts(&self, recorded: &[Recorded], findings: &mut Findings) {
        let succeeded = recorded.iter().filter(|task| task.state == "succeeded");
        let succeeded = succeeded.count() as u64;
        let mut caller = self.caller(CALLERS);
        let Some(answer) = caller.insist(&read("nobody", "/stats")).await else {
            return self.violated(Rule::NotEnded, "no answer from /stats".to_owned());
        };
        let stats: Value = serde_json::from_slice(&answer.body).unwrap();
        findings.stale_refused = stats["windows"]["all"]["writes_fenced"]
            .as_u64()
            .unwrap_or(0);
        let completed = stats["completed"].as_u64().unwrap_or(0);
        if completed != succeeded {
            findings.duplicate_completions += completed.saturating_sub(succeeded) as usize;
            let detail = format!("{completed} completions are counted for {succeeded} tasks");
            self.violated(Rule::CompletedTwice, detail);
        }
    }

    /// Keys still name what they named.
    async fn replay(&self) {
        let mut intents = self.way.ledger.intents();
        self.seed.choices("replay", 0).shuffle(&mut intents);
        intents.truncate(REPLAYS_MAX);
        let mut caller = self.caller(CALLERS);
        for (intent, _) in intents {
            let (began, unsure) = (Instant::now(), caller.unsure);
            let answer = caller.insist(&self.way.work.request(&intent)).await;
            for _ in unsure..caller.unsure {
                self.way.ledger.unsure(intent);
            }
            match answer {
                Some(answer) if matches!(answer.status, 200 | 202) => {
                    let seen: Seen = serde_json::from_slice(&answer.body).unwrap();
                    self.way.ledger.replayed(intent, began, &seen);
                }
                Some(answer) => {
                    let ledger = &self.way.ledger;
                    ledger.refused(intent, answer.status, &answer.body);
                }
                None => self.violated(Rule::NotEnded, format!("no answer to {}", intent.key())),
            }
        }
    }
}

/// Whether there is no more to wait for.
async fn is_over(caller: &mut Caller, task: &Acknowledged) -> bool {
    let user = caller.way.work.user_of(task.content);
    let request = read(&user, &format!("/v1/tasks/{}", task.id));
    let began = Instant::now();
    let Some(answer) = caller.insist(&request).await else {
        let ledger = &caller.way.ledger;
        ledger.violated(Rule::NotEnded, format!("no answer about {}", task.id));
        return true;
    };
    let ledger = &caller.way.ledger;
    match serde_json::from_slice::<Seen>(&answer.body) {
        Ok(seen) if answer.status == 200 && *seen.id == *task.id => {
            ledger.looked(task.content, began, &seen);
            seen.is_ended()
        }
        _ => {
            let detail = format!("{}: {} {}", task.id, answer.status, text(&answer.body));
            ledger.violated(Rule::Lost, detail);
            true
        }
    }
}

pub async fn list(caller: &mut Caller, user: &str) -> Vec<Recorded> {
    let mut recorded = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = read(user, &format!("/v1/tasks?limit=200{cursor}"));
        let Some(answer) = caller.insist(&request).await else {
            let ledger = &caller.way.ledger;
            ledger.violated(Rule::NotEnded, format!("no list of {user}"));
            return recorded;
        };
        let page: Page = serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&answer.body)));
        recorded.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return recorded,
        }
    }
}
