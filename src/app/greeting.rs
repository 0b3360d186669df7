//! What the operator reads at the start.

use std::io::Write;
use std::net::SocketAddr;

use crate::cli::client::reachable;
use crate::config::Settings;
use crate::http::api::AuthMode;

/// Says where to look. The first line is for programs, too: it names the real port.
pub fn print(address: SocketAddr, settings: &Settings) {
    let base = format!("http://{}{}", reachable(address), settings.edge.base_path);
    let auth = match settings.edge.auth {
        AuthMode::Off => "off: whoever reaches this address may do everything",
        AuthMode::Keys => "API keys",
    };
    let text = format!(
        "JustOnce is listening on http://{address}\n  \
         API docs        {base}/docs\n  \
         Health          {base}/health\n  \
         Authentication  {auth}\n"
    );
    say(&text);
}

/// To standard output, which may be closed.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
