//! All that a run consists of beside the replicas: servers, time, chance, and what is known to be promised.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use redis::{RedisError, RedisResult, Value, parse_redis_value};
use tokio::time::Instant;

use super::audit;
use super::data::{Data, word};
use super::interpreter::{self, Break};
use super::ledger::Ledger;
use crate::store::redis::SCHEMA;
use crate::store::redis::scripts::{self, Kind, Script};

/// When the servers' clocks begin, ms.
const EPOCH_MS: i64 = 1_800_000_000_000;
/// States that a crash may fall back to.
const PAST_MAX: usize = 40;

static SCRIPTS: LazyLock<HashMap<&'static str, &'static Script>> = LazyLock::new(|| {
    let all = scripts::all().into_iter();
    all.map(|script| (script.sha1.as_str(), script)).collect()
});

#[derive(Clone)]
pub struct Shared(Arc<Mutex<World>>);

pub struct World {
    pub rng: fastrand::Rng,
    pub servers: Vec<Server>,
    /// By replica: the server that it is connected to.
    pub homes: Vec<usize>,
    /// No faults any more.
    pub is_calm: bool,
    /// Whether promises wait for an fsync.
    pub is_fsynced: bool,
    /// Whether they wait for the one of a copy, too, which is there as soon as a server is the newest.
    pub is_copied: bool,
    pub broken: Option<Break>,
    pub ledger: Ledger,
    pub failure: Option<String>,
    pub trace: Option<Vec<String>>,
    pub steps: u64,
    boots: u64,
    began: Instant,
}

pub struct Server {
    pub data: Data,
    loaded: HashMap<String, String>,
    clock_ms: i64,
    /// Grows with every start of any server: what was sent to an earlier one dies with its connection.
    pub boot: u64,
    pub up_at: Instant,
    pub frozen: Option<(Instant, Instant)>,
    past: VecDeque<Data>,
}

