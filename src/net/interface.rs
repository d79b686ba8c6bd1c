//! An interface in a namespace.

use super::Netns;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::Kernel;
use crate::sys::netlink::{RouteSocket, Which};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LOOK_UP: &str = "look up";

/// A network interface: an ifindex in a namespace. The name is the one it had when it was looked up.
///
/// Cheap to clone. Keeps the socket that it was found with, which stays in its namespace: so not every question takes a
/// thread that enters it.
#[derive(Clone)]
pub struct Interface {
    netns: Netns,
    index: u32,
    name: String,
    socket: Arc<Mutex<RouteSocket>>,
}

impl PartialEq for Interface {
    fn eq(&self, other: &Self) -> bool {
        (&self.netns, self.index, &self.name) == (&other.netns, other.index, &other.name)
    }
}

impl Eq for Interface {}

impl fmt::Debug for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Interface {
    /// The interface called `name` in `netns`; alternative names work too.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`] if there is none.
    pub fn by_name(netns: &Netns, name: &str) -> Result<Self> {
        let kernel = Kernel::default();
        let object = || format!("{name} in {netns}");
        let mut socket = socket(&kernel, netns, object)?;
        let link = kernel.link_get(&mut socket, Which::Name(name)).map_err(|error| {
            let kind = match error.source.raw_os_error() {
                // ERANGE for a name that is too long.
                Some(libc::ENODEV | libc::EINVAL | libc::ERANGE) => ErrorKind::NoInterface,
                _ => error.into(),
            };
            Error::new(LOOK_UP, object(), kind)
        })?;
        let socket = Arc::new(Mutex::new(socket));
        Ok(Self { netns: netns.clone(), index: link.index, name: link.name, socket })
    }

    /// The interface with this ifindex in `netns`.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`] if there is none.
    pub fn by_index(netns: &Netns, index: u32) -> Result<Self> {
        let kernel = Kernel::default();
        let object = || format!("ifindex {index} in {netns}");
        let socket = socket(&kernel, netns, object)?;
        let name = kernel.link_name(&socket, index).map_err(|error| {
            let is_none = error.raw_os_error() == Some(libc::ENODEV);
            let kind = if is_none { ErrorKind::NoInterface } else { error.into() };
            Error::new(LOOK_UP, object(), kind)
        })?;
        Ok(Self { netns: netns.clone(), index, name, socket: Arc::new(Mutex::new(socket)) })
    }

    /// The socket to ask and change it by, for one exchange at a time. What a panic has left in it is passed over as a
    /// late answer.
    pub(crate) fn socket(&self) -> MutexGuard<'_, RouteSocket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The namespace that the interface is in.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its ifindex, unique only within the namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its Ethernet address, as it is now; `None` of one that has another kind of address, or none.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`] if it is gone.
    pub fn ethernet_address(&self) -> Result<Option<[u8; 6]>> {
        let link = Kernel::default().link_get(&mut self.socket(), Which::Index(self.index));
        let link = link.map_err(|error| match error.source.raw_os_error() {
            Some(libc::ENODEV) => ErrorKind::NoInterface,
            _ => error.into(),
        });
        Ok(link.during("look up", self)?.address.try_into().ok())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (ifindex {}) in {}", self.name, self.index, self.netns)
    }
}

/// A socket in `netns`, to ask for `object`.
fn socket(kernel: &Kernel, netns: &Netns, object: impl Fn() -> String) -> Result<RouteSocket> {
    netns.enter(kernel, || kernel.route_socket())?.during(LOOK_UP, object())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_loopback_by_name_and_by_index() {
        let netns = Netns::current().unwrap();
        let lo = Interface::by_name(&netns, "lo").unwrap();
        assert_eq!(lo, Interface::by_index(&netns, lo.index()).unwrap());
        assert_eq!(lo.name(), "lo");
        assert_eq!(lo.ethernet_address().unwrap(), Some([0; 6]));
    }

    #[test]
    fn an_absent_interface_is_told_by_name() {
        let netns = Netns::current().unwrap();
        for name in ["absent0", "", "lo\0", "a-name-that-is-longer-than-any-interface-has"] {
            let error = Interface::by_name(&netns, name).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NoInterface), "{name:?}: {error}");
            assert!(error.to_string().contains(name));
        }
        for index in [0, 999_999, u32::MAX] {
            let error = Interface::by_index(&netns, index).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NoInterface), "{index}: {error}");
        }
    }
}
