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
    /// Its answer promises that something is on record, and that raises the replica's mark.
    Promises,
    /// As [`Kind::Promises`], where it says so.
    Admits,
    /// It writes, and promises nothing.
    Writes,
    Reads,
    /// It belongs to no partition.
    Apart,
}

impl Kind {
    /// Whether an answer promises anything.
    pub fn promises(self) -> bool {
        matches!(self, Kind::Promises | Kind::Admits)
    }

    /// What comes between the verb, whose answer is `reply`, and the end.
    fn raise(self) -> &'static str {
        match self {
            Kind::Promises => "mark = redis.call('INCR', mark_key)\n",
            Kind::Admits => "if promised then\n  mark = redis.call('INCR', mark_key)\nend\n",
            Kind::Writes | Kind::Reads | Kind::Apart => "",
        }
    }
}

impl Script {
    /// The parts follow the first line, which must stay the first: with `#!lua` a script that Redis has
    /// no memory for is refused whole. The mark is looked at before anything else, and told with the answer.
    ///
    /// A verb whose usual way needs few parts takes the others where it says so: Lua makes every function of
    /// a part anew at each call.
    fn new(
        name: &'static str,
        kind: Kind,
        verb: &'static str,
        parts: &[&'static str],
        later: &[&'static str],
    ) -> Self {
        let (shebang, verb) = verb.split_once('\n').unwrap_or((verb, ""));
        let parts = parts.concat();
        let verb = verb.replace(LATER, &later.concat());
        let text = match kind {
            Kind::Apart => format!("{shebang}\n{parts}{verb}"),
            _ => format!(
                "{shebang}\n{MARK_PART}{parts}local function verb()\n{verb}end\nlocal reply = verb()\n\
                 {}return {{ mark, reply }}\n",
                kind.raise()
            ),
        };
        #[cfg(feature = "seeded-faults")]
        let text = super::seeded_faults::put_into(name, text);
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Script {
            name,
            text,
            sha1,
            kind,
        }
    }
}

/// Watches over what the partition remembers.
const MARK_PART: &str = include_str!("lua/parts/mark.lua");

/// The line of a verb where the other parts come.
const LATER: &str = "-- The other parts come here.\n";

macro_rules! parts {
    ($($part:ident),*) => { &[$(include_str!(concat!("lua/parts/", stringify!($part), ".lua"))),*] };
}

/// One line a verb: its constant, its file, what it is, its parts in order, and those that come later.
macro_rules! scripts {
    ($($name:ident = $file:literal $kind:ident [$($part:ident),*] $(then [$($later:ident),*])?;)+) => {
        $(pub static $name: LazyLock<Script> = LazyLock::new(|| {
            let verb = include_str!(concat!("lua/", $file, ".lua"));
            Script::new($file, Kind::$kind, verb, parts!($($part),*), parts!($($($later),*)?))
        });)+

        #[cfg(test)]
        pub fn all() -> Vec<&'static Script> {
            vec![$(&*$name),+]
        }
    };
}

scripts! {
    ADMIT = "admit" Admits [clock, counters, places] then [record, claim, standing, matching, judge, queue, moves, files, callbacks, behind, ending];
    CHECK = "check" Reads [clock, record, claim, standing, matching, judge];
    LEASE = "lease" Writes [clock, record, counters, places, queue, moves];
    PERMITS = "permits" Writes [clock];
    EXTEND = "extend" Writes [clock, record, counters, places, queue, moves, holder];
    COMPLETE = "complete" Promises [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending];
    FAIL = "fail" Promises [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending, holder];
    RELEASE = "release" Writes [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending, holder];
    CANCEL = "cancel" Promises [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending, owner];
    REDRIVE = "redrive" Promises [clock, record, counters, places, queue, moves, claim, standing, matching, owner];
    FORGET = "forget" Promises [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending, owner];
    RESCUE = "rescue" Writes [clock, record, counters, places, queue, moves, files, claim, matching, behind, callbacks, ending];
    TELL = "tell" Writes [clock, record, counters, places, queue, moves, callbacks];
    GET = "get" Reads [record];
    LIST = "list" Reads [record];
    NOTE = "note" Writes [clock, record, counters];
    FOLD = "fold" Writes [record];
    SPEND = "spend" Writes [];
    STATS = "stats" Reads [clock, record, places];
    HISTORY = "history" Reads [];
    PRESENT = "present" Reads [];
    UNOWNED = "unowned" Reads [];
    FORGET_FILE = "forget_file" Promises [files];
    KEEP_FILE = "keep_file" Promises [clock, files];
    AGREE = "agree" Promises [];
    SET_WEBHOOK_SECRET = "set_webhook_secret" Promises [clock];
    CREATE_API_KEY = "create_api_key" Promises [];
    PUT_SCHEDULE = "put_schedule" Promises [clock, places, schedules];
    SCHEDULES = "schedules" Reads [schedules];
    DUE_SCHEDULES = "due_schedules" Reads [clock, schedules];
    RECORD_FIRING = "record_firing" Writes [clock, schedules];
    PUT_OFF_SCHEDULE = "put_off_schedule" Writes [clock, schedules];
    DELETE_SCHEDULE = "delete_schedule" Promises [schedules];
    PAUSE = "pause" Promises [clock, places];
    REVOKE_API_KEY = "revoke_api_key" Promises [clock];
    MARK = "mark" Writes [];
    REGISTER = "register" Admits [];
    MUSTER = "muster" Writes [clock];
    OPEN = "open" Apart [];
    AGREED = "agreed" Apart [];
    REPORT = "report" Apart [];
    ACCEPT = "accept" Apart [];
    AUDIT = "audit" Reads [clock, record, places, files, claim, matching, schedules];
    AUDIT_MEMBERS = "audit_members" Reads [clock, record, places, files, claim, matching, schedules];
    AUDIT_COUNTS = "audit_counts" Reads [places];
    AUDIT_NEEDS = "audit_needs" Reads [record, places, files];
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
            let is_one = script.kind == Kind::Reads || script.name == "agreed";
            assert_eq!(says_so, is_one, "{}", script.name);
        }
    }
}
