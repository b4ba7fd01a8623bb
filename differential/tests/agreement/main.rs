//! The software hart against the walker written from the specification, on random cases: outcome, cause, `stval`, `htval`,
//! `htinst`, data, and every word of memory afterwards.
//!
//! `GUEST_MEM_DIFFERENTIAL` sets the number of cases of each seed, `GUEST_MEM_DIFFERENTIAL_SEED` one seed in place of the
//! fixed ones, `GUEST_MEM_DIFFERENTIAL_FIRST` the first case of it, `GUEST_MEM_DIFFERENTIAL_CASE` and `GUEST_MEM_DIFFERENTIAL_KEEP` replay one case.

mod specification;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use differential::{BLOCK, Case, FOUND, Offer, Place, World, mark, marks, shrink};
use guest_mem::hart::Hart;
use guest_mem::hart::model::{Machine, ModelHart, RamArray, Register, Translations};
use guest_mem::{Spa, TrapInfo, Width};

use specification::{Access, Trap};

const PLACE: Place = Place {
    block: 0x8040_0000,
    refused: [0x8000_0000, 1 << 55],
};

/// Cases of each seed, without a wish.
const CASES: u64 = 100_000;
const SEEDS: [u64; 2] = [1, 2];

const PAGES: usize = (BLOCK / 4096) as usize;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const SPVP: u64 = 1 << 8;

fn flag(set: bool, bits: u64) -> u64 {
    if set { bits } else { 0 }
}

/// The software hart and the specification, each with its memory.
struct Both<'a> {
    memory: &'a RamArray<PAGES>,
    specification: specification::Machine,
}

impl<'a> Both<'a> {
    fn new(memory: &'a RamArray<PAGES>) -> Self {
        let mut both = Self {
            memory,
            specification: specification::Machine {
                base: PLACE.block,
                memory: vec![0; (BLOCK / 8) as usize],
                vsatp: 0,
                hgatp: 0,
                vsstatus: 0,
                sstatus: 0,
                spvp: false,
                menvcfg: 0,
                henvcfg: 0,
                senvcfg: 0,
            },
        };
        for offset in marks() {
            both.write(offset, mark(offset));
        }
        both
    }

    fn write(&mut self, offset: u64, value: u64) {
        let at = Spa::new(PLACE.block + offset);
        self.memory
            .at(Spa::new(PLACE.block))
            .store(at, Width::Double, value)
            .expect("it is in the block");
        self.specification.memory[(offset / 8) as usize] = value;
    }

    fn model_word(&self, offset: u64) -> u64 {
        let at = Spa::new(PLACE.block + offset);
        let word = self
            .memory
            .at(Spa::new(PLACE.block))
            .load(at, Width::Double);
        word.expect("it is in the block")
    }

    /// Whether all of memory is the same on both sides.
    fn first_difference(&self) -> Option<u64> {
        (0..BLOCK).step_by(8).find(|&offset| {
            self.model_word(offset) != self.specification.memory[(offset / 8) as usize]
        })
    }

    fn put_in(&mut self, world: &World) {
        for word in world.words() {
            self.write(word.offset, word.value);
        }
        let machine = &mut self.specification;
        machine.vsatp = world.vsatp;
        machine.hgatp = world.hgatp;
        machine.vsstatus = flag(world.vs_sum, SUM) | flag(world.vs_mxr, MXR);
        machine.sstatus = flag(world.host_sum, SUM) | flag(world.host_mxr, MXR);
        machine.spvp = world.supervisor;
        machine.menvcfg = world.menvcfg;
        machine.henvcfg = world.henvcfg;
        machine.senvcfg = world.senvcfg;
    }

    fn take_out(&mut self, world: &World) {
        for word in world.words() {
            self.write(word.offset, mark(word.offset));
        }
        // What a store can have changed: whatever page it reached, it reached it at this offset.
        for offset in Self::reachable(world) {
            self.write(offset, mark(offset));
        }
    }

    fn reachable(world: &World) -> impl Iterator<Item = u64> + use<> {
        (world.address & 0xff8..BLOCK).step_by(4096)
    }

    /// The access on the software hart, and the trap CSRs that it leaves.
    fn on_the_model(&self, world: &World, translations: Translations) -> Result<u64, Trap> {
        let machine = Machine {
            translations,
            ..Machine::new()
        };
        let hart = ModelHart::new(self.memory.at(Spa::new(PLACE.block)), machine);
        for (register, value) in [
            (Register::Vsatp, world.vsatp),
            (Register::Hgatp, world.hgatp),
            (Register::Vsstatus, self.specification.vsstatus),
            (Register::Sstatus, self.specification.sstatus),
            (Register::Hstatus, flag(world.supervisor, SPVP)),
            (Register::Menvcfg, world.menvcfg),
            (Register::Henvcfg, world.henvcfg),
            (Register::Senvcfg, world.senvcfg),
        ] {
            hart.set_register(register, value);
        }
        let instruction = world.instruction;
        let width =
            Width::from_bytes(instruction.bytes() as usize).expect("instructions have widths");
        // SAFETY: the model has no host memory at stake.
        let result = unsafe {
            if instruction.stores() {
                hart.store_guest(world.address, width, world.value)
                    .map(|()| 0)
            } else if instruction.executes() {
                hart.hlvx(world.address, width)
            } else {
                hart.load_guest(world.address, width)
            }
        };
        result.map_err(|trap| {
            let left = TrapInfo {
                scause: hart.register(Register::Scause),
                stval: hart.register(Register::Stval),
                htval: hart.register(Register::Htval),
                htinst: hart.register(Register::Htinst),
            };
            assert_eq!(trap, left, "what is reported is what the CSRs hold");
            Trap {
                scause: trap.scause,
                stval: trap.stval,
                htval: trap.htval,
                htinst: trap.htinst,
            }
        })
    }

