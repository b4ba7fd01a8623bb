//! The library's copies: every size and alignment, and exactly how far a fault let them get (R10, R11, invariant 4).

use guest_mem::hart::Hart;
use guest_mem::{FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};

use crate::harness::{Outcome, Test, act_as_supervisor, cases, check, one_in};
use crate::library::{in_both_forms, loaded};
use crate::tables::bits::{A, D, R, SUPERVISOR, USER, V};
use crate::tables::{Page, World};
use crate::{arena, boot, csr, storm, trap};

cases![
    r10_copies_of_every_size_and_alignment_move_exactly_their_bytes,
    r10_fills_of_every_size_and_alignment_set_exactly_their_bytes,
    r11_a_fault_on_the_second_page_reports_the_first_page_copied,
    r11_a_copy_of_nothing_touches_nothing,
    r11_a_fault_at_any_offset_of_a_batch_is_exact,
    r26_i2_interrupts_during_copies_find_nothing_borrowed,
    a_length_of_zero_touches_nothing,
];

const GVA: u64 = 0x20_1000;
const PAGE: u64 = 4096;

/// Bytes around a copy that have to stay as they are.
const CANARY: usize = 16;
const UNTOUCHED: u8 = 0xee;

const fn pattern(at: usize) -> u8 {
    (at as u8).wrapping_mul(37).wrapping_add(11)
}

/// Two adjacent pages of a loaded guest; the second has the given flags.
fn two_pages(vs_flags: u64, g_flags: u64) -> (World, [Page; 2]) {
    let (mut world, first) = World::with_page(GVA, SUPERVISOR, USER);
    let second = world.page(g_flags);
    world.map(GVA + PAGE, second.gpa, vs_flags, 0);
    world.fence();
    act_as_supervisor(false);
    (world, [first, second])
}

/// Where the byte at offset `at` of the two pages is.
fn spa(pages: &[Page; 2], at: u64) -> u64 {
    pages[(at / PAGE) as usize].spa + at % PAGE
}

fn supervisor<'v, 'h, H: Hart>(
    vcpu: &'v LoadedVcpu<'h, H>,
) -> impl GuestMemory<Address = Gva> + use<'v, 'h, H> {
    vcpu.guest_virtual(GuestPrivilege::Supervisor)
}

