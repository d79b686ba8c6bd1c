//! ELF objects, opened and linked by libbpf: every way to select a program, its global variables and its maps.
#![no_main]

mod mutate;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use oxdp::{Error, ErrorKind, Program, Select};
use std::fs::File;
use std::os::fd::AsRawFd;

fuzz_target!(|elf: &[u8]| {
    let free = free_descriptor();
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
    assert_eq!(free_descriptor(), free, "a descriptor is left open");
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::mutate(data, size, max_size, seed)
});

/// The lowest one. A leak moves it up.
fn free_descriptor() -> i32 {
    File::open("/dev/null").expect("there is /dev/null").as_raw_fd()
}

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
