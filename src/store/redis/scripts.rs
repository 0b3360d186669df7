//! The verbs as Redis runs them: one Lua file each, put together with the parts that it uses.

use std::sync::LazyLock;

/// A script and the digest that Redis knows it by.
pub struct Script {
    pub name: &'static str,
    pub text: String,
    pub sha1: String,
    pub kind: Kind,
}

/// What a script is to the partition that it works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its answer promises that something is on record.
    Promises,
    /// It writes, and promises nothing.
    Writes,
    Reads,
    /// It belongs to no partition.
    Apart,
}

impl Kind {
    /// The part that watches over what the partition remembers.
    fn mark(self) -> Option<&'static str> {
        match self {
            Kind::Promises | Kind::Writes => Some(include_str!("lua/parts/mark.lua")),
            Kind::Reads => Some(include_str!("lua/parts/mark_read.lua")),
            Kind::Apart => None,
        }
    }
}

impl Script {
    /// The parts follow the first line, which must stay the first: with `#!lua` a script that Redis has
    /// no memory for is refused whole. The verb's answer goes behind the mark.
    fn new(name: &'static str, kind: Kind, verb: &'static str, parts: &[&'static str]) -> Self {
        let (shebang, verb) = verb.split_once('\n').unwrap_or((verb, ""));
        let parts = parts.concat();
        let text = match kind.mark() {
            Some(mark) => format!(
                "{shebang}\n{mark}{parts}local function verb()\n{verb}end\nreturn {{ mark, verb() }}\n"
            ),
            None => format!("{shebang}\n{parts}{verb}"),
        };
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Script {
            name,
            text,
            sha1,
            kind,
        }
    }
}

macro_rules! parts {
    ($($part:ident),*) => { &[$(include_str!(concat!("lua/parts/", stringify!($part), ".lua"))),*] };
}

/// One line a verb: its constant, its file, what it is, and its parts in order.
macro_rules! scripts {
    ($($name:ident = $file:literal $kind:ident [$($part:ident),* $(,)?];)+) => {
        $(pub static $name: LazyLock<Script> = LazyLock::new(|| {
            let verb = include_str!(concat!("lua/", $file, ".lua"));
            Script::new($file, Kind::$kind, verb, parts!($($part),*))
        });)+

        #[cfg(test)]
        pub fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    ADMIT = "admit" Promises [clock, record, counters, queue, moves, files, claim, judge];
    CHECK = "check" Reads [clock, record, claim, judge];
    LEASE = "lease" Writes [clock, record, counters, queue, moves];
    EXTEND = "extend" Writes [clock, record, counters, queue, holder];
    COMPLETE = "complete" Promises [clock, record, counters, queue, moves, files, ending, holder];
    FAIL = "fail" Promises [clock, record, counters, queue, moves, files, ending, holder];
    RELEASE = "release" Writes [clock, record, counters, queue, moves, files, ending, holder];
    CANCEL = "cancel" Promises [clock, record, counters, queue, moves, files, ending, owner];
    REDRIVE = "redrive" Promises [clock, record, counters, queue, moves, claim, owner];
    FORGET = "forget" Promises [clock, record, counters, queue, moves, files, ending, owner];
    RESCUE = "rescue" Writes [clock, record, counters, queue, moves, files, ending];
    GET = "get" Reads [];
    LIST = "list" Reads [record];
    NOTE = "note" Writes [clock, record, counters];
    FOLD = "fold" Writes [record];
    STATS = "stats" Reads [clock, record];
    KEEP_FILE = "keep_file" Promises [clock, files];
    CREATE_API_KEY = "create_api_key" Promises [];
    REVOKE_API_KEY = "revoke_api_key" Promises [clock];
    MARK = "mark" Writes [];
    MUSTER = "muster" Writes [clock];
    OPEN = "open" Apart [];
    ACCEPT = "accept" Apart [];
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

    #[test]
    fn only_scripts_that_change_nothing_say_so() {
        for script in all() {
            let says_so = script.text.starts_with("#!lua flags=no-writes\n");
            assert_eq!(says_so, script.kind == Kind::Reads, "{}", script.name);
        }
    }
}
