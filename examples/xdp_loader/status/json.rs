//! `status --json`. Fields are added, never renamed or taken away, while `format` is 1.
//!
//! ```json
//! {
//!   "format": 1,
//!   "netns": 4026531840,                          inode of the network namespace
//!   "netns_label": "blue",                        what it is called: a name, a path or a process
//!   "interfaces": [{
//!     "name": "eth0", "ifindex": 2,
//!     "xdp": null                                 nothing is attached, or
//!     "xdp": {
//!       "kind": "chain",
//!       "dispatcher": 48,                         program id
//!       "tag": "90f686eb86991928",
//!       "protocol_version": 3,
//!       "mode": "native",                         "native", "skb" or "hw"
//!       "attached_by": "link", "link": 7,         "netlink" has null
//!       "frags": false, "device_bound": false,
//!       "whole": true,                            every slot has its program and link pinned
//!       "state": "whole",                         or "moved": its pins belong to another place; "damaged": some are
//!                                                 lost; "orphaned": all are
//!       "recovery": null,                         without --all-netns, or what `recover` would do: a list of
//!                                                 { "action": "adopt", …, "reason": "…" }
//!       "pins": "/sys/fs/bpf/xdp/dispatch-2-48",  null if they are lost
//!       "programs": [{                            in the order in which they run
//!         "slot": 0, "priority": 10, "chain_actions": ["XDP_PASS"],
//!         "frags": false, "device_bound": false,
//!         "linked": true,                         its link is pinned
//!         "program": null                         its pin is lost, or
//!         "program": { "id": 38, "name": "udp_filter", "tag": "9eb7455ca0054e28",
//!                      "load_time_ns": 61203000000, "pin": "…/prog0-prog" }
//!       }]
//!     }
//!     "xdp": { "kind": "foreign", "id": 7, "name": "xdp_pass", "tag": "…", "mode": "skb",
//!              "attached_by": "netlink", "link": null, "load_time_ns": 61203000000 }
//!     "error": null                               or why "xdp" is not known
//!   }]
//! }
//! ```
//!
//! With `--all-netns` there is a list of them, and what may hide others:
//!
//! ```json
//! { "format": 1, "namespaces": [{ "netns": …, "netns_label": …, "interfaces": […] }], "gaps": ["…"] }
//! ```
//!
//! Times count nanoseconds since boot (`CLOCK_BOOTTIME`).

use super::state::State;
use super::{Entry, Section, hex, mode_name};
use anyhow::Result;
use oxdp::{AttachedBy, Chain, ForeignProgram, Member, Occupant, PlanLine};
use serde::Serialize;
use std::path::PathBuf;

const FORMAT: u32 = 1;

#[derive(Serialize)]
struct One<'a> {
    format: u32,
    #[serde(flatten)]
    namespace: Namespace<'a>,
}

#[derive(Serialize)]
struct All<'a> {
    format: u32,
    namespaces: Vec<Namespace<'a>>,
    gaps: &'a [String],
}

#[derive(Serialize)]
struct Namespace<'a> {
    netns: u64,
    netns_label: &'a str,
    interfaces: Vec<Device<'a>>,
}

#[derive(Serialize)]
struct Device<'a> {
    name: String,
    ifindex: u32,
    xdp: Option<Attached<'a>>,
    error: Option<String>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Attached<'a> {
    Chain(Dispatcher<'a>),
    Foreign(Foreign),
}

#[derive(Serialize)]
struct Dispatcher<'a> {
    #[serde(rename = "dispatcher")]
    id: u32,
    tag: String,
    protocol_version: u8,
    mode: String,
    #[serde(flatten)]
    held: Held,
    frags: bool,
    device_bound: bool,
    whole: bool,
    state: &'static str,
    recovery: Option<&'a [PlanLine]>,
    pins: Option<PathBuf>,
    programs: Vec<Slot>,
}

