//! Opening a program from an ELF object, and loading it into a slot.

use super::run_config::RunConfig;
use super::{Btf, ChainActions, Map};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::bpf::ProgramInfo;
use crate::sys::object::{Object, ObjectError, ProgramEntry};
use crate::sys::{Capability, Kernel};
use libbpf_sys::{BPF_F_XDP_HAS_FRAGS, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_UNSPEC, BPF_PROG_TYPE_XDP};
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Which program of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select<'a> {
    /// The only one.
    Only,
    /// The one with this function name.
    Function(&'a str),
    /// The first in this ELF section, such as `xdp` or `xdp.frags`.
    Section(&'a str),
}

/// An XDP program, opened from an ELF object and not, or already, loaded.
///
/// It is loaded by the first [`attach`](crate::Xdp::attach), as a component of a chain, and stays loaded, even if
/// that attach fails later on: then it can be attached again, but no longer be given other settings. Its maps and the
/// program itself live in the kernel as long as this value or its place in a chain does. Maps that the object wants
/// pinned by name (`LIBBPF_PIN_BY_NAME`) are pinned by libbpf, at `/sys/fs/bpf`, when the program is loaded.
#[derive(Debug)]
pub struct Program {
    elf: Box<[u8]>,
    entry: ProgramEntry,
    config: RunConfig,
    maps: Vec<String>,
    globals: Vec<Global>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Opened; spent objects are opened again from `elf`.
    Opened(Option<Object>),
    Loaded(Object, ProgramInfo),
}

/// A value to be written over a global variable before loading.
#[derive(Clone, Debug)]
struct Global {
    section: String,
    offset: usize,
    value: Vec<u8>,
}

/// Sections of global variables, as libbpf names them.
const GLOBALS: [&str; 3] = [".rodata", ".data", ".bss"];

impl Program {
    /// Opens a program from an ELF file. Needs no privilege.
    ///
    /// # Errors
    /// [`ErrorKind::CorruptObject`], [`ErrorKind::NoSuchProgram`], [`ErrorKind::AmbiguousProgram`],
    /// [`ErrorKind::NoBtf`], or the error of reading the file.
    #[doc(alias = "xdp_program__open_file")]
    pub fn from_file(path: impl AsRef<Path>, select: Select<'_>) -> Result<Self> {
        let path = path.as_ref();
        let elf = fs::read(path).during("read", path.display())?;
        Self::open(elf.into(), select, &path.display().to_string())
    }

    /// Opens a program from the bytes of an ELF file. Errors as [`from_file`](Program::from_file).
    #[doc(alias = "xdp_program__from_bpf_obj")]
    pub fn from_bytes(elf: &[u8], select: Select<'_>) -> Result<Self> {
        Self::open(elf.into(), select, "bytes")
    }

    fn open(elf: Box<[u8]>, select: Select<'_>, label: &str) -> Result<Self> {
        const OPEN: &str = "open";
        let mut object =
            Kernel::default().object_open(&elf).map_err(|error| corrupt(error, label))?;
        let entry = choose(&object.programs(), select).during(OPEN, label)?;
        let btf = object.btf().ok_or(ErrorKind::NoBtf).during(OPEN, label)?;
        let config = Btf::parse(btf)
            .and_then(|btf| RunConfig::read(&btf, &entry.name))
            .map_err(ErrorKind::CorruptObject)
            .during(OPEN, label)?;
        let (maps, globals) = (object.map_names(), Vec::new());
        Ok(Self { elf, entry, config, maps, globals, state: State::Opened(Some(object)) })
    }

    /// The name of its function.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The run priority; lower runs first. From the object's run config, else 50.
    #[doc(alias = "xdp_program__run_prio")]
    pub fn priority(&self) -> u32 {
        self.config.priority
    }

    /// The actions after which the chain goes on. From the object's run config, else `XDP_PASS`.
    #[doc(alias = "xdp_program__chain_call_enabled")]
    pub fn chain_actions(&self) -> ChainActions {
        self.config.actions
    }

    /// Whether it reads packets of several fragments (section `xdp.frags`).
    #[doc(alias = "xdp_program__xdp_frags_support")]
    pub fn has_frags(&self) -> bool {
        // libbpf turns the section into the flag only while it loads an XDP program, which this is not.
        let section = self.entry.section.as_str();
        self.entry.flags & BPF_F_XDP_HAS_FRAGS != 0
            || section == "xdp.frags"
            || section.starts_with("xdp.frags/")
    }

    /// Sets the run priority.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyLoaded`]
    #[doc(alias = "xdp_program__set_run_prio")]
    pub fn set_priority(&mut self, priority: u32) -> Result<()> {
        self.must_be_open("set the priority of")?;
        self.config.priority = priority;
        Ok(())
    }

    /// Sets the actions after which the chain goes on.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyLoaded`]
    #[doc(alias = "xdp_program__set_chain_call_enabled")]
    pub fn set_chain_actions(&mut self, actions: ChainActions) -> Result<()> {
        self.must_be_open("set the chain-call actions of")?;
        self.config.actions = actions;
        Ok(())
    }

    /// Sets the first value of a global variable; for a `const volatile` one the only way. `value` has the
    /// host's byte order.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchName`]; [`ErrorKind::AlreadyLoaded`]; `ERANGE` if the variable has another size.
    pub fn set_global(&mut self, name: &str, value: &[u8]) -> Result<()> {
        const SET: &str = "set global variable";
        self.must_be_open(SET)?;
        let mut object = self.take_object()?;
        let btf = object.btf().ok_or(ErrorKind::NoBtf);
        self.state = State::Opened(Some(object));
        let btf = Btf::parse(btf.during(SET, name)?).map_err(ErrorKind::CorruptObject);
        let btf = btf.during(SET, name)?;
        let found =
            GLOBALS.iter().find_map(|section| Some((section, btf.variable(section, name)?)));
        let (section, (_, offset, size)) =
            found.ok_or_else(|| ErrorKind::NoSuchName(name.into())).during(SET, name)?;
        if size != value.len() {
            let source = std::io::Error::from_raw_os_error(libc::ERANGE);
            let message = format!("it has {size} bytes, the value {}", value.len());
            return Err(Error::new(SET, name, ErrorKind::Os { source, message }));
        }
        let section = (*section).to_owned();
        self.globals.push(Global { section, offset, value: value.to_owned() });
        Ok(())
    }

    /// Names of the object's maps.
    pub fn map_names(&self) -> Vec<String> {
        self.maps.clone()
    }

    /// A map of the loaded program.
    ///
    /// # Errors
    /// [`ErrorKind::NotLoaded`]; [`ErrorKind::NoSuchName`].
    pub fn map(&self, name: &str) -> Result<Map> {
        const OPEN: &str = "open map";
        let State::Loaded(object, _) = &self.state else {
            return Err(Error::new(OPEN, name, ErrorKind::NotLoaded));
        };
        let fd = object.map_fd(name).ok_or_else(|| ErrorKind::NoSuchName(name.into()));
        Map::new(name, fd.during(OPEN, name)?)
    }

    /// Id of the loaded program, unique in the kernel; `None` before it is loaded.
    #[doc(alias = "xdp_program__id")]
    pub fn id(&self) -> Option<u32> {
        self.info().map(|info| info.id)
    }

    pub(crate) fn info(&self) -> Option<&ProgramInfo> {
        match &self.state {
            State::Loaded(_, info) => Some(info),
            State::Opened(_) => None,
        }
    }

    /// Number of instructions before loading, which breaks a tie between programs.
    pub(crate) fn size(&self) -> usize {
        self.entry.instructions
    }

    /// The loaded program.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Loaded(object, _) => object.program_fd(&self.entry.name),
            State::Opened(_) => None,
        }
    }

    /// Loads the program as a replacement for `function` of the dispatcher `target`, if it is not loaded yet;
    /// one that is goes into any slot of any dispatcher.
    pub(crate) fn load(
        &mut self,
        kernel: &Kernel,
        target: BorrowedFd<'_>,
        function: &str,
    ) -> Result<()> {
        const LOAD: &str = "load program";
        if self.info().is_some() {
            return Ok(());
        }
        let mut object = self.take_object()?;
        for global in &self.globals {
            object
                .patch_global(&global.section, global.offset, &global.value)
                .during("set a global variable of", &self.entry.name)?;
        }
        kernel
            .object_load_extension(&mut object, &self.entry.name, target, function)
            .map_err(|error| Error::new(LOAD, &self.entry.name, refusal(kernel, error)))?;
        let fd = object.program_fd(&self.entry.name).ok_or(ErrorKind::NotLoaded);
        let info = kernel.prog_info(fd.during(LOAD, &self.entry.name)?);
        let info = info.during("query program", &self.entry.name)?;
        self.state = State::Loaded(object, info);
        Ok(())
    }

    /// The object of a program that is not loaded, out of its place; opened again if a failed load has spent it.
    fn take_object(&mut self) -> Result<Object> {
        if let State::Opened(object) = &mut self.state
            && let Some(object) = object.take()
        {
            return Ok(object);
        }
        let name = &self.entry.name;
        Kernel::default().object_open(&self.elf).map_err(|error| corrupt(error, name))
    }

    fn must_be_open(&self, operation: &'static str) -> Result<()> {
        match self.state {
            State::Opened(_) => Ok(()),
            State::Loaded(..) => {
                Err(Error::new(operation, &self.entry.name, ErrorKind::AlreadyLoaded))
            }
        }
    }
}

