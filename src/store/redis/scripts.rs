//! The verbs as Redis runs them: one Lua file each, put together with the parts that it uses.

use std::sync::LazyLock;

/// A script and the digest that Redis knows it by.
pub struct Script {
    pub name: &'static str,
    pub text: String,
    pub sha1: String,
}

impl Script {
    /// The parts follow the first line, which must stay the first: with `#!lua` a script that Redis has
    /// no memory for is refused whole.
    fn new(name: &'static str, verb: &'static str, parts: &[&'static str]) -> Self {
        let (shebang, verb) = verb.split_once('\n').unwrap_or((verb, ""));
        let text = format!("{shebang}\n{}{verb}", parts.concat());
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Script { name, text, sha1 }
    }
}

macro_rules! parts {
    ($($part:ident),*) => { &[$(include_str!(concat!("lua/parts/", stringify!($part), ".lua"))),*] };
}

/// One line a verb: its constant, its file, and its parts in order.
macro_rules! scripts {
    ($($name:ident = $file:literal [$($part:ident),* $(,)?];)+) => {
        $(pub static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new($file, include_str!(concat!("lua/", $file, ".lua")), parts!($($part),*))
        });)+

        #[cfg(test)]
        pub fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    ADMIT = "admit" [clock, record, counters, queue, moves, files, claim, judge];
    CHECK = "check" [clock, record, claim, judge];
    LEASE = "lease" [clock, record, counters, queue, moves];
    EXTEND = "extend" [clock, record, counters, queue, holder];
    COMPLETE = "complete" [clock, record, counters, queue, moves, files, ending, holder];
    FAIL = "fail" [clock, record, counters, queue, moves, files, ending, holder];
    RELEASE = "release" [clock, record, counters, queue, moves, files, ending, holder];
    CANCEL = "cancel" [clock, record, counters, queue, moves, files, ending, owner];
    REDRIVE = "redrive" [clock, record, counters, queue, moves, claim, owner];
    FORGET = "forget" [clock, record, counters, queue, moves, files, ending, owner];
    RESCUE = "rescue" [clock, record, counters, queue, moves, files, ending];
    GET = "get" [];
    LIST = "list" [record];
    NOTE = "note" [clock, record, counters];
    FOLD = "fold" [record];
    STATS = "stats" [clock, record];
    KEEP_FILE = "keep_file" [clock, files];
    REVOKE_API_KEY = "revoke_api_key" [clock];
    OPEN = "open" [];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_script_begins_with_its_shebang_and_says_what_it_takes_and_gives() {
        for script in all() {
            assert!(script.text.starts_with("#!lua"), "{}", script.name);
            for word in ["KEYS[1]", "ARGV", "Replies"] {
                assert!(script.text.contains(word), "{}: {word}", script.name);
            }
            assert_eq!(script.text.matches("#!lua").count(), 1, "{}", script.name);
        }
    }
}
