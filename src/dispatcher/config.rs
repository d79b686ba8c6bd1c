//! The dispatcher's configuration as it lies in its map: three versions of one record. Pure.

use crate::program::ChainActions;

/// The most programs that one chain holds; `MAX_DISPATCHER_ACTIONS` of the protocol.
pub const MAX_PROGRAMS: usize = 10;
const MAGIC: u8 = 236;
const ARRAY: usize = MAX_PROGRAMS * 4;
/// Bytes of the record in each version: the leading bytes padded to a word, the arrays, and in version 3 one
/// more byte padded to a word.
const SIZES: [(u8, usize); 3] = [(1, 4 + 2 * ARRAY), (2, 4 + 3 * ARRAY), (3, 8 + 3 * ARRAY)];
/// Flags as they stand in a slot.
const HAS_FRAGS: u32 = libbpf_sys::BPF_F_XDP_HAS_FRAGS;
const DEVICE_BOUND: u32 = libbpf_sys::BPF_F_XDP_DEV_BOUND_ONLY;

/// A version of the protocol that chains are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// Since libxdp 1.3. libxdp 1.6 refuses to change such a chain.
    V2 = 2,
    /// Since libxdp 1.6. Older ones refuse to change such a chain. Only this version has chains that are bound to
    /// their device.
    #[default]
    V3 = 3,
}

impl ProtocolVersion {
    /// The version with this number, if it is one that is written.
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::V2, Self::V3].into_iter().find(|version| version.number() == number)
    }

    /// As the protocol counts: 2 or 3.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// One slot's part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotConfig {
    pub(super) priority: u32,
    pub(super) actions: ChainActions,
    /// Flags that the program was loaded with; 0 in version 1.
    pub(super) flags: u32,
}

impl SlotConfig {
    pub(super) fn has_frags(self) -> bool {
        self.flags & HAS_FRAGS != 0
    }

    pub(super) fn is_device_bound(self) -> bool {
        self.flags & DEVICE_BOUND != 0
    }

    pub(super) fn flags_of(has_frags: bool, is_device_bound: bool) -> u32 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(has_frags, HAS_FRAGS) | flag(is_device_bound, DEVICE_BOUND)
    }
}

/// What a dispatcher was built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) version: u8,
    pub(super) has_frags: bool,
    pub(super) is_device_bound: bool,
    /// At most [`MAX_PROGRAMS`].
    pub(super) slots: Vec<SlotConfig>,
}

impl Config {
    /// Whether a record of some version is this long, in bytes. Asked before as much is read.
    pub(super) fn has_size(size: u32) -> bool {
        SIZES.iter().any(|(_, known)| u32::try_from(*known) == Ok(size))
    }

    /// Reads the record. `None` if it is none of the three: another size, magic or version, or too many slots.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &(version, _) = SIZES.iter().find(|(_, size)| *size == bytes.len())?;
        let byte = |at: usize| bytes.get(at).copied();
        let (count, has_frags, arrays) = if version == 1 {
            (byte(0)?, false, 2)
        } else {
            if byte(0)? != MAGIC || byte(1)? != version {
                return None;
            }
            (byte(2)?, byte(3)? != 0, 3)
        };
        let count = usize::from(count);
        if count > MAX_PROGRAMS {
            return None;
        }
        let word = |array: usize, slot: usize| {
            let at = 4 + array * ARRAY + slot * 4;
            Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let slot = |slot| {
            Some(SlotConfig {
                actions: ChainActions::from_wire(word(0, slot)?),
                priority: word(1, slot)?,
                flags: if arrays == 3 { word(2, slot)? } else { 0 },
            })
        };
        Some(Self {
            version,
            has_frags,
            is_device_bound: version == 3 && byte(4 + 3 * ARRAY)? != 0,
            slots: (0..count).map(slot).collect::<Option<_>>()?,
        })
    }

    /// Writes the record of a version that has a magic number: 2 or 3.
    pub(super) fn encode(&self) -> Vec<u8> {
        let count = u8::try_from(self.slots.len()).unwrap_or(u8::MAX);
        let head = [MAGIC, self.version, count, u8::from(self.has_frags)];
        let array = |field: fn(&SlotConfig) -> u32| {
            let words = self.slots.iter().map(field).chain(std::iter::repeat(0));
            words.take(MAX_PROGRAMS).flat_map(u32::to_ne_bytes)
        };
        let record = head
            .into_iter()
            .chain(array(|slot| slot.actions.to_wire()))
            .chain(array(|slot| slot.priority))
            .chain(array(|slot| slot.flags));
        let bound = [u8::from(self.is_device_bound), 0, 0, 0];
        let tail = if self.version > 2 { &bound[..] } else { &[] };
        record.chain(tail.iter().copied()).collect()
    }
}

