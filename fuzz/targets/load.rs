//! ELF objects, loaded by libbpf into a kernel that takes everything: what happens to a program that cannot be linked
//! without one. Every bpf(2) call is answered here; the real kernel sees none.
#![no_main]

mod objects;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use std::arch::asm;
use std::ffi::{c_int, c_long};

fuzz_target!(|elf: &[u8]| objects::closes_all(|| oxdp::fuzzing::load(elf)));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    objects::mutate(data, size, max_size, seed)
});

const MAP_CREATE: c_long = 0;
const MAP_UPDATE: c_long = 2;
const PROG_LOAD: c_long = 5;
const OBJ_PIN: c_long = 6;
const BTF_LOAD: c_long = 18;
const MAP_FREEZE: c_long = 22;

/// In place of libc's, for the whole process. It is variadic in C; on x86-64 six numbers are passed the same way.
///
/// # Safety
/// That of the system call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let answer = if number == libc::SYS_bpf { bpf(a) } else { forward(number, [a, b, c, d, e, f]) };
    match c_int::try_from(-answer) {
        Ok(errno @ 1..4096) => {
            // SAFETY: errno's place is this thread's.
            unsafe { *libc::__errno_location() = errno };
            -1
        }
        _ => answer,
    }
}

fn bpf(command: c_long) -> c_long {
    match command {
        // SAFETY: the path ends in NUL.
        MAP_CREATE | PROG_LOAD | BTF_LOAD => unsafe {
            libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC).into()
        },
        MAP_UPDATE | OBJ_PIN | MAP_FREEZE => 0,
        _ => -c_long::from(libc::ENOENT),
    }
}

fn forward(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let answer;
    // SAFETY: what the caller of syscall() promises.
    unsafe {
        asm!("syscall", inlateout("rax") number => answer, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _);
    }
    answer
}
