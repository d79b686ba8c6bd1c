//! Every way to change what is on an interface, and what is told of it. Needs freplace, so `make test` runs these in VMs.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use anyhow::{Result, bail, ensure};
use oxdp::{
    AttachBy, AttachedBy, ChainActions, ChainFeature, DowngradeCause, ErrorKind, Features, Mode,
    Occupant, Policy, ProtocolVersion, Xdp,
};
use std::process::Command;
use support::lab::{Pair, ip};
use support::{
    Baseline, chain, counter, filter, id, kernel, names, pins, program, remove_pins, seen, xdp,
};

/// Each step for itself, then several at once: one new dispatcher each time, or none.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn any_number_of_steps_is_one_swap() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("steps", 10)?);
        let interface = pair.interface()?;
        let (mut first, mut second) = (filter(7777)?, counter()?);
        let made = xdp.attach_all(&interface, &mut [&mut first, &mut second], Mode::Native)?;
        let priorities = || -> Result<Vec<u32>> {
            Ok(chain(&xdp, &interface)?.members.iter().map(|member| member.priority).collect())
        };
        ensure!(priorities()? == [10, 20]);

        let swapped = xdp.edit(&interface).set_priority(id(&second), 5).commit()?;
        ensure!(swapped.replaced == made.dispatcher && swapped.mode == Mode::Native);
        ensure!(names(&chain(&xdp, &interface)?) == ["packet_counter", "udp_filter"]);
        ensure!(pair.through(7777)? == 0 && seen(&second)? == 11, "counted before it is dropped");

        // In place: with the priority and actions of what it replaces.
        let mut other = filter(8888)?;
        other.set_priority(99);
        let actions = ChainActions::PASS | ChainActions::TX;
        let edit = xdp.edit(&interface).set_chain_actions(id(&first), actions);
        edit.replace(id(&first), &mut other).commit()?;
        let now = chain(&xdp, &interface)?;
        ensure!(now.members[1].priority == 10 && now.members[1].actions == actions, "{now:?}");
        ensure!(pair.through(7777)? == 10 && pair.through(8888)? == 0);

        // What changes nothing changes nothing.
        let same = xdp.edit(&interface).set_priority(id(&other), 10).commit()?;
        ensure!(same.replaced.is_none() && same.dispatcher == Some(now.dispatcher));
        ensure!(same.pins == now.pins && chain(&xdp, &interface)? == now);

        // Many at once; and if one of them cannot be, none.
        let (mut third, mut fourth) = (counter()?, counter()?);
        let wrong = xdp.edit(&interface).remove(id(&second)).insert(&mut third).remove(1);
        let error = wrong.commit().unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotInChain { id: 1 }), "{error}");
        ensure!(chain(&xdp, &interface)? == now && third.id().is_none());
        let edit = xdp.edit(&interface).remove(id(&second)).insert(&mut third).insert(&mut fourth);
        let after = edit.replace(id(&other), &mut first).commit()?;
        ensure!(after.replaced == Some(now.dispatcher));
        let now = chain(&xdp, &interface)?;
        ensure!(names(&now) == ["udp_filter", "packet_counter", "packet_counter"], "{now:?}");
        ensure!(pair.through(7777)? == 0 && pair.through(8888)? == 10);

        let edit = xdp.edit(&interface).remove(id(&first)).remove(id(&third));
        let gone = edit.remove(id(&fourth)).commit()?;
        ensure!(gone.dispatcher.is_none() && xdp.inspect(&interface)? == Occupant::Empty);
        let error = xdp.edit(&interface).commit().unwrap_err();
        ensure!(error.errno().is_some(), "nothing to do: {error}");
        let error = xdp.edit(&interface).set_priority(7, 7).commit().unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_fresh_chain_has_the_version_asked_for_and_keeps_it() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("version", 10)?;
        let interface = pair.interface()?;
        let of = |version| Xdp::builder().mount_bpffs(true).protocol_version(version).build();
        let (second, third) = (of(ProtocolVersion::V2)?, of(ProtocolVersion::V3)?);
        for (maker, changer, version) in [(&second, &third, 2), (&third, &second, 3)] {
            let (mut first, mut other) = (filter(7777)?, counter()?);
            maker.attach(&interface, &mut first, Mode::Native)?;
            ensure!(chain(changer, &interface)?.version == version);
            changer.attach(&interface, &mut other, Mode::Native)?;
            let both = chain(maker, &interface)?;
            ensure!(both.version == version && both.is_whole() && both.members.len() == 2);
            ensure!(pair.through(7777)? == 0);
            changer.detach(&interface, id(&first))?;
            ensure!(chain(maker, &interface)?.version == version && pair.through(7777)? == 10);
            maker.detach_all(&interface)?;
        }
    }
    baseline.assert_restored()
}

