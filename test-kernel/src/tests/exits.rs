//! Section G: what a guest's trapped access tells, decoded from `htinst` and from fetched bytes, and finished as the hardware
//! would have done it.

use guest_mem::fault::GuestExit;
use guest_mem::hart::riscv64::ScopedStvec;
use guest_mem::instruction::{
    GuestRegisters, Instruction, Register, TrappedAccess, TrappedError, decode_trapped,
};
use guest_mem::probe::MachineProfile;
use guest_mem::{AccessError, AccessKind, Fault, Gpa, GuestPrivilege, Gva, Resolution, TrapInfo};

use crate::arena;
use crate::deviation::Deviation;
use crate::forms::{self, Does, FORMS, Form, STRIDE};
use crate::guest::{Guest, Mode, fence_i};
use crate::harness::{Outcome, Test, cases, check, fail};
use crate::library::{Scoped, loaded, probed};
use crate::oracle::Oracle;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::tables::{Page, World};
use crate::trap::Trap;

cases![
    r58_r66_htinst_is_zero_or_the_transformed_instruction,
    r58_every_form_decodes_alike_from_htinst_and_from_fetched_bytes,
    r58_a_completed_access_leaves_what_the_hardware_leaves,
    r58_a_page_table_access_is_never_emulated,
];

/// The guest's code.
pub(super) const CODE: u64 = 0x20_0000;
/// Two pages of the guest's that are no memory, or memory, as a test says.
pub(super) const DEVICE: u64 = 0x40_0000;
/// Their guest-physical address while they are no memory.
pub(super) const DEVICE_GPA: u64 = 0x1000_0000;
/// What `a1` and `sp` hold: so that every form's offset stays in the two pages.
const BASE: u64 = DEVICE + 0x1000;

impl GuestRegisters for Guest {
    fn read(&self, register: Register) -> u64 {
        self.x[register.index()]
    }
    fn write(&mut self, register: Register, value: u64) {
        self.x[register.index()] = value;
    }
    fn pc(&self) -> u64 {
        self.pc
    }
    fn set_pc(&mut self, pc: u64) {
        self.pc = pc;
    }
}

/// A loaded guest with all forms at `CODE`, and a device that is memory if `memory` is given.
pub(super) fn world(memory: Option<[u64; 2]>) -> (World, Page) {
    let mut world = World::sv39();
    let code = world.page_at(CODE, SUPERVISOR);
    arena::write_bytes(code.spa, forms::code().iter().copied());
    fence_i();
    for page in 0..2 {
        let gpa = DEVICE_GPA + page * 4096;
        world.map(DEVICE + page * 4096, gpa, SUPERVISOR, 0);
        if let Some(pages) = memory {
            world.map_g(gpa, pages[page as usize], USER, 0);
        }
    }
    world.load();
    (world, code)
}

/// The guest in front of the form of this index, every register with a value of its own.
pub(super) fn guest_at(index: usize) -> Guest {
    let mut guest = Guest::at(CODE + (index * STRIDE) as u64);
    for (x, value) in guest.x.iter_mut().enumerate().skip(1) {
        *value = 0x8182_8384_8586_8700 + x as u64;
    }
    guest.x[2] = BASE;
    guest.x[11] = BASE;
    guest
}

/// The fault of a guest that exited by this trap.
pub(super) fn fault_of(guest: &Guest, trap: &TrapInfo, profile: &MachineProfile) -> Fault {
    let exit = GuestExit {
        trap: *trap,
        pc: guest.pc,
        privilege: GuestPrivilege::Supervisor,
        vsatp: crate::csr::vsatp::read(),
    };
    Fault::from_guest_exit(&exit, profile)
}

/// What the library makes of a trap of this guest, on a machine as specified.
pub(super) fn decode(
    guest: &Guest,
    trap: &TrapInfo,
    fetch: impl FnOnce() -> Result<Instruction, AccessError>,
) -> Result<TrappedAccess, TrappedError> {
    let fault = fault_of(guest, trap, &MachineProfile::AS_SPECIFIED);
    decode_trapped(&fault, guest, fetch)
}

fn address(form: &Form) -> u64 {
    BASE.wrapping_add_signed(form.offset)
}

fn is_store(form: &Form) -> bool {
    matches!(
        form.does,
        Does::Store { .. } | Does::Other { store: true, .. }
    )
}

/// Whether the machine does not know the form (Zcb before QEMU 8.0, or where it is off): then there is nothing to see. Where
/// the trap of such a form cannot reach the host, what the host sees is the guest lost at the address of its own vector.
fn is_unknown(t: &mut Test, exit: &Trap) -> bool {
    let lost =
        exit.sepc == crate::guest::exit_address() && t.machine.has(Deviation::RedirectStaysInGuest);
    if lost {
        t.deviates(Deviation::RedirectStaysInGuest);
    }
    lost || exit.info.scause == 2
}

