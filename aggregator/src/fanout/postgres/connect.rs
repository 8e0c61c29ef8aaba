//! How to reach a database: settings, the password, whom to trust. Files are read as they are now,
//! so that a new password or authority needs no restart.

use super::PostgresConfig;
use crate::fanout::sink::SinkError;
use crate::limits::{SINK_CONNECT_SECONDS_MAX, SINK_SECRET_BYTES_MAX};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::SslMode;

/// Who connects, where to.
pub fn settings(config: &PostgresConfig) -> Result<tokio_postgres::Config, SinkError> {
    let mut settings = tokio_postgres::Config::new();
    settings
        .host(&config.host)
        .port(config.port)
        .dbname(&config.database)
        .user(&config.user)
        .application_name("tributary-aggregator")
        .connect_timeout(Duration::from_secs(SINK_CONNECT_SECONDS_MAX))
        .ssl_mode(match &config.ca {
            Some(_) => SslMode::Require,
            None => SslMode::Disable,
        });
    if let Some(file) = &config.password_file {
        let password = secret(file)?;
        settings.password(password.trim_end_matches(['\r', '\n']));
    }
    Ok(settings)
}

fn secret(file: &Path) -> Result<String, SinkError> {
    let wrong = |error: std::io::Error| {
        let file = file.display();
        SinkError::Stuck(format!("password_file {file} cannot be read: {error}"))
    };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(wrong)?;
    let mut opened = opened.take(SINK_SECRET_BYTES_MAX);
    opened.read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

/// TLS that trusts this authority alone, and wants the server to be who it is called.
pub fn tls(ca: &Path) -> Result<rustls::ClientConfig, SinkError> {
    let wrong = |what: String| {
        let ca = ca.display();
        SinkError::Stuck(format!(
            "ca {ca}: {what}; name a PEM file with the authority"
        ))
    };
    let mut roots = RootCertStore::empty();
    let read = CertificateDer::pem_file_iter(ca).map_err(|error| wrong(error.to_string()))?;
    for certificate in read {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
