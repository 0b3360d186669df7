//! A report as a page of its own: no scripts, and nothing is fetched.

use std::fmt::Write as _;

use super::chart::{Chart, Series, escape, short};
use super::numbers::{Bucket, Numbers, Totals};
use crate::domain::timestamp::Timestamp;

const STYLE: &str = include_str!("report.css");

pub fn write(numbers: &Numbers) -> String {
    let mut page = String::new();
    let user = escape(&numbers.user);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>JustOnce report for {user}</title><style>\n{STYLE}</style></head><body><main>\n\
         <h1>What ran just once</h1>\n"
    );
    about(&mut page, numbers);
    tiles(&mut page, &numbers.totals);
    charts(&mut page, numbers);
    by_type(&mut page, numbers);
    latencies(&mut page, numbers);
    repeated(&mut page, numbers);
    all_numbers(&mut page, &numbers.totals);
    page.push_str("</main></body></html>\n");
    page
}

fn about(page: &mut String, numbers: &Numbers) {
    let period = &numbers.period;
    let _ = write!(
        page,
        "<p>User <b>{}</b>, {} to {} (UTC), counted in steps of {} minutes. Made at {}.",
        escape(&numbers.user),
        minute(period.from),
        minute(period.to),
        period.bucket_seconds / 60,
        minute(numbers.generated_at)
    );
    if period.is_cut {
        let _ = write!(
            page,
            " <b>Asked for from {}: what was counted before {} is not kept any more.</b>",
            minute(period.asked_from),
            minute(period.from)
        );
    }
    page.push_str("</p>\n");
}

fn tiles(page: &mut String, totals: &Totals) {
    let duplicates = totals.duplicates_by_key + totals.duplicates_by_fingerprint;
    let percent = totals.dedup_rate * 100.0;
    page.push_str("<section class=\"tiles\">");
    for (name, value, more) in [
        (
            "new tasks",
            short(totals.accepted as f64),
            format!("{} attempts", short(totals.attempts as f64)),
        ),
        (
            "duplicates",
            short(duplicates as f64),
            format!("{percent:.1} % of submissions"),
        ),
        (
            "executions saved",
            short(totals.saved_executions as f64),
            format!("{} from results", short(totals.cache_hits as f64)),
        ),
        (
            "time saved",
            span(totals.saved_seconds),
            "of attempts that need not run again".to_owned(),
        ),
        (
            "bytes not stored again",
            size(totals.saved_bytes_not_stored),
            format!("{} not even sent", size(totals.saved_bytes_not_sent)),
        ),
        (
            "failures",
            short(totals.failures as f64),
            format!("{} retries", short(totals.retries as f64)),
        ),
    ] {
        let _ = write!(
            page,
            "<div><b>{value}</b><span>{name}</span><small>{more}</small></div>"
        );
    }
    page.push_str("</section>\n");
}

fn charts(page: &mut String, numbers: &Numbers) {
    let starts = starts(numbers);
    let values = |of: fn(&Totals) -> f64| {
        let value = |at: &Timestamp| {
            let bucket = numbers.buckets.iter().find(|bucket| bucket.at == *at);
            bucket.map_or(0.0, |Bucket { totals, .. }| of(totals))
        };
        starts.iter().map(value).collect::<Vec<_>>()
    };
    let series = |name, class, of| Series {
        name,
        class,
        values: values(of),
    };
    for (title, series) in [
        (
            "Submissions",
            vec![
                series("new", "a", |t| t.accepted as f64),
                series("duplicate by key", "b", |t| t.duplicates_by_key as f64),
                series("duplicate by content", "c", |t| {
                    t.duplicates_by_fingerprint as f64
                }),
            ],
        ),
        (
            "Attempts",
            vec![
                series("first", "a", |t| {
                    t.attempts.saturating_sub(t.retries) as f64
                }),
                series("retry", "b", |t| t.retries as f64),
            ],
        ),
        (
            "Tasks that failed",
            vec![series("failed", "d", |t| t.failures as f64)],
        ),
        (
            "Seconds saved",
            vec![series("of attempts that need not run again", "c", |t| {
                t.saved_seconds
            })],
        ),
    ] {
        let chart = Chart {
            title,
            series,
            starts: &starts,
        };
        chart.write(page);
    }
}

