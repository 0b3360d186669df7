//! What a simulated Redis holds, and the commands that the scripts use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use redis::Value;

/// Cheap to copy: a copy is what a crash or a lagging replica falls back to.
#[derive(Clone, Default)]
pub struct Data {
    entries: Arc<BTreeMap<Arc<[u8]>, Arc<Entry>>>,
    /// Published, and not passed on yet.
    pub news: Vec<String>,
}

#[derive(Clone)]
pub struct Entry {
    item: Item,
    expires_at: Option<i64>,
}

#[derive(Clone)]
enum Item {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    Sorted(BTreeMap<Vec<u8>, f64>),
    List(VecDeque<Vec<u8>>),
}

/// What only looks into something that has a structure works on a copy.
const READS: [&str; 16] = [
    "SSCAN",
    "SCARD",
    "HGET",
    "HMGET",
    "HGETALL",
    "HVALS",
    "HLEN",
    "HEXISTS",
    "HRANDFIELD",
    "ZCARD",
    "ZCOUNT",
    "ZSCORE",
    "ZMSCORE",
    "SISMEMBER",
    "ZRANGE",
    "LRANGE",
];

type Answer = Result<Value, String>;

impl Data {
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Arc<Entry>)> {
        self.entries
            .iter()
            .map(|(key, entry)| (std::str::from_utf8(key).unwrap_or_default(), entry))
    }

    /// Names that begin so, without that beginning.
    pub fn under<'a>(&'a self, start: &'a str) -> impl Iterator<Item = (&'a str, &'a Entry)> {
        let from = self
            .entries
            .range::<[u8], _>((Bound::Included(start.as_bytes()), Bound::Unbounded));
        from.map(|(key, entry)| (std::str::from_utf8(key).unwrap_or_default(), &**entry))
            .map_while(move |(key, entry)| Some((key.strip_prefix(start)?, entry)))
    }

    pub fn text(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key.as_bytes())?.text()
    }

    pub fn number(&self, key: &str) -> i64 {
        let text = self
            .text(key)
            .and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    pub fn sorted(&self, key: &str) -> BTreeMap<String, f64> {
        let entry = self.entries.get(key.as_bytes());
        entry.map(|entry| entry.sorted()).unwrap_or_default()
    }

    pub fn hash(&self, key: &str) -> BTreeMap<String, String> {
        let entry = self.entries.get(key.as_bytes());
        entry.map(|entry| entry.hash()).unwrap_or_default()
    }

    /// Carries out one command, at this time of the server.
    pub fn run(&mut self, now: i64, args: &[Vec<u8>]) -> Answer {
        let name = args.first().map(|name| word(name)).unwrap_or_default();
        let arg = |at: usize| args.get(at).cloned().ok_or("too few arguments".to_owned());
        match name.as_str() {
            "TIME" => {
                let seconds = (now / 1000).to_string().into_bytes();
                let micros = (now % 1000 * 1000).to_string().into_bytes();
                return Ok(array([seconds, micros]));
            }
            "PUBLISH" => {
                self.news.push(word(&arg(2)?));
                return Ok(Value::Int(0));
            }
            "PING" => return Ok(Value::SimpleString("PONG".to_owned())),
            _ => {}
        }
        for key in args.iter().skip(1) {
            let is_over = |entry: &Arc<Entry>| entry.expires_at.is_some_and(|at| at <= now);
            if self.entries.get(&key[..]).is_some_and(is_over) {
                self.remove(key);
            }
        }
        let key = arg(1)?;
        if READS.contains(&name.as_str()) {
            return self.clone().write(now, &name, key, args);
        }
        self.write(now, &name, key, args)
    }

    fn write(&mut self, now: i64, name: &str, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let arg = |at: usize| args.get(at).cloned().ok_or("too few arguments".to_owned());
        match name {
            "GET" => self.read(&key, |entry| bulk(entry.text().map(<[u8]>::to_vec))),
            "MGET" => {
                let texts = args[1..].iter().map(|key| {
                    let entry = self.entries.get(&key[..]);
                    bulk(entry.and_then(|entry| entry.text()).map(<[u8]>::to_vec))
                });
                Ok(Value::Array(texts.collect()))
            }
            "SET" => self.set(now, key, args),
            "MSET" => {
                for pair in args[1..].chunks(2) {
                    let set = [b"SET".to_vec(), pair[0].clone(), pair[1].clone()];
                    self.set(now, pair[0].clone(), &set)?;
                }
                Ok(Value::Okay)
            }
            "INCR" => self.add(key, 1),
            "DECR" => self.add(key, -1),
            "DEL" => {
                let gone = args[1..].iter();
                let gone = gone.filter(|key| self.remove(key));
                Ok(Value::Int(gone.count() as i64))
            }
            "EXISTS" => Ok(Value::Int(self.entries.contains_key(&key[..]).into())),
            "PEXPIRE" => {
                let span: i64 = parse(&arg(2)?)?;
                if let Some(entry) = Arc::make_mut(&mut self.entries).get_mut(&key[..]) {
                    Arc::make_mut(entry).expires_at = Some(now + span);
                }
                Ok(Value::Int(1))
            }
            "HSET" | "HSETNX" | "HGET" | "HMGET" | "HGETALL" | "HVALS" | "HLEN" | "HINCRBY"
            | "HDEL" | "HEXISTS" | "HRANDFIELD" => self.of_hash(name, key, &args[2..]),
            "SADD" | "SREM" | "SPOP" | "SCARD" | "SSCAN" | "SISMEMBER" => {
                self.of_set(name, key, &args[2..])
            }
            "ZADD" | "ZREM" | "ZREMRANGEBYSCORE" | "ZCARD" | "ZCOUNT" | "ZSCORE" | "ZMSCORE"
            | "ZRANGE" => self.of_sorted(name, key, &args[2..]),
            "LPUSH" | "LTRIM" | "LRANGE" => self.of_list(name, key, &args[2..]),
            _ => Err(format!("ERR unknown command {name}")),
        }
    }

    /// Whether nothing was written since the other was copied.
    pub fn is_same(&self, other: &Data) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.entries.contains_key(key) && Arc::make_mut(&mut self.entries).remove(key).is_some()
    }

    fn read(&self, key: &[u8], read: impl FnOnce(&Entry) -> Value) -> Answer {
        Ok(self
            .entries
            .get(key)
            .map_or(Value::Nil, |entry| read(entry)))
    }

    fn set(&mut self, now: i64, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let mut expires_at = None;
        let mut options = args[3..].iter();
        while let Some(option) = options.next() {
            match word(option).as_str() {
                "NX" if self.entries.contains_key(&key[..]) => return Ok(Value::Nil),
                "NX" => {}
                "PX" => {
                    let span: i64 = parse(options.next().ok_or("PX")?)?;
                    expires_at = Some(now + span);
                }
                option => return Err(format!("ERR SET {option}")),
            }
        }
        let item = Item::Text(args[2].clone());
        let entries = Arc::make_mut(&mut self.entries);
        entries.insert(key.into(), Arc::new(Entry { item, expires_at }));
        Ok(Value::Okay)
    }

    fn add(&mut self, key: Vec<u8>, by: i64) -> Answer {
        let Item::Text(text) = self.item(key, || Item::Text(b"0".to_vec())) else {
            return Err("WRONGTYPE".to_owned());
        };
        let number = parse::<i64>(text)? + by;
        *text = number.to_string().into_bytes();
        Ok(Value::Int(number))
    }

    fn item(&mut self, key: Vec<u8>, empty: impl FnOnce() -> Item) -> &mut Item {
        let fresh = || {
            Arc::new(Entry {
                item: empty(),
                expires_at: None,
            })
        };
        let entries = Arc::make_mut(&mut self.entries);
        &mut Arc::make_mut(entries.entry(key.into()).or_insert_with(fresh)).item
    }

    fn of_hash(&mut self, name: &str, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let Item::Hash(hash) = self.item(key.clone(), || Item::Hash(BTreeMap::new())) else {
            return Err("WRONGTYPE".to_owned());
        };
        let field = args.first().cloned().unwrap_or_default();
        let answer = match name {
            "HSET" => {
                for pair in args.chunks(2) {
                    hash.insert(pair[0].clone(), pair[1].clone());
                }
                Value::Int(1)
            }
            "HSETNX" => {
                let is_new = !hash.contains_key(&field);
                hash.entry(field).or_insert(args[1].clone());
                Value::Int(is_new.into())
            }
            "HGET" => bulk(hash.get(&field).cloned()),
            "HMGET" => Value::Array(args.iter().map(|f| bulk(hash.get(f).cloned())).collect()),
            "HGETALL" => array(hash.iter().flat_map(|(f, v)| [f.clone(), v.clone()])),
            "HVALS" => array(hash.values().cloned()),
            "HLEN" => Value::Int(hash.len() as i64),
            "HEXISTS" => Value::Int(hash.contains_key(&field).into()),
            "HINCRBY" => {
                let by: i64 = parse(&args[1])?;
                let number = hash.get(&field).map_or(Ok(0), |n| parse::<i64>(n))? + by;
                hash.insert(field, number.to_string().into_bytes());
                Value::Int(number)
            }
            "HDEL" => {
                let gone = args.iter().filter(|f| hash.remove(*f).is_some()).count();
                Value::Int(gone as i64)
            }
            _ => {
                let max: usize = parse(&field)?;
                let some = hash.iter().take(max);
                array(some.flat_map(|(f, v)| [f.clone(), v.clone()]))
            }
        };
        if hash.is_empty() {
            self.remove(&key);
        }
        Ok(answer)
    }

    fn of_set(&mut self, name: &str, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let Item::Set(set) = self.item(key.clone(), || Item::Set(BTreeSet::new())) else {
            return Err("WRONGTYPE".to_owned());
        };
        let answer = match name {
            "SADD" => Value::Int(args.iter().filter(|m| set.insert((*m).clone())).count() as i64),
            "SREM" => Value::Int(args.iter().filter(|m| set.remove(*m)).count() as i64),
            "SCARD" => Value::Int(set.len() as i64),
            "SISMEMBER" => Value::Int(set.contains(&args[0]).into()),
            "SSCAN" => Value::Array(vec![
                Value::BulkString(b"0".to_vec()),
                array(set.iter().cloned()),
            ]),
            _ => {
                let max: usize = parse(&args[0])?;
                let some: Vec<_> = (0..max).map_while(|_| set.pop_first()).collect();
                array(some)
            }
        };
        if set.is_empty() {
            self.remove(&key);
        }
        Ok(answer)
    }

    fn of_sorted(&mut self, name: &str, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let Item::Sorted(sorted) = self.item(key.clone(), || Item::Sorted(BTreeMap::new())) else {
            return Err("WRONGTYPE".to_owned());
        };
        let answer = match name {
            "ZADD" => {
                let condition = word(&args[0]);
                let pairs = match condition.as_str() {
                    "NX" | "LT" => &args[1..],
                    _ => args,
                };
                let mut added = 0;
                for pair in pairs.chunks(2) {
                    let (score, known) = (parse(&pair[0])?, sorted.get(&pair[1]).copied());
                    added += i64::from(known.is_none());
                    let is_wanted = match condition.as_str() {
                        "NX" => known.is_none(),
                        "LT" => known.is_none_or(|known| score < known),
                        _ => true,
                    };
                    if is_wanted {
                        sorted.insert(pair[1].clone(), score);
                    }
                }
                Value::Int(added)
            }
            "ZCOUNT" | "ZREMRANGEBYSCORE" => {
                let (low, high) = (bound(&word(&args[0]))?, bound(&word(&args[1]))?);
                let (all, is_in) = (sorted.len(), |score: f64| is_between(score, low, high));
                if name == "ZREMRANGEBYSCORE" {
                    sorted.retain(|_, score| !is_in(*score));
                    Value::Int((all - sorted.len()) as i64)
                } else {
                    Value::Int(sorted.values().filter(|score| is_in(**score)).count() as i64)
                }
            }
            "ZSCORE" => score_of(sorted, &args[0]),
            "ZMSCORE" => Value::Array(args.iter().map(|one| score_of(sorted, one)).collect()),
            "ZREM" => {
                let gone = args.iter().filter(|m| sorted.remove(*m).is_some()).count();
                Value::Int(gone as i64)
            }
            "ZCARD" => Value::Int(sorted.len() as i64),
            _ => range(sorted, args)?,
        };
        if sorted.is_empty() {
            self.remove(&key);
        }
        Ok(answer)
    }

    fn of_list(&mut self, name: &str, key: Vec<u8>, args: &[Vec<u8>]) -> Answer {
        let Item::List(list) = self.item(key.clone(), || Item::List(VecDeque::new())) else {
            return Err("WRONGTYPE".to_owned());
        };
        let answer = match name {
            "LPUSH" => {
                args.iter().for_each(|one| list.push_front(one.clone()));
                Value::Int(list.len() as i64)
            }
            "LTRIM" => {
                list.truncate(parse::<usize>(&args[1])? + 1);
                Value::Okay
            }
            _ => array(list.iter().cloned()),
        };
        if list.is_empty() {
            self.remove(&key);
        }
        Ok(answer)
    }
}

