//! A policy with its programs opened: what it takes to carry it out.

use crate::policy::{Policy, Rule};
use crate::steps::Want;
use crate::version::Version;
use anyhow::{Context, Result, anyhow};
use oxdp::{Mode, Program, Select};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What is to be done.
#[derive(Default)]
pub(crate) struct Order {
    policy: Policy,
    /// By the names of their rules.
    blueprints: BTreeMap<String, Blueprint>,
}

/// A rule's program, not loaded.
pub(crate) struct Blueprint {
    pub(crate) want: Want,
    pub(crate) program: Program,
}

impl Order {
    /// Reads a policy's file and every object that it names.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(file)?;
        let policy = Policy::parse(&text).map_err(|error| anyhow!(error)).with_context(file)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let blueprint = |rule: &Rule| {
            let name = rule.name.as_str();
            let opened = Blueprint::open(rule, folder);
            Ok((name.to_owned(), opened.with_context(|| format!("program {name}"))?))
        };
        let blueprints = policy.rules.iter().map(blueprint).collect::<Result<_>>()?;
        Ok(Self { policy, blueprints })
    }

    pub(crate) fn blueprints(&self) -> impl Iterator<Item = &Blueprint> {
        self.blueprints.values()
    }

    /// Whether it wants a program that is made like this.
    pub(crate) fn knows(&self, version: &Version) -> bool {
        self.blueprints().any(|blueprint| blueprint.want.version == *version)
    }

    /// What it wants on an interface of a namespace with these names, and in which mode.
    pub(crate) fn wanted(&self, netns: &[String], interface: &str) -> Result<(Vec<Want>, Mode)> {
        let wanted = self.policy.wanted(netns, interface).map_err(|error| anyhow!(error))?;
        let Some((rules, mode)) = wanted else { return Ok((Vec::new(), Mode::Unspecified)) };
        let blueprints = rules.iter().filter_map(|rule| self.blueprints.get(rule.name.as_str()));
        Ok((blueprints.map(|blueprint| blueprint.want.clone()).collect(), mode))
    }
}

impl Blueprint {
    fn open(rule: &Rule, folder: &Path) -> Result<Self> {
        let path = folder.join(&rule.object);
        let elf = fs::read(&path).with_context(|| path.display().to_string())?;
        let select = match (&rule.function, &rule.section) {
            (Some(function), _) => Select::Function(function),
            (_, Some(section)) => Select::Section(section),
            _ => Select::Only,
        };
        let opened = Program::from_bytes(&elf, select);
        let mut program = opened.with_context(|| path.display().to_string())?;
        if let Some(priority) = rule.priority {
            program.set_priority(priority);
        }
        if let Some(actions) = rule.actions {
            program.set_chain_actions(actions);
        }
        program.set_map_pins(rule.map_pins.as_deref())?;
        for (name, value) in &rule.globals {
            set_global(&mut program, name, &value.encodings())?;
        }
        let version = Version::new(rule, &elf, program.name());
        let (priority, actions) = (program.priority(), program.chain_actions());
        Ok(Self { want: Want { version, priority, actions }, program })
    }
}

/// In the one encoding that is as wide as the variable.
fn set_global(program: &mut Program, name: &str, encodings: &[Vec<u8>]) -> oxdp::Result<()> {
    let mut last = Ok(());
    for value in encodings {
        last = program.set_global(name, value);
        match &last {
            Err(error) if error.errno() == Some(libc::ERANGE) => {}
            _ => break,
        }
    }
    last
}