/// Held by a link, a chain is changed in place, told as what it is, and gone with the last pin.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_held_by_a_link_goes_with_its_pins() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let pair = Pair::new("link", 10)?;
        let interface = pair.interface()?;
        let by_link = Xdp::builder().mount_bpffs(true).attach_by(AttachBy::Link).build()?;
        let by_netlink = xdp()?;
        for mode in [Mode::Native, Mode::Skb, Mode::Unspecified] {
            let (mut first, mut second) = (filter(7777)?, counter()?);
            let made = by_link.attach(&interface, &mut first, mode)?;
            let link = made.link.as_ref().map(oxdp::Link::id);
            let held = chain(&by_netlink, &interface)?;
            ensure!(Some(held.attached_by) == link.map(|id| AttachedBy::Link { id }), "{held:?}");
            ensure!(held.mode == made.mode && made.mode != Mode::Unspecified);
            drop(made);

            // Whoever changes it, it stays held as it is.
            let changed = by_netlink.attach(&interface, &mut second, Mode::Unspecified)?;
            ensure!(changed.link.as_ref().map(oxdp::Link::id) == link);
            drop(changed);
            let both = chain(&by_netlink, &interface)?;
            ensure!(both.members.len() == 2 && both.attached_by == held.attached_by, "{both:?}");
            ensure!(pair.through(7777)? == 0);
            // Netlink cannot take it off.
            let how = if both.mode == Mode::Skb { "xdpgeneric" } else { "xdpdrv" };
            ensure!(ip(&format!("-n {} link set uplink {how} off", pair.near.name)).is_err());
            by_netlink.detach(&interface, id(&first))?;
            ensure!(
                pair.through(7777)? == 10 && pins()?.iter().any(|pin| pin.ends_with("xdp-link"))
            );

            let pins = chain(&by_link, &interface)?.pins.unwrap();
            remove_pins(&pins)?;
            std::fs::remove_file(pins.with_file_name("identity"))?;
            std::fs::remove_dir(pins.parent().unwrap())?;
            let empty = support::lab::soon(|| Ok(by_link.inspect(&interface)? == Occupant::Empty))?;
            ensure!(empty, "{:?}", by_link.inspect(&interface)?);

            by_link.attach(&interface, &mut first, mode)?;
            by_netlink.detach_all(&interface)?;
            ensure!(by_link.inspect(&interface)? == Occupant::Empty);
        }
    }
    baseline.assert_restored()
}

