//! Kernel images: Linux's `Image`, ELF, or bytes with no format at all.
//!
//! The one idea: every format boils down to an entry point and segments, each with the guest-physical address it belongs
//! at, the bytes of the file, and its size in memory, of which the rest is zero.

use alloc::vec::Vec;
use core::fmt;

use elf::ElfBytes;
use elf::abi;
use elf::endian::LittleEndian;
use guest_mem::Gpa;
use zerocopy::{FromBytes, Immutable, KnownLayout, little_endian as le};

/// Where a kernel without a wish begins, in bytes from the start of RAM: the first 2 MiB are left to it, as the firmware
/// of a real machine would have them.
pub const DEFAULT_OFFSET: u64 = 0x20_0000;

/// Loadable segments accepted in one ELF file.
const MAX_SEGMENTS: usize = 32;

/// The format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Linux's boot image for RISC-V.
    LinuxImage,
    /// ELF64 for RISC-V.
    Elf,
    /// None: the bytes as they are, entered at the first.
    Flat,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinuxImage => "Linux Image",
            Self::Elf => "ELF",
            Self::Flat => "flat binary",
        })
    }
}

/// A part of an image that goes to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it begins.
    pub gpa: Gpa,
    /// The bytes it begins with.
    pub bytes: &'a [u8],
    /// Its length in memory, at least that of `bytes`; the rest is zero.
    pub memory_len: u64,
}

/// A parsed image. Nothing says yet that it fits into RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// What it was made from.
    pub format: Format,
    /// Where the boot hart begins.
    pub entry: Gpa,
    /// Its parts.
    pub segments: Vec<Segment<'a>>,
}

/// Why a kernel image is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelError {
    /// No bytes.
    Empty,
    /// A gzip file, or an EFI image with a compressed kernel inside, such as a distribution's `vmlinuz`.
    Compressed,
    /// A Linux image for a big-endian kernel.
    BigEndian,
    /// An address past the top of the address space.
    AddressOverflow,
    /// The ELF file is broken.
    BadElf,
    /// An ELF file, but not a 64-bit RISC-V executable.
    NotRiscv64,
    /// The ELF file loads nothing.
    NothingToLoad,
    /// More segments than [`Kernel::parse`] takes.
    TooManySegments,
    /// The entry point is in no segment.
    EntryOutside {
        /// The entry point as the file has it.
        entry: u64,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the kernel is empty"),
            Self::Compressed => f.write_str("the kernel is compressed; unpack it to an Image"),
            Self::BigEndian => f.write_str("the kernel is big-endian"),
            Self::AddressOverflow => {
                f.write_str("the kernel goes past the top of the address space")
            }
            Self::BadElf => f.write_str("the kernel's ELF headers are broken"),
            Self::NotRiscv64 => f.write_str("the ELF file is not a 64-bit RISC-V executable"),
            Self::NothingToLoad => f.write_str("the ELF file has no loadable segment"),
            Self::TooManySegments => {
                write!(f, "the ELF file has more than {MAX_SEGMENTS} segments")
            }
            Self::EntryOutside { entry } => {
                write!(f, "the ELF file's entry {entry:#x} is in no segment")
            }
        }
    }
}

/// The header of a Linux image (Documentation/arch/riscv/boot-image-header.rst).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct LinuxHeader {
    code: [le::U32; 2],
    text_offset: le::U64,
    image_size: le::U64,
    flags: le::U64,
    version: le::U32,
    reserved1: le::U32,
    reserved2: le::U64,
    /// Deprecated magic, `RISCV`.
    magic: [u8; 8],
    /// The magic that counts.
    magic2: [u8; 4],
    reserved3: le::U32,
}

const LINUX_MAGIC2: &[u8; 4] = b"RSC\x05";
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
/// Behind the first four bytes (drivers/firmware/efi/libstub/zboot-header.S).
const EFI_ZBOOT_MAGIC: &[u8] = b"zimg";
const LINUX_FLAG_BIG_ENDIAN: u64 = 1;

impl<'a> Kernel<'a> {
    /// Tells the format of `file` by its magic numbers and reads it, for RAM that begins at `ram_base`. What has no magic
    /// number is flat.
    pub fn parse(file: &'a [u8], ram_base: Gpa) -> Result<Self, KernelError> {
        if file.is_empty() {
            return Err(KernelError::Empty);
        }
        if file.starts_with(&abi::ELFMAGIC) {
            return Self::parse_elf(file);
        }
        if file.starts_with(GZIP_MAGIC) || file.get(4..8) == Some(EFI_ZBOOT_MAGIC) {
            return Err(KernelError::Compressed);
        }
        match LinuxHeader::ref_from_prefix(file) {
            Ok((header, _)) if header.magic2 == *LINUX_MAGIC2 => {
                Self::parse_linux(header, file, ram_base)
            }
            _ => Self::parse_flat(file, ram_base),
        }
    }

