//! Where programs come from, into chains on real interfaces. Needs freplace, so `make test` runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Context, Result, bail, ensure};
use oxdp::{ChainActions, ErrorKind, Legacy, Mode, Policy, Program, Select, TestRun, Xdp};
use std::os::fd::AsFd;
use std::path::Path;
use support::lab::{Pair, received, soon};
use support::{
    BPFFS, Baseline, chain, counter, filter, id, libbpf_object, names, object, program, seen, xdp,
};

/// The BTF that the kernel wants of a component is made up, for its subprograms too.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_without_btf_joins_a_chain() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("nobtf", 10)?);
        let interface = pair.interface()?;
        let (mut counter, mut plain) = (counter()?, program("no_btf.o")?);
        xdp.attach_all(&interface, &mut [&mut counter, &mut plain], Mode::Native)?;
        // It drops packets of even lengths, as these are.
        let socket = pair.listen(7777)?;
        pair.send(7777, 10)?;
        ensure!(soon(|| Ok(seen(&counter)? == 10))? && received(&socket)? == 0);
        drop(socket);
        let actions = ChainActions::PASS | ChainActions::DROP;
        let edit = xdp.edit(&interface).set_chain_actions(id(&plain), actions);
        edit.set_priority(id(&plain), 1).commit()?;
        let both = chain(&xdp, &interface)?;
        ensure!(names(&both) == ["no_btf", "packet_counter"] && both.is_whole(), "{both:?}");
        ensure!(pair.through(7777)? == 10 && seen(&counter)? == 21);
        // Alone it takes the dispatcher's own place.
        xdp.detach_all(&interface)?;
        xdp.attach(&interface, &mut plain, Mode::Native)?;
        ensure!(chain(&xdp, &interface)?.is_whole());
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// An object that asks for the kernel's types, which only libbpf can give it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_that_only_libbpf_can_load_joins_a_chain() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("core", 10)?);
        let interface = pair.interface()?;
        let (mut first, mut second) = (program("by_libbpf.o")?, program("by_libbpf.o")?);
        first.set_chain_actions(ChainActions::DROP);
        xdp.attach_all(&interface, &mut [&mut first, &mut second], Mode::Native)?;
        pair.send(7777, 5)?;
        let count = |program: &Program| -> Result<u64> {
            let value = program.map("seen")?.lookup(&[0; 4])?;
            Ok(u64::from_ne_bytes(*value.first_chunk().context("a value that is too short")?))
        };
        ensure!(soon(|| Ok(count(&second)? == 5))?, "{}", count(&second)?);
        ensure!(count(&first)? == 5, "each has a map of its own");
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// By id, descriptor and pin: with its whole name, its settings from BTF, and its maps.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_component_in_the_kernel_is_attached_again() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair, other) = (xdp()?, Pair::new("again", 10)?, Pair::new("other", 11)?);
        let (here, there) = (pair.interface()?, other.interface()?);
        let mut long = program("frags_pass.o")?;
        let mut counter = counter()?;
        counter.set_priority(77);
        xdp.attach_all(&here, &mut [&mut long, &mut counter], Mode::Native)?;
        let pin = Path::new(BPFFS).join("oxdp-test-pin");
        counter.pin(&pin)?;

        let by_id = Program::from_id(id(&long))?;
        ensure!(by_id.name() == "frags_pass_with_a_long_name", "{by_id:?}");
        ensure!((by_id.id(), by_id.priority()) == (long.id(), 50));
        let by_descriptor = Program::from_fd(counter.fd()?.try_clone_to_owned()?)?;
        let by_pin = Program::from_pin(&pin)?;
        for mut again in [by_id, by_descriptor, by_pin] {
            // 20 is in the program's BTF, 77 was only for the chain that it was in.
            let expected = if again.id() == long.id() { 50 } else { 20 };
            ensure!(again.priority() == expected, "{again:?}");
            xdp.attach(&there, &mut again, Mode::Native)?;
            let both = (chain(&xdp, &here)?, chain(&xdp, &there)?);
            ensure!(both.0.members.len() == 2 && both.1.members.len() == 1);
            ensure!(both.1.members[0].component.as_ref().map(|c| c.id) == again.id());
            let error = xdp.attach(&here, &mut again, Mode::Native).unwrap_err();
            ensure!(matches!(error.kind(), ErrorKind::AlreadyAttached { .. }), "{error}");
            ensure!(other.through(7777)? == 10);
            xdp.detach_all(&there)?;
        }
        let by_id = Program::from_id(id(&counter))?;
        ensure!(seen(&counter)? > 0 && seen(&by_id)? == seen(&counter)?, "the same map");
        std::fs::remove_file(&pin)?;
        xdp.detach_all(&here)?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_clone_is_the_same_program_once_it_is_loaded() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("clone", 10)?);
        let interface = pair.interface()?;
        let mut first = filter(7777)?;
        let mut second = first.clone();
        xdp.attach_all(&interface, &mut [&mut first, &mut second], Mode::Native)?;
        ensure!(id(&first) != id(&second), "loaded each for itself");
        ensure!(pair.through(7777)? == 0);
        let mut same = first.clone();
        ensure!(same.id() == first.id());
        let error = xdp.attach(&interface, &mut same, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::AlreadyAttached { .. }), "{error}");
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// An object of somebody else's libbpf calls.
/// Before it sees a packet, its maps can be filled and it can be pinned; and an attach finds it as it is.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_is_loaded_and_attached_later() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("load", 10)?);
        let pin = Path::new(BPFFS).join("loaded");
        let mut counter = counter()?;
        xdp.load(&mut counter)?;
        let loaded = id(&counter);
        xdp.load(&mut counter)?;
        ensure!(id(&counter) == loaded && seen(&counter)? == 0);
        let before = counter.map("traffic")?.lookup(&[0; 4])?;
        let value = [&1000_u64.to_ne_bytes(), &before[8..]].concat();
        counter.map("traffic")?.update(&[0; 4], &value)?;
        counter.pin(&pin)?;
        drop(counter);
        let mut counter = Program::from_pin(&pin)?;
        std::fs::remove_file(&pin)?;
        // Into a chain of several, whose slots are other functions than that it was loaded for.
        xdp.attach_all(&pair.interface()?, &mut [&mut filter(1)?, &mut counter], Mode::Native)?;
        ensure!(id(&counter) == loaded && pair.through(7777)? == 10);
        ensure!(seen(&counter)? == 1011);
        let mut alone = support::counter()?;
        xdp.test_run(&mut alone, &TestRun::new(&[0; 64]))?;
        let error = xdp.load(&mut alone).unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::LoadedOtherwise { is_component: false }),
            "{error}"
        );
        xdp.detach_all(&pair.interface()?)?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_out_of_a_libbpf_object() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("object", 10)?);
        let interface = pair.interface()?;
        let mut filter = Program::from_object(libbpf_object("udp_filter.o")?, Select::Only)?;
        ensure!((filter.name(), filter.priority()) == ("udp_filter", 10));
        filter.set_global("blocked_port", &7777_u16.to_ne_bytes())?;
        xdp.attach(&interface, &mut filter, Mode::Native)?;
        ensure!(pair.through(7777)? == 0 && pair.through(8888)? == 10);
        ensure!(seen(&filter)? == 22);
        let select = Select::Function("drop_and_stop");
        let mut second = Program::from_object(libbpf_object("two_programs.o")?, select)?;
        xdp.attach(&interface, &mut second, Mode::Native)?;
        ensure!(names(&chain(&xdp, &interface)?) == ["udp_filter", "drop_and_stop"]);
        xdp.detach_all(&interface)?;
        // A load that fails uses the object up, and says so the next time.
        let mut rejected = Program::from_object(libbpf_object("rejected.o")?, Select::Only)?;
        let error = xdp.attach(&interface, &mut rejected, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::Rejected { .. }), "{error}");
        let error = xdp.attach(&interface, &mut rejected, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::SpentObject), "{error}");
    }
    baseline.assert_restored()
}

