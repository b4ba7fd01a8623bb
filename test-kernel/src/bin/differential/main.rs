//! The differential test on the machine: random two-stage page tables and accesses, each by the real instruction and by the
//! library's walk over the same tables.
//!
//! The one idea: a case agrees if everything that can be seen is the same: the value, or cause, `stval`, `htval` and the
//! class of `htinst`; and every entry and the data afterwards. If not, it has to be *exactly* what this machine's deviations,
//! those that its probes showed at boot, make of it ([`walk`]); then they are counted by name. Anything else is a disagreement,
//! which is made small and printed with all that is needed to repeat it.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod block;
#[cfg(target_os = "none")]
mod by_walk;
#[cfg(target_os = "none")]
mod deviating;
#[cfg(target_os = "none")]
mod deviations;
#[cfg(target_os = "none")]
mod environment;
#[cfg(target_os = "none")]
mod hardware;
#[cfg(target_os = "none")]
mod options;
#[cfg(target_os = "none")]
mod walk;

#[cfg(target_os = "none")]
mod kernel {
    use differential::{Case, Offer, World, shrink};
    use test_kernel::deviation::{Deviation, Machine};
    use test_kernel::global::Global;
    use test_kernel::harness::{self, Outcome, Runner, Test};
    use test_kernel::{arena, boot, csr, panic, println, trap};

    use crate::block::{Block, Seen};
    use crate::by_walk::{self, ByWalk};
    use crate::deviations::Deviations;
    use crate::hardware::{Hardware, offer};
    use crate::options::Options;
    use crate::walk::Walk;

    /// Disagreements that are printed before the run ends.
    const SHOWN: u64 = 3;

    /// Cases between two looks at all of memory.
    const SWEEP: u64 = 8192;

    /// Cases between two signs of life.
    const SIGN: u64 = 1_000_000;

    /// How the cases came out.
    #[derive(Clone, Copy)]
    struct Counts {
        cases: u64,
        agree: u64,
        deviate: u64,
        disagree: u64,
        /// Not run on the hardware, since they lead to what is not the test's.
        left_out: u64,
        /// Of those that agree: no fault.
        works: u64,
        /// Copies by walk that came out as the hardware's access, and as specified where that deviates.
        copies: [u64; 2],
        /// By deviation.
        by: [u64; Deviation::COUNT],
    }

    static COUNTS: Global<Counts> = Global::new(Counts {
        cases: 0,
        agree: 0,
        deviate: 0,
        disagree: 0,
        left_out: 0,
        works: 0,
        copies: [0; 2],
        by: [0; Deviation::COUNT],
    });

