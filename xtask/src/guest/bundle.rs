//! The guest bundle: one file with all that the hypervisor must know to boot a guest.
//!
//! A cpio archive (`newc`) with the entries `kernel`, `initrd` (optional), `cmdline` (optional, text) and `config` (text,
//! a `key=value` a line: `name`, `harts`, `memory` in bytes). QEMU loads it as the hypervisor's own initrd, so the
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
        archive.file(
            "config",
            format!("name={name}\nharts={harts}\nmemory={memory}\n").as_bytes(),
        );
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
        };
        let least = Bundle {
            initrd: None,
            cmdline: None,
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
            };
            assert_eq!(image::Bundle::parse(&bundle.to_bytes()), Ok(expected));
        }
    }
}
