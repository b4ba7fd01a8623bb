//! A window that stays open: the same answers, nothing borrowed or put back in between, everything put back at its end.

use super::*;

/// All that a window borrows and a fault overwrites, for harts that put the exit record back.
const REGISTERS: [Register; 8] = [
    Register::Sstatus,
    Register::Hstatus,
    Register::Hgatp,
    Register::Vsatp,
    Register::Vsstatus,
    Register::Sepc,
    Register::Scause,
    Register::Stval,
];

#[test]
fn r26_i2_an_open_window_borrows_once_and_puts_everything_back_also_after_faults() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hole = Gva::new(0x30_0000);
    for status in [
        0,
        STATUS_SIE,
        STATUS_MXR | STATUS_SDT,
        STATUS_SIE | STATUS_MXR,
    ] {
        for (privilege, spvp) in [(USER, HSTATUS_SPVP), (SUPERVISOR, 0), (USER, 0)] {
            let hart = guest.hart_of(Machine {
                recovery: Recovery::ScopedStvec,
                ..Machine::new()
            });
            hart.set_register(Register::Sstatus, status);
            hart.set_register(Register::Hstatus, spvp);
            hart.set_register(Register::Vsstatus, STATUS_SUM);
            hart.set_register(Register::Sepc, 0x1234);
            let all = || REGISTERS.map(|register| hart.register(register));
            let before = all();
            let mut vcpu = load(&hart);
            let window = vcpu.open_window(privilege);
            let (inside, written) = (all(), hart.counts().csr_writes);
            assert_eq!(hart.register(Register::Sstatus), 0);
            for round in 0..3u64 {
                window.store(GVA, round, Ordering::Relaxed).unwrap();
                assert_eq!(window.load::<u64>(GVA, Ordering::Relaxed), Ok(round));
                let error = window.load::<u64>(hole, Ordering::Relaxed).unwrap_err();
                assert_eq!((error.completed, error.fault.gva), (0, Some(hole)));
                let error = window.write(hole, &[1; 20]).unwrap_err();
                assert_eq!((error.completed, error.fault.kind), (0, FaultKind::Page));
                assert!(window.fill(hole, 1, 4).is_err());
                assert_eq!(all(), inside);
            }
            assert_eq!(hart.counts().csr_writes, written);
            drop(window);
            assert_eq!(all(), before);
            assert_eq!(vcpu.guest_virtual(privilege).read(GVA, &mut [0; 8]), Ok(()));
        }
    }
}

#[test]
fn an_open_window_answers_as_the_space_does() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let bytes = virtual_bytes(&guest);
    let hart = guest.hart();
    let mut vcpu = load(&hart);
    let page = 4096u64;
    let at = |offset: u64| Gva::new(GVA.value() + offset);
    // In one page, over several, into the hole behind the last, of no bytes, past the top of the space.
    for (from, len) in [
        (at(3), 100),
        (at(page - 5), 8192),
        (at(4 * page - 7), 20),
        (at(0), 0),
        (Gva::new(u64::MAX - 3), 8),
    ] {
        let mut expected = vec![0xaa; len];
        let mut found = expected.clone();
        let by_space = vcpu.guest_virtual(USER).read(from, &mut expected);
        let by_window = vcpu.open_window(USER).read(from, &mut found);
        assert_eq!((by_window, &found), (by_space, &expected), "{from}+{len}");
    }
    {
        let window = vcpu.open_window(USER);
        assert_eq!(
            window.read_obj::<[u8; 3]>(at(page)).unwrap(),
            bytes[4096..4099]
        );
        window.write(at(2 * page - 2), &[1, 2, 3, 4]).unwrap();
        window.fill(at(3 * page - 1), 9, 2).unwrap();
        let misaligned = window.load::<u32>(at(2), Ordering::Relaxed).unwrap_err();
        assert_eq!(misaligned.fault.kind, FaultKind::Misaligned);
        let exchange = window.compare_exchange(at(0), 0u64, 1, Ordering::SeqCst);
        let kind = exchange.unwrap_err().fault.kind;
        assert_eq!(kind, FaultKind::AtomicUnavailable);
    }
    let now = virtual_bytes(&guest);
    assert_eq!(now[8190..8194], [1, 2, 3, 4]);
    assert_eq!(now[12287..12289], [9, 9]);
}

