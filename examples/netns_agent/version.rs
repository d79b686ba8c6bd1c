//! What a program is made of, as a name: so that a pin tells whose it is and whether it is still right.

use crate::policy::{Name, Rule};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// Hexadecimal digits of a digest: as many as are beyond any chance.
const DIGITS: usize = 32;

/// A rule's name and a digest of all that its program is loaded from: `RULE-DIGEST`.
///
/// Priority and actions are not part of it. They belong to a program's place in a chain, where they can be changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    rule: String,
    digest: String,
}

impl Version {
    /// Of the program of an object, by the name of its function.
    pub(crate) fn new(rule: &Rule, object: &[u8], function: &str) -> Self {
        let mut hash = Sha256::new();
        // With its length before each part, so that no two lists of parts are the same bytes.
        let mut add = |part: &[u8]| {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        };
        add(object);
        add(function.as_bytes());
        add(rule.map_pins.as_deref().unwrap_or("".as_ref()).as_os_str().as_encoded_bytes());
        for (name, value) in &rule.globals {
            add(name.as_bytes());
            value.encodings().iter().for_each(|value| add(value));
        }
        let mut digest = String::new();
        for byte in hash.finalize().iter().take(DIGITS / 2) {
            // Writing to a string cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Self { rule: rule.name.as_str().to_owned(), digest }
    }

    /// The name of its rule.
    pub(crate) fn rule(&self) -> &str {
        &self.rule
    }

    /// Its name in bpffs.
    pub(crate) fn pin_name(&self) -> String {
        format!("{}-{}", self.rule, self.digest)
    }
}

/// The way back from the name of a pin.
impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let other = || format!("{text} is not the pin of a program");
        let (rule, digest) = text.rsplit_once('-').ok_or_else(other)?;
        let is_digest = digest.len() == DIGITS
            && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_digest {
            return Err(other());
        }
        Name::try_from(rule.to_owned())?;
        Ok(Self { rule: rule.to_owned(), digest: digest.to_owned() })
    }
}

/// In short, for people.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digest.get(..8).unwrap_or(&self.digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn version(more: &str, object: &[u8], function: &str) -> Version {
        let text = format!(
            "[[program]]\nname = 'no-dns'\nobject = 'a.o'\n\
             on = [{{ netns = ['*'], interfaces = ['*'] }}]\n{more}"
        );
        Version::new(&Policy::parse(&text).unwrap().rules[0], object, function)
    }

    #[test]
    fn everything_that_a_program_is_loaded_from_counts() {
        let same = version("", b"elf", "f");
        assert_eq!(same, version("priority = 7\nactions = ['XDP_TX']", b"elf", "f"));
        let others = [
            version("", b"elg", "f"),
            version("", b"elf", "g"),
            version("map_pins = '/x'", b"elf", "f"),
            version("globals = { a = 1 }", b"elf", "f"),
            version("globals = { a = 2 }", b"elf", "f"),
            version("globals = { b = 1 }", b"elf", "f"),
            version("globals = { a = true }", b"elf", "f"),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(*other, same);
            assert_eq!(others.iter().filter(|twin| *twin == other).count(), 1, "{at}");
        }
    }

    #[test]
    fn a_pin_s_name_leads_back() {
        let version = version("", b"elf", "f");
        assert_eq!(version.pin_name().parse(), Ok(version));
        let digest = "0123456789abcdef".repeat(2);
        for name in ["a", "a-b", "a-0123", &digest, &format!("-{digest}"), &format!("a.b-{digest}")]
        {
            assert!(name.parse::<Version>().is_err(), "{name}");
        }
    }
}
