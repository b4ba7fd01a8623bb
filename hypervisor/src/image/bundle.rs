//! The bundle: the one file that a loader hands over beside the hypervisor, a cpio archive with everything of one guest.
//!
//! The one idea: entries are found by name (`kernel`, and optionally `initrd`, `cmdline`, `config`); what is not there has
//! a default that the hypervisor chooses, and what is there twice counts once, the last one.

use core::fmt;

use super::cpio::{self, CpioError};

/// What a user wants to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bundle<'a> {
    /// The kernel image, in any format that [`Kernel`](super::Kernel) knows.
    pub kernel: &'a [u8],
    /// The initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// What to call the guest, `name=` in `config`.
    pub name: Option<&'a str>,
    /// Harts of the guest, `harts=` in `config`; at least 1.
    pub harts: Option<usize>,
    /// Bytes of guest RAM, `memory=` in `config`; a multiple of 4 KiB, at least one page.
    pub memory: Option<u64>,
    /// Run it so often, each time as a new guest with a seed of its own, `series=` in `config`; at least 1.
    pub series: Option<u64>,
    /// The first guest's seed in a series, each later one being one more, `seed=` in `config`.
    pub seed: u64,
    /// After so many milliseconds a guest of a series is stopped, `time-limit=` in `config`; at least 1.
    pub time_limit: Option<u64>,
    /// A guest may make the hypervisor panic, to try whoever judges its runs, `drill=panic` in `config`.
    pub drill: bool,
}

/// Why a bundle makes no guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError<'a> {
    /// The archive is broken.
    Cpio(CpioError),
    /// There is no entry `kernel`, or it is empty.
    NoKernel,
    /// The entry of this name is not text.
    NotText(&'static str),
    /// A line of `config` that nobody understands.
    BadConfig(&'a str),
}

impl fmt::Display for BundleError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpio(error) => error.fmt(f),
            Self::NoKernel => f.write_str("the bundle has no kernel"),
            Self::NotText(name) => write!(f, "the bundle's {name} is not UTF-8 text"),
            Self::BadConfig(line) => write!(f, "the bundle's config has a bad line: {line}"),
        }
    }
}

impl<'a> Bundle<'a> {
    /// Reads the archive in `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError<'a>> {
        let mut bundle = Self::default();
        for entry in cpio::entries(bytes) {
            let entry = entry.map_err(BundleError::Cpio)?;
            match entry.name {
                b"kernel" => bundle.kernel = entry.data,
                b"initrd" => bundle.initrd = Some(entry.data).filter(|data| !data.is_empty()),
                b"cmdline" => bundle.command_line = text("cmdline", entry.data)?,
                b"config" => bundle.configure(text("config", entry.data)?)?,
                _ => {}
            }
        }
        if bundle.kernel.is_empty() {
            return Err(BundleError::NoKernel);
        }
        Ok(bundle)
    }

    fn configure(&mut self, config: &'a str) -> Result<(), BundleError<'a>> {
        for line in config.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bad = BundleError::BadConfig(line);
            let (key, value) = line.split_once('=').ok_or(bad)?;
            match (key.trim(), value.trim()) {
                ("name", value) if !value.is_empty() => self.name = Some(value),
                ("harts", value) => self.harts = Some(harts(value).ok_or(bad)?),
                ("memory", value) => self.memory = Some(memory(value).ok_or(bad)?),
                ("series", value) => self.series = Some(positive(value).ok_or(bad)?),
                ("seed", value) => self.seed = value.parse().map_err(|_| bad)?,
                ("drill", "panic") => self.drill = true,
                ("time-limit", value) => self.time_limit = Some(positive(value).ok_or(bad)?),
                _ => return Err(bad),
            }
        }
        Ok(())
    }
}

fn text<'a>(name: &'static str, bytes: &'a [u8]) -> Result<&'a str, BundleError<'a>> {
    let text = core::str::from_utf8(bytes).map_err(|_| BundleError::NotText(name))?;
    Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0'))
}

fn harts(value: &str) -> Option<usize> {
    value.parse().ok().filter(|&harts| harts > 0)
}

fn positive(value: &str) -> Option<u64> {
    value.parse().ok().filter(|&number| number > 0)
}

/// Bytes, or a number with the suffix K, M or G (powers of 1024).
fn memory(value: &str) -> Option<u64> {
    let (digits, shift) = match value.as_bytes().last()? {
        b'K' | b'k' => (&value[..value.len() - 1], 10),
        b'M' | b'm' => (&value[..value.len() - 1], 20),
        b'G' | b'g' => (&value[..value.len() - 1], 30),
        _ => (value, 0),
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    (bytes > 0 && bytes.is_multiple_of(guest_mem::address::PAGE_SIZE)).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::archive;
    use super::*;

    #[test]
    fn a_full_bundle_gives_every_part() {
        let archive = archive(&[
            ("kernel", b"K"),
            ("initrd", b"I"),
            ("cmdline", b"console=ttyS0 quiet\n"),
            (
                "config",
                b"# a guest\nname=linux\n\nharts=2\nmemory=512M\nseries=9\nseed=18446744073709551615\ntime-limit=20\ndrill=panic\n",
            ),
            ("something", b"else"),
        ]);
        let expected = Bundle {
            kernel: b"K",
            initrd: Some(b"I"),
            command_line: "console=ttyS0 quiet",
            name: Some("linux"),
            harts: Some(2),
            memory: Some(512 << 20),
            series: Some(9),
            seed: u64::MAX,
            time_limit: Some(20),
            drill: true,
        };
        assert_eq!(Bundle::parse(&archive), Ok(expected));
    }

    #[test]
    fn a_kernel_is_enough_and_without_one_there_is_no_bundle() {
        let bundle = archive(&[("kernel", b"K"), ("initrd", b"")]);
        let expected = Bundle {
            kernel: b"K",
            ..Bundle::default()
        };
        assert_eq!(Bundle::parse(&bundle), Ok(expected));
        for files in [&[("initrd", &b"I"[..])][..], &[("kernel", b"")], &[]] {
            assert_eq!(Bundle::parse(&archive(files)), Err(BundleError::NoKernel));
        }
        let broken = Bundle::parse(b"not an archive");
        assert_eq!(
            broken,
            Err(BundleError::Cpio(CpioError::BadMagic { at: 0 }))
        );
    }

    #[test]
    fn memory_is_whole_pages_with_a_suffix_of_1024s() {
        for (value, bytes) in [
            ("4096", Some(4096)),
            ("64k", Some(64 << 10)),
            ("3M", Some(3 << 20)),
            ("2G", Some(2 << 30)),
            ("0", None),
            ("4097", None),
            ("1K", None),
            ("-4096", None),
            ("M", None),
            ("", None),
            ("18446744073709551615G", None),
            ("4096é", None),
        ] {
            assert_eq!(memory(value), bytes, "{value}");
        }
    }

    #[test]
    fn a_config_line_that_nobody_understands_is_an_error_that_shows_it() {
        for line in [
            "harts",
            "harts=0",
            "harts=x",
            "memory=1",
            "colour=red",
            "name=",
            "series=0",
            "seed=-1",
            "time-limit=0",
            "drill=fire",
        ] {
            let archive = archive(&[("kernel", b"K"), ("config", line.as_bytes())]);
            assert_eq!(Bundle::parse(&archive), Err(BundleError::BadConfig(line)));
        }
        let archive = archive(&[("kernel", b"K"), ("cmdline", b"\xff")]);
        assert_eq!(
            Bundle::parse(&archive),
            Err(BundleError::NotText("cmdline"))
        );
    }
}
