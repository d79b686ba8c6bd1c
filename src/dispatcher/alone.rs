//! A program without a dispatcher: attached as it is, by the same swap.

use super::edit::Step;
use super::outcome::{Outcome, Single};
use super::plan::{ChainFeature, Downgrade, DowngradeCause};
use super::transaction::{ATTACH, Present, Request, Transaction};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Known, Mode, Swap};
use crate::program::{LoadTarget, Program};
use libbpf_sys::{BPF_F_XDP_DEV_BOUND_ONLY, BPF_F_XDP_HAS_FRAGS};
use std::io;
use std::os::fd::AsFd;

impl Transaction<'_> {
    /// Attaches the one program of the request without a dispatcher.
    pub(super) fn single(
        &self,
        present: &Present,
        request: &mut Request<'_>,
        why: &str,
    ) -> Result<Option<Outcome>> {
        let refused = |kind| Error::new(ATTACH, self.interface, kind);
        let only_one = || refused(ErrorKind::OnlyOne { why: why.to_owned() });
        let is_insert = *request.steps() == [Step::Insert(0)];
        let [program] = request.programs.as_mut_slice() else { return Err(only_one()) };
        if !is_insert {
            return Err(only_one());
        }
        let mode = self.mode(ATTACH, present, request.mode)?;
        let downgrades = self.load_alone(program, mode)?;
        let info = program.info().ok_or(ErrorKind::NotLoaded).during(ATTACH, self.interface)?;
        let (id, is_device_bound) = (info.id, program.is_device_bound());
        let has_frags = program.has_frags() && downgrades.is_empty();
        let lacks_frags = if has_frags { Vec::new() } else { vec![program.name().to_owned()] };
        let fd = program.fd()?.try_clone_to_owned().during(ATTACH, self.interface)?;
        let new = Known { fd: fd.as_fd(), id };
        let (swap, link) = self.swap_in(ATTACH, new, present, None, (mode, request.attach_by));
        match swap {
            Swap::Lost => Ok(None),
            Swap::Failed(error) => Err(error.blaming(lacks_frags)),
            Swap::Unknown(error) => Err(error),
            Swap::Done => {
                program.keep(link.clone());
                Ok(Some(Outcome {
                    single: Some(Single { program: id, why: why.to_owned() }),
                    replaced: present.id(),
                    has_frags,
                    is_device_bound,
                    downgrades,
                    link,
                    ..Outcome::empty(id, self.chosen(mode))
                }))
            }
        }
    }

    /// Loads a program that is to run alone. On a kernel before 5.18 it goes without fragments, and says so.
    fn load_alone(&self, program: &mut Program, mode: Mode) -> Result<Vec<Downgrade>> {
        let is_bound = program.is_device_bound();
        let bound = if is_bound { BPF_F_XDP_DEV_BOUND_ONLY } else { 0 };
        let ifindex = if is_bound || mode == Mode::Hardware { self.interface.index() } else { 0 };
        let has_frags = program.has_frags();
        let refused = |error: Error| match (mode, error.errno()) {
            (Mode::Hardware, Some(libc::EINVAL | libc::EOPNOTSUPP)) => Error::new(
                ATTACH,
                self.interface,
                ErrorKind::ModeUnsupported {
                    mode: mode.name(),
                    source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                    message: format!("the device takes no programs: {error}"),
                },
            ),
            _ => error,
        };
        let mut load = |flags| {
            let target = LoadTarget::Alone { flags: flags | bound, ifindex };
            let loaded = if ifindex == 0 {
                program.load(self.kernel, target)
            } else {
                self.interface.netns().enter(self.kernel, || program.load(self.kernel, target))?
            };
            loaded.map_err(refused)
        };
        if !has_frags {
            return load(0).map(|()| Vec::new());
        }
        match load(BPF_F_XDP_HAS_FRAGS) {
            Err(error) if error.errno() == Some(libc::EINVAL) => load(0).map(|()| {
                vec![Downgrade { feature: ChainFeature::Frags, cause: DowngradeCause::Kernel }]
            }),
            other => other.map(|()| Vec::new()),
        }
    }
}
