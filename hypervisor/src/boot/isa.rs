//! The instruction set of the machine, as its device tree describes it.
//!
//! The one idea: a tree may say it in an old way (`riscv,isa`, a string) or in a new one (`riscv,isa-base` and
//! `riscv,isa-extensions`, a list). Both become one form here: `rv64`, the single letters, and then each longer name after an
//! underscore, all in lower case and without versions. Binding: `riscv/extensions.yaml` of the kernel's
//! `Documentation/devicetree/bindings`. Strings are read as Linux reads them (`arch/riscv/kernel/cpufeature.c`).

use core::fmt;

use crate::features;

/// Bytes of an ISA in this form. The longest known to the project has 700.
const BYTES: usize = 2048;

const PREFIX: &str = "rv64";

/// What `g` stands for.
const GENERAL: [&str; 7] = ["i", "m", "a", "f", "d", "zicsr", "zifencei"];

/// What `i` stands for in `riscv,isa`: these were part of the base when the binding was written.
const OLD_BASE: [&str; 4] = ["zicsr", "zifencei", "zicntr", "zihpm"];

/// A 64-bit instruction set.
#[derive(Clone, Copy)]
pub struct Isa {
    text: [u8; BYTES],
    len: usize,
    is_cut: bool,
}

impl Isa {
    fn new() -> Self {
        let mut isa = Self {
            text: [0; BYTES],
            len: 0,
            is_cut: false,
        };
        isa.push(PREFIX);
        isa
    }

    /// Reads the value of `riscv,isa`. `None` if it is not one of a 64-bit hart.
    pub fn from_string(string: &str) -> Option<Self> {
        let (prefix, rest) = string.split_at_checked(PREFIX.len())?;
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return None;
        }
        let mut isa = Self::from_names(|| Names::of(rest));
        if isa.lists("i") {
            for name in OLD_BASE {
                isa.add(name);
            }
        }
        Some(isa)
    }

    /// Reads the values of `riscv,isa-base` and `riscv,isa-extensions`. `None` if the hart is not a 64-bit one.
    pub fn from_list<'a, I: Iterator<Item = &'a str>>(
        base: &str,
        extensions: impl Fn() -> I,
    ) -> Option<Self> {
        base.eq_ignore_ascii_case("rv64i")
            .then(|| Self::from_names(extensions))
    }

    /// Takes the letters first and then the longer names.
    fn from_names<'a, I: Iterator<Item = &'a str>>(names: impl Fn() -> I) -> Self {
        let mut isa = Self::new();
        for is_letter in [true, false] {
            for name in names() {
                if name.eq_ignore_ascii_case("g") {
                    let general = GENERAL.iter();
                    general
                        .filter(|name| (name.len() == 1) == is_letter)
                        .for_each(|name| isa.add(name));
                } else if (name.len() == 1) == is_letter {
                    isa.add(name);
                }
            }
        }
        isa
    }

    /// Adds an extension. A letter must come before the first longer name.
    fn add(&mut self, name: &str) {
        if name.is_empty() || self.lists(name) {
            return;
        }
        let separator = if name.len() > 1 { "_" } else { "" };
        if self.len + separator.len() + name.len() > BYTES {
            self.is_cut = true;
            return;
        }
        self.push(separator);
        self.push(name);
    }

    fn push(&mut self, text: &str) {
        let room = &mut self.text[self.len..][..text.len()];
        room.copy_from_slice(text.as_bytes());
        room.make_ascii_lowercase();
        self.len += text.len();
    }

    /// The ISA in this module's form.
    pub fn as_str(&self) -> &str {
        // Only whole strings were copied into it.
        core::str::from_utf8(&self.text[..self.len]).unwrap_or(PREFIX)
    }

    /// Whether it has an extension.
    pub fn lists(&self, name: &str) -> bool {
        features::lists(self.as_str(), name)
    }

    /// Whether extensions were left out, because there are more than there is room for.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What both have.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut common = self.retaining(|name| other.lists(name));
        common.is_cut |= other.is_cut;
        common
    }

    /// The same without one extension.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        self.retaining(|other| other != name)
    }

    fn retaining(&self, keep: impl Fn(&str) -> bool) -> Self {
        let names = || Names::of(&self.as_str()[PREFIX.len()..]).filter(|name| keep(name));
        Self {
            is_cut: self.is_cut,
            ..Self::from_names(names)
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names of extensions in what follows `rv64` of an ISA string, without their versions.
struct Names<'a> {
    rest: &'a str,
    is_after_underscore: bool,
}

impl<'a> Names<'a> {
    fn of(rest: &'a str) -> Self {
        Self {
            rest,
            is_after_underscore: false,
        }
    }

    /// Takes `len` bytes off the rest.
    fn take(&mut self, len: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            let first = self.rest.chars().next()?;
            let is_after_underscore = core::mem::replace(&mut self.is_after_underscore, false);
            match first.to_ascii_lowercase() {
                '_' => {
                    self.take(1);
                    self.is_after_underscore = true;
                }
                // Old QEMUs list the privilege modes S and U as if they were extensions.
                's' if !is_after_underscore && self.rest[1..].starts_with(['u', 'U']) => {
                    self.take(2);
                }
                's' | 'x' | 'z' => {
                    let len = self.rest.find('_').unwrap_or(self.rest.len());
                    let name = self.take(len);
                    if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                        return Some(without_version(name));
                    }
                }
                'a'..='z' => {
                    let letter = self.take(1);
                    self.take(version_len(self.rest));
                    return Some(letter);
                }
                _ => {
                    self.take(first.len_utf8());
                }
            }
        }
    }
}

