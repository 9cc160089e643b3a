//! What a power cut may leave: every state of every file since it was last known to be safe.

use std::collections::BTreeMap;

use crate::disk::SECTOR;

/// Files larger than this, in bytes, are changed in place; others are copied first.
const COPIED_MAX: usize = 1 << 20;

/// One file, under whatever names it had.
#[derive(Clone, Debug)]
pub struct Object {
    /// What it held, oldest first.
    versions: Vec<Vec<u8>>,
    /// The oldest version that may come back.
    safe: usize,
    /// What the file held whose place it took, until something of this one is safe: its name leads
    /// to the old content or to the new.
    instead: Vec<Vec<u8>>,
    /// Names it had since the last one became certain; the last is the present one.
    names: Vec<String>,
    /// Whether it may be gone: it was never synced, or was unlinked or replaced since.
    may_be_gone: bool,
    /// The present name still leads to it.
    named: bool,
}

impl Object {
    fn may_hold(&self, bytes: &[u8]) -> bool {
        let mut all = self.versions[self.safe..].iter().chain(&self.instead);
        all.any(|version| version == bytes) || self.is_changed_in_place(bytes)
    }

    /// A large file that was synced and not sent since is changed in place, as on a local disk: of
    /// what was written after the sync, each sector may be there or not. It is as long as it was.
    fn is_changed_in_place(&self, bytes: &[u8]) -> bool {
        let versions = &self.versions[self.safe..];
        let changed = versions.len() > 1 && bytes.len() > COPIED_MAX;
        let sector = SECTOR as usize;
        let is_some = |at: usize| {
            let range = at..bytes.len().min(at + sector);
            let same =
                |version: &Vec<u8>| version.get(range.clone()) == Some(&bytes[range.clone()]);
            versions.iter().any(same)
        };
        let whole = changed && versions.iter().any(|version| version.len() == bytes.len());
        whole && (0..bytes.len()).step_by(sector).all(is_some)
    }
}

/// All files of a history.
#[derive(Clone, Debug, Default)]
pub struct Book {
    objects: Vec<Object>,
    /// Which file has a name now.
    now: BTreeMap<String, usize>,
    /// Names that cannot be empty-handed: they had something safe, and were only ever replaced.
    held: BTreeMap<String, usize>,
}

impl Book {
    pub fn names(&self) -> Vec<String> {
        self.now.keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let object = &self.objects[*self.now.get(name)?];
        object.versions.last().map(Vec::as_slice)
    }

    /// A file that is safe: the service has it.
    pub fn add_safe(&mut self, name: &str, bytes: Vec<u8>) {
        self.add(name, bytes, false);
    }

    /// A file was created; it is empty.
    pub fn create(&mut self, name: &str) {
        self.add(name, Vec::new(), true);
    }

    fn add(&mut self, name: &str, bytes: Vec<u8>, may_be_gone: bool) {
        self.now.insert(name.to_owned(), self.objects.len());
        self.objects.push(Object {
            versions: vec![bytes],
            safe: 0,
            instead: Vec::new(),
            names: vec![name.to_owned()],
            may_be_gone,
            named: true,
        });
    }

    fn object(&mut self, name: &str) -> &mut Object {
        let at = self.now[name];
        &mut self.objects[at]
    }

    /// A file holds something else.
    pub fn write(&mut self, name: &str, bytes: Vec<u8>) {
        self.object(name).versions.push(bytes);
    }

    /// A file was synced: what it holds, and its name, are safe.
    pub fn sync(&mut self, name: &str) {
        let object = self.object(name);
        object.safe = object.versions.len() - 1;
        object.names = vec![name.to_owned()];
        object.may_be_gone = false;
        object.instead.clear();
    }

    /// The directory was synced: all names are safe, whatever the files hold.
    pub fn sync_names(&mut self) {
        for (name, &at) in &self.now {
            self.objects[at].names = vec![name.clone()];
            self.objects[at].may_be_gone = false;
        }
        self.objects.retain_mut(|object| object.named);
        self.held.clear();
        self.now = BTreeMap::new();
        for (at, object) in self.objects.iter().enumerate() {
            if let Some(name) = object.names.last() {
                self.now.insert(name.clone(), at);
            }
        }
    }

