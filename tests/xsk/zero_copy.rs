//! Without copies, between the VM's two network cards.

use crate::lab::{carry, duplex, packets, program, reclaimed, settled, umem};
use crate::support::lab::{ip, soon};
use crate::support::{id, kernel};
use anyhow::{Result, ensure};
use oxdp::xsk::{BindMode, DeviceCapabilities, XdpFeatures, sockets_in};
use oxdp::{Interface, Mode, Netns, Policy, Program, Xdp};
use std::process::Command;

const NEAR: &str = "eth0";
const FAR: &str = "eth1";
/// The first kernel whose virtio_net sends without copies, too.
const FIRST: (u32, u32) = (6, 13);

/// A card that takes everything it sees, and says nothing of its own.
fn card(name: &str) -> Result<Interface> {
    let loaded = Command::new("modprobe").arg("virtio_net").status()?;
    ensure!(loaded.success(), "modprobe virtio_net: {loaded}");
    let here = || Ok::<_, anyhow::Error>(Interface::by_name(&Netns::current()?, name)?);
    ensure!(soon(|| Ok(here().is_ok()))?, "no {name}");
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    ip(&format!("link set {name} promisc on up"))?;
    here()
}

/// With a program that gives its packets to a socket.
fn receiver(xdp: &Xdp, card: &Interface) -> Result<Program> {
    let mut program = program("xsk_redirect.o", "xsk_redirect")?;
    xdp.attach(card, &mut program, Mode::Native)?;
    Ok(program)
}

#[test]
#[ignore = "needs network cards that can; run in a VM by make test"]
fn packets_come_and_go_without_copies() -> Result<()> {
    let (near_card, far_card, umem) = (card(NEAR)?, card(FAR)?, umem(2048)?);
    let zero_copy = |card| duplex(&umem, card, 0).mode(BindMode::ZeroCopy);
    if kernel()? < FIRST {
        let error = zero_copy(&near_card).bind().unwrap_err();
        ensure!(error.errno() == Some(libc::EOPNOTSUPP), "{error}");
        return Ok(());
    }
    let can = DeviceCapabilities::of(&near_card)?.xdp;
    ensure!(can.contains(XdpFeatures::XSK_ZEROCOPY), "{can:?}");
    let xdp = Xdp::builder().policy(Policy::Single).build()?;
    let programs = [receiver(&xdp, &near_card)?, receiver(&xdp, &far_card)?];
    let (mut near, mut far) = (zero_copy(&near_card).bind()?, zero_copy(&far_card).bind()?);
    ensure!(near.socket.granted().zero_copy && far.socket.granted().zero_copy);
    let told = sockets_in(&Netns::current()?)?;
    ensure!(told.len() == 2, "{told:?}");
    ensure!(told.iter().all(|socket| socket.umem.as_ref().is_some_and(|umem| umem.is_zero_copy)));
    programs[0].map("xsks")?.set_socket(0, &near.socket)?;
    programs[1].map("xsks")?.set_socket(0, &far.socket)?;
    for length in [60, 1000, 1514] {
        let sent = packets(500, length);
        ensure!(carry(&mut far, &mut near, &sent)? == sent, "{length} bytes, to the near end");
        ensure!(carry(&mut near, &mut far, &sent)? == sent, "{length} bytes, to the far end");
    }
    settled(&umem)?;
    drop((near, far));
    reclaimed(&umem)?;
    xdp.detach(&near_card, id(&programs[0]))?;
    xdp.detach(&far_card, id(&programs[1]))?;
    Ok(())
}
