//! One history: programs save files in every way they do, the power is cut, and what is there once
//! the drive is mounted again is judged.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use onedrivefs_tests::mount::MountSpec;
use onedrivefs_tests::{Home, Mount, Service};

use crate::book::{self, Book};
use crate::counts;
use crate::disk::{Disk, Mode};
use crate::layer::Layer;
use crate::rng::Rng;
use crate::sys;

/// Power cuts that share a home and a service.
pub const CUTS: u64 = 4;

/// Calls between two power cuts.
const STEPS: u64 = 24;

/// Longest time until everything is sent and fresh.
const SYNC_LIMIT: Duration = Duration::from_secs(120);

/// Upload delay in milliseconds of a mount that sends at once, and of one that sends nothing before
/// the power is cut.
const DELAYS: [&str; 2] = ["upload_delay=30", "upload_delay=600000"];

/// Where the content cache lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// With the state, so that bodies move between the two by a rename.
    OnTheDisk,
    /// On a file system of its own that loses nothing, so that they are copied.
    Elsewhere,
}

/// A home whose state lies on a disk that loses power.
pub struct History<'s> {
    service: &'s Service,
    /// Before the home, whose directory it is mounted in.
    layer: Option<Layer>,
    home: Rc<Home<'s>>,
    rng: Rng,
    book: Book,
    boots: u64,
    next_body: u64,
    /// Files that are open for writing.
    open: BTreeMap<String, File>,
    pub told: Vec<String>,
}

impl<'s> History<'s> {
    pub fn new(service: &'s Service, seed: u64, cache: Cache) -> Self {
        let mut home = Home::new(service);
        let disk = home.make_dir("disk");
        let layer = Layer::mount(Disk::empty(), &disk);
        let path = |below: &str| disk.join(below).to_str().expect("UTF-8").to_owned();
        home.set_env("XDG_STATE_HOME", &path("state"));
        if cache == Cache::OnTheDisk {
            home.set_env("XDG_CACHE_HOME", &path("cache"));
        }
        let boot = home.path("boot_id");
        home.set_env("ONEDRIVEFS_BOOT_ID_FILE", boot.to_str().expect("UTF-8"));
        home.log_in();
        // Signed in long ago.
        layer.disk().settle();
        let mut history = Self {
            service,
            layer: Some(layer),
            home: Rc::new(home),
            rng: Rng::new(seed),
            book: Book::default(),
            boots: 0,
            next_body: 1,
            open: BTreeMap::new(),
            told: Vec::new(),
        };
        history.boot();
        history.seed_service();
        history
    }

    /// The machine starts.
    fn boot(&mut self) {
        self.boots += 1;
        fs::write(self.home.path("boot_id"), format!("boot {}\n", self.boots)).expect("boot id");
    }

    /// Files that were on the service before.
    fn seed_service(&mut self) {
        for (name, len) in [("old-a", 9000), ("old-b", 40_000), ("old-c", 3_000_000)] {
            let bytes = self.new_body(len);
            self.service
                .default_drive()
                .put(&format!("/{name}"), bytes.clone())
                .expect("file");
            self.book.add_safe(name, bytes);
        }
    }

    fn new_body(&mut self, len: usize) -> Vec<u8> {
        self.next_body += 1;
        book::body(self.next_body, len)
    }

    fn spec(&self, delay: &str) -> MountSpec {
        let mut spec = MountSpec::lasting(300);
        let arguments = ["--poll", "1", "--option", delay];
        spec.arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        spec
    }

    /// Works, loses power, and judges what is left.
    pub fn round(&mut self, mode: Mode) -> Result<(), String> {
        let delay = *self.rng.pick(&DELAYS);
        self.told.push(format!("-- mounted with {delay}"));
        let spec = self.spec(delay);
        let home = Rc::clone(&self.home);
        self.work(&home, spec)?;
        let seed = self.rng.next();
        let on_service = self.on_service();
        for (name, bytes) in &on_service {
            self.book.seen_on_service(name, bytes);
        }
        let layer = self.layer.take().expect("layer");
        counts::add("unsynced writes at a cut", layer.disk().unsynced_writes());
        self.layer = Some(layer.cut(mode, seed));
        self.boot();
        self.told.push(format!("-- power cut {mode:?} {seed:#x}"));
        counts::add(&format!("cuts, {mode:?}"), 1);
        counts::add("cuts", 1);
        counts::add("files with something safe", self.book.safe_files());
        counts::add(
            "files with something that may be lost",
            self.book.unsafe_files(),
        );
        self.judge()
    }