#[derive(Serialize)]
struct Slot {
    #[serde(rename = "slot")]
    number: usize,
    priority: u32,
    chain_actions: Vec<String>,
    frags: bool,
    device_bound: bool,
    linked: bool,
    program: Option<Component>,
}

#[derive(Serialize)]
struct Component {
    id: u32,
    name: String,
    tag: String,
    load_time_ns: u64,
    pin: PathBuf,
}

#[derive(Serialize)]
struct Foreign {
    id: u32,
    name: String,
    tag: String,
    mode: String,
    #[serde(flatten)]
    held: Held,
    load_time_ns: u64,
}

#[derive(Serialize)]
struct Held {
    attached_by: Option<&'static str>,
    link: Option<u32>,
}

pub(super) fn one(section: &Section) -> Result<String> {
    text(&One { format: FORMAT, namespace: section.into() })
}

pub(super) fn all(sections: &[Section], gaps: &[String]) -> Result<String> {
    text(&All { format: FORMAT, namespaces: sections.iter().map(Namespace::from).collect(), gaps })
}

fn text(report: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}

impl<'a> From<&'a Section> for Namespace<'a> {
    fn from(section: &'a Section) -> Self {
        Self {
            netns: section.netns.inode(),
            netns_label: section.netns.label(),
            interfaces: section.entries.iter().map(Device::from).collect(),
        }
    }
}

impl<'a> From<&'a Entry> for Device<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            name: entry.interface.name().to_owned(),
            ifindex: entry.interface.index(),
            xdp: match &entry.found {
                Ok(Occupant::Chain(chain)) => Some(Attached::Chain(Dispatcher::of(entry, chain))),
                Ok(Occupant::Foreign(program)) => Some(Attached::Foreign(program.into())),
                _ => None,
            },
            error: entry.found.as_ref().err().map(ToString::to_string),
        }
    }
}

impl<'a> Dispatcher<'a> {
    fn of(entry: &'a Entry, chain: &Chain) -> Self {
        Self {
            id: chain.dispatcher,
            tag: hex(chain.tag),
            protocol_version: chain.version,
            mode: mode_name(chain.mode),
            held: Some(chain.attached_by).into(),
            frags: chain.has_frags,
            device_bound: chain.is_device_bound,
            whole: chain.is_whole(),
            state: State::of(entry, chain).name(),
            recovery: entry.plan.as_deref(),
            pins: chain.pins.clone(),
            programs: chain.members.iter().map(Slot::from).collect(),
        }
    }
}

impl From<&Member> for Slot {
    fn from(member: &Member) -> Self {
        let actions = member.actions.to_string();
        let actions = actions.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
        Self {
            number: member.slot,
            priority: member.priority,
            chain_actions: actions.collect(),
            frags: member.has_frags,
            device_bound: member.is_device_bound,
            linked: member.is_linked,
            program: member.component.as_ref().map(Component::from),
        }
    }
}

impl From<&oxdp::Component> for Component {
    fn from(component: &oxdp::Component) -> Self {
        Self {
            id: component.id,
            name: component.name.clone(),
            tag: hex(component.tag),
            load_time_ns: nanoseconds(component.load_time),
            pin: component.pin.clone(),
        }
    }
}

impl From<&ForeignProgram> for Foreign {
    fn from(program: &ForeignProgram) -> Self {
        Self {
            id: program.id,
            name: program.name.clone(),
            tag: hex(program.tag),
            mode: mode_name(program.mode),
            held: program.attached_by.into(),
            load_time_ns: nanoseconds(program.load_time),
        }
    }
}

impl From<Option<AttachedBy>> for Held {
    fn from(by: Option<AttachedBy>) -> Self {
        match by {
            Some(AttachedBy::Link { id }) => Self { attached_by: Some("link"), link: Some(id) },
            Some(_) => Self { attached_by: Some("netlink"), link: None },
            None => Self { attached_by: None, link: None },
        }
    }
}

fn nanoseconds(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
