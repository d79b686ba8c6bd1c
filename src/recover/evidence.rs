//! What must be known of dispatchers that no interface has, before their pins are removed.

use super::plan::{Action, RecoveryPlan};
use super::scan::{Order, Scan};
use super::take::is_loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::openers::{Object, Openers};
use crate::pins::Store;
use crate::sys::Kernel;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long namespaces that have died may take to be gone.
const DYING: Duration = Duration::from_secs(20);

/// What was found, in the order in which it must be: changes that were under way have ended; nobody who may be about to
/// attach a dispatcher has it open; no interface is on its way out of a dead namespace; and then, where every program is.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) scan: Scan,
    /// Directories whose lock could not be waited for, and why.
    unsettled: BTreeMap<PathBuf, (Option<i32>, String)>,
    /// What processes have open. C libxdp attaches a dispatcher without the lock under which it made the pins, but has it
    /// open from the one to the other.
    open: Openers,
}

impl Evidence {
    /// Looks. Only the removal of pins whose dispatcher is in the kernel takes more than a scan.
    pub(super) fn take(
        kernel: &Kernel,
        store: Option<&Store>,
        plan: &RecoveryPlan,
    ) -> Result<Self> {
        let removals: Vec<_> = plan
            .lines
            .iter()
            .filter_map(|line| match &line.action {
                Action::RemovePins { path, dispatcher } => Some((path.as_path(), *dispatcher)),
                _ => None,
            })
            .collect();
        let unsettled = store.map(|store| settle(store, &removals)).unwrap_or_default();
        let (mut open, mut gaps) = (Openers::default(), Vec::new());
        if removals.iter().any(|(_, id)| is_loaded(kernel, *id).unwrap_or(true)) {
            open = Openers::take();
            gaps.extend(open.gap());
            gaps.extend(dying(kernel));
        }
        let mut scan = Scan::take(kernel, Order::Second)?;
        scan.gaps.extend(gaps);
        Ok(Self { scan, unsettled, open })
    }

    /// Why pins that lie in `scope` may be in use, or be soon; `None` if they are of no use to anybody for sure.
    pub(super) fn may_be_used(
        &self,
        kernel: &Kernel,
        scope: &Path,
        dispatcher: u32,
    ) -> Result<Option<String>> {
        if let Some((errno, message)) = self.unsettled.get(scope) {
            let source = io::Error::from_raw_os_error(errno.unwrap_or(libc::EBUSY));
            let kind = ErrorKind::Os { source, message: message.clone() };
            return Err(Error::new("wait for changes in", scope.display(), kind));
        }
        if self.scan.find(dispatcher).is_some() {
            return Ok(Some("an interface has the dispatcher".into()));
        }
        if !is_loaded(kernel, dispatcher)? {
            return Ok(None);
        }
        if let Some(process) = self.open.of(Object::Program(dispatcher), &[]) {
            let why = format!("{process} has the dispatcher open, and may be about to attach it");
            return Ok(Some(why));
        }
        Ok(self.scan.gaps.first().cloned())
    }
}

/// Waits until whoever was changing the pins that are to be removed is done, by taking each lock once. From then on
/// nobody who attaches under the lock under which the pins are made (as we do) will attach one of these dispatchers.
fn settle(store: &Store, removals: &[(&Path, u32)]) -> BTreeMap<PathBuf, (Option<i32>, String)> {
    let scopes: BTreeSet<_> = removals.iter().filter_map(|(path, _)| path.parent()).collect();
    let failed = |scope: &Path| {
        let error = store.lock_existing(scope).err()?;
        Some((scope.to_owned(), (error.errno(), error.to_string())))
    };
    scopes.into_iter().filter_map(failed).collect()
}

/// Why an interface may be on its way out of a namespace that has died.
fn dying(kernel: &Kernel) -> Option<String> {
    match kernel.wait_for_dying_netns(DYING) {
        Ok(true) => None,
        Ok(false) => Some("a namespace that has died is not gone yet".into()),
        Err(error) => Some(format!("namespaces that have died cannot be waited for: {error}")),
    }
}