/// Without a dispatcher: alone, told why, taken off by its id; and nobody joins.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_program_alone_and_a_chain_keep_out_of_each_other_s_way() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("single", 10)?);
        let interface = pair.interface()?;
        for by in [AttachBy::Netlink, AttachBy::Link] {
            let mut alone = filter(7777)?;
            let edit = xdp.edit(&interface).insert(&mut alone).policy(Policy::Single);
            let outcome = edit.attach_by(by).mode(Mode::Native).commit()?;
            let single = outcome.single.clone().unwrap();
            ensure!(
                single.program == id(&alone)
                    && outcome.dispatcher.is_none()
                    && outcome.pins.is_none()
            );
            ensure!(pair.through(7777)? == 0 && pins()?.is_empty());
            let Occupant::Foreign(told) = xdp.inspect(&interface)? else { bail!("no program") };
            ensure!(
                told.id == id(&alone) && told.name == "udp_filter" && told.mode == Mode::Native
            );
            let is_link = matches!(told.attached_by, Some(AttachedBy::Link { .. }));
            ensure!(is_link == (by == AttachBy::Link), "{told:?}");

            let mut second = counter()?;
            for policy in [Policy::Chain, Policy::Single, Policy::Auto] {
                let edit = xdp.edit(&interface).insert(&mut second).policy(policy);
                let error = edit.commit().unwrap_err();
                ensure!(matches!(error.kind(), ErrorKind::ForeignProgram(_)), "{error}");
                let edit = xdp.edit(&interface).insert(&mut second).policy(policy);
                let error = edit.replace_foreign(told.id + 1).commit().unwrap_err();
                ensure!(matches!(error.kind(), ErrorKind::ForeignProgram(_)), "{error}");
                second = counter()?;
            }
            let edit = xdp.edit(&interface).insert(&mut second).replace_foreign(told.id);
            if is_link {
                let error = edit.commit().unwrap_err();
                ensure!(matches!(error.kind(), ErrorKind::HeldByLink { .. }), "{error}");
                ensure!(pair.through(7777)? == 0);
            } else {
                let outcome = edit.commit()?;
                ensure!(outcome.replaced == Some(told.id) && outcome.dispatcher.is_some());
                ensure!(names(&chain(&xdp, &interface)?) == ["packet_counter"]);
                ensure!(pair.through(7777)? == 10);
                let mut third = filter(7777)?;
                let edit = xdp.edit(&interface).insert(&mut third).policy(Policy::Single);
                let error = edit.commit().unwrap_err();
                ensure!(matches!(error.kind(), ErrorKind::ChainAttached { .. }), "{error}");
                xdp.detach_all(&interface)?;
                xdp.edit(&interface).insert(&mut alone).policy(Policy::Single).commit()?;
            }
            let error = xdp.detach_all(&interface).unwrap_err();
            ensure!(matches!(error.kind(), ErrorKind::ForeignProgram(_)), "{error}");
            ensure!(xdp.detach(&interface, id(&alone))?.replaced == Some(id(&alone)));
            ensure!(xdp.inspect(&interface)? == Occupant::Empty && pair.through(7777)? == 10);
            drop(outcome);
        }
        // Held by a link that only the program keeps, it goes with the program.
        let mut alone = filter(7777)?;
        let edit = xdp.edit(&interface).insert(&mut alone).policy(Policy::Single);
        edit.attach_by(AttachBy::Link).commit()?;
        ensure!(pair.through(7777)? == 0);
        drop(alone);
        ensure!(xdp.inspect(&interface)? == Occupant::Empty && pair.through(7777)? == 10);

        let (mut one, mut two) = (counter()?, counter()?);
        let edit = xdp.edit(&interface).insert(&mut one).insert(&mut two).policy(Policy::Single);
        let error = edit.commit().unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::OnlyOne { .. }), "{error}");
        let chained = xdp.edit(&interface).insert(&mut one).policy(Policy::Auto).commit()?;
        ensure!(chained.single.is_none() && chained.dispatcher.is_some());
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

