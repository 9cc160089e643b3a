//! What a mount tells about its sign-in: in `status`, in the log and on the desktop.

use std::time::Duration;

use onedrivefs_graph::auth::TokenStore;
use serde_json::{Value, json};

use crate::account::{self, SignInKind};
use crate::config::Layer;
use crate::credentials::Expiry;
use crate::paths::{AccountName, Dirs};

/// Pause between two looks at how long a secret is still good.
const LOOK: Duration = Duration::from_secs(6 * 3600);

/// Reads what is known about the sign-in of a mount. It is read anew each time: somebody may sign in
/// again meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct SignInReport {
    dirs: Dirs,
    config: Layer,
    account: AccountName,
}

impl SignInReport {
    /// For a mount of an account.
    pub(crate) fn new(dirs: &Dirs, config: &Layer, account: &AccountName) -> Self {
        Self {
            dirs: dirs.clone(),
            config: config.clone(),
            account: account.clone(),
        }
    }

    /// The part of `status --json` about the sign-in.
    pub(crate) fn to_json(&self) -> Value {
        let record = account::known(&self.dirs, &self.config, &self.account);
        let record = record.ok().flatten().unwrap_or_default();
        let expiry = Expiry::of(&record);
        json!({
            "account": self.account,
            "kind": record.sign_in,
            "expires": expiry,
            "warning": expiry.and_then(|end| end.warning(self.account.as_str())),
            "granted": record.granted,
            "announcements": record.sign_in == SignInKind::Person,
            "login": format!("onedrivefs login --account {}", self.account),
        })
    }

    /// Where the tokens are now: a new sign-in may have put them somewhere else.
    pub(crate) fn tokens(&self) -> Option<TokenStore> {
        let record = account::known(&self.dirs, &self.config, &self.account);
        let secrets = record.ok().flatten()?.secrets(&self.dirs, &self.account);
        Some(secrets.tokens())
    }

    /// A sentence when the secret or certificate ends soon.
    pub(crate) fn warning(&self) -> Option<String> {
        let record = account::known(&self.dirs, &self.config, &self.account);
        Expiry::of(&record.ok().flatten()?)?.warning(self.account.as_str())
    }

    /// Warns whenever the end comes nearer, at most once a day, through the log and `tell`.
    pub(crate) async fn watch(&self, tell: impl Fn(String)) {
        let mut last = None;
        loop {
            let report = self.clone();
            let warning = tokio::task::spawn_blocking(move || report.warning()).await;
            let warning = warning.unwrap_or_default();
            if warning != last {
                if let Some(warning) = &warning {
                    tracing::warn!("{warning}");
                    tell(warning.clone());
                }
                last = warning;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
