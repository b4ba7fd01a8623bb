//! Reads cpio archives in the "newc" format (magic 070701, or 070702 whose checksums are not looked at).
//!
//! The one idea: a header is 110 characters, all numbers in hexadecimal; name and data follow, each padded so that the next
//! part begins at a multiple of four from the start of the archive.

use core::fmt;

/// Bytes in a header.
const HEADER: usize = 110;

/// The name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Positions of the fields that matter here; each is eight characters.
mod field {
    pub const FILE_SIZE: usize = 54;
    pub const NAME_SIZE: usize = 94;
}

/// One file of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, without the NUL.
    pub name: &'a [u8],
    /// Its contents.
    pub data: &'a [u8],
}

/// Why an archive cannot be read (on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpioError {
    /// No header begins at this offset.
    BadMagic {
        /// Bytes from the start of the archive.
        at: usize,
    },
    /// The header at this offset has a number that is none.
    BadNumber {
        /// Bytes from the start of the archive.
        at: usize,
    },
    /// The archive ends inside the entry at this offset.
    Truncated {
        /// Bytes from the start of the archive.
        at: usize,
    },
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadMagic { at } => write!(f, "no cpio newc header at byte {at}"),
            Self::BadNumber { at } => write!(f, "the cpio header at byte {at} has a bad number"),
            Self::Truncated { at } => write!(f, "the archive ends inside the entry at byte {at}"),
        }
    }
}

/// Whether `bytes` begin like an archive.
pub fn is_cpio(bytes: &[u8]) -> bool {
    bytes.starts_with(b"070701") || bytes.starts_with(b"070702")
}

/// The entries of an archive, up to its trailer. Ends after the first error; every step passes at least one header.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    archive: &'a [u8],
    at: Option<usize>,
}

/// Reads `archive`.
pub fn entries(archive: &[u8]) -> Entries<'_> {
    Entries {
        archive,
        at: Some(0),
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CpioError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at.take()?;
        match entry(self.archive, at) {
            Ok((entry, _)) if entry.name == TRAILER => None,
            Ok((entry, next)) => {
                self.at = Some(next);
                Some(Ok(entry))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// The entry at `at`, and where the next one begins.
fn entry(archive: &[u8], at: usize) -> Result<(Entry<'_>, usize), CpioError> {
    let truncated = CpioError::Truncated { at };
    let rest = archive.get(at..).ok_or(truncated)?;
    if !is_cpio(rest) {
        return Err(CpioError::BadMagic { at });
    }
    let header = rest.get(..HEADER).ok_or(truncated)?;
    let number = |field| hexadecimal(&header[field..field + 8]).ok_or(CpioError::BadNumber { at });
    let name_size = number(field::NAME_SIZE)?;
    let file_size = number(field::FILE_SIZE)?;

    let part = |start: usize, size: usize| {
        let end = start.checked_add(size).ok_or(truncated)?;
        let bytes = archive.get(start..end).ok_or(truncated)?;
        let next = end.checked_next_multiple_of(4).ok_or(truncated)?;
        Ok((bytes, next))
    };
    let (name, data_at) = part(at + HEADER, name_size)?;
    let (data, next) = part(data_at, file_size)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or(name);
    Ok((Entry { name, data }, next))
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    digits.iter().try_fold(0, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit as usize)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::format;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// An archive of `files`, without what no reader here looks at.
    pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        let files = files.iter().copied().chain([("TRAILER!!!", &b""[..])]);
        for (name, data) in files {
            let mut header = vec![b'0'; HEADER];
            header[..6].copy_from_slice(b"070701");
            let mut put = |at: usize, value: usize| {
                header[at..at + 8].copy_from_slice(format!("{value:08x}").as_bytes());
            };
            put(field::FILE_SIZE, data.len());
            put(field::NAME_SIZE, name.len() + 1);
            archive.extend(header);
            archive.extend(name.as_bytes());
            archive.push(0);
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend(data);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }

    #[test]
    fn entries_come_in_order_with_every_padding() {
        let files = [
            ("a", &b""[..]),
            ("bb", b"1"),
            ("ccc", b"12"),
            ("dddd", b"123"),
            ("eeeee", b"1234"),
        ];
        let archive = archive(&files);
        assert!(is_cpio(&archive));
        let read: Vec<_> = entries(&archive).map(Result::unwrap).collect();
        let expected: Vec<_> = files
            .iter()
            .map(|&(name, data)| Entry {
                name: name.as_bytes(),
                data,
            })
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn an_archive_cut_anywhere_is_an_error_and_never_a_panic() {
        let archive = archive(&[("kernel", b"12345"), ("initrd", b"1")]);
        // The padding after the trailer may be missing.
        for len in 0..archive.len() - 1 {
            let last = entries(&archive[..len]).last();
            assert!(matches!(last, Some(Err(_))), "cut at {len}");
        }
    }

    #[test]
    fn a_bad_header_is_told_by_its_place() {
        let good = archive(&[("kernel", b"1234"), ("initrd", b"1")]);
        let second = good
            .windows(6)
            .rposition(|window| window == b"initrd")
            .unwrap()
            - HEADER;

        let mut bad = good.clone();
        bad[second] = b'x';
        assert_eq!(entries(&bad).count(), 2);
        let last = entries(&bad).last();
        assert_eq!(last, Some(Err(CpioError::BadMagic { at: second })));

        let mut bad = good.clone();
        bad[second + field::FILE_SIZE] = b'g';
        let last = entries(&bad).last();
        assert_eq!(last, Some(Err(CpioError::BadNumber { at: second })));

        let mut bad = good;
        bad[second + field::FILE_SIZE..][..8].copy_from_slice(b"ffffffff");
        let last = entries(&bad).last();
        assert_eq!(last, Some(Err(CpioError::Truncated { at: second })));
    }
}
