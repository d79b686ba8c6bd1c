//! The entry to the library: where pins go, and the operations on an interface.

use super::change::Edit;
use super::config::ProtocolVersion;
use super::edit::Step;
use super::features;
use super::guest::Guest;
use super::inspect::{self, Live, Occupant};
use super::load::{self, Dispatcher, Loader};
use super::outcome::{Outcome, Policy};
use super::request::{Request, Way};
use super::transaction::Transaction;
use super::types::Function;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::net::{AttachBy, Attached, Attachment, Interface, Mode};
use crate::pins::{self, Location, Patience, PinLayout, Store, layout_from_environment};
use crate::program::{LoadTarget, Program, TestRun, TestRunOutcome};
use crate::sys::Kernel;
use libbpf_sys::BPF_PROG_TYPE_EXT;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often an interface is looked at again when its program goes away in between.
const LOOKS: u32 = 10;
const SKIP_DISPATCHER: &str = "LIBXDP_SKIP_DISPATCHER";

/// Chains of XDP programs: attaches, inspects and detaches them.
///
/// A value of settings: the chains live in the kernel and in bpffs, so any number of these, in any number of
/// processes, work on the same interfaces. It keeps nothing but the dispatcher's BTF, which it loads when it first needs
/// it; keep it where there are many changes to be made. Changing a chain needs `CAP_SYS_ADMIN` (programs are opened by
/// id) and `CAP_NET_ADMIN`, and kernel 5.10.
#[derive(Clone, Debug)]
pub struct Xdp {
    pub(super) kernel: Kernel,
    location: Location,
    layout: Arc<dyn PinLayout>,
    patience: Patience,
    loader: Arc<Loader>,
    policy: Policy,
    /// Whether the environment asked for the policy, for who is told why.
    is_by_environment: bool,
    attach_by: AttachBy,
    version: ProtocolVersion,
}

/// Settings for an [`Xdp`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    kernel: Kernel,
    location: Location,
    layout: Option<Arc<dyn PinLayout>>,
    patience: Patience,
    policy: Option<Policy>,
    attach_by: AttachBy,
    version: ProtocolVersion,
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

    /// Where below bpffs pins go, in place of what `OXDP_PIN_LAYOUT` says: `legacy` for [`Legacy`](crate::Legacy),
    /// `netns-inode` for [`NetnsInode`](crate::NetnsInode), or `auto`, as without it, for [`Auto`](crate::Auto).
    pub fn layout(mut self, layout: impl PinLayout + 'static) -> Self {
        self.layout = Some(Arc::new(layout));
        self
    }

    /// How long to wait for a lock that another process holds, in place of for ever.
    pub fn lock_timeout(mut self, limit: Duration) -> Self {
        self.patience = Patience(Some(limit));
        self
    }

    /// Whether programs are attached in chains, in place of [`Policy::Chain`], or of [`Policy::Single`] where the
    /// environment has `LIBXDP_SKIP_DISPATCHER=1`.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How fresh chains, and programs without one, are held on their interface, in place of
    /// [`AttachBy::Netlink`]. A chain that is there stays held as it is.
    pub fn attach_by(mut self, by: AttachBy) -> Self {
        self.attach_by = by;
        self
    }

    /// The protocol version of fresh chains, in place of 3. A chain that is there keeps the version it has.
    pub fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.version = version;
        self
    }

    /// The settings as a value to work with. The bpf file system is looked for when it is first needed.
    ///
    /// # Errors
    /// [`ErrorKind::BadVariable`] if no layout was given and `OXDP_PIN_LAYOUT` is none of its values.
    pub fn build(self) -> Result<Xdp> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => layout_from_environment(&self.kernel)?,
        };
        let skips = || self.kernel.variable(SKIP_DISPATCHER).is_some_and(|value| value == "1");
        let is_by_environment = self.policy.is_none() && skips();
        let by_environment = if is_by_environment { Policy::Single } else { Policy::default() };
        let Self { kernel, location, patience, attach_by, version, .. } = self;
        Ok(Xdp {
            loader: Arc::new(Loader::new(kernel.clone())),
            kernel,
            location,
            layout,
            patience,
            policy: self.policy.unwrap_or(by_environment),
            is_by_environment,
            attach_by,
            version,
        })
    }

    /// Where there is no bpf file system, [`Policy::Auto`] comes to a program without a dispatcher, and this directory is
    /// locked in its place.
    #[cfg(feature = "capi")]
    pub(crate) fn stand_in(mut self, directory: &Path) -> Self {
        self.location.stand_in = Some(directory.to_owned());
        self
    }

    #[cfg(test)]
    pub(crate) fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = kernel;
        self
    }
}