impl Shared {
    pub fn new(seed: u64, broken: Option<Break>, is_traced: bool, replicas: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let began = Instant::now();
        let mut data = Data::default();
        let schema = SCHEMA.to_string();
        let agreed = [
            "HSET",
            "sim:{p00}:agreement",
            "schema",
            &schema,
            "partitions",
            "2",
        ];
        data.run(0, &agreed.map(|arg| arg.as_bytes().to_vec()))
            .unwrap();
        let server = Server::new(data, 0, 1);
        let is_fsynced = rng.bool();
        Shared(Arc::new(Mutex::new(World {
            is_fsynced,
            is_copied: is_fsynced && rng.bool(),
            rng,
            servers: vec![server],
            homes: vec![0; replicas],
            is_calm: false,
            broken,
            ledger: Ledger::default(),
            failure: None,
            trace: is_traced.then(Vec::new),
            steps: 0,
            boots: 1,
            began,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Some time between, in ms.
    pub fn some_ms(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.lock().rng.u64(range))
    }

    pub fn chance(&self, percent: u8) -> bool {
        self.lock().rng.u8(..100) < percent
    }

    pub fn pick(&self, count: usize) -> usize {
        self.lock().rng.usize(..count)
    }

    pub fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    pub fn note(&self, text: impl FnOnce() -> String) {
        self.lock().note(text);
    }

    pub fn fail(&self, why: String) {
        self.lock().fail(why);
    }
}

impl Server {
    fn new(data: Data, clock_ms: i64, boot: u64) -> Self {
        Server {
            past: VecDeque::from([data.clone()]),
            data,
            loaded: HashMap::new(),
            clock_ms,
            boot,
            up_at: Instant::now(),
            frozen: None,
        }
    }
}

impl World {
    pub fn now_ms(&self) -> i64 {
        let passed = Instant::now() - self.began;
        EPOCH_MS + i64::try_from(passed.as_millis()).unwrap()
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let at = Instant::now() - self.began;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", at.as_secs_f64(), text()));
        }
    }

    /// The first failure is the one that counts.
    pub fn fail(&mut self, why: String) {
        self.note(|| format!("FAILED {why}"));
        self.failure.get_or_insert(why);
    }

    pub fn primary(&self) -> &Server {
        self.servers.last().unwrap()
    }

    /// The newest server ends, and begins again with what it had written down.
    pub fn crash(&mut self, down: Duration) {
        let is_fsynced = self.is_fsynced;
        let loses = self.rng.u8(..3) > 0 || is_fsynced;
        self.boots += 1;
        let boot = self.boots;
        let back = if loses { self.rng.usize(..PAST_MAX) } else { 0 };
        let at = self.servers.len() - 1;
        let server = &mut self.servers[at];
        let older = server.past.len().saturating_sub(back + 1);
        let data = server.past[older].clone();
        *server = Server::new(data, server.clock_ms, boot);
        server.up_at = Instant::now() + down;
        self.note(|| format!("server {at} crashes, {older} states are left, boot {boot}"));
        for replica in 0..self.homes.len() {
            if self.homes[replica] == at {
                self.judge_loss(replica);
            }
        }
        self.keeps_promises();
        self.forget_lost();
    }

    /// A copy that lags becomes the primary; replicas find it one by one.
    pub fn fail_over(&mut self) {
        self.boots += 1;
        let boot = self.boots;
        let back = self.rng.usize(..PAST_MAX);
        let server = self.primary();
        let older = server.past.len().saturating_sub(back + 1);
        let (data, clock) = (server.past[older].clone(), server.clock_ms);
        let clock = clock + self.rng.i64(-2_000..2_000);
        self.note(|| format!("a copy takes over, {older} states are left, boot {boot}"));
        self.servers.push(Server::new(data, clock, boot));
        self.keeps_promises();
        self.forget_lost();
    }

    pub fn moves(&mut self, replica: usize) {
        self.homes[replica] = self.servers.len() - 1;
        self.note(|| format!("replica {replica} finds the new primary"));
        self.judge_loss(replica);
    }

    /// To the newest server, behind so many replicas.
    pub fn operator_connects(&mut self, replicas: usize) {
        self.homes.truncate(replicas);
        self.homes.push(self.servers.len() - 1);
    }

    fn judge_loss(&mut self, replica: usize) {
        let server = &self.servers[self.homes[replica]];
        let lost = self.ledger.judge_loss(replica, &server.data, server.boot);
        if let Some(lost) = lost {
            let is_fsynced = self.is_fsynced;
            self.note(|| format!("replica {replica} was told {lost}, which is gone"));
            if is_fsynced {
                self.fail(format!("{lost} was fsynced, told, and is gone"));
            }
        }
    }

    /// What was waited for is on the newest server.
    fn keeps_promises(&mut self) {
        if self.is_fsynced
            && let Err(why) = self.ledger.holds(&self.primary().data)
        {
            self.fail(why);
        }
    }

    fn forget_lost(&mut self) {
        let server = self.servers.last().unwrap();
        self.ledger.forget_lost(&server.data);
    }

    /// One command, executed whole.
    pub fn execute(&mut self, at: usize, replica: usize, args: &[Vec<u8>]) -> RedisResult<Value> {
        self.steps += 1;
        let now = self.now_ms() + self.servers[at].clock_ms;
        let name = word(&args[0]);
        let answer = match name.as_str() {
            "EVALSHA" => self.script(at, replica, now, args),
            "SCRIPT" => {
                let sha1 = redis::Script::new(&word(&args[2])).get_hash().to_owned();
                self.servers[at].loaded.insert(sha1, word(&args[2]));
                Ok(Value::Okay)
            }
            "WAITAOF" => {
                let has_copy = at + 1 == self.servers.len();
                let server = &mut self.servers[at];
                if has_copy || !self.is_copied {
                    server.past = VecDeque::from([server.data.clone()]);
                }
                let copies = i64::from(has_copy && self.is_copied);
                Ok(Value::Array(vec![Value::Int(1), Value::Int(copies)]))
            }
            _ => self.servers[at].data.run(now, args),
        };
        let is_fsynced = self.is_fsynced;
        let server = &mut self.servers[at];
        if !server
            .past
            .back()
            .is_some_and(|past| past.is_same(&server.data))
        {
            server.past.push_back(server.data.clone());
        }
        // What an fsync has covered must stay the oldest.
        if server.past.len() > PAST_MAX && !is_fsynced {
            server.past.pop_front();
        }
        answer.map_err(|text| error(&text))
    }

    fn script(
        &mut self,
        at: usize,
        replica: usize,
        now: i64,
        args: &[Vec<u8>],
    ) -> Result<Value, String> {
        let sha1 = word(&args[1]);
        let script = SCRIPTS[sha1.as_str()];
        let Some(text) = self.servers[at].loaded.get(&sha1).cloned() else {
            return Err("NOSCRIPT No matching script.".to_owned());
        };
        let keys: usize = word(&args[2]).parse().unwrap();
        let (keys, args) = args[3..].split_at(keys);
        let broken = self.broken.filter(|broken| broken.script == script.name);
        let before = self.servers[at].data.clone();
        let data = &mut self.servers[at].data;
        let answer = interpreter::run((&text, &sha1), broken, data, now, keys, args);
        let boot = self.servers[at].boot;
        let (name, root) = (script.name, word(&keys[0]));
        self.note(|| {
            let shown = |texts: &[Vec<u8>]| {
                let texts = texts.iter().map(|t| t.escape_ascii().to_string());
                texts
                    .map(|t| t.chars().take(44).collect())
                    .collect::<Vec<String>>()
                    .join(" ")
            };
            let told = format!("{answer:?}");
            let told: String = told.chars().take(160).collect();
            format!("r{replica} s{at} {name} {root} [{}] -> {told}", shown(args))
        });
        match &answer {
            Err(text) if !text.starts_with("STATELOST") => self.fail(format!("{name}: {text}")),
            _ => {}
        }
        if name == "report" && self.is_fsynced {
            self.fail(format!("replica {replica} misses what is there"));
        }
        if script.kind == Kind::Apart {
            return answer;
        }
        if name == "admit" && answer.is_ok() {
            for id in submitted(args) {
                self.ledger.created(&word(id), boot);
            }
        }
        let after = &self.servers[at].data;
        if after.is_same(&before) {
            return answer;
        }
        let mut found = audit::step(script, &root, args, (&before, after), now);
        if found.is_ok() && at + 1 == self.servers.len() {
            found = self.ledger.holds(after);
        }
        if let Err(why) = found {
            self.fail(format!("after {name} of replica {replica}: {why}"));
        }
        answer
    }
}

/// Ids of the submissions that a step is asked about, as admit.lua has them.
fn submitted(mut args: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    let mut ids = Vec::new();
    while let [id, _, _, _, files, ..] = args {
        ids.push(id);
        let files: usize = word(files).parse().unwrap();
        args = &args[5 + 5 * files..];
    }
    ids
}

fn error(text: &str) -> RedisError {
    let parsed = parse_redis_value(format!("-{text}\r\n").as_bytes());
    parsed.and_then(Value::extract_error).unwrap_err()
}
