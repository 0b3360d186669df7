//! One trial: processes, clients and faults at the same time, and then the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::audit::{Audit, Findings};
use super::clients::{Load, Way};
use super::fault::{Class, Fault, Plan};
use super::ledger::{Counts, Ledger};
use super::nemesis::{Chronicle, Enough, torment};
use super::resp_proxy::{Meddling, RespProxy};
use super::savings::{self, Savings};
use super::seed::{self, Seed};
use super::stage::Stage;
use super::violation::{Rule, Violation};
use super::work::Work;

pub struct Trial {
    pub name: &'static str,
    pub seed: Seed,
    pub load: Load,
    pub plan: Plan,
    pub enough: Enough,
    /// After the faults, a service that ends nothing for so long will never do so.
    pub stall: Duration,
}

/// The usual patience: any service that works ends something meanwhile.
pub const STALL: Duration = Duration::from_secs(90);

impl Trial {
    pub async fn run(self, stage: Stage) -> Report {
        // Said first: a trial that hangs can be run again too.
        println!("{}: seed {}", self.name, self.seed);
        let way = Way {
            targets: stage.addresses(),
            ledger: Ledger::default(),
            work: self.load.work.clone(),
        };
        let chronicle = Chronicle::default();
        let began = Instant::now();
        let over = CancellationToken::new();
        let mut clients = self.load.start(&way, self.seed, &over);
        let observers = self.load.observe(&way, self.seed);
        let nemesis = torment(&stage, self.plan, self.enough, &over, &chronicle);
        let load = async {
            while let Some(client) = clients.join_next().await {
                client.unwrap();
            }
            // The nemesis ends with the clients; what is broken then it mends.
            over.cancel();
        };
        let tormented = async {
            nemesis.await;
            if self.load.intents.is_none() {
                over.cancel();
            }
        };
        tokio::join!(load, tormented);
        drop(observers);
        let lasted = began.elapsed();
        let tasks = way.ledger.tasks().len();
        stage.recovered().await;
        let audit = Audit::new(way.clone(), self.seed, self.stall);
        let findings = audit.run(&stage.traces).await;
        let savings = match &self.load.work {
            Work::Numbered { .. } => None,
            Work::Day(day) => Some(
                savings::settle(
                    &way,
                    day,
                    self.seed,
                    &stage.traces,
                    &killed_at(began, &chronicle),
                )
                .await,
            ),
        };
        let mut violations = way.ledger.violations();
        violations.extend(stage.contradictions().await);
        violations.extend(stage.crashes());
        let report = Report {
            name: self.name,
            seed: self.seed,
            lasted,
            audited: began.elapsed() - lasted,
            faults: chronicle.faults(),
            meddled: stage
                .proxy
                .as_ref()
                .map(RespProxy::done)
                .unwrap_or_default(),
            counts: way.ledger.counts(),
            intents: way.ledger.intents().len(),
            tasks,
            losses_said: stage.losses_said(),
            findings,
            savings,
            violations,
        };
        println!("{report}");
        report
    }
}

/// When replicas were killed.
fn killed_at(began: Instant, chronicle: &Chronicle) -> Vec<Instant> {
    let faults = chronicle.faults().into_iter();
    let kills = faults.filter(|(_, fault)| fault.class == Class::KillReplica);
    kills.map(|(at, _)| began + at).collect()
}

/// What a trial has shown.
pub struct Report {
    name: &'static str,
    seed: Seed,
    lasted: Duration,
    audited: Duration,
    pub faults: Vec<(Duration, Fault)>,
    /// With single commands.
    pub meddled: Vec<(Meddling, u64)>,
    pub counts: Counts,
    pub intents: usize,
    /// With an acknowledgement.
    pub tasks: usize,
    /// How often replicas have said that acknowledged state was lost, and an operator has accepted it.
    pub losses_said: u64,
    pub findings: Findings,
    /// Where duplicates were planned.
    pub savings: Option<Savings>,
    pub violations: Vec<Violation>,
}