/// A program is loaded as the one or the other, and both are told apart from what is no XDP program at all.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_that_was_loaded_otherwise_is_refused() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("otherwise", 10)?);
        let interface = pair.interface()?;
        let mut alone = counter()?;
        xdp.edit(&interface).insert(&mut alone).policy(Policy::Single).commit()?;
        xdp.detach(&interface, id(&alone))?;
        for mut program in [alone.clone(), Program::from_id(id(&alone))?] {
            let error = xdp.attach(&interface, &mut program, Mode::Native).unwrap_err();
            let ErrorKind::LoadedOtherwise { is_component: false } = error.kind() else {
                bail!("{error}")
            };
        }
        let mut component = counter()?;
        xdp.attach(&interface, &mut component, Mode::Native)?;
        xdp.detach_all(&interface)?;
        let single = xdp.edit(&interface).insert(&mut component).policy(Policy::Single).commit();
        let error = single.unwrap_err();
        ensure!(
            matches!(error.kind(), ErrorKind::LoadedOtherwise { is_component: true }),
            "{error}"
        );
        let map = alone.map("traffic")?.as_fd().try_clone_to_owned()?;
        let error = Program::from_fd(map).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotXdp(_)), "{error}");
        let error = Program::from_id(4_000_000_000).unwrap_err();
        ensure!(error.errno() == Some(libc_enoent()), "{error}");
        let error = Program::from_pin(Path::new(BPFFS).join("absent")).unwrap_err();
        ensure!(error.errno() == Some(libc_enoent()), "{error}");
    }
    baseline.assert_restored()
}

