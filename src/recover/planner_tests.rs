//! Inventories, and what is planned for them.

use super::{
    Action, EmptyDispatcher, Inventory, PinnedElsewhere, PinnedSlot, Scope, ScopeOwner, SeenChain,
    SeenDefault, SeenInterface, SeenNetns, SeenPins, SeenProgram,
};
use crate::dispatcher::SlotLink;
use crate::net::{Mode, NetnsId};

const ROOT: &str = "/bpf/xdp";

fn netns(inode: u64) -> NetnsId {
    NetnsId { inode, cookie: Some(inode * 10), handle: None, boot: "b".into() }
}

fn home(inode: u64, ifindex: u32, dispatcher: u32) -> String {
    format!("{ROOT}/netns-{inode}/dispatch-{ifindex}-{dispatcher}")
}

fn seen(inode: u64, ifindex: u32, program: u32, what: SeenProgram) -> SeenNetns {
    let name = "eth0".to_owned();
    let (mode, defaults) = (Mode::Native, Vec::new());
    let interface = SeenInterface { ifindex, name, mode, program, what, defaults };
    SeenNetns { id: netns(inode), label: format!("n{inode}"), interfaces: vec![interface] }
}

/// Dispatcher 7 with two slots on interface 3 of namespace 5.
fn attached(inode: u64, ifindex: u32) -> SeenNetns {
    let home = home(inode, ifindex, 7).into();
    seen(inode, ifindex, 7, SeenProgram::Chain(SeenChain { version: 3, slots: 2, home }))
}

fn pins(path: &str, dispatcher: u32) -> SeenPins {
    let slot = |slot, program, link| PinnedSlot { slot, program: Some(program), link: Some(link) };
    SeenPins {
        path: path.into(),
        ifindex: 3,
        dispatcher,
        is_loaded: true,
        slots: vec![slot(0, 70, 20), slot(1, 71, 21)],
        attachment: None,
        unexpected: Vec::new(),
    }
}

fn links(target: Option<u32>) -> Vec<SlotLink> {
    let link = |slot: u32| SlotLink {
        id: 20 + slot,
        program: 70 + slot,
        target,
        slot: target.map(|_| slot as usize),
    };
    vec![link(0), link(1)]
}

fn scope(path: &str, owner: ScopeOwner) -> Scope {
    Scope { path: path.into(), owner, is_empty: false }
}

/// A chain as it should be.
fn whole() -> Inventory {
    Inventory {
        root: Some(ROOT.into()),
        namespaces: vec![attached(5, 3)],
        scopes: vec![scope(&format!("{ROOT}/netns-5"), ScopeOwner::Alive { netns: netns(5) })],
        pins: vec![pins(&home(5, 3, 7), 7)],
        links: links(Some(7)),
        ..Inventory::default()
    }
}

/// The plan as text, without what is as it should be.
fn text(inventory: &Inventory) -> Vec<String> {
    let plan = inventory.plan(EmptyDispatcher::Remove);
    let lines = plan.lines.iter().filter(|line| !matches!(line.action, Action::Nothing { .. }));
    lines.map(ToString::to_string).collect()
}

#[track_caller]
fn expect(inventory: &Inventory, expected: &[&str]) {
    let lines = text(inventory);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(expected) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(words.join(" ").contains(start), "{line}\nis not\n{start}");
    }
}

#[test]
fn a_whole_chain_is_as_it_should_be() {
    expect(&whole(), &[]);
    assert!(!whole().plan(EmptyDispatcher::Remove).is_change());
    // Where C libxdp keeps it, and would look for it.
    let mut legacy = whole();
    legacy.pins = vec![pins(&format!("{ROOT}/dispatch-3-7"), 7)];
    expect(&legacy, &[]);
    // Before 5.13 the pins tell.
    expect(&Inventory { links: links(None), ..whole() }, &[]);
}

#[test]
fn lost_pins_of_what_runs_are_made_again() {
    let lost = Inventory { pins: Vec::new(), ..whole() };
    let into = home(5, 3, 7);
    expect(
        &lost,
        &[&format!(
            "adopt slots 0, 1 of dispatcher 7 on eth0 (ifindex 3) in netns n5, into {into}"
        )],
    );
    let mut one = whole();
    one.pins[0].slots[1].link = None;
    expect(&one, &["adopt slots 1 of dispatcher 7"]);
    let untold = Inventory { links: links(None), ..lost };
    expect(
        &untold,
        &["leave alone dispatcher 7 on eth0 (ifindex 3) in netns n5: slot 0 has no pinned link"],
    );
}

