//! A report as one table (RFC 4180): a header, then one number a line, so that every program can filter and
//! pivot it.

use csv_core::{Terminator, WriteResult, Writer, WriterBuilder};

use super::numbers::Numbers;

const HEADER: [&str; 5] = ["section", "at", "name", "metric", "value"];

pub fn write(numbers: &Numbers) -> String {
    let mut table = Table::new();
    table.row(HEADER);
    let period = &numbers.period;
    let mut about = |metric: &str, value: &str| table.row(["report", "", "", metric, value]);
    about("generated_at", &numbers.generated_at.to_string());
    about("user", &numbers.user);
    about("from", &period.from.to_string());
    about("to", &period.to.to_string());
    about("bucket_seconds", &period.bucket_seconds.to_string());
    about("is_cut", &period.is_cut.to_string());
    for (metric, value) in numbers.totals.named() {
        table.row(["total", "", "", metric, &value.to_string()]);
    }
    for bucket in &numbers.buckets {
        let at = bucket.at.to_string();
        for (metric, value) in bucket.totals.named() {
            table.row(["bucket", &at, "", metric, &value.to_string()]);
        }
    }
    for (metric, value) in numbers.tasks.named() {
        table.row(["tasks", "", "", metric, &value.to_string()]);
    }
    for of_type in &numbers.by_type {
        for (metric, value) in of_type.counts.named() {
            table.row(["type", "", &of_type.name, metric, &value.to_string()]);
        }
    }
    for (name, quantiles) in numbers.latency_ms.named() {
        for (metric, value) in [
            ("p50_ms", quantiles.p50),
            ("p90_ms", quantiles.p90),
            ("p99_ms", quantiles.p99),
        ] {
            table.row(["latency", "", name, metric, &value.to_string()]);
        }
    }
    for task in &numbers.most_repeated {
        let newest = task.newest_at.map(|at| at.to_string()).unwrap_or_default();
        for (metric, value) in [
            ("type", task.task_type.clone()),
            ("state", task.state.to_owned()),
            ("duplicates", task.duplicates.to_string()),
            ("listed_by_key", task.listed_by_key.to_string()),
            (
                "listed_by_fingerprint",
                task.listed_by_fingerprint.to_string(),
            ),
            (
                "listed_seconds_saved",
                task.listed_seconds_saved.to_string(),
            ),
        ] {
            table.row(["repeated", &newest, &task.id, metric, &value]);
        }
    }
    table.text()
}

struct Table {
    writer: Writer,
    bytes: Vec<u8>,
}

impl Table {
    fn new() -> Self {
        Table {
            writer: WriterBuilder::new().terminator(Terminator::CRLF).build(),
            bytes: Vec::new(),
        }
    }

    fn row(&mut self, fields: [&str; HEADER.len()]) {
        for (index, field) in fields.into_iter().enumerate() {
            if index > 0 {
                self.put(2, |writer, room| writer.delimiter(room));
            }
            let field = harmless(field);
            // Every byte may be a quote, which is written twice, between two more.
            self.put(2 * field.len() + 4, |writer, room| {
                let (result, _, written) = writer.field(field.as_bytes(), room);
                (result, written)
            });
        }
        self.put(4, |writer, room| writer.terminator(room));
    }

    fn put(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut Writer, &mut [u8]) -> (WriteResult, usize),
    ) {
        let begin = self.bytes.len();
        self.bytes.resize(begin + room, 0);
        let (_, written) = write(&mut self.writer, &mut self.bytes[begin..]);
        self.bytes.truncate(begin + written);
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// A text that a spreadsheet would take for a formula is led in by an apostrophe; numbers stay as they are.
fn harmless(field: &str) -> String {
    let is_formula = field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    match is_formula && field.parse::<f64>().is_err() {
        true => format!("'{field}"),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be_and_no_formula_gets_through() {
        let mut table = Table::new();
        table.row(["a", "", "say \"x\", twice\r\n", "=1+1", "-5.5"]);
        table.row(["@SUM(A1)", "-2+3", "+x", "\tx", "'"]);
        table.row(["\"\"\"\"", "é", "1", "2", "3"]);
        assert_eq!(
            table.text(),
            "a,,\"say \"\"x\"\", twice\r\n\",'=1+1,-5.5\r\n'@SUM(A1),'-2+3,'+x,'\tx,'\r\n\
             \"\"\"\"\"\"\"\"\"\",é,1,2,3\r\n"
        );
    }
}