fn r10_copies_of_every_size_and_alignment_move_exactly_their_bytes(t: &mut Test) -> Outcome {
    fn body<H: Hart>(_: &mut Test, hart: &H) -> Outcome {
        let (_world, pages) = two_pages(SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = supervisor(&vcpu);
        let mut host = [0u8; 8 + 300 + 2 * CANARY];
        for len in (0..40)
            .chain([63, 64, 65, 100, 127, 128, 129, 200, 255, 256, 257, 299, 300])
            .step_by(one_in(7))
        {
            for alignment in (0..64).step_by(one_in(19)) {
                let (from, to) = (alignment % 8, alignment / 8);
                // Across the page boundary, so that both pages are part of longer ones.
                let at = PAGE - 152 + from as u64;
                for byte in 0..len {
                    arena::write_bytes(spa(&pages, at + byte as u64), [pattern(byte)]);
                }
                host.fill(UNTOUCHED);
                let start = CANARY + to;
                let read = guest.read(Gva::new(GVA + at), &mut host[start..start + len]);
                check!(read.is_ok(), "read of {len} at {from}, {to}: {read:?}");
                for (index, &byte) in host.iter().enumerate() {
                    let inside = (start..start + len).contains(&index);
                    let expected = if inside {
                        pattern(index - start)
                    } else {
                        UNTOUCHED
                    };
                    check!(
                        byte == expected,
                        "read of {len} at {from}, {to}: byte {index} is {byte:#x}"
                    );
                }
            }
        }
        for len in (0..40)
            .chain([64, 65, 127, 128, 129, 200, 257, 300])
            .step_by(one_in(7))
        {
            for alignment in (0..64).step_by(one_in(19)) {
                let (from, to) = (alignment % 8, alignment / 8);
                let at = PAGE - 152 + to as u64;
                let window = at - CANARY as u64..at + (len + CANARY) as u64;
                for byte in window.clone() {
                    arena::write_bytes(spa(&pages, byte), [UNTOUCHED]);
                }
                let source: [u8; 308] =
                    core::array::from_fn(|byte| pattern(byte.wrapping_sub(from)));
                let write = guest.write(Gva::new(GVA + at), &source[from..from + len]);
                check!(write.is_ok(), "write of {len} at {from}, {to}: {write:?}");
                for byte in window {
                    let inside = (at..at + len as u64).contains(&byte);
                    let expected = if inside {
                        pattern((byte - at) as usize)
                    } else {
                        UNTOUCHED
                    };
                    let found = arena::read_byte(spa(&pages, byte));
                    check!(
                        found == expected,
                        "write of {len} at {from}, {to}: byte {byte:#x} is {found:#x}"
                    );
                }
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r10_fills_of_every_size_and_alignment_set_exactly_their_bytes(t: &mut Test) -> Outcome {
    fn body<H: Hart>(_: &mut Test, hart: &H) -> Outcome {
        let (_world, pages) = two_pages(SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = supervisor(&vcpu);
        for len in (0..40).chain([64, 100, 300]).step_by(one_in(7)) {
            for from in 0..8 {
                let at = PAGE - 150 + from;
                let window = at - CANARY as u64..at + (len + CANARY) as u64;
                for byte in window.clone() {
                    arena::write_bytes(spa(&pages, byte), [UNTOUCHED]);
                }
                let fill = guest.fill(Gva::new(GVA + at), 0x5a, len);
                check!(fill.is_ok(), "fill of {len} at {from}: {fill:?}");
                for byte in window {
                    let inside = (at..at + len as u64).contains(&byte);
                    let found = arena::read_byte(spa(&pages, byte));
                    let expected = if inside { 0x5a } else { UNTOUCHED };
                    check!(
                        found == expected,
                        "fill of {len} at {from}: byte {byte:#x} is {found:#x}"
                    );
                }
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r11_a_fault_on_the_second_page_reports_the_first_page_copied(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, pages) = two_pages(V | R | A | D, 0);
        let vcpu = loaded(hart);
        let mut buffer = [UNTOUCHED; 4096 + 64];
        let read = supervisor(&vcpu).read(Gva::new(GVA), &mut buffer);
        let Err(error) = read else {
            crate::harness::fail!("the read went through");
        };
        t.equal("completed", error.completed, 4096)?;
        t.equal("GVA", error.fault.gva, Some(Gva::new(GVA + PAGE)))?;
        t.equal("GPA", error.fault.gpa, Some(Gpa::new(pages[1].gpa)))?;
        check!(
            buffer[..4096].iter().all(|&byte| byte == 0),
            "the first page is not copied"
        );
        check!(
            buffer[4096..].iter().all(|&byte| byte == UNTOUCHED),
            "more than a page is changed"
        );
        let write = supervisor(&vcpu).write(Gva::new(GVA), &[1; 4096 + 64]);
        let Err(error) = write else {
            crate::harness::fail!("the write went through");
        };
        t.equal("completed", error.completed, 4096)?;
        t.equal("kind", error.fault.kind, FaultKind::Page)
    }
    in_both_forms!(t, body)
}

fn r11_a_copy_of_nothing_touches_nothing(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        // No page is there, and the buffer is not aligned with it either.
        let (_world, _) = two_pages(0, 0);
        act_as_supervisor(true);
        let mut host = [UNTOUCHED; 16];
        for at in 0..8 {
            // SAFETY: no byte of the buffer is accessed; interrupts are off, SPVP is set and the guest's G-stage is on.
            let results = unsafe {
                [
                    hart.copy_from_guest(GVA, host.as_mut_ptr().add(at), 0),
                    hart.copy_to_guest(GVA, host.as_ptr().add(at), 0),
                    hart.fill_guest(GVA + at as u64, 0, 0),
                ]
            };
            check!(results.iter().all(Result::is_ok), "{results:?}");
        }
        t.equal("the buffer", host, [UNTOUCHED; 16])
    }
    in_both_forms!(t, body)
}

fn r11_a_fault_at_any_offset_of_a_batch_is_exact(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        // Within one window a fault comes at a page's start only; so the copy of a hart is asked for directly, across it.
        let (_world, pages) = two_pages(V | R | A | D, 0);
        act_as_supervisor(true);
        for before in (0..=40)
            .chain([63, 64, 65, 120, 127, 128, 136, 200, 255, 256, 264, 300])
            .step_by(one_in(7))
        {
            for host_at in [0, 1, 2, 4] {
                let at = PAGE - before as u64;
                for byte in 0..before {
                    arena::write_bytes(spa(&pages, at + byte as u64), [pattern(byte)]);
                }
                let mut host = [UNTOUCHED; 400];
                let len = before + 50;
                // SAFETY: the buffer holds `len` bytes from `host_at`; interrupts are off, SPVP is set and the guest's
                // G-stage is on, which is what an open window means.
                let read =
                    unsafe { hart.copy_from_guest(GVA + at, host.as_mut_ptr().add(host_at), len) };
                t.equal("stvec", csr::stvec::read(), trap::entry())?;
                let done = read.err().map(|interrupted| interrupted.completed);
                t.equal(
                    format_args!("read, {before} before the page, host at {host_at}"),
                    done,
                    Some(before),
                )?;
                for (index, &byte) in host.iter().enumerate() {
                    let inside = (host_at..host_at + before).contains(&index);
                    let expected = if inside {
                        pattern(index - host_at)
                    } else {
                        UNTOUCHED
                    };
                    check!(
                        byte == expected,
                        "read, {before} before the page: byte {index} is {byte:#x}"
                    );
                }
                let source: [u8; 400] = core::array::from_fn(|byte| pattern(byte) ^ 0xff);
                // SAFETY: as above.
                let write =
                    unsafe { hart.copy_to_guest(GVA + at, source.as_ptr().add(host_at), len) };
                t.equal("stvec", csr::stvec::read(), trap::entry())?;
                let done = write.err().map(|interrupted| interrupted.completed);
                t.equal(
                    format_args!("write, {before} before the page, host at {host_at}"),
                    done,
                    Some(before),
                )?;
                for byte in 0..before {
                    let found = arena::read_byte(spa(&pages, at + byte as u64));
                    check!(
                        found == source[host_at + byte],
                        "write, {before} before the page: byte {byte} is {found:#x}"
                    );
                }
                check!(arena::read(pages[1].spa) == 0, "the second page is written");
                // SAFETY: as above.
                let fill = unsafe { hart.fill_guest(GVA + at, 0x77, len) };
                let done = fill.err().map(|interrupted| interrupted.completed);
                t.equal(
                    format_args!("fill, {before} before the page"),
                    done,
                    Some(before),
                )?;
            }
        }
        Ok(())
    }
    in_both_forms!(t, body)
}

fn r26_i2_interrupts_during_copies_find_nothing_borrowed(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (world, pages) = two_pages(SUPERVISOR, USER);
        let vcpu = loaded(hart);
        let guest = supervisor(&vcpu);
        let physical = vcpu.guest_physical();
        let mut wrong = None;
        let (rounds, interrupts) = if boot::is_small() { (10, 2) } else { (300, 50) };
        let storm = storm::during(2_000, || {
            let mut buffer = [0u8; 3000];
            for round in 0..100_000u32 {
                // Long enough for interrupts to have come at many places.
                if round >= rounds && storm::taken() >= interrupts {
                    break;
                }
                let byte = round as u8;
                let start = Gva::new(GVA + 2000);
                let results = (
                    guest.fill(start, byte, 3000),
                    guest.read(start, &mut buffer),
                    physical.write(Gpa::new(pages[0].gpa), &buffer[..1000]),
                    guest.read(Gva::new(GVA + 2 * PAGE - 8), &mut buffer[..100]),
                );
                let as_expected = matches!(
                    results,
                    (Ok(()), Ok(()), Ok(()), Err(error)) if error.completed == 8
                );
                if !as_expected || buffer[200..].iter().any(|&found| found != byte) {
                    wrong = Some(round);
                }
            }
        });
        t.equal("a round with a wrong result", wrong, None)?;
        check!(
            storm.taken >= interrupts,
            "only {} interrupts were taken",
            storm.taken
        );
        t.equal(
            "interrupts that found vsatp or SPVP borrowed",
            storm.violations,
            0,
        )?;
        t.equal("vsatp", crate::csr::vsatp::read(), world.vsatp)
    }
    in_both_forms!(t, body)
}

fn a_length_of_zero_touches_nothing(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let world = World::sv39();
        world.load();
        let vcpu = loaded(hart);
        for address in [0, GVA, u64::MAX] {
            let guest = supervisor(&vcpu);
            t.equal("read", guest.read(Gva::new(address), &mut []), Ok(()))?;
            t.equal("write", guest.write(Gva::new(address), &[]), Ok(()))?;
            t.equal("fill", guest.fill(Gva::new(address), 1, 0), Ok(()))?;
            let physical = vcpu.guest_physical();
            t.equal(
                "physical read",
                physical.read(Gpa::new(address), &mut []),
                Ok(()),
            )?;
            t.equal(
                "physical write",
                physical.write(Gpa::new(address), &[]),
                Ok(()),
            )?;
        }
        Ok(())
    }
    in_both_forms!(t, body)
}
