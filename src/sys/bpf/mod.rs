//! Thin bpf(2) calls: one method, one command, one system call.

mod attr;
mod link;

pub(crate) use link::LinkKind;

use super::Kernel;
use super::fs::c_path;
use attr::{
    BtfLoadAttr, IdAttr, InfoAttr, MapCreateAttr, MapElementAttr, NAME_LENGTH, ObjectAttr,
    ProgramLoadAttr, TestRunAttr,
};
use libbpf_sys as bpf_sys;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How often a program load is tried again after EAGAIN: the verifier gives up when a signal comes.
const LOAD_ATTEMPTS: u32 = 5;
/// What the verifier may say about a refused program, in bytes.
const LOG_SIZE: usize = 256 * 1024;
/// Room for a program's BTF at the first try, in bytes; a larger one takes a second call.
const BTF_ROOM: u32 = 8192;

/// What the kernel tells of a loaded program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    /// At most 15 bytes: longer names are cut by the kernel.
    pub(crate) name: String,
    pub(crate) tag: [u8; 8],
    /// Since boot.
    pub(crate) load_time: Duration,
    /// 0: none.
    pub(crate) btf_id: u32,
    pub(crate) map_ids: Vec<u32>,
    /// The device that it is bound to; 0: none. The number counts in that device's namespace.
    pub(crate) ifindex: u32,
    /// BTF type id of the entry function, where the program has BTF.
    pub(crate) function_type: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
}

/// A map and what the kernel says of it. Made here only, so the two belong together.
#[derive(Debug)]
pub(crate) struct MapHandle {
    fd: OwnedFd,
    info: MapInfo,
    name: String,
}

/// The kinds of maps that have one value, of the size that the kernel tells, for each key. Others write more.
const SINGLE_VALUED: [bpf_sys::bpf_map_type; 4] = [
    bpf_sys::BPF_MAP_TYPE_HASH,
    bpf_sys::BPF_MAP_TYPE_ARRAY,
    bpf_sys::BPF_MAP_TYPE_LRU_HASH,
    bpf_sys::BPF_MAP_TYPE_LPM_TRIE,
];

impl MapHandle {
    pub(crate) fn info(&self) -> MapInfo {
        self.info
    }

    /// As the kernel keeps it: at most 15 bytes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for MapHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl MapInfo {
    /// Whether a key and a value of these sizes can be given to the kernel, or a value be asked for.
    fn check(&self, key: &[u8], value: usize) -> io::Result<()> {
        if !SINGLE_VALUED.contains(&self.kind) {
            let message = "a map whose values are not one for each key";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        if key.len() == self.key_size as usize && value == self.value_size as usize {
            return Ok(());
        }
        let message = format!(
            "the map has keys of {} and values of {} bytes, not {} and {value}",
            self.key_size,
            self.value_size,
            key.len(),
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, message))
    }
}

/// A map to create.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapSpec<'a> {
    pub(crate) kind: u32,
    pub(crate) name: &'a str,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
    pub(crate) numa_node: u32,
    pub(crate) extra: u64,
    /// The interface, in the calling thread's namespace, whose device has the map; 0: the host.
    pub(crate) ifindex: u32,
    /// BTF, and the type ids of key and value in it.
    pub(crate) types: Option<(BorrowedFd<'a>, u32, u32)>,
}

impl Default for MapSpec<'_> {
    fn default() -> Self {
        Self {
            kind: bpf_sys::BPF_MAP_TYPE_ARRAY,
            name: "",
            key_size: 4,
            value_size: 0,
            max_entries: 1,
            flags: 0,
            numa_node: 0,
            extra: 0,
            ifindex: 0,
            types: None,
        }
    }
}

/// A program to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProgramSpec<'a> {
    pub(crate) kind: u32,
    pub(crate) name: &'a str,
    pub(crate) license: &'a CStr,
    /// Instructions as the kernel reads them, 8 bytes each.
    pub(crate) instructions: &'a [u64],
    pub(crate) flags: u32,
    pub(crate) btf: BorrowedFd<'a>,
    /// Pairs of instruction index and BTF type id, one for each function.
    pub(crate) functions: &'a [[u32; 2]],
    /// For the verifier's log: instruction index, and where in the source it comes from.
    pub(crate) lines: &'a [[u32; 4]],
    /// For an extension program: the program and the BTF id of the function to replace.
    pub(crate) target: Option<(BorrowedFd<'a>, u32)>,
    /// An interface, in the calling thread's namespace, that the program is bound to; 0: to none.
    pub(crate) ifindex: u32,
}

