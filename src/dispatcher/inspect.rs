//! What is on an interface: nothing, a chain, or somebody else's program.

use super::config::{Config, SlotConfig};
use super::load::NEEDS;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{Attached, AttachedBy, Attachment, Interface, Link, Mode};
use crate::pins::{OpenPins, PinKey, PinnedDispatcher, Store};
use crate::program::{ChainActions, completed_name, kernel_btf, may_be_cut};
use crate::sys::Kernel;
use crate::sys::bpf::{MapInfo, ProgramInfo};
use libbpf_sys::BPF_MAP_TYPE_ARRAY;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

const READ: &str = "read";

/// What is on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Occupant {
    /// No XDP program.
    Empty,
    /// A dispatcher and its component programs.
    Chain(Chain),
    /// An XDP program that is no dispatcher.
    Foreign(ForeignProgram),
}

impl Occupant {
    /// The chain, if that is what is there.
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Chain(chain) => Some(chain),
            _ => None,
        }
    }
}

/// A dispatcher on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chain {
    /// Program id of the dispatcher.
    pub dispatcher: u32,
    /// Hash over the dispatcher's instructions.
    pub tag: [u8; 8],
    /// Protocol version: 1, 2 or 3.
    pub version: u8,
    /// Where it runs.
    pub mode: Mode,
    /// How it is held on the interface.
    pub attached_by: AttachedBy,
    /// Whether it takes packets of several fragments.
    pub has_frags: bool,
    /// Whether it is bound to its device.
    pub is_device_bound: bool,
    /// The directory of its pins; `None` if they are lost.
    pub pins: Option<PathBuf>,
    /// Its slots, in the order in which they run.
    pub members: Vec<Member>,
}

impl Chain {
    /// Whether every slot has its program and its link pinned.
    pub fn is_whole(&self) -> bool {
        self.members.iter().all(|member| member.is_linked && member.component.is_some())
    }
}

/// A slot of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// Its number, from 0.
    pub slot: usize,
    /// Run priority; lower runs first.
    pub priority: u32,
    /// The actions after which the chain goes on.
    pub actions: ChainActions,
    /// Whether its program reads packets of several fragments.
    pub has_frags: bool,
    /// Whether its program asked to be bound to the device.
    pub is_device_bound: bool,
    /// Whether the link that holds the program in its slot is pinned.
    pub is_linked: bool,
    /// The pinned program; `None` if its pin is lost.
    pub component: Option<Component>,
}

/// A component program of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Component {
    /// Program id, unique in the kernel.
    pub id: u32,
    /// Function name; where the kernel has cut it, completed from the program's BTF.
    pub name: String,
    /// Hash over the instructions.
    pub tag: [u8; 8],
    /// When it was loaded, since boot.
    pub load_time: Duration,
    /// Path of its pin.
    pub pin: PathBuf,
}

/// An XDP program that is part of no chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForeignProgram {
    /// Program id, unique in the kernel.
    pub id: u32,
    /// Its name; where the kernel has cut it to 15 bytes, completed from the program's BTF.
    pub name: String,
    /// Hash over the instructions.
    pub tag: [u8; 8],
    /// Where it runs.
    pub mode: Mode,
    /// How it is held on the interface; `None` where that was not looked for, as in an error.
    pub attached_by: Option<AttachedBy>,
    /// When it was loaded, since boot.
    pub load_time: Duration,
}

impl fmt::Display for ForeignProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "(no name)" } else { &self.name };
        write!(f, "program {name} (id {}, tag ", self.id)?;
        self.tag.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ", {} mode", self.mode)?;
        match self.attached_by {
            Some(by) => write!(f, ", attached by {by})"),
            None => f.write_str(")"),
        }
    }
}

/// What is attached, with the descriptors to work on it.
#[derive(Debug)]
pub(super) enum Live {
    Chain(LiveChain),
    Foreign(LiveForeign),
}

/// A program that is attached and is no dispatcher.
#[derive(Debug)]
pub(super) struct LiveForeign {
    pub(super) program: OwnedFd,
    pub(super) description: ForeignProgram,
}

/// A dispatcher that is attached.
#[derive(Debug)]
pub(super) struct LiveDispatcher {
    pub(super) program: OwnedFd,
    pub(super) id: u32,
    pub(super) tag: [u8; 8],
    pub(super) mode: Mode,
    pub(super) config: Config,
}

#[derive(Debug)]
pub(super) struct LiveChain {
    pub(super) dispatcher: LiveDispatcher,
    pub(super) pins: Option<PinnedDispatcher>,
    /// The link that holds it, where that is pinned.
    pub(super) link: Option<Link>,
    pub(super) members: Vec<LiveMember>,
}

#[derive(Debug)]
pub(super) struct LiveMember {
    pub(super) config: SlotConfig,
    pub(super) is_linked: bool,
    pub(super) program: Option<LiveProgram>,
}

#[derive(Debug)]
pub(super) struct LiveProgram {
    pub(super) fd: OwnedFd,
    pub(super) info: ProgramInfo,
    /// Completed.
    pub(super) name: String,
}

