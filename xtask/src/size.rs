//! Sizes of memory as people write them: `512M`, `1G`, `0x2000000`, `134217728`.

use std::str::FromStr;

/// A number of bytes, parsed from a count with an optional binary suffix (`K`, `M`, `G`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// `mebibytes` times 2^20.
    pub const fn mebibytes(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            format!("`{text}` is no size: write bytes, or a number with K, M or G, such as 512M")
        };
        let digits = text.trim_end_matches("iB").trim_end_matches('B');
        let (digits, shift) = match digits.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&digits[..at], 10),
            Some((at, 'm' | 'M')) => (&digits[..at], 20),
            Some((at, 'g' | 'G')) => (&digits[..at], 30),
            // Plain bytes: a hexadecimal number may end in `B`, so nothing is trimmed.
            _ => (text, 0),
        };
        let count = match digits.strip_prefix("0x") {
            Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
            None => digits.parse(),
        };
        let count = count.map_err(|_| refuse())?;
        count.checked_mul(1 << shift).map(Self).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("0x1000", 4096),
            ("0x1B", 0x1b),
            ("64k", 64 << 10),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("2G", 2 << 30),
            ("2GB", 2 << 30),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "12Q",
            "0x",
            "99999999999999999999",
            "18446744073709551615K",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
