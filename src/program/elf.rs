//! The few bytes of an ELF file that libbpf does not hand out, and all that it is not to be trusted with.

const MAGIC: &[u8] = b"\x7fELF\x02\x01";

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

pub(super) fn half(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u16::from_le_bytes).map(usize::from)
}

pub(super) fn word(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u32::from_le_bytes)?.try_into().ok()
}

pub(super) fn long(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u64::from_le_bytes)?.try_into().ok()
}

/// Kinds and a flag of sections.
pub(super) const PROGRAM: u32 = 1;
const NO_BITS: u32 = 8;
pub(super) const EXECUTABLE: usize = 4;

/// A section of a file that [`sections`] has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u32,
    pub(super) flags: usize,
    /// In bytes, also where there is no content.
    pub(super) size: usize,
    /// For relocations: the number of the section that they change.
    pub(super) info: usize,
    pub(super) content: &'a [u8],
}

/// Every section of a 64-bit little-endian file. The error says where it is broken.
pub(super) fn sections(elf: &[u8]) -> Result<Vec<Section<'_>>, String> {
    const HEADER: usize = 64;
    if !elf.starts_with(MAGIC) {
        return Err("no 64-bit little-endian ELF file".into());
    }
    let table = || {
        let (start, size, count) = (long(elf, 0x28)?, half(elf, 0x3a)?, half(elf, 0x3c)?);
        let end = start.checked_add(HEADER * count)?;
        let headers = elf.get(start..end).filter(|_| size == HEADER)?;
        Some((headers, half(elf, 0x3e).filter(|names| *names < count)?))
    };
    let (headers, strings) = table().ok_or("its section headers are broken")?;
    let read = |header: &[u8]| {
        let (kind, start, size) = (word(header, 4)?, long(header, 0x18)?, long(header, 0x20)?);
        let kind = u32::try_from(kind).ok()?;
        let is_there = kind != 0 && kind != NO_BITS;
        let content = if is_there { elf.get(start..start.checked_add(size)?)? } else { &[] };
        let (flags, info) = (long(header, 8)?, word(header, 0x2c)?);
        Some((word(header, 0)?, Section { name: &[], kind, flags, size, info, content }))
    };
    let sections = headers.chunks_exact(HEADER).map(read).collect::<Option<Vec<_>>>();
    let sections = sections.ok_or("a section lies outside the file")?;
    let strings = sections.get(strings).map_or(&[][..], |(_, section)| section.content);
    let named = |(name, section)| {
        let name = strings.get(name..)?.split(|byte| *byte == 0).next()?;
        Some(Section { name, ..section })
    };
    let named = sections.into_iter().map(named).collect::<Option<Vec<_>>>();
    named.ok_or_else(|| "a section has no name".into())
}

/// The content of the first section called `name` in a 64-bit little-endian file; `None` if there is none, or
/// the file is broken on the way to it.
pub(super) fn section<'a>(elf: &'a [u8], name: &str) -> Option<&'a [u8]> {
    if !elf.starts_with(MAGIC) {
        return None;
    }
    let (headers, size, count) = (long(elf, 0x28)?, half(elf, 0x3a)?, half(elf, 0x3c)?);
    let header = |index: usize| elf.get(headers.checked_add(index.checked_mul(size)?)?..);
    let content = |header: &[u8]| {
        let start = long(header, 0x18)?;
        elf.get(start..start.checked_add(long(header, 0x20)?)?)
    };
    let names = content(header(half(elf, 0x3e)?)?)?;
    (0..count).filter_map(header).find_map(|header| {
        let own = names.get(word(header, 0)?..)?;
        let is_it = own.strip_prefix(name.as_bytes())?.first() == Some(&0);
        if is_it { content(header) } else { None }
    })
}

/// Whether the object asks for relocations against the running kernel's types (CO-RE): `struct btf_ext_header`
/// has their place and length behind those of function and line information.
pub(super) fn has_core_relocations(elf: &[u8]) -> bool {
    let Some(extension) = section(elf, ".BTF.ext") else { return false };
    let has_field = word(extension, 4).is_some_and(|header| header >= 32);
    has_field && word(extension, 28) != Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILTER: &[u8] = include_bytes!("../../bpf/prebuilt/udp_filter.o");

    #[test]
    fn finds_sections_by_their_whole_name() {
        assert_eq!(section(FILTER, "license"), Some(&b"Dual BSD/GPL\0"[..]));
        assert!(section(FILTER, ".BTF.ext").is_some());
        assert_eq!(section(FILTER, "licens"), None);
        assert_eq!(section(b"\x7fELF", "license"), None);
        assert!(!has_core_relocations(FILTER));
    }

    proptest! {
        #[test]
        fn broken_files_are_read_or_not(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            let mut elf = FILTER.to_vec();
            let at = at.index(elf.len());
            elf[at] = byte;
            elf.truncate(cut.index(elf.len()) + 1);
            let _ = (section(&elf, "license"), has_core_relocations(&elf));
        }
    }
}
