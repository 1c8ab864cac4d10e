//! Certificates, loaded again when their files change.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsFiles;

/// Why certificates cannot be used, with the file.
#[derive(Debug)]
pub struct TlsError(String);

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(flag: &str, path: &Path, why: impl std::fmt::Display) -> TlsError {
    TlsError(format!("{flag}: {}: {why}", path.display()))
}

fn certificates(flag: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| failed(flag, path, error))?;
    if found.is_empty() {
        return Err(failed(flag, path, "it has no certificate in PEM"));
    }
    Ok(found)
}

/// What rustls is told.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("--tls-certificate", &files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| failed("--tls-key", &files.key, error))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("--tls-certificate", &files.certificate, error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates("--client-ca", path)? {
                roots.add(certificate).map_err(|error| failed("--client-ca", path, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| failed("--client-ca", path, error))?)
        }
    };
    let config = builder.with_single_cert(chain, key);
    let mut config = config.map_err(|error| failed("--tls-key", &files.key, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What a file is by its looks: another one has another.
type Look = Option<(SystemTime, u64, u64)>;

/// How the files look, to see that one of them is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looks([Look; 3]);

impl Looks {
    /// Now.
    pub fn of(files: &TlsFiles) -> Self {
        let look = |path: Option<&Path>| {
            use std::os::unix::fs::MetadataExt as _;
            let found = std::fs::metadata(path?).ok()?;
            Some((found.modified().ok()?, found.len(), found.ino()))
        };
        Self([look(Some(&files.certificate)), look(Some(&files.key)), look(files.client_ca.as_deref())])
    }
}

/// Of an error of the handshake: whether it is worth a line.
pub fn is_noise(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
