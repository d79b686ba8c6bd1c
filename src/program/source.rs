//! Where a program comes from, what it asks for, and loading it.

use super::image::{self, Global, Image, ImageError, LoadTarget, Loaded, MapChoice};
use super::names::{completed_name, kernel_btf};
use super::run_config::RunConfig;
use super::select::{Select, choose};
use super::{Btf, ChainActions, Map, check};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::Link;
use crate::sys::Kernel;
use crate::sys::bpf::{LinkKind, LoadError, ProgramInfo};
use crate::sys::object::{LibbpfObject, Object, ObjectError, ProgramEntry, is_exhaustion};
use libbpf_sys::{
    BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS, BPF_PROG_TYPE_EXT, BPF_PROG_TYPE_XDP,
};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

const OPEN: &str = "open";
/// An XDP program: opened from an ELF object and not loaded yet, or in the kernel.
///
/// It is loaded by the first [`attach`](crate::Xdp::attach), as a component of a chain or as a program that runs
/// alone, and stays loaded, even if that attach fails later on: then it can be attached again, to any number of
/// interfaces. Its maps and the program itself live in the kernel as long as this value or its place in a chain does.
/// Maps that the object wants pinned by name (`LIBBPF_PIN_BY_NAME`) are pinned by libbpf, at `/sys/fs/bpf` or where
/// [`set_map_pins`](Program::set_map_pins) says, when the program is loaded.
///
/// A clone of a program that is loaded is the same program of the kernel, with the same maps. One of a program that
/// is not is another program with the same settings, whose code is neither read nor parsed again: clone it for each
/// attach, where each is to have maps of its own. (Of a program out of a libbpf object only one clone can be loaded.)
#[derive(Clone)]
pub struct Program {
    name: String,
    has_frags: bool,
    is_device_bound: bool,
    config: RunConfig,
    source: Source,
    btf: Option<Arc<Btf>>,
    /// Number of instructions in the file.
    size: usize,
    maps: Vec<String>,
    map_pins: MapPins,
    globals: Vec<Global>,
    map_choices: Vec<MapChoice>,
    loaded: Option<Arc<Loaded>>,
    /// What holds it on interfaces where it runs alone.
    links: Vec<Link>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("id", &self.id())
            .field("config", &self.config)
            .field("has_frags", &self.has_frags)
            .field("is_device_bound", &self.is_device_bound)
            .finish_non_exhaustive()
    }
}

/// What a program is loaded from.
#[derive(Clone, Debug)]
enum Source {
    /// A file's bytes, and the program linked from them unless only libbpf can load it.
    Elf { elf: Arc<[u8]>, image: Option<Arc<Image>> },
    /// The caller's object; a load spends it.
    Object(Arc<Mutex<Option<Object>>>),
    /// It is in the kernel, and nothing else is known.
    Kernel,
}

/// Where maps go that the object wants pinned by name.
#[derive(Clone, Debug)]
enum MapPins {
    /// Where libbpf, or who opened the object, has put them.
    AsOpened,
    Nowhere,
    Below(PathBuf),
}

/// Sections of global variables, as libbpf names them.
const GLOBALS: [&str; 3] = [".rodata", ".data", ".bss"];

impl Program {
    /// Opens a program from an ELF file. Needs no privilege.
    ///
    /// The object needs no BTF: without it the program has the default priority and actions, and the BTF that the
    /// kernel wants of a component is made up when it is loaded.
    ///
    /// # Errors
    /// [`ErrorKind::CorruptObject`], [`ErrorKind::NoSuchProgram`], [`ErrorKind::AmbiguousProgram`], or the error of
    /// reading the file.
    #[doc(alias = "xdp_program__open_file")]
    pub fn from_file(path: impl AsRef<Path>, select: Select<'_>) -> Result<Self> {
        let path = path.as_ref();
        let elf = fs::read(path).during("read", path.display())?;
        Self::open(elf.into(), select, &path.display().to_string())
    }