impl Report {
    /// Tasks lost, doubled or never ended.
    pub fn broken(&self) -> usize {
        let broken = [
            Rule::Lost,
            Rule::TwoIdsForAKey,
            Rule::DuplicateTask,
            Rule::NotEnded,
            Rule::CompletedTwice,
        ];
        let violations = self.violations.iter();
        violations.filter(|v| broken.contains(&v.rule)).count()
    }

    /// Fails unless every promise was kept.
    #[track_caller]
    pub fn expect_sound(&self) {
        self.expect_sound_but(&[]);
    }

    /// Fails unless every promise was kept, or the loss of what was acknowledged was said: of a task, a key, an end.
    #[track_caller]
    pub fn expect_sound_or_said(&self) {
        match self.losses_said {
            0 => self.expect_sound(),
            _ => {
                self.expect_sound_but(&[Rule::Lost, Rule::TwoIdsForAKey, Rule::ChangedAfterItsEnd])
            }
        }
    }

    /// Fails unless every promise was kept, where another server may take over that has all acknowledgements, and not all
    /// else: what nobody was told of, and leases. Their work is repeated. Nobody may say that more is gone.
    #[track_caller]
    pub fn expect_sound_over_copies(&self) {
        assert_eq!(self.losses_said, 0, "replicas miss what nobody has lost");
        self.expect_sound_but(&[Rule::Vanished, Rule::Uncounted, Rule::NewerLeaseGone]);
    }

    #[track_caller]
    fn expect_sound_but(&self, not_given: &[Rule]) {
        let violations = self.violations.iter();
        let broken = violations.filter(|v| !not_given.contains(&v.rule)).count();
        assert!(
            broken == 0,
            "{broken} violations; run it again with {}={}",
            seed::VARIABLE,
            self.seed
        );
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_MAX: usize = 20;
        let (counts, found) = (&self.counts, &self.findings);
        writeln!(f, "trial                  {}", self.name)?;
        writeln!(f, "seed                   {}", self.seed)?;
        writeln!(f, "faults                 {}", self.faults.len())?;
        let mut classes: BTreeMap<Class, usize> = BTreeMap::new();
        for (_, fault) in &self.faults {
            *classes.entry(fault.class).or_default() += 1;
        }
        for (class, count) in classes {
            writeln!(f, "    {count:4} {class:?}")?;
        }
        for (at, fault) in &self.faults {
            writeln!(f, "    at {:8.3} s  {fault}", at.as_secs_f64())?;
        }
        for (meddling, count) in &self.meddled {
            writeln!(f, "    {count:7} {meddling:?}")?;
        }
        let rows = [
            ("acknowledged", counts.acknowledged),
            ("unknown", counts.unknown),
            ("failed", counts.failed),
            ("repeats", counts.repeats),
            ("looks", counts.looks),
            ("keys", self.intents as u64),
            ("tasks acknowledged", self.tasks as u64),
            ("tasks on record", found.on_record as u64),
            ("lost", found.lost as u64),
            ("duplicate tasks", found.duplicate_tasks as u64),
            ("duplicate completions", found.duplicate_completions as u64),
            ("phantom tasks", found.phantoms as u64),
            ("executions outside", found.executions as u64),
            ("  repeated (allowed)", found.repeated_executions as u64),
            ("stale reports refused", found.stale_refused),
            ("violations", self.violations.len() as u64),
            ("losses said", self.losses_said),
        ];
        for (name, number) in rows {
            writeln!(f, "{name:22} {number}")?;
        }
        let seconds = [
            ("unavailable at most", counts.unavailable),
            ("  until", counts.unavailable_until),
            ("load and faults", self.lasted),
            ("audit", self.audited),
        ];
        for (name, span) in seconds {
            writeln!(f, "{name:22} {:.3} s", span.as_secs_f64())?;
        }
        if let Some(savings) = &self.savings {
            write!(f, "{savings}")?;
        }
        let mut rules: BTreeMap<Rule, BTreeSet<&str>> = BTreeMap::new();
        for violation in &self.violations {
            let subject = violation.detail.split([':', ' ']).next();
            rules.entry(violation.rule).or_default().extend(subject);
        }
        for (rule, subjects) in rules {
            writeln!(f, "    {:4} {rule:?}", subjects.len())?;
        }
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "! {violation}")?;
        }
        Ok(())
    }
}
