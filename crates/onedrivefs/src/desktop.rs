//! Tells the desktop what needs attention, through the session bus.
//!
//! Nothing waits for this: events are counted where they happen, and a task of its own shows them.
//! Where there is no bus, or nobody on it who shows notifications, nothing happens. What comes in
//! numbers is shown as a number.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use onedrivefs_sync::{Engine, Event};
use onedrivefs_vfs::Forest;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use zbus::Connection;
use zbus::zvariant::Value;

use crate::output::printable;
use crate::paths::AccountName;
use crate::status::{counted, held_next};

/// How long events are gathered before they are shown, so that many of a kind are one.
const GATHER: Duration = Duration::from_secs(2);

/// Pause after something was shown.
const PAUSE: Duration = Duration::from_secs(10);

/// Pause between two reminders to sign in.
const REMIND: Duration = Duration::from_secs(3600);

/// Longest wait for the bus and for whoever shows notifications.
const BUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest piece of text that comes from elsewhere, in characters.
const TEXT_MAX: usize = 300;

/// The name, path and interface of whoever shows notifications.
const NAME: &str = "org.freedesktop.Notifications";
const OBJECT: &str = "/org/freedesktop/Notifications";

/// What is told, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    SignIn,
    Expiry,
    Held,
    Parked,
    Conflict,
}

/// Events that were not shown yet: how many of a kind, and the first of them.
#[derive(Default)]
struct Inbox {
    events: Mutex<BTreeMap<Kind, (u64, Option<Event>)>>,
    /// The last warning about the end of a secret.
    expiry: Mutex<String>,
    arrived: Notify,
}

impl Inbox {
    fn put(&self, kind: Kind, event: Option<Event>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.entry(kind).or_insert((0, event)).0 += 1;
        drop(events);
        self.arrived.notify_one();
    }

    fn take(&self) -> BTreeMap<Kind, (u64, Option<Event>)> {
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the desktop is told about a mount. Dropping it does not end that.
pub(crate) struct Desktop {
    task: JoinHandle<()>,
    inbox: Arc<Inbox>,
}

/// Where others put what the desktop is to be told.
pub(crate) struct Notices(Arc<Inbox>);

impl Desktop {
    /// For what others have to tell.
    pub(crate) fn notices(&self) -> Notices {
        Notices(Arc::clone(&self.inbox))
    }

    /// The task that tells it, which ends when it is aborted.
    pub(crate) fn into_task(self) -> JoinHandle<()> {
        self.task
    }
}

impl Notices {
    /// A secret or certificate ends soon.
    pub(crate) fn expiry(&self, text: String) {
        *self.0.expiry.lock().unwrap_or_else(PoisonError::into_inner) = text;
        self.0.put(Kind::Expiry, None);
    }
}

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    summary: String,
    body: String,
}

/// When somebody was last reminded to sign in to an account, however many mounts it has.
#[derive(Default)]
pub(crate) struct Reminders(Mutex<Option<Instant>>);

impl Reminders {
    /// Whether to remind now. Who asks and is told so does it.
    fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() > REMIND);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

/// Begins to tell the desktop about a mount. Ends when the task is aborted.
pub(crate) fn start(
    forest: &Arc<Forest>,
    mountpoint: &Path,
    account: &AccountName,
    reminders: Arc<Reminders>,
) -> Desktop {
    let inbox = Arc::new(Inbox::default());
    let letters = Arc::clone(&inbox);
    forest.set_event_teller(Arc::new(move |event| {
        let kind = match &event {
            Event::Parked { .. } => Kind::Parked,
            Event::ConflictCopy { .. } => Kind::Conflict,
            Event::DeletionsHeld { .. } => Kind::Held,
        };
        letters.put(kind, Some(event));
    }));
    let teller = Teller {
        forest: Arc::clone(forest),
        mountpoint: mountpoint.display().to_string(),
        account: account.to_string(),
        reminders,
    };
    let (events, told) = (Arc::clone(&inbox), inbox);
    let task = tokio::spawn(async move {
        tokio::join!(teller.watch_sign_in(&events), teller.show_all(&events));
    });
    Desktop { task, inbox: told }
}

/// Words events.
struct Teller {
    forest: Arc<Forest>,
    mountpoint: String,
    account: String,
    reminders: Arc<Reminders>,
}

impl Teller {
    /// Notes when somebody has to sign in again, whichever drive it is needed for.
    async fn watch_sign_in(&self, inbox: &Inbox) {
        let mut login = self.forest.main().engine().graph.tokens().watch_login();
        loop {
            let reach = self.forest.stir().reach();
            if self.forest.needs_login() && self.reminders.is_due() {
                inbox.put(Kind::SignIn, None);
            }
            tokio::select! {
                () = reach => {}
                Ok(()) = login.changed() => {}
            }
        }
    }

