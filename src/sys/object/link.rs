//! Linking by libbpf, without a look at the kernel.

use super::{Linked, LinkedMap, Object, ObjectError, check, is_exhaustion, listen, map_name};
use crate::sys::Kernel;
use libbpf_sys as bpf_sys;
use std::ptr::NonNull;

/// Kinds of maps that need nothing but what their definition says.
const PLAIN_MAPS: [bpf_sys::bpf_map_type; 12] = [
    bpf_sys::BPF_MAP_TYPE_HASH,
    bpf_sys::BPF_MAP_TYPE_ARRAY,
    bpf_sys::BPF_MAP_TYPE_PERCPU_HASH,
    bpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY,
    bpf_sys::BPF_MAP_TYPE_LRU_HASH,
    bpf_sys::BPF_MAP_TYPE_LRU_PERCPU_HASH,
    bpf_sys::BPF_MAP_TYPE_LPM_TRIE,
    bpf_sys::BPF_MAP_TYPE_PROG_ARRAY,
    bpf_sys::BPF_MAP_TYPE_DEVMAP,
    bpf_sys::BPF_MAP_TYPE_DEVMAP_HASH,
    bpf_sys::BPF_MAP_TYPE_CPUMAP,
    bpf_sys::BPF_MAP_TYPE_XSKMAP,
];

/// Those among them that the kernel takes without BTF only.
const UNTYPED_MAPS: [bpf_sys::bpf_map_type; 5] = [
    bpf_sys::BPF_MAP_TYPE_PROG_ARRAY,
    bpf_sys::BPF_MAP_TYPE_DEVMAP,
    bpf_sys::BPF_MAP_TYPE_DEVMAP_HASH,
    bpf_sys::BPF_MAP_TYPE_CPUMAP,
    bpf_sys::BPF_MAP_TYPE_XSKMAP,
];

/// How many bytes of global variables an object may have that is linked here: they are held in memory twice. `.bss`
/// takes no place in the file, so a small one could ask for any number.
const MOST_VALUES: usize = 64 << 20;

impl Kernel {
    /// Puts program `name` of `object` together with its subprograms, without a look at the kernel; `None` if the
    /// object wants more from libbpf than that. After this the object is spent.
    ///
    /// libbpf links by itself where it writes a loader program (`bpf_object__gen_loader`, made for light skeletons).
    /// It then neither probes the kernel nor calls it; the loader is thrown away.
    pub(crate) fn object_link(
        &self,
        object: &mut Object,
        name: &str,
    ) -> Result<Option<Linked>, ObjectError> {
        let mut room = MOST_VALUES;
        let maps = object.raw_maps().map(|map| plain_map(map, &mut room));
        let Some(maps) = maps.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let done = listen(|| {
            self.step("bpf_object__gen_loader")?;
            let chosen = object.choose(name)?;
            // SAFETY: the program belongs to the open object.
            check(unsafe {
                bpf_sys::bpf_program__set_type(chosen.as_ptr(), bpf_sys::BPF_PROG_TYPE_XDP)
            })?;
            let mut options = bpf_sys::gen_loader_opts {
                sz: size_of::<bpf_sys::gen_loader_opts>() as bpf_sys::size_t,
                ..Default::default()
            };
            let raw = object.0.as_ptr();
            // SAFETY: the object is open and not loaded; options outlive the load just below, which is the last
            // to use them: closing the object only frees what libbpf made for itself.
            check(unsafe { bpf_sys::bpf_object__gen_loader(raw, &raw mut options) })?;
            // SAFETY: the object is open and has not been loaded: its owner does so once.
            check(unsafe { bpf_sys::bpf_object__load(raw) })?;
            Ok(Linked { btf: object.btf(), maps, ..linked(chosen) })
        });
        match done {
            Ok(linked) => Ok(Some(linked)),
            Err(error) if is_exhaustion(&error.source) => Err(error),
            // What it cannot link this way it may be able to load.
            Err(_) => Ok(None),
        }
    }
}

