//! Stacked bars over time, as SVG without scripts.

use std::fmt::Write as _;

use crate::domain::timestamp::Timestamp;

pub struct Chart<'a> {
    pub title: &'a str,
    /// Each with a class that gives its colour, and a value for every bucket.
    pub series: Vec<Series<'a>>,
    /// Beginnings of the buckets.
    pub starts: &'a [Timestamp],
}

pub struct Series<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub values: Vec<f64>,
}

/// In units of the drawing.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
/// Times that are written below the bars, at most.
const LABELS_MAX: usize = 6;

impl Chart<'_> {
    pub fn write(&self, page: &mut String) {
        let _ = write!(page, "<figure><figcaption>{}", escape(self.title));
        for series in &self.series {
            let _ = write!(
                page,
                " <span class=\"series\"><span class=\"key {}\"></span>{}</span>",
                escape(series.class),
                escape(series.name)
            );
        }
        let _ = write!(
            page,
            "</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        self.grid(page);
        self.bars(page);
        self.times(page);
        page.push_str("</svg></figure>\n");
    }

    fn top_of_scale(&self) -> f64 {
        let sums = (0..self.starts.len()).map(|at| {
            let values = self
                .series
                .iter()
                .filter_map(|series| series.values.get(at));
            values.sum::<f64>()
        });
        round_up(sums.fold(0.0, f64::max))
    }

    fn grid(&self, page: &mut String) {
        let top = self.top_of_scale();
        for share in [0.0, 0.5, 1.0] {
            let y = height_of(share);
            let _ = write!(
                page,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(top * share)
            );
        }
    }

    fn bars(&self, page: &mut String) {
        let top = self.top_of_scale();
        let step = (WIDTH - LEFT) / self.starts.len().max(1) as f64;
        let gap = (step * 0.2).min(6.0);
        // A few buckets make no walls.
        let width = (step - gap).min(48.0);
        for (at, start) in self.starts.iter().enumerate() {
            let x = LEFT + step * at as f64 + (step - width) / 2.0;
            let mut below = 0.0;
            for series in &self.series {
                let value = series.values.get(at).copied().unwrap_or(0.0);
                if value <= 0.0 {
                    continue;
                }
                let (y, foot) = (height_of((below + value) / top), height_of(below / top));
                below += value;
                let _ = write!(
                    page,
                    "<rect class=\"{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\">\
                     <title>{start}: {} {}</title></rect>",
                    escape(series.class),
                    foot - y,
                    short(value),
                    escape(series.name)
                );
            }
        }
    }

    fn times(&self, page: &mut String) {
        let step = (WIDTH - LEFT) / self.starts.len().max(1) as f64;
        let every = self.starts.len().div_ceil(LABELS_MAX).max(1);
        for (at, start) in self.starts.iter().enumerate().step_by(every) {
            // `2026-11-22T07:05:00.000Z`
            let text = start.to_string();
            let time = text.get(11..16).unwrap_or_default();
            let day = text.get(5..10).unwrap_or_default();
            let _ = write!(
                page,
                "<text class=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{day} {time}</text>",
                (LEFT + step * (at as f64 + 0.5)).clamp(LEFT + 30.0, WIDTH - 32.0),
                HEIGHT - 8.0
            );
        }
    }
}

fn height_of(share: f64) -> f64 {
    HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
}

/// To a number that reads well, and its half does too; 1 for nothing.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|&s| s >= value).unwrap_or(value)
}

/// As people read numbers: at most three decimals, thousands set apart.
pub fn short(value: f64) -> String {
    let rounded = (value * 1000.0).round() / 1000.0;
    let text = rounded.to_string();
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (text.as_str(), String::new()),
    };
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped + &fraction
}

/// For text and quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers() {
        let ends = [0.0, 0.045, 1.0, 7.0, 12.0, 43.0, 501.0].map(round_up);
        assert_eq!(ends, [1.0, 0.06, 1.0, 8.0, 20.0, 60.0, 600.0]);
        assert_eq!(short(1_234_567.5), "1\u{202f}234\u{202f}567.5");
        assert_eq!(short(999.0), "999");
    }

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(escape("<a b='c\">&"), "&lt;a b=&#39;c&quot;&gt;&amp;");
    }
}
