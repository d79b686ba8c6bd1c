//! The few bytes of an ELF file that libbpf does not hand out: sections by name.

const MAGIC: &[u8] = b"\x7fELF\x02\x01";

fn bytes<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn half(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u16::from_le_bytes).map(usize::from)
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u32::from_le_bytes)?.try_into().ok()
}

fn long(data: &[u8], at: usize) -> Option<usize> {
    bytes(data, at).map(u64::from_le_bytes)?.try_into().ok()
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
