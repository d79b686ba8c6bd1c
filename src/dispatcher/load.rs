//! Loads a dispatcher with thin bpf(2) calls: no object file is opened, nothing is parsed.

use super::code;
use super::config::{Config, ProtocolVersion, SlotConfig};
use super::types::{Function, Types, XDP_DISPATCHER, XDP_DISPATCHER_V2};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Interface;
use crate::program::{ChainActions, Program};
use crate::sys::bpf::{LoadError, MapHandle, MapSpec, ProgramSpec};
use crate::sys::{Capability, Kernel};
use libbpf_sys::{
    BPF_F_RDONLY_PROG, BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS, BPF_MAP_TYPE_ARRAY,
    BPF_PROG_TYPE_XDP,
};
use once_cell::sync::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const LOAD: &str = "load";
const WHAT: &str = "the dispatcher";
/// What a chain needs of the process.
pub(super) const NEEDS: &str = "CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// A dispatcher in the kernel, attached to nothing.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub(super) program: OwnedFd,
    pub(super) id: u32,
    /// What it was built with; it may take no fragments though that was asked for.
    pub(super) config: Config,
}

/// Loads dispatchers; their BTF only once.
#[derive(Debug, Default)]
pub(super) struct Loader {
    kernel: Kernel,
    btf: [OnceCell<OwnedFd>; 2],
}

impl Loader {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, btf: Default::default() }
    }

    pub(super) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Loads a dispatcher; one that is to be bound to its device, for `interface`. Asked for fragments on a kernel
    /// before 5.18, which has none, it goes without.
    pub(super) fn dispatcher(
        &self,
        config: &Config,
        interface: Option<&Interface>,
    ) -> Result<Dispatcher> {
        let kernel = &self.kernel;
        let mut config = config.clone();
        let program = match self.load(&config, interface)? {
            // The kernel does not know the flag; some older ones have it too, so its version would not tell.
            Err(error) if config.has_frags && error.source.raw_os_error() == Some(libc::EINVAL) => {
                log::info!("this kernel has no XDP fragments: the chain goes without");
                config.has_frags = false;
                self.load(&config, interface)?
            }
            other => other,
        };
        let program = program.map_err(|error| Error::new(LOAD, WHAT, refusal(kernel, error)))?;
        let id = kernel.prog_info(program.as_fd()).during("query", WHAT)?.id;
        Ok(Dispatcher { program, id, config })
    }

    /// The outer error is that of getting into the interface's namespace, where its index counts.
    fn load(
        &self,
        config: &Config,
        interface: Option<&Interface>,
    ) -> Result<std::result::Result<OwnedFd, LoadError>> {
        let Some(interface) = interface.filter(|_| config.is_device_bound) else {
            return Ok(self.load_here(config, 0));
        };
        let load = || self.load_here(config, interface.index());
        interface.netns().enter(&self.kernel, load)
    }

    fn load_here(&self, config: &Config, ifindex: u32) -> std::result::Result<OwnedFd, LoadError> {
        let kernel = &self.kernel;
        let (types, btf) = self.types(config.version);
        let btf = btf.get_or_try_init(|| kernel.btf_load(types.btf))?;
        let map = config_map(kernel, config)?;
        let fd = map.as_fd().as_raw_fd().cast_unsigned();
        let too_many = || io::Error::from_raw_os_error(libc::E2BIG);
        let code = code::dispatcher(&config.slots, types, fd).ok_or_else(too_many)?;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(config.has_frags, BPF_F_XDP_HAS_FRAGS)
            | flag(config.is_device_bound, BPF_F_XDP_DEV_BOUND_ONLY);
        kernel.prog_load(&ProgramSpec {
            kind: BPF_PROG_TYPE_XDP,
            name: "xdp_dispatcher",
            license: LICENSE,
            instructions: &code.instructions,
            flags,
            btf: btf.as_fd(),
            functions: &code.functions,
            lines: &[],
            target: None,
            ifindex,
        })
    }

    fn types(&self, version: u8) -> (&'static Types, &OnceCell<OwnedFd>) {
        let [v2, v3] = &self.btf;
        if version == ProtocolVersion::V2.number() {
            (&XDP_DISPATCHER_V2, v2)
        } else {
            (&XDP_DISPATCHER, v3)
        }
    }
}

const LICENSE: &std::ffi::CStr = c"Dual BSD/GPL";

/// The map with the configuration, for who reads the chain. It cannot be written by a program, nor, once frozen, by
/// anybody else: so it says for ever what the code was written for.
fn config_map(kernel: &Kernel, config: &Config) -> io::Result<MapHandle> {
    let content = config.encode();
    let map = kernel.map_create(&MapSpec {
        kind: BPF_MAP_TYPE_ARRAY,
        name: "xdp_disp.rodata",
        value_size: u32::try_from(content.len()).unwrap_or(u32::MAX),
        flags: BPF_F_RDONLY_PROG,
        ..MapSpec::default()
    })?;
    kernel.map_update(&map, &[0; 4], &content)?;
    kernel.map_freeze(map.as_fd())?;
    Ok(map)
}

/// The configuration of a dispatcher around one program, to try it in.
pub(super) fn around(program: &Program, version: ProtocolVersion) -> Config {
    let slot = SlotConfig {
        priority: program.priority(),
        actions: program.chain_actions(),
        flags: SlotConfig::flags_of(program.has_frags(), false),
    };
    Config {
        version: version.number(),
        has_frags: program.has_frags(),
        is_device_bound: false,
        slots: vec![slot],
    }
}

/// The function that the program in `slot` replaces. The only program of a chain replaces the dispatcher itself
/// and so costs no call, as in libxdp since 1.5; but not where the dispatcher would turn its verdict into
/// another one, which it does for every action but `XDP_PASS` that continues the chain.
pub(super) fn slot_function(slot: usize, slots: &[SlotConfig]) -> Result<Function> {
    let alone = matches!(slots, [only] if ChainActions::PASS.contains(only.actions));
    let name = if alone { "xdp_dispatcher".to_owned() } else { format!("prog{slot}") };
    // The functions have the same types in every version.
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
