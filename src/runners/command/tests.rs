use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::principal::UserId;
use crate::domain::task::{FencingToken, Priority, Progress, State, Task, TaskId};
use crate::domain::timestamp::Timestamp;

fn attempt() -> (Attempt, mpsc::Receiver<Progress>) {
    let user = UserId::parse("u").unwrap();
    let (progress, heard) = mpsc::channel(64);
    let params = serde_json::value::to_raw_value(&serde_json::json!({"lang": "de"})).unwrap();
    let task = Task {
        id: TaskId::random(&user),
        task_type: "t".into(),
        state: State::Running,
        user,
        fingerprint: None,
        params: Arc::from(params),
        files: Vec::new(),
        priority: Priority::DEFAULT,
        tags: Default::default(),
        attempt: 2,
        max_attempts: 4,
        progress: None,
        created_at: Timestamp::default(),
        scheduled_at: None,
        started_at: None,
        finished_at: None,
        next_attempt_at: None,
        dedup_expires_at: None,
        outcome: None,
        error: None,
        duplicates: 0,
        superseded_by: None,
        throttles_until: None,
        changes: Default::default(),
    };
    let attempt = Attempt {
        task,
        token: FencingToken(7),
        idempotency_key: Some("k".into()),
        file_paths: Vec::new(),
        timeout: Duration::from_secs(60),
        cancel: CancellationToken::new(),
        progress,
    };
    (attempt, heard)
}

fn shell(script: &str) -> CommandRunner {
    let words = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    CommandRunner::new(words, ".".into(), Launcher::Direct, 1000)
}

async fn run(script: &str) -> Result<String, AttemptError> {
    let (attempt, _heard) = attempt();
    shell(script).run(attempt).await.map(text)
}

fn text(success: Success) -> String {
    match success {
        Success::Result(result) => result.get().to_owned(),
        Success::HandedOver => panic!("nobody is there to hand over to"),
    }
}

/// Whether a process with the id in that file is there.
fn is_alive(pid_file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(pid_file).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn until(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(10), "it never came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_program_gets_the_task_and_its_last_line_is_the_result() {
    let got = run("cat").await.unwrap();
    let got: serde_json::Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["params"], serde_json::json!({"lang": "de"}));
    assert_eq!((&got["type"], &got["attempt"]), (&"t".into(), &2.into()));
    assert_eq!(
        (&got["fencing_token"], &got["idempotency_key"]),
        (&7.into(), &"k".into())
    );
    assert_eq!(got["file"], serde_json::Value::Null);
    assert_eq!(
        run("echo chatter; echo; echo '{\"a\": 1}'; echo")
            .await
            .unwrap(),
        "{\"a\": 1}"
    );
    assert_eq!(run("printf 3").await.unwrap(), "3");
    assert_eq!(run("true").await.unwrap(), "null");
}

#[tokio::test]
async fn progress_is_passed_on() {
    let (attempt, mut heard) = attempt();
    let script = r#"echo '{"progress": {"done": 1, "total": 2, "message": "half"}}'; echo '{"ok": true}'; echo '{"progress": {"done": 2}}'"#;
    let result = shell(script).run(attempt).await.unwrap();
    assert_eq!(text(result), "{\"ok\": true}");
    let half = heard.recv().await.unwrap();
    assert_eq!(
        (half.done, half.total, half.message.as_deref()),
        (1.0, Some(2.0), Some("half"))
    );
    assert_eq!(heard.recv().await.unwrap().done, 2.0);
}

#[tokio::test]
async fn the_exit_status_says_whether_to_retry() {
    for (script, code, permanent) in [
        ("exit 1", "command-failed", false),
        ("exit 75", "command-failed", false),
        ("echo '{}'; exit 65", "command-failed", true),
        ("kill -9 $$", "command-killed", false),
        ("exit 127", "command-not-found", false),
        ("echo nonsense", "result-invalid", true),
        ("head -c 2000 /dev/zero", "result-too-large", true),
        (
            "yes | head -c 100000000; sleep 60",
            "result-too-large",
            true,
        ),
    ] {
        let error = run(script).await.unwrap_err();
        assert_eq!(
            (error.code.as_str(), error.permanent),
            (code, permanent),
            "{script}"
        );
    }
    let missing = CommandRunner::new(
        vec!["/no/such/program".into()],
        ".".into(),
        Launcher::Direct,
        1000,
    );
    let error = missing.run(attempt().0).await.unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.permanent),
        ("command-not-found", false)
    );
}

#[tokio::test]
async fn the_environment_is_cleared() {
    let got =
        run("env | cut -d= -f1 | grep -vE '^(PATH|HOME|LANG|PWD|SHLVL|OLDPWD|_)$' | wc -l").await;
    assert_eq!(got.unwrap().trim(), "0");
}

#[tokio::test]
async fn cancelling_ends_the_whole_group_even_if_it_does_not_listen() {
    let folder = tempfile::tempdir().unwrap();
    let (own, child) = (folder.path().join("own"), folder.path().join("child"));
    let script = format!(
        "trap '' TERM; echo $$ > {}; sh -c 'trap \"\" TERM; echo $$ > {1}.new; mv {1}.new {1}; while :; do sleep 1; done' & while :; do sleep 1; done",
        own.display(),
        child.display()
    );
    let (attempt, _heard) = attempt();
    let cancel = attempt.cancel.clone();
    let running = tokio::spawn(async move { shell(&script).run(attempt).await });
    until(|| child.exists()).await;
    assert!(is_alive(&own) && is_alive(&child));
    cancel.cancel();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code, "stopped");
    assert!(!is_alive(&own));
    until(|| !is_alive(&child)).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    let script = format!("sleep 600 & echo $! > {}; echo 1", child.display());
    let began = Instant::now();
    assert_eq!(run(&script).await.unwrap(), "1");
    assert!(began.elapsed() < Duration::from_secs(5));
    until(|| !is_alive(&child)).await;
}

#[tokio::test]
async fn dropping_the_attempt_ends_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600",
        own.display()
    );
    let (attempt, _heard) = attempt();
    let running = tokio::spawn(async move { shell(&script).run(attempt).await });
    until(|| own.exists()).await;
    running.abort();
    until(|| !is_alive(&own)).await;
}
