//! Two ends of a wire with a socket at each, and what is done with them again and again.

use crate::support::lab::{Namespace, ip, soon};
use crate::support::{kernel, object};
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{
    BindMode, Bound, Exclusive, Kind, Packet, RxRing, Socket, SocketBuilder, TxRing, Umem,
};
use oxdp::{ErrorKind, Interface, Mode, Policy, Program, Select, Xdp};
use std::time::Duration;

/// Names of the ends.
pub(crate) const NEAR: &str = "near";
pub(crate) const FAR: &str = "far";
/// What is sent before anything is waited for; the wire loses packets when 256 are in it.
pub(crate) const WINDOW: usize = 32;

/// How long a queue is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces, a wire between them, and at each end a program that hands what comes to a socket.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) near: Interface,
    pub(crate) far: Interface,
    pub(crate) near_program: Program,
    pub(crate) far_program: Program,
    pub(crate) xdp: Xdp,
    pub(crate) spaces: (Namespace, Namespace),
}

/// What a lab is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) object: &'static str,
    /// At the near end.
    pub(crate) program: &'static str,
    /// At the far end, of `xsk_redirect.o`.
    pub(crate) far_program: &'static str,
    pub(crate) queues: u32,
    pub(crate) mtu: u32,
    /// A global variable of the near program.
    pub(crate) global: Option<(&'static str, i32)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            object: "xsk_redirect.o",
            program: "xsk_redirect",
            far_program: "xsk_redirect",
            queues: 1,
            mtu: 1500,
            global: None,
        }
    }
}

impl Plan {
    /// With programs that take packets of several fragments, and room for those.
    pub(crate) fn fragments() -> Self {
        Self { program: "xsk_frags", far_program: "xsk_frags", mtu: 9600, ..Self::default() }
    }
}

impl Lab {
    pub(crate) fn new() -> Result<Self> {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Result<Self> {
        let spaces = (Namespace::new("xsk")?, Namespace::new("xsk-far")?);
        wire(&spaces, (NEAR, FAR), plan.queues)?;
        let near = Interface::by_name(&spaces.0.netns, NEAR)?;
        let far = Interface::by_name(&spaces.1.netns, FAR)?;
        let xdp = Xdp::builder().policy(Policy::Single).build()?;
        let mut near_program = program(plan.object, plan.program)?;
        if let Some((name, value)) = plan.global {
            near_program.set_global(name, &value.to_ne_bytes())?;
        }
        let mut far_program = program("xsk_redirect.o", plan.far_program)?;
        xdp.attach(&near, &mut near_program, Mode::Native)?;
        xdp.attach(&far, &mut far_program, Mode::Native)?;
        let lab = Self { near, far, near_program, far_program, xdp, spaces };
        lab.set_mtu(plan.mtu)?;
        Ok(lab)
    }

    pub(crate) fn set_mtu(&self, mtu: u32) -> Result<()> {
        ip(&format!("-n {} link set {NEAR} mtu {mtu}", self.spaces.0.name))?;
        ip(&format!("-n {} link set {FAR} mtu {mtu}", self.spaces.1.name))
    }

    /// Removes the wire with both ends.
    pub(crate) fn cut(&self) -> Result<()> {
        ip(&format!("-n {} link del {NEAR}", self.spaces.0.name))
    }
}

/// Lays a wire between two namespaces.
pub(crate) fn wire(spaces: &(Namespace, Namespace), ends: (&str, &str), queues: u32) -> Result<()> {
    let (near, far) = (&spaces.0.name, &spaces.1.name);
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!(
        "-n {near} link add {} {queues} type veth peer name {} {queues} netns {far}",
        ends.0, ends.1
    ))?;
    ip(&format!("-n {near} link set {} up", ends.0))?;
    ip(&format!("-n {far} link set {} up", ends.1))
}

pub(crate) fn program(file: &str, function: &str) -> Result<Program> {
    Ok(Program::from_file(object(file), Select::Function(function))?)
}

/// A builder of a socket that sends and receives.
pub(crate) type Duplex<K = Exclusive> = SocketBuilder<K, RxRing<K>, TxRing<K>>;

/// With rings of 256 slots, and copies. A busy machine can take longer than usual to let go of a queue.
pub(crate) fn duplex<K: Kind>(umem: &Umem<K>, interface: &Interface, queue: u32) -> Duplex<K> {
    let builder = Socket::builder(umem, interface, queue).rx(256).tx(256);
    builder.fill(256).completion(256).mode(BindMode::Copy).bind_retry(PATIENCE)
}

pub(crate) fn umem(frames: u32) -> Result<Umem> {
    Ok(Umem::builder().frames(frames).build()?)
}

/// A lab with a socket at each end, both of one UMEM.
#[derive(Debug)]
pub(crate) struct Wire<K: Kind = Exclusive> {
    pub(crate) near: Bound<K>,
    pub(crate) far: Bound<K>,
    pub(crate) umem: Umem<K>,
    pub(crate) lab: Lab,
}

impl Wire {
    pub(crate) fn new() -> Result<Self> {
        Self::over(Lab::new()?, umem(1024)?, |builder| builder)
    }
}

impl<K: Kind> Wire<K> {
    /// With sockets as `shape` wants them.
    pub(crate) fn over(
        lab: Lab,
        umem: Umem<K>,
        shape: impl Fn(Duplex<K>) -> Duplex<K>,
    ) -> Result<Self> {
        let near = shape(duplex(&umem, &lab.near, 0)).bind()?;
        let far = shape(duplex(&umem, &lab.far, 0)).bind()?;
        lab.near_program.map("xsks")?.set_socket(0, &near.socket)?;
        lab.far_program.map("xsks")?.set_socket(0, &far.socket)?;
        Ok(Self { near, far, umem, lab })
    }

