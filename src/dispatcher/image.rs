//! The prebuilt BPF programs, linked: instructions, BTF, and where the configuration map goes in.

#[rustfmt::skip]
#[path = "generated.rs"]
mod generated;

pub(super) use generated::{XDP_DISPATCHER, XDP_DISPATCHER_V2, XDP_PASS};

/// A function of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Index of its first instruction.
    pub(super) start: u32,
    /// Its type id in the image's BTF.
    pub(super) btf_id: u32,
}

/// A program as the kernel takes it.
#[derive(Debug)]
pub(super) struct Image {
    /// Little-endian, 8 bytes each.
    pub(super) instructions: &'static [u64],
    /// The first is the program's entry.
    pub(super) functions: &'static [Function],
    /// Indices of the instructions that load the address of the configuration.
    pub(super) config_loads: &'static [usize],
    pub(super) btf: &'static [u8],
}

impl Image {
    pub(super) fn function(&self, name: &str) -> Option<Function> {
        self.functions.iter().copied().find(|function| function.name == name)
    }

    /// Pairs of instruction index and BTF type id, as the kernel wants them.
    pub(super) fn function_info(&self) -> Vec<[u32; 2]> {
        self.functions.iter().map(|function| [function.start, function.btf_id]).collect()
    }

    /// The instructions with map `fd` behind the configuration.
    pub(super) fn instructions_with(&self, fd: u32) -> Vec<u64> {
        let mut instructions = self.instructions.to_vec();
        for &at in self.config_loads {
            if let Some(instruction) = instructions.get_mut(at) {
                *instruction = (*instruction & 0xffff_ffff) | (u64::from(fd) << 32);
            }
        }
        instructions
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{Config, MAX_PROGRAMS, ProtocolVersion};
    use super::*;
    use crate::program::Btf;

    #[test]
    fn each_version_s_btf_tells_it_and_where_its_configuration_is() {
        let versions =
            [(ProtocolVersion::V2, &XDP_DISPATCHER_V2), (ProtocolVersion::V3, &XDP_DISPATCHER)];
        for (version, image) in versions {
            let btf = Btf::parse(image.btf.to_vec()).unwrap();
            let (told, ..) = btf.variable("xdp_metadata", "dispatcher_version").unwrap();
            assert_eq!(btf.encoded_number(told), Some(u32::from(version.number())));
            let (_, offset, size) = btf.variable(".rodata", "conf").unwrap();
            let config = Config {
                version: version.number(),
                has_frags: false,
                is_device_bound: false,
                slots: Vec::new(),
            };
            assert_eq!((offset, size), (0, config.encode().len()));
        }
    }

    /// So a slot's function is found in one of them for all.
    #[test]
    fn the_versions_have_the_same_functions() {
        assert_eq!(XDP_DISPATCHER.functions, XDP_DISPATCHER_V2.functions);
        let btf = Btf::parse(XDP_DISPATCHER.btf.to_vec()).unwrap();
        for function in XDP_DISPATCHER.functions {
            assert_eq!(btf.function_name(function.btf_id), Some(function.name));
        }
        assert_eq!(XDP_DISPATCHER.functions[0].name, "xdp_dispatcher");
        for slot in 0..MAX_PROGRAMS {
            assert!(XDP_DISPATCHER.function(&format!("prog{slot}")).is_some());
        }
    }

    #[test]
    fn the_map_goes_into_the_upper_half_of_each_load() {
        let instructions = XDP_DISPATCHER.instructions_with(0x1234);
        assert!(!XDP_DISPATCHER.config_loads.is_empty());
        for &at in XDP_DISPATCHER.config_loads {
            assert_eq!(instructions[at] >> 32, 0x1234);
            assert_eq!(instructions[at] & 0xff, 0x18, "a 64-bit immediate load");
        }
    }
}
