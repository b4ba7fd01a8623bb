//! Copies by one walk a page: the same as the hardware's, and when they are not made at all.
//!
//! The one idea: the model's hardware is exact, so each case runs twice, by walks and by `hlv` and `hsv`, and has to come out
//! the same: bytes, fault, and the entries afterwards.

/// The guest of these tests, loaded, its memory one slot under a read guard: the parts that a test has a use for, by these names.
macro_rules! loaded_guest {
    ($guest:ident, $view:ident, $hart:ident, $vcpu:ident) => {
        let memory = RamArray::<64>::new();
        let ram = memory.at(RAM_BASE);
        let $guest = guest(ram, RWU);
        let slots = slots(&$guest, ram);
        let mut reader = slots.reader(0).unwrap();
        let $view = reader.guard();
        let $hart = $guest.hart();
        let $vcpu = load(&$hart);
    };
}

mod entries;
mod interference;
mod refused;

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;

use super::*;
use crate::Width;
use crate::csr::{ENVCFG_ADUE, ENVCFG_PBMTE, ENVCFG_PMM_SHIFT, ENVCFG_SSE};
use crate::guest_physical::{
    BackingMemory, GuestPhysicalMemory, HostPage, MachineMemory, NoGStage, PageEntry, PhysicalView,
    Slot, StageView,
};
use crate::guest_virtual::VsEnvironment;
use crate::probe::MachineProfile;
use crate::translate::{AdPolicy, EntryMemory, GRegime, GStage, Purpose, Refused, StageRules};

type Slots<'m> = GuestPhysicalMemory<'m, 2, 1>;

/// The guest's memory as the host has it.
fn host_of(guest: &ModelGuest<'_>, ram: Ram<'_>, at: Gpa) -> NonNull<u8> {
    ram.host_ptr(guest.spa(at).unwrap()).unwrap()
}

/// All of the guest's memory as one slot.
fn slots<'m>(guest: &ModelGuest<'m>, ram: Ram<'m>) -> Slots<'m> {
    // SAFETY: the guest's memory is contiguous in `ram`, which outlives the slots and is accessed as R77 says.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host_of(guest, ram, gpa(0))) };
    let memory = Slots::new(GMode::Sv39x4);
    memory.add(slot, &mut NoGStage).unwrap();
    memory
}

/// Machine memory of the model.
struct ModelMemory<'a>(Ram<'a>);

impl EntryMemory for ModelMemory<'_> {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        self.0.load(at, Width::Double).ok_or(Refused)
    }

    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        self.0.compare_exchange(at, current, new).ok_or(Refused)
    }
}

// SAFETY: the model's memory is never given back, and accessed as guest memory is.
unsafe impl MachineMemory for ModelMemory<'_> {
    fn host_address(&self, at: Spa) -> Option<NonNull<u8>> {
        self.0.host_ptr(at)
    }
}

const ALL_BY_WALK: VsEnvironment = VsEnvironment::BASE.with_walk_from(0);

/// Both stages' registers and what a walk has to know of them.
#[derive(Clone, Copy)]
struct Setting {
    update: bool,
    henvcfg: u64,
    menvcfg: u64,
    vsstatus: u64,
}

impl Setting {
    fn new(update: bool, vsstatus: u64) -> Self {
        let policy = if update { ENVCFG_ADUE } else { 0 };
        Self {
            update,
            henvcfg: policy | ENVCFG_PBMTE | ENVCFG_SSE,
            menvcfg: policy | ENVCFG_PBMTE | ENVCFG_SSE,
            vsstatus,
        }
    }

    fn rules(&self) -> StageRules {
        StageRules {
            ad: match self.update {
                true => AdPolicy::Update,
                false => AdPolicy::Fault,
            },
            pbmt: true,
            svnapot: true,
            svrsw60t59b: true,
        }
    }

    fn environment(&self) -> VsEnvironment {
        VsEnvironment {
            rules: self.rules(),
            henvcfg: self.henvcfg,
            ..ALL_BY_WALK
        }
    }

    /// Copies by walks: with the hardware to ask about what a walk refuses, and without.
    fn environments(&self) -> [VsEnvironment; 2] {
        [false, true].map(|walk_always| VsEnvironment {
            walk_always,
            ..self.environment()
        })
    }

