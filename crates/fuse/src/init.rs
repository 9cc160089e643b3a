//! Agrees with the kernel on how it talks to us.
//!
//! Each capability is asked for on its own: fuser refuses a whole set when one of it is unknown to
//! the kernel, and older kernels do well without most of them.

use fuser::{InitFlags, KernelConfig};

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
