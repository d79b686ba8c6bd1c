//! What a driver tells of its queues.

use super::Kernel;
use super::proc::new_descriptor;
use std::io;
use std::os::fd::AsRawFd;

/// `SIOCETHTOOL`; include/uapi/linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GCHANNELS`; include/uapi/linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// `struct ethtool_channels`
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    now: [u32; 4],
}

impl Kernel {
    /// The most receive or transmit queues that an interface of the calling thread's namespace can have; `None` where the
    /// driver does not tell (`ETHTOOL_GCHANNELS`).
    pub(crate) fn most_channels(&self, interface: &str) -> io::Result<Option<u32>> {
        self.step("socket")?;
        // SAFETY: socket(2) takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        let socket = new_descriptor(fd.into())?;
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Default::default() };
        // SAFETY: ifreq is plain bytes and a union of such, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name.iter_mut().take(room).zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut channels).cast();
        self.step("ioctl")?;
        // SAFETY: the name ends in NUL, and the kernel reads and writes one struct ethtool_channels at ifru_data.
        let asked = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        match asked {
            0 => Ok(Some(channels.max_rx.max(channels.max_tx).max(channels.max_combined))),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_no_channels() {
        assert_eq!(Kernel::default().most_channels("lo").unwrap(), None);
        let error = Kernel::default().most_channels("absent0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }
}
