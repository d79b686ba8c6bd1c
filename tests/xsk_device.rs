//! What a device can do with AF_XDP, and which AF_XDP sockets there are, as the kernel tells.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the tests of chains, which need more of it")]
mod support;

use anyhow::{Result, ensure};
use oxdp::xsk::{DeviceCapabilities, QueueCounts, RxMetadataFeatures, XdpFeatures, XskFeatures};
use oxdp::{ErrorKind, Interface};
use support::kernel;
use support::lab::{Namespace, Pair, UPLINK, ip};

/// What veth tells is what its driver has; what the kernel is too old for is not made up.
#[test]
fn veth_tells_what_it_can_do() -> Result<()> {
    let (pair, kernel) = (Pair::new("capable", 10)?, kernel()?);
    let told = DeviceCapabilities::of(&pair.interface()?);
    if kernel < (6, 3) {
        let error = told.unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotSupported { .. }), "{error}");
        ensure!(error.errno() == Some(libc::EOPNOTSUPP));
        let text = error.to_string();
        ensure!(text.contains("kernel 6.3") && text.contains(UPLINK), "{text}");
        return Ok(());
    }
    let told = told?;
    let native = XdpFeatures::BASIC | XdpFeatures::REDIRECT | XdpFeatures::RX_SG;
    ensure!(told.xdp.contains(native), "{told:?}");
    ensure!(!told.xdp.contains(XdpFeatures::HW_OFFLOAD), "{told:?}");
    let is_zero_copy = told.xdp.contains(XdpFeatures::XSK_ZEROCOPY);
    ensure!(told.zero_copy_max_segments.is_some() == is_zero_copy, "{told:?}");
    let mut metadata = RxMetadataFeatures::TIMESTAMP | RxMetadataFeatures::HASH;
    metadata.set(RxMetadataFeatures::VLAN_TAG, kernel >= (6, 8));
    ensure!(told.rx_metadata == (kernel >= (6, 7)).then_some(metadata), "{told:?}");
    ensure!(told.xsk == (kernel >= (6, 8)).then_some(XskFeatures::empty()), "{told:?}");
    ensure!(told.counts == QueueCounts::of(&pair.interface()?)?, "{told:?}");
    Ok(())
}

/// A veth sends to its peer only what runs a program, or wants to: it says so from then on.
#[test]
fn what_a_device_can_do_changes() -> Result<()> {
    if kernel()? < (6, 3) {
        return veth_tells_what_it_can_do();
    }
    let pair = Pair::new("changing", 10)?;
    let can_send = || -> Result<bool> {
        let told = DeviceCapabilities::of(&pair.interface()?)?;
        Ok(told.xdp.contains(XdpFeatures::NDO_XMIT | XdpFeatures::NDO_XMIT_SG))
    };
    ensure!(!can_send()?);
    let (far, object) = (&pair.far.name, support::object("xdp_pass.o"));
    ip(&format!("-n {far} link set wire xdpdrv obj {} sec xdp", object.display()))?;
    ensure!(can_send()?);
    Ok(())
}

/// The interface is asked for in its own namespace, where another one has the same number.
#[test]
fn queues_are_counted_where_the_interface_is() -> Result<()> {
    let [many, few] = [Namespace::new("many")?, Namespace::new("few")?];
    for (namespace, rx, tx) in [(&many, 4, 2), (&few, 1, 3)] {
        ip(&format!(
            "-n {} link add {UPLINK} index 10 numrxqueues {rx} numtxqueues {tx} type veth peer name wire",
            namespace.name
        ))?;
        let interface = Interface::by_index(&namespace.netns, 10)?;
        let counts = QueueCounts::of(&interface)?;
        ensure!((counts.rx, counts.tx) == (Some(rx), Some(tx)), "{counts:?}");
        ensure!(counts.limit() == rx.max(tx), "{counts:?}");
        // veth has counted its channels since 5.13.
        let channels = kernel()? >= (5, 13);
        ensure!(counts.channels.is_some() == channels, "{counts:?}");
        ensure!(counts.queues() == if channels { rx.max(tx) } else { 1 }, "{counts:?}");
        ensure!(counts.in_use().is_none_or(|used| used == rx.max(tx)), "{counts:?}");
    }
    Ok(())
}

#[test]
fn a_device_without_channels_has_one_queue() -> Result<()> {
    let namespace = Namespace::new("loopback")?;
    let counts = QueueCounts::of(&Interface::by_name(&namespace.netns, "lo")?)?;
    ensure!((counts.rx, counts.tx, counts.channels) == (Some(1), Some(1), None), "{counts:?}");
    ensure!((counts.queues(), counts.limit(), counts.in_use()) == (1, 1, None));
    Ok(())
}

#[test]
fn an_interface_that_is_gone_is_told() -> Result<()> {
    let pair = Pair::new("gone", 10)?;
    let interface = pair.interface()?;
    ip(&format!("-n {} link del {UPLINK}", pair.near.name))?;
    let error = QueueCounts::of(&interface).unwrap_err();
    ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    if kernel()? >= (6, 3) {
        let error = DeviceCapabilities::of(&interface).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NoInterface), "{error}");
    }
    Ok(())
}
