//! The run priority and chain-call actions that a program's BTF asks for.

use super::{Btf, ChainActions};

const SECTION: &str = ".xdp_run_config";
/// What a program without a run config gets; `XDP_DEFAULT_RUN_PRIO`.
const DEFAULT_PRIORITY: u32 = 50;

/// A program's place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunConfig {
    pub(super) priority: u32,
    pub(super) actions: ChainActions,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { priority: DEFAULT_PRIORITY, actions: ChainActions::default() }
    }
}

impl RunConfig {
    /// The structure `_FUNCTION` in `.xdp_run_config`, or the defaults where there is none. An action that
    /// it does not name keeps its default, so only `XDP_PASS` set to 0 takes that one out; as in libxdp.
    pub(super) fn read(btf: &Btf, function: &str) -> Result<Self, String> {
        let mut config = Self::default();
        let Some((definition, ..)) = btf.variable(SECTION, &format!("_{function}")) else {
            return Ok(config);
        };
        let members = btf.members(definition).ok_or("it is no structure")?;
        for (name, member) in members {
            let number =
                btf.encoded_number(member).ok_or_else(|| format!("{name} is no number"))?;
            if name == "priority" {
                config.priority = number;
            } else if let Some((_, action)) = ChainActions::NAMES.iter().find(|(n, _)| *n == name) {
                config.actions.set(*action, number != 0);
            } else {
                return Err(format!("unknown entry {name}"));
            }
        }
        Ok(config)
    }
}

/// Reads everything that the library asks of BTF.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    use super::btf;

    let Ok(btf) = Btf::parse(data.to_vec()) else { return };
    let mut functions = 0;
    for id in btf.ids().chain([0, u32::MAX]) {
        let _ = (btf.members(id), btf.encoded_number(id));
        if let Some(function) = btf.function_name(id).filter(|_| functions < 16) {
            functions += 1;
            let _ = RunConfig::read(&btf, function);
            let (made_up, ids) = btf::made_up(function, functions);
            let made_up = Btf::parse(made_up).expect("what is made up can be read");
            let name = function.replace('\0', "");
            assert_eq!(made_up.function_name(ids[0]), Some(name.as_str()));
        }
    }
    let _ = (btf.has_section(".ksyms"), btf.variable(".rodata", "blocked_port"));
}

#[cfg(test)]
mod tests {
    use super::super::btf::tests::btf_of;
    use super::*;

    fn config(elf: &[u8], function: &str) -> RunConfig {
        RunConfig::read(&Btf::parse(btf_of(elf)).unwrap(), function).unwrap()
    }

    #[test]
    fn read_from_the_program_s_btf() {
        let filter = include_bytes!("../../bpf/prebuilt/udp_filter.o");
        assert_eq!(config(filter, "udp_filter").priority, 10);
        assert_eq!(config(filter, "udp_filter").actions, ChainActions::PASS);
        // Another function's run config is not ours.
        assert_eq!(config(filter, "udp_filte"), RunConfig::default());
    }

    #[test]
    fn default_without_one() {
        let pass = include_bytes!("../../bpf/prebuilt/xdp_pass.o");
        assert_eq!(config(pass, "xdp_pass"), RunConfig::default());
        assert_eq!(RunConfig::default().priority, 50);
    }
}
