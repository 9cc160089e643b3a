//! Programs that watch directories learn of what others change.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::{Home, Mount, Need, Service, needs, tree, wait};

/// Longest time for what takes about a second.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that watches a directory.
struct Watcher {
    program: Child,
    events: Receiver<String>,
    seen: Vec<String>,
}

impl Watcher {
    fn of(mount: &Mount<'_>, below: &str) -> Self {
        let mut command = Command::new("inotifywait");
        command
            .args(["-m", "--format", "%e %f"])
            .arg(mount.at(below))
            .stderr(Stdio::piped());
        let mut watcher = Self::start(command);
        let ready = watcher.program.stderr.take().expect("output");
        let mut ready = BufReader::new(ready).lines().map_while(Result::ok);
        assert!(ready.any(|line| line.contains("Watches established")));
        watcher
    }

    fn start(mut command: Command) -> Self {
        let mut program = command.stdout(Stdio::piped()).spawn().expect("started");
        let lines = BufReader::new(program.stdout.take().expect("output")).lines();
        let (heard, events) = mpsc::channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if heard.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            program,
            events,
            seen: Vec::new(),
        }
    }

    /// Waits until it is known here who watches. That is looked at once in a while.
    fn is_known(&mut self, drive: &DriveHandle) {
        let mut puts = 0;
        wait::until("known", LIMIT, || {
            puts += 1;
            let name = format!("/dir/first-{puts}");
            drive.put(&name, "first").expect("file");
            wait::holds(Duration::from_millis(500), || {
                self.has_seen(&|line| line.contains("first-"))
            })
        });
        self.seen.clear();
    }

    /// Waits for an event, and forgets all that came before it.
    fn sees(&mut self, event: &str) {
        self.waits_for(event, &|line| line == event);
    }

    fn waits_for(&mut self, what: &str, is_it: &dyn Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !self.has_seen(is_it) {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.events.recv_timeout(left);
            let next = next.unwrap_or_else(|_| panic!("{what}: only {:?}", self.seen));
            self.seen.push(next);
        }
        self.seen.clear();
    }

    fn has_seen(&mut self, is_it: &dyn Fn(&str) -> bool) -> bool {
        self.seen.extend(self.events.try_iter());
        self.seen.iter().any(|line| is_it(line))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

fn can_watch() -> bool {
    needs::met(&[Need::Fuse, Need::Program("inotifywait")])
}

#[test]
fn a_watched_directory_tells_of_all_that_others_do_in_it() {
    if !can_watch() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    for name in ["old", "changes", "moves", "goes"] {
        drive.put(&format!("/dir/{name}"), name).expect("file");
    }
    drive.put("/dir/sub/inside", "deep").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    // As a file manager does before it watches.
    home.sh(r#"ls -l "$M/dir" "$M/dir/sub" > /dev/null"#);
    let mut watcher = Watcher::of(&mount, "dir");
    watcher.is_known(&drive);

    drive.put("/dir/new", "new").expect("file");
    watcher.sees("CREATE new");
    drive.mkdir("/dir/folder").expect("folder");
    watcher.sees("CREATE,ISDIR folder");
    drive.put("/dir/changes", "changed").expect("change");
    watcher.sees("MODIFY changes");
    assert_eq!(fs::read(mount.at("dir/changes")).expect("file"), b"changed");
    drive.rename("/dir/moves", "/dir/moved").expect("rename");
    watcher.sees("CREATE moved");
    drive.delete("/dir/goes").expect("delete");
    watcher.sees("DELETE goes");
    drive.delete("/dir/sub").expect("delete");
    watcher.sees("DELETE,ISDIR sub");

    // Nothing of that was done here.
    mount.sync();
    let sent = |op| service.requests().count(op);
    for op in ["create_session", "put_content", "mkdir", "patch", "delete"] {
        assert_eq!(sent(op), 0, "{op}");
    }
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

/// The way of the file managers of GNOME, Xfce, MATE and Cinnamon.
#[test]
fn file_managers_see_what_others_do() {
    if !needs::met(&[Need::Fuse, Need::Program("gio")]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/changes", "old").expect("file");
    drive.put("/dir/goes", "old").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"ls -l "$M/dir" > /dev/null"#);
    let mut command = home.program("gio");
    command.args(["monitor", "-d"]).arg(mount.at("dir"));
    let mut watcher = Watcher::start(command);
    watcher.is_known(&drive);

    let said = |name: &str, event: &str| {
        let (name, event) = (format!("/dir/{name}: "), event.to_owned());
        move |line: &str| line.contains(&name) && line.ends_with(&event)
    };
    drive.put("/dir/new", "new").expect("file");
    watcher.waits_for("new", &said("new", "created"));
    drive.put("/dir/changes", "changed").expect("change");
    watcher.waits_for("changed", &said("changes", "changed"));
    drive.delete("/dir/goes").expect("delete");
    watcher.waits_for("deleted", &said("goes", "deleted"));
    drop(watcher);
    mount.unmount();
}

#[test]
fn what_is_told_to_watchers_never_stands_in_the_way_of_programs() {
    if !can_watch() {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    drive.put("/dir/first", "first").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    home.sh(r#"ls -l "$M/dir" > /dev/null"#);
    let mut watcher = Watcher::of(&mount, "dir");
    watcher.is_known(&drive);

    // Names come and go on both sides at once.
    let here = mount.at("dir");
    let program = thread::spawn(move || {
        for round in 0..300 {
            let name = here.join(format!("here-{}", round % 7));
            fs::write(&name, format!("{round}")).expect("written");
            fs::rename(&name, here.join("moved-here")).expect("renamed");
            fs::remove_file(here.join("moved-here")).expect("removed");
            fs::write(here.join(format!("kept-{}", round % 10)), "kept").expect("written");
        }
    });
    for round in 0..60 {
        let name = format!("/dir/there-{}", round % 5);
        drive.put(&name, format!("{round}").as_str()).expect("file");
        if round % 3 == 0 {
            drive.delete(&name).expect("delete");
        }
        thread::sleep(Duration::from_millis(10));
    }
    program.join().expect("program");
    drive.put("/dir/end", "end").expect("file");
    wait::until("the end is here", LIMIT, || mount.at("dir/end").exists());
    mount.sync();
    for kept in 0..10 {
        assert_eq!(
            drive.read(&format!("/dir/kept-{kept}")).as_deref(),
            Some(&b"kept"[..])
        );
    }
    tree::assert_in_step(mount.path(), &drive);
    drop(watcher);
    mount.unmount();
}
