//! What of the machine's instruction set the guest gets.
//!
//! The one idea: the guest's ISA string promises exactly what the hypervisor CSRs grant. An
//! extension is listed only if the machine has it *and* either no hypervisor CSR governs it or the
//! bit that does reads back as set.

use alloc::string::String;
use alloc::vec::Vec;

use bitflags::bitflags;

bitflags! {
    /// The bits of `henvcfg` that are given to a guest when the machine has them.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Henvcfg: u64 {
        /// `cbo.inval` is executed, as a flush (CBIE = 01): invalidating would undo what the host
        /// cleaned.
        const CBIE_FLUSH = 1 << 4;
        /// `cbo.clean` and `cbo.flush` are executed.
        const CBCFE = 1 << 6;
        /// `cbo.zero` is executed.
        const CBZE = 1 << 7;
        /// The hardware updates A and D bits in the guest's tables.
        const ADUE = 1 << 61;
        /// Page-based memory types in the guest's tables.
        const PBMTE = 1 << 62;
        /// The guest has `stimecmp`.
        const STCE = 1 << 63;
    }
}

bitflags! {
    /// `hcounteren`: the counters that a guest may read.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Counters: u64 {
        /// `cycle`.
        const CYCLE = 1 << 0;
        /// `time`.
        const TIME = 1 << 1;
        /// `instret`.
        const INSTRET = 1 << 2;
        /// `hpmcounter3`, the first of the programmable ones.
        const FIRST_PROGRAMMABLE = 1 << 3;
        /// All of the programmable ones. Nothing programs them: there is no SBI PMU, and the host
        /// counts nothing.
        const PROGRAMMABLE = 0xffff_fff8;
    }
}

impl Counters {
    /// Those that Zicntr stands for.
    const BASE: Self = Self::CYCLE.union(Self::TIME).union(Self::INSTRET);
}

/// Whether the hardware updates A and D bits in a guest's tables (`henvcfg.ADUE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdUpdates {
    /// It never does: the bit cannot be set.
    #[default]
    Never,
    /// It does if the guest asks for it: the tree lists Svade and Svadu.
    Chosen,
    /// It does: the tree lists Svadu alone, and kernels then rely on it.
    Always,
}

/// What a guest can choose by the SBI's firmware features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choices {
    /// A and D bits.
    pub ad_updates: AdUpdates,
    /// `henvcfg.PMM` can mask 7 bits of pointers.
    pub masks_seven_bits: bool,
    /// `henvcfg.PMM` can mask 16 bits of pointers.
    pub masks_sixteen_bits: bool,
}

/// What the CSRs of this machine let a guest have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Granted {
    /// What of it the guest chooses.
    pub choices: Choices,
    /// `henvcfg`.
    pub environment: Henvcfg,
    /// `hcounteren`.
    pub counters: Counters,
    /// `sstatus.VS` can be set, so a guest can have the vector registers.
    pub vectors: bool,
}

