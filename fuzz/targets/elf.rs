//! ELF objects, opened and linked by libbpf: every way to select a program, its global variables and its maps.
#![no_main]

mod objects;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use oxdp::{Error, ErrorKind, Program, Select};

fuzz_target!(|elf: &[u8]| {
    objects::closes_all(|| select(elf));
});

fn select(elf: &[u8]) {
    let only = Program::from_bytes(elf, Select::Only);
    let first = match &only {
        Ok(program) => Some(program.name().to_owned()),
        Err(error) => available(error).first().cloned(),
    };
    use_it(only);
    use_it(Program::from_bytes(elf, Select::Section("xdp")));
    if let Some(name) = first {
        use_it(Program::from_bytes(elf, Select::Function(&name)));
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    objects::mutate(data, size, max_size, seed)
});

fn available(error: &Error) -> &[String] {
    match error.kind() {
        ErrorKind::AmbiguousProgram { available } | ErrorKind::NoSuchProgram { available, .. } => {
            available
        }
        _ => &[],
    }
}

fn use_it(program: oxdp::Result<Program>) {
    let Ok(mut program) = program else { return };
    for name in program.map_names() {
        assert!(program.map(&name).is_err(), "nothing is loaded");
    }
    for size in [1, 2, 4, 8] {
        let _ = program.set_global("blocked_port", &vec![0xff; size]);
    }
    let clone = program.clone();
    assert_eq!(clone.name(), program.name());
}
