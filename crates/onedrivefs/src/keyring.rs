//! The desktop's keyring (org.freedesktop.secrets), where there is one.
//!
//! Callers block, and some of them on threads of the event loop, so each call has a thread with an
//! event loop of its own, and a limit on its time: a keyring that is locked asks the person, who may
//! not be there.

use std::io;
use std::time::Duration;

use onedrivefs_core::{ExposeSecret as _, SecretString};
use onedrivefs_graph::auth::Vault;
use oo7::dbus::{Collection, Service};

/// Longest wait for the keyring while nobody is known to look at the screen.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a person to unlock it.
const PERSON_TIMEOUT: Duration = Duration::from_secs(120);

/// One secret in the keyring.
#[derive(Clone, Debug)]
pub(crate) struct KeyringItem {
    label: String,
    attributes: Vec<(&'static str, String)>,
    timeout: Duration,
}

impl KeyringItem {
    /// The item of an account, whose state lies at `state`, for one kind of secret.
    pub(crate) fn new(account: &str, state: &str, kind: &'static str) -> Self {
        Self {
            label: format!("onedrivefs: {kind} of the account {account}"),
            attributes: vec![
                ("application", "onedrivefs".to_owned()),
                ("account", account.to_owned()),
                ("state", state.to_owned()),
                ("kind", kind.to_owned()),
            ],
            timeout: TIMEOUT,
        }
    }

    /// The same for a person who waits and can unlock the keyring.
    pub(crate) fn for_person(self) -> Self {
        Self {
            timeout: PERSON_TIMEOUT,
            ..self
        }
    }

    fn attributes(&self) -> Vec<(&str, &str)> {
        let pairs = self.attributes.iter();
        pairs.map(|(key, value)| (*key, value.as_str())).collect()
    }

    /// Does something with the unlocked collection.
    fn with<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Self, Collection) -> Result<T, oo7::dbus::Error> + Send,
    ) -> io::Result<T> {
        in_own_loop(self.timeout, async || {
            let collection = default_collection().await?;
            if collection.is_locked().await? {
                collection.unlock(None).await?;
            }
            work(self, collection).await
        })
    }
}

impl Vault for KeyringItem {
    fn load(&self) -> io::Result<Option<SecretString>> {
        let bytes = self.with(async |own, collection| {
            let items = collection.search_items(&own.attributes()).await?;
            match items.first() {
                Some(item) => {
                    if item.is_locked().await? {
                        item.unlock(None).await?;
                    }
                    Ok(Some(item.secret().await?))
                }
                None => Ok(None),
            }
        })?;
        let text = |secret: oo7::Secret| {
            let text = String::from_utf8(secret.as_bytes().to_vec());
            text.map(SecretString::from)
                .map_err(|_bytes| io::Error::new(io::ErrorKind::InvalidData, "it is damaged"))
        };
        bytes.map(text).transpose()
    }

    fn save(&self, text: &SecretString) -> io::Result<()> {
        self.with(async |own, collection| {
            let secret = oo7::Secret::text(text.expose_secret());
            collection
                .create_item(&own.label, &own.attributes(), secret, true, None)
                .await
                .map(drop)
        })
    }

    fn clear(&self) -> io::Result<()> {
        self.with(async |own, collection| {
            for item in collection.search_items(&own.attributes()).await? {
                item.delete(None).await?;
            }
            Ok(())
        })
    }
}

/// The collection that a person's secrets go to. One that does not exist is not made: that would put
/// a question on the screen of somebody who did not ask for a keyring.
async fn default_collection() -> Result<Collection, oo7::dbus::Error> {
    let service = Service::new().await?;
    let found = service.with_alias(Service::DEFAULT_COLLECTION).await?;
    found.ok_or_else(|| oo7::dbus::Error::NotFound("there is no default keyring".to_owned()))
}

/// Tells whether the session has a keyring.
pub(crate) fn is_offered() -> bool {
    in_own_loop(TIMEOUT, async || default_collection().await.map(drop))
        .inspect_err(|error| tracing::debug!(%error, "There is no keyring"))
        .is_ok()
}

/// Runs something on a thread with an event loop of its own, within a limit.
fn in_own_loop<T: Send>(
    limit: Duration,
    work: impl AsyncFnOnce() -> Result<T, oo7::dbus::Error> + Send,
) -> io::Result<T> {
    let run = || -> io::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(async { tokio::time::timeout(limit, work()).await });
        match result {
            Ok(result) => result.map_err(io::Error::other),
            Err(_elapsed) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the keyring did not answer; it may be waiting to be unlocked",
            )),
        }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("keyring".to_owned());
        let joined = thread.spawn_scoped(scope, run)?.join();
        joined.unwrap_or_else(|_panic| Err(io::Error::other("the keyring could not be asked")))
    })
}