/// Any failure to open is the object's fault, except for a want of memory or descriptors.
fn corrupt(error: ObjectError, label: &str) -> Error {
    let kind = match error.source.raw_os_error() {
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => error.source.into(),
        _ if error.said.is_empty() => ErrorKind::CorruptObject(error.source.to_string()),
        _ => ErrorKind::CorruptObject(error.said),
    };
    Error::new("open", label, kind)
}

/// The dispatcher has just been loaded by the same process, so EPERM here is freplace that is refused, before
/// the verifier looks; unless libbpf lacks the privilege to look at the dispatcher by its BTF's id.
fn refusal(kernel: &Kernel, error: ObjectError) -> ErrorKind {
    let is_denied = error.source.raw_os_error() == Some(libc::EPERM);
    if let Some(needs) = kernel.lacking(Capability::SysAdmin).filter(|_| is_denied) {
        return ErrorKind::NoPrivilege { needs };
    }
    match error.source.raw_os_error() {
        Some(libc::EPERM) => ErrorKind::NoFreplace {
            why: "it refuses extension programs with EPERM, as a locked-down kernel does".into(),
        },
        Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => error.source.into(),
        _ => ErrorKind::Rejected { source: error.source, log: error.said },
    }
}

fn choose(
    programs: &[ProgramEntry],
    select: Select<'_>,
) -> std::result::Result<ProgramEntry, ErrorKind> {
    let names = || programs.iter().map(|program| program.name.clone()).collect();
    let found = match select {
        Select::Only if programs.len() > 1 => {
            return Err(ErrorKind::AmbiguousProgram { available: names() });
        }
        Select::Only => programs.first(),
        Select::Function(name) => programs.iter().find(|program| program.name == name),
        Select::Section(name) => programs.iter().find(|program| program.section == name),
    };
    let wanted = match select {
        Select::Only => "at all".to_owned(),
        Select::Function(name) => format!("with function {name}"),
        Select::Section(name) => format!("in section {name}"),
    };
    match found {
        None => Err(ErrorKind::NoSuchProgram { wanted, available: names() }),
        Some(program) if !is_xdp(program.kind) => Err(ErrorKind::CorruptObject(format!(
            "{} (section {}) is no XDP program",
            program.name, program.section
        ))),
        Some(program) => Ok(program.clone()),
    }
}