#[test]
fn a_link_in_no_slot_that_is_known_may_be_in_any() {
    let mut odd = whole();
    odd.pins[0].slots[1].link = None;
    odd.links[1].slot = None;
    expect(&odd, &["slot 1 has no pinned link, and link 21 is in none of the dispatcher's slots"]);
}

#[test]
fn dead_slots_are_dropped_and_dead_chains_detached() {
    let mut one = whole();
    one.pins[0].slots[1].link = None;
    one.links.pop();
    expect(&one, &["drop slots 1 of dispatcher 7"]);
    if let SeenProgram::Chain(chain) = &mut one.namespaces[0].interfaces[0].what {
        chain.version = 1;
    }
    expect(&one, &["leave alone dispatcher 7"]);
    let all = Inventory { links: Vec::new(), pins: Vec::new(), ..whole() };
    expect(&all, &["detach dispatcher 7 on eth0 (ifindex 3) in netns n5: its programs have died"]);
    let kept = all.plan(EmptyDispatcher::Keep);
    assert!(!kept.is_change() && kept.to_string().contains("the next attach replaces it"));
}

#[test]
fn pins_follow_an_interface_that_has_moved() {
    // To another namespace, which has the number free.
    let mut moved = Inventory { namespaces: vec![attached(6, 3)], ..whole() };
    let there = format!(
        "re-home dispatcher 7 on eth0 (ifindex 3) in netns n6, from {} to {}",
        home(5, 3, 7),
        home(6, 3, 7)
    );
    expect(&moved, &[&there]);
    // Out of one that is dead now.
    moved.scopes[0].owner = ScopeOwner::Dead { netns: netns(5) };
    expect(&moved, &["a namespace that is dead (inode 5)"]);
    // Within its own, to another number; and from where C libxdp would not find it any more.
    expect(
        &Inventory { namespaces: vec![attached(5, 4)], ..whole() },
        &["had ifindex 3 and now has 4"],
    );
    let mut legacy = Inventory { namespaces: vec![attached(5, 4)], ..whole() };
    legacy.pins[0].path = format!("{ROOT}/dispatch-3-7").into();
    expect(&legacy, &[&format!("to {}: its interface had ifindex 3", home(5, 4, 7))]);
}

#[test]
fn pins_that_nobody_uses_are_removed_if_that_is_sure() {
    let old = format!("{ROOT}/netns-5/dispatch-3-6");
    let mut inventory = whole();
    inventory.pins.push(SeenPins { slots: Vec::new(), ..pins(&old, 6) });
    expect(&inventory, &[&format!("remove {old}: no interface has dispatcher 6")]);
    inventory.gaps.push("3 processes hide theirs".into());
    expect(
        &inventory,
        &[&format!(
            "leave alone {old}: no interface that can be seen has dispatcher 6, but 3 processes"
        )],
    );
    // Whose dispatcher is gone from the kernel is nobody's, whatever is hidden.
    inventory.pins[1].is_loaded = false;
    expect(&inventory, &["dispatcher 6 is not in the kernel any more"]);
    inventory.pins[1].unexpected.push("/bpf/mine".into());
    expect(&inventory, &["the protocol did not put /bpf/mine there"]);
}

#[test]
fn pins_under_a_wrong_name_keep_what_they_hold() {
    // The pins of dispatcher 7, renamed by somebody to those of 8, which is not there.
    let mut renamed = whole();
    renamed.pins[0] = SeenPins { is_loaded: false, ..pins(&home(5, 3, 8), 8) };
    let lines = text(&renamed);
    assert!(lines.iter().any(|line| line.contains("is in another dispatcher")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.starts_with("remove")), "{lines:#?}");
    // Before 5.13 they are not taken for those of another chain either, nor is the chain for dead.
    renamed.links = links(None);
    let lines = text(&renamed);
    assert!(!renamed.plan(EmptyDispatcher::Remove).is_change(), "{lines:#?}");
}

#[test]
fn a_dispatcher_on_two_interfaces_is_left_alone() {
    let mut twice = whole();
    twice.namespaces.push(attached(6, 3));
    twice.links.pop();
    expect(&twice, &["several interfaces have it", "several interfaces have it"]);
}

#[test]
fn what_a_link_holds_out_of_sight_is_in_use() {
    let mut inventory = whole();
    inventory.pins.push(SeenPins { slots: Vec::new(), ..pins("/bpf/xdp/dispatch-9-6", 6) });
    inventory.held.push((44, 6));
    expect(&inventory, &["leave alone /bpf/xdp/dispatch-9-6: link 44 holds dispatcher 6"]);
}

