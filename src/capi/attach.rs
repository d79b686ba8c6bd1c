//! Putting programs on interfaces, and taking them off.

use super::entry::{Errno, INVALID, at, at_mut, copy_of, guarded, is_real, status};
use super::multiprog::mode_of;
use super::program::xdp_program;
use super::settings;
use crate::dispatcher::Opened;
use crate::{ChainFeature, Interface, Mode, Netns, Policy, Xdp};
use std::ffi::{c_int, c_uint};

/// `XDP_ATTACH_DEVBIND`
const BOUND: c_uint = 1 << 0;
/// `OXDP_ATTACH_LINK`
const LINK: c_uint = 1 << 16;

/// `enum xdp_attach_mode`; what is none of it is taken for no wish, as C libxdp does.
pub(super) fn mode(mode: c_uint) -> Mode {
    match mode {
        1 => Mode::Native,
        2 => Mode::Skb,
        3 => Mode::Hardware,
        _ => Mode::Unspecified,
    }
}

/// The programs of a caller's array.
#[derive(Debug)]
struct Programs<'a> {
    /// Each once.
    once: Vec<&'a mut xdp_program>,
    has_twice: bool,
}

/// # Safety
/// A real pointer is to `count` pointers, each real one to a program of which nobody else has a reference.
unsafe fn programs<'a>(array: *mut *mut xdp_program, count: usize) -> Result<Programs<'a>, Errno> {
    if count > crate::MAX_PROGRAMS * 2 {
        return Err(Errno(libc::E2BIG));
    }
    // SAFETY: the caller promises so many pointers.
    let pointers = unsafe { std::slice::from_raw_parts(array, count) };
    let mut once = Vec::with_capacity(count);
    for (place, &pointer) in pointers.iter().enumerate() {
        if !pointers.iter().take(place).any(|before| *before == pointer) {
            // SAFETY: the caller promises it, and no pointer is taken twice.
            once.push(unsafe { at_mut(pointer) }.ok_or(INVALID)?);
        }
    }
    Ok(Programs { has_twice: once.len() < count, once })
}

fn attach(
    programs: Programs<'_>,
    interface: &Interface,
    mode: Mode,
    flags: c_uint,
) -> Result<(), Errno> {
    if programs.has_twice {
        log::warn!("a program is there twice");
        return Err(Errno(libc::EEXIST));
    }
    let mut programs = programs.once;
    let is_alone = programs.len() == 1;
    if mode == Mode::Hardware && !is_alone {
        return Err(INVALID);
    }
    let xdp = settings::xdp()?;
    for program in &mut programs {
        program.follow_object();
        if !program.is_loaded() {
            program.program.set_device_bound(flags & BOUND != 0)?;
        }
    }
    let by = if flags & LINK == 0 { crate::AttachBy::Netlink } else { crate::AttachBy::Link };
    let mut edit = xdp.edit(interface).mode(mode).attach_by(by);
    if mode == Mode::Hardware || is_alone && settings::skips_dispatcher() {
        edit = edit.policy(Policy::Single);
    }
    if flags & BOUND != 0 {
        edit = edit.require(ChainFeature::DeviceBinding);
    }
    let edit = programs.iter_mut().fold(edit, |edit, program| edit.insert(&mut program.program));
    let outcome = edit.commit();
    for program in &mut programs {
        // Loaded it may be, also where it was not attached.
        program.refresh();
    }
    if let Some(single) = outcome?.single {
        log::info!("program {} is attached without a dispatcher: {}", single.program, single.why);
    }
    Ok(())
}

fn detach(
    programs: Result<Programs<'_>, Errno>,
    interface: &Interface,
    mode: Mode,
) -> Result<(), Errno> {
    let xdp = settings::xdp()?;
    let Some(occupant) = xdp.open_occupant(interface)? else {
        log::warn!("nothing is attached to {interface}");
        return Err(Errno(libc::ENOENT));
    };
    // Nothing there is told before nonsense.
    let programs = programs?.once;
    let ids = programs.iter().map(|program| program.program.id().ok_or(INVALID));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let there = occupant.what.mode();
    let mut edit = xdp.edit(interface);
    if mode == Mode::Hardware && there != mode {
        if occupant.beside.is_none() {
            log::warn!("{interface} has no program on the device");
            return Err(Errno(libc::ENOENT));
        }
        edit = edit.mode(mode);
    } else if ![there, Mode::Unspecified].contains(&mode) {
        log::warn!("{interface} has its program in {there} mode, not in {mode} mode");
        return Err(Errno(libc::ENOENT));
    } else if let Some(alone) = occupant.what.alone() {
        match &*ids {
            [id] if *id == alone => {}
            [id] => {
                log::warn!("asked to take off program {id}, but {alone} is on {interface}");
                return Err(Errno(libc::ENOENT));
            }
            _ => return Err(INVALID),
        }
        if let Opened::Chain(_) = &occupant.what {
            xdp.detach_dispatcher(interface, alone)?;
            return Ok(());
        }
    }
    ids.into_iter().fold(edit, crate::Edit::remove).commit()?;
    Ok(())
}

