//! Where ours differs from C libxdp, and why. What stands here as a reason stands in docs/upstream-quirks.md too.

use super::Allowed;

pub(super) const ALLOWED: &[Allowed] = &[];
