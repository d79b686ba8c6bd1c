//! A new chain built beside what runs, and put in its place.

use super::config::{ProtocolVersion, SlotConfig};
use super::held::{Held, Present};
use super::inspect::LiveChain;
use super::load::{self, Dispatcher};
use super::outcome::Outcome;
use super::plan::{Origin, Plan};
use super::request::{ATTACH, Request, check_kept};
use super::transaction::Transaction;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{AttachBy, Known, Link, Linked, Mode, Swap};
use crate::pins::{Lock, Staging};
use crate::program::{LoadTarget, Program};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

impl Transaction<'_> {
    /// Builds a dispatcher for `plan` and puts it in the place of what is there.
    pub(super) fn replace(
        &self,
        (operation, held): (&'static str, &Held<'_>),
        present: &Present,
        plan: &Plan,
        (version, mode): (ProtocolVersion, Mode),
        request: &mut Request<'_>,
    ) -> Result<Option<Outcome>> {
        let Some(store) = self.store else { return Ok(None) };
        let dispatcher = self.loader.dispatcher(&plan.config(version), Some(self.interface))?;
        let downgrades = plan.downgrades(&dispatcher.config);
        check_kept(&request.required, &downgrades).during(operation, self.interface)?;
        let lock = held.new_pins();
        let staging = store.stage(lock, self.interface.index(), dispatcher.id)?;
        let chain = present.chain();
        let _links = self.fill(lock, &dispatcher, &staging, chain, plan, &mut request.programs)?;
        let holder = chain.and_then(|chain| chain.link.clone());
        if let Some(link) = &holder {
            staging.pin_attachment(lock, link.as_fd())?;
        }
        let new = Known { fd: dispatcher.program.as_fd(), id: dispatcher.id };
        let way = (mode, request.attach_by);
        let (swap, link) = self.swap_in(operation, new, present, holder, way);
        if let (Some(link), Present::Nothing) = (&link, present) {
            self.keep_link(lock, &staging, link, dispatcher.id)?;
        }
        match swap {
            Swap::Lost => Ok(None),
            Swap::Failed(error) => Err(blamed(error, plan)),
            // It may be the new chain that runs: its pins must stay, or its programs are gone.
            Swap::Unknown(error) => {
                let pins = staging.keep();
                log::error!("what is attached is not known; {} is kept", pins.path().display());
                Err(error)
            }
            Swap::Done => Ok(Some(Outcome {
                dispatcher: Some(dispatcher.id),
                single: None,
                replaced: present.id(),
                mode: self.chosen(mode),
                has_frags: dispatcher.config.has_frags,
                is_device_bound: dispatcher.config.is_device_bound,
                downgrades,
                link,
                pins: Some(staging.keep().path().to_owned()),
                leftover: chain.and_then(|chain| self.remove_pins(held.old_pins(), chain)),
                dropped: Vec::new(),
            })),
        }
    }

    /// Pins the link that has just attached a fresh chain; without the pin, the chain would go with this process.
    fn keep_link(
        &self,
        lock: &Lock,
        staging: &Staging<'_>,
        link: &Link,
        program: u32,
    ) -> Result<()> {
        let pinned = staging.pin_attachment(lock, link.as_fd());
        if pinned.is_err()
            && let Err(error) = self.attachment.unlink(ATTACH, link, program)
        {
            log::warn!("the link goes with its descriptor: {error}");
        }
        pinned
    }

    /// Puts `new` in the place of what is there, the way that is held; on an empty interface, the way asked for.
    pub(super) fn swap_in(
        &self,
        operation: &'static str,
        new: Known<'_>,
        present: &Present,
        held: Option<Link>,
        (mode, attach_by): (Mode, AttachBy),
    ) -> (Swap, Option<Link>) {
        let Some(expected) = present.known() else {
            if attach_by == AttachBy::Netlink {
                return (self.attachment.swap(operation, Some(new), None, mode), None);
            }
            return match self.attachment.link(operation, new, mode) {
                Ok(Linked::Done(link)) => (Swap::Done, Some(link)),
                Ok(Linked::Lost) => (Swap::Lost, None),
                Err(error) => (Swap::Failed(error), None),
            };
        };
        if let Some(link) = held {
            return (
                self.attachment.swap_within(operation, &link, new, expected, mode),
                Some(link),
            );
        }
        let error = match self.attachment.swap(operation, Some(new), Some(expected), mode) {
            Swap::Failed(error) => error,
            other => return (other, None),
        };
        // A link holds it that is pinned nowhere, or elsewhere: the chain would go when its owner lets go.
        match self.holder(&error, expected.id, mode) {
            Ok(Some(link)) => {
                let kind = ErrorKind::HeldByLink { link: link.id(), program: expected.id };
                (Swap::Failed(Error::new(operation, self.interface, kind)), None)
            }
            _ => (Swap::Failed(error), None),
        }
    }

    /// The mode that the kernel chose where the caller left it to it. The change is done: a failure to ask is
    /// none of the change.
    pub(super) fn chosen(&self, asked: Mode) -> Mode {
        if asked != Mode::Unspecified {
            return asked;
        }
        self.attachment.query().ok().flatten().map_or(asked, |attached| attached.mode)
    }

    /// Links and pins every program of the plan. The links hold the programs in their slots until the pins do.
    fn fill(
        &self,
        lock: &Lock,
        dispatcher: &Dispatcher,
        staging: &Staging<'_>,
        chain: Option<&LiveChain>,
        plan: &Plan,
        programs: &mut [&mut Program],
    ) -> Result<Vec<OwnedFd>> {
        let target = dispatcher.program.as_fd();
        let slots: Vec<SlotConfig> = plan.0.iter().map(|planned| planned.config).collect();
        let mut links = Vec::with_capacity(slots.len());
        for (slot, planned) in plan.0.iter().enumerate() {
            let function = load::slot_function(slot, &slots)?;
            let program = match planned.origin {
                Origin::Kept(index) => chain
                    .and_then(|chain| chain.members.get(index)?.program.as_ref())
                    .map(|program| program.fd.as_fd()),
                Origin::Added(index) => match programs.get_mut(index) {
                    None => None,
                    Some(program) => {
                        program.load(
                            self.kernel,
                            LoadTarget::Slot {
                                dispatcher: target,
                                name: function.name,
                                btf_id: function.btf_id,
                            },
                        )?;
                        Some(program.fd()?)
                    }
                },
            };
            let program = program.ok_or(ErrorKind::NotLoaded).during("link", &planned.rank.name)?;
            let link = self.link(program, target, function.btf_id);
            let link = link.during("link", &planned.rank.name)?;
            staging.pin(lock, slot, program, link.as_fd())?;
            links.push(link);
        }
        Ok(links)
    }

    fn link(
        &self,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        function: u32,
    ) -> std::result::Result<OwnedFd, ErrorKind> {
        let refused = |error: io::Error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EOPNOTSUPP) => ErrorKind::NoFreplace {
                why: format!("it refuses to link an extension program: {error}"),
            },
            Some(libc::EINVAL) => ErrorKind::Rejected {
                source: error,
                log: "the program cannot take the place of a dispatcher's function".into(),
            },
            _ => error.into(),
        };
        self.kernel.link_extension(program, target, function).map_err(refused)
    }
}

/// An MTU that is too large is so for the programs that read no fragments.
fn blamed(error: Error, plan: &Plan) -> Error {
    let lacking = plan.0.iter().filter(|planned| !planned.config.has_frags());
    error.blaming(lacking.map(|planned| planned.rank.name.clone()).collect())
}