    /// Opens a program from the bytes of an ELF file. Errors as [`from_file`](Program::from_file).
    pub fn from_bytes(elf: &[u8], select: Select<'_>) -> Result<Self> {
        Self::open(elf.into(), select, "bytes")
    }

    /// Takes a program out of an object that was opened with libbpf. It is loaded by libbpf too, so everything that
    /// was set on the object and on its maps counts, also a map that is to be used again.
    ///
    /// # Errors
    /// As [`from_file`](Program::from_file).
    #[doc(alias = "xdp_program__from_bpf_obj")]
    pub fn from_object(object: LibbpfObject, select: Select<'_>) -> Result<Self> {
        const LABEL: &str = "libbpf's object";
        let mut object = object.into_inner();
        let opened = Opened::read(&mut object, select, LABEL)?;
        Ok(opened.into_program(Source::Object(Arc::new(Mutex::new(Some(object))))))
    }

    fn open(elf: Arc<[u8]>, select: Select<'_>, label: &str) -> Result<Self> {
        check::check(&elf).map_err(ErrorKind::CorruptObject).during(OPEN, label)?;
        let kernel = Kernel::default();
        let mut object = kernel.object_open(&elf, None).map_err(|error| corrupt(error, label))?;
        let opened = Opened::read(&mut object, select, label)?;
        // What refers to the kernel's symbols or configuration is for libbpf to resolve.
        let asks_kernel =
            |btf: &Arc<Btf>| [".ksyms", ".kconfig"].iter().any(|s| btf.has_section(s));
        let image = if opened.btf.as_ref().is_some_and(asks_kernel) {
            None
        } else {
            Image::link(&kernel, &mut object, &elf, &opened.entry.name)
                .map_err(|error| corrupt(error, label))?
        };
        Ok(opened.into_program(Source::Elf { elf, image: image.map(Arc::new) }))
    }