#[test]
fn a_damaged_chain_that_is_somebody_s_is_left_alone() {
    let mut process = Inventory { pins: Vec::new(), ..whole() };
    process.held.push((44, 7));
    expect(
        &process,
        &["leave alone dispatcher 7 on eth0 (ifindex 3) in netns n5: link 44 of a process"],
    );
    let mut container = Inventory { pins: Vec::new(), ..whole() };
    container.elsewhere.push(PinnedElsewhere { dispatcher: 7, path: "/c/xdp/dispatch-3-7".into() });
    expect(&container, &["it is pinned in another bpf file system: /c/xdp/dispatch-3-7"]);
}

#[test]
fn pins_of_something_else_are_not_trusted() {
    let mut inventory = whole();
    inventory.pins[0].slots[0].program = Some(99);
    expect(&inventory, &["what is pinned of slot 0 is not what runs there"]);
    let mut inventory = whole();
    inventory.pins[0].slots.swap(0, 1);
    (inventory.pins[0].slots[0].slot, inventory.pins[0].slots[1].slot) = (0, 1);
    expect(&inventory, &["what is pinned of slot 0 is not what runs there"]);
    let mut second = whole();
    second.pins.push(SeenPins { slots: Vec::new(), ..pins("/bpf/xdp/dispatch-3-7", 7) });
    expect(&second, &["leave alone /bpf/xdp/dispatch-3-7: a second directory of dispatcher 7"]);
}

#[test]
fn default_programs_go_with_their_last_user() {
    let seen = |count, in_use: Option<&str>| {
        vec![SeenDefault { program: 70, count, in_use: in_use.map(str::to_owned) }]
    };
    let mut inventory = whole();
    inventory.namespaces[0].interfaces[0].defaults = seen(Some(2), Some("a socket"));
    expect(&inventory, &[]);
    for (count, reason) in [
        (Some(2), "have died, and no socket"),
        (Some(0), "its last user has left"),
        (None, "no users"),
    ] {
        inventory.namespaces[0].interfaces[0].defaults = seen(count, None);
        let drop = "drop default program 70 of dispatcher 7 on eth0 (ifindex 3) in netns n5: ";
        let lines = text(&inventory);
        let words = lines[0].split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.len() == 1 && words.starts_with(drop) && words.contains(reason), "{lines:?}");
    }
    // Not where the chain is left alone.
    inventory.namespaces.push(attached(6, 3));
    expect(&inventory, &["several interfaces have it", "several interfaces have it"]);
    // Without a dispatcher.
    let mut alone = seen_alone();
    expect(
        &alone,
        &["leave alone eth0 (ifindex 2) in netns n8: default AF_XDP program 50 is in use: x"],
    );
    alone.namespaces[0].interfaces[0].defaults[0].in_use = None;
    expect(&alone, &["drop default program 50 on eth0 (ifindex 2) in netns n8: those who counted"]);
}

fn seen_alone() -> Inventory {
    let foreign = SeenProgram::Foreign { name: "xsk_def_prog".into() };
    let mut netns = seen(8, 2, 50, foreign);
    let in_use = Some("x".to_owned());
    netns.interfaces[0].defaults = vec![SeenDefault { program: 50, count: Some(1), in_use }];
    Inventory { namespaces: vec![netns], ..Inventory::default() }
}

#[test]
fn empty_scopes_go_and_foreign_programs_stay() {
    let mut inventory = whole();
    let of = |path: &str, owner| Scope { is_empty: true, ..scope(path, owner) };
    inventory.scopes.push(of("/bpf/xdp/draft-scope", ScopeOwner::Draft));
    inventory.scopes.push(of("/bpf/xdp/netns-9", ScopeOwner::Unseen { netns: netns(9) }));
    inventory.scopes.push(of("/bpf/xdp/netns-8", ScopeOwner::Nobody));
    inventory.scopes.push(of("/bpf/xdp/mine", ScopeOwner::Unnoted));
    let foreign = SeenProgram::Foreign { name: "katran".into() };
    inventory.namespaces.push(seen(8, 2, 50, foreign));
    expect(
        &inventory,
        &[
            "leave alone eth0 (ifindex 2) in netns n8: program katran (id 50) is part of no chain",
            "remove /bpf/xdp/draft-scope: left by a process",
            "remove /bpf/xdp/netns-9: no dispatcher is in it",
            "remove /bpf/xdp/netns-8: left by a process that ended while it removed it",
        ],
    );
    let cleanup = inventory.plan(EmptyDispatcher::Remove).cleanup();
    assert_eq!(cleanup.lines.len(), 3);
}
