//! Certificates for a test: an authority, and one for a server that it vouches for.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// For a server of this name, as in `IP:127.0.0.1` and `DNS:redis.example`.
    pub fn for_server(name: &str) -> Self {
        let made = Certificates {
            folder: TempDir::new().unwrap(),
        };
        let authority = ["basicConstraints=critical,CA:TRUE"];
        made.make("ca", &authority, &[]);
        let (ca, ca_key) = (made.path("ca.pem"), made.path("ca.key"));
        let signed_by = ["-CA", &ca, "-CAkey", &ca_key];
        let server = [
            "basicConstraints=critical,CA:FALSE",
            &format!("subjectAltName={name}"),
        ];
        made.make("server", &server, &signed_by);
        made
    }

    fn make(&self, name: &str, extensions: &[&str], more: &[&str]) {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", &format!("/CN={name}")])
            .args(["-keyout", &self.path(&key)])
            .args(["-out", &self.path(&certificate)])
            .args(more);
        for extension in extensions {
            command.args(["-addext", extension]);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl: {said}");
    }

    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        path.into_os_string().into_string().unwrap()
    }

    /// The authority, in PEM.
    pub fn authority(&self) -> Vec<u8> {
        std::fs::read(self.path("ca.pem")).unwrap()
    }

    /// The settings of a server that takes encrypted connections on this port.
    pub fn settings(&self, port: u16) -> Vec<String> {
        let words = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.path("server.pem")),
            ("--tls-key-file", self.path("server.key")),
            ("--tls-ca-cert-file", self.path("ca.pem")),
            ("--tls-auth-clients", "no".to_owned()),
        ];
        let words = words.into_iter();
        words
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }
}
