//! The certificate of an API server, which `check` shows.

use http::Uri;
use hyper_rustls::MaybeHttpsStream;
use tower::{BoxError, Service};
use x509_parser::parse_x509_certificate;

use super::client::ApiClient;
use super::connect::Connector;

/// The certificate of an API server, which the client has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The name of the server (RFC 4514).
    pub subject: String,
    /// The name of the certificate authority.
    pub issuer: String,
    /// The end of its validity.
    pub expires: String,
}

impl Connector {
    /// Connects to a server once more. Returns its certificate, or `None` without TLS.
    ///
    /// # Errors
    /// If the connection fails, or the certificate cannot be decoded.
    async fn certificate(&mut self, server: Uri) -> Result<Option<ServerCertificate>, BoxError> {
        let MaybeHttpsStream::Https(stream) = self.https.call(server).await? else {
            return Ok(None);
        };
        let (_, session) = stream.inner().get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let first = chain.first().ok_or("the server has no certificate")?;
        let (_, certificate) = parse_x509_certificate(first)?;
        Ok(Some(ServerCertificate {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            expires: certificate.validity().not_after.to_string(),
        }))
    }
}

impl ApiClient {
    /// Returns the certificate of the API server that was connected last, or `None` without TLS.
    ///
    /// # Errors
    /// If the server cannot be reached, or its certificate cannot be decoded.
    pub async fn server_certificate(&self) -> Result<Option<ServerCertificate>, BoxError> {
        let (server, _) = self.connections.followed().ok_or("not connected")?;
        let mut connector = self.connections.connector().await;
        connector.certificate(server).await
    }
}
