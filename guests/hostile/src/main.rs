//! A guest that does its worst, as its seed says; the hypervisor runs thousands of it, one after another, each with the next
//! seed (`cargo xtask run hostile`).
//!
//! The one idea: a guest begins honestly and ends so, if it can. It first looks whether anything of the guest before it is
//! left (registers, CSRs, memory, devices) and says in one line what it found: the hypervisor believes that line and nothing
//! after it. Then it stamps all of this with its seed, for the next guest to look for, does what its kind does, stamps its
//! registers again, and shuts down. Whatever it breaks of itself on the way is its own loss.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod asking;
#[cfg(target_os = "none")]
mod calls;
#[cfg(target_os = "none")]
mod execute;
#[cfg(target_os = "none")]
mod found;
#[cfg(target_os = "none")]
mod instructions;
#[cfg(target_os = "none")]
mod layout;
#[cfg(target_os = "none")]
mod memory;
#[cfg(target_os = "none")]
mod random;
#[cfg(target_os = "none")]
mod second;
#[cfg(target_os = "none")]
mod sharing;
#[cfg(target_os = "none")]
mod stamp;
#[cfg(target_os = "none")]
mod tables;

#[cfg(target_os = "none")]
mod guest {
    use core::fmt::{self, Write};

    use guest_kit::machine::Machine;
    use guest_kit::vectors::has_vectors;
    use guest_kit::{println, sbi};

    use crate::calls::{self, Buffers};
    use crate::execute::Paging;
    use crate::found::{self, Finding};
    use crate::instructions::{self, Diet};
    use crate::layout::Layout;
    use crate::random::Random;
    use crate::second::{self, Task};
    use crate::{asking, memory, stamp, tables};

    /// What a guest does.
    #[derive(Clone, Copy, Debug)]
    enum Kind {
        /// Executes any instructions, without translation of its own.
        Instructions,
        /// The same under random page tables, which the second hart goes on writing.
        Tables,
        /// Makes SBI calls with random arguments, on both harts.
        Calls,
        /// Accesses device registers and what is next to them by every instruction that reaches memory.
        Devices,
        /// Accesses devices while the second hart rewrites the instruction, or moves its page.
        Rewriting,
        /// Makes SBI calls whose buffers are its own page tables, while the second hart writes those.
        Buffers,
    }

    const KINDS: [Kind; 6] = [
        Kind::Instructions,
        Kind::Tables,
        Kind::Calls,
        Kind::Devices,
        Kind::Rewriting,
        Kind::Buffers,
    ];

    /// Steps of a guest: instructions executed, or calls made.
    const STEPS: u32 = 50;

    #[unsafe(no_mangle)]
    extern "C" fn guest_main(hart: u64, device_tree: *const u8) -> ! {
        // SAFETY: the firmware passed it in a1.
        let machine = unsafe { Machine::from_device_tree(device_tree) };
        let Some(machine) = machine.filter(|_| hart == 0) else {
            println!("found hart number {hart}, or no device tree");
            sbi::shutdown(true);
        };
        let seed = machine.seed.unwrap_or(0);
        let mut random = Random::new(seed);
        let kind = KINDS[random.below(KINDS.len() as u64) as usize];
        let layout = Layout::new(&machine, device_tree as u64);
        match look(&machine, &layout, &mut random) {
            // The host sees this line only if it serves the second hart's bytes while it gives their pages memory, and a
            // buffer that begins in one of its slots and ends in another.
            Ok(()) => {
                asking::say(&machine, &layout, &mut random);
                across(
                    &layout,
                    &mut random,
                    format_args!(" so far; {kind:?}, seed {seed}\n"),
                );
            }
            Err(finding) => {
                println!("found {finding}; {kind:?}, seed {seed}");
                sbi::shutdown(true);
            }
        }
        memory::stamp(&layout, seed, &mut random);
        stamp::devices(seed);
        stamp::registers(seed);
        if has_vectors(&machine) {
            stamp::vectors(seed);
        }
        act(kind, &machine, &layout, &mut random);
        if seed.is_multiple_of(32) {
            // The host has to end it.
            stamp::registers(seed);
            loop {
                core::hint::spin_loop();
            }
        }
        stamp::leave(seed);
    }

    /// Prints a line's end that lies across the seam, of which less is before that than says `so far`.
    fn across(layout: &Layout, random: &mut Random, line: fmt::Arguments<'_>) {
        const LONGEST: u64 = 128;
        let start = layout.seam - 1 - random.below(4);
        let mut line_in_memory = memory::Text::new(start..start + LONGEST);
        // It fits.
        let _ = line_in_memory.write_fmt(line);
        let written = sbi::console_write(line_in_memory.len(), start);
        if (written.error, written.value as u64) != (0, line_in_memory.len()) {
            println!("found that a buffer across two slots is not written: {written:?}");
        }
    }

    /// Looks for what another guest or the host may have left.
    fn look(machine: &Machine, layout: &Layout, random: &mut Random) -> Result<(), Finding> {
        found::hart(machine, 0, layout.device_tree)?;
        if has_vectors(machine) {
            found::vectors(0)?;
        }
        found::devices()?;
        if machine.harts > 1 {
            second::look(machine, layout, random)?;
        }
        memory::look(layout, random)
    }

    fn act(kind: Kind, machine: &Machine, layout: &Layout, random: &mut Random) {
        let task = match kind {
            Kind::Instructions | Kind::Calls | Kind::Devices => Task::Calls,
            Kind::Tables | Kind::Buffers => Task::Tables,
            Kind::Rewriting => Task::Rewrite,
        };
        second::set(task, random.next());
        // A few guests take the risk of ending at once.
        let reckless = random.one_in(8);
        let diet = match kind {
            Kind::Devices => Diet::Devices,
            Kind::Rewriting => Diet::Rewritten,
            _ => Diet::Anything,
        };
        for _ in 0..STEPS {
            match kind {
                Kind::Instructions | Kind::Devices => {
                    instructions::step(machine, layout, random, diet, &Paging::BARE, reckless);
                }
                Kind::Rewriting => {
                    let paging = tables::changing_page(layout, random);
                    instructions::step(machine, layout, random, diet, &paging, reckless);
                }
                Kind::Tables => {
                    let paging = tables::grow(layout, random, reckless);
                    instructions::step(machine, layout, random, diet, &paging, reckless);
                }
                Kind::Calls => calls::step(layout, random, Buffers::Anywhere, reckless),
                Kind::Buffers => {
                    let paging = tables::grow(layout, random, false);
                    paging.switch_on();
                    calls::step(layout, random, Buffers::Tables, reckless);
                    Paging::BARE.switch_on();
                }
            }
        }
    }
}

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is a guest: `cargo xtask run hostile`");
}
