//! Many namespaces on one bpf file system, from many threads at once: each sees only its own.

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod support;

use anyhow::{Context, Result, ensure};
use oxdp::{Done, EmptyDispatcher, ErrorKind, Interface, Mode, NetnsInode, Occupant, Xdp};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::lab::{Crowd, Pair};
use support::{BPFFS, Baseline, chain, counter, filter, id, names, pins};

const NAMESPACES: usize = 200;
const THREADS: usize = 16;
/// The same in every namespace.
const IFINDEX: u32 = Crowd::IFINDEX;

fn xdp() -> Result<Xdp> {
    Ok(Xdp::builder().mount_bpffs(true).layout(NetnsInode).build()?)
}

/// What a thread does in one of its namespaces: everything, and after each step it finds its own programs only.
fn live_in(xdp: &Xdp, interface: &Interface) -> Result<()> {
    let own = format!("netns-{}/dispatch-{IFINDEX}-", interface.netns().inode());
    let expect = |ids: &[u32]| -> Result<()> {
        let chain = chain(xdp, interface)?;
        let found: Vec<_> =
            chain.members.iter().filter_map(|member| Some(member.component.as_ref()?.id)).collect();
        ensure!(chain.is_whole() && found == ids, "{chain:?}, not {ids:?}");
        let place = chain.pins.context("pins")?;
        ensure!(place.to_string_lossy().contains(&own), "{}", place.display());
        Ok(())
    };
    ensure!(xdp.inspect(interface)? == Occupant::Empty);
    let (mut guard, mut count) = (filter(7777)?, counter()?);
    xdp.attach(interface, &mut guard, Mode::Unspecified)?;
    expect(&[id(&guard)])?;
    xdp.attach(interface, &mut count, Mode::Unspecified)?;
    expect(&[id(&guard), id(&count)])?;
    xdp.edit(interface).set_priority(id(&count), 1).commit()?;
    expect(&[id(&count), id(&guard)])?;
    xdp.detach(interface, id(&guard))?;
    expect(&[id(&count)])
}

#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn two_hundred_namespaces_share_a_bpffs() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let crowd = Crowd::new(NAMESPACES)?;
        let xdp = xdp()?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            // All the while somebody cleans up, who must find nothing of theirs to remove.
            let tidier = scope.spawn(|| clean_until(&xdp, &is_over));
            let work = |thread: usize| {
                let (xdp, crowd) = (&xdp, &crowd);
                move || -> Result<()> {
                    for number in (thread..NAMESPACES).step_by(THREADS) {
                        let interface = crowd.interface(number)?;
                        live_in(xdp, &interface).with_context(|| format!("{interface}"))?;
                    }
                    Ok(())
                }
            };
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(work(thread))).collect();
            let results: Vec<_> =
                threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            is_over.store(true, Ordering::Relaxed);
            let cleaned = tidier.join().map_err(|_| anyhow::anyhow!("the cleaner panicked"))??;
            println!("{cleaned} clean-ups meanwhile");
            ensure!(cleaned > 0);
            for result in results {
                result.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok(())
        })?;
        // Everybody's chain is still there, and found in one look at them all.
        let inventory = xdp.inventory()?;
        let interfaces = inventory.namespaces.iter().map(|netns| netns.interfaces.len());
        ensure!(interfaces.sum::<usize>() == NAMESPACES && inventory.gaps.is_empty());
        let plan = inventory.plan(EmptyDispatcher::Remove);
        ensure!(!plan.is_change(), "{plan}");
        for number in 0..NAMESPACES {
            let interface = crowd.interface(number)?;
            ensure!(names(&chain(&xdp, &interface)?) == ["packet_counter"], "{interface}");
            xdp.detach_all(&interface)?;
        }
        ensure!(pins()? == baseline.pins());
    }
    baseline.assert_restored()
}

/// Plans and carries out clean-ups, of which none may change anything, until it is over.
fn clean_until(xdp: &Xdp, is_over: &AtomicBool) -> Result<usize> {
    let mut cleaned = 0;
    while !is_over.load(Ordering::Relaxed) {
        let plan = xdp.inventory()?.plan(EmptyDispatcher::Remove).cleanup();
        for applied in xdp.apply(&plan)? {
            // Half-made pins of a change under way may be planned for, and are gone or in use when looked at again;
            // so are scopes.
            let is_harmless = !matches!(applied.done, Done::Failed(_))
                && (matches!(applied.line.action, oxdp::RecoveryAction::RemoveScope { .. })
                    || !matches!(applied.done, Done::Changed));
            ensure!(is_harmless, "{}: {:?}", applied.line, applied.done);
        }
        cleaned += 1;
    }
    Ok(cleaned)
}

/// Who holds the lock of one namespace, or of `xdp` itself, keeps nobody else waiting; a lock with a deadline is told.
#[test]
#[ignore = "needs freplace; run in a VM by make test"]
fn namespaces_do_not_wait_for_each_other() -> Result<()> {
    let baseline = Baseline::take()?;
    {
        let (one, two) = (Pair::new("one", IFINDEX)?, Pair::new("two", IFINDEX)?);
        let limit = Duration::from_millis(300);
        let xdp =
            Xdp::builder().mount_bpffs(true).layout(NetnsInode).lock_timeout(limit).build()?;
        for pair in [&one, &two] {
            xdp.attach(&pair.interface()?, &mut filter(7777)?, Mode::Native)?;
        }
        let root = Path::new(BPFFS).join("xdp");
        let stuck = root.join(format!("netns-{}", one.near.netns.inode()));
        let locks = [File::open(&stuck)?, File::open(&root)?];
        locks.iter().try_for_each(File::lock)?;
        xdp.attach(&two.interface()?, &mut counter()?, Mode::Native)?;
        let start = Instant::now();
        let error = xdp.attach(&one.interface()?, &mut counter()?, Mode::Native).unwrap_err();
        let waited = start.elapsed();
        ensure!(
            matches!(error.kind(), ErrorKind::LockTimeout { path, .. } if *path == stuck),
            "{error}"
        );
        ensure!(waited >= limit && waited < 10 * limit, "{waited:?}");
        drop(locks);
        xdp.attach(&one.interface()?, &mut counter()?, Mode::Native)?;
        for pair in [&one, &two] {
            ensure!(names(&chain(&xdp, &pair.interface()?)?) == ["udp_filter", "packet_counter"]);
            xdp.detach_all(&pair.interface()?)?;
        }
    }
    baseline.assert_restored()
}
