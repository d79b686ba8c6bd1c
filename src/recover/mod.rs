#![forbid(unsafe_code)]

//! Puts right what a killed process, a dead namespace or a lost bpf file system has left behind.
//!
//! Owns the view of the whole machine, the plan made of it, and what it takes to carry that out: an inventory, from
//! which a plan is made that is plain data, which is applied. Never detaches a live program, and leaves alone what
//! cannot be known. libxdp has only `libxdp_clean_references()`, which looks at one namespace.

mod apply;
mod defaults;
mod evidence;
#[cfg(test)]
mod fault_tests;
mod inventory;
mod plan;
mod planner;
#[cfg(test)]
mod planner_tests;
mod scan;
mod take;
mod text;

pub use apply::{Applied, Done};
pub use inventory::{
    Inventory, PinnedElsewhere, PinnedSlot, Scope, ScopeOwner, SeenChain, SeenDefault,
    SeenInterface, SeenNetns, SeenPins, SeenProgram,
};
pub use plan::{Action, ChainAt, EmptyDispatcher, PlanLine, RecoveryPlan};
