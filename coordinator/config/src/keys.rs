//! Key files: makes them, reads them, says what is wrong with them.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use zeroize::Zeroizing;

use super::Tls;

/// Where the files of a new pool are, and what of them is public.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Nostr secret key, hex.
    pub nostr: PathBuf,
    /// Store key, hex.
    pub store: PathBuf,
    /// Certificate and key of the worker port.
    pub tls: Tls,
    /// Certificate authority that workers check it with.
    pub ca: PathBuf,
    /// Ed25519 seed of the first worker, hex.
    pub worker: PathBuf,
    /// The first worker's public key, hex, for `workers` in the coordinator's configuration.
    pub worker_identity: String,
    /// The coordinator's Nostr public key, hex.
    pub pubkey: String,
}

/// Makes all keys of a new pool in a folder, readable by their owner alone. `hosts` are the names and addresses by
/// which workers reach the coordinator. An existing file is never overwritten.
pub fn make_keys(folder: &Path, hosts: &[String]) -> anyhow::Result<Keys> {
    fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
    let file = |name: &str| folder.join(name);

    let nostr = nostr::Keys::generate();
    let nostr_secret = Zeroizing::new(nostr.secret_key().to_secret_hex());
    let store = Zeroizing::new(rand::random::<[u8; 32]>());
    let seed = Zeroizing::new(rand::random::<[u8; 32]>());
    let worker =
        Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).map_err(|_| anyhow!("no Ed25519 key came about"))?;

    let authority_key = KeyPair::generate().context("key of the certificate authority")?;
    let authority = authority().self_signed(&authority_key).context("certificate authority")?;
    let issuer = Issuer::new(self::authority(), &authority_key);
    let server_key = KeyPair::generate().context("key of the worker port")?;
    let server = server(hosts)?.signed_by(&server_key, &issuer).context("certificate of the worker port")?;

    let keys = Keys {
        nostr: file("nostr.key"),
        store: file("store.key"),
        tls: Tls { certificate: file("server.pem"), key: file("server.key") },
        ca: file("ca.pem"),
        worker: file("worker.key"),
        worker_identity: hex::encode(worker.public_key()),
        pubkey: nostr.public_key().to_hex(),
    };
    let line = |text: &str| Zeroizing::new(format!("{text}\n"));
    write_new(&keys.nostr, 0o600, &line(&nostr_secret))?;
    write_new(&keys.store, 0o600, &line(&Zeroizing::new(hex::encode(store.as_slice()))))?;
    write_new(&keys.worker, 0o600, &line(&Zeroizing::new(hex::encode(seed.as_slice()))))?;
    write_new(&file("ca.key"), 0o600, &Zeroizing::new(authority_key.serialize_pem()))?;
    write_new(&keys.ca, 0o644, &authority.pem())?;
    write_new(&keys.tls.key, 0o600, &Zeroizing::new(server_key.serialize_pem()))?;
    write_new(&keys.tls.certificate, 0o644, &server.pem())?;
    Ok(keys)
}

/// The keys that [`make_keys`] put into a folder earlier.
pub fn read_keys(folder: &Path) -> anyhow::Result<Keys> {
    let file = |name: &str| folder.join(name);
    let seed = Zeroizing::new(hex::decode(read(&file("worker.key"), "worker.key")?.trim()).unwrap_or_default());
    let worker = Ed25519KeyPair::from_seed_unchecked(&seed)
        .map_err(|_| anyhow!("{}: not 64 hex digits; remove the folder to begin anew", file("worker.key").display()))?;
    Ok(Keys {
        pubkey: read_nostr_key(&file("nostr.key"))?.public_key().to_hex(),
        nostr: file("nostr.key"),
        store: file("store.key"),
        tls: Tls { certificate: file("server.pem"), key: file("server.key") },
        ca: file("ca.pem"),
        worker: file("worker.key"),
        worker_identity: hex::encode(worker.public_key()),
    })
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Longshore pool");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(hosts: &[String]) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Longshore coordinator");
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    for host in hosts {
        let wrong = || format!("`{host}` is neither a host name nor an address");
        params.subject_alt_names.push(match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                let name = url::Host::parse(host).with_context(wrong)?.to_string();
                SanType::DnsName(name.try_into().with_context(wrong)?)
            }
        });
    }
    Ok(params)
}

/// Writes a file that must not be there yet.
pub fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let made = File::options().write(true).create_new(true).mode(mode).open(path);
    let remedy = match &made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => ": it exists, remove it or choose another folder",
        _ => "",
    };
    let written = made.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("{} could not be written{remedy}", path.display()))
}

/// Reads the coordinator's Nostr key (nsec or hex).
pub fn read_nostr_key(path: &Path) -> anyhow::Result<nostr::Keys> {
    let text = read(path, "key_file")?;
    nostr::Keys::parse(text.trim()).ok().with_context(|| {
        format!("key_file {}: neither an nsec nor 64 hex digits; `longshore keygen` makes one", path.display())
    })
}

/// Reads the store key (32 bytes, hex).
pub fn read_store_key(path: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let text = read(path, "store_key_file")?;
    let mut key = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim(), key.as_mut_slice()).ok().with_context(|| {
        format!("store_key_file {}: not 64 hex digits; `longshore keygen` makes one", path.display())
    })?;
    Ok(key)
}

fn read(path: &Path, key: &str) -> anyhow::Result<Zeroizing<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{key} {}: there is no such file; `longshore keygen` makes one", path.display())
        }
        Err(error) => Err(anyhow!("{key} {}: {error}", path.display())),
    }
}

/// Says that others of this machine may read a secret, if they may.
pub fn too_open(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!("{} can be read by others (mode {mode:03o}): run `chmod 600 {}`", path.display(), path.display())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_new_pool_gets_keys_that_can_be_read_by_their_owner_alone_and_are_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let keys = make_keys(folder.path(), &["localhost".into(), "127.0.0.1".into(), "::1".into()]).unwrap();
        assert_eq!(read_nostr_key(&keys.nostr).unwrap().public_key().to_hex(), keys.pubkey);
        assert_ne!(*read_store_key(&keys.store).unwrap(), [0; 32]);
        for secret in [&keys.nostr, &keys.store, &keys.worker, &keys.tls.key, &folder.path().join("ca.key")] {
            assert_eq!(too_open(secret), None, "{}", secret.display());
        }
        assert!(too_open(&keys.ca).unwrap().contains("chmod 600"));
        let error = make_keys(folder.path(), &[]).unwrap_err();
        assert!(format!("{error:#}").contains("it exists"), "{error:#}");
    }

    #[test]
    fn a_bad_key_file_is_named_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k");
        let both = |path: &Path| {
            [read_nostr_key(path).map(drop).unwrap_err(), read_store_key(path).map(drop).unwrap_err()]
                .map(|error| format!("{error:#}"))
        };
        for text in both(&path) {
            assert!(text.contains("no such file; `longshore keygen`"), "{text}");
        }
        fs::write(&path, "not a key").unwrap();
        for text in both(&path) {
            assert!(text.contains("hex digits; `longshore keygen`") && !text.contains("not a key"), "{text}");
        }
        assert!(make_keys(folder.path(), &["not a host".into()]).is_err());
    }
}
