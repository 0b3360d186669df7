//! One piece of work, told by its content.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::digest::Sha256Digest;
use super::file::File;
use super::json;
use super::principal::UserId;
use super::timestamp::Timestamp;

/// SHA-256 over user, task type or group, version, start time, canonical params and files.
/// Shown as `v1:` and 64 hexadecimal digits; the prefix names the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(Sha256Digest);

impl Fingerprint {
    pub const fn from_digest(digest: Sha256Digest) -> Self {
        Fingerprint(digest)
    }

    pub fn digest(&self) -> &Sha256Digest {
        &self.0
    }

    pub fn parse(text: &str) -> Option<Self> {
        Sha256Digest::parse_hex(text.strip_prefix("v1:")?).map(Fingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1:{}", self.0)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a fingerprint is made. A key remembers the rule that it arrived under, so that a repeat is
/// compared as it was then, whatever the configuration says today.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintRule {
    pub algorithm: Algorithm,
    pub scope: FingerprintScope,
    /// The task type's version.
    pub version: u32,
    /// JSON pointers into params that are no part of the work's identity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Whether a file's name is part of the work's identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub file_name: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    V1,
}

/// Within what a user's fingerprints are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FingerprintScope {
    Type,
    /// Several types of one user share their fingerprints.
    Group(String),
}

impl FingerprintScope {
    pub fn group(&self) -> Option<&str> {
        match self {
            FingerprintScope::Group(name) => Some(name),
            FingerprintScope::Type => None,
        }
    }

    /// A type that has left the recorded group counts by its own name again.
    pub(super) fn within<'a>(&'a self, content: &Content<'a>) -> (&'static str, &'a str) {
        match self {
            FingerprintScope::Group(name) if content.group == Some(name.as_str()) => {
                ("group", name)
            }
            FingerprintScope::Group(_) | FingerprintScope::Type => ("type", content.task_type),
        }
    }
}

/// What a fingerprint is made of.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    pub user: &'a UserId,
    pub task_type: &'a str,
    /// The `dedup.group` of the type, when it has one.
    pub group: Option<&'a str>,
    pub run_at: Option<Timestamp>,
    pub params: &'a Value,
    pub files: &'a [File],
}

impl FingerprintRule {
    pub fn fingerprint(&self, content: &Content<'_>) -> Fingerprint {
        let mut fields = Fields::of(b"justonce fingerprint v1");
        fields.add(content.user.as_str().as_bytes());
        let (kind, name) = self.scope.within(content);
        fields.add(kind.as_bytes()).add(name.as_bytes());
        fields.add(&self.version.to_be_bytes());
        match content.run_at {
            Some(at) => fields.add(b"at").add(&at.as_ms().to_be_bytes()),
            None => fields.add(b"now"),
        };
        fields.add(&self.canonical_params(content.params));
        for file in self.file_fields(content.files) {
            fields.add(&file);
        }
        Fingerprint(fields.finish())
    }

    /// A short hash of each field, so that a reused key can name what differs without keeping values.
    pub fn field_hashes(&self, content: &Content<'_>) -> FieldHashes {
        let mut hashes = BTreeMap::new();
        let (_, scope) = self.scope.within(content);
        hashes.insert("/type".to_owned(), short_hash(scope.as_bytes()));
        if let Some(at) = content.run_at {
            hashes.insert("/run_at".to_owned(), short_hash(&at.as_ms().to_be_bytes()));
        }
        let params = self.kept_params(content.params);
        let mut leaves = Vec::new();
        collect_leaves("/params", &params, &mut leaves);
        if leaves.len() > FieldHashes::FIELDS_MAX {
            leaves = vec![("/params".to_owned(), &*params)];
        }
        hashes.extend(
            leaves
                .into_iter()
                .map(|(at, value)| (at, short_hash(&json::canonical(value)))),
        );
        let files = self.file_fields(content.files);
        if !files.is_empty() {
            let name = if files.len() == 1 { "file" } else { "files" };
            hashes.insert(name.to_owned(), short_hash(&files.concat()));
        }
        FieldHashes(hashes)
    }

    fn canonical_params(&self, params: &Value) -> Vec<u8> {
        json::canonical(&self.kept_params(params))
    }

    fn kept_params<'a>(&self, params: &'a Value) -> std::borrow::Cow<'a, Value> {
        let mut kept = std::borrow::Cow::Borrowed(params);
        for pointer in &self.ignore {
            if kept.pointer(pointer).is_some() {
                remove(kept.to_mut(), pointer);
            }
        }
        kept
    }

    /// One field a file, in an order that does not depend on how they were sent.
    fn file_fields(&self, files: &[File]) -> Vec<Vec<u8>> {
        let field = |file: &File| {
            let mut field = file.sha256.as_bytes().to_vec();
            field.extend(file.size.to_be_bytes());
            if self.file_name {
                field.extend(file.name.as_deref().unwrap_or_default().as_bytes());
            }
            field
        };
        let mut fields: Vec<_> = files.iter().map(field).collect();
        fields.sort_unstable();
        fields
    }
}

