//! Privilege, modes, and which translations a hart keeps.

use super::*;
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_SSE};
use crate::translate::entry::{PBMT_SHIFT, V};
use std::vec::Vec;

pub(super) fn lazy<'a>(guest: &ModelGuest<'a>) -> ModelHart<'a> {
    guest.hart_of(Machine {
        translations: Translations::Lazy,
        ..Machine::new()
    })
}

#[test]
fn r2_r3_spvp_chooses_the_privilege_and_vsstatus_sum_counts() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let kernel = PAGE + 0x1000;
    guest.map(Gva::new(kernel), frame(0x1000), R).unwrap();
    let hart = guest.hart();
    let reads = || [PAGE, kernel].map(|at| hart.hlv(at, Width::Byte).is_ok());
    assert_eq!(reads(), [true, false]);
    hart.set_register(Register::Hstatus, HSTATUS_SPVP);
    assert_eq!(reads(), [false, true]);
    hart.set_register(Register::Sstatus, STATUS_SUM);
    assert_eq!(reads(), [false, true]);
    hart.set_register(Register::Vsstatus, STATUS_SUM);
    assert_eq!(reads(), [true, true]);
    assert!(
        hart.parcel(PAGE).is_ok(),
        "hlvx obeys SUM as a load does (R7)"
    );
}

#[test]
fn r4_mxr_of_the_guest_counts_at_the_vs_stage_only() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.map(Gva::new(PAGE), FRAME, X | U).unwrap();
    let hart = guest.hart();
    let cause = || hart.hlv(PAGE, Width::Byte).err().map(|trap| trap.scause);
    assert_eq!(cause(), Some(13));
    hart.set_register(Register::Vsstatus, STATUS_MXR);
    assert_eq!(cause(), None);
    guest.back(FRAME, guest.spa(FRAME).unwrap(), X).unwrap();
    assert_eq!(cause(), Some(21));
    hart.set_register(Register::Sstatus, STATUS_MXR);
    hart.set_register(Register::Vsstatus, 0);
    assert_eq!(cause(), None);
}

#[test]
fn every_pair_of_modes_translates() {
    for vs in [VsMode::Sv39, VsMode::Sv48, VsMode::Sv57] {
        for g in [GMode::Sv39x4, GMode::Sv48x4, GMode::Sv57x4] {
            let memory = RamArray::<32>::new();
            let guest = ModelGuest::with_modes(memory.at(RAM_BASE), vs, g).unwrap();
            guest.map(Gva::new(PAGE), FRAME, RWXU).unwrap();
            let hart = guest.hart();
            hart.hsv(PAGE, Width::Word, 0xabcd_ef01).unwrap();
            hart.reset_counts();
            assert_eq!(hart.hlv(PAGE, Width::Word), Ok(0xabcd_ef01));
            let (vs, g) = (vs.levels() as u64, g.levels() as u64);
            assert_eq!(hart.counts().entries_read, vs * (g + 1) + g);
        }
    }
}

#[test]
fn r31_r41_modes_that_do_not_exist_are_not_taken() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    let (vsatp, hgatp) = (guest.vsatp(), guest.hgatp());
    hart.set_register(Register::Vsatp, 15 << 60 | 1);
    assert_eq!(hart.register(Register::Vsatp), vsatp);
    hart.set_register(Register::Hgatp, 15 << 60 | 7);
    assert_eq!(hart.register(Register::Hgatp), hgatp >> 60 << 60 | 4);
}

#[test]
fn r16_r52_what_menvcfg_does_not_grant_is_clear_in_henvcfg_and_does_not_count() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    let shadow_stack = FRAME.value() >> 2 | V | W | U | A | D;
    let non_cacheable = pack(FRAME.value(), RWXU | A | D) | 1 << PBMT_SHIFT;
    for (granted, entry) in [(ENVCFG_SSE, shadow_stack), (ENVCFG_PBMTE, non_cacheable)] {
        guest.set_entry(Gva::new(PAGE), entry).unwrap();
        hart.set_register(Register::Henvcfg, granted);
        for menvcfg in [0, ENVCFG_SSE, ENVCFG_PBMTE] {
            hart.set_register(Register::Menvcfg, menvcfg);
            assert_eq!(hart.register(Register::Henvcfg), granted & menvcfg);
            assert_eq!(hart.hlv(PAGE, Width::Byte).is_ok(), menvcfg == granted);
        }
    }
}

