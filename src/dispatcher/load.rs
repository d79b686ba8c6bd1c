//! Loads a dispatcher with thin bpf(2) calls: no object file is opened, nothing is parsed.

use super::config::{Config, SIZE, SlotConfig};
use super::image::{Function, Image, XDP_DISPATCHER};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::program::ChainActions;
use crate::sys::bpf::{LoadError, MapHandle, MapSpec, ProgramSpec};
use crate::sys::{Capability, Kernel};
use libbpf_sys::{BPF_F_RDONLY_PROG, BPF_F_XDP_HAS_FRAGS, BPF_MAP_TYPE_ARRAY, BPF_PROG_TYPE_XDP};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const LOAD: &str = "load";
const WHAT: &str = "the dispatcher";
/// What a chain needs of the process.
pub(super) const NEEDS: &str = "CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// A dispatcher in the kernel, attached to nothing.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) program: OwnedFd,
    pub(super) id: u32,
    /// Whether it takes packets of several fragments.
    pub(super) has_frags: bool,
}

/// Loads a dispatcher. Asked for fragments on a kernel before 5.18, which has none, it goes without.
pub(super) fn dispatcher(kernel: &Kernel, config: &Config) -> Result<Dispatcher> {
    let mut has_frags = config.has_frags;
    let program = match load(kernel, config) {
        // The kernel does not know the flag; some older ones have it too, so its version would not tell.
        Err(error) if has_frags && error.source.raw_os_error() == Some(libc::EINVAL) => {
            log::info!("this kernel has no XDP fragments: the chain goes without");
            has_frags = false;
            load(kernel, &Config { has_frags, ..config.clone() })
        }
        other => other,
    };
    let program = program.map_err(|error| Error::new(LOAD, WHAT, refusal(kernel, error)))?;
    let id = kernel.prog_info(program.as_fd()).during("query", WHAT)?.id;
    Ok(Dispatcher { program, id, has_frags })
}

fn load(kernel: &Kernel, config: &Config) -> std::result::Result<OwnedFd, LoadError> {
    let map = config_map(kernel, config)?;
    let flags = if config.has_frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
    program(kernel, &XDP_DISPATCHER, Some(map.as_fd()), BPF_PROG_TYPE_XDP, flags, None)
}

/// Loads an image; `map` holds its configuration if it has one.
pub(super) fn program(
    kernel: &Kernel,
    image: &Image,
    map: Option<BorrowedFd<'_>>,
    kind: u32,
    flags: u32,
    target: Option<(BorrowedFd<'_>, u32)>,
) -> std::result::Result<OwnedFd, LoadError> {
    let btf = kernel.btf_load(image.btf)?;
    let map = map.map_or(0, |map| map.as_raw_fd().cast_unsigned());
    kernel.prog_load(&ProgramSpec {
        kind,
        name: image.functions.first().map_or("", |entry| entry.name),
        instructions: &image.instructions_with(map),
        flags,
        btf: btf.as_fd(),
        functions: &image.function_info(),
        target,
    })
}

/// The configuration, read-only for programs and frozen for everybody: the verifier takes it for constant.
fn config_map(kernel: &Kernel, config: &Config) -> io::Result<MapHandle> {
    let size = u32::try_from(SIZE).unwrap_or(u32::MAX);
    let map = kernel.map_create(&MapSpec {
        kind: BPF_MAP_TYPE_ARRAY,
        name: "xdp_disp.rodata",
        key_size: 4,
        value_size: size,
        max_entries: 1,
        flags: BPF_F_RDONLY_PROG,
    })?;
    kernel.map_update(&map, &[0; 4], &config.encode())?;
    kernel.map_freeze(map.as_fd())?;
    Ok(map)
}

/// The function that the program in `slot` replaces. The only program of a chain replaces the dispatcher itself
/// and so costs no call, as in libxdp since 1.5; but not where the dispatcher would turn its verdict into
/// another one, which it does for every action but `XDP_PASS` that continues the chain.
pub(super) fn slot_function(slot: usize, slots: &[SlotConfig]) -> Result<Function> {
    let alone = matches!(slots, [only] if ChainActions::PASS.contains(only.actions));
    let name = if alone { "xdp_dispatcher".to_owned() } else { format!("prog{slot}") };
    XDP_DISPATCHER
        .function(&name)
        .ok_or(ErrorKind::ChainFull { max: super::MAX_PROGRAMS })
        .during("find the slot", name)
}

/// Without `CAP_PERFMON` the verifier is stricter (no pointer is compared) and says EACCES.
fn refusal(kernel: &Kernel, error: LoadError) -> ErrorKind {
    let lacking = kernel.lacking(Capability::Perfmon);
    match (error.source.raw_os_error(), lacking) {
        (Some(libc::EPERM | libc::EACCES), Some(needs)) => ErrorKind::NoPrivilege { needs },
        (Some(libc::EPERM), None) => ErrorKind::NoPrivilege { needs: NEEDS },
        _ if !error.log.is_empty() => ErrorKind::Rejected { source: error.source, log: error.log },
        _ => error.source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(actions: ChainActions) -> SlotConfig {
        SlotConfig { priority: 50, actions, flags: 0 }
    }

    #[test]
    fn only_a_lone_program_whose_verdict_stays_replaces_the_dispatcher() {
        let name = |slot, slots: &[SlotConfig]| slot_function(slot, slots).unwrap().name;
        let pass = slot(ChainActions::PASS);
        assert_eq!(name(0, &[pass]), "xdp_dispatcher");
        assert_eq!(name(0, &[slot(ChainActions::empty())]), "xdp_dispatcher");
        assert_eq!(name(0, &[slot(ChainActions::PASS | ChainActions::DROP)]), "prog0");
        assert_eq!(name(1, &[pass, pass]), "prog1");
        assert!(slot_function(10, &[pass; 11]).is_err());
    }
}