impl LiveChain {
    /// Slots whose program or link is not pinned.
    pub(super) fn missing(&self) -> Vec<usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, m)| !m.is_linked || m.program.is_none()).map(|(slot, _)| slot).collect()
    }

    fn describe(self, attached_by: AttachedBy) -> Chain {
        let pins = self.pins;
        let member = |(slot, member): (usize, LiveMember)| Member {
            slot,
            priority: member.config.priority,
            actions: member.config.actions,
            has_frags: member.config.has_frags(),
            is_device_bound: member.config.is_device_bound(),
            is_linked: member.is_linked,
            component: member.program.zip(pins.as_ref()).map(|(program, pins)| Component {
                id: program.info.id,
                name: program.name,
                tag: program.info.tag,
                load_time: program.info.load_time,
                pin: pins.program_path(slot),
            }),
        };
        Chain {
            dispatcher: self.dispatcher.id,
            tag: self.dispatcher.tag,
            version: self.dispatcher.config.version,
            mode: self.dispatcher.mode,
            attached_by,
            is_device_bound: self.dispatcher.config.is_device_bound,
            has_frags: self.dispatcher.config.has_frags,
            members: self.members.into_iter().enumerate().map(member).collect(),
            pins: pins.map(|pins| pins.path().to_owned()),
        }
    }
}

impl Live {
    /// Whether nothing of it was missing, so that it was there as a whole when it was read.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Chain(chain) => chain.missing().is_empty(),
            Self::Foreign(_) => true,
        }
    }

    /// What users are told. Finds out what holds it.
    pub(super) fn describe(
        self,
        attachment: &Attachment<'_>,
        attached: Attached,
    ) -> Result<Occupant> {
        let by = |link: Option<Link>| match link {
            Some(link) => AttachedBy::Link { id: link.id() },
            None => AttachedBy::Netlink,
        };
        Ok(match self {
            Self::Chain(mut chain) => {
                let link = match chain.link.take() {
                    Some(link) => Some(link),
                    None => attachment.holder(attached)?,
                };
                Occupant::Chain(chain.describe(by(link)))
            }
            Self::Foreign(mut foreign) => {
                let link = attachment.holder(attached)?;
                foreign.description.attached_by = Some(by(link));
                Occupant::Foreign(foreign.description)
            }
        })
    }
}

/// What is attached, before its pins are looked for.
#[derive(Debug)]
pub(super) enum Found {
    Dispatcher(LiveDispatcher),
    Foreign(LiveForeign),
}

/// What is attached, in a word or two: for who looks at all of them.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A dispatcher: its protocol version and number of slots.
    Dispatcher { version: u8, slots: usize },
    /// Another program: its name.
    Foreign(String),
}

/// As [`identify`], but without the means to work on it.
pub(crate) fn kind(kernel: &Kernel, attached: Attached) -> Result<Option<Kind>> {
    Ok(identify(kernel, attached)?.map(|found| match found {
        Found::Dispatcher(LiveDispatcher { config, .. }) => {
            Kind::Dispatcher { version: config.version, slots: config.slots.len() }
        }
        Found::Foreign(foreign) => Kind::Foreign(foreign.description.name),
    }))
}

/// Looks at the attached program; `None` if it has gone meanwhile. Needs no bpffs.
pub(super) fn identify(kernel: &Kernel, attached: Attached) -> Result<Option<Found>> {
    let what = format!("program {}", attached.program);
    let program = match kernel.prog_by_id(attached.program) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(by_id).during("open", &what)?,
    };
    let info = kernel.prog_info(program.as_fd()).during("query", &what)?;
    Ok(Some(match dispatcher_config(kernel, &info).during("look at", &what)? {
        Some(config) => Found::Dispatcher(LiveDispatcher {
            program,
            id: attached.program,
            tag: info.tag,
            mode: attached.mode,
            config,
        }),
        None => Found::Foreign(LiveForeign {
            program,
            description: ForeignProgram {
                id: info.id,
                name: full_name(kernel, &info).during("read the BTF of", &what)?,
                tag: info.tag,
                mode: attached.mode,
                attached_by: None,
                load_time: info.load_time,
            },
        }),
    }))
}

/// What is opened by its id needs a privilege.
fn by_id(error: io::Error) -> ErrorKind {
    ErrorKind::privileged(error, NEEDS)
}

/// The configuration of a dispatcher; `None` if the program is none. Version 1 has no magic, so there the
/// program's BTF must say that it is one.
fn dispatcher_config(
    kernel: &Kernel,
    info: &ProgramInfo,
) -> std::result::Result<Option<Config>, ErrorKind> {
    let &[map] = info.map_ids.as_slice() else {
        return Ok(None);
    };
    if info.name != "xdp_dispatcher" {
        return Ok(None);
    }
    let map = kernel.map_open(kernel.map_by_id(map).map_err(by_id)?)?;
    let MapInfo { kind, key_size, value_size, .. } = map.info();
    if kind != BPF_MAP_TYPE_ARRAY || key_size != 4 || !Config::has_size(value_size) {
        return Ok(None);
    }
    let value = kernel.map_lookup(&map, &[0; 4])?;
    let Some(config) = Config::decode(&value) else {
        return Ok(None);
    };
    if config.version > 1 {
        return Ok(Some(config));
    }
    let Some(btf) = kernel_btf(kernel, info)? else {
        return Ok(None);
    };
    let version = btf.variable("xdp_metadata", "dispatcher_version");
    let version = version.and_then(|(definition, ..)| btf.encoded_number(definition));
    Ok((version == Some(1)).then_some(config))
}

