//! Sees which certificate a host shows, also one that is not trusted.
//!
//! Who looks into encrypted connections shows certificates of their own, usually behind a proxy. To
//! say whose they are, the certificate has to be looked at while it is judged: of a connection that
//! was refused nothing is left.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::config::HttpOptions;
use crate::error::{GraphError, clean};

/// Judges certificates as everywhere else, and remembers the last one.
#[derive(Debug)]
pub(crate) struct Witness {
    judge: Verifier,
    seen: Mutex<Option<Vec<u8>>>,
}

impl Witness {
    /// A witness, and the settings of a connection that it watches.
    pub(crate) fn new(options: &HttpOptions) -> Result<(Arc<Self>, ClientConfig), GraphError> {
        let unusable = |error: Error| GraphError::config(format!("no TLS: {error}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let extra: Vec<CertificateDer<'static>> = match &options.ca_bundle {
            Some(path) => CertificateDer::pem_file_iter(path)
                .map(|found| found.flatten().collect())
                .unwrap_or_default(),
            None => Vec::new(),
        };
        let judge =
            Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(unusable)?;
        let witness = Arc::new(Self {
            judge,
            seen: Mutex::new(None),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        Ok((witness, config))
    }

    /// Who issued the last certificate, as people write names.
    pub(crate) fn issuer(&self) -> Option<String> {
        let seen = self.seen.lock();
        let certificate = Certificate::from_der(seen.as_deref()?).ok()?;
        Some(clean(&certificate.tbs_certificate.issuer.to_string()))
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.lock() = Some(end_entity.to_vec());
        self.judge
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}
