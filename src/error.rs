#![forbid(unsafe_code)]

//! What went wrong: while doing what, to what, and why.

use crate::dispatcher::ForeignProgram;
use crate::xsk::UmemRule;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The result of every operation that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation: what was being done, to what, and the cause.
///
/// It prints as one line, `doing what to what: cause`. [`kind`](Error::kind) is what a program matches on.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    operation: &'static str,
    object: String,
    kind: ErrorKind,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The namespace has no such interface, or has lost it meanwhile.
    #[error("no such interface in this network namespace")]
    NoInterface,

    /// What was given as a network namespace is another kind of file, or nothing at all.
    #[error("not a network namespace: {0}")]
    NoNetns(String),

    /// The bytes are no ELF object with BPF programs, or their BTF is broken.
    #[error("not a usable BPF object: {0}")]
    CorruptObject(String),

    /// The program's run config is not as the protocol has it.
    #[error("the run config: {0}")]
    RunConfig(String),

    /// The object has no program that fits.
    #[error("no program {wanted} in the object; it has {}", list(.available))]
    NoSuchProgram {
        /// What was asked for.
        wanted: String,
        /// The functions that the object has.
        available: Vec<String>,
    },

    /// The object has several programs, and none was chosen.
    #[error("the object has several programs, choose one: {}", list(.available))]
    AmbiguousProgram {
        /// The functions that the object has.
        available: Vec<String>,
    },

    /// The program has no map or global variable of this name.
    #[error("nothing called {0} in the object")]
    NoSuchName(String),

    /// The object carries no BTF, which would tell what was asked for.
    #[error("the object has no BTF; compile it with -g")]
    NoBtf,

    /// What was given as an XDP program is something else.
    #[error("not an XDP program: {0}")]
    NotXdp(String),

    /// A program in the kernel is a component of chains, or runs alone, and the other was asked for.
    #[error("{}", loaded_otherwise(.is_component))]
    LoadedOtherwise {
        /// Whether it is a component.
        is_component: bool,
    },

    /// The libbpf object that the program was taken from is used up: it has been loaded, for a clone of the program, or
    /// a load of it has failed.
    #[error("its libbpf object has been loaded already, or a load has failed; open it again")]
    SpentObject,

    /// The program is loaded, and what was to be set can only be set before.
    #[error("the program is already loaded")]
    AlreadyLoaded,

    /// The program is not loaded yet, so it has no maps.
    #[error("the program is not loaded; attach it first")]
    NotLoaded,

    /// The verifier refused a program.
    #[error("the kernel refused the program: {source}{}", detail(.log))]
    Rejected {
        /// The errno of the load.
        source: io::Error,
        /// What the verifier or libbpf said.
        log: String,
    },

    /// Every slot of the dispatcher is taken.
    #[error("the chain is full: {max} programs are the most that the protocol allows")]
    ChainFull {
        /// The number of slots.
        max: usize,
    },

    /// A program that is no dispatcher is attached. Nothing was changed.
    #[error(
        "{0} is attached, which is not part of a chain; detach it with its own tool, or say that it is to be replaced"
    )]
    ForeignProgram(Box<ForeignProgram>),

    /// A chain is attached, and a program was to run without one. Nothing was changed.
    #[error(
        "a chain is attached (dispatcher {dispatcher}); a program can only be added to it, or the chain detached first"
    )]
    ChainAttached {
        /// Program id of the dispatcher.
        dispatcher: u32,
    },

    /// What is attached is held there by a bpf_link of somebody else, which alone can change it. Nothing was changed.
    #[error(
        "bpf_link {link} of another process holds program {program}; only who has the link can replace it"
    )]
    HeldByLink {
        /// Id of the link.
        link: u32,
        /// Id of the program.
        program: u32,
    },

    /// Several links hold the program on interfaces of this number, in different namespaces, and the kernel does not tell
    /// which is whose. Nothing was changed.
    #[error("links {} hold program {program} on interfaces of this number, and which is this one's is not told; let go of the link itself", list(.links))]
    AmbiguousLink {
        /// Id of the program.
        program: u32,
        /// Ids of the links.
        links: Vec<u32>,
    },

    /// Several programs, or a change to one of several, without a dispatcher.
    #[error(
        "without a dispatcher only a single program can be attached, and that is why there is none: {why}"
    )]
    OnlyOne {
        /// Why there is no dispatcher.
        why: String,
    },

    /// The dispatcher on the interface has lost some of its programs or pins. Nothing was changed.
    #[error(
        "the chain on the interface is damaged: slots {} of dispatcher {dispatcher} have no pinned program; \
         a recovery can tell more, and pin again what runs (Xdp::inventory, `xdp_loader recover`)",
        list(.missing)
    )]
    DamagedChain {
        /// Program id of the dispatcher.
        dispatcher: u32,
        /// The slots whose pins are gone.
        missing: Vec<usize>,
    },

    /// The chain speaks a protocol version that is read but not written.
    #[error("the chain has protocol version {found}; only versions 2 and 3 can be changed")]
    ProtocolVersion {
        /// The version of the chain on the interface.
        found: u8,
    },

    /// A chain's programs are bound to its device, and this one does not ask to be; or it is bound to another one.
    #[error("{program} and the chain's other programs are not bound to the same device")]
    MixedDeviceBinding {
        /// Name of the program that does not fit.
        program: String,
    },

    /// The chain would lack what it was [required](crate::Edit::require) to have.
    #[error("{0}")]
    Downgraded(crate::Downgrade),

    /// The interface's MTU is too large for programs that read no packets of several fragments.
    #[error(
        "the MTU is too large for {}, which cannot read packets of several fragments: {source}{}",
        list(.programs),
        detail(.message)
    )]
    MtuTooLarge {
        /// The programs for which it is.
        programs: Vec<String>,
        /// The errno of the attach.
        source: io::Error,
        /// The driver's own words.
        message: String,
    },

    /// The default AF_XDP program that is attached reads no packets of several fragments, and cannot be replaced by one that
    /// does. Nothing was changed.
    #[error(
        "the default AF_XDP program (id {program}) reads no packets of several fragments, and cannot be replaced: {why}"
    )]
    NoFrags {
        /// Its id.
        program: u32,
        /// Who depends on it, or why that is not known.
        why: String,
    },

    /// The default AF_XDP program that is attached is of a version that we do not know.
    #[error("the default AF_XDP program has protocol version {found}; only version 1 is known")]
    DefaultProgramVersion {
        /// Its version.
        found: u32,
    },

    /// What is attached is so in another mode than the one asked for.
    #[error("what is there is attached in {attached} mode, not {asked}")]
    ModeConflict {
        /// The mode that the chain has.
        attached: &'static str,
        /// The mode that was asked for.
        asked: &'static str,
    },

    /// The driver cannot run programs in this mode.
    #[error("the interface cannot run XDP in {mode} mode: {source}{}", detail(.message))]
    ModeUnsupported {
        /// The mode that was asked for.
        mode: &'static str,
        /// The errno of the attach.
        source: io::Error,
        /// The driver's own words.
        message: String,
    },

    /// The program is in the chain already.
    #[error("program {id} is in the chain already")]
    AlreadyAttached {
        /// Its id.
        id: u32,
    },

    /// No chain on the interface.
    #[error("not attached here")]
    NotAttached,

    /// The program is not in the interface's chain.
    #[error("program {id} is not attached here")]
    NotInChain {
        /// The id that was given.
        id: u32,
    },

    /// No bpf file system at the place where pins must go.
    #[error(
        "no bpf file system at {0}; mount one there, or allow that with LIBXDP_BPFFS_AUTOMOUNT=1"
    )]
    NoBpffs(PathBuf),

    /// A privilege is missing.
    #[error("permission denied: needs {needs}")]
    NoPrivilege {
        /// The capabilities that the operation needs.
        needs: &'static str,
    },

    /// The kernel does not let one program extend another.
    #[error("this kernel has no freplace, without which there are no chains: {why}")]
    NoFreplace {
        /// The likely reason.
        why: String,
    },

    /// The kernel does not have what was asked for: it is older, or was built without it.
    #[error("not supported by this kernel: {feature}, which needs {needs}")]
    NotSupported {
        /// What it does not have.
        feature: &'static str,
        /// The version, and the option where it is one, that has it.
        needs: &'static str,
    },

    /// Somebody else holds the lock for longer than allowed.
    #[error("{} is locked by {} since more than {waited:?}", path.display(), somebody(.holder.as_ref()))]
    LockTimeout {
        /// The directory whose lock was wanted.
        path: PathBuf,
        /// How long the operation waited.
        waited: Duration,
        /// Who has the lock. `None` if it is told nowhere: for a process of another PID namespace, or one that has ended
        /// and left the lock to a child.
        holder: Option<LockHolder>,
    },

    /// Other processes changed the interface again and again in between.
    #[error("the interface was changed by others {attempts} times in a row")]
    Contended {
        /// How often the change was tried.
        attempts: u32,
    },

    /// A pin directory holds something that the protocol does not put there.
    #[error("unexpected content at {}: {what}", path.display())]
    UnexpectedPin {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// An environment variable has a value that means nothing.
    #[error("{name} is {value:?}; it can be {allowed}")]
    BadVariable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// The values that it can have.
        allowed: &'static str,
    },

    /// A pin layout gave a path that leads out of its directory or is malformed.
    #[error("the pin layout gave a path that cannot be used: {}", .0.display())]
    BadLayout(PathBuf),

    /// A UMEM cannot be laid out like this.
    #[error(transparent)]
    Umem(UmemRule),

    /// A ring cannot have this size.
    #[error("the {ring} ring has a power of two of slots, up to 2^26, not {size}")]
    RingSize {
        /// Which ring.
        ring: &'static str,
        /// Slots that were asked for.
        size: u32,
    },

    /// The kernel's index in a ring is further away than the ring is long. Something has written there that should not.
    #[error("the kernel's index in the {ring} ring cannot be true")]
    RingPoisoned {
        /// Which ring.
        ring: &'static str,
    },

    /// Packets of several fragments can come, so they cannot be read one fragment at a time.
    #[error("the socket was bound with multi-buffer: read whole packets")]
    MultiBuffer,

    /// Any other error of the operating system.
    #[error("{source}{}", detail(.message))]
    Os {
        /// The errno.
        source: io::Error,
        /// What the kernel or libbpf said about it; may be empty.
        message: String,
    },
}