#[test]
fn an_open_window_lets_interrupts_in_between_two_pages_and_when_it_is_told_to() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    hart.set_register(Register::Sstatus, STATUS_SIE);
    let mut vcpu = load(&hart);
    let mut window = vcpu.open_window(USER);
    let closed_and_opened = |written: u64| hart.counts().csr_writes - written;
    let written = hart.counts().csr_writes;
    window.read(GVA, &mut [0; 4096]).unwrap();
    assert_eq!(closed_and_opened(written), 0);
    // Two writes each: SIE on and off again.
    window.read(GVA, &mut [0; 3 * 4096]).unwrap();
    assert_eq!(closed_and_opened(written), 4);
    window.let_interrupts_in();
    assert_eq!(closed_and_opened(written), 6);
    assert_eq!(hart.register(Register::Sstatus) & STATUS_SIE, 0);
    drop(window);
    assert_eq!(hart.register(Register::Sstatus) & STATUS_SIE, STATUS_SIE);
}

#[test]
fn r12_r9_an_open_window_refuses_what_the_space_refuses_without_an_access() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    for (register, value, kind) in [
        (Register::Hgatp, 0, FaultKind::GStageBare),
        (Register::Vsstatus, STATUS_UBE, FaultKind::UnsupportedRegime),
        (
            Register::Hstatus,
            HSTATUS_VSBE,
            FaultKind::UnsupportedRegime,
        ),
    ] {
        let hart = guest.hart();
        hart.set_register(register, value);
        let mut vcpu = load(&hart);
        let window = vcpu.open_window(USER);
        let kinds = [
            window
                .read(GVA, &mut [0; 8])
                .map_err(|error| error.fault.kind),
            window.write(GVA, &[0; 8]).map_err(|error| error.fault.kind),
            window
                .store(GVA, 0u8, Ordering::Relaxed)
                .map_err(|error| error.fault.kind),
        ];
        assert_eq!(kinds, [Err(kind); 3]);
        assert_eq!(hart.counts().accesses(), 0);
    }
}

/// The CSR writes that an access makes at most, each of which flushes the pipeline of a real core.
#[test]
fn an_access_writes_a_csr_four_times_at_most_and_never_one_that_is_right() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    // sstatus and SPVP as found; writes of a guest-virtual access at USER, and of a guest-physical one.
    for (status, spvp, gva, gpa_writes) in [
        (0, 0, 0, 2),
        (STATUS_SIE, 0, 2, 4),
        (0, HSTATUS_SPVP, 2, 2),
        (STATUS_SIE | STATUS_MXR, HSTATUS_SPVP, 4, 4),
    ] {
        let hart = guest.hart();
        hart.set_register(Register::Sstatus, status);
        hart.set_register(Register::Hstatus, spvp);
        let vcpu = load(&hart);
        let writes = |access: &dyn Fn()| {
            let before = hart.counts().csr_writes;
            access();
            hart.counts().csr_writes - before
        };
        let (by_gva, by_gpa) = (vcpu.guest_virtual(USER), vcpu.guest_physical());
        let found = [
            writes(&|| by_gva.read(GVA, &mut [0; 100]).unwrap()),
            writes(&|| by_gva.write(GVA, &[0; 100]).unwrap()),
            writes(&|| by_gva.fill(GVA, 0, 100).unwrap()),
            writes(&|| assert!(by_gva.load::<u64>(GVA, Ordering::Relaxed).is_ok())),
            writes(&|| by_gva.store(GVA, 0u8, Ordering::Relaxed).unwrap()),
            writes(&|| assert!(vcpu.fetch_instruction(GVA, USER).is_err())),
        ];
        assert_eq!(found, [gva; 6], "status {status:#x}, SPVP {spvp:#x}");
        let found = [
            writes(&|| by_gpa.read(gpa(1), &mut [0; 100]).unwrap()),
            writes(&|| by_gpa.write(gpa(1), &[0; 100]).unwrap()),
            writes(&|| assert!(by_gpa.load::<u64>(gpa(1), Ordering::Relaxed).is_ok())),
            writes(&|| by_gpa.store(gpa(1), 0u8, Ordering::Relaxed).unwrap()),
        ];
        assert_eq!(found, [gpa_writes; 4], "status {status:#x}, SPVP {spvp:#x}");
    }
}

#[test]
#[should_panic(expected = "`LoadedVcpu::new` promises one token a hart (I15)")]
fn i15_the_model_names_the_promise_that_two_tokens_break() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RW);
    let hart = guest.hart();
    let mut kernel = load(&hart);
    let _window = kernel.open_window(SUPERVISOR);
    let mut user = load(&hart);
    // These pages are the supervisor's: the window of the other token would read them.
    let window = user.open_window(USER);
    assert!(window.read(GVA, &mut [0]).is_err());
}

#[test]
fn i15_a_hart_has_one_token_after_another() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let (hart, other) = (guest.hart(), guest.hart());
    for _ in 0..2 {
        let vcpu = load(&hart);
        // Another hart has its own.
        let beside = load(&other);
        assert_eq!(vcpu.guest_virtual(USER).read(GVA, &mut [0]), Ok(()));
        assert_eq!(beside.guest_virtual(USER).read(GVA, &mut [0]), Ok(()));
    }
}
