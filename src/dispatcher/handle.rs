//! The entry to the library: where pins go, and the operations on an interface.

use super::inspect::{self, Occupant};
use super::transaction::{Change, Outcome, Transaction};
use crate::error::{Error, ErrorKind, Result};
use crate::net::{Attachment, Interface, Mode};
use crate::pins::{Auto, Location, Patience, PinLayout, Store};
use crate::program::Program;
use crate::sys::Kernel;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often an interface is looked at again when its program goes away in between.
const LOOKS: u32 = 10;

/// Chains of XDP programs: attaches, inspects and detaches them.
///
/// A value of settings and nothing else: the chains live in the kernel and in bpffs, so any number of
/// these, in any number of processes, work on the same interfaces. Changing a chain needs `CAP_SYS_ADMIN`
/// (programs are opened by id) and `CAP_NET_ADMIN`, and kernel 5.10.
#[derive(Clone, Debug)]
pub struct Xdp {
    kernel: Kernel,
    location: Location,
    layout: Arc<dyn PinLayout>,
    patience: Patience,
}

/// Settings for an [`Xdp`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    kernel: Kernel,
    location: Location,
    layout: Option<Arc<dyn PinLayout>>,
    patience: Patience,
}

impl Builder {
    /// The mount point of the bpf file system, in place of `LIBXDP_BPFFS` or `/sys/fs/bpf`.
    pub fn bpffs(mut self, path: impl Into<PathBuf>) -> Self {
        self.location.path = path.into();
        self
    }

    /// Whether to mount a bpf file system there if there is none, in place of `LIBXDP_BPFFS_AUTOMOUNT`.
    /// Needs `CAP_SYS_ADMIN`; the mount stays.
    pub fn mount_bpffs(mut self, mount: bool) -> Self {
        self.location.mount = mount;
        self
    }

    /// Where below bpffs pins go, in place of [`Auto`].
    pub fn layout(mut self, layout: impl PinLayout + 'static) -> Self {
        self.layout = Some(Arc::new(layout));
        self
    }

    /// How long to wait for a lock that another process holds, in place of for ever.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.patience = Patience(Some(limit));
        self
    }

    /// The settings as a value to work with. The bpf file system is looked for when it is first needed.
    pub fn build(self) -> Result<Xdp> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => Arc::new(Auto::detect()?),
        };
        let Self { kernel, location, patience, .. } = self;
        Ok(Xdp { kernel, location, layout, patience })
    }

    #[cfg(test)]
    pub(super) fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }
}

impl Xdp {
    /// With the default settings: bpffs as the environment says, pins by [`Auto`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// To choose other settings.
    pub fn builder() -> Builder {
        let kernel = Kernel::default();
        let location = Location::from_environment(&kernel);
        Builder { kernel, location, layout: None, patience: Patience::default() }
    }

    /// Adds a program to the chain on an interface; on an empty interface, starts one.
    ///
    /// The programs that are there go on running all the while: the new chain takes the place of the old one
    /// between two packets. On any error nothing has changed.
    ///
    /// # Errors
    /// [`ErrorKind::ChainFull`], [`ErrorKind::AlreadyAttached`], [`ErrorKind::ForeignProgram`],
    /// [`ErrorKind::DamagedChain`], [`ErrorKind::DeviceBound`],
    /// [`ErrorKind::ModeConflict`], [`ErrorKind::ModeUnsupported`], [`ErrorKind::ProtocolVersion`],
    /// [`ErrorKind::Rejected`], [`ErrorKind::NoFreplace`], [`ErrorKind::NoPrivilege`],
    /// [`ErrorKind::NoBpffs`], [`ErrorKind::NoInterface`], [`ErrorKind::LockTimeout`],
    /// [`ErrorKind::Contended`].
    #[doc(alias = "xdp_program__attach")]
    pub fn attach(
        &self,
        interface: &Interface,
        program: &mut Program,
        mode: Mode,
    ) -> Result<Outcome> {
        self.attach_all(interface, &mut [program], mode)
    }

    /// Adds several programs in one change. Errors as [`attach`](Xdp::attach).
    #[doc(alias = "xdp_program__attach_multi")]
    pub fn attach_all(
        &self,
        interface: &Interface,
        programs: &mut [&mut Program],
        mode: Mode,
    ) -> Result<Outcome> {
        if programs.is_empty() {
            let invalid = std::io::Error::from_raw_os_error(libc::EINVAL);
            let message = "no programs given".into();
            let kind = ErrorKind::Os { source: invalid, message };
            return Err(Error::new("attach to", interface, kind));
        }
        self.change(interface, Change::Add { programs, mode })
    }

    /// Takes one program, by its id, out of the chain on an interface, and the chain off the interface if it
    /// was the last.
    ///
    /// # Errors
    /// [`ErrorKind::NotAttached`] if it is not in it; else as [`attach`](Xdp::attach).
    #[doc(alias = "xdp_program__detach")]
    pub fn detach(&self, interface: &Interface, program: u32) -> Result<Outcome> {
        self.change(interface, Change::Remove(&[program]))
    }

    /// Takes the whole chain off an interface, even a damaged one.
    ///
    /// # Errors
    /// [`ErrorKind::NotAttached`] if there is none; else as [`attach`](Xdp::attach).
    #[doc(alias = "xdp_multiprog__detach")]
    pub fn detach_all(&self, interface: &Interface) -> Result<Outcome> {
        self.change(interface, Change::RemoveAll)
    }

    /// What is on an interface. Changes nothing, and takes no lock: a chain that is replaced while it is read
    /// is read again.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`]; [`ErrorKind::NoPrivilege`]; [`ErrorKind::Contended`].
    #[doc(alias = "xdp_multiprog__get_from_ifindex")]
    pub fn inspect(&self, interface: &Interface) -> Result<Occupant> {
        let attachment = Attachment::open(&self.kernel, interface)?;
        let store = match self.location.look(&self.kernel) {
            Ok(root) => Some(self.store_at(root)),
            Err(error) if matches!(error.kind(), ErrorKind::NoBpffs(_)) => None,
            Err(error) => return Err(error),
        };
        for _ in 0..LOOKS {
            let Some(attached) = attachment.query()? else {
                return Ok(Occupant::Empty);
            };
            let live = inspect::read(&self.kernel, store.as_ref(), interface, attached)?;
            // A chain that was replaced half-way through looks damaged, and is not.
            if let Some(live) = live
                && attachment.query()? == Some(attached)
            {
                return Ok(live.into());
            }
        }
        Err(Error::new("inspect", interface, ErrorKind::Contended { attempts: LOOKS }))
    }

    fn change(&self, interface: &Interface, change: Change<'_, '_>) -> Result<Outcome> {
        let store = self.store_at(self.location.open(&self.kernel)?);
        Transaction::new(&self.kernel, &store, interface)?.run(change)
    }

    fn store_at(&self, root: PathBuf) -> Store {
        Store::new(self.kernel.clone(), root, Arc::clone(&self.layout), self.patience)
    }
}