/// What becomes of a pin of something that is no component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unexpected {
    /// It is an error.
    Refused,
    /// The slot counts as one whose pin is lost: enough to take the chain off.
    Lost,
}

/// The chain of a dispatcher whose pins are at `pins`.
pub(super) fn read_chain(
    kernel: &Kernel,
    attachment: &Attachment<'_>,
    dispatcher: LiveDispatcher,
    open: Option<OpenPins<'_>>,
    unexpected: Unexpected,
) -> Result<LiveChain> {
    let link = match open.as_ref().map(OpenPins::attachment).transpose()?.flatten() {
        Some(fd) => attachment.adopt(fd, dispatcher.id).during(READ, "the pinned link")?,
        None => None,
    };
    let slots = dispatcher.config.slots.iter().copied().enumerate();
    let member = |(slot, config)| -> Result<LiveMember> {
        let Some(open) = &open else {
            return Ok(LiveMember { config, is_linked: false, program: None });
        };
        let is_linked = open.has_link(slot);
        let Some(fd) = open.program(slot)? else {
            return Ok(LiveMember { config, is_linked, program: None });
        };
        let pin = || open.place().program_path(slot);
        let program = match live_program(kernel, fd, pin) {
            Err(ErrorKind::UnexpectedPin { .. }) if unexpected == Unexpected::Lost => None,
            Err(error) => return Err(Error::new(READ, pin().display(), error)),
            Ok(program) => Some(program),
        };
        Ok(LiveMember { config, is_linked, program })
    };
    let members = slots.map(member).collect::<Result<_>>()?;
    let pins = open.map(OpenPins::into_place);
    Ok(LiveChain { dispatcher, pins, link, members })
}

fn live_program(
    kernel: &Kernel,
    fd: OwnedFd,
    pin: impl Fn() -> PathBuf,
) -> std::result::Result<LiveProgram, ErrorKind> {
    let unexpected = |what: &str| ErrorKind::UnexpectedPin { path: pin(), what: what.into() };
    let Some(mut info) = kernel.component_info(fd.as_fd())? else {
        return Err(unexpected("a pin of something that is no component of a chain"));
    };
    if may_be_cut(&info) {
        info = kernel.prog_info(fd.as_fd())?;
    }
    let name = full_name(kernel, &info)?;
    Ok(LiveProgram { fd, info, name })
}

fn full_name(kernel: &Kernel, info: &ProgramInfo) -> io::Result<String> {
    let btf = if may_be_cut(info) { kernel_btf(kernel, info)? } else { None };
    Ok(completed_name(info, btf.as_ref()))
}

/// Finds and reads whatever `attached` is; `None` if it has gone meanwhile. Where there is no bpf file system, there
/// are no pins.
pub(super) fn read(
    kernel: &Kernel,
    store: &Store,
    interface: &Interface,
    attachment: &Attachment<'_>,
    attached: Attached,
) -> Result<Option<Live>> {
    Ok(match identify(kernel, attached)? {
        None => None,
        Some(Found::Foreign(program)) => Some(Live::Foreign(program)),
        Some(Found::Dispatcher(dispatcher)) => {
            let pins = store.find(&key(interface, &dispatcher)?)?;
            let pins = match pins {
                Some(pins) if pins.is_in_bpffs()? => Some(pins),
                _ => None,
            };
            let chain = read_chain(kernel, attachment, dispatcher, pins, Unexpected::Refused)?;
            Some(Live::Chain(chain))
        }
    })
}

/// What a dispatcher's pins are filed under.
pub(super) fn key<'a>(interface: &'a Interface, dispatcher: &LiveDispatcher) -> Result<PinKey<'a>> {
    let netns = interface.netns().id()?;
    Ok(PinKey { netns, ifindex: interface.index(), dispatcher: dispatcher.id })
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_foreign_program_is_told_apart_by_all_that_is_known() {
        let program = ForeignProgram {
            id: 7,
            name: String::new(),
            tag: [0xab; 8],
            mode: Mode::Skb,
            attached_by: None,
            load_time: Duration::ZERO,
        };
        assert_eq!(program.to_string(), "program (no name) (id 7, tag abababababababab, skb mode)");
        let by = Some(AttachedBy::Link { id: 3 });
        let program = ForeignProgram { attached_by: by, name: "drop".into(), ..program };
        assert_eq!(
            program.to_string(),
            "program drop (id 7, tag abababababababab, skb mode, attached by link 3)"
        );
    }
}
