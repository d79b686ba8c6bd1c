//! What the kernel writes into links and tables of `/proc`, read. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// `PF_KTHREAD`; include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// `MNT_NS_INIT_INO`, from which on namespaces have their inodes, and some room; include/uapi/linux/nsfs.h.
const NAMESPACES_BEGIN: u64 = 0xefff_fff0;

/// What a link in `/proc` leads to, as its text tells; namespaces and sockets by their inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Netns(u64),
    MountNs(u64),
    Socket(u64),
    /// `/dev/net/tun`, of which each descriptor keeps a namespace as a socket does.
    Tun,
    /// A file. Also a namespace, if it was opened by a path that it is bound to.
    File,
    Other,
}

/// Reads texts such as `net:[4026531840]`.
pub(super) fn target(text: &str) -> Target {
    let inode = |kind| text.strip_prefix(kind)?.strip_suffix(']')?.parse().ok();
    if let Some(inode) = inode("net:[") {
        Target::Netns(inode)
    } else if let Some(inode) = inode("mnt:[") {
        Target::MountNs(inode)
    } else if let Some(inode) = inode("socket:[") {
        Target::Socket(inode)
    } else if text == "/dev/net/tun" {
        Target::Tun
    } else if text.starts_with('/') {
        Target::File
    } else {
        Target::Other
    }
}

/// A line of a mount table that a survey wants to know of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// A namespace's file, bound to a path.
    Namespace { target: Target, path: PathBuf },
    /// A bpf file system, or a directory of one.
    Bpf { device: u64, is_whole: bool, path: PathBuf },
    /// A `/proc` that shows processes only to who may trace them.
    HidingProc { path: PathBuf },
}

/// Reads a line of `/proc/PID/mountinfo`; proc(5):
///
/// `36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda rw,errors=continue`, with any number of fields
/// before the dash, also none.
pub(super) fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let (root, path) = (fields.next()?, fields.next()?);
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let path = || PathBuf::from(OsString::from_vec(unescape(path)));
    match kind {
        b"nsfs" => {
            let target = target(std::str::from_utf8(root).ok()?);
            Some(Mount::Namespace { target, path: path() })
        }
        b"bpf" => {
            let device = device_number(std::str::from_utf8(device).ok()?)?;
            Some(Mount::Bpf { device, is_whole: root == b"/", path: path() })
        }
        b"proc" if hides(options) => Some(Mount::HidingProc { path: path() }),
        _ => None,
    }
}

/// Whether these options of a `/proc` have it hide processes, by the numbers or, from kernel 5.8, the names.
fn hides(options: &[u8]) -> bool {
    options.split(|byte| *byte == b',').any(|option| {
        option.strip_prefix(b"hidepid=").is_some_and(|how| !matches!(how, b"0" | b"off"))
    })
}