fn r58_r66_htinst_is_zero_or_the_transformed_instruction(t: &mut Test) -> Outcome {
    let (_world, _) = world(None);
    let (mut unknown, mut seen) = (0, 0);
    for (index, form) in FORMS.iter().enumerate() {
        let exit = guest_at(index).run(Mode::Vs);
        if is_unknown(t, &exit) {
            unknown += 1;
            continue;
        }
        let what = format_args!("{}", form.text);
        let cause = if is_store(form) { 23 } else { 21 };
        t.equal(what, exit.info.scause, cause)?;
        t.equal(what, exit.sepc, CODE + (index * STRIDE) as u64)?;
        t.equal(what, exit.info.stval, address(form))?;
        t.equal(what, exit.gpa(), (address(form) - DEVICE + DEVICE_GPA) & !3)?;
        if exit.info.htinst != 0 {
            seen += 1;
            t.equal(what, exit.info.htinst, forms::transformed(index))?;
        }
    }
    check!(
        unknown <= 5,
        "{unknown} forms are unknown to the machine: more than those of Zcb"
    );
    t.holds_or("htinst is always 0", seen > 0, Deviation::NoHtinst)
}

/// What the library says of an exit from a form has to be what the form is.
pub(super) fn decoded_fits(
    t: &Test,
    form: &Form,
    decoded: &Result<TrappedAccess, TrappedError>,
    guest: &Guest,
) -> Outcome {
    let what = format_args!("{}: {decoded:x?}", form.text);
    match (form.does, decoded) {
        (Does::Load { width, .. }, Ok(TrappedAccess::Load(load))) => {
            t.equal(what, load.width(), width)?;
            t.equal(what, load.gva(), Gva::new(address(form)))?;
            t.equal(
                what,
                load.gpa(),
                Some(Gpa::new(address(form) - DEVICE + DEVICE_GPA)),
            )
        }
        (Does::Store { rs2, width }, Ok(TrappedAccess::Store(store))) => {
            t.equal(what, store.width(), width)?;
            t.equal(what, store.gva(), Gva::new(address(form)))?;
            let value = if rs2 == 0 {
                0
            } else {
                guest.x[usize::from(rs2)]
            };
            t.equal(what, store.store_value(guest), value & width.mask())
        }
        (Does::Other { kind, .. }, Err(TrappedError::NotEmulatable(refused))) => {
            t.equal(what, (refused.kind, refused.len as u64), (kind, form.len))
        }
        _ => fail!("{what}"),
    }
}

fn r58_every_form_decodes_alike_from_htinst_and_from_fetched_bytes(t: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    let (_world, _) = world(None);
    for (index, form) in FORMS.iter().enumerate() {
        let mut guest = guest_at(index);
        let exit = guest.run(Mode::Vs);
        // The fetched bytes are those of the form also where the machine does not know it.
        let vcpu = loaded(&hart);
        let pc = Gva::new(CODE + (index * STRIDE) as u64);
        let fetch = || vcpu.fetch_instruction(pc, GuestPrivilege::Supervisor);
        let fetched = fetch().map(|found| (found.bits(), found.length() as u64));
        t.equal(form.text, fetched, Ok((forms::bits(index), form.len)))?;
        let info = if is_unknown(t, &exit) {
            TrapInfo {
                scause: if is_store(form) { 23 } else { 21 },
                stval: address(form),
                htval: (address(form) - DEVICE + DEVICE_GPA) >> 2,
                htinst: 0,
            }
        } else {
            exit.info
        };
        let mut fetches = 0;
        let by_htinst = decode(&guest, &info, || {
            fetches += 1;
            fetch()
        });
        decoded_fits(t, form, &by_htinst, &guest)?;
        t.equal(
            format_args!("{}: fetches", form.text),
            fetches,
            u32::from(info.htinst == 0),
        )?;
        let without = TrapInfo { htinst: 0, ..info };
        decoded_fits(t, form, &decode(&guest, &without, fetch), &guest)?;
        let transformed = TrapInfo {
            htinst: forms::transformed(index),
            ..info
        };
        let no_fetch = || -> Result<_, guest_mem::AccessError> { panic!("htinst suffices") };
        decoded_fits(t, form, &decode(&guest, &transformed, no_fetch), &guest)?;
    }
    Ok(())
}

/// What the device answers.
const ANSWER: u64 = 0xf1e2_d3c4_b5a6_9788;