/// The bytes of the version, such as `2p1`, that `text` begins with.
fn version_len(text: &str) -> usize {
    let digits =
        |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let major = digits(text);
    let Some(minor) = text[major..].strip_prefix(['p', 'P']).map(digits) else {
        return major;
    };
    // The extension `p` never follows a number, but here no number follows it.
    if major > 0 && minor > 0 {
        major + 1 + minor
    } else {
        major
    }
}

/// A longer name without the version that it may end with.
fn without_version(name: &str) -> &str {
    let trimmed = name.trim_end_matches(|c: char| c.is_ascii_digit());
    if trimmed.len() == name.len() {
        return name;
    }
    let Some(major) = trimmed.strip_suffix(['p', 'P']) else {
        return trimmed;
    };
    let shorter = major.trim_end_matches(|c: char| c.is_ascii_digit());
    if shorter.len() == major.len() {
        trimmed
    } else {
        shorter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    fn string(isa: &str) -> String {
        Isa::from_string(isa).unwrap().as_str().into()
    }

    #[test]
    fn r79_isa_strings_are_read_as_linux_reads_them() {
        const BASE: &str = "_zicsr_zifencei_zicntr_zihpm";
        for (isa, expected) in [
            ("rv64imafdc", format!("rv64imafdc{BASE}")),
            // Versions, of letters and of names.
            (
                "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_h1p0_zicsr2p0_zba1p0",
                format!("rv64imafdch_zicsr_zba{}", &BASE["_zicsr".len()..]),
            ),
            ("rv64i2m2a2f2d2c2", format!("rv64imafdc{BASE}")),
            ("rv64ima_zve64x1p0", format!("rv64ima_zve64x{BASE}")),
            ("rv64ima_svinval1", format!("rv64ima_svinval{BASE}")),
            ("rv64ima_zic64b", format!("rv64ima_zic64b{BASE}")),
            // `g`, and capitals.
            ("rv64gc", format!("rv64imafdc{BASE}")),
            (
                "RV64GCH_Zba_SSTC",
                format!("rv64imafdch{}_zba_sstc{}", &BASE[..15], &BASE[15..]),
            ),
            ("rv64IMAC_ZBA", format!("rv64imac_zba{BASE}")),
            // The first long name may follow the letters at once.
            ("rv64imaczba_zbb", format!("rv64imac_zba_zbb{BASE}")),
            // Letters may stand apart, also after a name.
            ("rv64ima_c_zba_h", format!("rv64imach_zba{BASE}")),
            // The modes of old QEMUs.
            ("rv64imafdcsu", format!("rv64imafdc{BASE}")),
            ("rv64imafdcsuh", format!("rv64imafdch{BASE}")),
            ("rv64imac_sum", format!("rv64imac_sum{BASE}")),
            // What is not a name is passed over.
            ("rv64ima-c_z%a__zbb_", format!("rv64imac_zbb{BASE}")),
            ("rv64imac_zbb_zbb_c", format!("rv64imac_zbb{BASE}")),
            ("rv64imaé_zbb", format!("rv64ima_zbb{BASE}")),
            ("rv64e", "rv64e".into()),
            ("rv64", "rv64".into()),
        ] {
            assert_eq!(string(isa), expected, "{isa}");
        }
        for isa in ["rv32imac", "rv", "", "imafdc", "rv6é"] {
            assert!(Isa::from_string(isa).is_none(), "{isa}");
        }
    }

    #[test]
    fn r79_in_a_list_the_base_is_the_base_alone() {
        let list = ["i", "m", "zicsr", "h", "Sstc"];
        let isa = Isa::from_list("rv64i", || list.into_iter()).unwrap();
        assert_eq!(isa.as_str(), "rv64imh_zicsr_sstc");
        assert!(!isa.lists("zicntr"));
        assert!(Isa::from_list("rv32i", || list.into_iter()).is_none());
    }

    #[test]
    fn two_harts_have_in_common_what_both_list() {
        let big = Isa::from_string("rv64imafdcvh_zba_sstc").unwrap();
        let small = Isa::from_string("rv64imach_sstc_svinval").unwrap();
        assert_eq!(
            big.common(&small).as_str(),
            "rv64imach_sstc_zicsr_zifencei_zicntr_zihpm"
        );
        assert_eq!(
            big.without("sstc").without("v").without("zicbom").as_str(),
            "rv64imafdch_zba_zicsr_zifencei_zicntr_zihpm"
        );
    }

    #[test]
    fn an_isa_without_end_is_cut_at_a_name() {
        let mut long = String::from("rv64imac");
        for number in 0..400 {
            long += &format!("_zlong{number}x");
        }
        let isa = Isa::from_string(&long).unwrap();
        assert!(isa.is_cut());
        assert!(isa.lists("zlong0x") && isa.as_str().ends_with('x'));
        assert!(!Isa::from_string("rv64imac_zba").unwrap().is_cut());
    }
}
