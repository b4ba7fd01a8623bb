//! Interrupt injection: an interrupt at every instruction of an access, from the call to the return, the trap handler, the
//! scoped vector and the fixups included (R26, I2).
//!
//! The one idea: M-mode follows an access once and writes down every instruction that it went through; then the access is
//! repeated for each of them, with an interrupt that begins to pend exactly there. Inside a window the interrupt has to wait
//! for the end; the routines of the hook's form are run with interrupts enabled, too, and have to survive them anywhere. The
//! handler of each interrupt accesses the guest itself.

use guest_mem::Width;
use guest_mem::csr::STATUS_SIE;
use guest_mem::hart::Hart;

use super::aside::Aside;
use super::scene::{Scene, UNTOUCHED, stepped};
use super::setting::{Layer, Operation, Refusal, Setting, Space};
use super::shape::Shape;
use super::{is_scoped, standalone_with_granules};
use crate::deviation::Deviation::StaleVsatp;
use crate::harness::{self, Outcome, Stop, Test, cases, check, fail, not_in_small};
use crate::library::{in_both_forms, loaded};
use crate::machine::{self, Stepping};
use crate::println;
use crate::tests::routines::begins_take_back;
use crate::witness::Promise;
use crate::{arena, boot, csr, storm};

cases![r26_i2_an_interrupt_at_every_instruction_of_an_access_is_survived,];

/// A period of the timer that never ends.
const NEVER: u64 = 1 << 40;

unsafe extern "C" {
    #[link_name = unit_symbol!(__guest_mem_access_start)]
    static __guest_mem_access_start: u8;
    #[link_name = unit_symbol!(__guest_mem_access_end)]
    static __guest_mem_access_end: u8;
}

/// The access unit's instructions, and at which of them an interrupt came to pend.
pub(super) struct Unit {
    start: u64,
    end: u64,
    interrupted: [bool; 4096],
}

impl Unit {
    pub(super) fn new() -> Self {
        Self {
            start: (&raw const __guest_mem_access_start) as u64,
            end: (&raw const __guest_mem_access_end) as u64,
            interrupted: [false; 4096],
        }
    }

    /// The number of the instruction at `pc`, if it is the unit's. All are 4 bytes long.
    fn index(&self, pc: u64) -> Option<usize> {
        (self.start..self.end)
            .contains(&pc)
            .then(|| ((pc - self.start) / 4) as usize)
    }

    /// The instruction of that number.
    fn instruction(&self, index: usize) -> u32 {
        // SAFETY: the unit's instructions are 4 bytes each, and this program's.
        unsafe { (self.start as *const u32).add(index).read() }
    }

    /// The instructions at which no interrupt came to pend. Where a copy takes the vector back, they are the same at each place
    /// but for where they go on: an interrupt at one of them is one at each.
    fn missed(&self) -> impl Iterator<Item = usize> {
        let all = ((self.end - self.start) / 4) as usize;
        let mut at_offset = [false; TAKE_BACK];
        let mut begin = None;
        let offsets = (0..all).map(move |index| {
            if begins_take_back(self.instruction(index)) {
                begin = Some(index);
            }
            begin
                .map(|begin| index - begin)
                .filter(|&offset| offset < TAKE_BACK)
        });
        for (index, offset) in offsets.clone().enumerate() {
            if let Some(offset) = offset {
                at_offset[offset] |= self.interrupted[index];
            }
        }
        let is_met = move |(index, offset): (usize, Option<usize>)| {
            let met = offset.map_or(self.interrupted[index], |offset| at_offset[offset]);
            (!met).then_some(index)
        };
        offsets.enumerate().filter_map(is_met)
    }
}

/// How interrupts meet the accesses of a sweep.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// They are enabled while the routines run, and not only outside of windows.
    pub(super) inside: bool,
    /// Their handler accesses the guest.
    pub(super) nests: bool,
}

/// Follows `body`, then repeats it with an interrupt at each instruction that it was first to go through since
/// [`machine::forget`]. Answers how many there were.
pub(super) fn sweep<H: Hart + 'static>(
    t: &mut Test,
    unit: &mut Unit,
    aside: &Aside<'_, H>,
    manner: Manner,
    mut body: impl FnMut(&mut Test, Stepping) -> Result<u64, Stop>,
) -> Result<u64, Stop> {
    // What was accessed last decides whether the next access fences on a machine that needs it: always the same.
    let access_before = || {
        if manner.nests {
            Aside::<H>::access((&raw const *aside).cast());
        }
    };
    access_before();
    storm::expect(NEVER);
    body(t, Stepping::Follow)?;
    storm::over();
    let mut count = 0;
    for (pc, enabled) in machine::trace() {
        access_before();
        storm::expect(NEVER);
        let came = if manner.nests {
            storm::nesting(aside, Aside::<H>::access, || {
                body(t, Stepping::InterruptAt(pc))
            })
        } else {
            body(t, Stepping::InterruptAt(pc))
        };
        let storm = storm::over();
        check!(came? == 1, "the instruction at {pc:#x} did not come again");
        check!(
            storm.taken == 1 && storm.violations == 0,
            "an interrupt at {pc:#x}: {} taken, {} found something borrowed",
            storm.taken,
            storm.violations
        );
        if enabled {
            t.equal("where the interrupt came", storm.last, pc)?;
        } else {
            check!(
                manner.inside || unit.index(storm.last).is_none(),
                "an interrupt at {pc:#x} came inside the access unit, at {:#x}",
                storm.last
            );
        }
        if let Some(index) = unit.index(pc) {
            unit.interrupted[index] = true;
        }
        count += 1;
    }
    t.equal("wrong accesses of the handler", aside.wrong(), 0)?;
    Ok(count)
}

