//! Signing in and staying signed in, as people and services meet it: the built binary against the
//! simulated identity platform, over real HTTP.
//!
//! Tests are named after the requirement they keep, so that each can be found by its id.

mod app_only;
mod clouds;
mod company;
mod doctor;
mod figures;
mod folders;
mod forms;
mod handbook;
mod keeping;
mod keys;
mod lost;
mod manual;
mod many;
mod person;
mod proxies;
mod rows;
mod shared_files;
mod tenants;
mod tls;
mod tree;
mod unattended;
mod world;
