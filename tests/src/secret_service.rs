//! A keyring on the session bus, as far as org.freedesktop.secrets describes it: one collection,
//! secrets in the clear on the wire, and a lock that only the test opens.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, ObjectServer, fdo, interface};

use crate::service::Service;

/// Where the service, its collection and its session are.
const ROOT: &str = "/org/freedesktop/secrets";
const COLLECTION: &str = "/org/freedesktop/secrets/collection/login";
const SESSION: &str = "/org/freedesktop/secrets/session/1";

/// Time the bus has to take it.
const UP_LIMIT: Duration = Duration::from_secs(20);

/// A secret on the wire: session, parameters, value, kind of content.
type Wire = (OwnedObjectPath, Vec<u8>, Vec<u8>, String);

/// A kept secret.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The name people see.
    pub label: String,
    /// What it is found by.
    pub attributes: HashMap<String, String>,
    /// The secret.
    pub value: String,
}

#[derive(Debug, Default)]
struct State {
    items: BTreeMap<u32, Kept>,
    next: u32,
    locked: bool,
}

type Shared = Arc<Mutex<State>>;

fn open(shared: &Shared) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running keyring. Dropping it takes it off the bus.
pub struct Keyring {
    state: Shared,
    _connection: Connection,
}

impl Keyring {
    /// Offers one on the bus of a [`crate::Desktop`] with this runtime directory.
    ///
    /// # Panics
    /// When the bus does not take it.
    #[must_use]
    pub fn start(service: &Service, runtime_dir: &Path) -> Self {
        let address = format!("unix:path={}", runtime_dir.join("bus").display());
        let state = Shared::default();
        let shared = Arc::clone(&state);
        let serve = async {
            zbus::connection::Builder::address(address.as_str())?
                .serve_at(ROOT, Secrets(Arc::clone(&shared)))?
                .serve_at(COLLECTION, Collection(shared))?
                .name("org.freedesktop.secrets")?
                .build()
                .await
        };
        let connection = service
            .runtime()
            .block_on(async { tokio::time::timeout(UP_LIMIT, serve).await });
        Self {
            state,
            _connection: connection.expect("in time").expect("on the bus"),
        }
    }

    /// Everything that is kept.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        open(&self.state).items.values().cloned().collect()
    }

    /// Locks it, so that nobody gets anything until it is unlocked, or unlocks it.
    pub fn set_locked(&self, locked: bool) {
        open(&self.state).locked = locked;
    }
}

fn item_path(number: u32) -> OwnedObjectPath {
    let path = ObjectPath::try_from(format!("{COLLECTION}/{number}"));
    path.expect("a valid path").into()
}

fn nothing() -> OwnedObjectPath {
    ObjectPath::from_static_str_unchecked("/").into()
}

fn locked() -> fdo::Error {
    fdo::Error::AccessDenied("the keyring is locked".to_owned())
}

fn found(state: &State, wanted: &HashMap<String, String>) -> Vec<u32> {
    let fits = |kept: &Kept| {
        wanted
            .iter()
            .all(|(key, value)| kept.attributes.get(key) == Some(value))
    };
    let all = state.items.iter().filter(|(_, kept)| fits(kept));
    all.map(|(number, _)| *number).collect()
}

struct Secrets(Shared);

#[interface(name = "org.freedesktop.Secret.Service")]
impl Secrets {
    fn open_session(
        &self,
        algorithm: String,
        _input: Value<'_>,
    ) -> fdo::Result<(OwnedValue, OwnedObjectPath)> {
        if algorithm != "plain" {
            return Err(fdo::Error::NotSupported("only plain".to_owned()));
        }
        let output =
            OwnedValue::try_from(Value::from("")).map_err(|e| fdo::Error::Failed(e.to_string()))?;
        Ok((
            output,
            ObjectPath::from_static_str_unchecked(SESSION).into(),
        ))
    }

    fn read_alias(&self, name: String) -> OwnedObjectPath {
        match name.as_str() {
            "default" => ObjectPath::from_static_str_unchecked(COLLECTION).into(),
            _ => nothing(),
        }
    }