    /// Shows what arrives.
    async fn show_all(&self, inbox: &Inbox) {
        let mut bus = Bus::default();
        loop {
            inbox.arrived.notified().await;
            tokio::time::sleep(GATHER).await;
            let mut shown = false;
            for (kind, (count, first)) in inbox.take() {
                if let Some(note) = self.word(inbox, kind, count, first) {
                    bus.show(&note).await;
                    shown = true;
                }
            }
            if shown {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn word(&self, inbox: &Inbox, kind: Kind, count: u64, first: Option<Event>) -> Option<Note> {
        let note = |summary: String, body: String| Some(Note { summary, body });
        match (kind, first) {
            (Kind::SignIn, _) => note(
                "OneDrive: sign-in needed".to_owned(),
                format!(
                    "The sign-in of the account {0} has expired. Changes are kept on this machine \
                     until you run: onedrivefs login --account {0}",
                    self.account
                ),
            ),
            (Kind::Expiry, _) => {
                let text = inbox.expiry.lock().unwrap_or_else(PoisonError::into_inner);
                note("OneDrive: a sign-in ends soon".to_owned(), short(&text))
            }
            (Kind::Held, _) => {
                // Usually more than when the event happened.
                let held = |engine: &Arc<Engine>| engine.held().ok().flatten();
                let held = self.forest.engines().iter().find_map(held)?;
                note(
                    format!("OneDrive: {} held back", counted(held.count, "deletion")),
                    format!("Since {}. {}", held.reason, held_next(&self.mountpoint)),
                )
            }
            (Kind::Parked, Some(Event::Parked { path, reason })) if count == 1 => note(
                "OneDrive: a change could not be sent".to_owned(),
                format!("{}: {}", self.full(&path), short(&reason)),
            ),
            (Kind::Conflict, Some(Event::ConflictCopy { path, copy })) if count == 1 => note(
                "OneDrive: both versions were kept".to_owned(),
                format!(
                    "{} was changed here and elsewhere. Your version is {}",
                    self.full(&path),
                    self.full(&copy)
                ),
            ),
            (Kind::Parked, _) => note(
                format!("OneDrive: {} could not be sent", counted(count, "change")),
                format!("onedrivefs status {} names them", self.mountpoint),
            ),
            (Kind::Conflict, _) => note(
                format!(
                    "OneDrive: both versions of {} were kept",
                    counted(count, "file")
                ),
                format!("onedrivefs status {} names them", self.mountpoint),
            ),
        }
    }

    fn full(&self, path: &str) -> String {
        let mountpoint = self.mountpoint.trim_end_matches('/');
        format!("{mountpoint}/{}", short(path))
    }
}

/// Text from elsewhere, made fit to be shown.
fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(TEXT_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    printable(&shown)
}

/// Text in which nothing is taken for markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The session bus, connected to when it is first needed.
#[derive(Default)]
struct Bus {
    connection: Option<Shower>,
}

/// Whoever shows notifications.
struct Shower {
    connection: Connection,
    /// Whether markup in the text is obeyed.
    markup: bool,
}

impl Bus {
    async fn show(&mut self, note: &Note) {
        match tokio::time::timeout(BUS_TIMEOUT, self.try_show(note)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::debug!(%error, "The desktop could not be told."),
            Err(_elapsed) => tracing::debug!("The desktop did not answer."),
        }
        // The session may have ended and another one begun.
        self.connection = None;
    }

    async fn try_show(&mut self, note: &Note) -> zbus::Result<()> {
        let shower = match &mut self.connection {
            Some(shower) => shower,
            None => self.connection.insert(Shower::connect().await?),
        };
        let body = if shower.markup {
            escaped(&note.body)
        } else {
            note.body.clone()
        };
        let hints: HashMap<&str, Value<'_>> = HashMap::new();
        let actions: [&str; 0] = [];
        let (replaces, icon, expires) = (0_u32, "folder-remote", -1_i32);
        let content = (
            "onedrivefs",
            replaces,
            icon,
            note.summary.as_str(),
            body.as_str(),
            actions.as_slice(),
            hints,
            expires,
        );
        shower.call("Notify", &content).await?;
        Ok(())
    }
}

impl Shower {
    async fn connect() -> zbus::Result<Self> {
        let connection = Connection::session().await?;
        let mut shower = Self {
            connection,
            markup: true,
        };
        let answer = shower.call("GetCapabilities", &()).await?;
        let capabilities: Vec<String> = answer.body().deserialize()?;
        shower.markup = capabilities.iter().any(|it| it == "body-markup");
        Ok(shower)
    }

    async fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        self.connection
            .call_method(Some(NAME), OBJECT, Some(NAME), method, body)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_neither_be_markup_nor_steer_nor_fill_the_screen() {
        assert_eq!(escaped("<b>a & b</b>"), "&lt;b&gt;a &amp; b&lt;/b&gt;");
        assert_eq!(short("a\u{1b}[2J\nb\u{202e}"), "a\u{fffd}[2J b\u{fffd}");
        assert_eq!(short(&"é".repeat(10_000)).chars().count(), TEXT_MAX + 1);
    }
}
