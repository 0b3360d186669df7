//! Ways to a Redis: encrypted or not, with users and passwords, in numbered databases.

use justonce::store::Store;
use justonce::store::redis::{Address, Options, RedisStore, Trust};
use serde_json::json;

use crate::support::Setup;
use crate::support::certificates::Certificates;
use crate::support::deadline::until;
use crate::support::redis::{RedisServer, free_port};
use crate::support::store::{draft, redis_at, redis_options};

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_trusts_the_authority_that_is_named() {
    let certificates = Certificates::for_server("IP:127.0.0.1");
    let (_server, url) = encrypted(&certificates, &[]);
    let store = open(&url, &certificates).await.unwrap();
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_authority_or_another_name_is_refused() {
    let certificates = Certificates::for_server("DNS:elsewhere.example");
    let (_server, url) = encrypted(&certificates, &[]);
    let misnamed = open(&url, &certificates).await.err().unwrap();
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
    let foreign = Certificates::for_server("IP:127.0.0.1");
    let unknown = open(&url, &foreign).await.err().unwrap();
    assert!(unknown.contains("invalid peer certificate"), "{unknown}");
    let system = RedisStore::open(redis_options(&url)).await.err().unwrap();
    assert!(system.to_string().contains("certificate"), "{system}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_port_and_a_plain_one_are_not_taken_for_each_other() {
    let certificates = Certificates::for_server("IP:127.0.0.1");
    let (server, url) = encrypted(&certificates, &[]);
    let plain = url.replace("rediss", "redis");
    assert!(RedisStore::open(redis_options(&plain)).await.is_err());
    let encrypted = format!("rediss://{}", server.host());
    assert!(open(&encrypted, &certificates).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_what_they_name_are_reached_by_encrypted_connections() {
    let certificates = Certificates::for_server("IP:127.0.0.1");
    let (_server, url) = encrypted(&certificates, &[]);
    let (_, port) = url.rsplit_once(':').unwrap();
    let sentinel_port = free_port();
    let mut lines = format!("sentinel monitor main 127.0.0.1 {port} 1\ntls-replication yes\n");
    for pair in certificates.settings(sentinel_port).chunks(2) {
        lines += &format!("{} {}\n", pair[0].trim_start_matches('-'), pair[1]);
    }
    let _sentinel = RedisServer::start_sentinel(&lines);
    let url = format!("rediss+sentinel://127.0.0.1:{sentinel_port}/main");
    until("the sentinel to know", async || {
        open(&url, &certificates).await.ok()
    })
    .await;
    let foreign = Certificates::for_server("IP:127.0.0.1");
    assert!(open(&url, &foreign).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_of_a_cluster_are_reached_by_encrypted_connections() {
    let certificates = Certificates::for_server("IP:127.0.0.1");
    let bus = free_port().to_string();
    let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let settings = [settings.as_slice(), &["--tls-cluster", "yes"]].concat();
    let (server, url) = encrypted(&certificates, &settings);
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the cluster to serve", async || {
        let info = server.command(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok").then_some(())
    })
    .await;
    let url = url.replace("rediss", "rediss+cluster");
    let store = open(&url, &certificates).await.unwrap();
    store.ping().await.unwrap();
    let foreign = Certificates::for_server("IP:127.0.0.1");
    let refused = open(&url, &foreign).await.err().unwrap();
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_reads_the_authority_from_its_file() {
    let certificates = Certificates::for_server("IP:127.0.0.1");
    let (_server, url) = encrypted(&certificates, &[]);
    let setup = |ca: &str| {
        Setup::new()
            .env("JUSTONCE_STORE", &url)
            .env("JUSTONCE_REDIS_CA", ca)
    };
    let service = setup(&certificates.path("ca.pem")).start().await;
    let task = json!({"type": "echo"});
    service.client().submit(&task, "k").await.expect(202);
    for bad in ["no-such.pem", "server.key"] {
        let output = setup(&certificates.path(bad)).command().output().await;
        let said = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(said.contains("JUSTONCE_REDIS_CA"), "{bad}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords_are_those_of_the_address() {
    let with_password = RedisServer::start(&["--requirepass", "p@ss/word%"]);
    let host = with_password.host();
    let subject = redis_at(&format!("redis://:p%40ss%2Fword%25@{host}")).await;
    subject.new_task(&draft(json!({}))).await;
    let with_user = RedisServer::start(&[]);
    let rules = ["me", "on", ">se:cret", "~*", "&*", "+@all"];
    with_user.command(&[["ACL", "SETUSER"].as_slice(), &rules].concat());
    with_user.command(&["ACL", "SETUSER", "default", "off"]);
    let host = with_user.host();
    let subject = redis_at(&format!("redis://me:se%3Acret@{host}")).await;
    subject.new_task(&draft(json!({}))).await;
    for bad in ["", "me:wrong@", "you:se%3Acret@", ":se%3Acret@"] {
        let options = redis_options(&format!("redis://{bad}{host}"));
        let refused = RedisStore::open(options).await.err().unwrap().to_string();
        assert!(!refused.contains("cret"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_kept_in_the_database_of_the_address() {
    let server = RedisServer::start(&[]);
    let subject = redis_at(&format!("{}/3", server.url())).await;
    subject.new_task(&draft(json!({}))).await;
    let kept = |database: &str| server.command(&["-n", database, "DBSIZE"]);
    assert_eq!(kept("0"), "0");
    assert_ne!(kept("3"), "0");
}

/// A server that takes encrypted connections, and its address.
fn encrypted(certificates: &Certificates, settings: &[&str]) -> (RedisServer, String) {
    let port = free_port();
    let encrypting = certificates.settings(port);
    let encrypting: Vec<_> = encrypting.iter().map(String::as_str).collect();
    let server = RedisServer::start(&[encrypting.as_slice(), settings].concat());
    (server, format!("rediss://127.0.0.1:{port}"))
}

async fn open(url: &str, certificates: &Certificates) -> Result<RedisStore, String> {
    let trust = Trust::only(certificates.authority()).unwrap();
    let options = Options {
        address: Address::parse(url).unwrap().trusting(trust).unwrap(),
        ..redis_options(url)
    };
    let opened = RedisStore::open(options).await;
    opened.map_err(|error| error.to_string())
}