/// What `map` is defined as; `None` if libbpf has to do more for it than to create it, or if its values do not fit
/// into what is left of `room`.
fn plain_map(map: NonNull<bpf_sys::bpf_map>, room: &mut usize) -> Option<LinkedMap> {
    let raw = map.as_ptr();
    // SAFETY: the map is live, here and in all that follows.
    let kind = unsafe { bpf_sys::bpf_map__type(raw) };
    // SAFETY: as above.
    let is_pinned = !unsafe { bpf_sys::bpf_map__pin_path(raw) }.is_null();
    // SAFETY: as above.
    let has_inner = !unsafe { bpf_sys::bpf_map__inner_map(raw) }.is_null();
    // SAFETY: as above.
    let ifindex = unsafe { bpf_sys::bpf_map__ifindex(raw) };
    // SAFETY: as above.
    let is_wanted = unsafe { bpf_sys::bpf_map__autocreate(raw) };
    // SAFETY: as above.
    let max_entries = unsafe { bpf_sys::bpf_map__max_entries(raw) };
    let is_plain = PLAIN_MAPS.contains(&kind) && is_wanted && max_entries > 0;
    if !is_plain || is_pinned || has_inner || ifindex != 0 {
        return None;
    }
    let initial = match values(map) {
        Some((_, size)) if size > *room => return None,
        Some((data, size)) => {
            *room -= size;
            // SAFETY: libbpf says that size bytes are there; they are copied before anything can change them.
            Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), size) }.to_vec())
        }
        None => None,
    };
    // SAFETY: as above.
    let types = unsafe { bpf_sys::bpf_map__btf_key_type_id(raw) };
    // SAFETY: as above.
    let types = (types, unsafe { bpf_sys::bpf_map__btf_value_type_id(raw) });
    Some(LinkedMap {
        name: map_name(map),
        kind,
        // SAFETY: as above.
        key_size: unsafe { bpf_sys::bpf_map__key_size(raw) },
        // SAFETY: as above.
        value_size: unsafe { bpf_sys::bpf_map__value_size(raw) },
        max_entries,
        // SAFETY: as above.
        flags: unsafe { bpf_sys::bpf_map__map_flags(raw) },
        // SAFETY: as above.
        numa_node: unsafe { bpf_sys::bpf_map__numa_node(raw) },
        // SAFETY: as above.
        extra: unsafe { bpf_sys::bpf_map__map_extra(raw) },
        types: if UNTYPED_MAPS.contains(&kind) { (0, 0) } else { types },
        initial,
    })
}

/// Where the values of a section of global variables lie, and how many bytes they take; `None` for any other map.
fn values(map: NonNull<bpf_sys::bpf_map>) -> Option<(NonNull<u8>, usize)> {
    // SAFETY: the map is live.
    if !unsafe { bpf_sys::bpf_map__is_internal(map.as_ptr()) } {
        return None;
    }
    let mut size = 0;
    // SAFETY: the map is live, and so is size.
    let data = unsafe { bpf_sys::bpf_map__initial_value(map.as_ptr(), &raw mut size) };
    Some((NonNull::new(data.cast())?, usize::try_from(size).ok()?))
}

/// Elements of a C array, copied; none if it is absent.
///
/// # Safety
/// `from` must be NULL or point to `count` elements of `size_of::<T>()` bytes, each of them a valid `T`.
unsafe fn copied<T: Copy>(from: *const T, count: usize) -> Vec<T> {
    if from.is_null() || count == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(from, count) }.to_vec()
}

/// The instructions and BTF positions of a program that libbpf has linked.
fn linked(program: NonNull<bpf_sys::bpf_program>) -> Linked {
    let program = program.as_ptr();
    // SAFETY: the program is live, here and in all that follows.
    let count = unsafe { bpf_sys::bpf_program__insn_cnt(program) };
    // SAFETY: as above.
    let instructions = unsafe { bpf_sys::bpf_program__insns(program) };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: struct bpf_insn is 8 bytes of plain integers with the alignment of its first words; it is read
    // here as bytes, and there are as many as libbpf says.
    let bytes = unsafe { copied(instructions.cast::<[u8; 8]>(), count) };
    // SAFETY: as above.
    let functions = unsafe { bpf_sys::bpf_program__func_info_cnt(program) };
    // SAFETY: as above.
    let function = unsafe { bpf_sys::bpf_program__func_info(program) };
    // SAFETY: struct bpf_func_info is two words; libbpf answers only if the records are that long.
    let functions = unsafe { copied(function.cast::<[u32; 2]>(), functions as usize) };
    // SAFETY: as above.
    let lines = unsafe { bpf_sys::bpf_program__line_info_cnt(program) };
    // SAFETY: as above.
    let line = unsafe { bpf_sys::bpf_program__line_info(program) };
    // SAFETY: struct bpf_line_info is four words; libbpf answers only if the records are that long.
    let lines = unsafe { copied(line.cast::<[u32; 4]>(), lines as usize) };
    let instructions = bytes.into_iter().map(u64::from_ne_bytes).collect();
    Linked { instructions, functions, lines, btf: None, maps: Vec::new() }
}