    pub fn unlink(&mut self, name: &str) {
        let at = self.now.remove(name).expect("name");
        self.objects[at].may_be_gone = true;
        self.objects[at].named = false;
        self.held.remove(name);
    }

    /// A file got another name, in the place of whatever had it.
    pub fn rename(&mut self, from: &str, to: &str) {
        let at = self.now.remove(from).expect("name");
        if let Some(old) = self.now.insert(to.to_owned(), at) {
            let before = &self.objects[old];
            let instead = [&before.versions[before.safe..], &before.instead].concat();
            let new = &mut self.objects[at];
            if new.safe + 1 < new.versions.len() {
                new.instead.extend(instead);
            }
            let replaced = &mut self.objects[old];
            replaced.named = false;
            if !replaced.may_be_gone {
                replaced.may_be_gone = true;
                self.held.insert(to.to_owned(), old);
            }
        }
        self.objects[at].names.push(to.to_owned());
        // A name that is left may come back, or not.
        self.held.remove(from);
    }

    /// The service has these bytes under a name: nothing older may replace them.
    pub fn seen_on_service(&mut self, name: &str, bytes: &[u8]) {
        for object in &mut self.objects {
            if !object.names.iter().any(|n| n == name) {
                continue;
            }
            let versions = object.versions.iter().enumerate().skip(object.safe);
            if let Some((at, _)) = versions.into_iter().find(|(_, v)| *v == bytes) {
                object.safe = at;
                object.instead.clear();
            }
        }
    }

    /// Compares with what is there after a power cut. Returns what must not be.
    pub fn judge(&self, found: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, bytes) in found {
            let known = self
                .objects
                .iter()
                .any(|object| object.names.iter().any(|n| n == name) && object.may_hold(bytes));
            if !known {
                wrong.push(format!(
                    "{name} holds what it never held, or something older than what is safe: {}\n    \
                     it may hold {}",
                    describe(bytes),
                    self.may_hold(name)
                ));
            }
        }
        for object in self.objects.iter().filter(|object| !object.may_be_gone) {
            let there = object
                .names
                .iter()
                .any(|name| found.get(name).is_some_and(|bytes| object.may_hold(bytes)));
            if !there {
                wrong.push(format!(
                    "{:?} is gone: {}",
                    object.names,
                    describe(&object.versions[object.safe])
                ));
            }
        }
        for name in self.held.keys().filter(|name| !found.contains_key(*name)) {
            wrong.push(format!("{name} was replaced and is gone"));
        }
        wrong
    }

    fn may_hold(&self, name: &str) -> String {
        let all: Vec<String> = self
            .objects
            .iter()
            .filter(|object| object.names.iter().any(|n| n == name))
            .flat_map(|object| &object.versions[object.safe..])
            .map(|bytes| describe(bytes))
            .collect();
        all.join("; ")
    }

    /// Files for which something was safe.
    pub fn safe_files(&self) -> u64 {
        self.objects.iter().filter(|o| !o.may_be_gone).count() as u64
    }

    /// Files whose last version was not safe.
    pub fn unsafe_files(&self) -> u64 {
        let open = |o: &&Object| o.safe + 1 < o.versions.len() || o.may_be_gone;
        self.objects.iter().filter(open).count() as u64
    }
}

/// Says which versions some bytes are made of.
pub fn describe(bytes: &[u8]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for sector in bytes.chunks(4096) {
        let part = if sector.iter().all(|&byte| byte == 0) {
            "zeros".to_owned()
        } else {
            let head = String::from_utf8_lossy(&sector[..sector.len().min(40)]);
            head.split('>')
                .find(|p| p.starts_with('<'))
                .unwrap_or("?")
                .to_owned()
        };
        if parts.last() != Some(&part) {
            parts.push(part);
        }
        if parts.len() > 6 {
            break;
        }
    }
    format!("{} bytes of [{}]", bytes.len(), parts.join(" "))
}

/// The bytes of a version: its number again and again, so that every part tells whose it is.
pub fn body(number: u64, len: usize) -> Vec<u8> {
    let unit = format!("<{number:x}>");
    unit.bytes().cycle().take(len).collect()
}