/// A process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// Its id, in the PID namespace of `/proc`.
    pub pid: u32,
    /// Its name, as in `/proc/PID/comm`.
    pub name: String,
}

/// As `xdp-loader (pid 4711)`.
impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name.escape_debug(), self.pid)
    }
}

fn somebody(holder: Option<&LockHolder>) -> String {
    holder.map_or_else(|| "another process".into(), LockHolder::to_string)
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    if items.is_empty() { "none".into() } else { items.join(", ") }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "thiserror gives references")]
fn loaded_otherwise(is_component: &bool) -> &'static str {
    if *is_component {
        "it is loaded as a component of chains, and cannot run alone"
    } else {
        "it is loaded to run alone, and cannot be a component of a chain"
    }
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

impl Error {
    pub(crate) fn new(
        operation: &'static str,
        object: impl fmt::Display,
        kind: impl Into<ErrorKind>,
    ) -> Self {
        Self(Box::new(Inner { operation, object: object.to_string(), kind: kind.into() }))
    }

    /// The cause.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What was being done, in words: "attach to", "pin", "open".
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What it was done to: an interface, a program, a path.
    pub fn object(&self) -> &str {
        &self.0.object
    }

    /// Names the programs for which the MTU is too large, if that is the cause.
    pub(crate) fn blaming(mut self, guilty: Vec<String>) -> Self {
        if let ErrorKind::MtuTooLarge { programs, .. } = &mut self.0.kind {
            *programs = guilty;
        }
        self
    }

