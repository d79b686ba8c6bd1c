//! Refuses objects that libbpf would stumble over. Pure.
//!
//! libbpf trusts the compiler in some places: with an object that none has written it reads or writes outside its
//! buffers, or never comes back. Each rule here tells the place in libbpf 1.7; none refuses what a compiler makes.

use super::btf::Btf;
use super::elf::{self, EXECUTABLE, PROGRAM, Section};
use std::collections::BTreeSet;

const RELOCATIONS: u32 = 9;
const SYMBOLS: u32 = 2;
const SYMBOL: usize = 24;
const RELOCATION: usize = 16;
const FUNCTION: u8 = 2;
const INSTRUCTION: usize = 8;
/// libbpf goes one deeper into its stack for each function that calls the next; the kernel takes 256.
const MAX_FUNCTIONS: usize = 4096;
/// libbpf copies each function, so those that lie over each other multiply.
const MAX_OVERLAP: usize = 16;

const LD_IMM64: u8 = 0x18;
/// What its source register says: a map, or the values of one, by its descriptor.
const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

const STRUCT_OPS: [&[u8]; 4] =
    [b".struct_ops", b".struct_ops.link", b"?.struct_ops", b"?.struct_ops.link"];

#[derive(Clone, Copy)]
struct Symbol {
    kind: u8,
    section: usize,
    value: usize,
    size: usize,
}

/// The error says what is wrong with the object.
pub(super) fn check(elf: &[u8]) -> Result<(), String> {
    // Below this, a place and a size that both lie in the file can be added in 32 bits.
    if i32::try_from(elf.len()).is_err() {
        return Err("a file of more than 2 GiB".into());
    }
    let sections = elf::sections(elf)?;
    let symbols = symbols(&sections)?;
    functions(&sections, &symbols)?;
    descriptors(&sections)?;
    for section in sections.iter().filter(|section| section.name == b".BTF") {
        btf(&sections, section.content)?;
    }
    let extensions = sections.iter().filter(|section| section.name == b".BTF.ext");
    if extensions.flat_map(|section| core_offsets(section.content)).any(|at| at % INSTRUCTION != 0)
    {
        return Err("a CO-RE relocation within an instruction".into());
    }
    Ok(())
}

