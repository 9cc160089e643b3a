//! `onedrivefs accounts`.

use serde_json::json;

use super::AccountsArgs;
use crate::account::{self, SignInKind};
use crate::config::Layer;
use crate::control::registry;
use crate::credentials::Expiry;
use crate::failure::Outcome;
use crate::output::{self, printable};
use crate::paths::Dirs;

/// Lists the accounts and their mounts.
pub(crate) fn run(args: &AccountsArgs) -> Outcome {
    let dirs = Dirs::from_env()?;
    let running = registry::list(&dirs)?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let config = Layer::load(&dirs.config_file)?;
    for name in account::all(&dirs, &config)? {
        let record = account::known(&dirs, &config, &name)?.unwrap_or_default();
        // A keyring that does not answer is a matter for `doctor`.
        let signed_in = record.is_signed_in(&dirs, &name).unwrap_or(false);
        let mounts: Vec<String> = running
            .iter()
            .filter(|daemon| daemon.account == name)
            .map(|daemon| daemon.mountpoint.display().to_string())
            .collect();
        let app = record.sign_in == SignInKind::App;
        let expiry = Expiry::of(&record);
        let warning = expiry.as_ref().and_then(|end| end.warning(name.as_str()));
        let user = record.user.unwrap_or_default();
        let shown = if app {
            format!("application {}", record.client_id)
        } else {
            user.principal.clone()
        };
        if let Some(warning) = &warning {
            output::note(format!("warning: {warning}"));
        }
        rows.push(vec![
            name.to_string(),
            printable(&shown),
            if signed_in { "signed in" } else { "signed out" }.to_owned(),
            printable(&mounts.join(", ")),
        ]);
        values.push(json!({
            "account": name,
            "user": user.principal,
            "name": user.name,
            "application": app.then_some(&record.client_id),
            "tenant": record.tenant,
            "signed_in": signed_in,
            "secrets": record.kept_in,
            "expires": expiry,
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