fn r58_a_completed_access_leaves_what_the_hardware_leaves(t: &mut Test) -> Outcome {
    let (hart, _): (Scoped, _) = probed::<ScopedStvec>()?;
    let mut compared = 0;
    for (index, form) in FORMS.iter().enumerate() {
        // By the hardware: the device is memory that holds the answer wherever the form looks.
        let memory = [arena::page(), arena::page()];
        let spa = memory[0]
            + (address(form) - DEVICE) % 4096
            + if address(form) < BASE {
                0
            } else {
                memory[1] - memory[0]
            };
        arena::write_bytes(spa, ANSWER.to_le_bytes());
        let _by_hardware = world(Some(memory));
        let mut real = guest_at(index);
        let exit = real.run(Mode::Vs);
        if is_unknown(t, &exit) || matches!(form.does, Does::Other { .. }) {
            arena::release_all();
            continue;
        }
        t.equal(form.text, exit.info.scause, 10)?;
        let stored: [u8; 8] = core::array::from_fn(|at| arena::read_byte(spa + at as u64));
        // By the library: the device is none, and its answer is handed over.
        let _by_library = world(None);
        let mut emulated = guest_at(index);
        let exit = emulated.run(Mode::Vs);
        let vcpu = loaded(&hart);
        let pc = Gva::new(emulated.pc);
        let access = decode(&emulated, &exit.info, || {
            vcpu.fetch_instruction(pc, GuestPrivilege::Supervisor)
        });
        let mut device = ANSWER.to_le_bytes();
        match access {
            Ok(TrappedAccess::Load(load)) => load.complete_load(&mut emulated, ANSWER),
            Ok(TrappedAccess::Store(store)) => {
                let value = store.store_value(&emulated).to_le_bytes();
                let width = store.width().bytes();
                device[..width].copy_from_slice(&value[..width]);
                store.complete_store(&mut emulated);
            }
            Ok(TrappedAccess::AcrossPages(_)) => fail!("{}: is in one page", form.text),
            Err(error) => fail!("{}: {error}", form.text),
        }
        let what = format_args!("{}", form.text);
        t.equal(what, emulated.pc, real.pc)?;
        for x in 1..32 {
            t.equal(format_args!("{what}: x{x}"), emulated.x[x], real.x[x])?;
        }
        t.equal(what, device, stored)?;
        compared += 1;
        arena::release_all();
    }
    check!(compared >= 28, "only {compared} forms were compared");
    Ok(())
}

fn r58_a_page_table_access_is_never_emulated(t: &mut Test) -> Outcome {
    let oracle = Oracle::measure()?;
    let profile = oracle.profile;
    for (index, form) in FORMS.iter().enumerate() {
        if matches!(form.does, Does::Other { .. }) {
            continue;
        }
        let (mut world, _) = world(None);
        let entry = world.vs_entry(DEVICE, 0);
        world.map_g(entry.gpa & !0xfff, entry.spa & !0xfff, 0, 0);
        world.fence();
        let mut guest = guest_at(index);
        let exit = guest.run(Mode::Vs);
        if is_unknown(t, &exit) {
            continue;
        }
        let what = format_args!("{}", form.text);
        if is_store(form) && exit.info.htinst == 0x3020 {
            t.holds_or(what, false, Deviation::HtinstFollowsAccess)?;
        } else {
            t.equal(what, exit.info.htinst, 0x3000)?;
        }
        let at = (world.vs_entry(address(form) & !0xfff, 0)).gpa;
        let no_fetch = || -> Result<_, AccessError> { panic!("nothing to fetch") };
        let mut fault = fault_of(&guest, &exit.info, &profile);
        t.equal(
            what,
            decode_trapped(&fault, &guest, no_fetch),
            Err(TrappedError::PageTableAccess(fault)),
        )?;
        // The machine may say too little: then a walk says it.
        if fault.resolution() == Resolution::Walk {
            let Some(walked) = oracle.walked(&fault)? else {
                fail!("{what}: the walk finds nothing");
            };
            fault = walked;
        }
        let resolve = Resolution::Resolve {
            gpa: Gpa::new(at),
            access: AccessKind::Load,
        };
        t.equal(what, fault.resolution(), resolve)?;
        if fault.needs_instruction(&profile) {
            fault = fault.of_instruction(Instruction::from_bits(forms::bits(index)));
        }
        let cause = if is_store(form) { 7 } else { 5 };
        let injection = fault
            .injection_when_unbacked()
            .map(|unbacked| unbacked.cause);
        t.equal(what, injection, Some(cause))?;
        arena::release_all();
    }
    Ok(())
}
