//! Whose sign-in it is, and what it has shown.

use onedrivefs_graph::{DriveInfo, Me};

use crate::account::{AccountRecord, DriveRecord, SignInKind};
use crate::credentials::Expiry;
use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::paths::AccountName;
use crate::size::ByteSize;

/// Keeps the changes of a person from going out as an application, and the other way round.
pub(super) fn check_same_kind(
    name: &AccountName,
    known: Option<&AccountRecord>,
    now: &AccountRecord,
) -> Outcome {
    let Some(known) = known.filter(|known| known.sign_in != now.sign_in) else {
        return Ok(());
    };
    let whose = match known.sign_in {
        SignInKind::Person if known.user.is_some() => "a person",
        SignInKind::App if !known.drives.is_empty() => "an application",
        _ => return Ok(()),
    };
    Err(Failure::new(
        format!("account {name}"),
        format!("belongs to {whose}, and now something else is to sign in"),
    )
    .next(format!(
        "give it a name: `onedrivefs login --account OTHER …`; or run `onedrivefs logout --forget \
         --account {name}` first"
    )))
}

/// Keeps the changes that wait for one person from going out as another.
pub(super) fn check_same_person(
    name: &AccountName,
    known: Option<&AccountRecord>,
    me: &Me,
    drive: Option<&DriveInfo>,
) -> Outcome {
    let Some(known) = known else {
        return Ok(());
    };
    let before = match &known.user {
        // Without the permission to ask for a name, somebody is known by their drive.
        Some(user) if is_drive_id(&user.id) || is_drive_id(&me.id) => {
            let now = drive.map(|drive| &drive.id);
            let own = known.own_drive().map(|drive| &drive.id);
            (own.is_some() && own != now).then(|| user.principal.clone())
        }
        Some(user) => (user.id != me.id).then(|| user.principal.clone()),
        None => None,
    };
    let Some(before) = before else {
        return Ok(());
    };
    Err(Failure::new(
        format!("account {name}"),
        format!(
            "belongs to {before}, but {} signed in",
            me.user_principal_name.as_deref().unwrap_or(&me.id)
        ),
    )
    .next(format!(
        "give the other person a name: `onedrivefs login --account OTHER`; or run `onedrivefs \
         logout --forget --account {name}` first"
    )))
}

/// Begins the ids of people who are known by their drive only.
const DRIVE_ID: &str = "drive ";

fn is_drive_id(id: &str) -> bool {
    id.starts_with(DRIVE_ID)
}

/// Somebody whose name may not be asked for.
pub(super) fn somebody(drive: Option<&DriveInfo>) -> Me {
    Me {
        id: format!("{DRIVE_ID}{}", drive.map_or("", |drive| drive.id.as_str())),
        display_name: drive.and_then(|drive| drive.owner.clone()),
        user_principal_name: None,
    }
}

/// The form in which the signed-in person's drive is remembered.
pub(super) fn own_drive(drive: &DriveInfo) -> DriveRecord {
    DriveRecord {
        id: drive.id.clone(),
        kind: drive.kind,
        name: drive.name.clone(),
        own: true,
        mailbox: None,
        site: None,
        site_default: false,
    }
}

/// What a sign-in has shown.
pub(super) struct Finding {
    /// The drive that was opened.
    pub(super) drive: Option<DriveInfo>,
    /// What was asked for, of a person.
    pub(super) asked: Vec<String>,
}

impl Finding {
    /// Tells a person.
    pub(super) fn report(&self, name: &AccountName, record: &AccountRecord) -> Outcome {
        match record.sign_in {
            SignInKind::Person => self.about_person(name, record)?,
            SignInKind::App => about_app(name, record)?,
        }
        if let Some(drive) = &self.drive {
            let space = drive.quota.map_or_else(String::new, |quota| {
                format!(
                    ", {} of {} used",
                    ByteSize(quota.used),
                    ByteSize(quota.total)
                )
            });
            output::line(format!(
                "Drive: {} ({}){space}.",
                printable(&drive.name),
                drive.kind.as_str()
            ))?;
        }
        let expiry = Expiry::of(record).and_then(|expiry| expiry.warning(name.as_str()));
        if let Some(warning) = expiry {
            output::note(format!("warning: {warning}"));
        }
        match (record.sign_in, &self.drive) {
            (SignInKind::App, None) => output::note(
                "Mount somebody's drive with `onedrivefs mount --user UPN MOUNTPOINT`; `onedrivefs \
                 users` lists them.",
            ),
            (_, Some(_)) => output::note("Mount it with `onedrivefs mount MOUNTPOINT`."),
            (SignInKind::Person, None) => output::note(
                "This person has no drive that can be seen; sites may have: `onedrivefs drives --site \
                 NAME`.",
            ),
        }
        Ok(())
    }

    fn about_person(&self, name: &AccountName, record: &AccountRecord) -> Outcome {
        let user = record.user.clone().unwrap_or_default();
        output::line(format!(
            "Signed in as {} <{}>, kept as account {name}.",
            printable(&user.name),
            printable(&user.principal)
        ))?;
        let permissions = record.permissions();
        let missing = permissions.missing(&self.asked);
        if !missing.is_empty() {
            output::note(format!(
                "warning: not granted, though asked for: {}. What needs it does not work",
                printable(&missing.join(", "))
            ));
        }
        if permissions.read_only() {
            output::note("No permission to change anything was granted: mounts are read-only.");
        }
        Ok(())
    }
}

fn about_app(name: &AccountName, record: &AccountRecord) -> Outcome {
    output::line(format!(
        "Signed in as the application {} of {}, kept as account {name}.",
        printable(&record.client_id),
        printable(&record.tenant)
    ))?;
    output::line(format!(
        "Granted to it: {}.",
        printable(&match record.granted.as_slice() {
            [] => "not told".to_owned(),
            granted => granted.join(", "),
        })
    ))?;
    output::note(
        "warning: whoever has this secret or key can read the files of everybody the permissions \
         cover, usually the whole organization. Keep it closed, and consider Sites.Selected, which \
         covers named sites only.",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::User;

    #[test]
    fn another_person_does_not_take_an_account_over() {
        let me = |id: &str| Me {
            id: id.to_owned(),
            display_name: None,
            user_principal_name: Some("b@example.com".into()),
        };
        let known = AccountRecord {
            user: Some(User {
                id: "1".into(),
                ..User::default()
            }),
            ..AccountRecord::default()
        };
        let name = AccountName::default();
        assert!(check_same_person(&name, Some(&known), &me("1"), None).is_ok());
        assert!(check_same_person(&name, None, &me("2"), None).is_ok());
        let refused = check_same_person(&name, Some(&known), &me("2"), None).expect_err("refused");
        assert!(refused.to_string().contains("b@example.com"), "{refused}");
    }
}