impl Xdp {
    /// With the default settings: bpffs, the policy and the layout of pins as the environment says.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// To choose other settings.
    pub fn builder() -> Builder {
        let kernel = Kernel::default();
        let location = Location::from_environment(&kernel);
        Builder {
            kernel,
            location,
            layout: None,
            patience: Patience::default(),
            policy: None,
            attach_by: AttachBy::default(),
            version: ProtocolVersion::default(),
        }
    }

    /// The same settings with another layout of pins, for fresh chains: those that are there stay where they are. Cheap,
    /// so one can be had for each call.
    ///
    /// ```no_run
    /// # fn main() -> oxdp::Result<()> {
    /// # let (xdp, mut filter) = (oxdp::Xdp::new()?, oxdp::Program::from_file("x.o", oxdp::Select::Only)?);
    /// # let eth0 = oxdp::Interface::by_name(&oxdp::Netns::current()?, "eth0")?;
    /// xdp.with_layout(oxdp::Legacy).attach(&eth0, &mut filter, oxdp::Mode::Native)?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_layout(&self, layout: impl PinLayout + 'static) -> Self {
        Self { layout: Arc::new(layout), ..self.clone() }
    }

    /// Adds a program to the chain on an interface; on an empty interface, starts one.
    ///
    /// The programs that are there go on running all the while: the new chain takes the place of the old one
    /// between two packets. On any error nothing has changed.
    ///
    /// # Errors
    /// [`ErrorKind::ChainFull`], [`ErrorKind::AlreadyAttached`], [`ErrorKind::ForeignProgram`],
    /// [`ErrorKind::DamagedChain`], [`ErrorKind::MixedDeviceBinding`], [`ErrorKind::LoadedOtherwise`],
    /// [`ErrorKind::ModeConflict`], [`ErrorKind::ModeUnsupported`], [`ErrorKind::MtuTooLarge`],
    /// [`ErrorKind::ProtocolVersion`], [`ErrorKind::HeldByLink`],
    /// [`ErrorKind::Rejected`], [`ErrorKind::NoFreplace`], [`ErrorKind::NoPrivilege`],
    /// [`ErrorKind::NoBpffs`], [`ErrorKind::UnexpectedPin`], [`ErrorKind::BadLayout`], [`ErrorKind::SpentObject`],
    /// [`ErrorKind::NoInterface`], [`ErrorKind::LockTimeout`], [`ErrorKind::Contended`]; with [`Policy::Single`] [`ErrorKind::ChainAttached`] and [`ErrorKind::OnlyOne`].
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
        let edit = self.edit(interface).mode(mode);
        programs.iter_mut().fold(edit, |edit, program| edit.insert(program)).commit()
    }

    /// Takes one program, by its id, off an interface: out of the chain, and the chain off the interface if it was the
    /// last; or a program that runs there without a dispatcher.
    ///
    /// # Errors
    /// [`ErrorKind::NotAttached`] if there is no program, [`ErrorKind::NotInChain`] if it is not in the chain,
    /// [`ErrorKind::ForeignProgram`] if another one runs there without a dispatcher, [`ErrorKind::AmbiguousLink`]; else as
    /// [`attach`](Xdp::attach).
    #[doc(alias = "xdp_program__detach")]
    pub fn detach(&self, interface: &Interface, program: u32) -> Result<Outcome> {
        self.edit(interface).remove(program).commit()
    }

    /// Takes the whole chain off an interface, even a damaged one. A program that is part of no chain is not touched:
    /// [`detach`](Xdp::detach) takes it off by its id.
    ///
    /// # Errors
    /// [`ErrorKind::NotAttached`] if there is none; else as [`attach`](Xdp::attach).
    #[doc(alias = "xdp_multiprog__detach")]
    pub fn detach_all(&self, interface: &Interface) -> Result<Outcome> {
        let mut request = self.request();
        request.steps = None;
        self.change(interface, request, &Way::Chain)
    }

    /// Begins a change of any number of steps to what is on an interface: all of them or none, in one swap.
    ///
    /// ```no_run
    /// # fn main() -> oxdp::Result<()> {
    /// # let (xdp, old, other) = (oxdp::Xdp::new()?, 7, 8);
    /// # let eth0 = oxdp::Interface::by_name(&oxdp::Netns::current()?, "eth0")?;
    /// let mut new = oxdp::Program::from_file("filter-2.o", oxdp::Select::Only)?;
    /// xdp.edit(&eth0).replace(old, &mut new).set_priority(other, 5).commit()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn edit<'x, 'p>(&'x self, interface: &'x Interface) -> Edit<'x, 'p> {
        Edit { xdp: self, interface, request: self.request(), policy: self.policy }
    }

    /// What is on an interface. Changes nothing, and takes no lock: a chain that is replaced while it is read
    /// is read again.
    ///
    /// # Errors
    /// [`ErrorKind::NoInterface`]; [`ErrorKind::NoPrivilege`]; [`ErrorKind::Contended`]; [`ErrorKind::UnexpectedPin`] for
    /// a pin of something that is no component; [`ErrorKind::AmbiguousLink`].
    #[doc(alias = "xdp_multiprog__get_from_ifindex")]
    pub fn inspect(&self, interface: &Interface) -> Result<Occupant> {
        let attachment = Attachment::new(&self.kernel, interface);
        match self.live(interface, &attachment)? {
            Some((live, attached, _)) => live.describe(&attachment, attached),
            None => Ok(Occupant::Empty),
        }
    }

    /// What is on the interface, with the means to work on it; and what is on the device beside it.
    pub(super) fn live(
        &self,
        interface: &Interface,
        attachment: &Attachment<'_>,
    ) -> Result<Option<(Live, Attached, Option<Attached>)>> {
        let store = self.store_at(self.location.directory());
        let mut doubted = None;
        for _ in 0..LOOKS {
            let (Some(attached), beside) = attachment.query_both()? else {
                return Ok(None);
            };
            let live = inspect::read(&self.kernel, &store, interface, attachment, attached)?;
            // A chain that is replaced half-way through looks damaged, and one whose pins are moved; neither does so twice.
            if let Some(live) = live
                && (live.is_whole() || doubted == Some(attached))
            {
                return Ok(Some((live, attached, beside)));
            }
            doubted = Some(attached);
        }
        Err(Error::new("inspect", interface, ErrorKind::Contended { attempts: LOOKS }))
    }

    /// Loads a program as a component of chains, and attaches it nowhere: so that its maps can be filled, or it can be
    /// pinned, before it sees a packet. One that is loaded as that stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Rejected`], [`ErrorKind::NoFreplace`], [`ErrorKind::NoPrivilege`], [`ErrorKind::SpentObject`];
    /// [`ErrorKind::LoadedOtherwise`] for one that is loaded to run alone; `EINVAL` for one that asks to be bound to a
    /// device, which it is when it is attached.
    pub fn load(&self, program: &mut Program) -> Result<()> {
        if program.info().is_none() {
            not_device_bound("load", program)?;
        }
        let (dispatcher, function) = self.dispatcher_around(program)?;
        let (target, Function { name, btf_id }) = (dispatcher.program.as_fd(), function);
        program.load(&self.kernel, LoadTarget::Slot { dispatcher: target, name, btf_id })
    }

    /// A dispatcher, attached to nothing, with a single slot for a program.
    fn dispatcher_around(&self, program: &Program) -> Result<(Dispatcher, Function)> {
        let config = load::around(program, self.version);
        let dispatcher = self.loader.dispatcher(&config, None)?;
        Ok((dispatcher, load::slot_function(0, &config.slots)?))
    }

    /// Runs a program on a packet. Needs `CAP_NET_ADMIN`, and `CAP_SYS_ADMIN` for a component of a chain.
    ///
    /// One that is not loaded is loaded to run alone, and cannot be a component of a chain after that: give a clone
    /// of it to this. One that is a component runs in a dispatcher of its own.
    ///
    /// # Errors
    /// `EINVAL` for a packet that cannot be, an ingress queue that is not there, or live frames on a kernel before 5.18;
    /// `E2BIG` for a batch that is too large; `EMSGSIZE` for a packet that is too long for a kernel before 5.18;
    /// [`ErrorKind::NoInterface`] for the ingress; `EINTR` if a signal came; those of loading the program.
    #[doc(alias = "xdp_program__test_run")]
    pub fn test_run(&self, program: &mut Program, run: &TestRun<'_>) -> Result<TestRunOutcome> {
        let name = program.name().to_owned();
        self.with_target(program, |target| run.run(&self.kernel, target, name))?
    }

    /// Has something done with a program that packets can be given to: this one, which is loaded to run alone if it is not
    /// loaded; or a dispatcher around it, if it is a component.
    pub(crate) fn with_target<T>(
        &self,
        program: &mut Program,
        work: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Result<T> {
        if program.info().is_none() {
            not_device_bound("test", program)?;
            program.load_alone(&self.kernel, 0)?;
        }
        self.with_target_of_loaded(program, work)
    }

    pub(crate) fn with_target_of_loaded<T>(
        &self,
        program: &Program,
        work: impl FnOnce(BorrowedFd<'_>) -> T,
    ) -> Result<T> {
        if program.info().is_none_or(|info| info.kind != BPF_PROG_TYPE_EXT) {
            return Ok(work(program.fd()?));
        }
        let (dispatcher, function) = self.dispatcher_around(program)?;
        let target = dispatcher.program.as_fd();
        let link = self.kernel.link_extension(program.fd()?, target, function.btf_id);
        let _link = link.during("link", program.name())?;
        Ok(work(target))
    }

    /// Runs what is attached to an interface, a whole chain or a program without one, on a packet; in the interface's
    /// namespace. The programs' maps see it as any other packet.
    ///
    /// # Errors
    /// [`ErrorKind::NotAttached`]; else as [`test_run`](Xdp::test_run).
    pub fn test_run_attached(
        &self,
        interface: &Interface,
        run: &TestRun<'_>,
    ) -> Result<TestRunOutcome> {
        const TEST: &str = "test what is attached to";
        let attached = Attachment::new(&self.kernel, interface).query()?;
        let attached = attached.ok_or(ErrorKind::NotAttached).during(TEST, interface)?;
        let program = self.kernel.prog_by_id(attached.program);
        let program = program.map_err(|error| ErrorKind::privileged(error, load::NEEDS));
        let program = program.during(TEST, interface)?;
        interface
            .netns()
            .enter(&self.kernel, || run.run(&self.kernel, program.as_fd(), interface))?
    }

    /// Swaps the chain of this dispatcher for one without the slots whose programs have died; takes it off if that is
    /// all of them.
    pub(crate) fn mend(&self, interface: &Interface, dispatcher: u32) -> Result<Outcome> {
        let request = Request { mends: Some(dispatcher), ..self.request() };
        self.change(interface, request, &Way::Chain)
    }

    /// Has a guest decide, under the lock, what becomes of what is on an interface; `program` is the one that may come.
    ///
    /// # Errors
    /// [`ErrorKind::NoBpffs`]: without one there is no lock.
    pub(crate) fn host(
        &self,
        interface: &Interface,
        program: Option<&mut Program>,
        mode: Mode,
        guest: &mut dyn Guest,
    ) -> Result<Option<Outcome>> {
        let store = self.store_at(self.location.open_to_lock(&self.kernel)?);
        let programs: Vec<_> = program.into_iter().collect();
        let steps = programs.iter().map(|_| Step::Insert(0)).collect();
        let mut request = Request { programs, steps: Some(steps), mode, ..self.request() };
        let way = self.way(self.policy, &request)?;
        if way != Way::Chain {
            // It is to stay for the others when this process ends.
            request.attach_by = AttachBy::Netlink;
        }
        Transaction::new(&self.loader, Some(&store), interface, &way).host(&store, request, guest)
    }

    /// Where the bpf file system is, or is to be.
    pub(crate) fn bpffs(&self) -> &Path {
        &self.location.path
    }

    /// The id of the program on an interface.
    pub(crate) fn attached_to(&self, interface: &Interface) -> Result<Option<u32>> {
        let attached = Attachment::new(&self.kernel, interface).query()?;
        Ok(attached.map(|attached| attached.program))
    }

    pub(crate) fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The pins that there are; `None` where there is no bpf file system or nothing of the protocol's in it.
    pub(crate) fn existing_store(&self) -> Result<Option<Store>> {
        Ok(self.location.existing(&self.kernel)?.map(|root| self.store_at(root)))
    }

    pub(super) fn request<'p>(&self) -> Request<'p> {
        Request {
            programs: Vec::new(),
            steps: Some(Vec::new()),
            mode: Mode::Unspecified,
            attach_by: self.attach_by,
            version: self.version,
            replaces: None,
            required: Vec::new(),
            mends: None,
            only: None,
        }
    }

    pub(super) fn change(
        &self,
        interface: &Interface,
        request: Request<'_>,
        way: &Way,
    ) -> Result<Outcome> {
        // Only chains have pins; and what is no chain can be taken off without a bpf file system.
        let store = match way {
            Way::Single { .. } => None,
            Way::Chain => match self.location.open(&self.kernel) {
                Ok(root) => Some(self.store_at(root)),
                Err(error) if !request.inserts() && pins::is_missing(&error) => None,
                Err(error) => return Err(error),
            },
        };
        Transaction::new(&self.loader, store.as_ref(), interface, way).run(request)
    }

    /// What a policy comes to, for these programs on this kernel.
    pub(super) fn way(&self, policy: Policy, request: &Request<'_>) -> Result<Way> {
        let single = |why: &str| Ok(Way::Single { why: why.into() });
        let is_on_device = request.mode == Mode::Hardware;
        match policy {
            Policy::Chain => Ok(Way::Chain),
            // What is to be changed is what it is.
            _ if !request.inserts() => Ok(Way::Chain),
            Policy::Single if self.is_by_environment => {
                single("LIBXDP_SKIP_DISPATCHER is set in the environment")
            }
            Policy::Single => single("it was asked for"),
            Policy::Auto if is_on_device => single("a device runs no dispatcher"),
            Policy::Auto if request.programs.iter().any(|program| program.is_loaded_alone()) => {
                single("the program is loaded to run alone")
            }
            Policy::Auto if self.location.is_stood_in_for(&self.kernel)? => {
                single("there is no bpf file system")
            }
            Policy::Auto => match features::no_chains()? {
                None => Ok(Way::Chain),
                Some(why) => single(why),
            },
        }
    }

    fn store_at(&self, root: PathBuf) -> Store {
        Store::new(self.kernel.clone(), root, Arc::clone(&self.layout), self.patience)
    }
}

/// What is not attached has no device.
fn not_device_bound(operation: &'static str, program: &Program) -> Result<()> {
    if !program.is_device_bound() {
        return Ok(());
    }
    let source = std::io::Error::from_raw_os_error(libc::EINVAL);
    let message = "it is to be bound to a device: attach it first".into();
    Err(Error::new(operation, program.name(), ErrorKind::Os { source, message }))
}
