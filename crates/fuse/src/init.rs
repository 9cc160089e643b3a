//! Agrees with the kernel on how it talks to us.
//!
//! Each capability is asked for on its own: fuser refuses a whole set when one of it is unknown to
//! the kernel, and older kernels do well without most of them.

use fuser::{InitFlags, KernelConfig};

/// The bit of `CAP_SYS_ADMIN` in a set of capabilities.
const CAP_SYS_ADMIN: u32 = 21;

/// File systems that may lie between the mount and the disk on which the bodies are: one that stacks
/// nothing.
const STACK_DEPTH: u32 = 1;

/// Whether the kernel reads files by itself, without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passthrough {
    /// Where the kernel can do it and permits it.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Requests without a waiting program, read-ahead above all, that the kernel may have in flight.
/// fuser's default of 16 is too few to keep several connections busy with sequential reads.
const MAX_BACKGROUND: u16 = 64;

/// What we ask for, and what is lost without it.
const CAPABILITIES: [(InitFlags, &str); 6] = [
    (
        InitFlags::FUSE_PARALLEL_DIROPS,
        "lookups in one folder wait for each other",
    ),
    // Without the AUTO variant: it stops after the first block unless lookups interleave, which
    // costs find, du and git a lookup per entry.
    (
        InitFlags::FUSE_DO_READDIRPLUS,
        "every entry of a listing is looked up on its own",
    ),
    // Otherwise an opening that truncates arrives as an opening first and would fetch the content.
    (
        InitFlags::FUSE_ATOMIC_O_TRUNC,
        "overwriting a file may fetch it first",
    ),
    (
        InitFlags::FUSE_AUTO_INVAL_DATA,
        "cached pages depend on notifications alone",
    ),
    (
        InitFlags::FUSE_ASYNC_DIO,
        "direct reads and writes are sent one by one",
    ),
    // Lets the kernel remember that there are no file capabilities to drop, which saves a
    // request before every write. Its other half, clearing setuid and setgid bits, is moot
    // because these bits are never stored.
    (
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        "every write asks for an extended attribute first",
    ),
];

/// What the kernel can do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kernel {
    /// Whether a write that goes past its pages drops those that it outdates. It does so since
    /// Linux 6.6, which brought this capability as well; older ones leave old bytes to mappings.
    pub(crate) drops_pages_at_direct_writes: bool,
}

/// Applies the settings; what the kernel does not know is logged and done without.
pub(crate) fn configure(config: &mut KernelConfig) -> Kernel {
    for (capability, loss) in CAPABILITIES {
        if let Err(unsupported) = config.add_capabilities(capability) {
            tracing::info!(capability = ?unsupported, loss, "the kernel lacked a FUSE capability");
        }
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        tracing::warn!(
            wanted = MAX_BACKGROUND,
            nearest,
            "the limit of background requests was refused"
        );
    }
    tracing::debug!(abi = ?config.kernel_abi(), "the FUSE session was negotiated");
    let told = config.capabilities();
    Kernel {
        drops_pages_at_direct_writes: told.contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP),
    }
}

/// Asks for the kernel to read files by itself, which needs a privilege that ordinary users do not
/// have; their mounts are made as if this did not exist. Tells whether it may work.
pub(crate) fn ask_for_passthrough(config: &mut KernelConfig) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !is_administrator(&status) || config.set_max_stack_depth(STACK_DEPTH).is_err() {
        return false;
    }
    config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
}

/// Tells from `/proc/self/status` whether a process may administer the system.
fn is_administrator(status: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set >> CAP_SYS_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_privilege_is_one_bit() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\tffffffffff\nCapEff:\t{set}\n");
        assert!(is_administrator(&status("000001ffffffffff")));
        assert!(is_administrator(&status("0000000000200000")));
        assert!(!is_administrator(&status("0000000000000000")));
        assert!(!is_administrator(&status("000001ffffdfffff")));
        assert!(!is_administrator("Name:\tx\n"));
    }
}
