//! A linked program, and how it gets into the kernel: with thin calls, or by libbpf where it wants more.

use super::{btf, elf};
use crate::error::ErrorKind;
use crate::sys::bpf::{LoadError, MapHandle, MapSpec, ProgramInfo, ProgramSpec};
use crate::sys::object::{Linked, LinkedMap, LoadAs, Object, ObjectError};
use crate::sys::{Capability, Kernel};
use libbpf_sys::{
    BPF_F_RDONLY_PROG, BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS, BPF_PROG_TYPE_EXT,
    BPF_PROG_TYPE_XDP,
};
use once_cell::sync::OnceCell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A 64-bit immediate load: the only instruction of two words.
const LD_IMM64: u64 = 0x18;
const CALL: u64 = 0x85;
/// What the source register of such an instruction means (include/uapi/linux/bpf.h).
const PSEUDO_CALL: u64 = 1;
const PSEUDO_KFUNC_CALL: u64 = 2;
const PSEUDO_MAP_FD: u64 = 1;
const PSEUDO_MAP_VALUE: u64 = 2;
const PSEUDO_BTF_ID: u64 = 3;
const PSEUDO_MAP_IDX: u64 = 5;
const PSEUDO_MAP_IDX_VALUE: u64 = 6;

/// What a program is loaded as.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoadTarget<'a> {
    /// A component of a chain, checked against function `name` (type `btf_id`) of the dispatcher.
    Slot { dispatcher: BorrowedFd<'a>, name: &'a str, btf_id: u32 },
    /// A program of its own, with `BPF_F_XDP_*` flags; bound to an interface of the calling thread's namespace
    /// unless `ifindex` is 0.
    Alone { flags: u32, ifindex: u32 },
}

impl LoadTarget<'_> {
    fn flags(self) -> u32 {
        match self {
            Self::Slot { .. } => 0,
            Self::Alone { flags, .. } => flags,
        }
    }

    /// The interface whose device is to run the program itself, and so has its maps; 0: the host does.
    fn offload(self) -> u32 {
        match self {
            Self::Alone { flags, ifindex } if flags & BPF_F_XDP_DEV_BOUND_ONLY == 0 => ifindex,
            _ => 0,
        }
    }
}