    fn put(&self, hart: &ModelHart<'_>) {
        hart.set_register(Register::Menvcfg, self.menvcfg);
        hart.set_register(Register::Henvcfg, self.henvcfg);
        hart.set_register(Register::Vsstatus, self.vsstatus);
    }

    /// The view as the guest's own G-stage table shows it.
    fn shown<'v, 'g, 'm>(
        &self,
        view: &'v PhysicalView<'g>,
        guest: &ModelGuest<'_>,
        ram: Ram<'m>,
    ) -> StageView<'v, 'g, ModelMemory<'m>> {
        let rules = StageRules {
            ad: match self.menvcfg & ENVCFG_ADUE {
                0 => AdPolicy::Fault,
                _ => AdPolicy::Update,
            },
            ..self.rules()
        };
        let regime = GRegime::from_csrs(guest.hgatp(), 0, rules).unwrap();
        // SAFETY: the table is the guest's, and all of the model's memory is atomics.
        unsafe { view.shown_by(regime, ModelMemory(ram)) }
    }
}

/// Bits of an entry beyond the lowest eight that say something.
const HIGH: [u64; 6] = [0, 1 << 63, 1 << 61, 2 << 61, 3 << 61, 1 << 54];

fn entry_bits() -> impl Iterator<Item = u64> {
    let step = if cfg!(miri) { 37 } else { 1 };
    HIGH.into_iter()
        .flat_map(|high| (0..256).map(move |low| high | low))
        .step_by(step)
}

/// An access, how it came out, and what it left.
#[derive(Debug, PartialEq)]
struct Left {
    result: Result<(), (usize, FaultKind, Option<Gva>, Option<Gpa>)>,
    bytes: [u8; 12],
    entries: [u64; 3],
}

/// The last 12 bytes of the first page and of the second: its first 4.
const START: Gva = Gva::new(GVA.value() + 4096 - 8);

/// Bytes of the host's that are aligned like the guest's.
#[repr(align(8))]
struct Aligned([u8; 12]);

fn access(
    space: &impl GuestMemory<Address = Gva>,
    store: bool,
) -> (Result<(), AccessError>, [u8; 12]) {
    let mut bytes = Aligned([if store { 0x5a } else { 0xee }; 12]);
    let result = match store {
        true => space.write(START, &bytes.0),
        false => space.read(START, &mut bytes.0),
    };
    (result, bytes.0)
}

fn left(
    guest: &ModelGuest<'_>,
    (result, bytes): (Result<(), AccessError>, [u8; 12]),
    entries: [u64; 3],
) -> Left {
    let mut data = [0; 12];
    let (first, second) = data.split_at_mut(8);
    let end = Gpa::new(gpa(PAGES[0]).value() + 4088);
    guest.read(end, first).unwrap();
    guest.read(gpa(PAGES[1]), second).unwrap();
    // What was written and what was read, in one.
    for (byte, read) in data.iter_mut().zip(bytes) {
        *byte ^= read;
    }
    Left {
        result: result.map_err(|error| {
            let fault = error.fault;
            (error.completed, fault.kind, fault.gva, fault.gpa)
        }),
        bytes: data,
        entries,
    }
}

