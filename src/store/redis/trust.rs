//! Whose certificates are believed on encrypted connections. Names are always checked.

use redis::TlsCertificates;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The authorities of the system, or those of the operator alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Trust {
    authorities: Option<Vec<u8>>,
}

impl Trust {
    /// Certificates in PEM, one or several.
    pub fn only(authorities: Vec<u8>) -> Result<Self, String> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&authorities).collect();
        match read {
            Err(error) => Err(format!("not a certificate in PEM: {error}")),
            Ok(read) if read.is_empty() => Err("there is no certificate in PEM in it".to_owned()),
            Ok(_) => Ok(Trust {
                authorities: Some(authorities),
            }),
        }
    }

    pub(super) fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: None,
            root_cert: self.authorities.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n";
        for text in ["", "hello", broken] {
            assert!(Trust::only(text.into()).is_err(), "{text:?}");
        }
    }
}
