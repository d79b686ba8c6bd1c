//! A program without a dispatcher: attached as it is, by the same swap.

use super::edit::Step;
use super::held::Present;
use super::outcome::{Outcome, Single};
use super::plan::{ChainFeature, Downgrade, DowngradeCause};
use super::request::{ATTACH, Request, check_kept};
use super::transaction::Transaction;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Known, Mode, Swap};
use crate::program::Program;
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
        self.load_alone(program, mode)?;
        let info = program.info().ok_or(ErrorKind::NotLoaded).during(ATTACH, self.interface)?;
        let id = info.id;
        let (has_frags, is_device_bound) = program.runs_with();
        let lost = Downgrade { feature: ChainFeature::Frags, cause: DowngradeCause::Kernel };
        let downgrades = if program.has_frags() && !has_frags { vec![lost] } else { Vec::new() };
        check_kept(&request.required, &downgrades).during(ATTACH, self.interface)?;
        let lacks_frags = if has_frags { Vec::new() } else { vec![program.name().to_owned()] };
        let fd = program.fd()?.try_clone_to_owned().during(ATTACH, self.interface)?;
        let new = Known { fd: fd.as_fd(), id };
        let (swap, link) = self.swap_in(ATTACH, new, present, None, (mode, request.attach_by));
        match swap {
            Swap::Lost => Ok(None),
            Swap::Failed(error) => Err(error.blaming(lacks_frags)),
            Swap::Unknown(error) => Err(error),
            Swap::Done => {
                program.keep(self.kernel, link.clone());
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

    /// Loads a program that is to run alone; where it is to be bound to the device, or run there, in its namespace.
    fn load_alone(&self, program: &mut Program, mode: Mode) -> Result<()> {
        let is_for_device = program.is_device_bound() || mode == Mode::Hardware;
        if !is_for_device {
            return program.load_alone(self.kernel, 0);
        }
        let load = || program.load_alone(self.kernel, self.interface.index());
        let loaded = self.interface.netns().enter(self.kernel, load)?;
        loaded.map_err(|error| {
            let is_verifier_s =
                matches!(error.kind(), ErrorKind::Rejected { log, .. } if !log.is_empty());
            let is_device_s = matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP));
            if mode != Mode::Hardware || is_verifier_s || !is_device_s {
                return error;
            }
            let kind = ErrorKind::ModeUnsupported {
                mode: mode.name(),
                source: io::Error::from_raw_os_error(libc::EOPNOTSUPP),
                message: format!("the device takes no programs: {error}"),
            };
            Error::new(ATTACH, self.interface, kind)
        })
    }
}
