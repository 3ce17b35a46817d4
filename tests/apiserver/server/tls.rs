//! The certificate authority of a test.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};

pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The names of the protocols in ALPN (RFC 7301, section 6; RFC 9113, section 3.2).
pub(crate) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The number of sessions that a server remembers.
const SESSIONS: usize = 1 << 14;

/// The TLS of a server, by what it offers.
pub(crate) struct ServerTls {
    both: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
}

impl ServerTls {
    fn new(config: &ServerConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Self {
            both: offering(&[HTTP2, HTTP1]),
            http1: offering(&[HTTP1]),
        }
    }

    /// Returns the same TLS without the sessions so far, as after a restart.
    pub(crate) fn without_sessions(&self) -> Self {
        let mut config = (*self.both).clone();
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
        Self::new(&config)
    }

    pub(crate) fn config(&self, only_http1: bool) -> Arc<ServerConfig> {
        Arc::clone(if only_http1 { &self.http1 } else { &self.both })
    }
}

/// A certificate and its key pair, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) public_key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "the tests' CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// Returns the certificate of the authority in PEM.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for `name`, a host name or IP address.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            public_key: key.public_key_pem(),
        }
    }

    /// Builds a TLS server at `address` that accepts client certificates and does not require them.
    pub(crate) fn server(&self, address: IpAddr) -> ServerTls {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a CA");
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .expect("a verifier");
        let params = CertificateParams::new([address.to_string()]).expect("an address");
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a server's certificate");
        ServerTls::new(&config).without_sessions()
    }
}
