//! The types of the dispatcher's functions and of its configuration, as BTF.

#[rustfmt::skip]
#[path = "generated.rs"]
mod generated;

pub(super) use generated::{XDP_DISPATCHER, XDP_DISPATCHER_V2};

/// A function of a dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// Its type id in the BTF.
    pub(super) btf_id: u32,
}

/// What the C source of a dispatcher declares.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) functions: &'static [Function],
    pub(super) btf: &'static [u8],
}

impl Types {
    pub(super) fn function(&self, name: &str) -> Option<Function> {
        self.functions.iter().copied().find(|function| function.name == name)
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
        assert!(XDP_DISPATCHER.function("xdp_dispatcher").is_some());
        for slot in 0..MAX_PROGRAMS {
            assert!(XDP_DISPATCHER.function(&format!("prog{slot}")).is_some());
        }
    }
}
