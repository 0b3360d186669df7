//! The service as its users meet it: the real binary on a free port, over HTTP. One file a noun.

mod support;

mod ask;
mod audit;
mod connection;
mod cors_and_proxies;
mod crash;
mod examples;
mod faults;
mod files;
mod fingerprint_properties;
mod fingerprints;
mod json_input;
mod keys;
mod leases;
mod lifecycle;
mod not_built_yet;
mod once;
mod operate;
mod pages;
mod parsing;
mod problems;
mod redis_cluster;
mod redis_connections;
mod redis_durability;
mod redis_sentinels;
mod redis_trouble;
mod replicas;
mod retries;
mod store_conformance;
mod store_model;
mod submit;
mod users;