/// Loads the smallest program, which passes every packet: what the kernel says to it is what a probe asks.
pub(crate) fn load_pass(
    kernel: &Kernel,
    kind: u32,
    flags: u32,
    ifindex: u32,
    target: Option<(BorrowedFd<'_>, u32)>,
) -> Result<OwnedFd, LoadError> {
    /// `r0 = XDP_PASS; exit`
    const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    load_code(kernel, ("xdp_pass", &PASS), kind, flags, ifindex, target)
}

/// Loads the smallest program, as one that reads packets of several fragments.
pub(crate) fn load_frags_pass(kernel: &Kernel) -> Result<OwnedFd, LoadError> {
    load_pass(kernel, BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, 0, None)
}

/// Loads a function of these instructions as an XDP program.
pub(crate) fn load_xdp_code(
    kernel: &Kernel,
    name: &str,
    instructions: &[u64],
) -> Result<OwnedFd, LoadError> {
    load_code(kernel, (name, instructions), BPF_PROG_TYPE_XDP, 0, 0, None)
}

fn load_code(
    kernel: &Kernel,
    (name, instructions): (&str, &[u64]),
    kind: u32,
    flags: u32,
    ifindex: u32,
    target: Option<(BorrowedFd<'_>, u32)>,
) -> Result<OwnedFd, LoadError> {
    let (btf, types) = btf::made_up(name, 0);
    let btf = kernel.btf_load(&btf)?;
    let functions: Vec<_> = types.into_iter().map(|id| [0, id]).collect();
    kernel.prog_load(&ProgramSpec {
        kind,
        name,
        license: c"Dual BSD/GPL",
        instructions,
        flags,
        btf: btf.as_fd(),
        functions: &functions,
        lines: &[],
        target,
        ifindex,
    })
}

/// Whether the kernel lets programs read packets of several fragments (5.18). Tried once in a process.
pub(crate) fn has_frags(kernel: &Kernel) -> io::Result<bool> {
    static HAS_FRAGS: OnceCell<bool> = OnceCell::new();
    let probe = || match load_frags_pass(kernel) {
        Ok(_) => Ok(true),
        Err(error) if error.source.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error.source),
    };
    HAS_FRAGS.get_or_try_init(probe).copied()
}

/// A value to be written over a global variable before loading.
#[derive(Clone, Debug)]
pub(super) struct Global {
    pub(super) section: String,
    pub(super) offset: usize,
    pub(super) value: Vec<u8>,
}

/// A map that is to be another one than the object says.
#[derive(Clone, Debug)]
pub(crate) struct MapChoice {
    /// Its name, or the end of it: that of a section of global variables begins with the object's.
    pub(crate) of: &'static str,
    pub(crate) instead: Instead,
}

/// What a map is, in place of what the object says.
#[derive(Clone, Debug)]
pub(crate) enum Instead {
    /// One that is there, with what is in it.
    Existing(Arc<OwnedFd>),
    /// It has this name in the kernel.
    Named(&'static str),
    /// It has room for so many entries.
    Sized(u32),
}

/// For an object that libbpf loads: what it is to be called, so that its map of global variables has the name that was
/// chosen. libbpf makes that of the object's, cut to eight bytes, and the section's.
pub(super) fn object_name(choices: &[MapChoice]) -> Option<CString> {
    choices.iter().find_map(|choice| match choice.instead {
        Instead::Named(name) => CString::new(name.strip_suffix(choice.of)?).ok(),
        _ => None,
    })
}

/// For such an object: the other choices.
pub(super) fn choose_maps(object: &mut Object, choices: &[MapChoice]) -> io::Result<()> {
    choices.iter().try_for_each(|choice| match &choice.instead {
        Instead::Existing(map) => object.reuse_map(choice.of, map.as_fd()),
        Instead::Sized(entries) => object.resize_maps(choice.of, *entries),
        Instead::Named(_) => Ok(()),
    })
}

/// A program in the kernel, with its maps.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) program: OwnedFd,
    pub(super) info: ProgramInfo,
    pub(super) maps: Vec<(String, OwnedFd)>,
    /// `BPF_F_XDP_*`
    pub(super) flags: u32,
}

/// A linked program. Its BTF is loaded once for all that are made from it.
#[derive(Debug)]
pub(super) struct Image {
    code: Linked,
    license: CString,
    btf: Vec<u8>,
    loaded_btf: OnceCell<OwnedFd>,
}

/// Why an image did not get into the kernel.
#[derive(Debug)]
pub(super) enum ImageError {
    /// Its BTF is of a newer kind than the kernel: libbpf knows how to take the news out.
    BtfRefused,
    Refused(LoadError),
}

impl From<io::Error> for ImageError {
    fn from(source: io::Error) -> Self {
        Self::Refused(source.into())
    }
}

impl Image {
    /// Links program `name` of an opened object whose file is `elf`. `None` if only libbpf can load it: it asks for
    /// the kernel's types, symbols or configuration, or has maps that take more than their definition.
    pub(super) fn link(
        kernel: &Kernel,
        object: &mut Object,
        elf: &[u8],
        name: &str,
    ) -> Result<Option<Self>, ObjectError> {
        // Linking makes the maps of jump tables.
        if elf::has_core_relocations(elf) || elf::section(elf, ".jumptables").is_some() {
            return Ok(None);
        }
        let Some(mut code) = kernel.object_link(object, name)? else { return Ok(None) };
        if !code.instructions.iter().all(|instruction| is_self_contained(*instruction)) {
            return Ok(None);
        }
        let btf = match code.btf.take() {
            Some(btf) if code.functions.is_empty() => {
                log::debug!("{name} has BTF without functions: it is made up");
                drop(btf);
                None
            }
            other => other,
        };
        let btf = btf.unwrap_or_else(|| {
            let starts = subprograms(&code.instructions);
            let (btf, ids) = btf::made_up(name, starts.len());
            code.functions =
                std::iter::once(0).chain(starts).zip(ids).map(|(start, id)| [start, id]).collect();
            code.lines.clear();
            code.maps.iter_mut().for_each(|map| map.types = (0, 0));
            btf
        });
        let license = elf::section(elf, "license").unwrap_or(b"\0");
        let license = CStr::from_bytes_until_nul(license).unwrap_or(c"").to_owned();
        Ok(Some(Self { code, license, btf, loaded_btf: OnceCell::new() }))
    }

    /// Makes the maps and loads the program.
    pub(super) fn load(
        &self,
        kernel: &Kernel,
        name: &str,
        (globals, choices): (&[Global], &[MapChoice]),
        target: LoadTarget<'_>,
    ) -> Result<Loaded, ImageError> {
        let btf = self.loaded_btf.get_or_try_init(|| {
            kernel.btf_load(&self.btf).map_err(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => ImageError::BtfRefused,
                _ => error.into(),
            })
        })?;
        let mut maps = Vec::with_capacity(self.code.maps.len());
        for map in &self.code.maps {
            let choice = choices.iter().find(|choice| map.name.ends_with(choice.of));
            let made = match choice.map(|choice| &choice.instead) {
                None => make_map(kernel, map, btf.as_fd(), globals, target.offload())?,
                Some(Instead::Existing(existing)) => kernel.map_open(existing.try_clone()?)?,
                Some(Instead::Named(name)) => {
                    let map = LinkedMap { name: (*name).to_owned(), ..map.clone() };
                    make_map(kernel, &map, btf.as_fd(), globals, target.offload())?
                }
                Some(Instead::Sized(max_entries)) => {
                    let map = LinkedMap { max_entries: *max_entries, ..map.clone() };
                    make_map(kernel, &map, btf.as_fd(), globals, target.offload())?
                }
            };
            maps.push((map.name.clone(), made));
        }
        let mut instructions = self.code.instructions.clone();
        for instruction in &mut instructions {
            *instruction = with_map(*instruction, &maps)?;
        }
        let (kind, slot, flags, ifindex) = match target {
            LoadTarget::Slot { dispatcher, btf_id, .. } => {
                (BPF_PROG_TYPE_EXT, Some((dispatcher, btf_id)), 0, 0)
            }
            LoadTarget::Alone { flags, ifindex } => (BPF_PROG_TYPE_XDP, None, flags, ifindex),
        };
        let program = kernel.prog_load(&ProgramSpec {
            kind,
            name,
            license: &self.license,
            instructions: &instructions,
            flags,
            btf: btf.as_fd(),
            functions: &self.code.functions,
            lines: &self.code.lines,
            target: slot,
            ifindex,
        });
        let program = program.map_err(ImageError::Refused)?;
        let info = kernel.prog_info(program.as_fd())?;
        let maps = maps.into_iter().map(|(name, map)| (name, map.into_fd())).collect();
        Ok(Loaded { program, info, maps, flags: target.flags() })
    }
}

