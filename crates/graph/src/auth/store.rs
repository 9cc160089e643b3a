//! Where tokens survive a restart.
//!
//! Several processes may use one account: a mount, and commands beside it. The identity platform
//! hands out a new refresh token with every renewal, so they take turns under a lock and read what
//! the previous one wrote. The file is readable by its owner only from the moment it exists, and
//! replaced as a whole.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onedrivefs_core::{ExposeSecret as _, SecretString};
use parking_lot::Mutex;

use super::token::{StoredToken, TokenSet};
use crate::error::GraphError;

/// Largest token file that is read; real ones are below 10 KiB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// How long another process may hold the lock before it is taken for hung; a renewal takes at most
/// as long as an answer may.
const LOCK_PATIENCE: Duration = Duration::from_secs(75);

/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Keeps the tokens of one account.
#[derive(Clone, Debug)]
pub struct TokenStore(Kind);

/// A place outside of the file system that keeps secrets, such as the desktop's. Its calls block.
pub trait Vault: Send + Sync + std::fmt::Debug {
    /// Reads what is kept; `None` when there is nothing.
    ///
    /// # Errors
    /// The place cannot be reached or is locked.
    fn load(&self) -> io::Result<Option<SecretString>>;

    /// Replaces what is kept.
    ///
    /// # Errors
    /// The place cannot be reached or is locked; then the old content is still there.
    fn save(&self, text: &SecretString) -> io::Result<()>;

    /// Removes what is kept; nothing is fine too.
    ///
    /// # Errors
    /// The place cannot be reached or is locked.
    fn clear(&self) -> io::Result<()>;
}

#[derive(Clone, Debug)]
enum Kind {
    File(PathBuf),
    /// With the file that processes take turns by.
    Vault(Arc<dyn Vault>, PathBuf),
    Memory(Arc<Mutex<Option<TokenSet>>>),
}

/// Holds off other processes until dropped.
#[derive(Debug)]
pub(super) struct StoreLock(#[expect(dead_code, reason = "held for its lock only")] Option<File>);

impl TokenStore {
    /// A file, which need not exist yet.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// A vault; `turns` names a file, beside which a lock keeps processes from renewing at once.
    #[must_use]
    pub fn vault(vault: Arc<dyn Vault>, turns: impl Into<PathBuf>) -> Self {
        Self(Kind::Vault(vault, turns.into()))
    }

    /// Memory only: forgotten with the last clone.
    #[must_use]
    pub fn memory() -> Self {
        Self(Kind::Memory(Arc::default()))
    }

    /// Tells whether the tokens are in a vault.
    pub(super) fn is_vault(&self) -> bool {
        matches!(self.0, Kind::Vault(..))
    }

    /// Reads the tokens; `None` when there are none.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn load(&self) -> Result<Option<TokenSet>, GraphError> {
        match &self.0 {
            Kind::Memory(token) => Ok(token.lock().clone()),
            Kind::Vault(vault, _) => vault
                .load()
                .and_then(|text| {
                    text.map(|text| parse(text.expose_secret().as_bytes()))
                        .transpose()
                })
                .map_err(|source| GraphError::Io {
                    what: "could not read the saved sign-in from the keyring".to_owned(),
                    source,
                }),
            Kind::File(path) => read(path).map_err(|source| GraphError::Io {
                what: format!(
                    "could not read the saved sign-in {}; sign in again",
                    path.display()
                ),
                source,
            }),
        }
    }

    /// Replaces the tokens.
    ///
    /// # Errors
    /// The file cannot be written; then the old one is still there.
    pub fn save(&self, token: &TokenSet) -> Result<(), GraphError> {
        match &self.0 {
            Kind::Memory(own) => {
                *own.lock() = Some(token.clone());
                Ok(())
            }
            Kind::Vault(vault, _) => serde_json::to_string(&StoredToken::from(token))
                .map_err(io::Error::from)
                .and_then(|text| vault.save(&text.into()))
                .map_err(|source| GraphError::Io {
                    what: "could not save the sign-in to the keyring".to_owned(),
                    source,
                }),
            Kind::File(path) => write(path, token).map_err(|source| GraphError::Io {
                what: format!("could not save the sign-in to {}", path.display()),
                source,
            }),
        }
    }

    /// Forgets the tokens.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear(&self) -> Result<(), GraphError> {
        let path = match &self.0 {
            Kind::Memory(own) => {
                *own.lock() = None;
                return Ok(());
            }
            Kind::Vault(vault, _) => {
                return vault.clear().map_err(|source| GraphError::Io {
                    what: "could not remove the saved sign-in from the keyring".to_owned(),
                    source,
                });
            }
            Kind::File(path) => path,
        };
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(GraphError::Io {
                what: format!("could not remove the saved sign-in {}", path.display()),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Waits for other processes to finish their renewal. Blocks; a lock that cannot be had is
    /// done without, because an extra renewal does less harm than none.
    pub(super) fn lock(&self) -> StoreLock {
        let (Kind::File(path) | Kind::Vault(_, path)) = &self.0 else {
            return StoreLock(None);
        };
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        match lock_file(&path.with_file_name(name)) {
            Ok(file) => StoreLock(Some(file)),
            Err(error) => {
                tracing::warn!(%error, "could not lock the saved sign-in; went on without");
                StoreLock(None)
            }
        }
    }
}

/// Takes the lock, waiting for others within reason.
fn lock_file(path: &Path) -> io::Result<File> {
    make_parent(path)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "another process holds it",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Makes the folder of a file, for its owner only.
fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent),
        _ => Ok(()),
    }
}

/// Reads the file.
fn read(path: &Path) -> io::Result<Option<TokenSet>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            "the saved sign-in was readable by others; restricted it"
        );
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    let mut text = Vec::new();
    file.take(FILE_MAX_BYTES).read_to_end(&mut text)?;
    parse(&text).map(Some)
}

/// Reads the form on disk.
fn parse(text: &[u8]) -> io::Result<TokenSet> {
    let stored: StoredToken = serde_json::from_slice(text)
        // The parser's message could quote a secret.
        .map_err(|_error| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))?;
    Ok(stored.into())
}

/// Replaces the file: a new one for its owner only, flushed, then renamed over the old.
fn write(path: &Path, token: &TokenSet) -> io::Result<()> {
    make_parent(path)?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let text = serde_json::to_vec_pretty(&StoredToken::from(token))?;
    let mut file = tempfile::Builder::new()
        .prefix(".token-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(&text)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onedrivefs_core::Timestamp;

    fn token(refresh: &str) -> TokenSet {
        TokenSet {
            access_token: "a".to_owned().into(),
            refresh_token: Some(refresh.to_owned().into()),
            issued_at: Timestamp::from_nanos(1),
            expires_at: Timestamp::from_nanos(2),
            scope: vec!["Files.ReadWrite.All".to_owned()],
        }
    }

    #[test]
    fn the_file_is_private_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/token.json");
        let store = TokenStore::file(&path);
        assert!(store.load().unwrap().is_none());
        for refresh in ["one", "two"] {
            store.save(&token(refresh)).unwrap();
            let loaded = store.load().unwrap().unwrap();
            assert_eq!(loaded.refresh_token.unwrap().expose_secret(), refresh);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        store.load().unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        store.clear().unwrap();
        store.clear().unwrap();
        assert!(store.load().unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_an_error_without_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.json");
        fs::write(&path, "{\"access_token\": \"hush\", ").unwrap();
        let error = TokenStore::file(&path).load().unwrap_err();
        assert!(!format!("{error:?}").contains("hush"));
    }
}