/// The kernel does not tell whose link is whose: the same program, held by links on interfaces of the same number.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_link_in_another_namespace_is_not_taken_for_ours() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair, other) = (xdp()?, Pair::new("one", 10)?, Pair::new("two", 10)?);
        let (here, there) = (pair.interface()?, other.interface()?);
        let mut guard = filter(7777)?;
        for interface in [&here, &there] {
            let edit = xdp.edit(interface).insert(&mut guard).policy(Policy::Single);
            edit.attach_by(AttachBy::Link).mode(Mode::Native).commit()?;
        }
        let error = xdp.detach(&there, id(&guard)).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::AmbiguousLink { links, .. } if links.len() == 2));
        ensure!(pair.through(7777)? == 0 && other.through(7777)? == 0);
        drop(guard);
        let empty = || Ok(xdp.inspect(&here)? == Occupant::Empty);
        ensure!(support::lab::soon(empty)? && xdp.inspect(&there)? == Occupant::Empty);

        // Taken off and put on again and again, it keeps no links that hold nothing.
        let mut guard = filter(7777)?;
        let descriptors = || -> Result<usize> { Ok(std::fs::read_dir("/proc/self/fd")?.count()) };
        let mut before = None;
        for _ in 0..5 {
            let edit = xdp.edit(&here).insert(&mut guard).policy(Policy::Single);
            edit.attach_by(AttachBy::Link).commit()?;
            let now = descriptors()?;
            ensure!(*before.get_or_insert(now) == now, "{now} descriptors, {before:?} before");
            xdp.detach(&here, id(&guard))?;
        }
        // What cancels itself is nothing.
        let mut counted = counter()?;
        xdp.attach(&here, &mut counted, Mode::Native)?;
        xdp.detach_all(&here)?;
        let known = id(&counted);
        let error = xdp.edit(&here).insert(&mut counted).remove(known).commit().unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::NotAttached), "{error}");
        ensure!(xdp.inspect(&here)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

/// Whose mode counts, and that a policy is one for what comes, not for what is there.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn what_is_there_is_changed_as_what_it_is() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("asis", 10)?);
        let interface = pair.interface()?;
        let alone = Xdp::builder().policy(Policy::Single).build()?;
        for mode in [Mode::Skb, Mode::Native] {
            let (mut first, mut second) = (counter()?, filter(7777)?);
            alone.attach(&interface, &mut first, mode)?;
            let other = if mode == Mode::Skb { Mode::Native } else { Mode::Skb };
            let edit = xdp.edit(&interface).insert(&mut second).replace_foreign(id(&first));
            let error = edit.mode(other).commit().unwrap_err();
            ensure!(matches!(error.kind(), ErrorKind::ModeConflict { .. }), "{error}");
            let edit = alone.edit(&interface).insert(&mut second).replace_foreign(id(&first));
            let replaced = edit.commit()?;
            ensure!(replaced.mode == mode && replaced.replaced == first.id(), "{replaced:?}");
            let mut third = filter(7777)?;
            let edit = xdp.edit(&interface).insert(&mut third).replace_foreign(id(&second));
            let chained = edit.commit()?;
            ensure!(chained.mode == mode && chained.dispatcher.is_some(), "{chained:?}");
            ensure!(pair.through(7777)? == 0);
            alone.edit(&interface).set_priority(id(&third), 3).commit()?;
            ensure!(chain(&xdp, &interface)?.members[0].priority == 3);
            alone.detach(&interface, id(&third))?;
            ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        }
    }
    baseline.assert_restored()
}