/// Instructions of the unit that no access here goes through: 7 in one vector and 8 in the other for a fault without GVA, which
/// comes only through firmware (R21), 3 that pass on a trap in a single access that is none of its own, and 6 for a host that
/// recovers a fault of the scoped form by itself.
const FOR_OTHERS: usize = 24;

/// Instructions by which a copy takes the vector back.
const TAKE_BACK: usize = 7;

/// Bytes; bytes by which the host's alignment is off the guest's, at which the copy is by doubles; first byte that is refused.
pub(super) type Sizes = (usize, usize, usize);

/// Copies that together go through every instruction of the routines.
const COPIES: [Sizes; 22] = [
    (300, 0, 20),
    (300, 0, 84),
    (300, 0, 148),
    (300, 0, 212),
    (300, 0, 270),
    (120, 0, 116),
    (40, 0, 0),
    (40, 4, 22),
    (40, 2, 22),
    (40, 1, 22),
    (300, 1, 5),
    (300, 3, 150),
    (77, 5, 70),
    (120, 3, 55),
    // Bodies of the scoped form.
    (1100, 0, 20),
    (1100, 0, 148),
    (1100, 0, 300),
    (1100, 0, 420),
    (600, 3, 40),
    (600, 3, 90),
    (600, 3, 170),
    (600, 3, 230),
];

/// The fewest that windows are opened for.
pub(super) const FEW: [Sizes; 3] = [(300, 0, 84), (77, 5, 70), (40, 4, 22)];

pub(super) fn shape((len, off, fault): Sizes) -> Shape {
    Shape {
        len,
        host: (off + 8 - fault % 8) % 8,
        fault,
    }
}

/// The settings to interrupt, with the copies in each.
fn settings() -> impl Iterator<Item = (Setting, &'static [Sizes])> {
    const REFUSALS: [Refusal; 3] = [
        Refusal::Nothing,
        Refusal::GuestPage,
        Refusal::Protection(2048),
    ];
    const OPERATIONS: [Operation; 3] = [Operation::Read, Operation::Write, Operation::Fill];
    const LAYERS: [(Layer, Space, &[Sizes]); 3] = [
        (Layer::Windows, Space::Virtual, &FEW),
        (Layer::Windows, Space::Physical, &FEW),
        (Layer::Hart, Space::Virtual, &COPIES),
    ];
    REFUSALS.into_iter().flat_map(|refusal| {
        OPERATIONS.into_iter().flat_map(move |operation| {
            LAYERS.into_iter().map(move |(layer, space, copies)| {
                let setting = Setting {
                    layer,
                    operation,
                    space,
                    refusal,
                };
                (setting, copies)
            })
        })
    })
}

/// A scene in which interrupts are expected.
pub(super) fn expecting(setting: Setting) -> Scene {
    let mut scene = Scene::new(setting, Promise::ButExitRecord);
    storm::expect(NEVER);
    scene.settle();
    storm::over();
    scene
}

/// Sweeps what is no copy of a guest's and a host's memory that both are there: single accesses and fetches, and copies whose
/// host buffer is mapped by the host's own fault handler.
fn sweep_singles<H: Hart + 'static>(t: &mut Test, unit: &mut Unit, hart: &H) -> Result<u64, Stop> {
    // Nothing but the byte of the canaries is read or written.
    let scene = expecting(Setting {
        layer: Layer::Hart,
        operation: Operation::Fill,
        space: Space::Virtual,
        refusal: Refusal::GuestPage,
    });
    let aside = Aside::of(&scene, hart);
    let inside = !is_scoped::<H>();
    let manner = Manner {
        inside,
        nests: !t.machine.has(StaleVsatp),
    };
    let (at, refused) = scene.addresses();
    machine::forget();
    let mut count = sweep(t, unit, &aside, manner, |_, stepping| {
        let (right, answer) = interruptible(inside, stepping, || {
            // SAFETY: interrupts find nothing borrowed, SPVP is set, and the G-stage is on: an open window.
            unsafe { singles(hart, at, refused) && singles(&hart.series(), at, refused) }
        });
        check!(right, "a single access under interrupts went wrong");
        Ok(answer)
    })?;
    let page = arena::page();
    arena::write_bytes(page, [UNTOUCHED; 4096]);
    for write in [false, true] {
        machine::forget();
        count += sweep(t, unit, &aside, manner, |_, stepping| {
            boot::arm_demand_page(page);
            let (result, answer) = interruptible(inside, stepping, || {
                // SAFETY: the buffer's page is there as soon as it is touched; an open window as above.
                unsafe {
                    if write {
                        hart.copy_to_guest(at, boot::DEMAND_PAGE as *const u8, 80)
                    } else {
                        hart.copy_from_guest(at, boot::DEMAND_PAGE as *mut u8, 80)
                    }
                }
            });
            boot::arm_demand_page(0);
            check!(
                result.is_ok(),
                "a copy with a late buffer ended: {result:?}"
            );
            Ok(answer)
        })?;
    }
    scene.close()?;
    boot::reset_csrs(csr::satp::read());
    arena::release_all();
    Ok(count)
}