/// Loads program `name` of an object as libbpf does it.
pub(super) fn load_object(
    kernel: &Kernel,
    object: &mut Object,
    name: &str,
    globals: &[Global],
    target: LoadTarget<'_>,
) -> Result<Loaded, ObjectError> {
    let failed = |source: io::Error| ObjectError { source, said: String::new() };
    if object.program_fd(name).is_some() {
        // Its owner in C has loaded it already, as what it says itself.
        if matches!(target, LoadTarget::Slot { .. }) {
            let source = io::Error::from_raw_os_error(libc::EINVAL);
            let said = "its object was loaded before, and not for a slot of a dispatcher".into();
            return Err(ObjectError { source, said });
        }
        let flags = object.programs().into_iter().find(|entry| entry.name == name);
        return taken(kernel, object, name, flags.map_or(0, |entry| entry.flags)).map_err(failed);
    }
    for Global { section, offset, value } in globals {
        object.patch_global(section, *offset, value).map_err(failed)?;
    }
    let load_as = match target {
        LoadTarget::Slot { dispatcher, name: function, .. } => {
            LoadAs::Extension { target: dispatcher, function }
        }
        LoadTarget::Alone { flags, ifindex } => LoadAs::Xdp { flags, ifindex },
    };
    kernel.object_load(object, name, load_as)?;
    taken(kernel, object, name, target.flags()).map_err(failed)
}