/// Short hashes by field name: JSON pointers into the submission, `file` or `files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldHashes(BTreeMap<String, String>);

impl FieldHashes {
    /// With more leaves than this, params are hashed as one field.
    pub const FIELDS_MAX: usize = 128;

    /// The fields that are not the same in both.
    pub fn differing(&self, other: &FieldHashes) -> Vec<String> {
        let names = self.0.keys().chain(other.0.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .cloned()
            .collect()
    }
}

/// SHA-256 over fields with their lengths in front, so that no two lists of fields look the same.
pub(super) struct Fields(Sha256);

impl Fields {
    /// Of that kind: no two kinds look the same.
    pub(super) fn of(kind: &[u8]) -> Self {
        let mut fields = Fields(Sha256::new());
        fields.add(kind);
        fields
    }

    pub(super) fn add(&mut self, field: &[u8]) -> &mut Self {
        self.0.update((field.len() as u64).to_be_bytes());
        self.0.update(field);
        self
    }

    pub(super) fn finish(self) -> Sha256Digest {
        Sha256Digest::from_bytes(self.0.finalize().into())
    }
}

fn short_hash(bytes: &[u8]) -> String {
    Sha256Digest::of(bytes).to_string()[..16].to_owned()
}

fn collect_leaves<'a>(at: &str, value: &'a Value, leaves: &mut Vec<(String, &'a Value)>) {
    if leaves.len() > FieldHashes::FIELDS_MAX {
        return;
    }
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                collect_leaves(&json::pointer(at, name), value, leaves);
            }
        }
        _ => leaves.push((at.to_owned(), value)),
    }
}

fn remove(value: &mut Value, pointer: &str) {
    let Some((parent, name)) = pointer.rsplit_once('/') else {
        return;
    };
    let name = name.replace("~1", "/").replace("~0", "~");
    if let Some(Value::Object(members)) = value.pointer_mut(parent) {
        members.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule() -> FingerprintRule {
        FingerprintRule {
            algorithm: Algorithm::V1,
            scope: FingerprintScope::Type,
            version: 1,
            ignore: vec!["/trace_id".into()],
            file_name: false,
        }
    }

    fn of(rule: &FingerprintRule, user: &str, params: &Value) -> Fingerprint {
        let user = UserId::parse(user).unwrap();
        rule.fingerprint(&Content {
            user: &user,
            task_type: "t",
            group: Some("g"),
            run_at: None,
            params,
            files: &[],
        })
    }

    #[test]
    fn only_what_the_rule_names_counts() {
        let base = of(&rule(), "u", &json!({"a": 1, "b": [1, 2]}));
        assert_eq!(
            of(
                &rule(),
                "u",
                &json!({"b": [1, 2], "a": 1.0, "trace_id": "x"})
            ),
            base
        );
        assert_ne!(of(&rule(), "v", &json!({"a": 1, "b": [1, 2]})), base);
        assert_ne!(of(&rule(), "u", &json!({"a": 1, "b": [2, 1]})), base);
        assert_ne!(
            of(&rule(), "u", &json!({"a": 1, "b": [1, 2], "c": null})),
            base
        );
        assert_ne!(
            of(
                &FingerprintRule {
                    version: 2,
                    ..rule()
                },
                "u",
                &json!({"a": 1, "b": [1, 2]})
            ),
            base
        );
        let group = FingerprintRule {
            scope: FingerprintScope::Group("g".into()),
            ..rule()
        };
        assert_ne!(of(&group, "u", &json!({"a": 1, "b": [1, 2]})), base);
        assert_eq!(Fingerprint::parse(&base.to_string()), Some(base));
    }

    #[test]
    fn differing_fields_are_named_by_pointer() {
        let user = UserId::parse("u").unwrap();
        let hashes = |params: &Value, files: &[File]| {
            rule().field_hashes(&Content {
                user: &user,
                task_type: "t",
                group: Some("g"),
                run_at: None,
                params,
                files,
            })
        };
        let file = |bytes: &[u8]| File {
            part: None,
            sha256: Sha256Digest::of(bytes),
            size: bytes.len() as u64,
            name: None,
            media_type: None,
            generation: None,
        };
        let first = hashes(
            &json!({"lang": "de", "deep": {"x/y": 1, "z": 2}}),
            &[file(b"1")],
        );
        let second = hashes(
            &json!({"lang": "en", "deep": {"x/y": 1, "z": 3}, "new": 1}),
            &[file(b"2")],
        );
        assert_eq!(
            first.differing(&second),
            ["/params/deep/z", "/params/lang", "/params/new", "file"]
        );
        assert!(first.differing(&first.clone()).is_empty());
        let stored = serde_json::to_string(&first).unwrap();
        assert!(!stored.contains("\"de\""));
    }
}