/// `MAJOR:MINOR` in decimal, as stat(2) tells it.
fn device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let (byte, after) = match rest {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if *first == b'\\' => {
                (((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'), after)
            }
            _ => (*first, rest),
        };
        plain.push(byte);
        text = after;
    }
    plain
}

/// The inode of an open file, as `/proc/PID/fdinfo/FD` tells it from kernel 5.14 on. In contrast to stat(2), this never
/// waits for a server that is gone.
pub(super) fn inode(fdinfo: &[u8]) -> Option<u64> {
    let mut lines = fdinfo.split(|byte| *byte == b'\n');
    let inode = lines.find_map(|line| line.strip_prefix(b"ino:\t"))?;
    std::str::from_utf8(inode).ok()?.parse().ok()
}

/// Whether a namespace can have the inode, as some other files have too.
pub(super) fn may_be_namespace(inode: u64) -> bool {
    (NAMESPACES_BEGIN..=u32::MAX.into()).contains(&inode)
}

/// Whether `/proc/PID/stat` is of a thread of the kernel's own: it has no descriptors, and its namespaces are the
/// initial ones.
pub(super) fn is_kernel_thread(stat: &[u8]) -> bool {
    // The name, in parentheses, may hold anything. After it: state, five numbers, flags.
    let after = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let flags = after.split(|byte| *byte == b' ').nth(7);
    let flags = flags.and_then(|flags| std::str::from_utf8(flags).ok()?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn targets() {
        for (text, expected) in [
            ("net:[4026531840]", Target::Netns(4_026_531_840)),
            ("mnt:[7]", Target::MountNs(7)),
            ("socket:[8]", Target::Socket(8)),
            ("/dev/net/tun", Target::Tun),
            ("net:[]", Target::Other),
            ("net:[1", Target::Other),
            ("net:[18446744073709551616]", Target::Other),
            ("user:[1]", Target::Other),
            ("/tmp/net:[1]", Target::File),
            ("/", Target::File),
            ("anon_inode:[eventpoll]", Target::Other),
            ("", Target::Other),
        ] {
            assert_eq!(target(text), expected, "{text}");
        }
    }

    #[test]
    fn mounts() {
        let namespace = |target, path: &str| Some(Mount::Namespace { target, path: path.into() });
        let bpf =
            |device, is_whole, path: &str| Some(Mount::Bpf { device, is_whole, path: path.into() });
        let hiding = Some(Mount::HidingProc { path: "/proc".into() });
        for (line, expected) in [
            (
                "612 25 0:4 net:[4026532281] /run/netns/blue rw shared:296 - nsfs nsfs rw",
                namespace(Target::Netns(4_026_532_281), "/run/netns/blue"),
            ),
            // No optional field; a blank and a backslash in the path.
            (
                "612 25 0:4 mnt:[5] /a\\040b\\134c rw - nsfs nsfs rw",
                namespace(Target::MountNs(5), "/a b\\c"),
            ),
            // Two optional fields; a path that looks like the separator.
            (
                "1 2 0:4 net:[6] /- rw shared:1 master:2 - nsfs nsfs rw",
                namespace(Target::Netns(6), "/-"),
            ),
            ("1 2 0:4 pid:[6] /p rw - nsfs nsfs rw", namespace(Target::Other, "/p")),
            (
                "33 24 0:29 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700",
                bpf(29, true, "/sys/fs/bpf"),
            ),
            (
                "33 24 1:300 /tenant /bpf rw - bpf none rw",
                bpf(libc::makedev(1, 300), false, "/bpf"),
            ),
            ("22 27 0:21 / /proc rw - proc proc rw,hidepid=2", hiding),
            ("22 27 0:21 / /proc rw - proc proc rw,hidepid=off", None),
            ("22 27 0:21 / /proc rw - proc proc rw", None),
            ("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw", None),
            ("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1", None),
            ("1 2 x / / rw - bpf bpf rw", None),
            ("", None),
        ] {
            assert_eq!(mount(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn escapes() {
        for (text, plain) in [
            ("/plain", "/plain"),
            ("\\040\\011\\012\\134", " \t\n\\"),
            ("\\04", "\\04"),
            ("\\", "\\"),
            ("\\0400", " 0"),
            ("\\999", "\\999"),
        ] {
            assert_eq!(unescape(text.as_bytes()), plain.as_bytes(), "{text}");
        }
    }

    #[test]
    fn inodes_of_descriptors() {
        let fdinfo = b"pos:\t0\nflags:\t0100000\nmnt_id:\t43\nino:\t4026532177\n";
        assert_eq!(inode(fdinfo), Some(4_026_532_177));
        assert_eq!(inode(b"pos:\t0\nflags:\t0100000\nmnt_id:\t43\n"), None);
        assert!(may_be_namespace(4_026_532_177) && may_be_namespace(4_026_531_832));
        assert!(!may_be_namespace(131_074) && !may_be_namespace(1 << 40));
    }

    #[test]
    fn kernel_threads() {
        for (stat, expected) in [
            ("2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0", true),
            ("7 (a) b) (c) S 1 7 7 0 -1 4194304 0 0", false),
            // A process that would be taken for one.
            ("8 (x) S 0 0 0 0 -1 2129984) S 1 8 8 0 -1 4194560 0", false),
            ("9 (short) S 1", false),
            ("", false),
        ] {
            assert_eq!(is_kernel_thread(stat.as_bytes()), expected, "{stat}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_a_reader_panic(text in "\\PC*", bytes: Vec<u8>) {
            let _ = (target(&text), mount(text.as_bytes()), mount(&bytes), inode(&bytes));
            let _ = is_kernel_thread(&bytes);
            prop_assert!(unescape(&bytes).len() <= bytes.len());
        }
    }
}