    /// The errno behind the failure, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match &self.0.kind {
            ErrorKind::NoPrivilege { .. } => Some(libc::EPERM),
            ErrorKind::NoInterface => Some(libc::ENODEV),
            ErrorKind::NotSupported { .. } => Some(libc::EOPNOTSUPP),
            kind => kind.io().and_then(io::Error::raw_os_error),
        }
    }
}

impl ErrorKind {
    /// The cause of an operation that needs a privilege, which a denial means to be missing.
    pub(crate) fn privileged(source: io::Error, needs: &'static str) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPrivilege { needs },
            _ => source.into(),
        }
    }

    fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Os { source, .. }
            | Self::Rejected { source, .. }
            | Self::MtuTooLarge { source, .. }
            | Self::ModeUnsupported { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<io::Error> for ErrorKind {
    fn from(source: io::Error) -> Self {
        Self::Os { source, message: String::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.operation, self.0.object, self.0.kind)
    }
}

/// Its cause is part of its text, and told by [`kind`](Error::kind), so it is no [`source`](StdError::source) besides.
impl StdError for Error {}

/// Gives a bare cause its operation and object.
pub(crate) trait Context<T> {
    fn during(self, operation: &'static str, object: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<ErrorKind>> Context<T> for std::result::Result<T, E> {
    fn during(self, operation: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::new(operation, object, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_what_and_why() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = Err::<(), _>(cause).during("pin", "/sys/fs/bpf/xdp").unwrap_err();
        assert_eq!(error.to_string(), "pin /sys/fs/bpf/xdp: No space left on device (os error 28)");
        assert_eq!(error.errno(), Some(libc::ENOSPC));
        assert!(error.source().is_none(), "it would be told twice");
    }

    #[test]
    fn a_stuck_lock_s_holder_is_named() {
        let (path, waited) = ("/sys/fs/bpf/xdp".into(), Duration::from_secs(2));
        let holder = Some(LockHolder { pid: 4711, name: "xdp-loader".into() });
        let known = ErrorKind::LockTimeout { path, waited, holder };
        let text = "/sys/fs/bpf/xdp is locked by xdp-loader (pid 4711) since more than 2s";
        assert_eq!(known.to_string(), text);
        let unknown = ErrorKind::LockTimeout { path: "/x".into(), waited, holder: None };
        assert_eq!(unknown.to_string(), "/x is locked by another process since more than 2s");
        assert_eq!(
            LockHolder { pid: 1, name: "a\n\u{1b}b".into() }.to_string(),
            "a\\n\\u{1b}b (pid 1)"
        );
    }

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