fn in_netns(index: c_int, netns: c_int) -> Result<Interface, Errno> {
    if netns == -1 {
        return settings::interface(index);
    }
    let index = u32::try_from(index).map_err(|_| INVALID)?;
    Ok(Interface::by_index(&Netns::from_fd(copy_of(netns)?)?, index)?)
}

/// What both functions do that attach several programs.
///
/// # Safety
/// As [`programs`].
unsafe fn attach_several(
    (array, count): (*mut *mut xdp_program, usize),
    interface: impl FnOnce() -> Result<Interface, Errno>,
    how: c_uint,
    (flags, known): (c_uint, c_uint),
) -> c_int {
    status(|| {
        if flags & !known != 0 || !is_real(array) || count == 0 {
            return Err(INVALID);
        }
        // SAFETY: the caller promises it.
        let programs = unsafe { programs(array, count) }?;
        attach(programs, &interface()?, mode(how), flags)
    })
}

/// What both functions do that take several programs off.
///
/// # Safety
/// As [`programs`].
unsafe fn detach_several(
    (array, count): (*mut *mut xdp_program, usize),
    interface: impl FnOnce() -> Result<Interface, Errno>,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    status(|| {
        if flags != 0 || !is_real(array) || count == 0 {
            return Err(INVALID);
        }
        // SAFETY: the caller promises it.
        let programs = unsafe { programs(array, count) };
        detach(programs, &interface()?, mode(how))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__attach_multi(
    array: *mut *mut xdp_program,
    count: usize,
    index: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    // The kernel's word for numbers that no interface has.
    let said = |error| if index > 0 { error } else { INVALID };
    let interface = || settings::interface(index).map_err(said);
    // SAFETY: the header asks for an array of programs.
    unsafe { attach_several((array, count), interface, how, (flags, BOUND)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__attach(
    program: *mut xdp_program,
    index: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    let mut array = [program];
    // SAFETY: an array of one program.
    unsafe { xdp_program__attach_multi(array.as_mut_ptr(), 1, index, how, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__detach_multi(
    array: *mut *mut xdp_program,
    count: usize,
    index: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    // No such interface is nothing there.
    let said = |Errno(errno)| match errno {
        libc::ENODEV => Errno(libc::ENOENT),
        errno => Errno(errno),
    };
    let interface = || settings::interface(index).map_err(said);
    // SAFETY: the header asks for an array of programs.
    unsafe { detach_several((array, count), interface, how, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__detach(
    program: *mut xdp_program,
    index: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    if !is_real(program) {
        return status(|| Err(INVALID));
    }
    let mut array = [program];
    // SAFETY: an array of one program.
    unsafe { xdp_program__detach_multi(array.as_mut_ptr(), 1, index, how, flags) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_attach(
    array: *mut *mut xdp_program,
    count: usize,
    index: c_int,
    netns: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    let interface = || in_netns(index, netns);
    // SAFETY: the header asks for an array of programs.
    unsafe { attach_several((array, count), interface, how, (flags, BOUND | LINK)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_detach(
    array: *mut *mut xdp_program,
    count: usize,
    index: c_int,
    netns: c_int,
    how: c_uint,
    flags: c_uint,
) -> c_int {
    let interface = || in_netns(index, netns);
    // SAFETY: the header asks for an array of programs.
    unsafe { detach_several((array, count), interface, how, flags) }
}

/// The mode that it runs in there; 0 if it does not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xdp_program__is_attached(
    program: *const xdp_program,
    index: c_int,
) -> c_uint {
    let ask = || -> Result<c_uint, Errno> {
        // SAFETY: the header asks for a program.
        let id = unsafe { at(program) }.and_then(|program| program.program.id()).ok_or(INVALID)?;
        let occupant = settings::xdp()?.open_occupant(&settings::interface(index)?)?;
        let Some(occupant) = occupant else { return Ok(0) };
        if occupant.beside.is_some_and(|program| program.id() == Some(id)) {
            return Ok(mode_of(Mode::Hardware));
        }
        Ok(if occupant.what.has(id) { mode_of(occupant.what.mode()) } else { 0 })
    };
    guarded(|| Ok(0), ask).unwrap_or(0)
}

/// Removes pins of dispatchers that are attached nowhere: of any interface for 0. Those that another namespace has stay, which
/// C libxdp removes.
#[unsafe(no_mangle)]
pub extern "C" fn libxdp_clean_references(index: c_int) -> c_int {
    status(|| {
        let xdp = settings::xdp()?;
        clean(&xdp, index)
    })
}

fn clean(xdp: &Xdp, index: c_int) -> Result<(), Errno> {
    let mut plan = xdp.inventory()?.plan(crate::EmptyDispatcher::Keep).cleanup();
    let begin = format!("dispatch-{index}-");
    let is_meant = |line: &crate::PlanLine| match &line.action {
        crate::RecoveryAction::RemovePins { path, .. } => {
            let name = path.file_name().and_then(|name| name.to_str());
            index == 0 || name.is_some_and(|name| name.starts_with(&begin))
        }
        _ => index == 0,
    };
    plan.lines.retain(is_meant);
    let mut failed = None;
    for applied in xdp.apply(&plan)? {
        if let crate::Done::Failed(error) = applied.done {
            failed.get_or_insert(Errno::from(error));
        }
    }
    failed.map_or(Ok(()), Err)
}
