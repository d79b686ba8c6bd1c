//! `struct xdp_multiprog`: what is on an interface.

use super::entry::{Errno, INVALID, ask, at, close, looked_up, number, pointer, status};
use super::program::xdp_program;
use super::settings;
use crate::dispatcher::{Opened, OpenedChain};
use crate::{Error, ErrorKind, Mode, Program};
use std::ffi::{c_int, c_uint};
use std::ptr::null_mut;

/// What `struct xdp_multiprog *` points to. Its programs are its own, and are closed with it.
#[derive(Debug)]
pub struct xdp_multiprog {
    main: *mut xdp_program,
    hardware: *mut xdp_program,
    /// Those of the chain, in order, each of which points to the next.
    members: Vec<*mut xdp_program>,
    kind: Kind,
    mode: c_uint,
    has_frags: bool,
    is_bound: bool,
    index: c_int,
}

/// What the main program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alone,
    /// A dispatcher some of whose pins are lost.
    Damaged,
    Chain,
}

/// `enum xdp_attach_mode`
pub(super) fn mode_of(mode: Mode) -> c_uint {
    match mode {
        Mode::Native => 1,
        Mode::Skb => 2,
        Mode::Hardware => 3,
        Mode::Unspecified => 0,
    }
}

fn boxed(program: Program) -> Result<*mut xdp_program, Errno> {
    xdp_program::in_kernel(program).map(Box::into_raw)
}

impl xdp_multiprog {
    fn on(index: c_int) -> Result<Box<Self>, Errno> {
        let occupant = settings::xdp()?.open_occupant(&settings::interface(index)?)?;
        let mut own = Box::new(Self {
            main: null_mut(),
            hardware: null_mut(),
            members: Vec::new(),
            kind: Kind::Alone,
            mode: 0,
            has_frags: false,
            is_bound: false,
            index,
        });
        let occupant = occupant.ok_or(Errno(libc::ENOENT))?;
        if let Some(program) = occupant.beside {
            own.hardware = boxed(program)?;
        }
        match occupant.what {
            Opened::Foreign(program, Mode::Hardware) => own.hardware = boxed(program)?,
            Opened::Foreign(program, mode) => {
                own.main = boxed(program)?;
                own.mode = mode_of(mode);
            }
            Opened::Chain(chain) => own.take(chain)?,
        }
        Ok(own)
    }

    fn take(&mut self, chain: OpenedChain) -> Result<(), Errno> {
        self.kind = Kind::Damaged;
        let id = chain.dispatcher.id().unwrap_or_default();
        self.main = boxed(chain.dispatcher)?;
        self.mode = mode_of(chain.mode);
        let Some(members) = chain.members else {
            log::warn!("the pins of dispatcher {id} are lost, of all or of some of its programs");
            return Ok(());
        };
        self.kind = Kind::Chain;
        (self.has_frags, self.is_bound) = (chain.has_frags, chain.is_device_bound);
        for program in members {
            let program = boxed(program)?;
            if let Some(&last) = self.members.last() {
                // SAFETY: it was made here, and is this value's alone.
                unsafe { (*last).next = program };
            }
            self.members.push(program);
        }
        Ok(())
    }
}

impl Drop for xdp_multiprog {
    fn drop(&mut self) {
        let members = std::mem::take(&mut self.members);
        for program in members.into_iter().chain([self.main, self.hardware]) {
            if !program.is_null() {
                // SAFETY: it was made here, and is this value's alone.
                drop(unsafe { Box::from_raw(program) });
            }
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn xdp_multiprog__get_from_ifindex(index: c_int) -> *mut xdp_multiprog {
    pointer(|| xdp_multiprog::on(index).map(Box::into_raw))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__close(multiprog: *mut xdp_multiprog) {
    // SAFETY: the header asks for one that was made here, and is not used again.
    unsafe { close(multiprog) };
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__detach(multiprog: *mut xdp_multiprog) -> c_int {
    status(|| {
        // SAFETY: the header asks for a multiprog.
        let own = unsafe { at(multiprog) }.ok_or(INVALID)?;
        let (xdp, interface) = (settings::xdp()?, settings::interface(own.index)?);
        // SAFETY: NULL or the multiprog's.
        let hardware = unsafe { at(own.hardware) };
        // SAFETY: as above.
        let main = unsafe { at(own.main) };
        let id = |program: Option<&xdp_program>| program.and_then(|program| program.program.id());
        if let Some(id) = id(hardware) {
            xdp.edit(&interface).mode(Mode::Hardware).remove(id).commit()?;
        }
        let Some(id) = id(main) else { return Ok(()) };
        let again = |error: Error| match error.kind() {
            // Somebody else was faster.
            ErrorKind::NotAttached
            | ErrorKind::NotInChain { .. }
            | ErrorKind::ForeignProgram(_) => Errno(libc::EAGAIN),
            _ => error.into(),
        };
        match own.kind {
            Kind::Alone => xdp.detach(&interface, id),
            Kind::Damaged | Kind::Chain => xdp.detach_dispatcher(&interface, id),
        }
        .map_err(again)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__next_prog(
    program: *const xdp_program,
    multiprog: *const xdp_multiprog,
) -> *mut xdp_program {
    looked_up(|| {
        // SAFETY: the header asks for a multiprog.
        let own = unsafe { at(multiprog) }.filter(|own| own.kind == Kind::Chain)?;
        // SAFETY: and for a program of it.
        Some(match unsafe { at(program) } {
            Some(program) => program.next,
            None => own.members.first().copied().unwrap_or(null_mut()),
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__hw_prog(
    multiprog: *const xdp_multiprog,
) -> *mut xdp_program {
    // SAFETY: the header asks for a multiprog.
    looked_up(|| unsafe { at(multiprog) }.map(|own| own.hardware))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__main_prog(
    multiprog: *const xdp_multiprog,
) -> *mut xdp_program {
    // SAFETY: the header asks for a multiprog.
    looked_up(|| unsafe { at(multiprog) }.map(|own| own.main))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__attach_mode(multiprog: *const xdp_multiprog) -> c_uint {
    // SAFETY: the header asks for a multiprog.
    unsafe { ask(multiprog, 0, |own| own.mode) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__is_legacy(multiprog: *const xdp_multiprog) -> bool {
    // SAFETY: the header asks for a multiprog.
    unsafe { ask(multiprog, false, |own| own.kind != Kind::Chain) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__program_count(multiprog: *const xdp_multiprog) -> c_int {
    number(|| {
        // SAFETY: the header asks for a multiprog.
        let own = unsafe { at(multiprog) }.ok_or(INVALID)?;
        Ok(c_int::try_from(own.members.len()).unwrap_or(c_int::MAX))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__xdp_frags_support(multiprog: *const xdp_multiprog) -> bool {
    // SAFETY: the header asks for a multiprog.
    unsafe { ask(multiprog, false, |own| own.has_frags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_multiprog__xdp_dev_bound(multiprog: *const xdp_multiprog) -> bool {
    // SAFETY: the header asks for a multiprog.
    unsafe { ask(multiprog, false, |own| own.is_bound) }
}
