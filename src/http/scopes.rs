//! Which route needs which scope: the one table. A route that is missing from it is refused.

use axum::http::Method;

use crate::domain::principal::Scope;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everyone; credentials are not looked at.
    Open,
    /// Everyone, but only those with a valid key see all of it.
    OpenInPart,
    /// Every valid key.
    AnyKey,
    /// Keys with this scope.
    Needs(Scope),
}

impl Access {
    /// Whether requests count among those that a user may send. Workers, and whoever watches the service, come as
    /// often as their work asks for.
    pub fn counts(self) -> bool {
        match self {
            Open | OpenInPart => false,
            AnyKey => true,
            Needs(scope) => !matches!(scope, Lease | Metrics),
        }
    }
}

/// What the table says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Access),
    /// The path has other methods; the value of `Allow`.
    MethodMissing(String),
    PathMissing,
}

use Access::{AnyKey, Needs, Open, OpenInPart};
use Scope::{ActAs, Admin, Cancel, Lease, Metrics, Read, Submit};

#[rustfmt::skip]
pub const TABLE: &[(Method, &str, Access)] = &[
    (Method::POST,    "/v1/tasks",                     Needs(Submit)),
    (Method::GET,     "/v1/tasks",                     Needs(Read)),
    (Method::POST,    "/v1/tasks/check",               Needs(Submit)),
    (Method::POST,    "/v1/tasks/batch",               Needs(Submit)),
    (Method::POST,    "/v1/tasks/redrive",             Needs(Submit)),
    (Method::GET,     "/v1/tasks/{id}",                Needs(Read)),
    (Method::DELETE,  "/v1/tasks/{id}",                Needs(Cancel)),
    (Method::GET,     "/v1/tasks/{id}/result",         Needs(Read)),
    (Method::GET,     "/v1/tasks/{id}/events",         Needs(Read)),
    (Method::GET,     "/v1/tasks/{id}/duplicates",     Needs(Read)),
    (Method::POST,    "/v1/tasks/{id}/cancel",         Needs(Cancel)),
    (Method::POST,    "/v1/tasks/{id}/redrive",        Needs(Submit)),
    (Method::GET,     "/v1/events",                    Needs(Read)),
    (Method::POST,    "/v1/files",                     Needs(Submit)),
    (Method::PUT,     "/v1/files",                     Needs(Submit)),
    (Method::GET,     "/v1/files/{sha256}",            Needs(Read)),
    (Method::HEAD,    "/v1/files/{sha256}",            Needs(Read)),
    (Method::OPTIONS, "/v1/uploads",                   Open),
    (Method::POST,    "/v1/uploads",                   Needs(Submit)),
    (Method::HEAD,    "/v1/uploads/{id}",              Needs(Submit)),
    (Method::PATCH,   "/v1/uploads/{id}",              Needs(Submit)),
    (Method::DELETE,  "/v1/uploads/{id}",              Needs(Submit)),
    (Method::POST,    "/v1/leases",                    Needs(Lease)),
    (Method::POST,    "/v1/leases/{id}/heartbeat",     Needs(Lease)),
    (Method::POST,    "/v1/leases/{id}/complete",      Needs(Lease)),
    (Method::POST,    "/v1/leases/{id}/fail",          Needs(Lease)),
    (Method::GET,     "/v1/leases/{id}/file",          Needs(Lease)),
    (Method::GET,     "/v1/schedules",                 Needs(Read)),
    (Method::GET,     "/v1/schedules/{name}",          Needs(Read)),
    (Method::PUT,     "/v1/schedules/{name}",          Needs(Submit)),
    (Method::DELETE,  "/v1/schedules/{name}",          Needs(Submit)),
    (Method::GET,     "/v1/limits",                    AnyKey),
    (Method::GET,     "/v1/workers",                   Needs(Metrics)),
    (Method::GET,     "/v1/task-types",                Needs(Read)),
    (Method::POST,    "/v1/task-types/{type}/pause",   Needs(Admin)),
    (Method::POST,    "/v1/task-types/{type}/resume",  Needs(Admin)),
    (Method::GET,     "/v1/webhook-secret",            Needs(Read)),
    (Method::PUT,     "/v1/webhook-secret",            Needs(Submit)),
    (Method::GET,     "/v1/keys",                      Needs(Admin)),
    (Method::POST,    "/v1/keys",                      Needs(Admin)),
    (Method::DELETE,  "/v1/keys/{id}",                 Needs(Admin)),
    (Method::POST,    "/v1/tokens",                    Needs(ActAs)),
    (Method::GET,     "/stats",                        AnyKey),
    (Method::GET,     "/metrics",                      Needs(Metrics)),
    (Method::GET,     "/livez",                        Open),
    (Method::GET,     "/readyz",                       OpenInPart),
    (Method::GET,     "/healthz",                      OpenInPart),
    (Method::GET,     "/health",                       OpenInPart),
    (Method::GET,     "/docs",                         Open),
    (Method::GET,     "/docs/",                        Open),
    (Method::GET,     "/docs/{*file}",                 Open),
    (Method::GET,     "/openapi.json",                 Open),
    (Method::GET,     "/problems",                     Open),
    (Method::GET,     "/problems/{slug}",              Open),
    (Method::GET,     "/",                             Open),
];

/// HEAD may be used wherever GET may.
pub fn lookup(method: &Method, path: &str) -> Lookup {
    let rows = || TABLE.iter().filter(|(_, p, _)| *p == path);
    let access_of = |wanted: &Method| rows().find(|(m, _, _)| m == wanted).map(|row| row.2);
    let as_get = || access_of(&Method::GET).filter(|_| method == Method::HEAD);
    if let Some(access) = access_of(method).or_else(as_get) {
        return Lookup::Found(access);
    }
    let mut methods: Vec<&str> = rows().map(|(m, _, _)| m.as_str()).collect();
    if methods.is_empty() {
        return Lookup::PathMissing;
    }
    if methods.contains(&"GET") && !methods.contains(&"HEAD") {
        methods.push("HEAD");
    }
    Lookup::MethodMissing(methods.join(", "))
}

/// The path of a route as the table has it.
pub fn route(path: &str) -> Option<&'static str> {
    TABLE.iter().map(|(_, p, _)| *p).find(|p| *p == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_once() {
        for (index, (method, path, _)) in TABLE.iter().enumerate() {
            let again = |(m, p, _): &&(Method, &str, Access)| m == method && p == path;
            assert_eq!(TABLE.iter().position(|row| again(&row)), Some(index));
        }
    }

    #[test]
    fn methods_that_are_missing_are_told_from_paths_that_are() {
        assert_eq!(lookup(&Method::GET, "/stats"), Lookup::Found(AnyKey));
        assert_eq!(lookup(&Method::HEAD, "/stats"), Lookup::Found(AnyKey));
        assert_eq!(
            lookup(&Method::PATCH, "/v1/tasks"),
            Lookup::MethodMissing("POST, GET, HEAD".into())
        );
        assert_eq!(lookup(&Method::GET, "/v1/nothing"), Lookup::PathMissing);
    }
}