fn put_back(guest: &ModelGuest<'_>) {
    let end = Gpa::new(gpa(PAGES[0]).value() + 4088);
    guest.write(end, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    guest.write(gpa(PAGES[1]), &[9, 10, 11, 12]).unwrap();
}

fn vs_entry(guest: &ModelGuest<'_>) -> u64 {
    let mut raw = [0; 8];
    guest.read(guest.entry(GVA).unwrap(), &mut raw).unwrap();
    u64::from_le_bytes(raw)
}

/// Where the G-stage's entry for a page of the guest's is, as the builder made it: found by looking for it.
fn g_word(guest: &ModelGuest<'_>, ram: Ram<'_>, page: Gpa) -> Spa {
    let frame = guest.spa(page).unwrap().value() >> 12;
    (0..ram.len() as u64)
        .step_by(8)
        .map(|offset| Spa::new(RAM_BASE.value() + offset))
        .find(|&at| {
            let leaf = ram.load(at, Width::Double).unwrap();
            leaf >> 10 == frame && leaf & 0xff == 0xdf
        })
        .unwrap()
}

#[test]
fn r55_an_update_needs_a_table_that_the_g_stage_lets_be_written() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let setting = Setting::new(true, 0);
    setting.put(&hart);
    let vcpu = load(&hart);
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let at = guest.entry(GVA).unwrap();
    let table = at.page_base();
    guest
        .back(table, guest.spa(table).unwrap(), entry::R)
        .unwrap();
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let stage = setting.shown(&view, &guest, ram);
    for environment in setting.environments() {
        let space = vcpu.guest_virtual(USER).with_memory(&stage, environment);
        for write in [false, true] {
            let (result, _) = access(&space, write);
            let fault = result.unwrap_err().fault;
            let implicit = FaultKind::GuestPage {
                access: AccessKind::Store,
                implicit: true,
            };
            assert_eq!((fault.kind, fault.gpa), (implicit, Some(at)));
            assert_eq!(vs_entry(&guest), clean);
        }
    }
}

#[test]
fn a_walk_for_speed_logs_the_table_that_it_updates_and_the_pages_that_it_writes() {
    let (memory, log) = (RamArray::<64>::new(), [AtomicU64::new(0)]);
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let host = host_of(&guest, ram, gpa(0));
    // SAFETY: as in `slots`.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host) }.with_dirty_log(&log);
    let memory = Slots::new(GMode::Sv39x4);
    memory.add(slot, &mut NoGStage).unwrap();
    memory.start_logging(gpa(0), &mut NoGStage).unwrap();
    let clean = gpa(PAGES[0]).value() >> 2 | RWU | entry::V;
    guest.set_entry(GVA, clean).unwrap();
    let table = guest.entry(GVA).unwrap().page_base();
    let hart = guest.hart();
    let vcpu = load(&hart);
    let environment = Setting::new(true, 0).environment();
    let mut reader = memory.reader(0).unwrap();
    let mut harvest = |access: &dyn Fn(&PhysicalView<'_>)| {
        let view = reader.guard();
        access(&view);
        drop(view);
        let mut pages = Vec::new();
        memory
            .harvest(gpa(0), &mut NoGStage, |page| pages.push(page))
            .unwrap();
        pages
    };
    let read = harvest(&|view| {
        let space = vcpu.guest_virtual(USER).with_memory(view, environment);
        space.read(START, &mut [0; 12]).unwrap();
    });
    assert_eq!(read, [table]);
    let written = harvest(&|view| {
        let space = vcpu.guest_virtual(USER).with_memory(view, environment);
        space.write(START, &[7; 12]).unwrap();
    });
    let mut expected = [gpa(PAGES[0]), gpa(PAGES[1]), table];
    expected.sort();
    assert_eq!(written, expected);
    assert_eq!(hart.counts().accesses(), 0);
}

#[test]
fn r53_pages_of_another_memory_type_are_the_hardwares() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let setting = Setting::new(false, 0);
    setting.put(&hart);
    let vcpu = load(&hart);
    let mut reader = slots.reader(0).unwrap();
    let view = reader.guard();
    let stage = setting.shown(&view, &guest, ram);
    let leaf = entry::V | RWU | entry::A | entry::D;
    for memory_type in [1u64 << 61, 2 << 61] {
        // At the VS-stage, then at the G-stage.
        let vs = gpa(PAGES[0]).value() >> 2 | leaf | memory_type;
        guest.set_entry(GVA, vs).unwrap();
        for write in [false, true] {
            hart.reset_counts();
            let space = vcpu
                .guest_virtual(USER)
                .with_memory(&view, setting.environment());
            access(&space, write).0.unwrap();
            // One page by the hardware (one double), the other by a walk.
            assert_eq!(hart.counts().accesses(), 1);
        }
        guest.set_entry(GVA, vs & !memory_type).unwrap();
        let spa = guest.spa(gpa(PAGES[0])).unwrap();
        let g = spa.value() >> 2 | leaf | memory_type;
        guest.set_g_entry(gpa(PAGES[0]), g).unwrap();
        for write in [false, true] {
            hart.reset_counts();
            let space = vcpu
                .guest_virtual(USER)
                .with_memory(&stage, setting.environment());
            access(&space, write).0.unwrap();
            assert_eq!(hart.counts().accesses(), 1);
        }
        guest.set_g_entry(gpa(PAGES[0]), g & !memory_type).unwrap();
    }
}

