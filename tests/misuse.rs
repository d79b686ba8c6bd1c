//! What safe Rust must not be able to do with frames, packets and rings: each file in tests/misuse does one wrong thing, and the
//! compiler refuses it with the error that its first line names, and with no other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Errors by program.
type Codes = BTreeMap<String, BTreeSet<String>>;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A package with a program for each file; its folder.
fn package(files: &[PathBuf]) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misuse");
    fs::create_dir_all(&folder)?;
    let mut manifest = format!(
        "[package]\nname = \"misuse\"\nversion = \"0.0.0\"\nedition = \"2024\"\nautobins = false\n\
         [workspace]\n[dependencies]\noxdp = {{ path = {ROOT:?} }}\n"
    );
    for file in files {
        write!(
            manifest,
            "[[bin]]\nname = {:?}\npath = {:?}\n",
            name(file)?,
            file.display().to_string()
        )?;
    }
    fs::write(folder.join("Cargo.toml"), manifest)?;
    // The versions that there are already.
    fs::copy(Path::new(ROOT).join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(folder)
}

fn name(file: &Path) -> Result<String> {
    Ok(file.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned())
}

/// What the compiler says, all programs at once.
fn check(folder: &Path) -> Result<Codes> {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--keep-going", "--message-format=json"])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .output()?;
    let (mut codes, mut finished) = (Codes::new(), false);
    for line in String::from_utf8(output.stdout)?.lines() {
        let said: Value = serde_json::from_str(line)?;
        let message = &said["message"];
        finished |= said["reason"] == "build-finished";
        if said["reason"] == "compiler-message" && message["level"] == "error" {
            let of = codes.entry(said["target"]["name"].as_str().context("a target")?.to_owned());
            // The last error only counts the others, and has none.
            of.or_default().extend(message["code"]["code"].as_str().map(str::to_owned));
        }
    }
    ensure!(finished, "{}", String::from_utf8_lossy(&output.stderr));
    Ok(codes)
}

/// What the first line says, as `// E0382: why`.
fn expected(file: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(file)?;
    let code = text.strip_prefix("// ").and_then(|text| text.split(':').next());
    let code = code.with_context(|| format!("{} does not say", file.display()))?;
    Ok((code != "nothing").then(|| code.to_owned()).into_iter().collect())
}

#[test]
fn the_compiler_refuses_each_misuse() -> Result<()> {
    let pattern = format!("{ROOT}/tests/misuse/*.rs");
    let files = glob::glob(&pattern)?.collect::<Result<Vec<_>, _>>()?;
    ensure!(files.len() > 30);
    let mut codes = check(&package(&files)?)?;
    let mut wrong = String::new();
    for file in &files {
        let (name, expected) = (name(file)?, expected(file)?);
        let got = codes.remove(&name).unwrap_or_default();
        if got != expected {
            writeln!(wrong, "{name}: {got:?}, not {expected:?}")?;
        }
    }
    ensure!(wrong.is_empty() && codes.is_empty(), "{wrong}{codes:?}");
    Ok(())
}
