//! Two suites that know nothing of this file system judge it on a real mount: pjdfstest, which
//! asks for what POSIX says of every call, and fsx, which does random things to one file and
//! compares it with what must be in it.
//!
//! What cannot hold on this service is listed in `expected.txt`, with the reason; `docs/POSIX.md`
//! says what a program gets instead. The list is compared exactly: a case that fails and is not in
//! it is an error, and so is one that is in it and holds.
//!
//! `ONEDRIVEFS_FSX_OPERATIONS` (in total, over all seeds) and `ONEDRIVEFS_FSX_SEED` (the first one)
//! change what fsx does; `tests/posix` is the long form.

mod exerciser;
mod suite;
mod tool;