/// Every single access and fetch, at an address where the canaries' byte is, at one that is refused, and across. Answers whether
/// each did what it has to do.
///
/// # Safety
///
/// A window is open. `at` and `refused` are multiples of 8 that the guest has, or has not, in a page that ends at `refused`.
unsafe fn singles<H: Hart>(hart: &H, at: u64, refused: u64) -> bool {
    let widths = [Width::Byte, Width::Half, Width::Word, Width::Double];
    let accesses = widths.into_iter().all(|width| {
        let value = u64::from_le_bytes([UNTOUCHED; 8]) >> (64 - 8 * width.bytes());
        // SAFETY: the caller's promise; what is stored is what is there.
        unsafe {
            hart.load_guest(at, width) == Ok(value)
                && hart.store_guest(at, width, value).is_ok()
                && hart.load_guest(refused, width).is_err()
                && hart.store_guest(refused, width, value).is_err()
        }
    });
    // Both low bits of the bytes that are set here ask for a second parcel.
    const LONG: u64 = 0x0013;
    let end = refused - 2;
    // SAFETY: as above; the bytes are put back.
    unsafe {
        let stored = hart.store_guest(end, Width::Half, LONG).is_ok()
            && hart.store_guest(end - 2, Width::Half, LONG).is_ok();
        let fetches = hart.fetch_parcel(at).is_ok()
            && hart.fetch_parcel(refused).is_err()
            && hart.fetch_instruction(at).is_ok()
            && hart.fetch_instruction(end - 2) == Ok((LONG << 16 | LONG) as u32)
            && hart
                .fetch_instruction(refused)
                .is_err_and(|fault| fault.completed == 0)
            && hart
                .fetch_instruction(end)
                .is_err_and(|fault| fault.completed == 2);
        let value = u64::from_le_bytes([UNTOUCHED; 8]) & 0xffff;
        let restored = hart.store_guest(end, Width::Half, value).is_ok()
            && hart.store_guest(end - 2, Width::Half, value).is_ok();
        accesses && stored && fetches && restored
    }
}

/// Runs `body` stepped, with interrupts enabled in it or only after it.
fn interruptible<R: Copy>(inside: bool, stepping: Stepping, body: impl FnOnce() -> R) -> (R, u64) {
    if inside {
        // SAFETY: those that come have a handler.
        unsafe { csr::sstatus::set(STATUS_SIE) };
    }
    let answer = stepped(Some(stepping), body);
    // SAFETY: interrupts are off everywhere else; one that still pends is to come here.
    unsafe {
        csr::sstatus::set(STATUS_SIE);
        csr::sstatus::clear(STATUS_SIE);
    }
    answer
}

fn r26_i2_an_interrupt_at_every_instruction_of_an_access_is_survived(t: &mut Test) -> Outcome {
    fn body<H: Hart + 'static>(t: &mut Test, unit: &mut Unit, hart: &H) -> Outcome {
        let mut count = 0;
        count += sweep_singles(t, unit, hart)?;
        for (setting, copies) in settings() {
            let scene = expecting(setting);
            let vcpu = loaded(hart);
            let aside = Aside::of(&scene, hart);
            // A window that the test holds open can be interrupted, where the form bears it at all.
            let is_hart = setting.layer == Layer::Hart;
            let inside = is_hart && !is_scoped::<H>();
            let manner = Manner {
                inside,
                // Where translations outlive what they were made under, only windows fence between two accesses.
                nests: !(is_hart && t.machine.has(StaleVsatp)),
            };
            let interrupts = inside || !is_hart;
            // Every instruction once for each setting.
            machine::forget();
            for &copy in copies {
                count += sweep(t, unit, &aside, manner, |t, stepping| {
                    scene.inject(t, &vcpu, hart, shape(copy), interrupts, Some(stepping))
                })?;
            }
            scene.close()?;
            boot::reset_csrs(csr::satp::read());
            arena::release_all();
        }
        harness::count(count, "injected interrupts");
        Ok(())
    }
    standalone_with_granules()?;
    not_in_small!("step through accesses");
    let mut unit = Unit::new();
    in_both_forms!(t, |t: &mut Test, hart| body(t, &mut unit, hart))?;
    let count = unit.missed().count();
    if count > FOR_OTHERS {
        unit.missed()
            .for_each(|index| println!("no interrupt came at {:#x} of the unit", 4 * index));
        fail!(
            "no interrupt came at {count} of the unit's instructions, {FOR_OTHERS} of which are for others"
        );
    }
    Ok(())
}
