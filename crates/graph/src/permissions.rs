//! What a sign-in may do, by the names of the permissions that were granted.
//!
//! An unknown list allows everything: the service has the last word, and a sign-in whose answer did
//! not tell must not lose anything.

/// Something that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Reading one's own drive.
    ReadOwn,
    /// Changing one's own drive.
    WriteOwn,
    /// Reading what others share, libraries and other drives.
    ReadOthers,
    /// Changing those.
    WriteOthers,
    /// Finding sites and their libraries.
    Sites,
    /// Listing the people of the organisation.
    Users,
    /// Listing teams.
    Teams,
}

/// The permissions of a sign-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(Vec<String>);

impl Permissions {
    /// From names as answers list them, with or without the service in front.
    pub fn new(names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let short = |name: &str| name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        Self(names.into_iter().map(|name| short(name.as_ref())).collect())
    }

    /// Tells whether it is known what was granted.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.iter().any(|name| !is_sign_in(name))
    }

    /// Tells whether a permission of this name was granted.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let wanted = name.to_ascii_lowercase();
        let wanted = wanted.rsplit('/').next().unwrap_or_default();
        self.0.iter().any(|own| own == wanted)
    }

    /// Tells whether the permissions suffice for something, as far as they are known.
    #[must_use]
    pub fn allow(&self, feature: Feature) -> bool {
        !self.is_known() || feature.granted_by().iter().any(|name| self.has(name))
    }

    /// Tells whether nothing at all may be changed.
    #[must_use]
    pub fn read_only(&self) -> bool {
        let on_files = |name: &&String| {
            ["files.", "sites.", "lists.", "listitems."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        let writes = |name: &String| {
            let selected = name.contains("selected") && !name.starts_with("files.read.");
            selected
                || ["write", "manage", "fullcontrol"]
                    .iter()
                    .any(|word| name.contains(word))
        };
        let mut files = self.0.iter().filter(on_files).peekable();
        files.peek().is_some() && !files.any(writes)
    }

    /// Tells whether only single items or a folder of the application's own may be seen.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.is_known()
            && ![
                "Files.Read",
                "Files.ReadWrite",
                "Files.Read.All",
                "Files.ReadWrite.All",
                "Sites.Read.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
            ]
            .iter()
            .any(|name| self.has(name))
            && self
                .0
                .iter()
                .any(|name| name.contains("selected") || name.contains("appfolder"))
    }

    /// Those of `wanted` that were not granted; nothing while it is unknown what was.
    #[must_use]
    pub fn missing<'a>(&self, wanted: &'a [String]) -> Vec<&'a str> {
        let lacks = |name: &&str| self.is_known() && !is_sign_in(name) && !self.has(name);
        wanted.iter().map(String::as_str).filter(lacks).collect()
    }
}

/// Tells whether a scope is about the sign-in itself. Answers do not list these.
fn is_sign_in(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "offline_access" | "openid" | "profile" | "email" | ".default"
    )
}

impl Feature {
    /// Permissions any one of which is enough.
    fn granted_by(self) -> &'static [&'static str] {
        match self {
            Self::ReadOwn => &[
                "Files.Read",
                "Files.ReadWrite",
                "Files.Read.All",
                "Files.ReadWrite.All",
                "Sites.Read.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
                "Files.Read.Selected",
                "Files.ReadWrite.Selected",
                "Files.ReadWrite.AppFolder",
                "Files.SelectedOperations.Selected",
            ],
            Self::WriteOwn => &[
                "Files.ReadWrite",
                "Files.ReadWrite.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
                "Files.ReadWrite.Selected",
                "Files.ReadWrite.AppFolder",
                "Files.SelectedOperations.Selected",
            ],
            Self::ReadOthers => &[
                "Files.Read.All",
                "Files.ReadWrite.All",
                "Sites.Read.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
                "Sites.Selected",
                "Lists.SelectedOperations.Selected",
                "Files.SelectedOperations.Selected",
            ],
            Self::WriteOthers => &[
                "Files.ReadWrite.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
                "Sites.Selected",
                "Lists.SelectedOperations.Selected",
                "Files.SelectedOperations.Selected",
            ],
            Self::Sites => &[
                "Sites.Read.All",
                "Sites.ReadWrite.All",
                "Sites.Manage.All",
                "Sites.FullControl.All",
                "Sites.Selected",
            ],
            Self::Teams => &[
                "Team.ReadBasic.All",
                "TeamSettings.Read.All",
                "TeamSettings.ReadWrite.All",
                "Group.Read.All",
                "Group.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
            ],
            Self::Users => &[
                "User.Read.All",
                "User.ReadBasic.All",
                "User.ReadWrite.All",
                "Directory.Read.All",
                "Directory.ReadWrite.All",
            ],
        }
    }

    /// The least permission to ask for.
    #[must_use]
    pub fn needs(self) -> &'static str {
        match self {
            Self::ReadOwn => "Files.Read",
            Self::WriteOwn => "Files.ReadWrite",
            Self::ReadOthers => "Files.Read.All",
            Self::WriteOthers => "Files.ReadWrite.All",
            Self::Sites => "Sites.Read.All",
            Self::Users => "User.Read.All",
            Self::Teams => "Team.ReadBasic.All",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_of_permissions_allows_what_it_says() {
        use Feature as F;
        let own = Permissions::new(["https://graph.microsoft.com/Files.ReadWrite", "User.Read"]);
        assert!(own.allow(F::WriteOwn) && !own.allow(F::ReadOthers) && !own.read_only());
        let read = Permissions::new(["Files.Read", "User.Read", "profile"]);
        assert!(read.read_only() && read.allow(F::ReadOwn) && !read.allow(F::WriteOwn));
        let all = Permissions::new(["files.read.all"]);
        assert!(all.read_only() && all.allow(F::ReadOthers) && !all.allow(F::Sites));
        for writing in [
            "Files.ReadWrite.All",
            "Files.ReadWrite.AppFolder",
            "Sites.Selected",
            "Files.ReadWrite.Selected",
            "Files.SelectedOperations.Selected",
        ] {
            assert!(!Permissions::new([writing]).read_only(), "{writing}");
        }
        assert!(Permissions::new(["Files.Read.Selected"]).read_only());
        let unknown = Permissions::new(["offline_access"]);
        assert!(unknown.allow(F::WriteOthers) && !unknown.read_only());
        let wanted = ["Files.ReadWrite.All", "offline_access", "User.Read"].map(str::to_owned);
        assert_eq!(own.missing(&wanted), ["Files.ReadWrite.All"]);
        assert!(unknown.missing(&wanted).is_empty());
    }
}
