//! What an audit of a store has found: where the records contradict each other. An audit changes nothing, and may
//! run beside a service that works.

use std::collections::{BTreeMap, HashMap};

use crate::domain::file::BlobName;

/// Findings that are kept word by word; further ones are only counted.
pub const FINDINGS_MAX: usize = 200;

#[derive(Debug, Default)]
pub struct Audit {
    /// One line each: what it is, and what is wrong with it.
    findings: Vec<String>,
    wrong: u64,
    seen: BTreeMap<&'static str, u64>,
    /// What could not be judged while others were at work.
    unsettled: Vec<String>,
    /// Stored copies that records name, and their sizes in bytes.
    pub copies: HashMap<BlobName, u64>,
}

impl Audit {
    /// Names come from users: whatever they hold, a finding is one line.
    pub fn found(&mut self, finding: &str) {
        self.wrong += 1;
        if self.findings.len() < FINDINGS_MAX {
            let line = finding.chars().flat_map(|c| match c.is_control() {
                true => c.escape_default().collect::<Vec<_>>(),
                false => vec![c],
            });
            self.findings.push(line.collect());
        }
    }

    pub fn saw(&mut self, kind: &'static str, count: usize) {
        *self.seen.entry(kind).or_default() += count as u64;
    }

    pub fn cannot_settle(&mut self, what: String) {
        self.unsettled.push(what);
    }

    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// All findings, with those that were only counted.
    pub fn wrong(&self) -> u64 {
        self.wrong
    }

    pub fn unsettled(&self) -> &[String] {
        &self.unsettled
    }

    /// How many records of each kind were looked at.
    pub fn seen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.seen.iter().map(|(kind, count)| (*kind, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_all_are_counted() {
        let mut audit = Audit::default();
        audit.found("key a\nb: it names no task");
        assert_eq!(audit.findings(), [r"key a\nb: it names no task"]);
        for _ in 0..FINDINGS_MAX {
            audit.found("again");
        }
        assert_eq!(audit.findings().len(), FINDINGS_MAX);
        assert_eq!(audit.wrong(), FINDINGS_MAX as u64 + 1);
    }
}
