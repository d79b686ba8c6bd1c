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
    program.set_priority(7);
    program.set_chain_actions(ChainActions::DROP | ChainActions::TX);
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