/// What is loaded, out of its object.
fn taken(kernel: &Kernel, object: &Object, name: &str, flags: u32) -> io::Result<Loaded> {
    let own = |fd: Option<BorrowedFd<'_>>| {
        fd.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?.try_clone_to_owned()
    };
    let program = own(object.program_fd(name))?;
    let made = object.map_names().into_iter().filter_map(|name| {
        // One that is not to be made has no descriptor.
        let map = object.map_fd(&name)?.try_clone_to_owned();
        Some(map.map(|map| (name, map)))
    });
    let maps = made.collect::<io::Result<_>>()?;
    let info = kernel.prog_info(program.as_fd())?;
    Ok(Loaded { program, info, maps, flags })
}

fn make_map(
    kernel: &Kernel,
    map: &LinkedMap,
    btf: BorrowedFd<'_>,
    globals: &[Global],
    ifindex: u32,
) -> io::Result<MapHandle> {
    let (key, value) = map.types;
    let spec = MapSpec {
        kind: map.kind,
        name: &map.name,
        key_size: map.key_size,
        value_size: map.value_size,
        max_entries: map.max_entries,
        flags: map.flags,
        numa_node: map.numa_node,
        extra: map.extra,
        ifindex,
        types: (key != 0 || value != 0).then_some((btf, key, value)),
    };
    let made = match kernel.map_create(&spec) {
        // Types that the kernel does not take are for debuggers only.
        Err(error) if spec.types.is_some() && error.raw_os_error() == Some(libc::EINVAL) => {
            kernel.map_create(&MapSpec { types: None, ..spec })
        }
        other => other,
    }?;
    let Some(mut initial) = map.initial.clone() else { return Ok(made) };
    for global in globals.iter().filter(|global| map.name.ends_with(&global.section)) {
        let end = global.offset.checked_add(global.value.len());
        let place = end.and_then(|end| initial.get_mut(global.offset..end));
        let place = place.ok_or_else(|| io::Error::from_raw_os_error(libc::ERANGE))?;
        place.copy_from_slice(&global.value);
    }
    kernel.map_update(&made, &[0; 4], &initial)?;
    if map.flags & BPF_F_RDONLY_PROG != 0 {
        kernel.map_freeze(made.as_fd())?;
    }
    Ok(made)
}

const fn opcode(instruction: u64) -> u64 {
    instruction & 0xff
}

const fn source_register(instruction: u64) -> u64 {
    (instruction >> 12) & 0xf
}

/// Whether an instruction needs nothing but the program's own maps and functions.
fn is_self_contained(instruction: u64) -> bool {
    match (opcode(instruction), source_register(instruction)) {
        (LD_IMM64, source) => ![PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, PSEUDO_BTF_ID].contains(&source),
        (CALL, source) => source != PSEUDO_KFUNC_CALL,
        _ => true,
    }
}

/// The instruction with a map's descriptor in place of its index.
fn with_map(instruction: u64, maps: &[(String, MapHandle)]) -> io::Result<u64> {
    let pseudo = match (opcode(instruction), source_register(instruction)) {
        (LD_IMM64, PSEUDO_MAP_IDX) => PSEUDO_MAP_FD,
        (LD_IMM64, PSEUDO_MAP_IDX_VALUE) => PSEUDO_MAP_VALUE,
        _ => return Ok(instruction),
    };
    let index = usize::try_from(instruction >> 32).unwrap_or(usize::MAX);
    let map = maps.get(index).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let fd = u64::from(map.1.as_fd().as_raw_fd().cast_unsigned());
    Ok((instruction & 0xffff_0fff) | (pseudo << 12) | (fd << 32))
}

