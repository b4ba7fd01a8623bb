//! The program for a boot ROM that jumps to the start of RAM: the same ELF file, entered by a jump from there.
//!
//! The one idea: the file's bytes stay where they are, symbols included; behind them come the jump and a new table of
//! segments, which has one more for it.

use anyhow::{Context, ensure};

use crate::qemu::{RESET, jump};

/// Of an ELF64 file: its entry, and its table of segments (where, size of an entry, how many).
const ENTRY: usize = 24;
const TABLE: usize = 32;
const ENTRY_SIZE: usize = 54;
const COUNT: usize = 56;
/// The size of a segment's entry.
const SEGMENT: usize = 56;
/// A segment that is loaded, readable and executable.
const LOAD: u32 = 1;
const READ_EXECUTE: u32 = 5;

/// The ELF file with the jump added.
pub fn add_jump(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    ensure!(
        elf.get(..6) == Some(b"\x7fELF\x02\x01"),
        "not a little-endian ELF64 file"
    );
    let word = |at: usize| elf.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    let half = |at: usize| elf.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    let table = usize::try_from(u64::from_le_bytes(word(TABLE).context("cut off")?))?;
    let count = u16::from_le_bytes(half(COUNT).context("cut off")?);
    let size = u16::from_le_bytes(half(ENTRY_SIZE).context("cut off")?);
    ensure!(usize::from(size) == SEGMENT, "segments of an unknown size");
    let segments = table
        .checked_add(usize::from(count) * SEGMENT)
        .and_then(|end| elf.get(table..end))
        .context("the table of segments is cut off")?;

    let mut image = elf.to_vec();
    image.resize(image.len().next_multiple_of(8), 0);
    let code = image.len() as u64;
    image.extend(jump());
    let new_table = image.len() as u64;
    let len = jump().len() as u64;
    image.extend(LOAD.to_le_bytes());
    image.extend(READ_EXECUTE.to_le_bytes());
    // Offset, virtual and physical address, size in the file and in memory, alignment.
    for field in [code, RESET, RESET, len, len, 4] {
        image.extend(field.to_le_bytes());
    }
    image.extend(segments);
    image[ENTRY..ENTRY + 8].copy_from_slice(&RESET.to_le_bytes());
    image[TABLE..TABLE + 8].copy_from_slice(&new_table.to_le_bytes());
    image[COUNT..COUNT + 2].copy_from_slice(&(count + 1).to_le_bytes());
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of a header and one segment's entry.
    fn file() -> Vec<u8> {
        let mut elf = vec![0; 64 + SEGMENT];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[TABLE] = 64;
        elf[ENTRY_SIZE] = SEGMENT as u8;
        elf[COUNT] = 1;
        elf[64..].fill(0x11);
        elf
    }

    #[test]
    fn the_jump_is_the_first_segment_and_the_others_follow() {
        let image = add_jump(&file()).unwrap();
        let table = usize::from(image[TABLE]);
        assert_eq!(image[COUNT], 2);
        assert_eq!(&image[ENTRY..ENTRY + 8], RESET.to_le_bytes());
        let code = usize::from(image[table + 8]);
        assert_eq!(&image[code..code + 8], jump());
        assert_eq!(&image[table + 16..table + 24], RESET.to_le_bytes());
        assert_eq!(&image[table + SEGMENT..], [0x11; SEGMENT]);
    }

    #[test]
    fn a_file_that_is_cut_off_is_refused() {
        for len in [0, 5, 40, 57, 64, 64 + SEGMENT - 1] {
            assert!(add_jump(&file()[..len]).is_err(), "{len}");
        }
    }
}