fn symbols(sections: &[Section<'_>]) -> Result<Vec<Symbol>, String> {
    let tables = sections.iter().filter(|section| section.kind == SYMBOLS);
    let symbol = |bytes: &[u8]| {
        Some(Symbol {
            kind: bytes.get(4)? & 0xf,
            section: elf::half(bytes, 6)?,
            value: elf::long(bytes, 8)?,
            size: elf::long(bytes, 16)?,
        })
    };
    let symbols: Vec<_> =
        tables.flat_map(|table| table.content.chunks_exact(SYMBOL)).filter_map(symbol).collect();
    // create_jt_map() adds place and size of a jump table in 32 bits.
    for symbol in &symbols {
        let Some(section) = sections.get(symbol.section).filter(|_| symbol.section != 0) else {
            continue;
        };
        let end = symbol.value.checked_add(symbol.size);
        if end.is_none_or(|end| end > section.size) {
            return Err(format!("a symbol lies outside its section {}", section.label()));
        }
    }
    Ok(symbols)
}

fn functions(sections: &[Section<'_>], symbols: &[Symbol]) -> Result<(), String> {
    let section = |symbol: &Symbol| Some((sections.get(symbol.section)?, *symbol));
    let functions: Vec<_> = symbols
        .iter()
        .filter(|symbol| symbol.kind == FUNCTION)
        .filter_map(section)
        .filter(|(section, _)| section.is_code())
        .collect();
    if functions.len() > MAX_FUNCTIONS {
        return Err(format!("{} functions", functions.len()));
    }
    let code = sections.iter().filter(|section| section.is_code()).map(|section| section.size);
    let all: usize = functions.iter().map(|(_, function)| function.size).sum();
    if all > code.sum::<usize>().saturating_mul(MAX_OVERLAP) {
        return Err("its functions lie over each other".into());
    }
    // bpf_object__relocate_data() writes both words of a 64-bit load without a look at the function's end.
    for (section, function) in &functions {
        let end = function.value + function.size;
        let last = section.content.get(function.value..end).and_then(|code| code.rchunks(8).next());
        if last.and_then(<[u8]>::first) == Some(&LD_IMM64) {
            return Err(format!("a function in {} ends in half an instruction", section.label()));
        }
    }
    Ok(())
}

/// A number in the file would become whatever map has that descriptor in this process.
fn descriptors(sections: &[Section<'_>]) -> Result<(), String> {
    let relocated = relocated(sections);
    for (index, section) in sections.iter().enumerate().filter(|(_, section)| section.is_code()) {
        let names_map = |(_, code): &(usize, &[u8])| {
            code.first() == Some(&LD_IMM64)
                && matches!(source(code), Some(PSEUDO_MAP_FD | PSEUDO_MAP_VALUE))
        };
        let code = section.content.chunks_exact(INSTRUCTION).enumerate();
        for (at, _) in code.filter(names_map) {
            if !relocated.contains(&(index, at * INSTRUCTION)) {
                let place = section.label();
                return Err(format!("instruction {at} of {place} names a map by its descriptor"));
            }
        }
    }
    Ok(())
}

/// Section and place of everything that a relocation changes.
fn relocated(sections: &[Section<'_>]) -> BTreeSet<(usize, usize)> {
    let tables = sections.iter().filter(|section| section.kind == RELOCATIONS);
    let place = |table: usize, entry: &[u8]| Some((table, elf::long(entry, 0)?));
    let entries = tables.flat_map(|table| {
        table.content.chunks_exact(RELOCATION).filter_map(move |entry| place(table.info, entry))
    });
    entries.collect()
}

fn source(instruction: &[u8]) -> Option<u8> {
    instruction.get(1).map(|registers| registers >> 4)
}

/// skip_mods_and_typedefs() and btf__align_of() follow types to their end, which types that contain themselves do
/// not have; init_struct_ops_maps() adds place and size of a variable in 32 bits.
fn btf(sections: &[Section<'_>], data: &[u8]) -> Result<(), String> {
    let btf = Btf::parse(data.to_vec())?;
    btf.check_nesting()?;
    for section in sections.iter().filter(|section| STRUCT_OPS.contains(&section.name)) {
        let name = std::str::from_utf8(section.name).unwrap_or_default();
        if btf.structures_in(name).into_iter().any(|(offset, size)| offset + size > section.size) {
            return Err(format!("a variable lies outside its section {name}"));
        }
    }
    Ok(())
}

/// Places that are to be changed for the running kernel, as far as they can be read. bpf_object__relocate_core() forgets
/// the memory it holds at one within an instruction.
fn core_offsets(extension: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let field = |at| elf::word(extension, at);
    let part = || {
        let start = field(4).filter(|header| *header >= 32)?.checked_add(field(24)?)?;
        extension.get(start..start.checked_add(field(28)?)?)
    };
    let Some((size, mut rest)) =
        part().and_then(|part| Some((elf::word(part, 0)?, part.get(4..)?)))
    else {
        return offsets;
    };
    // Each section: its name, the number of its records, and the records.
    while let Some(records) = elf::word(rest, 4).filter(|_| size >= 4) {
        let Some(end) = records.checked_mul(size).and_then(|length| length.checked_add(8)) else {
            break;
        };
        let Some(section) = rest.get(8..end) else { break };
        offsets.extend(section.chunks_exact(size).filter_map(|record| elf::word(record, 0)));
        rest = rest.get(end..).unwrap_or_default();
    }
    offsets
}

impl Section<'_> {
    fn is_code(&self) -> bool {
        self.kind == PROGRAM && self.flags & EXECUTABLE != 0
    }

    fn label(&self) -> String {
        String::from_utf8_lossy(self.name).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTER: &[u8] = include_bytes!("../../bpf/prebuilt/udp_filter.o");
    const SHIPPED: [&[u8]; 11] = [
        FILTER,
        include_bytes!("../../bpf/prebuilt/packet_counter.o"),
        include_bytes!("../../bpf/prebuilt/xdp_dispatcher.o"),
        include_bytes!("../../bpf/prebuilt/xdp_dispatcher_v2.o"),
        include_bytes!("../../bpf/prebuilt/xdp_pass.o"),
        include_bytes!("../../tests/bpf/prebuilt/by_libbpf.o"),
        include_bytes!("../../tests/bpf/prebuilt/frags_pass.o"),
        include_bytes!("../../tests/bpf/prebuilt/no_btf.o"),
        include_bytes!("../../tests/bpf/prebuilt/rejected.o"),
        include_bytes!("../../tests/bpf/prebuilt/socket_filter.o"),
        include_bytes!("../../tests/bpf/prebuilt/two_programs.o"),
    ];

    /// Where the bytes of section `name` lie in the file, and where its header does.
    fn place(elf: &[u8], name: &str) -> (usize, usize) {
        let sections = elf::sections(elf).unwrap();
        let index = sections.iter().position(|s| s.name == name.as_bytes()).unwrap();
        let header = elf::long(elf, 0x28).unwrap() + index * 64;
        (elf::long(elf, header + 0x18).unwrap(), header)
    }

    fn refused(elf: &[u8], part: &str) {
        let error = check(elf).unwrap_err();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn what_a_compiler_makes_is_taken() {
        for elf in SHIPPED {
            check(elf).unwrap();
        }
    }

    #[test]
    fn a_load_of_two_words_must_have_both() {
        let mut elf = FILTER.to_vec();
        let (code, header) = place(&elf, "xdp");
        let last = code + elf::long(&elf, header + 0x20).unwrap() - 8;
        assert_eq!(elf[last], 0x95, "exit");
        elf[last] = LD_IMM64;
        refused(&elf, "half an instruction");
    }

    #[test]
    fn a_type_must_not_contain_itself() {
        let mut elf = FILTER.to_vec();
        let (btf, _) = place(&elf, ".BTF");
        // Type 8 is a typedef: every type of a map is followed through such.
        let at = elf.windows(8).position(|head| head[4..] == [0, 0, 0, 8]).unwrap();
        assert!(at > btf);
        elf[at + 8..at + 12].copy_from_slice(&8_u32.to_le_bytes());
        refused(&elf, "contains itself");
    }

    #[test]
    fn a_struct_ops_variable_must_lie_in_its_section() {
        let mut elf = FILTER.to_vec();
        // The section of the run config, by another name.
        let replace = |elf: &mut Vec<u8>, from: &[u8], to: &[u8]| {
            while let Some(at) = elf.windows(from.len()).position(|bytes| bytes == from) {
                elf[at..at + to.len()].copy_from_slice(to);
            }
        };
        replace(&mut elf, b".xdp_run_config\0", b".struct_ops\0\0\0\0\0");
        check(&elf).unwrap();
        let (_, header) = place(&elf, ".struct_ops");
        let size = elf::long(&elf, header + 0x20).unwrap();
        let of = |elf: &[u8]| {
            let sections = elf::sections(elf).unwrap();
            let btf = sections.iter().find(|section| section.name == b".BTF").unwrap();
            Btf::parse(btf.content.to_vec()).unwrap().structures_in(".struct_ops")
        };
        assert_eq!(of(&elf), [(0, size)]);
        elf[header + 0x20..header + 0x28].copy_from_slice(&(size as u64 - 1).to_le_bytes());
        assert!(check(&elf).is_err());
    }

    #[test]
    fn core_relocations_are_at_instructions() {
        // A header of 32 bytes, and behind it one section with two records of 16 bytes.
        let words: [u32; 19] = [0x1_eb9f, 32, 0, 0, 0, 0, 0, 44, 16, 1, 2, 8, 1, 0, 0, 12, 1, 0, 0];
        let extension: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(core_offsets(&extension), [8, 12]);
        assert_eq!(core_offsets(&extension[..70]), [0_usize; 0]);
        assert_eq!(core_offsets(&[]), [0_usize; 0]);
    }

    #[test]
    fn a_map_must_not_be_named_by_its_descriptor() {
        let mut elf = include_bytes!("../../bpf/prebuilt/xdp_pass.o").to_vec();
        let (code, _) = place(&elf, "xdp");
        elf[code..code + 2].copy_from_slice(&[LD_IMM64, PSEUDO_MAP_FD << 4]);
        refused(&elf, "by its descriptor");
    }

    #[test]
    fn a_symbol_must_lie_in_its_section() {
        let mut elf = FILTER.to_vec();
        let (table, _) = place(&elf, ".symtab");
        let at =
            (1..99).map(|n| table + n * SYMBOL).find(|at| elf[at + 4] & 0xf == FUNCTION).unwrap();
        elf[at + 16..at + 24].copy_from_slice(&(u64::MAX - 7).to_le_bytes());
        refused(&elf, "outside its section");
    }

    #[test]
    fn a_section_must_lie_in_the_file() {
        for (at, value) in [(0x18, u64::MAX), (0x20, 1 << 40)] {
            let mut elf = FILTER.to_vec();
            let (_, header) = place(&elf, "license");
            elf[header + at..header + at + 8].copy_from_slice(&value.to_le_bytes());
            assert!(check(&elf).is_err());
        }
        let mut big_endian = FILTER.to_vec();
        big_endian[5] = 2;
        refused(&big_endian, "little-endian");
    }
}