/// Where the functions behind the first one start: what is called, or pointed to, from within the program.
fn subprograms(instructions: &[u64]) -> Vec<u32> {
    const PSEUDO_FUNC: u64 = 4;
    let count = i64::try_from(instructions.len()).unwrap_or(i64::MAX);
    let target = |(at, instruction): (i64, &u64)| {
        let is_call = matches!(
            (opcode(*instruction), source_register(*instruction)),
            (CALL, PSEUDO_CALL) | (LD_IMM64, PSEUDO_FUNC)
        );
        let offset = i64::from(((instruction >> 32) as u32).cast_signed());
        let start = at + 1 + offset;
        (is_call && start > 0 && start < count).then(|| u32::try_from(start).ok())?
    };
    let mut starts: Vec<u32> = (0..).zip(instructions).filter_map(target).collect();
    starts.sort_unstable();
    starts.dedup();
    starts
}

/// The kind of a refused load. The dispatcher has just been loaded by the same process, so EPERM for a component is
/// freplace that is refused, before the verifier looks; unless a privilege is missing.
pub(super) fn refusal(kernel: &Kernel, is_component: bool, error: LoadError) -> ErrorKind {
    let wanted = if is_component { Capability::SysAdmin } else { Capability::Perfmon };
    let errno = error.source.raw_os_error();
    let is_denied = errno == Some(libc::EPERM);
    if let Some(needs) = kernel.lacking(wanted).filter(|_| is_denied) {
        return ErrorKind::NoPrivilege { needs };
    }
    match errno {
        Some(libc::EPERM) if is_component => ErrorKind::NoFreplace {
            why: "it refuses extension programs with EPERM, as a locked-down kernel does".into(),
        },
        Some(libc::EPERM) => ErrorKind::NoPrivilege { needs: "CAP_BPF and CAP_NET_ADMIN" },
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => error.source.into(),
        _ => ErrorKind::Rejected { source: error.source, log: error.log },
    }
}

/// Loads an object as libbpf does it, whether or not it could be linked; with values for its first bytes.
#[cfg(fuzzing)]
pub(crate) fn fuzz(elf: &[u8]) {
    let kernel = Kernel::default();
    if super::check::check(elf).is_err() {
        return;
    }
    let Ok(mut object) = kernel.object_open(elf, None) else { return };
    let programs = object.programs();
    let Some(first) = programs.iter().find(|program| program.section.starts_with("xdp")) else {
        return;
    };
    let global = |section: &str| Global { section: section.into(), offset: 0, value: vec![1] };
    let globals: Vec<_> = object
        .map_names()
        .iter()
        .filter_map(|name| Some(global(&name[name.find('.')?..])))
        .collect();
    let target = LoadTarget::Alone { flags: 0, ifindex: 0 };
    let _ = load_object(&kernel, &mut object, &first.name, &globals, target);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_start_where_they_are_called() {
        let call =
            |offset: i32| CALL | (PSEUDO_CALL << 12) | (u64::from(offset.cast_unsigned()) << 32);
        let exit = 0x95;
        assert_eq!(subprograms(&[call(2), call(1), exit, exit, exit]), [3]);
        assert_eq!(subprograms(&[call(1), exit, call(1), exit, exit]), [2, 4]);
        // A helper's call, and calls that lead out, are none.
        assert_eq!(subprograms(&[CALL | (1 << 32), call(9), call(-9), exit]), [0_u32; 0]);
    }

    #[test]
    fn instructions_that_need_the_kernel_s_types_are_left_to_libbpf() {
        assert!(is_self_contained(LD_IMM64 | (PSEUDO_MAP_IDX << 12)));
        assert!(!is_self_contained(LD_IMM64 | (PSEUDO_BTF_ID << 12)));
        assert!(!is_self_contained(LD_IMM64 | (PSEUDO_MAP_FD << 12)), "whatever has that number");
        assert!(is_self_contained(CALL | (PSEUDO_CALL << 12)));
        assert!(!is_self_contained(CALL | (PSEUDO_KFUNC_CALL << 12)));
    }

    #[test]
    fn a_map_that_is_not_there_is_refused() {
        assert!(with_map(LD_IMM64 | (PSEUDO_MAP_IDX << 12) | (7 << 32), &[]).is_err());
        assert_eq!(with_map(0x95, &[]).unwrap(), 0x95);
    }
}
