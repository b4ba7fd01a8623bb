//! Boot arguments in a program's ELF file, for boot ROMs and simulators that pass none.
//!
//! The one idea: the bare-metal programs keep room for a text at a symbol; what is put there ends at the first byte that is 0.

use anyhow::{Context, ensure};
use object::{Object, ObjectSegment, ObjectSymbol};

/// The symbol, whose size is the room.
const SYMBOL: &str = "guest_mem_arguments";

/// The ELF file with `arguments` in place of those that it has.
pub fn put(elf: &[u8], arguments: &str) -> anyhow::Result<Vec<u8>> {
    let (at, room) = place(elf)?;
    let mut image = elf.to_vec();
    fill(&mut image[at..at + room], arguments)?;
    Ok(image)
}

/// Where in the file the arguments stand, and how many bytes there are for them.
fn place(elf: &[u8]) -> anyhow::Result<(usize, usize)> {
    let file = object::File::parse(elf).context("no ELF file")?;
    let symbol = file
        .symbol_by_name(SYMBOL)
        .with_context(|| format!("the program has no symbol {SYMBOL}"))?;
    let (address, room) = (symbol.address(), symbol.size());
    for segment in file.segments() {
        let (offset, size) = segment.file_range();
        let Some(at) = address.checked_sub(segment.address()) else {
            continue;
        };
        if at + room <= size {
            return Ok((usize::try_from(offset + at)?, usize::try_from(room)?));
        }
    }
    anyhow::bail!("{SYMBOL} is no part of the file")
}

/// Puts the arguments into their place.
fn fill(place: &mut [u8], arguments: &str) -> anyhow::Result<()> {
    ensure!(
        arguments.len() <= place.len(),
        "the arguments have {} bytes, and there is room for {}",
        arguments.len(),
        place.len()
    );
    ensure!(
        !arguments.contains('\0'),
        "arguments cannot hold a byte that is 0"
    );
    place.fill(0);
    place[..arguments.len()].copy_from_slice(arguments.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_replace_those_that_were_there() {
        let mut place = *b"small\0\0\0";
        fill(&mut place, "full").unwrap();
        assert_eq!(&place, b"full\0\0\0\0");
        fill(&mut place, "cases=10").unwrap();
        assert_eq!(&place, b"cases=10");
        fill(&mut place, "").unwrap();
        assert_eq!(place, [0; 8]);
    }

    #[test]
    fn what_does_not_fit_or_would_be_cut_off_is_refused() {
        let mut place = [7; 4];
        assert!(fill(&mut place, "small").is_err());
        assert!(fill(&mut place, "a\0b").is_err());
        assert_eq!(place, [7; 4]);
    }

    #[test]
    fn a_file_without_the_symbol_is_refused() {
        assert!(put(b"no ELF file", "full").is_err());
    }
}
