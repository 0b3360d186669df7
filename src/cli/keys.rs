//! `justonce keys create | list | revoke`, through the HTTP API: one process owns the store.

use clap::ArgMatches;
use reqwest::Method;
use serde_json::{Value, json};

use super::CliError;
use super::client::{Client, block_on};

pub fn run(matches: &ArgMatches) -> Result<(), CliError> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(CliError::Failed(
            "which one: create, list or revoke?".into(),
        ));
    };
    let client = Client::new(matches)?;
    match name {
        "create" => create(&client, matches),
        "list" => list(&client),
        _ => revoke(&client, matches),
    }
}

/// Prints the answer, which holds the secret.
fn create(client: &Client, matches: &ArgMatches) -> Result<(), CliError> {
    let scopes = matches.get_many::<String>("scopes").into_iter().flatten();
    let mut wanted = json!({
        "user": matches.get_one::<String>("user"),
        "scopes": scopes.collect::<Vec<_>>(),
    });
    if let Some(at) = matches.get_one::<String>("expires_at") {
        wanted["expires_at"] = Value::from(at.as_str());
    }
    let request = client.request(Method::POST, "/v1/keys").json(&wanted);
    let answer = block_on(client.succeed(request))?;
    println!("{answer:#}");
    Ok(())
}

/// One line a key: id, user, scopes, end.
fn list(client: &Client) -> Result<(), CliError> {
    let request = client.request(Method::GET, "/v1/keys");
    let answer = block_on(client.succeed(request))?;
    for key in answer["items"].as_array().into_iter().flatten() {
        let text = |name: &str| key[name].as_str().unwrap_or("-").to_owned();
        let scopes = key["scopes"].as_array().into_iter().flatten();
        let scopes: Vec<_> = scopes.filter_map(Value::as_str).collect();
        let (id, user, end) = (text("id"), text("user"), text("expires_at"));
        println!("{id}\t{user}\t{}\t{end}", scopes.join(","));
    }
    Ok(())
}

fn revoke(client: &Client, matches: &ArgMatches) -> Result<(), CliError> {
    let id = matches.get_one::<String>("id").map_or("", String::as_str);
    let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !plain {
        return Err(CliError::Failed(format!("{id:?} is no id of a key")));
    }
    let request = client.request(Method::DELETE, &format!("/v1/keys/{id}"));
    block_on(client.succeed(request))?;
    println!("revoked {id}");
    Ok(())
}
