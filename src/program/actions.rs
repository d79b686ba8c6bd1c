//! The actions after which a chain goes on.

use bitflags::bitflags;
use std::fmt;

bitflags! {
    /// Return codes of a program after which the chain goes on with the next one.
    ///
    /// The default is [`PASS`](ChainActions::PASS). After any other code, and after an unknown one, the
    /// chain ends with that code. A chain that comes to its end passes the packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ChainActions: u32 {
        /// `XDP_ABORTED`
        const ABORTED = 1 << 0;
        /// `XDP_DROP`
        const DROP = 1 << 1;
        /// `XDP_PASS`
        const PASS = 1 << 2;
        /// `XDP_TX`
        const TX = 1 << 3;
        /// `XDP_REDIRECT`
        const REDIRECT = 1 << 4;
        /// Codes that the kernel does not know; other programs of the protocol may set their bits.
        const _ = !(1 << 31);
    }
}

/// The bit of the code that an empty slot returns: always set in a dispatcher, never in the API.
const EMPTY_SLOT: u32 = 1 << 31;

impl ChainActions {
    /// The kernel's name of each action.
    pub(super) const NAMES: [(&'static str, Self); 5] = [
        ("XDP_ABORTED", Self::ABORTED),
        ("XDP_DROP", Self::DROP),
        ("XDP_PASS", Self::PASS),
        ("XDP_TX", Self::TX),
        ("XDP_REDIRECT", Self::REDIRECT),
    ];

    pub(crate) const fn to_wire(self) -> u32 {
        self.bits() | EMPTY_SLOT
    }

    pub(crate) const fn from_wire(wire: u32) -> Self {
        Self::from_bits_truncate(wire)
    }
}

impl Default for ChainActions {
    fn default() -> Self {
        Self::PASS
    }
}

/// As `XDP_PASS,XDP_TX`.
impl fmt::Display for ChainActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().filter(|(_, action)| self.contains(*action));
        let mut words: Vec<String> = named.clone().map(|(name, _)| (*name).to_owned()).collect();
        let rest = named.fold(*self, |rest, (_, action)| rest - *action);
        if !rest.is_empty() {
            words.push(format!("{:#x}", rest.bits()));
        }
        f.pad(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_has_one_more_bit() {
        assert_eq!(ChainActions::PASS.to_wire(), 0x8000_0004);
        assert_eq!(ChainActions::from_wire(0x8000_0004), ChainActions::PASS);
        assert_eq!(ChainActions::from_wire(0x8000_0060).to_wire(), 0x8000_0060);
    }

    #[test]
    fn prints_the_kernel_s_names() {
        assert_eq!((ChainActions::PASS | ChainActions::TX).to_string(), "XDP_PASS,XDP_TX");
        assert_eq!(ChainActions::from_wire(0x24).to_string(), "XDP_PASS,0x20");
        assert_eq!(ChainActions::empty().to_string(), "");
    }
}