    fn unlock(
        &self,
        objects: Vec<OwnedObjectPath>,
    ) -> fdo::Result<(Vec<OwnedObjectPath>, OwnedObjectPath)> {
        if open(&self.0).locked {
            return Err(locked());
        }
        Ok((objects, nothing()))
    }

    #[zbus(property)]
    fn collections(&self) -> Vec<OwnedObjectPath> {
        vec![ObjectPath::from_static_str_unchecked(COLLECTION).into()]
    }
}

struct Collection(Shared);

#[interface(name = "org.freedesktop.Secret.Collection")]
impl Collection {
    fn search_items(&self, attributes: HashMap<String, String>) -> Vec<OwnedObjectPath> {
        found(&open(&self.0), &attributes)
            .into_iter()
            .map(item_path)
            .collect()
    }

    async fn create_item(
        &self,
        #[zbus(object_server)] server: &ObjectServer,
        properties: HashMap<String, OwnedValue>,
        secret: Wire,
        replace: bool,
    ) -> fdo::Result<(OwnedObjectPath, OwnedObjectPath)> {
        let text = |key: &str| {
            let value = properties.get(key).and_then(|value| value.try_clone().ok());
            value
                .and_then(|value| String::try_from(value).ok())
                .unwrap_or_default()
        };
        let attributes = properties.get("org.freedesktop.Secret.Item.Attributes");
        let attributes = attributes.and_then(|value| value.try_clone().ok());
        let attributes: HashMap<String, String> = attributes
            .and_then(|value| value.try_into().ok())
            .unwrap_or_default();
        let number = {
            let mut state = open(&self.0);
            if state.locked {
                return Err(locked());
            }
            let same = found(&state, &attributes)
                .first()
                .copied()
                .filter(|_| replace);
            let number = same.unwrap_or_else(|| {
                state.next += 1;
                state.next
            });
            let kept = Kept {
                label: text("org.freedesktop.Secret.Item.Label"),
                attributes,
                value: String::from_utf8_lossy(&secret.2).into_owned(),
            };
            state.items.insert(number, kept);
            number
        };
        let path = item_path(number);
        let item = Item(Arc::clone(&self.0), number);
        // One that is there already stays.
        let _added = server.at(&path, item).await?;
        Ok((path, nothing()))
    }

    #[zbus(property)]
    fn items(&self) -> Vec<OwnedObjectPath> {
        open(&self.0)
            .items
            .keys()
            .map(|number| item_path(*number))
            .collect()
    }

    #[zbus(property)]
    fn label(&self) -> String {
        "Login".to_owned()
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        open(&self.0).locked
    }

    #[zbus(property)]
    fn created(&self) -> u64 {
        0
    }

    #[zbus(property)]
    fn modified(&self) -> u64 {
        0
    }
}

struct Item(Shared, u32);

#[interface(name = "org.freedesktop.Secret.Item")]
impl Item {
    fn get_secret(&self, session: OwnedObjectPath) -> fdo::Result<(Wire,)> {
        let state = open(&self.0);
        if state.locked {
            return Err(locked());
        }
        let gone = || fdo::Error::UnknownObject("the item is gone".to_owned());
        let kept = state.items.get(&self.1).ok_or_else(gone)?;
        let value = kept.value.clone().into_bytes();
        Ok(((session, Vec::new(), value, "text/plain".to_owned()),))
    }

    fn delete(&self) -> fdo::Result<OwnedObjectPath> {
        let mut state = open(&self.0);
        if state.locked {
            return Err(locked());
        }
        state.items.remove(&self.1);
        Ok(nothing())
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        open(&self.0).locked
    }

    #[zbus(property)]
    fn attributes(&self) -> HashMap<String, String> {
        let state = open(&self.0);
        let kept = state.items.get(&self.1);
        kept.map(|kept| kept.attributes.clone()).unwrap_or_default()
    }

    #[zbus(property)]
    fn label(&self) -> String {
        let state = open(&self.0);
        state
            .items
            .get(&self.1)
            .map(|kept| kept.label.clone())
            .unwrap_or_default()
    }

    #[zbus(property)]
    fn created(&self) -> u64 {
        0
    }

    #[zbus(property)]
    fn modified(&self) -> u64 {
        0
    }
}