/// An extension program may have been written for a slot from the start; a section with a name of its own,
/// such as `prog`, tells no type.
fn is_xdp(kind: u32) -> bool {
    [BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_UNSPEC].contains(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILTER: &[u8] = include_bytes!("../../bpf/prebuilt/udp_filter.o");
    const DISPATCHER: &[u8] = include_bytes!("../../bpf/prebuilt/xdp_dispatcher.o");

    fn kind_of(result: Result<Program>) -> ErrorKind {
        let error = result.unwrap_err();
        *Box::new(match error.kind() {
            ErrorKind::NoSuchProgram { wanted, available } => {
                ErrorKind::NoSuchProgram { wanted: wanted.clone(), available: available.clone() }
            }
            ErrorKind::CorruptObject(what) => ErrorKind::CorruptObject(what.clone()),
            other => panic!("{other}"),
        })
    }

    #[test]
    fn opened_by_function_by_section_or_alone() {
        for select in [Select::Only, Select::Function("udp_filter"), Select::Section("xdp")] {
            let program = Program::from_bytes(FILTER, select).unwrap();
            assert_eq!(program.name(), "udp_filter");
            assert_eq!((program.priority(), program.chain_actions()), (10, ChainActions::PASS));
            assert_eq!(program.id(), None);
            assert!(!program.has_frags());
        }
    }

    #[test]
    fn what_is_set_before_loading_counts() {
        let mut program = Program::from_bytes(FILTER, Select::Only).unwrap();
        program.set_priority(7).unwrap();
        program.set_chain_actions(ChainActions::DROP | ChainActions::TX).unwrap();
        assert_eq!(program.priority(), 7);
        assert_eq!(program.chain_actions(), ChainActions::DROP | ChainActions::TX);
        program.set_global("blocked_port", &53_u16.to_ne_bytes()).unwrap();
        let error = program.set_global("blocked_port", &[1, 2, 3]).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ERANGE));
        let error = program.set_global("no_such", &[1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NoSuchName(name) if name == "no_such"));
        let error = program.map("traffic").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotLoaded), "{error}");
    }

    #[test]
    fn an_absent_program_is_told_with_those_that_are_there() {
        let select = Select::Function("absent");
        let ErrorKind::NoSuchProgram { wanted, available } =
            kind_of(Program::from_bytes(DISPATCHER, select))
        else {
            panic!("wrong error")
        };
        assert!(wanted.contains("absent"));
        assert_eq!(available, ["xdp_dispatcher"]);
    }

    #[test]
    fn corrupt_objects_are_refused() {
        for bytes in [&b""[..], b"\x7fELF", b"#!/bin/sh", &FILTER[..FILTER.len() / 2]] {
            assert!(matches!(
                kind_of(Program::from_bytes(bytes, Select::Only)),
                ErrorKind::CorruptObject(_)
            ));
        }
    }

    #[test]
    fn an_absent_file_is_the_system_s_error() {
        let error = Program::from_file("/no/such/file.o", Select::Only).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().contains("/no/such/file.o"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_objects_never_panic(at: prop::sample::Index, byte: u8) {
            let mut elf = FILTER.to_vec();
            let at = at.index(elf.len());
            elf[at] = byte;
            let _ = Program::from_bytes(&elf, Select::Only);
        }
    }
}