#[test]
fn r55_a_and_d_are_set_if_both_envcfgs_say_so_and_fault_otherwise() {
    for menvcfg in [0, ENVCFG_ADUE] {
        for henvcfg in [0, ENVCFG_ADUE | ENVCFG_PBMTE] {
            let memory = RamArray::<32>::new();
            let guest = guest(&memory);
            guest
                .set_entry(Gva::new(PAGE), pack(FRAME.value(), RWXU))
                .unwrap();
            let hart = guest.hart();
            hart.set_register(Register::Menvcfg, menvcfg);
            hart.set_register(Register::Henvcfg, henvcfg);
            let updates = menvcfg & henvcfg != 0;
            assert_eq!(hart.hsv(PAGE, Width::Byte, 1).is_ok(), updates);
            assert_eq!(hart.counts().entries_updated, u64::from(updates));
            let mut entry = [0; 8];
            guest
                .read(guest.entry(Gva::new(PAGE)).unwrap(), &mut entry)
                .unwrap();
            let set = u64::from_le_bytes(entry) & (A | D);
            assert_eq!(set, if updates { A | D } else { 0 });
        }
    }
}

#[test]
fn r30_a_lazy_hart_keeps_a_guest_mapping_until_a_fence_of_its_vmid() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.write(FRAME, &[1]).unwrap();
    guest.write(frame(0x1000), &[2]).unwrap();
    let hart = lazy(&guest);
    let read = || hart.hlv(PAGE, Width::Byte).unwrap();
    assert_eq!(read(), 1);
    guest.map(Gva::new(PAGE), frame(0x1000), RWXU).unwrap();
    assert_eq!(read(), 1);
    // None of these drops it: another page, the other stage, another VMID.
    hart.hfence_vvma(Some(PAGE + 0x1000));
    hart.hfence_gvma(None);
    let hgatp = hart.register(Register::Hgatp);
    hart.set_register(Register::Hgatp, hgatp ^ 2 << 44);
    hart.hfence_vvma(None);
    hart.set_register(Register::Hgatp, hgatp);
    assert_eq!(read(), 1);
    hart.hfence_vvma(Some(PAGE + 0x123));
    assert_eq!(read(), 2);
}

#[test]
fn r45_a_vcpu_that_comes_back_owes_a_fence_for_what_it_fenced_elsewhere() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.write(FRAME, &[1]).unwrap();
    guest.write(frame(0x1000), &[2]).unwrap();
    let (here, there) = (lazy(&guest), lazy(&guest));
    let read = |hart: &ModelHart<'_>| hart.hlv(PAGE, Width::Byte).unwrap();
    assert_eq!((read(&here), read(&there)), (1, 1));
    // The guest edits its table and fences while its vCPU is on the other hart.
    guest.map(Gva::new(PAGE), frame(0x1000), RWXU).unwrap();
    there.hfence_vvma(Some(PAGE));
    assert_eq!((read(&here), read(&there)), (1, 2));
    here.hfence_vvma(None);
    assert_eq!(read(&here), 2);
}

#[test]
fn r38_a_lazy_hart_keeps_a_host_mapping_until_hfence_gvma() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.write(FRAME, &[1]).unwrap();
    let hart = lazy(&guest);
    let read = || hart.hlv(PAGE, Width::Byte);
    assert_eq!(read(), Ok(1));
    guest.unback(FRAME).unwrap();
    hart.hfence_vvma(None);
    hart.hfence_gvma(Some(FRAME.value() + 0x1000));
    assert_eq!(read(), Ok(1), "still the page that was taken away");
    hart.hfence_gvma(Some(FRAME.value()));
    assert_eq!(read().unwrap_err().scause, 21);
    // A refusal is not kept.
    guest.back(FRAME, guest.spa(FRAME).unwrap(), R).unwrap();
    assert_eq!(read(), Ok(1));
    // Rights that grew without a fence still fault.
    guest.back(FRAME, guest.spa(FRAME).unwrap(), R | W).unwrap();
    assert_eq!(hart.hsv(PAGE, Width::Byte, 3).unwrap_err().scause, 23);
    hart.hfence_gvma(None);
    assert_eq!(hart.hsv(PAGE, Width::Byte, 3), Ok(()));
}

