//! TLS for gateways: certificates from files, read again when they change, or made by the node.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::pinned;
use crate::{
    config::{certificate::CertificateSha256, gateway::TlsFiles},
    files,
};

/// Where in the home folder the node keeps the certificate that it made for the Syft gateway.
pub const SYFT_CERTIFICATE: &str = "syft/certificate.pem";

/// How long a certificate is good without looking at its files.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Longest file of certificates or with a key, in bytes: a long chain has some 20,000.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why a gateway cannot speak TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is no PEM of what it should be.
    #[error("could not read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The key does not belong to the certificate, or is of a kind that is not supported.
    #[error("certificate and key are not usable")]
    Pair(#[source] rustls::Error),
    /// A certificate of the node's own cannot be made.
    #[error("could not make a certificate")]
    Make(#[source] rcgen::Error),
    /// A certificate of the node's own cannot be kept.
    #[error("could not write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Returns what makes TLS connections with the certificate in these files. They are read again
/// when they change; as long as what they hold then is not usable, the earlier certificate is used.
///
/// # Errors
/// Returns why the files are not usable.
pub(crate) fn acceptor(files: &TlsFiles, home: &Path) -> Result<TlsAcceptor, TlsError> {
    let files = TlsFiles {
        certificate: home.join(&files.certificate),
        key: home.join(&files.key),
    };
    let resolver = Resolver::load(files)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Returns how the node speaks TLS as a client: it believes what the system believes.
pub(crate) fn client_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // A system without any has nothing to believe, and then no server is good.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Returns the names under which clients may look for a gateway of this machine that listens there.
/// Electron checks them.
pub(crate) fn own_names(listen: IpAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    if listen.is_unspecified() {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // A certificate has ASCII names only.
        if let host = host.trim()
            && !host.is_empty()
            && host.is_ascii()
        {
            // The second is how a Pi announces itself on its network (RFC 6762).
            names.extend([host.to_owned(), format!("{host}.local")]);
        }
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        names.extend(
            interfaces
                .iter()
                .map(|interface| interface.ip().to_string()),
        );
    } else {
        names.push(listen.to_string());
    }
    names
}

/// Returns how the node speaks TLS with a server that has this certificate.
pub(crate) fn pinned_client_config(sha256: CertificateSha256) -> Arc<ClientConfig> {
    pinned::client_config(sha256, provider())
}

/// Returns the files of a certificate that the node makes for itself, made unless they are there.
///
/// # Errors
/// Returns why they cannot be made.
pub(crate) fn self_signed(folder: &Path, names: Vec<String>) -> Result<TlsFiles, TlsError> {
    let pair = TlsFiles {
        certificate: folder.join("certificate.pem"),
        key: folder.join("certificate.key"),
    };
    // The certificate is written last: where it is, its key is, too.
    if pair.certificate.exists() {
        return Ok(pair);
    }
    let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::Make)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Write { path, source }
    };
    files::create_folder(folder).map_err(failed(folder))?;
    let write = |path: &Path, text: String| {
        files::replace(path, text.as_bytes(), files::OWNER_ONLY).map_err(failed(path))
    };
    write(&pair.key, made.key_pair.serialize_pem())?;
    write(&pair.certificate, made.cert.pem())?;
    Ok(pair)
}

/// Returns the SHA-256 of the certificate in a file, in hexadecimal, as browsers show it.
///
/// # Errors
/// Returns why it cannot be read.
pub fn fingerprint(certificate: &Path) -> Result<String, TlsError> {
    let certificate: CertificateDer<'_> = first_of(certificate)?;
    Ok(hex::encode(Sha256::digest(&certificate)))
}

/// Shows clients the certificate of the files as they are.
#[derive(Debug)]
struct Resolver {
    files: TlsFiles,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
    looked: Instant,
}

/// What changes when the files do.
type Stamp = [Option<SystemTime>; 2];

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl Resolver {
    fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let stamp = stamp(&files);
        let loaded = Loaded {
            key: load(&files)?,
            stamp,
            looked: Instant::now(),
        };
        Ok(Self {
            files,
            loaded: Mutex::new(loaded),
        })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.looked.elapsed() >= LOOK_INTERVAL {
            loaded.looked = Instant::now();
            let stamp = stamp(&self.files);
            if stamp != loaded.stamp {
                match load(&self.files) {
                    Ok(key) => {
                        loaded.key = key;
                        tracing::info!(path = %self.files.certificate.display(), "certificate read again");
                    }
                    Err(error) => {
                        let error = super::with_causes(&error);
                        tracing::warn!(%error, "kept the old certificate");
                    }
                }
                loaded.stamp = stamp;
            }
        }
        Arc::clone(&loaded.key)
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key]
        .map(|path| fs::metadata(path).and_then(|found| found.modified()).ok())
}

