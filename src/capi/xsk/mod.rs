//! AF_XDP as C has it: rings in structures of the caller's, whose frames nobody counts.
//!
//! So it is not the crate's [`xsk`](crate::xsk), whose types count them, but the same calls one room below. What is mapped is
//! kept here, not read back from the caller's structures: those may be copied, moved and forgotten.

mod layout;
mod socket;
mod umem;
