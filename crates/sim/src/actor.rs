//! Who makes a change. The service tells of every item who made it and who changed it last.
//!
//! The tree of a drive is changed in many places, all of which run while one request is served, so
//! whoever sent that is known to the task rather than handed through all of them. A change outside of
//! any request is one of a script, and made by the drive's owner unless the script says otherwise.

use serde::Serialize;

use crate::drive::Tree;
use crate::identity::Caller;
use crate::world::World;

tokio::task_local! {
    static ACTING: Actor;
}

/// A person, an application, or a person by way of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Actor {
    /// An application by itself is no user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Party>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<Party>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Party {
    id: String,
    #[serde(rename = "displayName")]
    name: String,
}

/// Whoever is not known.
static NOBODY: Actor = Actor {
    user: None,
    application: None,
};

/// Number of an actor in the list of a drive.
pub(crate) type ActorNo = u16;

/// The owner of the drive.
pub(crate) const OWNER: ActorNo = 0;

impl Actor {
    /// Whoever sent a request.
    pub(crate) fn of(world: &World, caller: &Caller) -> Self {
        Self {
            user: caller.user.as_deref().map(|id| person(world, id)),
            application: caller.application.clone().map(|id| Party {
                name: format!("Application {id}"),
                id,
            }),
        }
    }

    /// A person at the web site.
    pub(crate) fn person(world: &World, id: &str) -> Self {
        Self {
            user: Some(person(world, id)),
            application: None,
        }
    }
}

fn person(world: &World, id: &str) -> Party {
    let user = world.config.users.iter().find(|user| user.id == id);
    Party {
        id: id.to_owned(),
        name: user.map_or_else(|| id.to_owned(), |user| user.name.clone()),
    }
}

/// Serves something on somebody's behalf.
pub(crate) async fn serving<F: Future>(actor: Actor, work: F) -> F::Output {
    ACTING.scope(actor, work).await
}

/// Changes something on somebody's behalf; `None` stands for whoever acts already.
pub(crate) fn acting<T>(actor: Option<&Actor>, change: impl FnOnce() -> T) -> T {
    match actor {
        Some(actor) => ACTING.sync_scope(actor.clone(), change),
        None => change(),
    }
}

/// Who sent the request that is being served.
pub(crate) fn current() -> Option<Actor> {
    ACTING.try_with(Clone::clone).ok()
}

impl Tree {
    /// The number of whoever acts now.
    pub(crate) fn actor(&mut self) -> ActorNo {
        let Some(actor) = current() else {
            return OWNER;
        };
        if let Some(known) = self.actors.iter().position(|known| *known == actor) {
            return ActorNo::try_from(known).unwrap_or(OWNER);
        }
        let Ok(number) = ActorNo::try_from(self.actors.len()) else {
            return OWNER;
        };
        self.actors.push(actor);
        number
    }

    /// An actor by the number.
    pub(crate) fn actor_of(&self, number: ActorNo) -> &Actor {
        self.actors.get(usize::from(number)).unwrap_or(&NOBODY)
    }
}
