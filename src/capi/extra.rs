//! What `xdp/oxdp.h` has beyond libxdp, but for attaching.

use super::entry::{Errno, INVALID, at, at_mut, guarded, is_real, number, or_null, status};
use super::settings::{self, Layout};
use crate::{Done, EmptyDispatcher, Features, RecoveryPlan};
use std::ffi::{CStr, CString, c_char, c_int, c_uint};

/// `OXDP_PLAN_REMOVE_EMPTY`
const REMOVE_EMPTY: c_uint = 1 << 0;
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");

#[unsafe(no_mangle)]
pub extern "C" fn oxdp_version() -> *const c_char {
    VERSION.as_ptr().cast()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_set_layout(layout: *const c_char) -> c_int {
    status(|| {
        let real = is_real(layout);
        // SAFETY: the header asks for a string.
        let word = real.then(|| unsafe { CStr::from_ptr(layout) }).ok_or(INVALID)?;
        settings::choose(Layout::of(word).ok_or(INVALID)?);
        Ok(())
    })
}

/// What `struct oxdp_plan *` points to.
#[derive(Debug)]
pub struct Plan {
    plan: RecoveryPlan,
    lines: Vec<CString>,
}

#[unsafe(no_mangle)]
pub extern "C" fn oxdp_plan(flags: c_uint) -> *mut Plan {
    or_null(|| {
        if flags & !REMOVE_EMPTY != 0 {
            return Err(INVALID);
        }
        let remove = flags & REMOVE_EMPTY != 0;
        let empty = if remove { EmptyDispatcher::Remove } else { EmptyDispatcher::Keep };
        let plan = settings::xdp()?.inventory()?.plan(empty);
        let text = |line: &crate::PlanLine| CString::new(line.to_string().replace('\0', "?"));
        let lines = plan.lines.iter().map(text).collect::<Result<_, _>>().map_err(|_| INVALID)?;
        Ok(Box::into_raw(Box::new(Plan { plan, lines })))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_plan__count(plan: *const Plan) -> usize {
    // SAFETY: the header asks for a plan.
    guarded(|| 0, || unsafe { at(plan) }.map_or(0, |plan| plan.lines.len()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_plan__line(plan: *const Plan, index: usize) -> *const c_char {
    // SAFETY: the header asks for a plan.
    let line = guarded(|| None, || unsafe { at(plan) }?.lines.get(index));
    line.map_or(std::ptr::null(), |line| line.as_ptr())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_plan__is_change(plan: *const Plan) -> bool {
    // SAFETY: the header asks for a plan.
    guarded(|| false, || unsafe { at(plan) }.is_some_and(|plan| plan.plan.is_change()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_plan__apply(plan: *mut Plan) -> c_int {
    number(|| {
        // SAFETY: the header asks for a plan.
        let plan = unsafe { at(plan) }.ok_or(INVALID)?;
        let (mut changed, mut failed) = (0, None);
        for applied in settings::xdp()?.apply(&plan.plan)? {
            match applied.done {
                Done::Changed => changed += 1,
                Done::Failed(error) => {
                    failed.get_or_insert(Errno::from(error));
                }
                Done::Nothing => {}
                other => log::info!("{}: {other:?}", applied.line),
            }
        }
        match failed {
            Some(error) if changed == 0 => Err(error),
            _ => Ok(changed),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_plan__free(plan: *mut Plan) {
    guarded(
        || (),
        || {
            if is_real(plan) {
                // SAFETY: the header asks for one that was made here, and is not used again.
                drop(unsafe { Box::from_raw(plan) });
            }
        },
    );
}

/// `struct oxdp_features`: a size and the answers, a byte each.
#[repr(C)]
#[derive(Debug)]
pub struct Answers {
    size: usize,
    answers: [bool; 7],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn oxdp_features(to: *mut Answers) -> c_int {
    status(|| {
        // SAFETY: the header asks for a structure that begins with its size.
        let size = unsafe { at_mut(to.cast::<usize>()) }.copied();
        let own = std::mem::offset_of!(Answers, answers);
        let room = size.and_then(|size| size.checked_sub(own)).ok_or(INVALID)?;
        let found = Features::probe()?;
        let answers = [
            ("chains", &found.freplace),
            ("reattach", &found.reattach),
            ("frags", &found.frags),
            ("links", &found.xdp_link),
            ("device_binding", &found.device_binding),
            ("netns_cookie", &found.netns_cookie),
            ("link_target", &found.link_target),
        ];
        // SAFETY: there is room for so many bytes behind the size.
        let answer = unsafe { to.cast::<u8>().add(own) };
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(answer, 0, room) };
        for (place, (name, support)) in answers.into_iter().enumerate().take(room) {
            log::debug!("{name}: {support}");
            // SAFETY: place is within the room.
            let to = unsafe { answer.add(place) };
            // SAFETY: as above.
            unsafe { to.write(support.is_yes().into()) };
        }
        Ok(())
    })
}