const fn libc_enoent() -> i32 {
    2
}

/// A component in slot 0 of a dispatcher, as a library of old would have put it there: loaded, linked and pinned.
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one object, from its opening to its end")]
fn put_into_slot(dispatcher: &Program, pins: &Path) -> Result<()> {
    use std::ffi::CString;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    let path = CString::new(object("udp_filter.o").to_str().context("path")?)?;
    let done = |result: i32| ensure_done(result);
    // SAFETY: the path ends in NUL, and what libbpf answers is used and closed here only, each piece while the object
    // is open.
    unsafe {
        let object = libbpf_sys::bpf_object__open(path.as_ptr());
        ensure!(!object.is_null(), "bpf_object__open");
        let program = libbpf_sys::bpf_object__next_program(object, std::ptr::null_mut());
        done(libbpf_sys::bpf_program__set_type(program, libbpf_sys::BPF_PROG_TYPE_EXT))?;
        done(libbpf_sys::bpf_program__set_expected_attach_type(program, 0))?;
        let target = dispatcher.fd()?.as_raw_fd();
        done(libbpf_sys::bpf_program__set_attach_target(program, target, c"prog0".as_ptr()))?;
        done(libbpf_sys::bpf_object__load(object))?;
        let fd = libbpf_sys::bpf_program__fd(program);
        let link = libbpf_sys::bpf_link_create(fd, 0, 0, std::ptr::null());
        done(link)?;
        let link = OwnedFd::from_raw_fd(link);
        for (name, fd) in [("prog0-prog", fd), ("prog0-link", link.as_raw_fd())] {
            let pin = CString::new(pins.join(name).to_str().context("path")?)?;
            done(libbpf_sys::bpf_obj_pin(fd, pin.as_ptr()))?;
        }
        libbpf_sys::bpf_object__close(object);
    }
    Ok(())
}

fn ensure_done(result: i32) -> Result<()> {
    ensure!(result >= 0, "{}", std::io::Error::from_raw_os_error(-result));
    Ok(())
}

/// A chain of the first version is read, told as what it is, and taken off; but no program is added to it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_of_version_1_is_read() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("old", 10)?;
        let interface = pair.interface()?;
        let xdp = Xdp::builder().mount_bpffs(true).layout(Legacy).build()?;
        let mut dispatcher = program("dispatcher_v1.o")?;
        let mut config = [0_u8; 84];
        (config[0], config[4], config[7], config[44]) = (1, 1 << 2, 1 << 7, 77);
        dispatcher.set_global("conf", &config)?;
        let edit = xdp.edit(&interface).insert(&mut dispatcher).policy(Policy::Single);
        edit.mode(Mode::Native).commit()?;
        let name = format!("dispatch-{}-{}", interface.index(), id(&dispatcher));
        let pins = Path::new(BPFFS).join("xdp").join(name);
        std::fs::create_dir_all(&pins)?;
        put_into_slot(&dispatcher, &pins)?;

        let old = chain(&xdp, &interface)?;
        ensure!(old.version == 1 && old.is_whole() && old.pins == Some(pins), "{old:?}");
        ensure!(names(&old) == ["udp_filter"] && old.members[0].priority == 77, "{old:?}");
        ensure!(old.members[0].actions == ChainActions::PASS && !old.members[0].has_frags);
        let error = xdp.attach(&interface, &mut counter()?, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::ProtocolVersion { found: 1 }), "{error}");
        ensure!(chain(&xdp, &interface)? == old);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}
