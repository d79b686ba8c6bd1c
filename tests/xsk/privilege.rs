//! Processes that may less: told what they lack, and served by those that may more.

use crate::lab::{FAR, Lab, NEAR, completed, duplex, packets, send, umem};
use crate::raw;
use crate::support::lab::soon;
use crate::support::{child, passed};
use anyhow::{Context, Result, ensure};
use oxdp::xsk::{Prefill, Umem};
use oxdp::{ErrorKind, Interface, Netns};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

/// The namespace that a child is told.
const NETNS: &str = "OXDP_TEST_NETNS";

/// `tool` with arguments, and behind them a test of this binary as a child.
fn under(tool: &str, arguments: &[&str], test: &str, netns: &str) -> Command {
    let itself = child(test);
    let mut command = Command::new(tool);
    command.args(arguments).arg(itself.get_program()).args(itself.get_args()).env(NETNS, netns);
    command
}

fn told(name: &str) -> Result<Interface> {
    let netns = std::env::var(NETNS).context("run by another test")?;
    Ok(Interface::by_name(&Netns::by_name(&netns)?, name)?)
}

fn without_net_raw(test: &str, netns: &str) -> Command {
    let bounds = ["--bounding-set=-net_raw", "--inh-caps=-net_raw"];
    under("setpriv", &bounds, test, netns)
}

#[test]
fn without_cap_net_raw_the_error_names_it() -> Result<()> {
    let lab = Lab::new()?;
    let name = &lab.spaces.0.name;
    passed(&without_net_raw("privilege::child_without_net_raw", name).output()?)
}

#[test]
#[ignore = "run by without_cap_net_raw_the_error_names_it, with fewer capabilities"]
fn child_without_net_raw() -> Result<()> {
    let (near, umem) = (told(NEAR)?, umem(64)?);
    let error = duplex(&umem, &near, 0).bind().unwrap_err();
    ensure!(
        matches!(error.kind(), ErrorKind::NoPrivilege { needs } if *needs == "CAP_NET_RAW"),
        "{error}"
    );
    ensure!(umem.census().free == 64, "{:?}", umem.census());
    Ok(())
}

/// It gets a socket as its standard input, binds it and receives.
#[test]
fn a_socket_that_is_passed_needs_no_privilege() -> Result<()> {
    let lab = Lab::new()?;
    let socket = raw::socket(&lab.near)?;
    let name = &lab.spaces.0.name;
    let mut command = without_net_raw("privilege::child_with_a_socket", name);
    let mut child = command.stdin(socket.try_clone()?).stdout(Stdio::piped()).spawn()?;
    let map = lab.near_program.map("xsks")?;
    let is_known = soon(|| Ok(map.set_socket(0, &socket).is_ok()))?;
    drop(socket);
    let umem = umem(64)?;
    let mut far = duplex(&umem, &lab.far, 0).prefill(Prefill::Frames(0)).bind()?;
    // The map can know a socket that is not bound yet, so the first ones may be lost.
    let is_done = soon(|| {
        send(&mut far, &packets(1, 60))?;
        completed(&mut far, 1)?;
        Ok(child.try_wait()?.is_some())
    })?;
    passed(&child.wait_with_output()?)?;
    ensure!(is_known && is_done);
    Ok(())
}

#[test]
#[ignore = "run by a_socket_that_is_passed_needs_no_privilege, with fewer capabilities"]
fn child_with_a_socket() -> Result<()> {
    let (near, umem) = (told(NEAR)?, umem(64)?);
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut bound = duplex(&umem, &near, 0).descriptor(socket).bind()?;
    let mut got = Vec::new();
    ensure!(soon(|| {
        for packet in bound.rx.peek(64)? {
            got.push(packet.data()?.to_vec());
        }
        Ok(got.len() >= 5)
    })?);
    ensure!(got.iter().all(|bytes| *bytes == packets(1, 60)[0]));
    Ok(())
}

/// What is given as a socket must be one, and a fresh one.
#[test]
fn other_descriptors_are_refused() -> Result<()> {
    let (lab, umem) = (Lab::new()?, umem(64)?);
    let file = std::fs::File::open("/dev/null")?;
    let error = duplex(&umem, &lab.near, 0).descriptor(file.into()).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::ENOTSOCK), "{error}");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let error = duplex(&umem, &lab.near, 0).descriptor(udp.into()).bind().unwrap_err();
    ensure!(error.errno().is_some(), "{error}");
    let used = raw::Raw::bound(&lab.near, &raw::Register::default())?;
    let error = duplex(&umem, &lab.near, 0).descriptor(used.fd.try_clone()?).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::EBUSY), "{error}");
    // Of another namespace than the interface, which is not in there.
    let elsewhere = raw::socket(&lab.far)?;
    let error = duplex(&umem, &lab.near, 0).descriptor(elsewhere).bind();
    ensure!(error.is_err() || lab.near.index() == lab.far.index());
    drop(error);
    ensure!(umem.census().held == 0, "{:?}", umem.census());
    Ok(())
}

/// More memory than may be locked, by who may not do more.
#[test]
fn a_limit_on_locked_memory_is_named() -> Result<()> {
    let lab = Lab::new()?;
    let limit = ["--memlock=65536:65536", "setpriv", "--bounding-set=-ipc_lock"];
    let mut command =
        under("prlimit", &limit, "privilege::child_without_locked_memory", &lab.spaces.1.name);
    passed(&command.output()?)
}

#[test]
#[ignore = "run by a_limit_on_locked_memory_is_named, with that limit"]
fn child_without_locked_memory() -> Result<()> {
    let far = told(FAR)?;
    let umem = Umem::builder().frames(1024).build()?;
    let error = duplex(&umem, &far, 0).bind().unwrap_err();
    ensure!(error.errno() == Some(libc::ENOBUFS), "{error}");
    ensure!(error.to_string().contains("RLIMIT_MEMLOCK"), "{error}");
    ensure!(umem.census().free == 1024, "{:?}", umem.census());
    Ok(())
}
