//! The points that the sources declare.

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};

/// The call that declares a point.
const CALL: &str = "kill_point(\"";

/// Says that a function stands for its callers.
const STANDS_FOR_CALLERS: &str = "track_caller";

/// Points that no story passes, and why.
const EXCEPTIONS: &[(&str, &str)] = &[];

/// A point in the sources.
#[derive(Debug)]
pub struct Point {
    /// What happens.
    name: String,
    /// The line of code, as the hook tells it; `None` where that is the caller's.
    place: Option<String>,
}

impl Point {
    /// Tells whether something that was passed is this point.
    pub fn is_passed_by(&self, passed: &str) -> bool {
        passed.split_once(' ').is_some_and(|(name, place)| {
            name == self.name && self.place.as_ref().is_none_or(|own| own == place)
        })
    }
}

impl Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.as_deref().unwrap_or("(any caller)");
        write!(f, "{} {place}", self.name)
    }
}

/// All points but the exceptions.
pub fn points() -> Vec<Point> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut points = Vec::new();
    for one in entries(&crates) {
        for source in sources(&one.join("src")) {
            let place = source.strip_prefix(&crates).expect("below");
            let place = place.to_str().expect("UTF-8").replace("/src/", "/");
            let text = fs::read_to_string(&source).expect("source");
            points.extend(points_in(&place, &text));
        }
    }
    assert!(!points.is_empty(), "no points below {}", crates.display());
    points.retain(|point| EXCEPTIONS.iter().all(|(name, _)| *name != point.name));
    points
}

/// The points of one file.
fn points_in(place: &str, text: &str) -> Vec<Point> {
    let mut points = Vec::new();
    // Whether that is said of the function that is next, and of the one that is read.
    let (mut next, mut stands) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        if code.starts_with("#[") {
            next |= code.contains(STANDS_FOR_CALLERS);
        } else if !code.starts_with("//") && (code.starts_with("fn ") || code.contains(" fn ")) {
            stands = std::mem::take(&mut next);
        }
        if let Some((_, rest)) = code.split_once(CALL) {
            let (name, _) = rest.split_once('"').expect("a name");
            points.push(Point {
                name: name.to_owned(),
                place: (!stands).then(|| format!("{place}:{number}")),
            });
        }
    }
    points
}

/// The source files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in entries(dir) {
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths
}
