//! In place of linking, where libbpf is the system's.

use super::{Linked, Object, ObjectError};
use crate::sys::Kernel;

impl Kernel {
    /// The system's libbpf may be too old to tell what it has linked: before 1.7.
    #[allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "as the other one")]
    pub(crate) fn object_link(
        &self,
        _: &mut Object,
        _: &str,
    ) -> Result<Option<Linked>, ObjectError> {
        Ok(None)
    }
}