#[test]
fn r28_r33_bare_and_back_needs_no_fence_on_a_lazy_hart() {
    let memory = RamArray::<32>::new();
    let (guest, first, second) = two_spaces(&memory);
    let hart = lazy(&guest);
    let values = alternate(&guest, &hart, FRAME.value());
    assert_eq!(values, [second, first, first, second]);
    assert_eq!(hart.counts().fences(), 0);
}

#[test]
fn r34_a_stale_hart_serves_the_last_space_until_a_fence() {
    let memory = RamArray::<32>::new();
    let (guest, first, second) = two_spaces(&memory);
    let hart = guest.hart_of(Machine {
        quirks: Quirks {
            stale_vsatp: true,
            ..Quirks::default()
        },
        ..Machine::new()
    });
    let values = alternate(&guest, &hart, FRAME.value());
    assert_eq!(values, [second, second, first, first]);
    hart.enter_and_exit_guest();
    assert_eq!(hart.hlv(FRAME.value(), Width::Byte), Ok(second));
    // Also across VMs (R34) and privileges (R62).
    hart.set_register(Register::Hgatp, guest.hgatp() ^ 3 << 44);
    hart.set_register(Register::Hstatus, HSTATUS_SPVP);
    guest.unback(frame(0x1000)).unwrap();
    assert_eq!(hart.hlv(FRAME.value(), Width::Byte), Ok(second));
    hart.hfence_vvma(Some(0));
    hart.set_register(Register::Hstatus, 0);
    assert!(hart.hlv(FRAME.value(), Width::Byte).is_err());
}

/// A guest in which the number of [`FRAME`] means one page as a virtual and another as a physical address: the byte of the
/// physical one and that of the virtual one.
fn two_spaces(memory: &RamArray<32>) -> (ModelGuest<'_>, u64, u64) {
    let guest = guest(memory);
    let virtual_page = Gva::new(FRAME.value());
    guest.map(virtual_page, frame(0x1000), RWXU).unwrap();
    guest.write(FRAME, &[0x11]).unwrap();
    guest.write(frame(0x1000), &[0x22]).unwrap();
    (guest, 0x11, 0x22)
}

/// The measurement of R34: virtual, physical, fence if the hart is stale, physical, virtual.
fn alternate(guest: &ModelGuest<'_>, hart: &ModelHart<'_>, address: u64) -> Vec<u64> {
    let mut values = Vec::new();
    let vsatp = guest.vsatp();
    let mut read = |vsatp| {
        // SAFETY: the model's CSRs are the test's.
        unsafe { hart.swap_csr(Csr::Vsatp, vsatp) };
        values.push(hart.hlv(address, Width::Byte).unwrap());
    };
    read(vsatp);
    read(0);
    if hart.machine().quirks.stale_vsatp {
        hart.hfence_vvma(None);
    }
    read(0);
    read(vsatp);
    values
}

/// A small deterministic source of choices.
pub(super) struct Choices(pub u64);

impl Choices {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

/// The walk and a lazy hart see the same when each edit of a leaf is followed by the one fence that it needs, of one page.
#[test]
fn r37_r38_r40_one_fence_of_one_page_after_each_edit_is_enough() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let walking = guest.hart();
    let lazy = guest.hart_of(Machine {
        translations: Translations::Lazy,
        keeps_refusals: true,
        ..Machine::new()
    });
    for page in 0..4 {
        guest
            .write(frame(page * 0x1000), &[page as u8 + 1; 2])
            .unwrap();
    }
    let mut choices = Choices(0x9e37_79b9_7f4a_7c15);
    for _ in 0..if cfg!(miri) { 20 } else { 4000 } {
        let (page, target) = (choices.below(4) * 0x1000, choices.below(4) * 0x1000);
        let mut bits = choices.below(256);
        if choices.below(2) == 0 {
            bits |= RWXU | A | D;
        }
        if choices.below(2) == 0 {
            let gva = PAGE + page;
            let entry = pack(FRAME.value() + target, bits) & !u64::from(choices.below(8) == 0);
            guest.set_entry(Gva::new(gva), entry).unwrap();
            lazy.hfence_vvma(Some(gva + choices.below(0x1000)));
        } else {
            let gpa = frame(page);
            let spa = guest.spa(frame(target)).unwrap();
            guest.set_g_entry(gpa, pack(spa.value(), bits)).unwrap();
            lazy.hfence_gvma(Some(gpa.value() + choices.below(0x1000)));
        }
        for _ in 0..3 {
            let hstatus = choices.below(2) * HSTATUS_SPVP;
            let vsstatus =
                [0, STATUS_SUM, STATUS_MXR, STATUS_SUM | STATUS_MXR][choices.below(4) as usize];
            let address = PAGE + choices.below(4) * 0x1000;
            let kind = choices.below(3);
            let [expected, found] = [&walking, &lazy].map(|hart| {
                hart.set_register(Register::Hstatus, hstatus);
                hart.set_register(Register::Vsstatus, vsstatus);
                match kind {
                    0 => hart.hlv(address, Width::Byte),
                    1 => hart.parcel(address).map(u64::from),
                    // The high half, so that the pages stay recognizable.
                    _ => hart.hsv(address + 0x800, Width::Byte, 1).map(|()| 0),
                }
            });
            assert_eq!(found, expected);
        }
    }
    let counts = lazy.counts();
    assert!(counts.faults > 0 && counts.faults < counts.accesses());
    if !cfg!(miri) {
        assert!(counts.entries_read < walking.counts().entries_read / 2);
    }
}

