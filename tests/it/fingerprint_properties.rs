//! What a fingerprint sees and what it does not; its canonical JSON against another implementation of RFC 8785.

use std::io::Write as _;
use std::process::{Command, Stdio};

use justonce::domain::digest::Sha256Digest;
use justonce::domain::file::File;
use justonce::domain::fingerprint::{
    Algorithm, Content, Fingerprint, FingerprintRule, FingerprintScope,
};
use justonce::domain::json;
use justonce::domain::principal::UserId;
use justonce::domain::timestamp::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value};

use crate::support::python::python;

/// A piece of work, in owned parts.
#[derive(Clone, Debug)]
struct Work {
    user: String,
    task_type: String,
    run_at: Option<i64>,
    params: Value,
    files: Vec<Vec<u8>>,
}

impl Work {
    fn fingerprint(&self) -> Fingerprint {
        let rule = FingerprintRule {
            algorithm: Algorithm::V1,
            scope: FingerprintScope::Type,
            version: 1,
            ignore: vec![],
            file_name: false,
        };
        let file = |bytes: &Vec<u8>| File {
            part: None,
            sha256: Sha256Digest::of(bytes),
            size: bytes.len() as u64,
            name: None,
            media_type: None,
            generation: None,
        };
        let files: Vec<_> = self.files.iter().map(file).collect();
        rule.fingerprint(&Content {
            user: &UserId::parse(&self.user).unwrap(),
            task_type: &self.task_type,
            group: None,
            run_at: self.run_at.map(Timestamp::from_ms),
            params: &self.params,
            files: &files,
        })
    }
}

/// Numbers as JSON writes them in many ways; within what is accepted.
fn number() -> impl Strategy<Value = Value> {
    const SAFE: i64 = 1 << 53;
    prop_oneof![
        (-SAFE..=SAFE).prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f32>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(|f| Value::from(f64::from(f))),
        any::<f64>()
            .prop_filter("finite", |f| f.is_finite())
            .prop_map(Value::from),
        proptest::sample::select(vec![0.0, -0.0, 1e21, 1e-7, 5e-324, 1.5e308])
            .prop_map(Value::from),
    ]
    .prop_filter("acceptable", |number| {
        json::parse(number.to_string().as_bytes(), 1).is_ok()
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,4}",
        "\\PC{0,8}",
        proptest::sample::select(vec![
            "\u{20ac}\r",
            "\u{1f600}",
            "\u{fb33}",
            "\u{7f}",
            "\u{0}\u{1f}",
            "e\u{301}",
            "\u{2028}"
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            proptest::collection::btree_map(text(), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn work() -> impl Strategy<Value = Work> {
    let files = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..3);
    let run_at = proptest::option::of(0..4_000_000_000_000i64);
    ("[a-z]{1,8}", "[a-z_]{1,8}", run_at, value(), files).prop_map(
        |(user, task_type, run_at, params, files)| Work {
            user,
            task_type,
            run_at,
            params,
            files,
        },
    )
}

/// The same JSON in another spelling: members turned around, white space, escapes, exponents.
fn respelled(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) => format!(" {value}\n"),
        Value::Number(number) => match number.as_i64() {
            Some(integer) if integer.abs() < 1_000_000_000 => format!("{integer}.0e0"),
            _ => format!("\t{number} "),
        },
        Value::String(text) => escaped(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(respelled).collect();
            format!("[ {} ]", items.join(" ,"))
        }
        Value::Object(members) => {
            let members = members.iter().rev();
            let members: Vec<_> = members
                .map(|(name, value)| format!("{} : {}", escaped(name), respelled(value)))
                .collect();
            format!("{{\r\n{}}}", members.join(",\n"))
        }
    }
}

fn escaped(text: &str) -> String {
    let units: String = text
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04X}"))
        .collect();
    format!("\"{units}\"")
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn the_spelling_does_not_matter(work in work()) {
        let text = respelled(&work.params);
        let params = json::parse(text.as_bytes(), 64).unwrap();
        let mut again = Work { params, ..work.clone() };
        prop_assert_eq!(again.fingerprint(), work.fingerprint(), "{}", text);
        again.files.reverse();
        prop_assert_eq!(again.fingerprint(), work.fingerprint());
    }

    #[test]
    fn every_part_matters(work in work(), place in any::<prop::sample::Index>(), bit in 0..8u8) {
        let base = work.fingerprint();
        let differs = |change: &dyn Fn(&mut Work)| {
            let mut other = work.clone();
            change(&mut other);
            other.fingerprint() != base
        };
        prop_assert!(differs(&|w| w.user.push('x')));
        prop_assert!(differs(&|w| w.task_type.push('x')));
        prop_assert!(differs(&|w| w.run_at = Some(w.run_at.map_or(0, |at| at + 1))));
        prop_assert!(differs(&|w| w.params = Value::Array(vec![w.params.clone()])));
        prop_assert!(differs(&|w| w.files.push(vec![])));
        if let Some(last) = work.files.len().checked_sub(1) {
            prop_assert!(differs(&|w| w.files[last].push(0)));
            prop_assert!(differs(&|w| w.files.truncate(last)));
            if !work.files[last].is_empty() {
                let at = place.index(work.files[last].len());
                prop_assert!(differs(&|w| w.files[last][at] ^= 1 << bit));
            }
        }
    }

    #[test]
    fn different_params_have_different_fingerprints(work in work(), other in value()) {
        let same = json::canonical(&work.params) == json::canonical(&other);
        let changed = Work { params: other, ..work.clone() };
        prop_assert_eq!(changed.fingerprint() == work.fingerprint(), same);
    }
}

#[test]
fn fields_do_not_run_into_each_other() {
    let work = |user: &str, task_type: &str| Work {
        user: user.to_owned(),
        task_type: task_type.to_owned(),
        run_at: None,
        params: Value::Object(Map::new()),
        files: vec![],
    };
    assert_ne!(work("ab", "c").fingerprint(), work("a", "bc").fingerprint());
}

/// Each line of input is a JSON text; each line of output its canonical form in hexadecimal.
const OTHER_IMPLEMENTATION: &str = r#"
import json, sys, rfc8785
def exact(text):
    number = int(text)
    return number if abs(number) < 2**53 else float(number)
for line in sys.stdin:
    print(rfc8785.dumps(json.loads(line, parse_int=exact)).hex())
"#;

#[test]
fn the_canonical_form_is_the_one_of_another_implementation() {
    const CORPUS: usize = 3_000;
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let corpus: Vec<Value> = (0..CORPUS)
        .map(|_| value().new_tree(&mut runner).unwrap().current())
        .collect();
    let mut python = Command::new(python())
        .args(["-c", OTHER_IMPLEMENTATION])
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`make test` installs python's rfc8785");
    let texts: Vec<_> = corpus
        .iter()
        .map(|value| value.to_string().replace('\u{2028}', "\\u2028"))
        .collect();
    let mut stdin = python.stdin.take().unwrap();
    let input = texts.join("\n") + "\n";
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(theirs.lines().count(), CORPUS);
    for ((value, text), theirs) in corpus.iter().zip(&texts).zip(theirs.lines()) {
        let ours: String = json::canonical(value)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(ours, theirs, "{text}");
    }
}