/// A test run to do.
#[derive(Debug)]
pub(crate) struct RunSpec<'a> {
    pub(crate) data: &'a [u8],
    /// Room for the packet as the program leaves it; none for live frames.
    pub(crate) output: &'a mut [u8],
    /// `struct xdp_md`, or nothing.
    pub(crate) context: &'a [u32],
    pub(crate) repeat: u32,
    pub(crate) flags: u32,
    pub(crate) batch: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunResult {
    pub(crate) verdict: u32,
    /// Bytes of the packet afterwards; may be more than the room for it.
    pub(crate) size: u32,
    /// Mean of all repetitions.
    pub(crate) duration: Duration,
}

/// A refused load: the kernel's error and what the verifier wrote, if it got so far.
#[derive(Debug)]
pub(crate) struct LoadError {
    pub(crate) source: io::Error,
    pub(crate) log: String,
}

impl From<io::Error> for LoadError {
    fn from(source: io::Error) -> Self {
        Self { source, log: String::new() }
    }
}

/// One bpf(2) call.
///
/// # Safety
/// `attr` must be the start of `union bpf_attr` as `command` reads it, and every pointer in it must
/// be valid for what the command reads or writes there, for the length of the call.
unsafe fn bpf<A>(command: bpf_sys::bpf_cmd, attr: &mut A) -> io::Result<i32> {
    // SAFETY: attr is live, writable and size_of::<A>() long; its pointers are the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

/// One bpf(2) call that answers with a new descriptor.
///
/// # Safety
/// As [`bpf`], and `command` must be one that returns a descriptor.
unsafe fn bpf_fd<A>(command: bpf_sys::bpf_cmd, attr: &mut A) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise is the same.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T>(slice: &[T]) -> u64 {
    slice.as_ptr() as u64
}

fn address_mut<T>(slice: &mut [T]) -> u64 {
    slice.as_mut_ptr() as u64
}

fn length<T>(slice: &[T]) -> io::Result<u32> {
    u32::try_from(slice.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))
}

/// `name` as an object name: cut to 15 bytes, closed by NUL.
fn object_name(name: &str) -> [u8; NAME_LENGTH] {
    let mut out = [0; NAME_LENGTH];
    for (to, from) in out.iter_mut().take(NAME_LENGTH - 1).zip(name.bytes()) {
        *to = from;
    }
    out
}