    /// A program that is in the kernel, by its descriptor, say one that came over a socket or from another library.
    ///
    /// One that was loaded as an extension program can be a component of a chain, if it was made for a slot of a
    /// dispatcher; any other XDP program can only run alone ([`Policy::Single`](crate::Policy::Single)).
    ///
    /// # Errors
    /// [`ErrorKind::NotXdp`] if it is no XDP program; [`ErrorKind::NoPrivilege`], where its BTF is to be read.
    #[doc(alias = "xdp_program__from_fd")]
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        Self::in_kernel(&Kernel::default(), fd, "descriptor")
    }

    /// A program that is in the kernel, by its id. Needs `CAP_SYS_ADMIN`. Errors as [`from_fd`](Program::from_fd).
    #[doc(alias = "xdp_program__from_id")]
    pub fn from_id(id: u32) -> Result<Self> {
        let kernel = Kernel::default();
        let label = format!("program {id}");
        let fd = kernel.prog_by_id(id);
        let fd = fd.map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN"));
        Self::in_kernel(&kernel, fd.during(OPEN, &label)?, &label)
    }

    /// A program that is pinned in a bpf file system. Errors as [`from_fd`](Program::from_fd).
    #[doc(alias = "xdp_program__from_pin")]
    pub fn from_pin(path: impl AsRef<Path>) -> Result<Self> {
        let kernel = Kernel::default();
        let path = path.as_ref();
        let fd = kernel.open_pin(path);
        let fd = fd.map_err(|error| ErrorKind::privileged(error, "access to the pin"));
        Self::in_kernel(&kernel, fd.during(OPEN, path.display())?, &path.display().to_string())
    }

    fn in_kernel(kernel: &Kernel, fd: OwnedFd, label: &str) -> Result<Self> {
        let not_xdp = |what: &str| Error::new(OPEN, label, ErrorKind::NotXdp(what.into()));
        if !kernel.is_program(fd.as_fd()).during(OPEN, label)? {
            return Err(not_xdp("another kind of object"));
        }
        let info = kernel.prog_info(fd.as_fd()).during("query", label)?;
        if ![BPF_PROG_TYPE_XDP, BPF_PROG_TYPE_EXT].contains(&info.kind) {
            return Err(not_xdp("a program of another type"));
        }
        let btf = kernel_btf(kernel, &info);
        let btf = btf.map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN"));
        let btf = btf.during("read the BTF of", label)?;
        let name = completed_name(&info, btf.as_ref());
        Ok(Self::described(fd, info, name, btf))
    }

    /// A program in the kernel of which this is known. Its config is in its BTF, or the usual one.
    pub(crate) fn described(
        fd: OwnedFd,
        info: ProgramInfo,
        name: String,
        btf: Option<Btf>,
    ) -> Self {
        let config = btf.as_ref().and_then(|btf| RunConfig::read(btf, &name).ok());
        Self {
            has_frags: false,
            is_device_bound: info.ifindex != 0,
            config: config.unwrap_or_default(),
            source: Source::Kernel,
            btf: btf.map(Arc::new),
            size: 0,
            maps: Vec::new(),
            map_pins: MapPins::AsOpened,
            globals: Vec::new(),
            map_choices: Vec::new(),
            links: Vec::new(),
            loaded: Some(Arc::new(Loaded { program: fd, info, maps: Vec::new(), flags: 0 })),
            name,
        }
    }

    /// The name of its function; where the kernel has cut it to 15 bytes, completed from BTF.
    #[doc(alias = "xdp_program__name")]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run priority; lower runs first. From the run config in the program's BTF, else 50.
    #[doc(alias = "xdp_program__run_prio")]
    pub fn priority(&self) -> u32 {
        self.config.priority
    }

    /// The actions after which the chain goes on. From the run config in the program's BTF, else `XDP_PASS`.
    #[doc(alias = "xdp_program__chain_call_enabled")]
    pub fn chain_actions(&self) -> ChainActions {
        self.config.actions
    }

    /// Whether it reads packets of several fragments (section `xdp.frags`).
    #[doc(alias = "xdp_program__xdp_frags_support")]
    pub fn has_frags(&self) -> bool {
        self.has_frags
    }

    /// Whether it asks to be bound to the device it is attached to.
    pub fn is_device_bound(&self) -> bool {
        self.is_device_bound
    }

    /// Sets the run priority for the next attach. That of a program in a chain is changed by
    /// [`Edit::set_priority`](crate::Edit::set_priority).
    #[doc(alias = "xdp_program__set_run_prio")]
    pub fn set_priority(&mut self, priority: u32) {
        self.config.priority = priority;
    }

    /// Sets the actions after which the chain goes on, for the next attach. Those of a program in a chain are changed
    /// by [`Edit::set_chain_actions`](crate::Edit::set_chain_actions).
    #[doc(alias = "xdp_program__set_chain_call_enabled")]
    pub fn set_chain_actions(&mut self, actions: ChainActions) {
        self.config.actions = actions;
    }

    /// Sets whether it reads packets of several fragments: for a program that was loaded by others, of which the
    /// kernel does not tell.
    #[doc(alias = "xdp_program__set_xdp_frags_support")]
    pub fn set_frags(&mut self, has_frags: bool) {
        self.has_frags = has_frags;
    }

    /// Asks for the program to be bound to the device it is attached to (`BPF_F_XDP_DEV_BOUND_ONLY`, kernel 6.3),
    /// so that it can call the functions that tell a packet's metadata. A chain is bound only if all its programs ask
    /// for it.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyLoaded`]
    pub fn set_device_bound(&mut self, is_bound: bool) -> Result<()> {
        self.must_not_be_loaded("bind to a device")?;
        self.is_device_bound = is_bound;
        Ok(())
    }

    /// Sets the first value of a global variable; for a `const volatile` one the only way. `value` has the
    /// host's byte order.
    ///
    /// # Errors
    /// [`ErrorKind::NoSuchName`]; [`ErrorKind::AlreadyLoaded`]; [`ErrorKind::NoBtf`], as BTF tells where the variable
    /// lies; `ERANGE` if it has another size.
    pub fn set_global(&mut self, name: &str, value: &[u8]) -> Result<()> {
        const SET: &str = "set global variable";
        self.must_not_be_loaded(SET)?;
        let btf = self.btf.as_deref().ok_or(ErrorKind::NoBtf).during(SET, name)?;
        let found =
            GLOBALS.iter().find_map(|section| Some((section, btf.variable(section, name)?)));
        let (section, (_, offset, size)) =
            found.ok_or_else(|| ErrorKind::NoSuchName(name.into())).during(SET, name)?;
        if size != value.len() {
            let source = io::Error::from_raw_os_error(libc::ERANGE);
            let message = format!("it has {size} bytes, the value {}", value.len());
            return Err(Error::new(SET, name, ErrorKind::Os { source, message }));
        }
        let section = (*section).to_owned();
        self.globals.push(Global { section, offset, value: value.to_owned() });
        Ok(())
    }

    /// Says where maps that the object wants pinned by name (`LIBBPF_PIN_BY_NAME`) are pinned when the program is
    /// loaded, in place of `/sys/fs/bpf`: in `directory`, which must be in a bpf file system and is made if its parent is
    /// there; with `None`, nowhere. A map that is pinned there already is used in place of a new one, if it fits.
    ///
    /// The pins stay when the program goes, also where it was loaded for an attach that failed later on.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyLoaded`]
    #[doc(alias = "pin_root_path")]
    pub fn set_map_pins(&mut self, directory: Option<&Path>) -> Result<()> {
        self.must_not_be_loaded("choose where to pin the maps of")?;
        self.map_pins = directory.map_or(MapPins::Nowhere, |path| MapPins::Below(path.to_owned()));
        Ok(())
    }

    /// Says what some of the maps are, in place of what the object says; not of the caller's object.
    pub(crate) fn choose_maps(&mut self, choices: Vec<MapChoice>) {
        self.map_choices = choices;
    }

    /// Names of the object's maps; empty for a program that was opened in the kernel.
    pub fn map_names(&self) -> Vec<String> {
        self.maps.clone()
    }

    /// A map of the loaded program. For one that was opened in the kernel, `name` is what the kernel keeps of it:
    /// 15 bytes.
    ///
    /// # Errors
    /// [`ErrorKind::NotLoaded`]; [`ErrorKind::NoSuchName`].
    pub fn map(&self, name: &str) -> Result<Map> {
        const MAP: &str = "open map";
        let loaded = self.loaded.as_deref().ok_or(ErrorKind::NotLoaded).during(MAP, name)?;
        if let Some((_, map)) = loaded.maps.iter().find(|(own, _)| own == name) {
            return Map::new(name, map.try_clone().during(MAP, name)?);
        }
        if matches!(self.source, Source::Kernel) {
            let kernel = Kernel::default();
            for id in &loaded.info.map_ids {
                let map = kernel.map_by_id(*id);
                let map = map.map_err(|error| ErrorKind::privileged(error, "CAP_SYS_ADMIN"));
                let map = kernel.map_open(map.during(MAP, name)?).during(MAP, name)?;
                if map.name() == name {
                    return Map::new(name, map.into_fd());
                }
            }
        }
        Err(Error::new(MAP, name, ErrorKind::NoSuchName(name.into())))
    }

    /// Id of the loaded program, unique in the kernel; `None` before it is loaded.
    #[doc(alias = "xdp_program__id")]
    pub fn id(&self) -> Option<u32> {
        self.info().map(|info| info.id)
    }

    /// The loaded program's descriptor.
    ///
    /// # Errors
    /// [`ErrorKind::NotLoaded`]
    #[doc(alias = "xdp_program__fd")]
    pub fn fd(&self) -> Result<BorrowedFd<'_>> {
        let loaded = self.loaded.as_deref().ok_or(ErrorKind::NotLoaded);
        Ok(loaded.during("use program", &self.name)?.program.as_fd())
    }

    /// Pins the loaded program at `path` in a bpf file system. Needs write access there.
    ///
    /// # Errors
    /// [`ErrorKind::NotLoaded`], or that of the file system.
    #[doc(alias = "xdp_program__pin")]
    pub fn pin(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        Kernel::default().pin(self.fd()?, path).during("pin", path.display())
    }

    pub(crate) fn info(&self) -> Option<&ProgramInfo> {
        self.loaded.as_deref().map(|loaded| &loaded.info)
    }

    /// Whether it is loaded as a program that runs alone.
    pub(crate) fn is_loaded_alone(&self) -> bool {
        self.info().is_some_and(|info| info.kind == BPF_PROG_TYPE_XDP)
    }

    /// Keeps what holds it on an interface, and lets go of links that hold nothing any more.
    pub(crate) fn keep(&mut self, kernel: &Kernel, link: Option<Link>) {
        let holds = |link: &Link| {
            let info = kernel.link_info(link.as_fd());
            info.map_or(true, |info| info.kind != (LinkKind::Xdp { ifindex: 0 }))
        };
        self.links.retain(holds);
        self.links.extend(link);
    }

    /// Number of instructions before loading, which breaks a tie between programs.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Loads the program if it is not loaded yet. A component goes into any slot of any dispatcher.
    ///
    /// # Errors
    /// [`ErrorKind::LoadedOtherwise`] if it is loaded as the other of the two.
    pub(crate) fn load(&mut self, kernel: &Kernel, target: LoadTarget<'_>) -> Result<()> {
        const LOAD: &str = "load program";
        let is_component = matches!(target, LoadTarget::Slot { .. });
        if let Some(info) = self.info() {
            if (info.kind == BPF_PROG_TYPE_EXT) == is_component {
                return Ok(());
            }
            let kind = ErrorKind::LoadedOtherwise { is_component: !is_component };
            return Err(Error::new("use program", &self.name, kind));
        }
        let loaded = self.load_new(kernel, target)?;
        let loaded = loaded.map_err(|error| image::refusal(kernel, is_component, error));
        self.loaded = Some(Arc::new(loaded.during(LOAD, &self.name)?));
        Ok(())
    }

    /// Loads the program, if it is not loaded yet, to run alone; for the device of the interface `ifindex`, in the calling
    /// thread's namespace, unless that is 0. Without fragments on a kernel that has none: [`Self::runs_with`] tells.
    pub(crate) fn load_alone(&mut self, kernel: &Kernel, ifindex: u32) -> Result<()> {
        let has_frags = self.has_frags && self.loaded.is_none() && {
            let has_frags = image::has_frags(kernel);
            has_frags.during("probe", "packets of several fragments")?
        };
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(has_frags, BPF_F_XDP_HAS_FRAGS)
            | flag(self.is_device_bound, BPF_F_XDP_DEV_BOUND_ONLY);
        self.load(kernel, LoadTarget::Alone { flags, ifindex })
    }

    /// Whether the loaded program reads fragments, and whether it is bound to a device.
    pub(crate) fn runs_with(&self) -> (bool, bool) {
        match (&self.source, &self.loaded) {
            (Source::Kernel, _) | (_, None) => (self.has_frags, self.is_device_bound),
            (_, Some(loaded)) => {
                let has = |flag| loaded.flags & flag != 0;
                (has(BPF_F_XDP_HAS_FRAGS), has(BPF_F_XDP_DEV_BOUND_ONLY))
            }
        }
    }

    fn load_new(
        &self,
        kernel: &Kernel,
        target: LoadTarget<'_>,
    ) -> Result<std::result::Result<Loaded, LoadError>> {
        let by_libbpf = |object: &mut Object| {
            match &self.map_pins {
                MapPins::AsOpened => Ok(()),
                MapPins::Nowhere => object.pin_maps(None),
                MapPins::Below(directory) => object.pin_maps(Some(directory)),
            }?;
            image::load_object(kernel, object, &self.name, &self.globals, target)
                .map_err(|error| LoadError { source: error.source, log: error.said })
        };
        match &self.source {
            Source::Elf { elf, image } => {
                if let Some(image) = image {
                    let choices = (self.globals.as_slice(), self.map_choices.as_slice());
                    match image.load(kernel, &self.name, choices, target) {
                        Ok(loaded) => return Ok(Ok(loaded)),
                        Err(ImageError::Refused(error)) => return Ok(Err(error)),
                        Err(ImageError::BtfRefused) => {
                            log::debug!("{}: BTF newer than the kernel", self.name);
                        }
                    }
                }
                let name = image::object_name(&self.map_choices);
                let mut object = kernel
                    .object_open(elf, name.as_deref())
                    .map_err(|error| corrupt(error, &self.name))?;
                Ok(image::choose_maps(&mut object, &self.map_choices)
                    .map_err(LoadError::from)
                    .and_then(|()| by_libbpf(&mut object)))
            }
            Source::Object(object) => {
                let mut object = object.lock().unwrap_or_else(PoisonError::into_inner);
                let taken = object.take().ok_or(ErrorKind::SpentObject);
                Ok(by_libbpf(&mut taken.during("load program", &self.name)?))
            }
            Source::Kernel => Err(Error::new("load program", &self.name, ErrorKind::NotLoaded)),
        }
    }

    fn must_not_be_loaded(&self, operation: &'static str) -> Result<()> {
        match self.loaded {
            None => Ok(()),
            Some(_) => Err(Error::new(operation, &self.name, ErrorKind::AlreadyLoaded)),
        }
    }
}