/// Of all buckets of the period, also those of nothing.
fn starts(numbers: &Numbers) -> Vec<Timestamp> {
    let period = &numbers.period;
    let length = i64::try_from(period.bucket_seconds * 1000).unwrap_or(i64::MAX);
    let length = usize::try_from(length.max(1)).unwrap_or(usize::MAX);
    let starts = (period.from.as_ms()..period.to.as_ms()).step_by(length);
    starts.map(Timestamp::from_ms).collect()
}

fn by_type(page: &mut String, numbers: &Numbers) {
    page.push_str("<h2>Tasks by type and state</h2>\n<p>As they stand now, whenever they were submitted.</p>\n");
    let heads = numbers.tasks.named().map(|(name, _)| name);
    open_table(page, "type", &heads);
    let types = numbers
        .by_type
        .iter()
        .map(|t| (t.name.as_str(), &t.counts))
        .chain([("all", &numbers.tasks)]);
    for (name, counts) in types {
        let cells = counts.named().map(|(_, count)| short(count as f64));
        row(page, name, &cells);
    }
    close_table(page);
}

fn latencies(page: &mut String, numbers: &Numbers) {
    page.push_str(
        "<h2>How long it took</h2>\n<p>In milliseconds, over the current and the last hour.</p>\n",
    );
    open_table(
        page,
        "",
        &["half within", "9 of 10 within", "99 of 100 within"],
    );
    for (name, quantiles) in numbers.latency_ms.named() {
        let name = match name {
            "submit" => "from request to decision",
            "queue_wait" => "from ready to begun",
            _ => "one attempt",
        };
        let cells = [quantiles.p50, quantiles.p90, quantiles.p99].map(short);
        row(page, name, &cells);
    }
    close_table(page);
}

fn repeated(page: &mut String, numbers: &Numbers) {
    if numbers.most_repeated.is_empty() {
        return;
    }
    page.push_str(
        "<h2>Asked for most often</h2>\n<p>Among the newest tasks of the period; what was matched, and the seconds \
         that were saved, of the newest 100 duplicates of each.</p>\n",
    );
    let heads = [
        "type",
        "state",
        "duplicates",
        "by key",
        "by content",
        "seconds saved",
    ];
    open_table(page, "task", &heads);
    for task in &numbers.most_repeated {
        let cells = [
            task.task_type.clone(),
            task.state.to_owned(),
            short(task.duplicates as f64),
            short(task.listed_by_key as f64),
            short(task.listed_by_fingerprint as f64),
            short(task.listed_seconds_saved),
        ];
        row(page, &task.id, &cells);
    }
    close_table(page);
}

fn all_numbers(page: &mut String, totals: &Totals) {
    page.push_str("<h2>Everything that was counted</h2>\n");
    open_table(page, "", &["in the period"]);
    for (name, value) in totals.named() {
        row(page, &name.replace('_', " "), &[short(value)]);
    }
    close_table(page);
}

fn open_table(page: &mut String, first: &str, heads: &[&str]) {
    let _ = write!(
        page,
        "<div class=\"wide\"><table><thead><tr><th scope=\"col\">{}</th>",
        escape(first)
    );
    for head in heads {
        let _ = write!(page, "<th scope=\"col\">{}</th>", escape(head));
    }
    page.push_str("</tr></thead><tbody>\n");
}

fn row(page: &mut String, name: &str, cells: &[String]) {
    let _ = write!(page, "<tr><th scope=\"row\">{}</th>", escape(name));
    for cell in cells {
        let _ = write!(page, "<td>{}</td>", escape(cell));
    }
    page.push_str("</tr>\n");
}

fn close_table(page: &mut String) {
    page.push_str("</tbody></table></div>\n");
}

/// `2026-11-22 07:05`
fn minute(at: Timestamp) -> String {
    at.to_string()
        .get(..16)
        .unwrap_or_default()
        .replace('T', " ")
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s >= 7200.0 => format!("{} h", short((s / 360.0).round() / 10.0)),
        s if s >= 120.0 => format!("{} min", short((s / 6.0).round() / 10.0)),
        s => format!("{} s", short((s * 10.0).round() / 10.0)),
    }
}

fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{} {unit}", short((value * 10.0).round() / 10.0))
}