fn text(bytes: impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Kernel {
    /// Kernels before 5.11 count BPF memory against `RLIMIT_MEMLOCK` and say EPERM when it is too low, with
    /// the same errno as for a missing privilege. The limit is lifted only there, and only after an EPERM.
    /// Another thread may be faster to lift it: the call is tried again all the same.
    fn with_memlock<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.counts_memlock() => {
                lift_memlock();
                call()
            }
            other => other,
        }
    }

    /// `BPF_MAP_CREATE`
    pub(crate) fn map_create(&self, spec: &MapSpec<'_>) -> io::Result<MapHandle> {
        self.step("BPF_MAP_CREATE")?;
        let MapSpec { kind, key_size, value_size, .. } = *spec;
        let fd = self.with_memlock(|| {
            let mut attr = MapCreateAttr {
                map_type: spec.kind,
                key_size: spec.key_size,
                value_size: spec.value_size,
                max_entries: spec.max_entries,
                map_flags: spec.flags,
                numa_node: spec.numa_node,
                map_name: object_name(spec.name),
                btf_fd: spec.types.map_or(0, |(btf, ..)| raw(btf)),
                btf_key_type_id: spec.types.map_or(0, |(_, key, _)| key),
                btf_value_type_id: spec.types.map_or(0, |(.., value)| value),
                map_ifindex: spec.ifindex,
                map_extra: spec.extra,
                ..Default::default()
            };
            // SAFETY: MapCreateAttr is what BPF_MAP_CREATE reads, and holds no pointer.
            unsafe { bpf_fd(bpf_sys::BPF_MAP_CREATE, &mut attr) }
        })?;
        let name = text(object_name(spec.name).into_iter());
        Ok(MapHandle { fd, info: MapInfo { kind, key_size, value_size }, name })
    }

    /// `BPF_MAP_UPDATE_ELEM`
    pub(crate) fn map_update(&self, map: &MapHandle, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.step("BPF_MAP_UPDATE_ELEM")?;
        map.info.check(key, value.len())?;
        let mut attr = MapElementAttr {
            map_fd: raw(map.as_fd()),
            key: address(key),
            value: address(value),
            ..Default::default()
        };
        // SAFETY: key and value are as long as this map's keys and values, and are only read.
        unsafe { bpf(bpf_sys::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// `BPF_MAP_LOOKUP_ELEM`
    pub(crate) fn map_lookup(&self, map: &MapHandle, key: &[u8]) -> io::Result<Vec<u8>> {
        self.step("BPF_MAP_LOOKUP_ELEM")?;
        let mut value = vec![0; map.info.value_size as usize];
        map.info.check(key, value.len())?;
        let mut attr = MapElementAttr {
            map_fd: raw(map.as_fd()),
            key: address(key),
            value: address_mut(&mut value),
            ..Default::default()
        };
        // SAFETY: key is as long as this map's keys, and value has room for one of its values, which is all
        // that the kernel writes: check() lets no map with a value for each CPU pass.
        unsafe { bpf(bpf_sys::BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
        Ok(value)
    }

    /// `BPF_MAP_FREEZE`: from here on only programs may read or write it.
    pub(crate) fn map_freeze(&self, map: BorrowedFd<'_>) -> io::Result<()> {
        self.step("BPF_MAP_FREEZE")?;
        let mut attr = MapElementAttr { map_fd: raw(map), ..Default::default() };
        // SAFETY: the command reads only map_fd.
        unsafe { bpf(bpf_sys::BPF_MAP_FREEZE, &mut attr) }.map(drop)
    }

    /// `BPF_BTF_LOAD`
    pub(crate) fn btf_load(&self, btf: &[u8]) -> io::Result<OwnedFd> {
        self.step("BPF_BTF_LOAD")?;
        self.with_memlock(|| {
            let mut attr =
                BtfLoadAttr { btf: address(btf), btf_size: length(btf)?, ..Default::default() };
            // SAFETY: btf is btf_size bytes long and only read; there is no log buffer.
            unsafe { bpf_fd(bpf_sys::BPF_BTF_LOAD, &mut attr) }
        })
    }

    /// `BPF_PROG_LOAD`; a second time with the verifier's log if it refuses.
    pub(crate) fn prog_load(&self, spec: &ProgramSpec<'_>) -> Result<OwnedFd, LoadError> {
        self.step("BPF_PROG_LOAD")?;
        let mut attempt = 0;
        let source = loop {
            match self.with_memlock(|| load(spec, &mut [])) {
                Ok(fd) => return Ok(fd),
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    attempt += 1;
                    if attempt == LOAD_ATTEMPTS {
                        break error;
                    }
                }
                Err(error) => break error,
            }
        };
        if source.raw_os_error() == Some(libc::EPERM) {
            return Err(source.into());
        }
        let mut log = vec![0; LOG_SIZE];
        match load(spec, &mut log) {
            Ok(fd) => Ok(fd),
            Err(_) => Err(LoadError { source, log: text(log.into_iter()) }),
        }
    }

    /// `BPF_PROG_GET_FD_BY_ID`
    pub(crate) fn prog_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_PROG_GET_FD_BY_ID")?;
        fd_by_id(bpf_sys::BPF_PROG_GET_FD_BY_ID, id)
    }

    /// `BPF_MAP_GET_FD_BY_ID`
    pub(crate) fn map_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_MAP_GET_FD_BY_ID")?;
        fd_by_id(bpf_sys::BPF_MAP_GET_FD_BY_ID, id)
    }

    /// `BPF_BTF_GET_FD_BY_ID`
    pub(crate) fn btf_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_BTF_GET_FD_BY_ID")?;
        fd_by_id(bpf_sys::BPF_BTF_GET_FD_BY_ID, id)
    }

    /// Ids of all programs, maps or links in the kernel; `command` is one of `BPF_*_GET_NEXT_ID`.
    pub(crate) fn ids(&self, command: bpf_sys::bpf_cmd) -> io::Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut attr = IdAttr::default();
        loop {
            self.step("BPF_OBJ_GET_NEXT_ID")?;
            // SAFETY: the BPF_*_GET_NEXT_ID commands read the id and write the next one, both in the attr.
            match unsafe { bpf(command, &mut attr) } {
                Ok(_) => ids.push(attr.next_id),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ids),
                Err(error) => return Err(error),
            }
            attr.id = attr.next_id;
        }
    }

    /// `BPF_OBJ_GET_INFO_BY_FD` of a program.
    pub(crate) fn prog_info(&self, program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut map_ids = [0_u32; 64];
        let mut functions = [[0_u32; 2]; 1];
        let mut info = bpf_sys::bpf_prog_info {
            nr_map_ids: length(&map_ids)?,
            map_ids: address_mut(&mut map_ids),
            nr_func_info: length(&functions)?,
            func_info_rec_size: 8,
            func_info: address_mut(&mut functions),
            ..Default::default()
        };
        // SAFETY: bpf_prog_info is what the kernel writes for a program; the two arrays it points to
        // have as many elements as it says.
        unsafe { object_info(program, &mut info) }?;
        let held = map_ids.iter().take(info.nr_map_ids as usize).copied().collect();
        let function = (info.btf_id != 0 && info.nr_func_info > 0).then_some(functions[0][1]);
        Ok(program_info(&info, held, function))
    }

    /// The few things that a chain wants to know of a component, without its maps and types; `None` if the descriptor is
    /// of anything but an extension program.
    ///
    /// Nothing is told of what was pinned by others, so the question has no pointers: whatever kind of object it is, the
    /// kernel writes no further than the structure. And it tells how long its own one is, by which the kinds differ.
    pub(crate) fn component_info(&self, object: BorrowedFd<'_>) -> io::Result<Option<ProgramInfo>> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = bpf_sys::bpf_prog_info::default();
        // SAFETY: with its pointers NULL, bpf_prog_info can be filled by the kernel for any kind of object.
        let size = match unsafe { object_info(object, &mut info) } {
            // So links of several programs or functions refuse a question without room for their names.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            other => other?,
        };
        let is_program = size >= std::mem::offset_of!(bpf_sys::bpf_prog_info, run_time_ns);
        if !is_program || info.type_ != bpf_sys::BPF_PROG_TYPE_EXT {
            return Ok(None);
        }
        Ok(Some(program_info(&info, Vec::new(), None)))
    }

    /// Whether the descriptor is of a BPF program. Asked of what was pinned by others: the query for one kind
    /// of object, answered about another, is nonsense.
    pub(crate) fn is_program(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        self.is_kind(object, "anon_inode:bpf-prog")
    }

    /// Whether the descriptor is of a BPF link.
    pub(crate) fn is_link(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        // kernel/bpf/syscall.c: bpf_link_prime() writes one name, bpf_link_new_fd() the other.
        Ok(self.is_kind(object, "anon_inode:bpf-link")?
            || self.is_kind(object, "anon_inode:bpf_link")?)
    }

    fn is_kind(&self, object: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
        self.step("readlink")?;
        let target = std::fs::read_link(format!("/proc/thread-self/fd/{}", object.as_raw_fd()))?;
        Ok(target.as_os_str() == name)
    }

    /// A map by its descriptor, with what `BPF_OBJ_GET_INFO_BY_FD` tells of it.
    pub(crate) fn map_open(&self, fd: OwnedFd) -> io::Result<MapHandle> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = bpf_sys::bpf_map_info::default();
        // SAFETY: bpf_map_info is what the kernel writes for a map, and holds no pointer.
        unsafe { object_info(fd.as_fd(), &mut info) }?;
        let bpf_sys::bpf_map_info { type_: kind, key_size, value_size, .. } = info;
        let name = text(info.name.iter().map(|&c| c.cast_unsigned()));
        Ok(MapHandle { fd, info: MapInfo { kind, key_size, value_size }, name })
    }

    /// The raw BTF behind a descriptor.
    pub(crate) fn btf_data(&self, btf: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
        let mut room = BTF_ROOM;
        loop {
            self.step("BPF_OBJ_GET_INFO_BY_FD")?;
            let mut data = vec![0_u8; room as usize];
            let mut info = bpf_sys::bpf_btf_info {
                btf: address_mut(&mut data),
                btf_size: room,
                ..Default::default()
            };
            // SAFETY: bpf_btf_info is what the kernel writes for BTF; data has btf_size bytes.
            unsafe { object_info(btf, &mut info) }?;
            if info.btf_size <= room {
                data.truncate(info.btf_size as usize);
                return Ok(data);
            }
            room = info.btf_size;
        }
    }

    /// `BPF_PROG_TEST_RUN`
    pub(crate) fn test_run(
        &self,
        program: BorrowedFd<'_>,
        run: &mut RunSpec<'_>,
    ) -> io::Result<RunResult> {
        self.step("BPF_PROG_TEST_RUN")?;
        let some = |address, size: usize| if size == 0 { 0 } else { address };
        let context = u32::try_from(size_of_val(run.context)).unwrap_or(u32::MAX);
        let mut attr = TestRunAttr {
            prog_fd: raw(program),
            data_size_in: length(run.data)?,
            data_size_out: length(run.output)?,
            data_in: address(run.data),
            data_out: some(address_mut(run.output), run.output.len()),
            repeat: run.repeat,
            ctx_size_in: context,
            ctx_in: some(address(run.context), run.context.len()),
            flags: run.flags,
            batch_size: run.batch,
            ..Default::default()
        };
        // SAFETY: data and context are read, output is written, each no further than the size beside it.
        unsafe { bpf(bpf_sys::BPF_PROG_TEST_RUN, &mut attr) }?;
        Ok(RunResult {
            verdict: attr.retval,
            size: attr.data_size_out,
            duration: Duration::from_nanos(attr.duration.into()),
        })
    }

    /// `BPF_OBJ_PIN`
    pub(crate) fn pin(&self, object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.step("BPF_OBJ_PIN")?;
        let path = c_path(path)?;
        let mut attr = ObjectAttr {
            pathname: path.as_ptr() as u64,
            bpf_fd: raw(object),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns.
        unsafe { bpf(bpf_sys::BPF_OBJ_PIN, &mut attr) }.map(drop)
    }

    /// `BPF_OBJ_PIN` as a name in a directory; `EINVAL` before kernel 6.5.
    pub(crate) fn pin_in(
        &self,
        object: BorrowedFd<'_>,
        directory: &File,
        name: &str,
    ) -> io::Result<()> {
        self.step("BPF_OBJ_PIN")?;
        let name = c_path(Path::new(name))?;
        let mut attr = ObjectAttr {
            pathname: name.as_ptr() as u64,
            bpf_fd: raw(object),
            file_flags: bpf_sys::BPF_F_PATH_FD,
            path_fd: raw(directory.as_fd()),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns; the directory is open.
        unsafe { bpf(bpf_sys::BPF_OBJ_PIN, &mut attr) }.map(drop)
    }

    /// `BPF_OBJ_GET` of a name in a directory; `EINVAL` before kernel 6.5.
    pub(crate) fn open_pin_in(&self, directory: &File, name: &str) -> io::Result<OwnedFd> {
        self.step("BPF_OBJ_GET")?;
        let name = c_path(Path::new(name))?;
        let mut attr = ObjectAttr {
            pathname: name.as_ptr() as u64,
            file_flags: bpf_sys::BPF_F_PATH_FD,
            path_fd: raw(directory.as_fd()),
            ..Default::default()
        };
        // SAFETY: pathname ends in NUL and lives until the call returns; the directory is open.
        unsafe { bpf_fd(bpf_sys::BPF_OBJ_GET, &mut attr) }
    }

    /// `BPF_OBJ_GET`
    pub(crate) fn open_pin(&self, path: &Path) -> io::Result<OwnedFd> {
        self.step("BPF_OBJ_GET")?;
        let path = c_path(path)?;
        let mut attr = ObjectAttr { pathname: path.as_ptr() as u64, ..Default::default() };
        // SAFETY: pathname ends in NUL and lives until the call returns.
        unsafe { bpf_fd(bpf_sys::BPF_OBJ_GET, &mut attr) }
    }
}

/// Without the privilege to do so nothing happens, and the call fails again.
fn lift_memlock() {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: unlimited is a live rlimit that the kernel only reads.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) };
}