/// What governs an extension for a guest.
enum Need {
    /// Nothing: the instructions run in VS-mode as they are.
    Nothing,
    /// Bits of `henvcfg`.
    Environment(Henvcfg),
    /// Bits of `hcounteren`.
    Counters(Counters),
    /// The vector registers, which `sstatus.VS` turns on.
    Vectors,
    /// The machine promises the same for VS-mode by this extension.
    Machine(&'static str),
}

impl Need {
    fn is_met(&self, isa: &str, granted: &Granted) -> bool {
        match self {
            Self::Nothing => true,
            Self::Environment(bits) => granted.environment.contains(*bits),
            Self::Counters(bits) => granted.counters.contains(*bits),
            Self::Vectors => granted.vectors,
            Self::Machine(other) => lists(isa, other),
        }
    }
}

/// Every extension that a guest may have, in the order of the ISA string. An unprivileged extension
/// without state has no bit that could take it from a guest, so each one that there is stands here.
/// What is not here is not passed on: in particular H itself, and names for several others, one of
/// which is not passed on.
const EXTENSIONS: &[(&str, Need)] = &[
    ("i", Need::Nothing),
    ("m", Need::Nothing),
    ("a", Need::Nothing),
    ("f", Need::Nothing),
    ("d", Need::Nothing),
    ("c", Need::Nothing),
    ("b", Need::Nothing),
    ("v", Need::Vectors),
    ("zic64b", Need::Nothing),
    (
        "zicbom",
        Need::Environment(Henvcfg::CBIE_FLUSH.union(Henvcfg::CBCFE)),
    ),
    ("zicbop", Need::Nothing),
    ("zicboz", Need::Environment(Henvcfg::CBZE)),
    ("ziccamoa", Need::Nothing),
    ("ziccif", Need::Nothing),
    ("zicclsm", Need::Nothing),
    ("ziccrse", Need::Nothing),
    ("zicntr", Need::Counters(Counters::BASE)),
    ("zicond", Need::Nothing),
    ("zicsr", Need::Nothing),
    ("zifencei", Need::Nothing),
    ("zihintntl", Need::Nothing),
    ("zihintpause", Need::Nothing),
    ("zihpm", Need::Counters(Counters::FIRST_PROGRAMMABLE)),
    ("zimop", Need::Nothing),
    ("zmmul", Need::Nothing),
    ("za64rs", Need::Nothing),
    ("zaamo", Need::Nothing),
    ("zabha", Need::Nothing),
    ("zacas", Need::Nothing),
    ("zama16b", Need::Nothing),
    ("zalasr", Need::Nothing),
    ("zalrsc", Need::Nothing),
    ("zawrs", Need::Nothing),
    ("zfa", Need::Nothing),
    ("zfbfmin", Need::Nothing),
    ("zfh", Need::Nothing),
    ("zfhmin", Need::Nothing),
    ("zca", Need::Nothing),
    ("zcb", Need::Nothing),
    ("zcd", Need::Nothing),
    ("zcmop", Need::Nothing),
    ("zba", Need::Nothing),
    ("zbb", Need::Nothing),
    ("zbc", Need::Nothing),
    ("zbkb", Need::Nothing),
    ("zbkc", Need::Nothing),
    ("zbkx", Need::Nothing),
    ("zbs", Need::Nothing),
    ("zknd", Need::Nothing),
    ("zkne", Need::Nothing),
    ("zknh", Need::Nothing),
    ("zkn", Need::Nothing),
    ("zks", Need::Nothing),
    ("zksed", Need::Nothing),
    ("zksh", Need::Nothing),
    ("zkt", Need::Nothing),
    ("ztso", Need::Nothing),
    ("zvbb", Need::Vectors),
    ("zvbc", Need::Vectors),
    ("zve32f", Need::Vectors),
    ("zve32x", Need::Vectors),
    ("zve64d", Need::Vectors),
    ("zve64f", Need::Vectors),
    ("zve64x", Need::Vectors),
    ("zvfbfmin", Need::Vectors),
    ("zvfbfwma", Need::Vectors),
    ("zvfh", Need::Vectors),
    ("zvfhmin", Need::Vectors),
    ("zvkb", Need::Vectors),
    ("zvkg", Need::Vectors),
    ("zvkn", Need::Vectors),
    ("zvknc", Need::Vectors),
    ("zvkned", Need::Vectors),
    ("zvkng", Need::Vectors),
    ("zvknha", Need::Vectors),
    ("zvknhb", Need::Vectors),
    ("zvks", Need::Vectors),
    ("zvksc", Need::Vectors),
    ("zvksed", Need::Vectors),
    ("zvksg", Need::Vectors),
    ("zvksh", Need::Vectors),
    ("zvkt", Need::Vectors),
    ("zvl32b", Need::Vectors),
    ("zvl64b", Need::Vectors),
    ("zvl128b", Need::Vectors),
    ("zvl256b", Need::Vectors),
    ("zvl512b", Need::Vectors),
    ("zvl1024b", Need::Vectors),
    ("ssccptr", Need::Nothing),
    // The guest's `scounteren` is the machine's own.
    ("sscounterenw", Need::Nothing),
    ("ssnpm", Need::Nothing),
    ("sstc", Need::Environment(Henvcfg::STCE)),
    ("sstvala", Need::Machine("shvstvala")),
    ("sstvecd", Need::Machine("shvstvecd")),
    ("ssu64xl", Need::Nothing),
    ("supm", Need::Nothing),
    ("svade", Need::Nothing),
    ("svadu", Need::Environment(Henvcfg::ADUE)),
    ("svinval", Need::Nothing),
    ("svnapot", Need::Nothing),
    ("svpbmt", Need::Environment(Henvcfg::PBMTE)),
    ("svvptc", Need::Nothing),
];

/// Whether an ISA string such as `rv64imafdch_zicsr_sstc` lists an extension, given in lower case.
pub fn lists(isa: &str, extension: &str) -> bool {
    let isa = isa.get(4..).unwrap_or("");
    let mut parts = isa.split('_');
    let letters = parts.next().unwrap_or("");
    if extension.len() == 1 {
        return letters.contains(extension);
    }
    parts.any(|part| part == extension)
}

/// The `henvcfg` bits to ask the machine for: those of extensions that it lists. A bit that the
/// machine lets one set although it does not list the extension is not given to the guest.
///
/// A host that cannot flush its caches gives no page-based memory types: a guest would read past
/// them (I20).
pub fn wanted_environment(isa: &str, can_flush: bool) -> Henvcfg {
    let listed = EXTENSIONS.iter().filter(|(name, _)| lists(isa, name));
    let bits = listed.map(|(_, need)| match need {
        Need::Environment(bits) => *bits,
        _ => Henvcfg::empty(),
    });
    let wanted = bits.fold(Henvcfg::empty(), Henvcfg::union);
    if can_flush {
        wanted
    } else {
        wanted - Henvcfg::PBMTE
    }
}

/// The extensions of the guest: of the machine's, those that the granted CSR bits govern or that
/// nothing governs.
pub fn guest_extensions(isa: &str, granted: &Granted) -> Vec<&'static str> {
    EXTENSIONS
        .iter()
        .filter(|(name, need)| lists(isa, name) && need.is_met(isa, granted))
        .map(|(name, _)| *name)
        .collect()
}

