//! A day of an installation that has replaced its task queue: tasks of all types by many users, much of it submitted
//! twice, run by runners of all five kinds over two replicas, of which one, or a worker, is killed now and then.
//!
//! `TASKS`, `USERS`, `SUBMISSIONS_PER_SECOND` and `KILL_EVERY_SECONDS` change its size; the short form has little of all.

use std::sync::Arc;
use std::time::Duration;

use super::clients::Load;
use super::errands::Errands;
use super::fault::{OF_A_DAY, Plan};
use super::intent::{Intent, Kind};
use super::nemesis::Enough;
use super::seed::Seed;
use super::setting::setting;
use super::stage::Stage;
use super::trace::Traces;
use super::trial::{STALL, Trial};
use super::work::{Submission, Work};

/// Of 100 tasks.
const MIX: &[(Kind, usize)] = &[
    (Kind::Echo, 30),
    (Kind::Record, 10),
    (Kind::Slow, 1),
    (Kind::Flaky, 3),
    (Kind::Remote, 14),
    (Kind::Far, 14),
    (Kind::Page, 5),
    (Kind::Hook, 7),
    (Kind::Mail, 5),
    (Kind::Table, 4),
    (Kind::Document, 3),
    (Kind::Report, 1),
    (Kind::CleanUp, 1),
    (Kind::Hopeless, 2),
];
/// Of all submissions.
const DUPLICATES: f64 = 0.4;
/// Duplicates are of what was submitted so shortly before.
const RECENT: usize = 2_000;
/// How often one content is submitted at most. A ledger lists the newest 100 duplicates of a task, and each key comes
/// once more at the end.
const TIMES_MAX: usize = 40;

const CLIENTS: usize = 48;
/// Processes outside, each with one task at a time.
const WORKERS: usize = 3;

/// What is to be submitted, and where its tasks lead.
pub struct Day {
    pub users: usize,
    /// In their order, with those that come again.
    pub submissions: Vec<Intent>,
    /// By content.
    pub kinds: Vec<Kind>,
    pub errands: Errands,
}

impl Day {
    fn planned(tasks: usize, users: usize, seed: Seed, errands: Errands) -> Day {
        let mut choices = seed.choices("day", 0);
        let mix: Vec<Kind> = MIX
            .iter()
            .flat_map(|&(kind, count)| vec![kind; count])
            .collect();
        let (mut submissions, mut kinds) = (Vec::<Intent>::new(), Vec::new());
        // How often each content is submitted.
        let mut times = Vec::new();
        // The keys that were used.
        let mut number = 0;
        while kinds.len() < tasks {
            let recent = &submissions[submissions.len().saturating_sub(RECENT)..];
            let again = match choices.f64() < DUPLICATES {
                true => choices.choice(recent).copied(),
                false => None,
            };
            let again = again.filter(|intent| times[intent.content] < TIMES_MAX);
            let mut intent = again.unwrap_or_else(|| {
                kinds.push(mix[choices.usize(..mix.len())]);
                times.push(0);
                Intent {
                    number,
                    content: kinds.len() - 1,
                    kind: kinds[kinds.len() - 1],
                }
            });
            // The same request, or the same work under another key.
            if again.is_some() && answers_for_its_content(intent.kind) && choices.bool() {
                intent.number = number;
            }
            number += usize::from(intent.number == number);
            times[intent.content] += 1;
            submissions.push(intent);
        }
        Day {
            users,
            submissions,
            kinds,
            errands,
        }
    }

    pub fn submission(&self, intent: &Intent) -> Submission {
        let (number, content) = (intent.number, intent.content);
        let errands = &self.errands;
        let params = match intent.kind {
            Kind::Echo | Kind::Record | Kind::Slow | Kind::Flaky | Kind::Remote | Kind::Far => {
                format!(r#"{{"content":{content}}}"#)
            }
            Kind::Hopeless => format!(r#"{{"content":{content},"fail_permanently":true}}"#),
            Kind::Page => format!(r#"{{"url":"{}"}}"#, errands.page(content)),
            Kind::Hook => format!(
                r#"{{"channel":"webhook","to":"{}","title":"Done","body":"Content {content}"}}"#,
                errands.hook(content)
            ),
            Kind::Mail => format!(
                r#"{{"channel":"email","to":"{}","subject":"Done","body":"Content {content}"}}"#,
                errands.mailbox(content)
            ),
            Kind::Report => {
                let (from, to) = errands.period(content);
                format!(r#"{{"from":"{from}","to":"{to}"}}"#)
            }
            Kind::CleanUp => {
                let older_than = 86_400 + content;
                format!(r#"{{"dry_run":false,"older_than_seconds":{older_than}}}"#)
            }
            Kind::Table => {
                let name = format!("table-{number}.csv");
                return Submission::of_file(intent, &name, &table(content));
            }
            Kind::Document => {
                let name = format!("text-{number}.md");
                return Submission::of_file(intent, &name, &text(content));
            }
        };
        Submission::of(intent, &params)
    }

    /// Of all that is planned, what was submitted before.
    pub fn duplicates(&self) -> usize {
        self.submissions.len() - self.kinds.len()
    }
}

/// What fails for good is tried anew under another key, and a clean-up soon answers for no other.
fn answers_for_its_content(kind: Kind) -> bool {
    !matches!(kind, Kind::Hopeless | Kind::CleanUp)
}

fn table(content: usize) -> String {
    let rows = (0..20 + content % 50).map(|row| format!("{row},{content},name {row}\r\n"));
    format!("row,content,name\r\n{}", rows.collect::<String>())
}

fn text(content: usize) -> String {
    let paragraph = "Whoever asks again is told what is known already. ".repeat(8);
    format!(
        "# Text {content}\n\n{}",
        format!("{paragraph}\n\n").repeat(1 + content % 5)
    )
}

async fn day(tasks: usize, users: usize, submissions_per_second: usize, kill_every: u64) {
    let seed = Seed::draw();
    let traces = Traces::new();
    let errands = Errands::start(&traces).await;
    let day = Arc::new(Day::planned(tasks, users, seed, errands));
    let (half, most) = (kill_every * 500, kill_every * 1_500);
    let trial = Trial {
        name: "day",
        seed,
        load: Load {
            clients: CLIENTS,
            submitters: 1,
            intents: Some(day.submissions.len()),
            work: Work::Day(day.clone()),
            pause: Duration::from_secs_f64(CLIENTS as f64 / submissions_per_second as f64),
            quitters: false,
            observers: 1,
        },
        plan: Plan::new(OF_A_DAY, half..most, seed),
        enough: Enough::Clients,
        stall: STALL,
    };
    let stage = Stage::of_a_day(2, WORKERS, &day.errands, traces).await;
    let report = trial.run(stage).await;
    report.expect_sound();
    assert_eq!(report.tasks, tasks);
    for class in OF_A_DAY {
        let killed = report.faults.iter().any(|(_, fault)| fault.class == *class);
        assert!(killed, "no {class:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_day_of_all_types_and_runners_adds_up() {
    day(1_500, 40, 120, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "as long as the environment says: see make day"]
async fn a_day_of_all_types_and_runners_adds_up() {
    let tasks = setting("TASKS", 50_000);
    let users = setting("USERS", 200);
    let submissions = setting("SUBMISSIONS_PER_SECOND", 110);
    let kill_every = setting("KILL_EVERY_SECONDS", 60);
    day(tasks, users, submissions, kill_every as u64).await;
}
