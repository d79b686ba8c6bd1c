//! The XDP program that hands packets to sockets: the only place that knows which it is.

use anyhow::Result;
use oxdp::xsk::Socket;
use oxdp::{Interface, Mode, Policy, Program, Select, Xdp};

const OBJECT: &[u8] = include_bytes!("../../tests/bpf/prebuilt/xsk_redirect.o");

/// Attached to an interface; detached when it is dropped. Packets of queues without a socket go on as before.
#[derive(Debug)]
pub(crate) struct Redirect {
    xdp: Xdp,
    interface: Interface,
    program: Program,
}

impl Redirect {
    /// Beside what else is attached, where the kernel can do that.
    pub(crate) fn join(interface: &Interface, mode: Mode) -> Result<Self> {
        let xdp = Xdp::builder().policy(Policy::Auto).build()?;
        let mut program = Program::from_bytes(OBJECT, Select::Function("xsk_redirect"))?;
        xdp.attach(interface, &mut program, mode)?;
        Ok(Self { xdp, interface: interface.clone(), program })
    }

    /// From now on the queue's packets go to the socket.
    pub(crate) fn insert(&self, queue: u32, socket: &Socket) -> Result<()> {
        Ok(self.program.map("xsks")?.set_socket(queue, socket)?)
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        let detached = self.program.id().map(|id| self.xdp.detach(&self.interface, id));
        if let Some(Err(error)) = detached {
            log::warn!("{error}");
        }
    }
}