/// A dispatcher whose link is somebody else's alone, pinned nowhere, is not taken over.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_on_somebody_s_link_is_not_swapped() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("theirs", 10)?);
        let interface = pair.interface()?;
        let mut first = filter(7777)?;
        let edit = xdp.edit(&interface).insert(&mut first).attach_by(AttachBy::Link);
        let made = edit.commit()?;
        std::fs::remove_file(made.pins.as_ref().unwrap().join("xdp-link"))?;
        let told = chain(&xdp, &interface)?;
        ensure!(matches!(told.attached_by, AttachedBy::Link { .. }) && told.is_whole(), "{told:?}");
        let error = xdp.attach(&interface, &mut counter()?, Mode::Unspecified).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::HeldByLink { .. }), "{error}");
        ensure!(chain(&xdp, &interface)? == told && pair.through(7777)? == 0);
        xdp.detach_all(&interface)?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn fragments_are_lost_by_whom_and_needed_for_large_packets() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("large", 10)?);
        let interface = pair.interface()?;
        let has_frags = kernel()? >= (5, 18);
        let (mut reads, mut cannot) = (program("frags_pass.o")?, counter()?);
        let alone = xdp.attach(&interface, &mut reads, Mode::Native)?;
        ensure!(alone.has_frags == has_frags);
        if has_frags {
            ensure!(alone.downgrades.is_empty(), "{alone:?}");
        } else {
            ensure!(alone.downgrades[0].cause == DowngradeCause::Kernel, "{alone:?}");
        }
        let both = xdp.attach(&interface, &mut cannot, Mode::Native)?;
        ensure!(!both.has_frags && both.downgrades.len() == 1, "{both:?}");
        ensure!(both.downgrades[0].feature == ChainFeature::Frags);
        let blames = |name: &str| {
            matches!(&both.downgrades[0].cause,
            DowngradeCause::Program { name: told, .. } if told == name)
        };
        ensure!(blames("packet_counter"), "{both:?}");
        let back = xdp.detach(&interface, id(&cannot))?;
        ensure!(back.has_frags == has_frags);
        xdp.detach_all(&interface)?;

        for (netns, device) in [(&pair.near.name, "uplink"), (&pair.far.name, "wire")] {
            ip(&format!("-n {netns} link set {device} mtu 5000"))?;
        }
        let refused = |name: &str, attached: oxdp::Result<oxdp::Outcome>| -> Result<()> {
            let error = attached.unwrap_err();
            let ErrorKind::MtuTooLarge { programs, .. } = error.kind() else { bail!("{error}") };
            ensure!(programs.iter().any(|program| program == name), "{error}");
            Ok(())
        };
        refused("packet_counter", xdp.attach(&interface, &mut cannot, Mode::Native))?;
        ensure!(xdp.inspect(&interface)? == Occupant::Empty && pins()?.is_empty());
        if has_frags {
            xdp.attach(&interface, &mut reads, Mode::Native)?;
            refused("packet_counter", xdp.attach(&interface, &mut cannot, Mode::Native))?;
            let edit = xdp.edit(&interface).replace(id(&reads), &mut cannot);
            refused("packet_counter", edit.commit())?;
            ensure!(chain(&xdp, &interface)?.members.len() == 1);
            xdp.detach_all(&interface)?;
            let mut alone = counter()?;
            let edit = xdp.edit(&interface).insert(&mut alone).policy(Policy::Single);
            refused("packet_counter", edit.mode(Mode::Native).commit())?;
            let by_link = xdp.edit(&interface).insert(&mut cannot).attach_by(AttachBy::Link);
            refused("packet_counter", by_link.mode(Mode::Native).commit())?;
        }
        // In the stack, packets are whole whatever their size.
        xdp.attach(&interface, &mut cannot, Mode::Skb)?;
        ensure!(pair.through(7777)? == 10);
        xdp.detach_all(&interface)?;
    }
    baseline.assert_restored()
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn a_chain_is_bound_to_its_device_only_if_all_ask_for_it() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("bound", 10)?);
        let interface = pair.interface()?;
        let (mut first, mut second, mut third) = (filter(7777)?, counter()?, counter()?);
        first.set_device_bound(true)?;
        second.set_device_bound(true)?;
        if kernel()? < (6, 3) {
            let error = xdp.attach(&interface, &mut first, Mode::Native).unwrap_err();
            ensure!(error.errno().is_some(), "{error}");
            ensure!(!Features::probe()?.device_binding.is_yes());
            ensure!(xdp.inspect(&interface)? == Occupant::Empty && pins()?.is_empty());
            return Ok(());
        }
        let made = xdp.attach(&interface, &mut first, Mode::Native)?;
        ensure!(made.is_device_bound && made.downgrades.is_empty(), "{made:?}");
        ensure!(xdp.attach(&interface, &mut second, Mode::Native)?.is_device_bound);
        let bound = chain(&xdp, &interface)?;
        ensure!(
            bound.is_device_bound && bound.members.iter().all(|m| m.is_device_bound),
            "{bound:?}"
        );
        ensure!(pair.through(7777)? == 0);
        let error = xdp.attach(&interface, &mut third, Mode::Native).unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::MixedDeviceBinding { .. }), "{error}");
        ensure!(chain(&xdp, &interface)? == bound);
        xdp.detach_all(&interface)?;

        // The other way round it goes without, and says whose fault that is.
        let mut asks = counter()?;
        asks.set_device_bound(true)?;
        xdp.attach(&interface, &mut third, Mode::Native)?;
        let mixed = xdp.attach(&interface, &mut asks, Mode::Native)?;
        ensure!(!mixed.is_device_bound && mixed.downgrades.len() == 1, "{mixed:?}");
        let before = xdp.inspect(&interface)?;
        let mut insists = filter(7777)?;
        insists.set_device_bound(true)?;
        let edit = xdp.edit(&interface).insert(&mut insists).require(ChainFeature::DeviceBinding);
        let error = edit.commit().unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::Downgraded(_)), "{error}");
        ensure!(xdp.inspect(&interface)? == before, "{error}");
        ensure!(mixed.downgrades[0].feature == ChainFeature::DeviceBinding);
        xdp.detach_all(&interface)?;

        let mut asks = counter()?;
        asks.set_device_bound(true)?;
        let second = Xdp::builder().protocol_version(ProtocolVersion::V2).build()?;
        let old = second.attach(&interface, &mut asks, Mode::Native)?;
        ensure!(old.downgrades[0].cause == DowngradeCause::ProtocolVersion, "{old:?}");
        second.detach_all(&interface)?;

        // Alone too; and only in the driver.
        let mut asks = filter(7777)?;
        asks.set_device_bound(true)?;
        let edit = xdp.edit(&interface).insert(&mut asks).policy(Policy::Single);
        ensure!(edit.mode(Mode::Native).commit()?.is_device_bound);
        xdp.detach(&interface, id(&asks))?;
        let edit = xdp.edit(&interface).insert(&mut asks).policy(Policy::Single);
        let error = edit.mode(Mode::Skb).commit().unwrap_err();
        ensure!(error.errno().is_some(), "{error}");
    }
    baseline.assert_restored()
}

