//! What this process counts of its requests, for `/metrics`.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct RequestMetrics {
    answered: Family<Answer, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    route: &'static str,
    status: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: &'static str,
}

impl RequestMetrics {
    /// From 0.5 ms to 60 s; the longest answers are those that wait for a task.
    const BUCKETS_SECONDS: [f64; 14] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 60.0,
    ];

    /// `route` is a row of the table of scopes, so that the number of labels is bounded; none for other
    /// paths.
    pub fn count(
        &self,
        method: &Method,
        route: Option<&'static str>,
        status: StatusCode,
        took: Duration,
    ) {
        let method = method_label(method);
        let route = route.unwrap_or("none");
        let status = status_class(status);
        let answer = Answer {
            method,
            route,
            status,
        };
        self.answered.get_or_create(&answer).inc();
        let seconds = took.as_secs_f64();
        let route = Route { method, route };
        self.seconds.get_or_create(&route).observe(seconds);
    }

    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "justonce_http_requests",
            "Requests answered by this process, by route and class of status",
            self.answered.clone(),
        );
        registry.register(
            "justonce_http_request_seconds",
            "Time from the head of a request to the head of its answer, in seconds",
            self.seconds.clone(),
        );
    }
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(RequestMetrics::BUCKETS_SECONDS);
        RequestMetrics {
            answered: Family::default(),
            seconds: Family::new_with_constructor(histogram),
        }
    }
}

/// Clients can make up methods, so those that no route has are counted as one.
fn method_label(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let label = known.into_iter().find(|name| *name == method.as_str());
    label.unwrap_or("other")
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let metrics = RequestMetrics::default();
        let made_up = Method::from_bytes(b"BREW").unwrap();
        let took = Duration::from_millis(3);
        metrics.count(&made_up, None, StatusCode::NOT_FOUND, took);
        metrics.count(&Method::GET, Some("/stats"), StatusCode::OK, took);
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let other = r#"justonce_http_requests_total{method="other",route="none",status="4xx"} 1"#;
        assert!(text.contains(other), "{text}");
        let bucket =
            r#"justonce_http_request_seconds_bucket{le="0.005",method="GET",route="/stats"} 1"#;
        assert!(text.contains(bucket), "{text}");
    }
}
