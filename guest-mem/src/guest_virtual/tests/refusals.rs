//! Bad requests are refused before anything is accessed.

use super::*;

#[track_caller]
fn refused(result: Result<(), AccessError>, kind: FaultKind) {
    let error = result.unwrap_err();
    assert_eq!(
        (error.completed, error.fault.kind, error.fault.trap),
        (0, kind, None)
    );
    assert_eq!(error.fault.resolution(), Resolution::Refuse);
}

#[test]
fn bad_requests_are_refused_before_anything_is_accessed() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    let mut two = [0; 2];
    let top = Gva::new(u64::MAX);
    refused(space.read(top, &mut two), FaultKind::OutOfRange);
    refused(space.write(top, &two), FaultKind::OutOfRange);
    refused(
        space.fill(Gva::new(2), 0, usize::MAX),
        FaultKind::OutOfRange,
    );
    refused(
        space
            .load::<u32>(Gva::new(GVA.value() + 2), Ordering::Relaxed)
            .map(drop),
        FaultKind::Misaligned,
    );
    refused(
        space.store(Gva::new(GVA.value() + 1), 1u16, Ordering::Relaxed),
        FaultKind::Misaligned,
    );
    refused(
        space
            .compare_exchange(GVA, 1u32, 2, Ordering::SeqCst)
            .map(drop),
        FaultKind::AtomicUnavailable,
    );
    refused(
        vcpu.fetch_instruction(Gva::new(GVA.value() + 1), USER)
            .map(drop),
        FaultKind::Misaligned,
    );

    let space = vcpu.guest_physical();
    let last = Gpa::new((1 << 41) - 1);
    refused(space.read(last, &mut two), FaultKind::OutOfRange);
    for wide in [1 << 41, 1 << 63, u64::MAX, 4096u64.wrapping_neg()] {
        refused(space.read(Gpa::new(wide), &mut two), FaultKind::OutOfRange);
        refused(space.write(Gpa::new(wide), &two), FaultKind::OutOfRange);
        refused(space.fill(Gpa::new(wide), 0, 1), FaultKind::OutOfRange);
    }
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn r13_the_width_of_a_guest_physical_address_is_that_of_the_mode_and_of_masking() {
    for (mode, bits) in [
        (GMode::Sv39x4, 41),
        (GMode::Sv48x4, 48),
        (GMode::Sv57x4, 48),
    ] {
        let memory = RamArray::<64>::new();
        let guest = ModelGuest::with_modes(memory.at(RAM_BASE), VsMode::Sv39, mode).unwrap();
        let hart = guest.hart();
        let vcpu = load(&hart);
        let inside = vcpu
            .guest_physical()
            .read(Gpa::new((1 << bits) - 1), &mut [0])
            .unwrap_err();
        assert!(
            matches!(inside.fault.kind, FaultKind::GuestPage { .. }),
            "{mode:?}"
        );
        refused(
            vcpu.guest_physical().read(Gpa::new(1 << bits), &mut [0]),
            FaultKind::OutOfRange,
        );
    }
}

#[test]
fn r12_without_a_g_stage_nothing_is_accessed() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    hart.set_register(Register::Hgatp, 0);
    let vcpu = load(&hart);
    let mut bytes = [0; 4];
    refused(
        vcpu.guest_virtual(USER).read(GVA, &mut bytes),
        FaultKind::GStageBare,
    );
    refused(
        vcpu.guest_virtual(USER).write(GVA, &bytes),
        FaultKind::GStageBare,
    );
    refused(
        vcpu.guest_virtual(USER)
            .load::<u8>(GVA, Ordering::Relaxed)
            .map(drop),
        FaultKind::GStageBare,
    );
    refused(
        vcpu.guest_physical().read(gpa(1), &mut bytes),
        FaultKind::GStageBare,
    );
    refused(
        vcpu.guest_physical().store(gpa(1), 1u64, Ordering::Relaxed),
        FaultKind::GStageBare,
    );
    refused(
        vcpu.fetch_instruction(GVA, USER).map(drop),
        FaultKind::GStageBare,
    );
    assert_eq!(hart.counts().accesses(), 0);
    // Nothing asked for is nothing refused.
    vcpu.guest_virtual(USER).read(GVA, &mut []).unwrap();
    vcpu.guest_physical().write(gpa(1), &[]).unwrap();
}

#[test]
fn r9_a_big_endian_guest_is_refused() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    hart.set_register(Register::Vsstatus, STATUS_UBE);
    refused(
        load(&hart).guest_virtual(USER).read(GVA, &mut [0]),
        FaultKind::UnsupportedRegime,
    );
    hart.set_register(Register::Vsstatus, 0);
    hart.set_register(Register::Hstatus, HSTATUS_VSBE);
    for privilege in [USER, SUPERVISOR] {
        refused(
            load(&hart).guest_virtual(privilege).read(GVA, &mut [0]),
            FaultKind::UnsupportedRegime,
        );
    }
    refused(
        load(&hart).guest_physical().read(gpa(1), &mut [0]),
        FaultKind::UnsupportedRegime,
    );
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn a_length_of_zero_is_ok_everywhere_and_touches_nothing() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    for number in [0, 1 << 41, u64::MAX] {
        vcpu.guest_virtual(USER)
            .read(Gva::new(number), &mut [])
            .unwrap();
        vcpu.guest_virtual(USER)
            .fill(Gva::new(number), 1, 0)
            .unwrap();
        vcpu.guest_physical().write(Gpa::new(number), &[]).unwrap();
        assert_eq!(
            vcpu.guest_virtual(USER)
                .read_cstr(Gva::new(number), &mut []),
            Ok(None)
        );
    }
    assert_eq!((hart.counts().accesses(), hart.counts().csr_writes), (0, 0));
}