fn fd_by_id(command: bpf_sys::bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr { id, ..Default::default() };
    // SAFETY: the BPF_*_GET_FD_BY_ID commands read only the id and the flags.
    unsafe { bpf_fd(command, &mut attr) }
}

/// `BPF_OBJ_GET_INFO_BY_FD`; how many bytes the kernel knows of this kind of object, up to the size of `I`.
///
/// # Safety
/// `I` must be the info structure of the kind of object that `object` is, or of a kind whose structure the
/// kernel fills with plain integers, and its pointers must be valid for the lengths beside them.
unsafe fn object_info<I>(object: BorrowedFd<'_>, info: &mut I) -> io::Result<usize> {
    let mut attr = InfoAttr {
        bpf_fd: raw(object),
        info_len: u32::try_from(size_of::<I>()).unwrap_or(u32::MAX),
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: info is live and info_len bytes long; its own pointers are the caller's promise.
    unsafe { bpf(bpf_sys::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(attr.info_len as usize)
}

/// An XDP program says that it will be attached as one, as libbpf has it say: an extension of it goes into no dispatcher
/// that says another thing, and we share chains with C libxdp (kernel/bpf/verifier.c, `saved_dst_attach_type`).
pub(super) fn attach_type(kind: u32) -> u32 {
    if kind == bpf_sys::BPF_PROG_TYPE_XDP { bpf_sys::BPF_XDP } else { 0 }
}

fn program_info(
    info: &bpf_sys::bpf_prog_info,
    map_ids: Vec<u32>,
    function_type: Option<u32>,
) -> ProgramInfo {
    ProgramInfo {
        id: info.id,
        kind: info.type_,
        name: text(info.name.iter().map(|&c| c.cast_unsigned())),
        tag: info.tag,
        load_time: Duration::from_nanos(info.load_time),
        btf_id: info.btf_id,
        map_ids,
        ifindex: info.ifindex,
        function_type,
    }
}

fn load(spec: &ProgramSpec<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let (attach_prog_fd, attach_btf_id) =
        spec.target.map_or((0, 0), |(program, function)| (raw(program), function));
    let mut attr = ProgramLoadAttr {
        prog_type: spec.kind,
        insn_cnt: length(spec.instructions)?,
        insns: address(spec.instructions),
        license: spec.license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: length(log)?,
        log_buf: if log.is_empty() { 0 } else { address_mut(log) },
        prog_flags: spec.flags,
        prog_name: object_name(spec.name),
        prog_ifindex: spec.ifindex,
        prog_btf_fd: raw(spec.btf),
        func_info_rec_size: 8,
        func_info: address(spec.functions),
        func_info_cnt: length(spec.functions)?,
        line_info_rec_size: 16,
        line_info: address(spec.lines),
        line_info_cnt: length(spec.lines)?,
        expected_attach_type: attach_type(spec.kind),
        attach_btf_id,
        attach_prog_fd,
        ..Default::default()
    };
    // SAFETY: instructions, functions and lines are as long as the counts beside them and only read, the
    // licence ends in NUL, and log has log_size bytes of room or is absent.
    unsafe { bpf_fd(bpf_sys::BPF_PROG_LOAD, &mut attr) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_closed() {
        assert_eq!(&object_name("xdp"), b"xdp\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&object_name("a_name_of_twenty_byte"), b"a_name_of_twent\0");
    }

    #[test]
    fn what_does_not_fit_the_map_never_reaches_the_kernel() {
        let info = MapInfo { kind: bpf_sys::BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8 };
        assert!(info.check(&[0; 4], 8).is_ok());
        assert!(info.check(&[0; 3], 8).is_err());
        assert!(info.check(&[0; 4], 4).is_err());
        for kind in [bpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY, bpf_sys::BPF_MAP_TYPE_QUEUE, 9999] {
            assert!(MapInfo { kind, ..info }.check(&[0; 4], 8).is_err());
        }
    }
}
