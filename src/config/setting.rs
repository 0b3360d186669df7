//! Every setting that is one value, in one table: its key in the file, its variable and its flag.

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub key: &'static str,
    /// The key with dashes.
    pub flag: &'static str,
    pub variable: &'static str,
    /// How its value is written in the help.
    pub value: &'static str,
    pub help: &'static str,
}

impl Setting {
    pub fn named(key: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    pub fn of_variable(name: &str) -> Option<&'static Setting> {
        SETTINGS.iter().find(|setting| setting.variable == name)
    }
}

const fn row(
    key: &'static str,
    flag: &'static str,
    variable: &'static str,
    value: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        key,
        flag,
        variable,
        value,
        help,
    }
}

#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    row("listen",              "listen",              "JUSTONCE_LISTEN",              "ADDRESS:PORT", "Where to listen; port 0 picks a free one [default: 127.0.0.1:8080]"),
    row("store",               "store",               "JUSTONCE_STORE",               "STORE",    "Where tasks live: embedded, memory, redis://…, redis+sentinel://… or redis+cluster://…, encrypted as rediss… [default: embedded]"),
    row("mock_mode",           "mock-mode",           "MOCK_MODE",                    "BOOL",     "The same as --store memory"),
    row("redis_url",           "redis-url",           "REDIS_URL",                    "URL",      "The same as --store URL"),
    row("redis_prefix",        "redis-prefix",        "JUSTONCE_REDIS_PREFIX",        "PREFIX",   "Before every key in Redis [default: justonce]"),
    row("redis_ca",            "redis-ca",            "JUSTONCE_REDIS_CA",            "FILE",     "Certificates in PEM that rediss:// trusts [default: those of the system]"),
    row("redis_assume",        "redis-assume",        "JUSTONCE_REDIS_ASSUME",        "WORDS",    "What holds where Redis hides its settings: noeviction, fsync, or both with a comma"),
    row("data",                "data",                "JUSTONCE_DATA",                "FOLDER",   "Folder of the embedded store and of files [default: ./data]"),
    row("blobs",               "blobs",               "JUSTONCE_BLOBS",               "URL",      "Where the bytes of files are kept, file:///… [default: below the data folder]"),
    row("workers",             "workers",             "JUSTONCE_WORKERS",             "NUMBER",   "Attempts at a time that use the processor; 0: API only [default: number of cores]"),
    row("auth",                "auth",                "JUSTONCE_AUTH",                "MODE",     "off or keys [default: off on loopback, else keys]"),
    row("insecure",            "insecure",            "JUSTONCE_INSECURE",            "BOOL",     "Allow --auth off on an address that others can reach [default: false]"),
    row("cors_origins",        "cors-origins",        "JUSTONCE_CORS_ORIGINS",        "ORIGINS",  "Exact origins that browsers may call from, comma-separated"),
    row("base_path",           "base-path",           "JUSTONCE_BASE_PATH",           "PATH",     "Prefix of every path [default: /]"),
    row("public_url",          "public-url",          "JUSTONCE_PUBLIC_URL",          "URL",      "What absolute links begin with"),
    row("trusted_proxies",     "trusted-proxies",     "JUSTONCE_TRUSTED_PROXIES",     "NETWORKS", "Networks that may set Forwarded and X-Forwarded-For, comma-separated"),
    row("drain_delay_seconds", "drain-delay-seconds", "JUSTONCE_DRAIN_DELAY_SECONDS", "SECONDS",  "On SIGTERM: time unready but still serving [default: 5]"),
    row("drain_grace_seconds", "drain-grace-seconds", "JUSTONCE_DRAIN_GRACE_SECONDS", "SECONDS",  "Then: time for requests and attempts that run [default: 30]"),
    row("bootstrap_key",       "bootstrap-key",       "JUSTONCE_BOOTSTRAP_KEY",       "KEY",      "The first admin API key; better given by its variable"),
    row("durability",          "durability",          "JUSTONCE_DURABILITY",          "LEVEL",    "What acknowledgements must survive at least: memory, fsync or replicated-fsync (Redis) [default: memory]"),
    row("requests_per_minute_max", "requests-per-minute-max", "JUSTONCE_REQUESTS_PER_MINUTE_MAX", "NUMBER", "Requests that one user may send in a minute; 0: no limit [default: 200 with authentication, else 0]"),
    row("unfinished_tasks_max", "unfinished-tasks-max", "JUSTONCE_UNFINISHED_TASKS_MAX", "NUMBER",  "Unfinished tasks that one user may have; 0: no limit [default: 1000 with authentication, else 0]"),
    row("deduplication_ttl",   "deduplication-ttl",   "DEDUPLICATION_TTL",            "SECONDS",  "How long a succeeded task answers for its content [default: 3600]"),
    row("max_retry_count",     "max-retry-count",     "MAX_RETRY_COUNT",              "NUMBER",   "Retries after the first attempt [default: 3]"),
    row("retry_delay_seconds", "retry-delay-seconds", "RETRY_DELAY_SECONDS",          "SECONDS",  "Wait before the first retry; doubles each time [default: 60]"),
    row("priority_ageing_seconds", "priority-ageing-seconds", "JUSTONCE_PRIORITY_AGEING_SECONDS", "SECONDS", "A task that has waited for so long counts as one level of priority more important among its user's [default: 60]"),
    row("smtp_url",            "smtp-url",            "JUSTONCE_SMTP_URL",            "URL",      "The mail server that notifications go to, smtp://… or smtps://…; better given by its variable"),
    row("smtp_from",           "smtp-from",           "JUSTONCE_SMTP_FROM",           "ADDRESS",  "Who e-mails are from"),
    row("webhook_secret",      "webhook-secret",      "JUSTONCE_WEBHOOK_SECRET",      "SECRET",   "What webhooks are signed with, whsec_…; better given by its variable [default: made at the first start]"),
    row("log_format",          "log-format",          "LOG_FORMAT",                   "FORMAT",   "text or json [default: text on a terminal, else json]"),
    row("log_filter",          "log-filter",          "RUST_LOG",                     "FILTER",   "What is logged [default: info]"),
];

/// Variables of ours that are no settings of the service.
pub const OTHER_VARIABLES: &[&str] = &[
    "JUSTONCE_CONFIG",
    "JUSTONCE_URL",
    "JUSTONCE_API_KEY",
    #[cfg(feature = "seeded-faults")]
    crate::seeded_faults::VARIABLE,
    #[cfg(feature = "failpoints")]
    crate::failpoints::VARIABLE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spelled_one_way() {
        for setting in SETTINGS {
            assert_eq!(setting.flag, setting.key.replace('_', "-"));
            let upper = setting.key.to_uppercase();
            let own = setting.variable.strip_prefix("JUSTONCE_");
            assert!(own.is_none_or(|name| name == upper), "{}", setting.key);
        }
    }
}
