//! The guest bundle: one file with all that the hypervisor must know to boot a guest.
//!
//! A cpio archive (`newc`) with the entries `kernel`, `initrd` (optional), `cmdline` (optional, text) and `config` (text,
//! a `key=value` a line: `name`, `harts`, `memory` in bytes; for a series also `series`, `seed` and `time-limit`). QEMU loads it as the hypervisor's own initrd, so the
//! hypervisor finds it through `/chosen` in its device tree.

use super::cpio::Archive;
use crate::size::ByteSize;

/// What goes into a bundle.
#[derive(Clone, Copy)]
pub struct Bundle<'a> {
    /// What the hypervisor calls the guest.
    pub name: &'a str,
    /// Number of virtual harts.
    pub harts: u32,
    /// Size of guest RAM.
    pub memory: ByteSize,
    /// Linux `Image`, flat binary or ELF file.
    pub kernel: &'a [u8],
    /// What the guest finds through `/chosen`.
    pub initrd: Option<&'a [u8]>,
    /// The guest's `/chosen/bootargs`.
    pub cmdline: Option<&'a str>,
    /// Run it again and again.
    pub series: Option<Series>,
    /// Let the guest make the hypervisor panic.
    pub drill: bool,
}

/// The same guest many times, each time with the next seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// How many times.
    pub count: u64,
    /// The first seed.
    pub seed: u64,
    /// Milliseconds that each of them has.
    pub time_limit: u64,
}

impl Bundle<'_> {
    /// The bundle's bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut archive = Archive::default();
        let Self {
            name,
            harts,
            memory: ByteSize(memory),
            ..
        } = self;
        let mut config = format!("name={name}\nharts={harts}\nmemory={memory}\n");
        if let Some(Series {
            count,
            seed,
            time_limit,
        }) = self.series
        {
            config += &format!("series={count}\nseed={seed}\ntime-limit={time_limit}\n");
        }
        if self.drill {
            config += "drill=panic\n";
        }
        archive.file("config", config.as_bytes());
        if let Some(cmdline) = self.cmdline {
            archive.file("cmdline", cmdline.as_bytes());
        }
        archive.file("kernel", self.kernel);
        if let Some(initrd) = self.initrd {
            archive.file("initrd", initrd);
        }
        archive.finish()
    }
}

#[cfg(test)]
mod tests {
    use hypervisor::image;

    use super::*;

    /// Writer and reader of the format are two programs: what one writes is what the other reads.
    #[test]
    fn the_hypervisor_reads_what_xtask_writes() {
        let full = Bundle {
            name: "linux",
            harts: 2,
            memory: ByteSize::mebibytes(512),
            kernel: b"KERNEL",
            initrd: Some(b"INITRD of odd length"),
            cmdline: Some("console=ttyS0"),
            series: Some(Series {
                count: 2000,
                seed: u64::MAX,
                time_limit: 20,
            }),
            drill: true,
        };
        let least = Bundle {
            initrd: None,
            cmdline: None,
            series: None,
            drill: false,
            ..full
        };
        for bundle in [full, least] {
            let expected = image::Bundle {
                kernel: bundle.kernel,
                initrd: bundle.initrd,
                command_line: bundle.cmdline.unwrap_or_default(),
                name: Some("linux"),
                harts: Some(2),
                memory: Some(512 << 20),
                series: bundle.series.map(|series| series.count),
                seed: bundle.series.map_or(0, |series| series.seed),
                time_limit: bundle.series.map(|series| series.time_limit),
                drill: bundle.drill,
            };
            assert_eq!(image::Bundle::parse(&bundle.to_bytes()), Ok(expected));
        }
    }
}
