//! The pool against a store that only knows leases.

mod fake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use super::pool::{End, Pool};
use super::{Tools, Workshop};
use crate::config::{Settings, Sources};
use crate::domain::task_type::{RunnerSpec, TaskType};
use crate::limits::Limits;
use crate::runner::{Attempt, AttemptError, Load, Runner, Success};
use crate::runners::echo::Echo;
use crate::worker_gauge::WorkerGauge;
use fake::{Event, FakeStore};

struct Panics;

#[async_trait]
impl Runner for Panics {
    async fn run(&self, _: Attempt) -> Result<Success, AttemptError> {
        panic!("on purpose")
    }

    fn load(&self) -> Load {
        Load::Processor
    }
}

/// A pool that runs `echo`, and `panics` on one processor slot.
struct Bench {
    store: Arc<FakeStore>,
    end: End,
    pool: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn start(change: impl Fn(&mut TaskType)) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let blobs = crate::blobs::local::LocalBlobs::open(folder.path().into(), false).unwrap();
        let settings = Settings::load(Sources::default()).unwrap();
        let mut echo = TaskType::clone(settings.types.get("echo").unwrap());
        change(&mut echo);
        let panics = TaskType {
            name: "panics".into(),
            runner: RunnerSpec::Builtin("panics".into()),
            ..echo.clone()
        };
        let store = Arc::new(FakeStore::default());
        let runners: [(String, Arc<dyn Runner>); 2] = [
            ("echo".into(), Arc::new(Echo)),
            ("panics".into(), Arc::new(Panics)),
        ];
        let shop = Workshop::new(Tools {
            store: store.clone(),
            blobs: Arc::new(blobs),
            types: Arc::new([echo, panics].into_iter().collect()),
            runners: runners.into(),
            limits: Limits {
                result_bytes_max: 1000,
                result_inline_bytes_max: 100,
                ..Limits::default()
            },
            gauge: WorkerGauge::new("w".into(), Default::default(), 1),
        });
        let end = End::default();
        let pool = tokio::spawn(Pool::new(watch::channel(shop).1, end.clone()).run());
        Bench {
            store,
            end,
            pool,
            _folder: folder,
        }
    }

    async fn end(self) -> Vec<Event> {
        self.end.stop.cancel();
        self.pool.await.unwrap();
        self.store.events()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_many_tasks_and_each_once() {
    let bench = Bench::start(|_| {});
    let began = Instant::now();
    for _ in 0..20_000 {
        bench.store.add("echo", "{\"a\":1}");
    }
    bench.store.until(20_000).await;
    let took = began.elapsed();
    let events = bench.end().await;
    assert_eq!(events.len(), 20_000);
    assert!(
        events
            .iter()
            .all(|e| *e == Event::Completed("{\"a\":1}".into()))
    );
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[tokio::test]
async fn failures_say_whether_to_retry_and_when() {
    let bench = Bench::start(|echo| echo.timeout = Duration::from_millis(50));
    let failed = |code: &str, permanent| Event::Failed(code.into(), permanent);
    for (task_type, params, expected) in [
        (
            "echo",
            r#"{"fail_times": 1}"#.to_owned(),
            failed("echo-failed", false),
        ),
        (
            "echo",
            r#"{"fail_permanently": true}"#.to_owned(),
            failed("echo-failed", true),
        ),
        (
            "echo",
            r#"{"sleep_ms": 60000}"#.to_owned(),
            failed("timeout", false),
        ),
        ("panics", "{}".to_owned(), failed("panic", false)),
        (
            "echo",
            format!("{{\"x\":\"{}\"}}", "y".repeat(2000)),
            failed("result-too-large", true),
        ),
        (
            "echo",
            format!("{{\"x\":\"{}\"}}", "y".repeat(200)),
            Event::CompletedInBlob(208),
        ),
    ] {
        let before = bench.store.events().len();
        bench.store.add(task_type, &params);
        bench.store.until(before + 1).await;
        assert_eq!(bench.store.events()[before], expected);
    }
    bench.end().await;
}

#[tokio::test]
async fn work_that_waits_goes_on_while_the_processor_is_taken() {
    let bench = Bench::start(|echo| echo.concurrency = Some(2));
    for _ in 0..3 {
        bench.store.add("echo", r#"{"sleep_ms": 300}"#);
    }
    bench.store.add("panics", "{}");
    bench.store.until(1).await;
    assert_eq!(
        bench.store.events()[0],
        Event::Failed("panic".into(), false)
    );
    assert_eq!(bench.store.most_running("echo"), 2);
    bench.store.until(4).await;
    assert_eq!(bench.store.most_running("echo"), 2);
    bench.end().await;
}

#[tokio::test]
async fn a_cancelled_attempt_stops_and_confirms() {
    let bench = Bench::start(|_| {});
    let id = bench.store.add("echo", r#"{"sleep_ms": 60000}"#);
    bench.store.until_leased(&id).await;
    bench.store.cancel_running(&id);
    bench.store.until(1).await;
    assert_eq!(
        bench.end().await,
        [Event::Failed("cancelled".into(), false)]
    );
}

#[tokio::test]
async fn a_lost_lease_reports_nothing_and_heartbeats_keep_the_others() {
    let bench = Bench::start(|echo| echo.lease = Duration::from_millis(300));
    let lost = bench.store.add("echo", r#"{"sleep_ms": 60000}"#);
    bench.store.add("echo", r#"{"sleep_ms": 1000}"#);
    bench.store.until_leased(&lost).await;
    bench.store.lose(&lost);
    bench.store.until(1).await;
    assert!(bench.store.extensions() >= 5);
    assert_eq!(
        bench.end().await,
        [Event::Completed(r#"{"sleep_ms": 1000}"#.into())]
    );
}

#[tokio::test]
async fn a_report_is_repeated_until_the_store_answers() {
    let bench = Bench::start(|_| {});
    bench.store.fail_next_reports(3);
    bench.store.add("echo", "1");
    bench.store.until(1).await;
    assert_eq!(bench.end().await, [Event::Completed("1".into())]);
}

#[tokio::test]
async fn drain_lets_attempts_end_and_hands_back_the_rest() {
    let bench = Bench::start(|_| {});
    bench.store.add("echo", r#"{"sleep_ms": 200}"#);
    let long = bench.store.add("echo", r#"{"sleep_ms": 60000}"#);
    bench.store.until_leased(&long).await;
    bench.end.stop.cancel();
    bench.store.until(1).await;
    bench.store.add("echo", "1");
    bench.end.hand_back.cancel();
    let events = bench.end().await;
    let done = Event::Completed(r#"{"sleep_ms": 200}"#.into());
    assert_eq!(events, [done, Event::Released]);
}