impl Entry {
    pub fn text(&self) -> Option<&[u8]> {
        match &self.item {
            Item::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn sorted(&self) -> BTreeMap<String, f64> {
        match &self.item {
            Item::Sorted(sorted) => sorted.iter().map(|(m, s)| (word(m), *s)).collect(),
            _ => BTreeMap::new(),
        }
    }

    pub fn hash(&self) -> BTreeMap<String, String> {
        match &self.item {
            Item::Hash(hash) => hash.iter().map(|(f, v)| (word(f), word(v))).collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// `ZRANGE` by place, or by score forwards and backwards.
fn range(sorted: &BTreeMap<Vec<u8>, f64>, args: &[Vec<u8>]) -> Answer {
    let mut members: Vec<_> = sorted.iter().map(|(m, s)| (*s, m.clone())).collect();
    members.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    let words: Vec<String> = args.iter().map(|arg| word(arg)).collect();
    let has = |option: &str| words.iter().skip(2).any(|word| word == option);
    if has("BYSCORE") {
        let (mut low, mut high) = (&words[0], &words[1]);
        if has("REV") {
            members.reverse();
            std::mem::swap(&mut low, &mut high);
        }
        let (low, high) = (bound(low)?, bound(high)?);
        members.retain(|(score, _)| is_between(*score, low, high));
        if let Some(at) = words.iter().position(|word| word == "LIMIT") {
            let offset: usize = parse(words[at + 1].as_bytes())?;
            let max: usize = parse(words[at + 2].as_bytes())?;
            members = members.into_iter().skip(offset).take(max).collect();
        }
    } else {
        let (first, last): (i64, i64) = (parse(&args[0])?, parse(&args[1])?);
        let from_end = |at: i64| {
            if at < 0 {
                members.len() as i64 + at
            } else {
                at
            }
        };
        let (first, last) = (from_end(first), from_end(last));
        let count = usize::try_from(last - first.max(0) + 1).unwrap_or(0);
        members = members
            .into_iter()
            .skip(usize::try_from(first).unwrap_or(0))
            .take(count)
            .collect();
    }
    let with_scores = has("WITHSCORES");
    let flat = members.into_iter().flat_map(|(score, member)| {
        let score = with_scores.then(|| score_text(score).into_bytes());
        [Some(member), score].into_iter().flatten()
    });
    Ok(array(flat))
}

fn score_of(sorted: &BTreeMap<Vec<u8>, f64>, member: &[u8]) -> Value {
    bulk(
        sorted
            .get(member)
            .map(|score| score_text(*score).into_bytes()),
    )
}

fn is_between(score: f64, low: (f64, bool), high: (f64, bool)) -> bool {
    (score > low.0 || score == low.0 && !low.1) && (score < high.0 || score == high.0 && !high.1)
}

/// A bound of scores, and whether it is left out itself.
fn bound(text: &str) -> Result<(f64, bool), String> {
    let (text, is_open) = match text.strip_prefix('(') {
        Some(text) => (text, true),
        None => (text, false),
    };
    Ok((parse(text.as_bytes())?, is_open))
}

pub fn score_text(score: f64) -> String {
    if score.fract() == 0.0 && score.abs() < 1e17 {
        format!("{score:.0}")
    } else {
        score.to_string()
    }
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(text).unwrap_or("?");
    text.parse()
        .map_err(|_| format!("ERR not a number: {text}"))
}

pub fn word(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bulk(text: Option<Vec<u8>>) -> Value {
    text.map_or(Value::Nil, Value::BulkString)
}

fn array(items: impl IntoIterator<Item = Vec<u8>>) -> Value {
    Value::Array(items.into_iter().map(Value::BulkString).collect())
}
