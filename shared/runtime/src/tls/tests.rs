use std::fs;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::*;

/// An authority for tests.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key of `localhost`.
    pub(crate) fn server(&self) -> (String, String) {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn config(dir: &tempfile::TempDir, authority: &Authority) -> TlsConfig {
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    };
    let (cert, key) = authority.server();
    TlsConfig {
        cert: file("cert.pem", &cert),
        key: file("key.pem", &key),
        client_ca: file("ca.pem", &authority.pem),
    }
}

#[test]
fn files_are_loaded_and_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let config = config(&dir, &authority);
    assert!(ServerTls::load(&TlsConfig::default(), false).unwrap().is_none());
    let tls = ServerTls::load(&config, false).unwrap().unwrap();
    let before = tls.0.current.load_full();
    assert!(!tls.reload_if_changed().unwrap());

    let touch = |path: &Option<PathBuf>, text: &str, seconds: u64| {
        let path = path.as_ref().unwrap();
        fs::write(path, text).unwrap();
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
    };
    // A key that does not belong to the certificate is not taken.
    let (cert, key) = authority.server();
    touch(&config.key, &key, 10);
    assert!(matches!(tls.reload_if_changed(), Err(Error::Certificate { .. })));
    assert!(Arc::ptr_eq(&before, &tls.0.current.load_full()));
    touch(&config.cert, &cert, 20);
    assert!(tls.reload_if_changed().unwrap());
    assert!(!Arc::ptr_eq(&before, &tls.0.current.load_full()));
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, &Authority::new());
    let load = |config: &TlsConfig| chain(&ServerTls::load(config, false).unwrap_err());

    let absent = TlsConfig { key: Some(dir.path().join("absent.pem")), ..config.clone() };
    assert!(load(&absent).contains("absent.pem: No such file"), "{}", load(&absent));
    let swapped = TlsConfig { key: config.cert.clone(), ..config.clone() };
    assert!(load(&swapped).ends_with("cert.pem holds no private key in PEM form"));
    let swapped = TlsConfig { client_ca: config.key.clone(), ..config };
    assert!(load(&swapped).ends_with("key.pem holds no certificate in PEM form"));
}
