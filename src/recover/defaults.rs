//! Default AF_XDP programs, and who uses them: a process that is killed is in their counter for ever.

use super::inventory::{SeenDefault, SeenInterface, SeenNetns, SeenProgram};
use crate::dispatcher::SlotLink;
use crate::pins::FoundPins;
use crate::sys::Kernel;
use crate::xsk::program::{self, Usage, Watch};

/// Where they are looked for.
pub(super) struct Defaults<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) watch: Watch<'a>,
    pub(super) links: &'a [SlotLink],
    pub(super) pins: &'a [FoundPins],
}

impl Defaults<'_> {
    /// Looks at what runs on each interface.
    pub(super) fn add_to(&self, namespaces: &mut [SeenNetns]) {
        for interface in namespaces.iter_mut().flat_map(|netns| &mut netns.interfaces) {
            for program in self.running_on(interface) {
                interface.defaults.extend(self.look(program));
            }
        }
    }

    /// The programs that run there: what the kernel's links tell, and before 5.13 only the pins.
    fn running_on(&self, interface: &SeenInterface) -> Vec<u32> {
        let attached = interface.program;
        match &interface.what {
            SeenProgram::Unknown { .. } => Vec::new(),
            SeenProgram::Foreign { .. } => vec![attached],
            SeenProgram::Chain(_) => {
                let links = self.links.iter().filter(|link| link.target == Some(attached));
                let pins = self.pins.iter().filter(|pins| pins.dispatcher == attached);
                let pinned = pins.flat_map(|pins| pins.slots.values()).filter_map(|slot| slot.0);
                let mut programs: Vec<_> = links.map(|link| link.program).chain(pinned).collect();
                programs.sort_unstable();
                programs.dedup();
                programs
            }
        }
    }

    /// One that cannot be looked at is as good as somebody's.
    fn look(&self, program: u32) -> Option<SeenDefault> {
        let seen = program::look(self.kernel, &self.watch, program).unwrap_or_else(|error| {
            log::debug!("program {program}: {error}");
            None
        })?;
        let in_use = match seen.usage {
            Usage::Nobody => None,
            Usage::By(who) | Usage::Unknown(who) => Some(who),
        };
        Some(SeenDefault { program, count: seen.count, in_use })
    }
}