    fn parse_linux(
        header: &LinuxHeader,
        file: &'a [u8],
        ram_base: Gpa,
    ) -> Result<Self, KernelError> {
        if header.flags.get() & LINUX_FLAG_BIG_ENDIAN != 0 {
            return Err(KernelError::BigEndian);
        }
        let entry = ram_base
            .checked_add(header.text_offset.get())
            .ok_or(KernelError::AddressOverflow)?;
        // image_size counts .bss too.
        let memory_len = header.image_size.get().max(file.len() as u64);
        Ok(Self::single(Format::LinuxImage, entry, file, memory_len))
    }

    fn parse_flat(file: &'a [u8], ram_base: Gpa) -> Result<Self, KernelError> {
        let entry = ram_base
            .checked_add(DEFAULT_OFFSET)
            .ok_or(KernelError::AddressOverflow)?;
        Ok(Self::single(Format::Flat, entry, file, file.len() as u64))
    }

    fn single(format: Format, gpa: Gpa, bytes: &'a [u8], memory_len: u64) -> Self {
        let segment = Segment {
            gpa,
            bytes,
            memory_len,
        };
        Self {
            format,
            entry: gpa,
            segments: [segment].into(),
        }
    }

    fn parse_elf(file: &'a [u8]) -> Result<Self, KernelError> {
        let identity = (file.get(abi::EI_CLASS), file.get(abi::EI_DATA));
        if identity != (Some(&abi::ELFCLASS64), Some(&abi::ELFDATA2LSB)) {
            return Err(KernelError::NotRiscv64);
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| KernelError::BadElf)?;
        let header = &elf.ehdr;
        let executable = matches!(header.e_type, abi::ET_EXEC | abi::ET_DYN);
        if header.e_machine != abi::EM_RISCV || !executable {
            return Err(KernelError::NotRiscv64);
        }

        let mut segments = Vec::new();
        let mut entry = None;
        let headers = elf.segments().ok_or(KernelError::NothingToLoad)?;
        for program_header in headers.iter() {
            if program_header.p_type != abi::PT_LOAD || program_header.p_memsz == 0 {
                continue;
            }
            if segments.len() == MAX_SEGMENTS {
                return Err(KernelError::TooManySegments);
            }
            let bytes = elf
                .segment_data(&program_header)
                .map_err(|_| KernelError::BadElf)?;
            if bytes.len() as u64 > program_header.p_memsz {
                return Err(KernelError::BadElf);
            }
            let gpa = Gpa::new(program_header.p_paddr);
            // e_entry is a virtual address; the guest starts with translation off.
            match header.e_entry.checked_sub(program_header.p_vaddr) {
                Some(offset) if offset < program_header.p_memsz => {
                    entry = Some(
                        gpa.checked_add(offset)
                            .ok_or(KernelError::AddressOverflow)?,
                    );
                }
                _ => {}
            }
            segments.push(Segment {
                gpa,
                bytes,
                memory_len: program_header.p_memsz,
            });
        }
        if segments.is_empty() {
            return Err(KernelError::NothingToLoad);
        }
        Ok(Self {
            format: Format::Elf,
            entry: entry.ok_or(KernelError::EntryOutside {
                entry: header.e_entry,
            })?,
            segments,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use alloc::vec;

    use super::*;

    pub(crate) const RAM_BASE: Gpa = Gpa::new(0x8000_0000);

    /// An ELF file with one program header for each (vaddr, paddr, bytes, memsz).
    pub(crate) fn elf_file(entry: u64, segments: &[(u64, u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56 * segments.len()];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &2u16.to_le_bytes()); // ET_EXEC
        put(18, &243u16.to_le_bytes()); // EM_RISCV
        put(20, &1u32.to_le_bytes());
        put(24, &entry.to_le_bytes());
        put(32, &64u64.to_le_bytes()); // e_phoff
        put(52, &64u16.to_le_bytes());
        put(54, &56u16.to_le_bytes());
        put(56, &(segments.len() as u16).to_le_bytes());
        let mut offset = 64 + 56 * segments.len() as u64;
        for (index, &(vaddr, paddr, bytes, memsz)) in segments.iter().enumerate() {
            let at = 64 + 56 * index;
            put(at, &1u32.to_le_bytes()); // PT_LOAD
            for (field, value) in [
                (8, offset),
                (16, vaddr),
                (24, paddr),
                (32, bytes.len() as u64),
                (40, memsz),
            ] {
                put(at + field, &value.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        for &(_, _, bytes, _) in segments {
            file.extend(bytes);
        }
        file
    }

    pub(crate) fn linux_image(text_offset: u64, image_size: u64, flags: u64) -> Vec<u8> {
        let mut file = vec![0; 128];
        file[0x08..0x10].copy_from_slice(&text_offset.to_le_bytes());
        file[0x10..0x18].copy_from_slice(&image_size.to_le_bytes());
        file[0x18..0x20].copy_from_slice(&flags.to_le_bytes());
        file[0x30..0x35].copy_from_slice(b"RISCV");
        file[0x38..0x3c].copy_from_slice(b"RSC\x05");
        file
    }

    #[test]
    fn a_linux_image_goes_to_its_text_offset_with_its_bss() {
        let file = linux_image(0x20_0000, 0x1000, 0);
        let kernel = Kernel::parse(&file, RAM_BASE).unwrap();
        assert_eq!(kernel.format, Format::LinuxImage);
        assert_eq!(kernel.entry, Gpa::new(0x8020_0000));
        let expected = Segment {
            gpa: kernel.entry,
            bytes: &file,
            memory_len: 0x1000,
        };
        assert_eq!(kernel.segments, [expected]);

        // Kernels before 5.5 have no image size.
        let file = linux_image(0x20_0000, 0, 0);
        let kernel = Kernel::parse(&file, RAM_BASE).unwrap();
        assert_eq!(kernel.segments[0].memory_len, 128);
    }

    #[test]
    fn a_linux_image_that_is_big_endian_or_past_the_top_is_refused() {
        let parse = |file: &[u8]| Kernel::parse(file, RAM_BASE).map(|_| ());
        let big_endian = linux_image(0x20_0000, 0, 1);
        assert_eq!(parse(&big_endian), Err(KernelError::BigEndian));
        let far = linux_image(u64::MAX, 0, 0);
        assert_eq!(parse(&far), Err(KernelError::AddressOverflow));
    }

    #[test]
    fn what_has_no_magic_is_flat() {
        for file in [&b"x"[..], &[0x13; 4096]] {
            let kernel = Kernel::parse(file, RAM_BASE).unwrap();
            assert_eq!(kernel.format, Format::Flat);
            assert_eq!(kernel.entry, Gpa::new(0x8020_0000));
            assert_eq!(kernel.segments[0].memory_len, file.len() as u64);
        }
        let empty = Kernel::parse(b"", RAM_BASE);
        assert_eq!(empty, Err(KernelError::Empty));
    }

    #[test]
    fn a_compressed_kernel_is_not_taken_for_a_flat_one() {
        for file in [&b"\x1f\x8b\x08\0"[..], b"MZ\0\0zimg\0\0\0\0gzip"] {
            let answer = Kernel::parse(file, RAM_BASE);
            assert_eq!(answer, Err(KernelError::Compressed));
        }
    }

    #[test]
    fn an_elf_file_is_loaded_at_its_physical_addresses() {
        let file = elf_file(
            0xffff_ffff_8020_0004,
            &[
                (0xffff_ffff_8020_0000, 0x8020_0000, b"text", 0x1000),
                (0xffff_ffff_8020_1000, 0x8020_1000, b"", 0x20),
                (0xffff_ffff_8020_2000, 0x8030_0000, b"", 0),
            ],
        );
        let kernel = Kernel::parse(&file, RAM_BASE).unwrap();
        assert_eq!(kernel.format, Format::Elf);
        assert_eq!(kernel.entry, Gpa::new(0x8020_0004));
        let segment = |gpa, bytes, memory_len| Segment {
            gpa: Gpa::new(gpa),
            bytes,
            memory_len,
        };
        let expected = [
            segment(0x8020_0000, &b"text"[..], 0x1000),
            segment(0x8020_1000, b"", 0x20),
        ];
        assert_eq!(kernel.segments, expected);
    }

    #[test]
    fn elf_files_of_no_use_are_refused_by_the_reason() {
        let good = elf_file(0x8020_0000, &[(0x8020_0000, 0x8020_0000, b"text", 8)]);
        let with = |at: usize, byte: u8| {
            let mut file = good.clone();
            file[at] = byte;
            Kernel::parse(&file, RAM_BASE).map(|_| ())
        };
        assert_eq!(with(18, 62), Err(KernelError::NotRiscv64), "x86-64");
        assert_eq!(with(4, 1), Err(KernelError::NotRiscv64), "32 bits");
        assert_eq!(with(5, 2), Err(KernelError::NotRiscv64), "big-endian");
        assert_eq!(with(16, 1), Err(KernelError::NotRiscv64), "relocatable");
        assert_eq!(with(64 + 32, 0xff), Err(KernelError::BadElf), "p_filesz");
        assert_eq!(with(64 + 40, 3), Err(KernelError::BadElf), "p_memsz");
        assert_eq!(with(64, 4), Err(KernelError::NothingToLoad), "PT_NOTE");
        let outside = Err(KernelError::EntryOutside { entry: 0x8020_0008 });
        assert_eq!(with(24, 8), outside);

        let nothing = elf_file(0, &[]);
        assert!(Kernel::parse(&nothing, RAM_BASE).is_err());
        let segments = [(0, 0, &b""[..], 1); MAX_SEGMENTS + 1];
        let many = Kernel::parse(&elf_file(0, &segments), RAM_BASE).map(|_| ());
        assert_eq!(many, Err(KernelError::TooManySegments));
    }

    #[test]
    fn an_elf_file_cut_or_changed_anywhere_never_panics() {
        let good = elf_file(0x8020_0000, &[(0x8020_0000, 0x8020_0000, b"text", 8)]);
        for len in 1..good.len() {
            assert!(Kernel::parse(&good[..len], RAM_BASE).is_err() || len < 4);
        }
        for at in 0..good.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = good.clone();
                file[at] = byte;
                let _ = Kernel::parse(&file, RAM_BASE);
            }
        }
    }
}