/// R46: an entry that was not valid may be remembered as such until a fence.
#[test]
fn r46_a_hart_that_keeps_refusals_faults_once_more_on_what_became_valid() {
    for keeps_refusals in [false, true] {
        let memory = RamArray::<32>::new();
        let guest = guest(&memory);
        let hart = guest.hart_of(Machine {
            translations: Translations::Lazy,
            keeps_refusals,
            ..Machine::new()
        });
        let next = PAGE + 0x1000;
        let cause = || hart.hlv(next, Width::Byte).err().map(|trap| trap.scause);
        guest.unback(frame(0x1000)).unwrap();
        assert_eq!(cause(), Some(13));
        guest.map(Gva::new(next), frame(0x1000), RWXU).unwrap();
        if keeps_refusals {
            assert_eq!(cause(), Some(13));
            hart.hfence_gvma(None);
            assert_eq!(cause(), Some(13));
            hart.hfence_vvma(Some(next));
        }
        assert_eq!(cause(), Some(21));
        guest
            .back(frame(0x1000), guest.spa(FRAME).unwrap(), R)
            .unwrap();
        if keeps_refusals {
            hart.hfence_vvma(None);
            assert_eq!(cause(), Some(21));
            hart.hfence_gvma(Some(FRAME.value() + 0x1000));
        }
        assert_eq!(cause(), None);
    }
}

/// Without the fence, a lazy hart may only be behind: it sees what is there, or what was there.
#[test]
fn r46_an_edit_without_a_fence_shows_the_old_page_or_the_new_one() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    guest.write(FRAME, &[1]).unwrap();
    guest.write(frame(0x1000), &[2]).unwrap();
    let hart = lazy(&guest);
    let toggle = Cell::new(false);
    let mut old_seen = 0;
    for step in 0..50 {
        toggle.set(!toggle.get());
        let target = if toggle.get() { FRAME } else { frame(0x1000) };
        guest.map(Gva::new(PAGE), target, RWXU).unwrap();
        if step % 7 == 0 {
            hart.hfence_vvma(Some(PAGE));
        }
        let value = hart.hlv(PAGE, Width::Byte).unwrap();
        assert!(value == 1 || value == 2);
        old_seen += u64::from((value == 1) != toggle.get());
    }
    assert!(old_seen > 0);
}

#[test]
fn counters_tell_reads_writes_and_fences() {
    let memory = RamArray::<32>::new();
    let guest = guest(&memory);
    let hart = guest.hart();
    hart.read_csr(Csr::Hgatp);
    // SAFETY: the model's CSRs are the test's.
    unsafe {
        let old = hart.set_csr_bits(Csr::Vsstatus, STATUS_SUM);
        assert_eq!(old, 0);
        assert_eq!(hart.clear_csr_bits(Csr::Vsstatus, STATUS_SUM), STATUS_SUM);
    }
    hart.fence_i();
    hart.hfence_vvma(None);
    hart.hfence_gvma(None);
    hart.parcel(PAGE).unwrap();
    let counts = hart.counts();
    assert_eq!((counts.csr_reads, counts.csr_writes), (1, 2));
    assert_eq!((counts.fence_i, counts.fences()), (1, 2));
    assert_eq!((counts.fetches, counts.accesses()), (1, 1));
    hart.reset_counts();
    assert_eq!(hart.counts(), Counts::default());
}
