//! The policy: which programs run on which interfaces of which namespaces. Pure; `policy.toml` is a sample.

use glob::Pattern;
use oxdp::{ChainActions, Mode};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// As the file has it, in its order.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    #[serde(default, rename = "program")]
    pub(crate) rules: Vec<Rule>,
}

/// A program, and where it runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) name: Name,
    pub(crate) object: PathBuf,
    pub(crate) function: Option<String>,
    pub(crate) section: Option<String>,
    pub(crate) priority: Option<u32>,
    #[serde(default, deserialize_with = "actions")]
    pub(crate) actions: Option<ChainActions>,
    #[serde(default)]
    pub(crate) globals: BTreeMap<String, Value>,
    pub(crate) map_pins: Option<PathBuf>,
    pub(crate) on: Vec<Target>,
}

/// Interfaces of namespaces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    netns: Vec<Glob>,
    interfaces: Vec<Glob>,
    #[serde(default)]
    mode: ModeName,
}

/// What a rule is called: part of the name of a pin.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

/// The first value of a global variable.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged, expecting = "a global is an integer, true or false, or a list of bytes")]
pub(crate) enum Value {
    Truth(bool),
    Number(i64),
    Bytes(Vec<u8>),
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Glob(Pattern);

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    #[default]
    Native,
    Skb,
}

impl Policy {
    /// Errors are one line, and name the line of the file where that is known.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().and_then(|span| text.get(..span.start));
            let line = line.map(|before| format!("line {}: ", before.matches('\n').count() + 1));
            format!("{}{}", line.unwrap_or_default(), error.message().replace('\n', " "))
        })?;
        let mut names = BTreeSet::new();
        for rule in &policy.rules {
            let name = rule.name.as_str();
            if !names.insert(name) {
                return Err(format!("two programs are called {name}"));
            }
            if rule.function.is_some() && rule.section.is_some() {
                return Err(format!("{name}: function or section, not both"));
            }
        }
        Ok(policy)
    }

    /// What is to run on an interface of a namespace with these names, and in which mode; `None` for nothing.
    pub(crate) fn wanted(
        &self,
        netns: &[String],
        interface: &str,
    ) -> Result<Option<(Vec<&Rule>, Mode)>, String> {
        let mode = |rule: &Rule| {
            let target = rule.on.iter().find(|target| target.matches(netns, interface))?;
            Some(target.mode)
        };
        let found: Vec<_> =
            self.rules.iter().filter_map(|rule| Some((rule, mode(rule)?))).collect();
        let Some((first, mode)) = found.first() else { return Ok(None) };
        if let Some((other, _)) = found.iter().find(|(_, other)| other != mode) {
            let (first, other) = (first.name.as_str(), other.name.as_str());
            return Err(format!("{first} and {other} are to run in different modes"));
        }
        let mode = match mode {
            ModeName::Native => Mode::Native,
            ModeName::Skb => Mode::Skb,
        };
        Ok(Some((found.into_iter().map(|(rule, _)| rule).collect(), mode)))
    }
}

impl Target {
    fn matches(&self, netns: &[String], interface: &str) -> bool {
        let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.0.matches(name));
        netns.iter().any(|name| any(&self.netns, name)) && any(&self.interfaces, interface)
    }
}

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    /// What bpffs takes, which allows no dots; and short enough for the rest of a pin's name.
    fn try_from(name: String) -> Result<Self, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
            return Ok(Self(name));
        }
        Err(format!("{name:?} is no name: 1 to 64 letters, digits, - and _"))
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = Pattern::new(&text).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(Self(pattern))
    }
}

impl Value {
    /// As bytes, in every size that holds it, the smallest first: only the object knows how wide its variable is.
    pub(crate) fn encodings(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Truth(truth) => vec![vec![u8::from(*truth)]],
            Self::Bytes(bytes) => vec![bytes.clone()],
            Self::Number(number) => {
                let bytes = number.to_le_bytes();
                let sizes = [1_usize, 2, 4, 8].into_iter().filter(|size| fits(*number, *size));
                sizes.filter_map(|size| Some(bytes.get(..size)?.to_vec())).collect()
            }
        }
    }
}

/// Whether a variable of this many bytes, signed or not, holds a number.
fn fits(number: i64, size: usize) -> bool {
    let bits = 8 * size;
    size == 8 || (-(1_i64 << (bits - 1))..1_i64 << bits).contains(&number)
}

fn actions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ChainActions>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let action = |name: &String| {
        let known = name.strip_prefix("XDP_").and_then(ChainActions::from_name);
        known.ok_or_else(|| serde::de::Error::custom(format!("{name:?} is no XDP action")))
    };
    names.iter().map(action).collect::<Result<ChainActions, _>>().map(Some)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
