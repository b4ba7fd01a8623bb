//! The check of the library's exception table in the linked programs, and the proof that the check can fail.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::tally::Tally;
use crate::elf_check::{self, Elsewhere};

/// `hlv.d a0, (a1)`.
const HLV_D: u32 = 0x6c05_c573;

/// Checks the linked program `elf`, called `name`, and that damage to its table is found.
pub fn run(name: &str, elf: &Path, elsewhere: Elsewhere) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let file = fs::read(elf).with_context(|| format!("cannot read {}", elf.display()))?;
    match elf_check::check(&file, elsewhere) {
        Ok(entries) => tally.pass_aloud(&format!(
            "{name}: the {entries} entries of the exception table are right"
        )),
        Err(error) => {
            tally.fail(
                &format!("{name}: the exception table is right"),
                &format!("{error:#}"),
            );
            return Ok(tally);
        }
    }
    let mut refuses = |test: &str, damage: &dyn Fn(&mut [u8])| {
        let mut damaged = file.clone();
        damage(&mut damaged);
        let test = format!("{name}: {test}");
        match elf_check::check(&damaged, elsewhere) {
            Ok(_) => tally.fail(&test, "the check passed"),
            Err(_) => tally.pass_aloud(&test),
        }
    };
    let (entry, none) = elf_check::entry_of_table_in_file(&file)?;
    refuses("an entry with a wrong kind is refused", &|file| {
        file[entry] ^= 3;
    });
    refuses("an entry with a wrong fixup is refused", &|file| {
        file[entry + 1] |= 0x80;
    });
    refuses("an entry of another instruction is refused", &|file| {
        file[none] |= 4;
    });
    refuses("an instruction without its entry is refused", &|file| {
        file[entry..entry + 2].fill(0);
    });
    if elsewhere == Elsewhere::Forbidden {
        let entry = elf_check::entry_in_file(&file)?;
        refuses("an `hlv.d` outside the library is refused", &|file| {
            file[entry..entry + 4].copy_from_slice(&HLV_D.to_le_bytes());
        });
    }
    Ok(tally)
}
