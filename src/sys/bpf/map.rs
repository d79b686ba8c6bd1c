//! Maps: made, filled, read.

use super::attr::{MapCreateAttr, MapElementAttr};
use super::{address, address_mut, bpf, bpf_fd, fd_by_id, object_info, object_name, raw, text};
use crate::sys::Kernel;
use libbpf_sys as bpf_sys;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
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
    /// Whether it is of AF_XDP sockets, by the numbers of queues.
    pub(crate) fn is_of_sockets(&self) -> bool {
        (self.kind, self.key_size, self.value_size) == (bpf_sys::BPF_MAP_TYPE_XSKMAP, 4, 4)
    }

    /// Whether descriptors can be put into it.
    fn check_objects(&self) -> io::Result<()> {
        let is_array = self.kind == bpf_sys::BPF_MAP_TYPE_PROG_ARRAY;
        if self.is_of_sockets() || (is_array && (self.key_size, self.value_size) == (4, 4)) {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::Unsupported, "not a map of sockets or programs"))
    }

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

impl Kernel {
    /// `BPF_MAP_CREATE`
    pub(crate) fn map_create(&self, spec: &MapSpec<'_>) -> io::Result<MapHandle> {
        self.step("BPF_MAP_CREATE")?;
        let MapSpec { kind, key_size, value_size, max_entries, .. } = *spec;
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
        Ok(MapHandle { fd, info: MapInfo { kind, key_size, value_size, max_entries }, name })
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

    /// `BPF_MAP_UPDATE_ELEM` of a map of AF_XDP sockets, by the numbers of their queues, or of programs.
    pub(crate) fn map_put_object(
        &self,
        map: &MapHandle,
        key: u32,
        object: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.step("BPF_MAP_UPDATE_ELEM")?;
        map.info.check_objects()?;
        let (key, value) = ([key], [raw(object)]);
        let mut attr = MapElementAttr {
            map_fd: raw(map.as_fd()),
            key: address(&key),
            value: address(&value),
            ..Default::default()
        };
        // SAFETY: such a map has keys and values of four bytes, and they are only read.
        unsafe { bpf(bpf_sys::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// `BPF_MAP_DELETE_ELEM` of a map of AF_XDP sockets or programs.
    pub(crate) fn map_delete_object(&self, map: &MapHandle, key: u32) -> io::Result<()> {
        self.step("BPF_MAP_DELETE_ELEM")?;
        map.info.check_objects()?;
        let key = [key];
        let mut attr =
            MapElementAttr { map_fd: raw(map.as_fd()), key: address(&key), ..Default::default() };
        // SAFETY: such a map has keys of four bytes, and the key is only read.
        unsafe { bpf(bpf_sys::BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
    }

    /// `BPF_MAP_FREEZE`: from here on only programs may read or write it.
    pub(crate) fn map_freeze(&self, map: BorrowedFd<'_>) -> io::Result<()> {
        self.step("BPF_MAP_FREEZE")?;
        let mut attr = MapElementAttr { map_fd: raw(map), ..Default::default() };
        // SAFETY: the command reads only map_fd.
        unsafe { bpf(bpf_sys::BPF_MAP_FREEZE, &mut attr) }.map(drop)
    }

    /// `BPF_MAP_GET_FD_BY_ID`
    pub(crate) fn map_by_id(&self, id: u32) -> io::Result<OwnedFd> {
        self.step("BPF_MAP_GET_FD_BY_ID")?;
        fd_by_id(bpf_sys::BPF_MAP_GET_FD_BY_ID, id)
    }

    /// The id of a map.
    pub(crate) fn map_id(&self, map: &MapHandle) -> io::Result<u32> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = bpf_sys::bpf_map_info::default();
        // SAFETY: bpf_map_info is what the kernel writes for a map, and holds no pointer.
        unsafe { object_info(map.as_fd(), &mut info) }?;
        Ok(info.id)
    }

    /// A map by its descriptor, with what `BPF_OBJ_GET_INFO_BY_FD` tells of it.
    pub(crate) fn map_open(&self, fd: OwnedFd) -> io::Result<MapHandle> {
        self.step("BPF_OBJ_GET_INFO_BY_FD")?;
        let mut info = bpf_sys::bpf_map_info::default();
        // SAFETY: bpf_map_info is what the kernel writes for a map, and holds no pointer.
        unsafe { object_info(fd.as_fd(), &mut info) }?;
        let bpf_sys::bpf_map_info { type_: kind, key_size, value_size, max_entries, .. } = info;
        let name = text(info.name.iter().map(|&c| c.cast_unsigned()));
        Ok(MapHandle { fd, info: MapInfo { kind, key_size, value_size, max_entries }, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_the_map_never_reaches_the_kernel() {
        let kind = bpf_sys::BPF_MAP_TYPE_ARRAY;
        let info = MapInfo { kind, key_size: 4, value_size: 8, max_entries: 1 };
        assert!(info.check(&[0; 4], 8).is_ok());
        assert!(info.check(&[0; 3], 8).is_err());
        assert!(info.check(&[0; 4], 4).is_err());
        for kind in [bpf_sys::BPF_MAP_TYPE_PERCPU_ARRAY, bpf_sys::BPF_MAP_TYPE_QUEUE, 9999] {
            assert!(MapInfo { kind, ..info }.check(&[0; 4], 8).is_err());
        }
    }
}
