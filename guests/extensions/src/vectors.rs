//! The vector extensions: each probe does something that only the instructions of that extension
//! do.

use crate::gives;
use crate::probe::{Outcome, Probe, all_of};
use crate::unprivileged::NAME;

const BY_NAME: &str =
    "it promises a length of the registers, which a machine may have without the name";

const HALF: &str =
    "QEMU before 8.0 has it wherever it has vectors, whether the name is there or not";

/// Instructions on one element: the operands go to `v1` and `v2`, the result is in `v4`.
macro_rules! vector {
    ($name:literal, $part_of:expr, $expected:expr; $arch:literal, $element:literal, $first:expr, $second:expr, $($instruction:literal),+) => {
        Probe::part_of(
            $name,
            $part_of,
            gives!(
                $expected; $arch, $first, $second,
                concat!("vsetivli zero, 1, ", $element, ", m1, ta, ma"),
                "vmv.v.x v1, a0",
                "vmv.v.x v2, a1",
                $($instruction),+,
                "vmv.x.s a2, v4"
            ),
        )
    };
}

/// Instructions on groups of elements, all zero at first, in `v8`, `v10` and `v12`. The result is
/// the first element of `v8`.
macro_rules! group {
    ($name:literal, $part_of:expr, $expected:expr; $arch:literal, $vtype:literal, $($instruction:literal),+) => {
        Probe::part_of(
            $name,
            $part_of,
            gives!(
                $expected; $arch, 0u32, 0u32,
                concat!("vsetivli zero, ", $vtype, ", ta, ma"),
                "vmv.v.i v8, 0",
                "vmv.v.i v10, 0",
                "vmv.v.i v12, 0",
                $($instruction),+,
                "vmv.x.s a2, v8"
            ),
        )
    };
}

/// A length of the registers that the name promises, in bytes.
macro_rules! length {
    ($name:literal, $bytes:literal) => {
        Probe::open($name, BY_NAME, || {
            match guest_kit::trap::catch_first(length) {
                (bytes, None) if bytes >= $bytes => Outcome::Works,
                (bytes, None) => Outcome::Wrong(bytes),
                (_, Some(trap)) => Outcome::Trapped(trap),
            }
        })
    };
}

/// `vlenb`.
fn length() -> u64 {
    let bytes;
    // SAFETY: reads a register, or traps and is stepped over.
    unsafe { core::arch::asm!("csrr {}, 0xc22", out(reg) bytes) };
    bytes
}

/// Names that include the 64-bit elements, and those that include the integers of 32 bits.
const INTEGERS_64: &[&str] = &["v", "zve64f", "zve64d"];
const INTEGERS_32: &[&str] = &["v", "zve32f", "zve64x", "zve64f", "zve64d"];