/// What an opened object tells of one of its programs.
struct Opened {
    entry: ProgramEntry,
    btf: Option<Arc<Btf>>,
    config: RunConfig,
    maps: Vec<String>,
}

impl Opened {
    fn read(object: &mut Object, select: Select<'_>, label: &str) -> Result<Self> {
        let entry = choose(&object.programs(), select).during(OPEN, label)?;
        let corrupt = |what: String| ErrorKind::CorruptObject(what);
        let btf = object.btf().map(Btf::parse).transpose().map_err(corrupt).during(OPEN, label)?;
        let config = btf.as_ref().map(|btf| RunConfig::read(btf, &entry.name)).transpose();
        let config = config.map_err(ErrorKind::RunConfig).during(OPEN, label)?.unwrap_or_default();
        Ok(Self { entry, btf: btf.map(Arc::new), config, maps: object.map_names() })
    }

    fn into_program(self, source: Source) -> Program {
        let entry = self.entry;
        // libbpf turns the section into the flag only while it loads an XDP program, which a component is not.
        let is_frags = entry.section == "xdp.frags" || entry.section.starts_with("xdp.frags/");
        Program {
            has_frags: is_frags || entry.flags & BPF_F_XDP_HAS_FRAGS != 0,
            is_device_bound: false,
            config: self.config,
            source,
            btf: self.btf,
            size: entry.instructions,
            maps: self.maps,
            map_pins: MapPins::AsOpened,
            globals: Vec::new(),
            map_choices: Vec::new(),
            loaded: None,
            links: Vec::new(),
            name: entry.name,
        }
    }
}

/// Any failure to open is the object's fault, except for a want of memory or descriptors.
fn corrupt(error: ObjectError, label: &str) -> Error {
    let kind = match error.source {
        source if is_exhaustion(&source) => source.into(),
        source if error.said.is_empty() => ErrorKind::CorruptObject(source.to_string()),
        _ => ErrorKind::CorruptObject(error.said),
    };
    Error::new(OPEN, label, kind)
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
