//! Which implementation of cryptography encrypted connections use.

/// The process has one; whoever was here first has chosen it. To be called before the first connection of
/// whichever kind is prepared.
pub fn choose() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
