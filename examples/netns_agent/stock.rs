//! The agent's own programs: each pinned in its directory, from before any interface has it.
//!
//! That is all that the agent knows them by, and there is nothing else to remember: a program that is pinned here is one
//! that an agent of this name has loaded, and the pin's name tells what it is made of. A process that is killed between
//! loading and pinning leaves nothing, since only the pin keeps the program; and one that is killed after that leaves a
//! program that the next agent knows. Tag and name of a program would tell neither: anybody can load the same object,
//! and other values of its global variables do not change them.

use crate::version::Version;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use oxdp::Program;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where the directories of agents are in bpffs; beside the `xdp` of the protocol, which others clean.
const AGENTS: &str = "netns-agent";

pub(crate) struct Stock {
    directory: PathBuf,
    programs: BTreeMap<Version, Program>,
    /// So that no other agent of this name runs; `None` in a dry run.
    _lock: Option<File>,
}

impl Stock {
    /// Takes over what an earlier agent of this name has loaded. A dry run makes no directory, and minds no other agent.
    pub(crate) fn open(bpffs: &Path, agent: &str, is_dry: bool) -> Result<Self> {
        let magic = statfs(bpffs).with_context(|| bpffs.display().to_string())?;
        let is_bpffs = magic.filesystem_type() == BPF_FS_MAGIC;
        ensure!(is_bpffs, "{}: not a bpf file system", bpffs.display());
        let directory = bpffs.join(AGENTS).join(agent);
        let lock = if is_dry { None } else { Some(lock(&directory)?) };
        let mut stock = Self { directory, programs: BTreeMap::new(), _lock: lock };
        stock.read()?;
        Ok(stock)
    }

    fn read(&mut self) -> Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.with_context(|| self.directory.display().to_string())?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match name.parse() {
                Ok(version) => drop(self.programs.insert(version, Program::from_pin(&path)?)),
                Err(error) => log::warn!("{}: {error}", self.directory.display()),
            }
        }
        Ok(())
    }

    /// What a program is made of, if it is ours.
    pub(crate) fn version(&self, program: u32) -> Option<&Version> {
        let mut programs = self.programs.iter();
        programs.find_map(|(version, own)| (own.id() == Some(program)).then_some(version))
    }

    pub(crate) fn program(&self, version: &Version) -> Option<&Program> {
        self.programs.get(version)
    }

    /// Tells whether a program reads packets of several fragments, which its pin does not. `false` if it is not here.
    pub(crate) fn set_frags(&mut self, version: &Version, has_frags: bool) -> bool {
        let program = self.programs.get_mut(version);
        program.map(|program| program.set_frags(has_frags)).is_some()
    }

    /// Puts a loaded program in. It is ours from now on.
    pub(crate) fn add(&mut self, version: Version, program: Program) -> Result<()> {
        program.pin(self.directory.join(version.pin_name()))?;
        self.programs.insert(version, program);
        Ok(())
    }

    /// Pins again what somebody has removed while we ran.
    pub(crate) fn mend(&self) -> Result<()> {
        for (version, program) in &self.programs {
            let pin = self.directory.join(version.pin_name());
            if !pin.try_exists()? {
                log::warn!("{}: it was removed, and is pinned again", pin.display());
                fs::create_dir_all(&self.directory)?;
                program.pin(pin)?;
            }
        }
        Ok(())
    }

    /// Programs that are not as any that is wanted, with their ids.
    pub(crate) fn spare(&self, is_wanted: impl Fn(&Version) -> bool) -> Vec<(Version, u32)> {
        let spare = self.programs.iter().filter(|(version, _)| !is_wanted(version));
        spare.filter_map(|(version, program)| Some((version.clone(), program.id()?))).collect()
    }

    /// Lets go of a program: the last that kept it, if it is in no chain.
    pub(crate) fn remove(&mut self, version: &Version) -> Result<()> {
        let pin = self.directory.join(version.pin_name());
        match fs::remove_file(&pin) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.with_context(|| pin.display().to_string())?,
        }
        self.programs.remove(version);
        Ok(())
    }

    /// Removes the directories if nothing is in them.
    pub(crate) fn close(&self) -> Result<()> {
        for directory in self.directory.ancestors().take(2) {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.with_context(|| directory.display().to_string())?,
            }
        }
        Ok(())
    }
}

/// Makes the directory if need be, and locks it until the process ends.
fn lock(directory: &Path) -> Result<File> {
    let context = || directory.display().to_string();
    loop {
        fs::create_dir_all(directory).with_context(context)?;
        let file = File::open(directory).with_context(context)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                bail!("{}: another agent of this name runs (see --name)", context())
            }
            other => other.with_context(context)?,
        }
        // Unless another agent has removed it at its end, in between.
        if fs::metadata(directory).is_ok_and(|named| {
            file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (named.dev(), named.ino()))
        }) {
            return Ok(file);
        }
    }
}