/// Where there is no such device, a clear answer.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn no_veth_runs_programs_itself() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (xdp, pair) = (xdp()?, Pair::new("hardware", 10)?);
        let interface = pair.interface()?;
        for policy in [Policy::Chain, Policy::Single, Policy::Auto] {
            let mut program = counter()?;
            let edit = xdp.edit(&interface).insert(&mut program).policy(policy);
            let error = edit.mode(Mode::Hardware).commit().unwrap_err();
            let ErrorKind::ModeUnsupported { mode: "hardware", .. } = error.kind() else {
                bail!("{policy:?}: {error}")
            };
            ensure!(xdp.inspect(&interface)? == Occupant::Empty);
        }
    }
    baseline.assert_restored()
}

/// What each kernel has, by the version that brought it.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn features_are_those_of_the_kernel() -> Result<()> {
    let baseline = Baseline::take()?;
    let features = Features::probe()?;
    let since = [
        ("freplace", (5, 10)),
        ("reattach", (5, 10)),
        ("xdp_link", (5, 10)),
        ("link_target", (5, 13)),
        ("netns_cookie", (5, 14)),
        ("frags", (5, 18)),
        ("device_binding", (6, 3)),
    ];
    for (name, support) in features.iter() {
        let (_, version) = since.iter().find(|(known, _)| *known == name).unwrap();
        ensure!(support.is_yes() == (kernel()? >= *version), "{name}: {support}");
    }
    ensure!(features.iter().count() == since.len());
    baseline.assert_restored()
}

/// The environment's word counts where the program says nothing itself.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn the_environment_can_do_without_a_dispatcher() -> Result<()> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", "child_that_skips_the_dispatcher", "--ignored", "--nocapture"])
        .env("LIBXDP_SKIP_DISPATCHER", "1")
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// By itself, without that environment, a chain.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn child_that_skips_the_dispatcher() -> Result<()> {
    let (xdp, pair) = (xdp()?, Pair::new("skips", 10)?);
    let interface = pair.interface()?;
    let mut program = counter()?;
    let outcome = xdp.attach(&interface, &mut program, Mode::Native)?;
    if std::env::var_os("LIBXDP_SKIP_DISPATCHER").is_some() {
        ensure!(outcome.single.unwrap().why.contains("LIBXDP_SKIP_DISPATCHER"));
    } else {
        ensure!(outcome.dispatcher.is_some());
    }
    xdp.detach(&interface, id(&program))?;
    ensure!(xdp.inspect(&interface)? == Occupant::Empty);
    Ok(())
}