fn load(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(read(&files.certificate)?.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(unreadable(&files.certificate))?;
    let key: PrivateKeyDer<'_> = first_of(&files.key)?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Pair)?;
    Ok(Arc::new(key))
}

/// Returns the first thing of its kind in a PEM file.
fn first_of<T: PemObject>(path: &Path) -> Result<T, TlsError> {
    T::from_pem_slice(read(path)?.as_bytes()).map_err(unreadable(path))
}

fn read(path: &Path) -> Result<Zeroizing<String>, TlsError> {
    let read = files::read_bounded(path, PEM_BYTES_MAX);
    read.map(Zeroizing::new)
        .map_err(|error| unreadable(path)(pem::Error::Io(error)))
}

fn unreadable(path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::File { path, source }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &TlsFiles, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        fs::write(&files.certificate, made.cert.pem()).expect("written");
        fs::write(&files.key, made.key_pair.serialize_pem()).expect("written");
    }

    /// Lets the files be looked at again, as if time had passed.
    fn look_again(resolver: &Resolver) -> Arc<CertifiedKey> {
        let mut loaded = resolver.loaded.lock().expect("nobody panicked");
        loaded.looked = Instant::now()
            .checked_sub(LOOK_INTERVAL)
            .expect("a while ago");
        loaded.stamp = [None; 2];
        drop(loaded);
        resolver.current()
    }

    #[test]
    fn changed_files_are_read_again_and_broken_ones_change_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = TlsFiles {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        write(&files, &["one"]);
        let resolver = Resolver::load(files.clone()).expect("usable");
        let first = resolver.current();

        write(&files, &["two"]);
        assert_eq!(resolver.current().cert, first.cert, "not looked at yet");
        let second = look_again(&resolver);
        fs::write(&files.key, "no key").expect("written");
        let third = look_again(&resolver);

        assert_ne!(second.cert, first.cert);
        assert_eq!(third.cert, second.cert);
        assert!(matches!(Resolver::load(files), Err(TlsError::File { .. })));
    }

    #[test]
    fn a_gateway_on_all_interfaces_is_known_by_all_addresses_of_the_machine() {
        let everywhere = own_names(IpAddr::from([0, 0, 0, 0]));
        assert!(everywhere.contains(&"localhost".to_owned()));
        assert!(everywhere.contains(&"127.0.0.1".to_owned()));
        assert!(!everywhere.contains(&"0.0.0.0".to_owned()));
        rcgen::generate_simple_self_signed(everywhere).expect("names of a certificate");
        let one = own_names(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(one, ["localhost", "192.0.2.7"]);
    }

    #[test]
    fn a_certificate_of_the_nodes_own_is_made_once_and_only_its_owner_reads_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let names = || vec!["pi-1".to_owned()];

        let files = self_signed(folder.path(), names()).expect("made");
        let shown = fingerprint(&files.certificate).expect("read");
        let again = self_signed(folder.path(), names()).expect("there already");

        assert_eq!(fingerprint(&again.certificate).expect("read"), shown);
        let mode = fs::metadata(&files.key)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        Resolver::load(files).expect("usable");
    }
}
