//! `onedrivefs accounts`.

use serde_json::json;

use super::AccountsArgs;
use crate::account::{self, AccountRecord};
use crate::control::registry;
use crate::failure::Outcome;
use crate::output::{self, printable};
use crate::paths::Dirs;

/// Lists the accounts and their mounts.
pub(crate) fn run(args: &AccountsArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let running = registry::list(&dirs)?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for name in account::list(&dirs)? {
        let record = AccountRecord::load(&dirs, &name)?.unwrap_or_default();
        let signed_in = dirs.token_file(&name).exists();
        let mounts: Vec<String> = running
            .iter()
            .filter(|daemon| daemon.account == name)
            .map(|daemon| daemon.mountpoint.display().to_string())
            .collect();
        let user = record.user.unwrap_or_default();
        rows.push(vec![
            name.to_string(),
            printable(&user.principal),
            if signed_in { "signed in" } else { "signed out" }.to_owned(),
            printable(&mounts.join(", ")),
        ]);
        values.push(json!({
            "account": name,
            "user": user.principal,
            "name": user.name,
            "signed_in": signed_in,
            "mounts": mounts,
        }));
    }
    if args.json {
        return output::json(&values);
    }
    if rows.is_empty() {
        output::note("No account yet; sign in with `onedrivefs login`.");
        return Ok(());
    }
    output::raw(&output::table(
        &["ACCOUNT", "USER", "STATE", "MOUNTED AT"],
        &rows,
    ))
}