/// Whether the machine has vector registers, of any size and element type.
pub fn has_vectors(isa: &str) -> bool {
    EXTENSIONS
        .iter()
        .any(|(name, need)| matches!(need, Need::Vectors) && lists(isa, name))
}

/// What of the machine's extensions is not in the guest's list.
pub fn withheld<'a>(isa: &'a str, guest: &[&str]) -> Vec<&'a str> {
    let isa = isa.get(4..).unwrap_or("");
    let (letters, names) = isa.split_once('_').unwrap_or((isa, ""));
    let letters = (0..letters.len()).filter_map(|index| letters.get(index..=index));
    letters
        .chain(names.split('_'))
        .filter(|name| !name.is_empty() && !guest.contains(name))
        .collect()
}

/// The ISA string of a list of extensions in the table's order.
pub fn isa_string(extensions: &[&str]) -> String {
    let mut isa = String::from("rv64");
    for extension in extensions {
        if extension.len() > 1 {
            isa.push('_');
        }
        isa.push_str(extension);
    }
    isa
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISA: &str = "rv64imafdcvh_zicbom_zicboz_zicntr_zicsr_zifencei_zihpm_zba_zvbb_zve64d_ssaia_sstc_svadu_svpbmt_shtvala";

    const ALL: Granted = Granted {
        environment: Henvcfg::all(),
        counters: Counters::all(),
        vectors: true,
        choices: Choices {
            ad_updates: AdUpdates::Always,
            masks_seven_bits: false,
            masks_sixteen_bits: false,
        },
    };

    #[test]
    fn r86_an_extension_needs_every_bit_that_governs_it() {
        let cases = [
            (
                ALL,
                "rv64imafdcv_zicbom_zicboz_zicntr_zicsr_zifencei_zihpm_zba_zvbb_zve64d_sstc_svadu_svpbmt",
            ),
            (
                Granted {
                    counters: Counters::TIME,
                    ..Granted::default()
                },
                "rv64imafdc_zicsr_zifencei_zba",
            ),
            (
                Granted {
                    environment: Henvcfg::CBCFE | Henvcfg::STCE,
                    vectors: false,
                    ..ALL
                },
                "rv64imafdc_zicntr_zicsr_zifencei_zihpm_zba_sstc",
            ),
        ];
        for (granted, expected) in cases {
            let extensions = guest_extensions(ISA, &granted);
            assert_eq!(isa_string(&extensions), expected);
        }
    }

    #[test]
    fn the_hypervisor_extension_never_reaches_the_guest() {
        let extensions = guest_extensions(ISA, &ALL);
        let hidden = ["h", "ssaia", "shtvala"];
        assert_eq!(withheld(ISA, &extensions), hidden);
        assert_eq!(withheld("rv64im", &["i", "m"]), [""; 0]);
    }

    #[test]
    fn bits_of_extensions_that_the_machine_does_not_list_are_not_asked_for() {
        let wanted = |isa| wanted_environment(isa, true);
        assert_eq!(wanted("rv64imafdch_zba"), Henvcfg::empty());
        assert_eq!(wanted("rv64imafdch_zba_sstc"), Henvcfg::STCE);
        assert_eq!(wanted(ISA), Henvcfg::all());
    }

    #[test]
    fn i20_a_host_that_cannot_flush_gives_no_memory_types() {
        let wanted = wanted_environment(ISA, false);
        assert_eq!(wanted, Henvcfg::all() - Henvcfg::PBMTE);
        let granted = Granted {
            environment: wanted,
            ..ALL
        };
        let extensions = guest_extensions(ISA, &granted);
        assert_eq!(withheld(ISA, &extensions).last(), Some(&"shtvala"));
        assert!(!extensions.contains(&"svpbmt"));
    }

    #[test]
    fn r86_a_promise_of_s_mode_needs_the_one_for_vs_mode() {
        let isa = "rv64i_zicsr_zifencei_shvstvala_sstvala_sstvecd_ssu64xl";
        let extensions = guest_extensions(isa, &Granted::default());
        assert_eq!(
            isa_string(&extensions),
            "rv64i_zicsr_zifencei_sstvala_ssu64xl"
        );
    }

    #[test]
    fn r86_a_machine_with_parts_of_v_has_vectors() {
        for (isa, expected) in [
            ("rv64imafdcv", true),
            ("rv64imafdc_zve32x", true),
            ("rv64imafdc_zba", false),
        ] {
            assert_eq!(has_vectors(isa), expected, "{isa}");
        }
    }

    #[test]
    fn letters_and_names_are_not_confused() {
        assert!(lists("rv64imafdch_zicsr", "c"));
        assert!(!lists("rv64ima_zicsr", "c"));
        assert!(!lists("rv64imac_zicsrx", "zicsr"));
        assert!(!lists("rv", "i"));
    }
}
