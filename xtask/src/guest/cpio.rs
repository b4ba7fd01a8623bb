//! Writes cpio archives in the `newc` format, which Linux takes as initramfs and our hypervisor as guest bundle.
//!
//! An entry is a header of ASCII hexadecimal fields, its name with a NUL, and its data, each padded to 4 bytes; the
//! archive ends with an entry called `TRAILER!!!` (Linux: `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// An archive in the making.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

/// File type bits of `mode`.
const DIRECTORY: u32 = 0o040000;
const FILE: u32 = 0o100000;
const CHARACTER_DEVICE: u32 = 0o020000;

impl Archive {
    /// Adds a folder.
    pub fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file that everybody may read.
    pub fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, FILE | 0o644, (0, 0), data);
    }

    /// Adds a file that everybody may read and execute.
    pub fn program(&mut self, name: &str, data: &[u8]) {
        self.entry(name, FILE | 0o755, (0, 0), data);
    }

    /// Adds a character device that its owner alone may use.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        let inode = self.entries;
        let size = u32::try_from(data.len()).expect("the format's sizes have 32 bits");
        let name_size = u32::try_from(name.len() + 1).expect("a name is short");
        let (links, owner, time, check) = (1, 0, 0, 0);
        let fields = [
            inode, mode, owner, owner, links, time, size, 0, 0, device.0, device.1, name_size,
            check,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_carries_its_numbers_and_a_folder_its_type() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes[14..22], *b"000041ed");
        // The second entry begins behind the first one's header and padded name.
        let console = &bytes[116..];
        assert_eq!(console[14..22], *b"00002180");
        assert_eq!(console[78..94], *b"0000000500000001");
        assert_eq!(console[110..122], *b"dev/console\0");
    }

    #[test]
    fn an_entry_is_header_name_and_data_each_padded_to_four_bytes() {
        let mut archive = Archive::default();
        archive.file("cmdline", b"quiet");
        let bytes = archive.finish();
        let expected_header = "070701\
            00000001000081a400000000000000000000000100000000000000050000000000000000\
            00000000000000000000000800000000";
        assert_eq!(bytes[..110], *expected_header.as_bytes());
        assert_eq!(bytes[110..120], *b"cmdline\0\0\0");
        assert_eq!(bytes[120..128], *b"quiet\0\0\0");
        assert_eq!(bytes[128..134], *b"070701");
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.ends_with(b"TRAILER!!!\0\0\0\0"));
    }
}
