//! The members of `union bpf_attr` (include/uapi/linux/bpf.h) that we use, each as far as we fill it: the
//! kernel takes a shorter attr and reads the rest as zeroes. None has padding.

/// `BPF_OBJ_NAME_LEN`, the closing NUL included.
pub(super) const NAME_LENGTH: usize = 16;

#[repr(C)]
#[derive(Default)]
pub(super) struct MapCreateAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; NAME_LENGTH],
    pub(super) map_ifindex: u32,
    pub(super) btf_fd: u32,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    pub(super) btf_vmlinux_value_type_id: u32,
    pub(super) map_extra: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct MapElementAttr {
    pub(super) map_fd: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct ProgramLoadAttr {
    pub(super) prog_type: u32,
    pub(super) insn_cnt: u32,
    pub(super) insns: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log_buf: u64,
    pub(super) kern_version: u32,
    pub(super) prog_flags: u32,
    pub(super) prog_name: [u8; NAME_LENGTH],
    pub(super) prog_ifindex: u32,
    pub(super) expected_attach_type: u32,
    pub(super) prog_btf_fd: u32,
    pub(super) func_info_rec_size: u32,
    pub(super) func_info: u64,
    pub(super) func_info_cnt: u32,
    pub(super) line_info_rec_size: u32,
    pub(super) line_info: u64,
    pub(super) line_info_cnt: u32,
    pub(super) attach_btf_id: u32,
    pub(super) attach_prog_fd: u32,
    pub(super) padding: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct BtfLoadAttr {
    pub(super) btf: u64,
    pub(super) log_buf: u64,
    pub(super) btf_size: u32,
    pub(super) log_size: u32,
    pub(super) log_level: u32,
    pub(super) padding: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct ObjectAttr {
    pub(super) pathname: u64,
    pub(super) bpf_fd: u32,
    pub(super) file_flags: u32,
    pub(super) path_fd: u32,
    pub(super) padding: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next_id: u32,
    pub(super) open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct InfoAttr {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct LinkCreateAttr {
    pub(super) prog_fd: u32,
    pub(super) target_fd: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
    pub(super) target_btf_id: u32,
}

/// `BPF_LINK_CREATE` of an XDP program onto an interface.
#[repr(C)]
#[derive(Default)]
pub(super) struct XdpLinkAttr {
    pub(super) prog_fd: u32,
    pub(super) target_ifindex: u32,
    pub(super) attach_type: u32,
    pub(super) flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct LinkUpdateAttr {
    pub(super) link_fd: u32,
    pub(super) new_prog_fd: u32,
    pub(super) flags: u32,
    pub(super) old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
pub(super) struct TestRunAttr {
    pub(super) prog_fd: u32,
    pub(super) retval: u32,
    pub(super) data_size_in: u32,
    pub(super) data_size_out: u32,
    pub(super) data_in: u64,
    pub(super) data_out: u64,
    pub(super) repeat: u32,
    pub(super) duration: u32,
    pub(super) ctx_size_in: u32,
    pub(super) ctx_size_out: u32,
    pub(super) ctx_in: u64,
    pub(super) ctx_out: u64,
    pub(super) flags: u32,
    pub(super) cpu: u32,
    pub(super) batch_size: u32,
    pub(super) padding: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use libbpf_sys as bpf_sys;
    use std::mem::offset_of;

    /// Our attrs against the full union of libbpf's headers.
    #[test]
    fn attrs_have_the_kernel_s_layout() {
        type Create = bpf_sys::bpf_attr__bindgen_ty_1;
        type Load = bpf_sys::bpf_attr__bindgen_ty_4;
        type Run = bpf_sys::bpf_attr__bindgen_ty_7;
        type Update = bpf_sys::bpf_attr__bindgen_ty_15;
        assert_eq!(offset_of!(MapCreateAttr, map_name), offset_of!(Create, map_name));
        assert_eq!(offset_of!(MapCreateAttr, map_extra), offset_of!(Create, map_extra));
        assert_eq!(offset_of!(TestRunAttr, data_out), offset_of!(Run, data_out));
        assert_eq!(offset_of!(TestRunAttr, ctx_out), offset_of!(Run, ctx_out));
        assert_eq!(offset_of!(TestRunAttr, batch_size), offset_of!(Run, batch_size));
        assert_eq!(offset_of!(LinkUpdateAttr, flags), offset_of!(Update, flags));
        assert_eq!(size_of::<LinkUpdateAttr>(), 16);
        assert_eq!(offset_of!(ProgramLoadAttr, prog_name), offset_of!(Load, prog_name));
        assert_eq!(offset_of!(ProgramLoadAttr, prog_btf_fd), offset_of!(Load, prog_btf_fd));
        assert_eq!(offset_of!(ProgramLoadAttr, func_info_cnt), offset_of!(Load, func_info_cnt));
        assert_eq!(offset_of!(ProgramLoadAttr, attach_btf_id), offset_of!(Load, attach_btf_id));
        assert_eq!(size_of::<MapElementAttr>(), 32);
        assert_eq!(size_of::<LinkCreateAttr>(), 20);
        assert_eq!(size_of::<ProgramLoadAttr>(), 120);
    }
}
