//! onedrivefs as programs and people meet it: the built binary on a real mount, against the
//! simulated service. One binary with a module for each promise, so that it is linked once.

mod basics;
mod brake;
mod copies;
mod crash;
mod damaged;
mod disk;
mod economy;
mod ending;
mod files;
mod genuine;
mod guard;
mod late;
mod listing;
mod mistakes;
mod notify;
mod odd;
mod offline;
mod options;
mod parked;
mod passthrough;
mod pin;
mod push;
mod rclone;
mod remote;
mod room;
mod rules;
mod saves;
mod secrets;
mod spelling;
mod table;
mod together;
mod torn;
mod trees;
mod waiting;
mod watching;
