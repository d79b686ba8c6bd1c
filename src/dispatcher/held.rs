//! What is there when a change begins, and the lock under which it is made.

use super::inspect::{self, Found, LiveChain, LiveDispatcher, LiveForeign, Unexpected};
use super::transaction::{ATTEMPTS, Transaction};
use crate::error::Result;
use crate::net::{Known, Mode};
use crate::pins::{Lock, OpenPins, Scope, Store};
use std::os::fd::AsFd;

/// What is on the interface when a change begins.
#[derive(Debug)]
pub(super) enum Present {
    Nothing,
    Chain(LiveChain),
    Foreign(LiveForeign),
}

/// The lock under which a chain is changed; and that of where its pins lie, if that is not where they belong.
#[derive(Debug)]
pub(super) struct Held<'a> {
    scope: Scope<'a>,
    elsewhere: Option<Scope<'a>>,
}

impl Held<'_> {
    /// For what is pinned.
    pub(super) fn new_pins(&self) -> &Lock {
        &self.scope
    }

    /// For what was pinned before.
    pub(super) fn old_pins(&self) -> &Lock {
        self.elsewhere.as_ref().unwrap_or(&self.scope)
    }
}

impl<'a> Transaction<'a> {
    /// What is attached, where no pins are needed: without a chain, or to take something off that is none.
    pub(super) fn look(&self, operation: &'static str, mode: Mode) -> Result<Present> {
        for _ in 0..ATTEMPTS {
            let Some(attached) = self.attachment.query_for(mode)? else {
                return Ok(Present::Nothing);
            };
            match inspect::identify(self.kernel, attached)? {
                None => {}
                Some(Found::Foreign(foreign)) => return Ok(Present::Foreign(foreign)),
                Some(Found::Dispatcher(dispatcher)) => {
                    return Ok(Present::Chain(self.read(dispatcher, None, Unexpected::Refused)?));
                }
            }
        }
        Err(self.contended(operation))
    }

    fn read(
        &self,
        dispatcher: LiveDispatcher,
        pins: Option<OpenPins<'_>>,
        unexpected: Unexpected,
    ) -> Result<LiveChain> {
        inspect::read_chain(self.kernel, &self.attachment, dispatcher, pins, unexpected)
    }

    /// The chain that is attached, with the lock of the directory that its pins lie in: a chain stays where it
    /// is, unless its interface has moved since it was pinned. Without one, the lock of the directory where the layout
    /// wants the pins.
    pub(super) fn lock_chain(
        &self,
        store: &'a Store,
        operation: &'static str,
        (mode, unexpected): (Mode, Unexpected),
    ) -> Result<(Held<'a>, Present)> {
        let netns = self.interface.netns().id()?;
        let mut scope = store.lock_scope(netns)?;
        for _ in 0..ATTEMPTS {
            let here = |scope| Held { scope, elsewhere: None };
            let Some(attached) = self.attachment.query_for(mode)? else {
                return Ok((here(scope), Present::Nothing));
            };
            let dispatcher = match inspect::identify(self.kernel, attached)? {
                None => continue,
                Some(Found::Foreign(program)) => {
                    return Ok((here(scope), Present::Foreign(program)));
                }
                Some(Found::Dispatcher(dispatcher)) => dispatcher,
            };
            let key = inspect::key(self.interface, &dispatcher)?;
            let pins = store.find(&key)?;
            match &pins {
                Some(pins) if pins.place().path().parent() != Some(scope.path()) => {
                    if !store.is_misplaced(pins.place(), &key)? {
                        // One lock at a time: two processes that hold one each and want the other's hang.
                        drop(scope);
                        // Gone meanwhile: then so is the chain that was seen, and another is to be found.
                        scope = match store.lock_around(pins.place())? {
                            Some(around) => around,
                            None => store.lock_scope(netns)?,
                        };
                        continue;
                    }
                    // Not waited for, for the same reason.
                    let Some(elsewhere) = store.try_lock_around(pins.place())? else {
                        drop(scope);
                        drop(store.lock_around(pins.place())?);
                        scope = store.lock_scope(netns)?;
                        continue;
                    };
                    // Under the lock: they may have been moved just before.
                    let pins = store.find(&key)?;
                    let is_there = pins
                        .as_ref()
                        .is_some_and(|pins| pins.place().path().parent() == Some(elsewhere.path()));
                    if is_there {
                        let chain = self.read(dispatcher, pins, unexpected)?;
                        let held = Held { scope, elsewhere: Some(elsewhere) };
                        return Ok((held, Present::Chain(chain)));
                    }
                }
                // Who replaces a chain that is pinned elsewhere holds another lock and removes its pins.
                None if self.attachment.query_for(mode)? != Some(attached) => {}
                // Who moves pins does so behind the back of a search that has passed the place where they are now.
                None if store.find(&key)?.is_some() => {}
                _ => {
                    let chain = self.read(dispatcher, pins, unexpected)?;
                    return Ok((here(scope), Present::Chain(chain)));
                }
            }
        }
        Err(self.contended(operation))
    }
}

impl Present {
    pub(super) fn chain(&self) -> Option<&LiveChain> {
        match self {
            Self::Chain(chain) => Some(chain),
            _ => None,
        }
    }

    pub(super) fn known(&self) -> Option<Known<'_>> {
        match self {
            Self::Nothing => None,
            Self::Chain(chain) => Some(known(chain)),
            Self::Foreign(foreign) => Some(foreign.known()),
        }
    }

    pub(super) fn id(&self) -> Option<u32> {
        self.known().map(|known| known.id)
    }
}

impl LiveForeign {
    pub(super) fn known(&self) -> Known<'_> {
        Known { fd: self.program.as_fd(), id: self.description.id }
    }
}

pub(super) fn known(chain: &LiveChain) -> Known<'_> {
    Known { fd: chain.dispatcher.program.as_fd(), id: chain.dispatcher.id }
}
