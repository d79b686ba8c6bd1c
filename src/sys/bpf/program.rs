//! Programs: loaded, asked about, run on a packet.

use super::attr::{ProgramLoadAttr, TestRunAttr};
use super::{
    address, address_mut, bpf, bpf_fd, fd_by_id, length, object_info, object_name, raw, text,
};
use crate::sys::Kernel;
use libbpf_sys as bpf_sys;
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

/// How often a program load is tried again after EAGAIN: the verifier gives up when a signal comes.
const LOAD_ATTEMPTS: u32 = 5;
/// What the verifier may say about a refused program, in bytes.
const LOG_SIZE: usize = 256 * 1024;

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

impl Kernel {
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
        let info = self.plain_info(object)?;
        let info = info.filter(|info| info.type_ == bpf_sys::BPF_PROG_TYPE_EXT);
        Ok(info.map(|info| program_info(&info, Vec::new(), None)))
    }

    /// Whether the kernel's answer is that of a program.
    pub(super) fn has_program_info(&self, object: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self.plain_info(object)?.is_some())
    }

    /// What a question without pointers tells; `None` for what is no program.
    fn plain_info(&self, object: BorrowedFd<'_>) -> io::Result<Option<bpf_sys::bpf_prog_info>> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = bpf_sys::bpf_prog_info::default();
        // SAFETY: with its pointers NULL, bpf_prog_info can be filled by the kernel for any kind of object.
        let size = match unsafe { object_info(object, &mut info) } {
            // So links of several programs or functions refuse a question without room for their names.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
            other => other?,
        };
        let is_program = size >= std::mem::offset_of!(bpf_sys::bpf_prog_info, run_time_ns);
        Ok(is_program.then_some(info))
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
}

/// An XDP program says that it will be attached as one, as libbpf has it say: an extension of it goes into no dispatcher
/// that says another thing, and we share chains with C libxdp (kernel/bpf/verifier.c, `saved_dst_attach_type`).
pub(in crate::sys) fn attach_type(kind: u32) -> u32 {
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