    /// Rust's entry, from `boot`.
    // SAFETY: no other program part defines a function of this name; `boot` calls it with these arguments.
    #[unsafe(no_mangle)]
    extern "C" fn kernel_main(_hart: usize, device_tree: *const u8) -> ! {
        let satp = boot::set_up();
        // SAFETY: the firmware passes its device tree, a machine without it its own or null, which nothing changes or moves.
        unsafe { boot::keep_arguments(device_tree) };
        let options = Options::of_boot();
        println!("\n");
        let begun = harness::cycle();
        let machine = Machine::probe(satp);
        machine.print();
        match trap::catch(|| compare_all(&machine, &options)) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => println!("differential: {}", harness::reason().as_str()),
            Err(trap) => println!("differential: ended by {trap:?} {}", panic::take().as_str()),
        }
        let mut runner = Runner::new(&machine, satp);
        runner.run(&[harness::Case {
            name: "the_walk_agrees_with_the_hardware_on_random_tables",
            run: verdict,
        }]);
        let went_well = runner.close();
        harness::print_cycles(begun);
        boot::power_off(went_well)
    }

    /// The counts as a test.
    fn verdict(t: &mut Test) -> Outcome {
        let counts = COUNTS.get();
        for deviation in Deviation::ALL {
            if counts.by[deviation as usize] > 0 {
                t.deviates(deviation);
            }
        }
        if counts.disagree > 0
            || counts.cases == 0
            || counts.agree + counts.deviate + counts.left_out < counts.cases
            || counts.left_out > counts.cases / 100 + 1
        {
            harness::fail!(
                "{} of {} cases agree, {} deviate, {} disagree",
                counts.agree,
                counts.cases,
                counts.deviate,
                counts.disagree
            );
        }
        Ok(())
    }

    /// All that is needed to run cases.
    struct Comparison<'a> {
        machine: &'a Machine,
        offer: Offer,
        block: Block,
        hardware: Hardware,
        walk: Walk,
        by_walk: ByWalk,
    }

    /// How a case that agrees came out.
    struct Agreement {
        /// What it takes for that.
        deviations: Deviations,
        worked: bool,
        /// Whether the copy by walk came out as the hardware's access; `None` if the case is none.
        copy_as_hardware: Option<bool>,
    }

    fn compare_all(machine: &Machine, options: &Options) -> Outcome {
        let walk = Walk::measure(machine)?;
        let by_walk = ByWalk::new()?;
        boot::reset_csrs(csr::satp::read());
        arena::release_all();
        let mut comparison = Comparison {
            machine,
            offer: offer(walk.measured.varies),
            block: Block::take(machine),
            hardware: Hardware::new(),
            walk,
            by_walk,
        };
        println!(
            "differential: seed {} cases {} to {}, block at {:#x}",
            options.seed,
            options.first,
            options.first + options.cases - 1,
            comparison.block.place.block
        );
        let varies = comparison.offer.environment;
        println!(
            "differential: bits of menvcfg {:#x}, henvcfg {:#x}, senvcfg {:#x} are each case's own",
            varies.menvcfg, varies.henvcfg, varies.senvcfg
        );
        let mut counts = COUNTS.get();
        let found = options.found;
        counts.cases = found.len() as u64 + options.cases;
        let random = options.first..options.first + options.cases;
        let random = random.map(|number| Case {
            kept: options.kept,
            ..Case::new(options.seed, number)
        });
        for (run, case) in found.iter().copied().chain(random).enumerate() {
            match comparison.one(&case) {
                Ok(None) => counts.left_out += 1,
                Ok(Some(agreement)) => {
                    let deviations = agreement.deviations;
                    counts.works += u64::from(agreement.worked);
                    if let Some(as_hardware) = agreement.copy_as_hardware {
                        counts.copies[usize::from(!as_hardware)] += 1;
                    }
                    if deviations.is_empty() {
                        counts.agree += 1;
                    } else {
                        counts.deviate += 1;
                    }
                    for deviation in deviations.iter() {
                        counts.by[deviation as usize] += 1;
                    }
                }
                Err(()) => {
                    counts.disagree += 1;
                    let offer = comparison.offer;
                    let small = shrink(case, &offer, |case| comparison.one(case).is_err());
                    comparison.report(&small);
                }
            }
            COUNTS.set(counts);
            let done = run as u64 + 1;
            if done % SWEEP == 1
                && let Some(offset) = comparison.block.first_stain()
            {
                println!(
                    "differential: memory at {offset:#x} changed in a case before {} without being looked at",
                    case.number
                );
                counts.disagree += 1;
                COUNTS.set(counts);
            }
            if done.is_multiple_of(SIGN) {
                println!("differential: {done} cases done");
            }
            if counts.disagree >= SHOWN {
                break;
            }
        }
        println!(
            "differential: {} cases of seed {}: {} agree ({} of them without a fault), {} deviate, {} disagree, {} left out since they lead to what is not the test's",
            counts.cases,
            options.seed,
            counts.agree,
            counts.works,
            counts.deviate,
            counts.disagree,
            counts.left_out
        );
        println!("counted: {} cases that agree", counts.agree);
        println!(
            "counted: {} cases that come out as listed deviations have it",
            counts.deviate
        );
        let [as_hardware, as_specified] = counts.copies;
        println!(
            "differential: copies by walk: {as_hardware} as the hardware's access, {as_specified} as specified or as a page's own refusal where that deviates as named here"
        );
        for deviation in Deviation::ALL {
            let count = counts.by[deviation as usize];
            if count > 0 {
                println!("differential: {count} cases: {deviation}");
            }
        }
        Ok(())
    }

    impl Comparison<'_> {
        /// How the case agrees; `None` if it is not to be run; or a disagreement.
        fn one(&mut self, case: &Case) -> Result<Option<Agreement>, ()> {
            let world = case.world(&self.offer, &self.block.place);
            if self.leads_outside(&world) {
                self.block.put_back(&world);
                return Ok(None);
            }
            let seen = self.hardware(&world);
            let result = self.agreement(&world, &seen);
            self.block.put_back(&world);
            if result.is_err() {
                self.block.clear();
            }
            result.map(Some)
        }

        fn agreement(&mut self, world: &World, seen: &Seen) -> Result<Agreement, ()> {
            let deviations = self.explain(world, seen)?;
            let copy_as_hardware = match self.by_walk.covers(world) {
                true => Some(self.copy_as_hardware(world, seen, deviations)?),
                false => None,
            };
            Ok(Agreement {
                deviations,
                worked: seen.outcome.is_ok(),
                copy_as_hardware,
            })
        }

        /// Whether the copy by walk comes out as the hardware's access did. If not, and not as specified by reason of
        /// `deviations` either, it is a disagreement.
        fn copy_as_hardware(
            &mut self,
            world: &World,
            seen: &Seen,
            deviations: Deviations,
        ) -> Result<bool, ()> {
            let copy = self.copied(world);
            if by_walk::agrees(&copy, seen) {
                return Ok(true);
            }
            // What the copy leaves to the hardware comes with the type of the access put right (R67).
            let by_type = match deviations.has(Deviation::ImplicitIsLoad) {
                true => by_walk::as_store(*seen),
                false => *seen,
            };
            // The policy is told to the library as it was measured (R65).
            let told = Deviations::of(self.machine).only(Deviation::EnvironmentIgnored);
            let specified = self.software(world, told);
            let let_through = self.software(world, told.with(Deviation::UpdateIgnoresG));
            let deviates = || {
                by_walk::agrees(&copy, &by_type)
                    || by_walk::agrees(&copy, &specified)
                    || by_walk::agrees(&copy, &by_walk::left_after(&specified, &by_type))
            };
            let explained = !deviations.is_empty() && deviates()
                || by_walk::refused_for_the_page(&copy, &specified, &let_through);
            match explained {
                true => Ok(false),
                false => Err(()),
            }
        }

        fn copied(&mut self, world: &World) -> Seen {
            self.block.put(world);
            let measured = &self.walk.measured;
            let rules = measured.rules(world, Deviations::of(self.machine));
            let outcome = self.by_walk.execute(&self.block, world, measured, &rules);
            self.block.seen(world, outcome)
        }

        /// Whether the access may reach devices or the kernel, as specified or with this machine's deviations.
        fn leads_outside(&mut self, world: &World) -> bool {
            self.block.leads_outside.set(false);
            self.software(world, Deviations::NONE);
            self.software(world, Deviations::of(self.machine));
            self.block.leads_outside.get()
        }

        fn hardware(&mut self, world: &World) -> Seen {
            self.block.put(world);
            self.walk.stale = self.hardware.stale(world);
            let outcome = self.hardware.execute(world, &self.walk.measured);
            self.block.seen(world, outcome)
        }

        fn software(&mut self, world: &World, deviations: Deviations) -> Seen {
            self.block.put(world);
            let outcome = self.walk.execute(&self.block, world, deviations);
            self.block.seen(world, outcome)
        }

        fn explain(&mut self, world: &World, seen: &Seen) -> Result<Deviations, ()> {
            let mut set = Deviations::NONE;
            if self.software(world, set) == *seen {
                return Ok(set);
            }
            set = Deviations::of(self.machine);
            if self.software(world, set) != *seen {
                return Err(());
            }
            // Those without which the machine would not do this.
            for deviation in set.iter() {
                let without = set.without(deviation);
                if self.software(world, without) == *seen {
                    set = without;
                }
            }
            Ok(set)
        }

        /// Prints a disagreement and how to repeat it.
        fn report(&mut self, case: &Case) {
            let world = case.world(&self.offer, &self.block.place);
            let seen = self.hardware(&world);
            let specified = self.software(&world, Deviations::NONE);
            let all = Deviations::of(self.machine);
            let deviating = self.software(&world, all);
            println!(
                "differential: disagreement: cargo xtask test --differential 1 --seed {} --case {} --keep {:#x}",
                case.seed, case.number, case.kept
            );
            println!("{}{world}", case.choices(&self.offer));
            println!("  hardware    {seen}");
            println!("  as specified {specified}");
            println!("  as deviating {deviating}");
            if self.by_walk.covers(&world) {
                let copy = self.copied(&world);
                println!("  copy by walk {copy}");
            }
            self.block.put(&world);
            println!("{}", self.walk.trace(&self.block, &world));
            self.block.put_back(&world);
            self.block.clear();
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this program runs on riscv64gc-unknown-none-elf: see `cargo xtask test`");
}