/// What is read can be written, and is the same when it is read again; bytes that are canonical come back as they were.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    let Some(config) = Config::decode(data) else { return };
    assert!(Config::has_size(u32::try_from(data.len()).expect("a few bytes")));
    assert!(config.slots.len() <= MAX_PROGRAMS);
    if config.version == 1 {
        return;
    }
    let written = config.encode();
    assert_eq!(written.len(), data.len());
    assert_eq!(Config::decode(&written).as_ref(), Some(&config));
    assert_eq!(Config::decode(&written).expect("just read").encode(), written);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slot(priority: u32) -> SlotConfig {
        SlotConfig { priority, actions: ChainActions::PASS, flags: HAS_FRAGS }
    }

    #[test]
    fn version_3_byte_for_byte() {
        let config = Config {
            version: 3,
            has_frags: true,
            is_device_bound: true,
            slots: vec![slot(10), slot(20)],
        };
        let bytes = config.encode();
        assert_eq!(bytes[..12], [236, 3, 2, 1, 4, 0, 0, 0x80, 4, 0, 0, 0x80]);
        assert_eq!(bytes[12..44], [0; 32]);
        assert_eq!(bytes[44..52], [10, 0, 0, 0, 20, 0, 0, 0]);
        assert_eq!(bytes[84..92], [32, 0, 0, 0, 32, 0, 0, 0]);
        assert_eq!(bytes[124..], [1, 0, 0, 0]);
        assert_eq!(Config::decode(&bytes), Some(config));
    }

    #[test]
    fn older_versions_are_read() {
        let mut v1 = [0_u8; 84];
        (v1[0], v1[4], v1[7], v1[44]) = (1, 4, 0x80, 50);
        let config = Config::decode(&v1).unwrap();
        assert_eq!((config.version, config.slots.len()), (1, 1));
        assert_eq!(config.slots[0], SlotConfig { flags: 0, ..slot(50) });

        let mut v2 = [0_u8; 124];
        v2[..4].copy_from_slice(&[236, 2, 1, 1]);
        (v2[4], v2[44], v2[84]) = (4, 50, 32);
        let config = Config::decode(&v2).unwrap();
        assert_eq!((config.version, config.has_frags), (2, true));
        assert!(config.slots[0].has_frags());
        assert_eq!(
            config.encode()[..84],
            v2[..84]
                .iter()
                .enumerate()
                .map(|(at, byte)| { if at == 7 { byte | 0x80 } else { *byte } })
                .collect::<Vec<_>>()
        );
        assert_eq!(config.encode().len(), v2.len());
    }

    #[test]
    fn anything_else_is_none() {
        let good = Config { version: 3, has_frags: false, is_device_bound: false, slots: vec![] };
        let good = good.encode();
        for (at, byte) in [(0, 235), (1, 2), (1, 4), (2, 11), (2, 255)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(Config::decode(&bad), None, "byte {at} = {byte}");
        }
        assert_eq!(Config::decode(&good[..124]), None, "version 3 in version 2's size");
        assert_eq!(Config::decode(&[]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            version in 2..4_u8,
            has_frags: bool,
            is_device_bound: bool,
            slots in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u32>()), 0..=MAX_PROGRAMS),
        ) {
            let slot = |(priority, actions, flags)| SlotConfig {
                priority,
                actions: ChainActions::from_wire(actions),
                flags,
            };
            let config = Config {
                version,
                has_frags,
                is_device_bound: is_device_bound && version > 2,
                slots: slots.into_iter().map(slot).collect(),
            };
            let bytes = config.encode();
            prop_assert!(Config::has_size(u32::try_from(bytes.len()).unwrap()));
            prop_assert_eq!(Config::decode(&bytes), Some(config));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160)) {
            let _ = Config::decode(&bytes);
            for (version, size) in SIZES {
                let mut bytes = bytes.clone();
                bytes.resize(size, 0);
                if version > 1 {
                    bytes.splice(..2, [MAGIC, version]);
                }
                if let Some(config) = Config::decode(&bytes) {
                    prop_assert!(config.slots.len() <= MAX_PROGRAMS);
                }
            }
        }
    }
}
