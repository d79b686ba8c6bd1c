//! From news to looks: which namespaces there are, and when each is looked at.

use crate::agent::{Agent, LINKS};
use crate::order::Order;
use crate::place::Place;
use crate::report::outcome;
use crate::watch::{News, Watch};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Pause after each turn: news of a storm of changes comes together.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the kernel may take to let go of the links of what was taken out.
const LETTING_GO: Duration = Duration::from_secs(2);

pub(crate) struct Daemon {
    pub(crate) agent: Agent,
    watch: Watch,
    file: PathBuf,
    /// The namespaces that are watched, by inode.
    places: BTreeMap<u64, Place>,
}

impl Daemon {
    pub(crate) fn new(agent: Agent, watch: Watch, file: PathBuf) -> Self {
        Self { agent, watch, file, places: BTreeMap::new() }
    }

    /// Until a signal ends it.
    pub(crate) fn run(&mut self, period: Duration) -> Result<()> {
        let mut next = Instant::now() + period;
        loop {
            let news = self.watch.wait(next.saturating_duration_since(Instant::now()))?;
            if news.is_end {
                return Ok(());
            }
            if news.is_reload {
                self.reload();
            }
            if news.is_reload || Instant::now() >= next {
                self.look_everywhere();
                next = Instant::now() + period;
            } else {
                self.look_at(&news);
            }
            sleep(PAUSE);
        }
    }

    fn reload(&mut self) {
        let taken = Order::read(&self.file).and_then(|order| self.agent.take(order));
        match &taken {
            Ok(()) => self.agent.tell_order(&self.file),
            Err(_) => log::warn!("{}: the old policy stays in force", self.file.display()),
        }
        self.agent.report.tell("", "the new policy", &taken);
    }

    /// At every namespace, also those that are not watched, after a recovery: what was pinned for namespaces and devices
    /// that have gone goes too.
    pub(crate) fn look_everywhere(&mut self) {
        self.agent.tried.clear();
        self.agent.idle.clear();
        // Namespaces that nobody else has are let go of, before it is looked for what they have left behind.
        self.update();
        self.agent.recover();
        let mended = self.agent.stock.mend();
        self.agent.report.tell("", "the pins of programs", &mended);
        let others = Place::unbound(&self.places);
        self.agent.report.tell("", "namespaces without a name", &outcome(&others));
        let others = others.unwrap_or_default();
        let mut names = Vec::new();
        for place in self.places.values().chain(&others) {
            self.agent.look(place);
            names.push(place.to_string());
        }
        self.agent.report.keep_places(|place| names.iter().any(|name| name == place));
        self.agent.tidy();
    }

    /// Where the news come from.
    fn look_at(&mut self, news: &News) {
        let new = if news.are_mounts { self.update() } else { BTreeSet::new() };
        for (inode, place) in &self.places {
            if new.contains(inode) || news.links.contains(inode) {
                self.agent.look(place);
            }
        }
    }

    /// Finds out which namespaces there are to watch; tells which were not, or not under the same names. They are
    /// watched before they are looked at, so that nothing happens in between.
    fn update(&mut self) -> BTreeSet<u64> {
        let bound = Place::bound();
        self.agent.report.tell("", "namespaces", &outcome(&bound));
        let Ok(bound) = bound else { return BTreeSet::new() };
        self.watch.keep(|inode| bound.contains_key(&inode));
        for (inode, place) in &bound {
            let watched = self.watch.add(*inode, place);
            self.agent.report.tell(&place.to_string(), LINKS, &watched);
        }
        let is_new = |(inode, place): &(&u64, &Place)| {
            self.places.get(inode).is_none_or(|known| known.names != place.names)
        };
        let new: BTreeSet<_> = bound.iter().filter(is_new).map(|(inode, _)| *inode).collect();
        // The number may be that of another namespace now.
        self.agent.idle.retain(|inode, _| bound.contains_key(inode) && !new.contains(inode));
        self.places = bound;
        new
    }

    /// Takes out all programs of this agent.
    pub(crate) fn detach_all(&mut self) -> Result<()> {
        self.agent.take(Order::default())?;
        self.look_everywhere();
        Ok(())
    }

    /// Lets go of the programs that are no longer wanted, as soon as the kernel has let go of their links.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let start = Instant::now();
        while self.agent.has_spare() && start.elapsed() < LETTING_GO {
            sleep(PAUSE);
            self.agent.tidy();
        }
        self.agent.stock.close()
    }
}