/// The probes.
pub const PROBES: &[Probe] = &[
    Probe::new(
        "v",
        gives!(8; "+v", 8u32, 0u32, "vsetivli a2, 8, e8, m1, ta, ma"),
    ),
    vector!("zve32x", INTEGERS_32, 5; "+zve32x", "e32", 2u32, 3u32, "vadd.vv v4, v1, v2"),
    vector!("zve64x", INTEGERS_64, 5 << 40; "+zve64x", "e64", 2u64 << 40, 3u64 << 40, "vadd.vv v4, v1, v2"),
    vector!("zve32f", &["v", "zve64f", "zve64d"], 5; "+zve32f", "e32", 2u32, 3u32,
        "vfcvt.f.x.v v1, v1", "vfcvt.f.x.v v2, v2", "vfadd.vv v4, v1, v2", "vfcvt.x.f.v v4, v4"),
    vector!("zve64f", &["v", "zve64d"], 5; "+zve64f", "e32", 2u32, 3u32,
        "vfcvt.f.x.v v1, v1", "vfcvt.f.x.v v2, v2", "vfadd.vv v4, v1, v2", "vfcvt.x.f.v v4, v4"),
    vector!("zve64d", &["v"], 6; "+zve64d", "e64", 2u32, 3u32,
        "vfcvt.f.x.v v1, v1", "vfcvt.f.x.v v2, v2", "vfmul.vv v4, v1, v2", "vfcvt.x.f.v v4, v4"),
    // Half precision: 1.0 is 0x3c00, and 0x3f80 with the exponent of a float.
    vector!("zvfhmin", &["zvfh"], 0x3f80_0000; "+zvfhmin", "e16", 0x3c00u32, 0u32,
        "vsetivli zero, 1, e16, mf2, ta, ma", "vfwcvt.f.f.v v4, v1", "vsetivli zero, 1, e32, m1, ta, ma")
        .without_name(HALF),
    vector!("zvfh", &[], 0x4000; "+zvfh", "e16", 0x3c00u32, 0x3c00u32, "vfadd.vv v4, v1, v2")
        .without_name(HALF),
    vector!("zvfbfmin", &[], 0x3f80_0000; "+zvfbfmin", "e16", 0x3f80u32, 0u32,
        "vsetivli zero, 1, e16, mf2, ta, ma", "vfwcvtbf16.f.f.v v4, v1", "vsetivli zero, 1, e32, m1, ta, ma"),
    // Arithmetic of bfloat16: no assembler knows it, and its encodings are those of Zvfh with
    // another vtype.
    Probe::open("zvfbfa", "its encodings are reserved values of vtype", || Outcome::Undecidable),
    vector!("zvfbfwma", &[], 0x3f80_0000; "+zvfbfwma", "e16", 0x3f80u32, 0x3f80u32,
        "vsetivli zero, 1, e32, m1, ta, ma", "vmv.v.i v4, 0",
        "vsetivli zero, 1, e16, mf2, ta, ma", "vfwmaccbf16.vv v4, v1, v2", "vsetivli zero, 1, e32, m1, ta, ma"),
    vector!("zvbb", &[], 61; "+zvbb,+zve64x", "e64", 5u32, 0u32, "vclz.v v4, v1"),
    vector!("zvbc", &["zvknc", "zvksc"], 5; "+zvbc,+zve64x", "e64", 3u32, 3u32, "vclmul.vv v4, v1, v2"),
    vector!("zvkb", &["zvbb", "zvkn", "zvknc", "zvkng", "zvks", "zvksc", "zvksg"], 5; "+zvkb,+zve64x", "e64", 7u32, 2u32,
        "vandn.vv v4, v1, v2"),
    group!("zvkg", &["zvkng", "zvksg"], 0; "+zvkg,+zve32x", "4, e32, m1", "vgmul.vv v8, v10"),
    // The second operand is the round key.
    group!("zvkned", &["zvkn", "zvknc", "zvkng"], 3; "+zvkned,+zve32x", "4, e32, m1", "vmv.v.i v10, 3", "vaesz.vs v8, v10"),
    group!("zvknha", &["zvknhb", "zvkn", "zvknc", "zvkng"], 0; "+zvknha,+zve32x", "4, e32, m1", "vsha2ms.vv v8, v10, v12"),
    group!("zvknhb", &["zvkn", "zvknc", "zvkng"], 0; "+zvknhb,+zve64x", "4, e64, m2", "vsha2ms.vv v8, v10, v12"),
    // Only that the instruction is there.
    group!("zvksed", &["zvks", "zvksc", "zvksg"], 1; "+zvksed,+zve32x", "4, e32, m1", "vsm4r.vv v8, v10", "vmv.v.i v8, 1"),
    group!("zvksh", &["zvks", "zvksc", "zvksg"], 0; "+zvksh,+zve32x", "8, e32, m2", "vsm3me.vv v8, v10, v12"),
    Probe::open("zvkn", NAME, || {
        all_of(PROBES, &["zvkned", "zvknhb", "zvkb"])
    }),
    Probe::open("zvknc", NAME, || {
        all_of(PROBES, &["zvkned", "zvknhb", "zvkb", "zvbc"])
    }),
    Probe::open("zvkng", NAME, || {
        all_of(PROBES, &["zvkned", "zvknhb", "zvkb", "zvkg"])
    }),
    Probe::open("zvks", NAME, || {
        all_of(PROBES, &["zvksed", "zvksh", "zvkb"])
    }),
    Probe::open("zvksc", NAME, || {
        all_of(PROBES, &["zvksed", "zvksh", "zvkb", "zvbc"])
    }),
    Probe::open("zvksg", NAME, || {
        all_of(PROBES, &["zvksed", "zvksh", "zvkb", "zvkg"])
    }),
    Probe::open("zvkt", "it promises how long instructions take", || {
        Outcome::Undecidable
    }),
    length!("zvl32b", 4),
    length!("zvl64b", 8),
    length!("zvl128b", 16),
    length!("zvl256b", 32),
    length!("zvl512b", 64),
    length!("zvl1024b", 128),
];