    fn by_the_specification(&mut self, world: &World) -> Result<u64, Trap> {
        let instruction = world.instruction;
        let access = if instruction.stores() {
            Access::Hsv
        } else if instruction.executes() {
            Access::Hlvx
        } else {
            Access::Hlv
        };
        self.specification
            .execute(access, world.address, instruction.bytes(), world.value)
    }

    /// The outcome if both agree, or in what they differ. Memory is as before then.
    fn compare(&mut self, case: &Case, everywhere: bool) -> Result<Result<u64, Trap>, String> {
        let world = case.world(&Offer::ALL, &PLACE);
        self.put_in(&world);
        // A hart that keeps translations starts with none: it may use those of this one walk.
        let translations = match case.number % 2 {
            0 => Translations::None,
            _ => Translations::Lazy,
        };
        let model = self.on_the_model(&world, translations);
        let specification = self.by_the_specification(&world);
        let mut differences = String::new();
        if model != specification {
            let _ = writeln!(
                differences,
                "  model {model:x?}\n  specification {specification:x?}"
            );
        }
        let tables = world.words().iter().map(|word| word.offset);
        for offset in tables.chain(Self::reachable(&world)) {
            let (model, other) = (
                self.model_word(offset),
                self.specification.memory[(offset / 8) as usize],
            );
            if model != other {
                let _ = writeln!(
                    differences,
                    "  [{offset:#07x}] model {model:#x} specification {other:#x}"
                );
            }
        }
        if everywhere && let Some(offset) = self.first_difference() {
            let _ = writeln!(differences, "  memory differs at {offset:#x}");
        }
        self.take_out(&world);
        if differences.is_empty() {
            Ok(model)
        } else {
            Err(differences)
        }
    }
}

fn wish(name: &str) -> Option<u64> {
    let text = env::var(format!("GUEST_MEM_DIFFERENTIAL{name}")).ok()?;
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(number.unwrap_or_else(|error| panic!("GUEST_MEM_DIFFERENTIAL{name}={text}: {error}")))
}

/// The commands that repeat a case: here and on every target, and here alone.
fn replay(case: &Case) -> String {
    let Case { seed, number, kept } = case;
    format!(
        "cargo xtask test --differential 1 --seed {seed} --case {number} --keep {kept:#x}\n\
         on this machine alone: GUEST_MEM_DIFFERENTIAL_SEED={seed} GUEST_MEM_DIFFERENTIAL_CASE={number} \
         GUEST_MEM_DIFFERENTIAL_KEEP={kept:#x} cargo test --package differential"
    )
}

#[test]
fn the_software_hart_does_what_the_specification_says_on_random_tables() {
    let memory = Box::new(RamArray::<PAGES>::new());
    let mut both = Both::new(&memory);
    let first = wish("_FIRST").unwrap_or(0);
    let cases = match wish("_CASE") {
        Some(case) => case..case + 1,
        None => first..first + wish("").unwrap_or(CASES),
    };
    let seeds = wish("_SEED").map_or(SEEDS.to_vec(), |seed| vec![seed]);
    let kept = wish("_KEEP").map_or(u32::MAX, |kept| kept as u32);
    let mut outcomes = BTreeMap::new();
    let random = seeds.into_iter().flat_map(|seed| {
        let cases = cases.clone();
        cases.map(move |number| Case { seed, number, kept })
    });
    // What is replayed, and what goes on in the middle, is run alone.
    let found = match wish("_CASE").or(wish("_FIRST")) {
        Some(_) => &[][..],
        None => &FOUND,
    };
    for case in found.iter().copied().chain(random) {
        let everywhere = case.number % 1024 == 0;
        let outcome = both.compare(&case, everywhere).unwrap_or_else(|_| {
            let small = shrink(case, &Offer::ALL, |case| both.compare(case, true).is_err());
            let differences = both.compare(&small, true).unwrap_err();
            panic!(
                "disagreement: {}\n{}{}{differences}",
                replay(&small),
                small.choices(&Offer::ALL),
                small.world(&Offer::ALL, &PLACE),
            )
        });
        let class = outcome.map_or_else(|trap| (trap.scause, trap.htinst), |_| (u64::MAX, 0));
        *outcomes.entry(class).or_insert(0u64) += 1;
    }
    for ((cause, htinst), count) in &outcomes {
        println!(
            "cause {} htinst {htinst:#x}: {count} cases",
            cause.cast_signed()
        );
    }
    // Not `println!`, which the test harness keeps to itself.
    let agree: u64 = outcomes.values().sum();
    writeln!(
        io::stdout(),
        "counted: {agree} cases in which the software hart agrees with the specification"
    )
    .unwrap();
    // The cases are worth something only if each outcome is among them.
    let expected = [
        (5, 0),
        (7, 0),
        (13, 0),
        (15, 0),
        (21, 0),
        (23, 0),
        (21, 0x3000),
        (23, 0x3000),
        (21, 0x3020),
        (23, 0x3020),
        (u64::MAX, 0),
    ];
    if ["", "_SEED", "_CASE", "_KEEP"]
        .into_iter()
        .all(|name| wish(name).is_none())
    {
        for class in expected {
            assert!(
                outcomes.get(&class).is_some_and(|&count| count >= 20),
                "too few cases of {class:x?}"
            );
        }
    }
}