    /// Closes both sockets: then every frame is free again.
    pub(crate) fn end(self) -> Result<()> {
        let Self { near, far, umem, lab } = self;
        settled(&umem)?;
        drop((near, far));
        reclaimed(&umem)?;
        drop(lab);
        Ok(())
    }
}

impl Wire {
    /// Sends packets from the far end, and gives what has come at the near one: as many.
    pub(crate) fn receive(&mut self, packets: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
        carry(&mut self.far, &mut self.near, packets)
    }

    /// Fails unless what comes is what was sent.
    pub(crate) fn works(&mut self, packets: &[Vec<u8>]) -> Result<()> {
        let got = self.receive(packets)?;
        ensure!(got == packets, "{} packets came, not the same", got.len());
        Ok(())
    }
}

/// No frame is the program's.
pub(crate) fn settled<K: Kind>(umem: &Umem<K>) -> Result<()> {
    let census = umem.census();
    ensure!(census.held == 0 && census.written_off == 0, "{census:?}");
    Ok(())
}

/// Takes everything back, once no socket is left.
pub(crate) fn reclaimed<K: Kind>(umem: &Umem<K>) -> Result<()> {
    let before = umem.census();
    ensure!(umem.reclaim() == before.in_kernel, "{before:?}");
    ensure!(umem.census().free == before.total, "{before:?}, then {:?}", umem.census());
    Ok(())
}

/// `count` different packets of so many bytes.
pub(crate) fn packets(count: usize, length: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| packet(number, length)).collect()
}

/// One that differs from others of another number: the number stands behind the addresses, if there is room.
pub(crate) fn packet(number: usize, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..length).map(|at| (at * 7 + number * 13).to_le_bytes()[0] & 0xfe).collect();
    for (to, from) in bytes.iter_mut().skip(14).zip(number.to_be_bytes()) {
        *to = from;
    }
    bytes
}

/// Sends packets from one end, a window at a time, and gives what has come at the other; in the end all frames have come
/// back.
pub(crate) fn carry(from: &mut Bound, to: &mut Bound, packets: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut got = Vec::new();
    for window in packets.chunks(WINDOW.min(from.tx.size() as usize)) {
        let wanted = got.len() + window.len();
        send(from, window)?;
        let all = soon(|| {
            got.extend(take(to)?);
            Ok(got.len() >= wanted)
        })?;
        ensure!(all, "{} of {wanted} packets have come", got.len());
        completed(from, window.len())?;
    }
    Ok(got)
}

/// Puts packets into the TX ring, and lets the kernel send all of them.
pub(crate) fn send(from: &mut Bound, packets: &[Vec<u8>]) -> Result<()> {
    queue(from, packets)?;
    flush(from)
}

/// Puts packets into the TX ring.
pub(crate) fn queue(from: &mut Bound, packets: &[Vec<u8>]) -> Result<()> {
    let umem = from.socket.umem().clone();
    let mut batch = from.tx.reserve(u32::try_from(packets.len())?)?;
    for bytes in packets {
        let frame = umem.frame().context("a free frame")?;
        batch.push(frame.into_packet_of(bytes)?)?;
    }
    ensure!(batch.commit() as usize == packets.len());
    Ok(())
}

/// Wakes the kernel until it has taken everything from the TX ring.
pub(crate) fn flush<K: Kind>(from: &Bound<K>) -> Result<()> {
    let all = soon(|| {
        from.tx.wake()?;
        Ok(from.tx.pending() == 0)
    })?;
    ensure!(all, "{} packets are still to be sent", from.tx.pending());
    Ok(())
}

/// What has come, copied; the frames go back to the kernel.
pub(crate) fn take(to: &mut Bound) -> Result<Vec<Vec<u8>>> {
    let bytes = |packet: Packet| Ok(packet.data()?.to_vec());
    let got = to.rx.peek(u32::MAX)?.map(bytes).collect::<Result<Vec<_>>>()?;
    refill(to, got.len())?;
    Ok(got)
}

/// Gives the kernel as many frames, or as many as there are.
pub(crate) fn refill<K: Kind>(to: &mut Bound<K>, frames: usize) -> Result<()> {
    to.fill.fill(&mut to.socket.umem().cache(), u32::try_from(frames)?)?;
    to.fill.wake()?;
    Ok(())
}

/// Waits until so many frames of packets that were sent have come back, no more.
pub(crate) fn completed<K: Kind>(from: &mut Bound<K>, wanted: usize) -> Result<()> {
    let mut cache = from.socket.umem().cache();
    let mut done = 0;
    let all = soon(|| {
        done += from.completion.drain(&mut cache)? as usize;
        Ok(done >= wanted)
    })?;
    ensure!(all && done == wanted, "{done} of {wanted} frames have come back");
    Ok(())
}

/// How many packets a call sends in copy mode.
pub(crate) fn call() -> Result<u32> {
    Ok(if kernel()? < (5, 11) { 16 } else { 32 })
}

/// Waits until nothing comes any more, for a moment: what is counted then has come.
pub(crate) fn quiet() {
    std::thread::sleep(Duration::from_millis(50));
}

/// The feature and the version that an error names, of something that the kernel is too old for.
pub(crate) fn too_old(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::NotSupported { needs, .. } => needs.strip_prefix("kernel "),
        _ => None,
    }
}
