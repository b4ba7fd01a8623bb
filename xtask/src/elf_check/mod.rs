//! Checks the library's exception table in a linked program (DESIGN: invariant 7).
//!
//! The library recovers a fault only at an instruction that its table names. What the assembler emitted and what the
//! linker left can disagree with the source, so the table is checked where it counts: in the linked ELF file. The table
//! itself is checked by [`table`], with [`instruction`] telling what each word of code is.

mod instruction;
mod table;

use std::ops::Range;

use anyhow::{Context, bail, ensure};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionKind, SymbolKind};

/// The labels around the code that accesses guest memory, and around its table, but for the crate's version at their ends.
const ACCESS: [&str; 2] = ["__guest_mem_access_start", "__guest_mem_access_end"];
const TABLE: [&str; 2] = ["__guest_mem_extable_start", "__guest_mem_extable_end"];

/// Where the instructions that access guest memory may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Only in the library's access unit.
    Forbidden,
    /// Anywhere: the test kernel compares the library against raw instructions of its own.
    Allowed,
}

/// Checks the linked program `file`; gives the number of the table's entries.
pub fn check(file: &[u8], elsewhere: Elsewhere) -> anyhow::Result<usize> {
    let elf = object::File::parse(file).context("no ELF file")?;
    let mut units = Vec::new();
    let mut findings: Vec<String> = Vec::new();
    let mut entries = 0;
    for version in versions_of(&elf)? {
        let unit_range = between(&elf, ACCESS, &version)?;
        let unit = contents(&elf, &unit_range)?;
        let table = contents(&elf, &between(&elf, TABLE, &version)?)?;
        findings.extend(table::check(unit, table).iter().map(ToString::to_string));
        findings.extend(far_branches(unit).map(|offset| {
            format!(
                "the vector is taken back too far from +{offset:#x}: a jump and a branch over it"
            )
        }));
        entries += table::entries(table).count();
        units.push(unit_range);
    }
    if elsewhere == Elsewhere::Forbidden {
        findings.extend(accesses_outside(&elf, &units)?);
    }
    ensure!(findings.is_empty(), "{}", findings.join("; "));
    Ok(entries)
}

/// The versions of the library in `file`, as its symbols end.
pub fn versions(file: &[u8]) -> anyhow::Result<Vec<String>> {
    versions_of(&object::File::parse(file).context("no ELF file")?)
}

fn versions_of(elf: &object::File) -> anyhow::Result<Vec<String>> {
    let found: Vec<String> = elf
        .symbols()
        .filter_map(|symbol| symbol.name().ok()?.strip_prefix(ACCESS[0]).map(Into::into))
        .collect();
    ensure!(!found.is_empty(), "no symbol {}", ACCESS[0]);
    Ok(found)
}

/// Where the assembler made two instructions, of which each group of accesses executes one that jumps, of a branch that is not
/// taken, since what it leads to is out of its reach.
fn far_branches(unit: &[u8]) -> impl Iterator<Item = usize> {
    /// `beqz t6, . + 8`
    const OVER_A_JUMP: u32 = 0x000f_8463;
    let words = unit.as_chunks::<4>().0;
    words
        .iter()
        .enumerate()
        .filter(|(_, word)| u32::from_le_bytes(**word) == OVER_A_JUMP)
        .map(|(index, _)| 4 * index)
}

/// Where in `file` the table's first entry that is one stands, and the place without one before it.
pub fn entry_of_table_in_file(file: &[u8]) -> anyhow::Result<(usize, usize)> {
    let elf = object::File::parse(file)?;
    let version = versions_of(&elf)?.swap_remove(0);
    let table = between(&elf, TABLE, &version)?;
    let position = position(&elf, table.start)?;
    let (instruction, _) = table::entries(contents(&elf, &table)?)
        .next()
        .context("the table is empty")?;
    let at = position + instruction / table::INSTRUCTION_SIZE * table::ENTRY_SIZE;
    Ok((at, at - table::ENTRY_SIZE))
}

/// Where in `file` the program's first instruction stands.
pub fn entry_in_file(file: &[u8]) -> anyhow::Result<usize> {
    let elf = object::File::parse(file)?;
    position(&elf, elf.entry())
}

/// Where in the file the byte at `address` stands.
fn position(elf: &object::File, address: u64) -> anyhow::Result<usize> {
    for segment in elf.segments() {
        let (offset, size) = segment.file_range();
        if let Some(at) = address
            .checked_sub(segment.address())
            .filter(|&at| at < size)
        {
            return Ok(usize::try_from(offset + at)?);
        }
    }
    bail!("nothing is loaded at {address:#x}")
}

/// The addresses between two labels.
fn between(
    elf: &object::File,
    [start, end]: [&str; 2],
    version: &str,
) -> anyhow::Result<Range<u64>> {
    let address = |name: &str| {
        let name = format!("{name}{version}");
        let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(&*name));
        Ok::<_, anyhow::Error>(
            symbol
                .with_context(|| format!("no symbol {name}"))?
                .address(),
        )
    };
    let range = address(start)?..address(end)?;
    ensure!(range.start <= range.end, "{end} lies before {start}");
    Ok(range)
}

/// The loaded bytes at a range of addresses.
fn contents<'a>(elf: &object::File<'a>, range: &Range<u64>) -> anyhow::Result<&'a [u8]> {
    for segment in elf.segments() {
        if let Some(bytes) = segment.data_range(range.start, range.end - range.start)? {
            return Ok(bytes);
        }
    }
    bail!("nothing is loaded at {:#x}..{:#x}", range.start, range.end)
}

/// The instructions outside the unit that access guest memory, in words.
fn accesses_outside(elf: &object::File, units: &[Range<u64>]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for section in elf.sections() {
        // Every loaded section that is executable is of this kind.
        if section.kind() != SectionKind::Text {
            continue;
        }
        let (base, code) = (section.address(), section.data()?);
        // A symbol is where an instruction begins: code behind a constant is read from its right start.
        let mut starts: Vec<_> = elf
            .symbols()
            .filter(|symbol| {
                symbol.section_index() == Some(section.index())
                    && symbol.kind() != SymbolKind::Section
            })
            .filter_map(|symbol| usize::try_from(symbol.address().checked_sub(base)?).ok())
            .filter(|&start| start < code.len())
            .collect();
        starts.extend([0, code.len()]);
        starts.sort_unstable();
        starts.dedup();
        for piece in starts.windows(2) {
            for (offset, kind) in instruction::guest_accesses(&code[piece[0]..piece[1]]) {
                let address = base + (piece[0] + offset) as u64;
                if !units.iter().any(|unit| unit.contains(&address)) {
                    let name = section.name().unwrap_or_default();
                    found.push(format!(
                        "{kind} at {address:#x} in {name}, outside the library's access unit"
                    ));
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::far_branches;

    #[test]
    fn a_branch_over_a_jump_is_found() {
        // bnez t6, . + 16; beqz t6, . + 8; j . + 4096
        let unit = [0x000f_9863_u32, 0x000f_8463, 0x0000_106f].map(u32::to_le_bytes);
        assert_eq!(far_branches(unit.as_flattened()).collect::<Vec<_>>(), [4]);
    }
}