#[test]
fn what_the_host_does_not_map_as_memory_is_the_hardwares() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let first = gpa(0).value() >> 2 | RWU | entry::V | entry::A | entry::D;
    guest.set_entry(GVA, first).unwrap();
    let (host, rest) = (host_of(&guest, ram, gpa(0)), host_of(&guest, ram, gpa(1)));
    // SAFETY: memory stands for the registers.
    let device = unsafe { Slot::device(gpa(0), 4096, host) };
    for slot in [
        Some(device),
        Some(Slot::guest_only(gpa(0), 4096)),
        Some(Slot::trapped(gpa(0), 4096)),
        None,
    ] {
        let memory = Slots::new(GMode::Sv39x4);
        // SAFETY: as in `slots`.
        let tables = unsafe { Slot::linear(gpa(1), guest.len() - 4096, rest) };
        memory.add(tables, &mut NoGStage).unwrap();
        if let Some(slot) = slot {
            memory.add(slot, &mut NoGStage).unwrap();
        }
        let mut reader = memory.reader(0).unwrap();
        let view = reader.guard();
        let space = vcpu.guest_virtual(USER).with_memory(&view, ALL_BY_WALK);
        for write in [false, true] {
            hart.reset_counts();
            access(&space, write).0.unwrap();
            assert_eq!(hart.counts().accesses(), 1);
        }
        hart.reset_counts();
        space.fill(START, 3, 8).unwrap();
        assert!(hart.counts().stores > 0);
    }
}

#[test]
fn r17_aligned_units_of_a_copy_by_walk_never_tear() {
    let memory = RamArray::<64>::new();
    let ram = memory.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let slots = slots(&guest, ram);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let at = guest.spa(gpa(PAGES[0])).unwrap();
    // A double, and alone behind it a word, a half and a byte.
    guest.write(gpa(PAGES[0]), &[0; 16]).unwrap();
    let rounds = if cfg!(miri) { 50 } else { 20_000 };
    let stop = core::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut all_ones = false;
            while !stop.load(Ordering::Relaxed) {
                let value = if all_ones { u64::MAX } else { 0 };
                ram.store(at, Width::Double, value).unwrap();
                let word = at.checked_add(8).unwrap();
                ram.store(word, Width::Word, value).unwrap();
                let half = at.checked_add(12).unwrap();
                ram.store(half, Width::Half, value).unwrap();
                all_ones = !all_ones;
            }
        });
        let mut reader = slots.reader(0).unwrap();
        let view = reader.guard();
        let space = vcpu.guest_virtual(USER).with_memory(&view, ALL_BY_WALK);
        let mut torn = 0;
        for _ in 0..rounds {
            let mut words = [0u64; 2];
            let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut words[..]);
            space.read(GVA, &mut bytes[..15]).unwrap();
            let uniform = |bytes: &[u8]| bytes.iter().all(|&byte| byte == bytes[0]);
            let whole = uniform(&bytes[..8]) && uniform(&bytes[8..12]) && uniform(&bytes[12..14]);
            torn += u32::from(!whole);
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert_eq!(torn, 0);
    });
}

#[test]
fn the_size_that_decides_is_the_environments() {
    loaded_guest!(guest, view, hart, vcpu);
    let environment = VsEnvironment::BASE.with_walk_from(256);
    let space = vcpu.guest_virtual(USER).with_memory(&view, environment);
    let mut bytes = [0; 256];
    space.read(GVA, &mut bytes[..255]).unwrap();
    assert!(hart.counts().accesses() > 0);
    hart.reset_counts();
    space.read(GVA, &mut bytes).unwrap();
    assert_eq!(hart.counts().accesses(), 0);
    // A single access is never large.
    let any = VsEnvironment::BASE.with_walk_from(0);
    let space = vcpu.guest_virtual(USER).with_memory(&view, any);
    space.load::<u64>(GVA, Ordering::Relaxed).unwrap();
    assert_eq!(hart.counts().accesses(), 1);
}
