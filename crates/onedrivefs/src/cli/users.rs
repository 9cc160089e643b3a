//! `onedrivefs users`, and `onedrivefs drives --users`.

use onedrivefs_graph::GraphClient;
use serde_json::json;

use super::UsersArgs;
use crate::account;
use crate::config::Layer;
use crate::connect::{self, Patience, explain_graph};
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::Dirs;

/// Lists the people of the organisation by the names that `mount --user` takes.
pub(crate) async fn run(args: &UsersArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let config = Layer::load(&dirs.config_file)?;
    let (name, record) = account::choose(&dirs, &config, args.account.account.as_ref())?;
    let graph = connect::client(&dirs, &config, &name, &record, Patience::Person)?;
    list(&graph, args.json).await
}

/// Lists people, with the sign-in of a client.
pub(super) async fn list(graph: &GraphClient, as_json: bool) -> Outcome {
    let users = graph.users().await.map_err(|error| match error.status() {
        Some(403) => Failure::because("listing people", error).next(
            "grant the application permission User.Read.All, or look them up at \
             https://admin.microsoft.com under Users, Active users: the user name is what `mount \
             --user` takes",
        ),
        _ => explain_graph("listing people", error),
    })?;
    if as_json {
        let values = users.iter().map(|user| {
            json!({
                "id": user.id,
                "user": user.user_principal_name,
                "name": user.display_name,
            })
        });
        return output::json(&values.collect::<Vec<_>>());
    }
    let rows: Vec<Vec<String>> = users
        .iter()
        .map(|user| {
            vec![
                printable(user.user_principal_name.as_deref().unwrap_or_default()),
                printable(user.display_name.as_deref().unwrap_or_default()),
                user.id.clone(),
            ]
        })
        .collect();
    output::raw(&output::table(&["USER", "NAME", "ID"], &rows))
}
