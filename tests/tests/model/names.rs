//! The names that histories use: few, so that they collide, and odd, so that every rule about
//! names is at work. What the service is to hold for each is written down here by hand; nothing is
//! shared with the program.

/// A name as programs spell it and as the service holds it.
#[derive(Debug)]
pub struct Name {
    /// In the mount.
    pub here: &'static str,
    /// On the service.
    pub there: &'static str,
    /// Names of one class are one name in one folder.
    pub class: u8,
}

const fn same(name: &'static str, class: u8) -> Name {
    Name {
        here: name,
        there: name,
        class,
    }
}

const fn spelt(here: &'static str, there: &'static str, class: u8) -> Name {
    Name { here, there, class }
}

/// Names of files and folders alike.
pub const NAMES: &[Name] = &[
    same("a.txt", 0),
    same("A.TXT", 0),
    same("b", 1),
    same("B", 1),
    same("d", 2),
    same("D", 2),
    same("sub", 3),
    same("notes.odt", 4),
    same("é.md", 5),
    same("É.md", 5),
    same("日本 🦀", 6),
    same("x & y #1%.txt", 7),
    spelt("q?:*", "q？：＊", 8),
    spelt("end.", "end．", 9),
    spelt("CON", "CON‛", 10),
    spelt("~draft", "～draft", 11),
];

/// Names under which programs write before they rename.
pub const TEMPORARY: &[Name] = &[
    same("save.tmp", 20),
    same("a.txt~", 21),
    same("save.part", 22),
    same(".goutputstream-X", 23),
];

/// Tells whether a file of this name never leaves this machine.
pub fn stays_here(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.ends_with(".part") || name.starts_with(".goutputstream-")
}

fn all() -> impl Iterator<Item = &'static Name> {
    NAMES.iter().chain(TEMPORARY)
}

/// Whether two spellings are one name in one folder.
pub fn is_same(a: &str, b: &str) -> bool {
    let class = |name: &str| all().find(|n| n.here == name).map(|n| n.class);
    match (class(a), class(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// A path of the mount as the service holds it.
pub fn on_service(path: &str) -> String {
    let parts = path.split('/').map(|part| {
        all()
            .find(|name| name.here == part)
            .map_or(part, |name| name.there)
    });
    parts.collect::<Vec<_>>().join("/")
}