    fn work(&mut self, home: &Home<'_>, spec: MountSpec) -> Result<(), String> {
        let mut mount = home.mount_with(spec);
        let root = mount.path().to_owned();
        for _ in 0..self.rng.below(STEPS) + 4 {
            if let Err(error) = self.step(&root) {
                return Err(format!("a call failed: {error}"));
            }
            if self.rng.percent(15) {
                let pause = self.rng.below(400);
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        // Often in the middle of what the daemon does by itself a while after a save.
        let pause = *self.rng.pick(&[0, 5, 50, 300, 1500, 2200]);
        std::thread::sleep(Duration::from_millis(pause));
        mount.crash();
        self.open.clear();
        drop(mount);
        Ok(())
    }

    /// Mounts what the power cut left, and compares.
    fn judge(&mut self) -> Result<(), String> {
        let mount = self.home.mount_with(self.spec(DELAYS[0]));
        let found = converge(&self.home, &mount)?;
        let mut wrong = self.book.judge(&found);
        let there = self.on_service();
        for (name, bytes) in &found {
            if there.get(name) != Some(bytes) {
                wrong.push(format!("{name} is another file on the service"));
            }
        }
        for name in there.keys().filter(|name| !found.contains_key(*name)) {
            wrong.push(format!("{name} is only on the service"));
        }
        counts::add("files checked", found.len() as u64);
        if !wrong.is_empty() {
            counts::add("losses", wrong.len() as u64);
            let log = mount.log();
            return Err(format!("{}\n{log}", wrong.join("\n")));
        }
        mount.unmount();
        self.layer.as_ref().expect("layer").disk().settle();
        self.boot();
        self.book = Book::default();
        for (name, bytes) in found {
            self.book.add_safe(&name, bytes);
        }
        Ok(())
    }

    fn on_service(&self) -> BTreeMap<String, Vec<u8>> {
        let drive = self.service.default_drive();
        let files = drive.dump().into_iter().filter(|entry| !entry.folder);
        files
            .map(|entry| {
                let name = entry.path.trim_start_matches('/').to_owned();
                (name, drive.read(&entry.path).unwrap_or_default())
            })
            .collect()
    }

    fn size(&mut self) -> usize {
        let sizes = [10, 3000, 4096, 9000, 30_000, 200_000];
        let most = *self.rng.pick(&sizes);
        1 + usize::try_from(self.rng.below(most)).expect("size")
    }

    fn pick_file(&mut self) -> Option<String> {
        let open = &self.open;
        let names: Vec<String> = self
            .book
            .names()
            .into_iter()
            .filter(|name| !open.contains_key(name))
            .collect();
        (!names.is_empty()).then(|| self.rng.pick(&names).clone())
    }

    fn tell(&mut self, what: &str, name: &str) {
        self.told.push(format!("{what} {name}"));
    }

    /// One thing that a program does.
    fn step(&mut self, root: &Path) -> std::io::Result<()> {
        let existing = self.pick_file();
        match (self.rng.below(14), existing) {
            (0 | 1, _) | (_, None) => self.save_new(root),
            (2, Some(name)) => self.save_over(root, &name),
            (3, Some(name)) => self.save_by_rename(root, &name),
            (4 | 5, Some(name)) => self.patch(root, &name),
            (6, Some(name)) => self.append(root, &name),
            (7, Some(name)) => self.cut(root, &name),
            (8, Some(name)) => self.move_away(root, &name),
            (9, Some(name)) => {
                if self.rng.percent(30) {
                    fs::remove_file(root.join(&name))?;
                    self.book.unlink(&name);
                    self.tell("unlink", &name);
                }
                Ok(())
            }
            (10, Some(name)) => {
                let bytes = fs::read(root.join(&name))?;
                assert_eq!(Some(bytes.as_slice()), self.book.bytes(&name), "{name}");
                self.tell("read", &name);
                Ok(())
            }
            (11 | 12, Some(name)) => self.copy(root, &name),
            (_, Some(_)) if self.rng.percent(50) => {
                File::open(root)?.sync_all()?;
                self.book.sync_names();
                self.tell("sync", "the directory");
                Ok(())
            }
            (_, Some(_)) => self.end_one(),
        }
    }

    /// Syncs and closes, each or not.
    fn finish(&mut self, name: &str, file: File) -> std::io::Result<()> {
        if self.rng.percent(40) {
            file.sync_all()?;
            self.book.sync(name);
            self.tell("fsync", name);
        }
        if self.rng.percent(15) && self.open.len() < 2 {
            self.open.insert(name.to_owned(), file);
        } else {
            drop(file);
            self.tell("close", name);
        }
        Ok(())
    }

    /// Closes a file that was left open.
    fn end_one(&mut self) -> std::io::Result<()> {
        let Some((name, file)) = self.open.pop_first() else {
            return Ok(());
        };
        if self.rng.percent(50) {
            file.sync_all()?;
            self.book.sync(&name);
            self.tell("fsync", &name);
        }
        self.tell("close", &name);
        Ok(())
    }

    fn save_new(&mut self, root: &Path) -> std::io::Result<()> {
        self.next_body += 1;
        let name = format!("new-{:x}", self.next_body);
        let file = File::create_new(root.join(&name))?;
        self.book.create(&name);
        self.tell("create", &name);
        self.fill(&name, &file)?;
        self.finish(&name, file)
    }

    /// Writes everything, in one or several calls.
    fn fill(&mut self, name: &str, file: &File) -> std::io::Result<()> {
        let len = self.size();
        let bytes = self.new_body(len);
        let mut at = 0;
        while at < bytes.len() {
            let end = bytes.len().min(at + self.size().max(4096));
            file.write_all_at(&bytes[at..end], at as u64)?;
            at = end;
            self.book.write(name, bytes[..at].to_vec());
        }
        Ok(())
    }

    /// Copies a file to a new name, as `cp` does.
    fn copy(&mut self, root: &Path, from: &str) -> std::io::Result<()> {
        self.next_body += 1;
        let name = format!("copy-{:x}", self.next_body);
        let file = File::create_new(root.join(&name))?;
        self.book.create(&name);
        self.tell(&format!("copy {from} to"), &name);
        sys::copy(&root.join(from), &file)?;
        if let Some(bytes) = self.book.bytes(from).map(<[u8]>::to_vec) {
            self.book.write(&name, bytes);
        }
        self.finish(&name, file)
    }

    fn save_over(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(root.join(name))?;
        self.tell("truncate and write", name);
        self.fill(name, &file)?;
        self.finish(name, file)
    }

    fn save_by_rename(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        self.next_body += 1;
        let temp = format!("temp-{:x}", self.next_body);
        let file = File::create_new(root.join(&temp))?;
        self.book.create(&temp);
        self.fill(&temp, &file)?;
        if self.rng.percent(50) {
            file.sync_all()?;
            self.book.sync(&temp);
        }
        drop(file);
        fs::rename(root.join(&temp), root.join(name))?;
        self.book.rename(&temp, name);
        self.tell(&format!("rename {temp} over"), name);
        Ok(())
    }

    fn patch(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(root.join(name))?;
        let mut now = self.book.bytes(name).unwrap_or_default().to_vec();
        let len = self.size().min(20_000);
        let at = usize::try_from(self.rng.below(now.len() as u64 + 1)).expect("offset");
        let bytes = self.new_body(len);
        file.write_all_at(&bytes, at as u64)?;
        now.resize(now.len().max(at + len), 0);
        now[at..at + len].copy_from_slice(&bytes);
        self.book.write(name, now);
        self.tell(&format!("patch {at}+{len} of"), name);
        self.finish(name, file)
    }

    fn append(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(root.join(name))?;
        let mut now = self.book.bytes(name).unwrap_or_default().to_vec();
        let len = self.size().min(9000);
        let bytes = self.new_body(len);
        file.write_all_at(&bytes, now.len() as u64)?;
        now.extend(bytes);
        self.book.write(name, now);
        self.tell("append to", name);
        self.finish(name, file)
    }

    fn cut(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(root.join(name))?;
        let mut now = self.book.bytes(name).unwrap_or_default().to_vec();
        let len = 1 + usize::try_from(self.rng.below(now.len() as u64 + 5000)).expect("length");
        file.set_len(len as u64)?;
        now.resize(len, 0);
        self.book.write(name, now);
        self.tell(&format!("set the length to {len} of"), name);
        self.finish(name, file)
    }

    fn move_away(&mut self, root: &Path, name: &str) -> std::io::Result<()> {
        self.next_body += 1;
        let to = format!("moved-{:x}", self.next_body);
        fs::rename(root.join(name), root.join(&to))?;
        self.book.rename(name, &to);
        self.tell(&format!("rename to {to}"), name);
        Ok(())
    }
}

/// Waits until everything is sent and fresh, and reads all of it.
fn converge(home: &Home<'_>, mount: &Mount<'_>) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let start = Instant::now();
    loop {
        let ran = home.try_sync(25);
        if ran.code == Some(0) {
            break;
        }
        if start.elapsed() > SYNC_LIMIT {
            return Err(format!(
                "never in step: {}{}\nstatus: {}\n{}",
                ran.out,
                ran.err,
                mount.status(),
                mount.log()
            ));
        }
    }
    let status = mount.status();
    if status["pending"]["ops"] != 0 || status["parked"].as_array().map(Vec::len) != Some(0) {
        return Err(format!("something waits: {status}"));
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(mount.path()).map_err(|error| error.to_string())? {
        let path: PathBuf = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
        found.insert(name.into_owned(), bytes);
    }
    Ok(found)
}
