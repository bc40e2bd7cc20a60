//! Whom a server's certificate may come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::address::Address;

/// Why no certificate could be judged.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificates in {} cannot be read: {cause}", path.display())]
    File { path: PathBuf, cause: String },
    #[error("this machine has no certificate authorities to judge https servers by ({0}): install ca-certificates or set ca_file")]
    NoRoots(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Trusts the authorities in `ca_file`, else those of the machine. The latter are read only for an https address: it takes time.
///
/// # Errors
/// Unreadable or missing certificates.
pub fn client_config(address: &Address, ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match ca_file {
        Some(path) => builder.with_root_certificates(read(path)?),
        None if address.is_tls() => builder.with_native_roots().map_err(|error| TlsError::NoRoots(error.to_string()))?,
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}

fn read(path: &Path) -> Result<RootCertStore, TlsError> {
    let wrong = |cause: String| TlsError::File { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
        roots.add(certificate.map_err(|e| wrong(e.to_string()))?)?;
    }
    if roots.is_empty() { Err(wrong("it holds no certificate in PEM form".to_owned())) } else { Ok(roots) }
}
