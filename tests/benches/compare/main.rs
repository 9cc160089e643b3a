//! onedrivefs beside its peers: rclone mount and curl on the same simulated service, and the local
//! disk. Prints one line for each figure, with the ratio that it is judged by.
//!
//! `tests/bench` builds what is needed and runs it:
//!
//! ```text
//! tests/bench [--short] [GROUP...]
//! ```
//!
//! Figures are medians. The service is simulated, in this process, on loopback; where a line of
//! 200 Mbit/s and 40 ms is told, the simulator delays every request and paces all connections
//! together. Nothing else should run meanwhile.

mod content;
mod floor;
mod measure;
mod million;
mod names;
mod rclone;

use onedrivefs_tests::{Need, needs};

use measure::Scale;

/// The name of a group, and what measures it.
type Group = (&'static str, fn(&Scale));

/// What can be measured, in the order of the table.
const GROUPS: &[Group] = &[
    ("walk", names::walk),
    ("stat", names::stat),
    ("list", names::list),
    ("change", names::change),
    ("tar", names::tar),
    ("write", content::write),
    ("read", content::read),
    ("random", content::random),
    ("here", content::here),
    ("edit", content::edit),
    ("million", million::million),
];

fn main() {
    let mut chosen = Vec::new();
    let mut scale = Scale::FULL;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            // `cargo bench` adds it.
            "--bench" => {}
            "--short" => scale = Scale::SHORT,
            name if GROUPS.iter().any(|(group, _)| *group == name) => chosen.push(argument),
            other => {
                let known: Vec<&str> = GROUPS.iter().map(|(group, _)| *group).collect();
                eprintln!("{other}: not one of --short {}", known.join(" "));
                std::process::exit(2);
            }
        }
    }
    if !needs::met(&[Need::Fuse, Need::Root, Need::Rclone, Need::Program("curl")]) {
        return;
    }
    measure::tell_conditions(&scale);
    for (name, measure) in GROUPS {
        if chosen.is_empty() || chosen.iter().any(|group| group == name) {
            measure(&scale);
        }
    }
}
