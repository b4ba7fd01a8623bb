//! Bringing the machine up: the first hart does everything once, the others join as vCPUs.

use alloc::boxed::Box;
use core::ffi::c_void;
use core::fmt;
use core::sync::atomic::{AtomicPtr, Ordering};

use spin::Once;

use crate::boot::hart_local::{self, HartLocal};
use crate::boot::host_tables;
use crate::boot::machine::{Machine, MachineError};
use crate::boot::operator::Operator;
use crate::clock::{self, Clock};
use crate::console;
use crate::csr;
use crate::guest::Recipe;
use crate::memory::frames::Range;
use crate::memory::host;
use crate::vcpu::Hart;
use crate::vcpu::grant::Grant;
use crate::{power, series, vcpu};

unsafe extern "C" {
    fn settle(local: *const c_void, next: extern "C" fn() -> !) -> !;
    fn _start();
}

/// What the hart that is being started is to take; null when it has.
pub(super) static STARTING: AtomicPtr<HartLocal> = AtomicPtr::new(core::ptr::null_mut());

/// Seconds that a hart has to take it.
const PATIENCE: u64 = 10;

/// What the boot found out, for the hart that sets up the guest.
static MACHINE: Once<Machine> = Once::new();

/// The time of day.
static CLOCK: Once<Clock> = Once::new();

/// What every hart's guest is given.
static GRANT: Once<Grant> = Once::new();

/// Called by `_start` on the hart that the firmware picked, with translation off.
pub(super) extern "C" fn primary(hart_id: u64, device_tree: *const u8) -> ! {
    // SAFETY: the firmware's a1 is the machine's device tree, which lies in RAM that nothing else uses.
    let blob = unsafe { device_tree_bytes(device_tree) };
    let operator = blob.map_or_else(|_| Operator::default(), Operator::from_device_tree);
    console::initialize(operator.mark);
    power::initialize(operator.finisher);
    log::info!(
        "guest-mem hypervisor {} on hart {hart_id}",
        env!("CARGO_PKG_VERSION")
    );
    let machine = blob.and_then(|blob| Machine::from_device_tree(blob, Some(hart_id)));
    let machine = match machine {
        Ok(machine) => MACHINE.call_once(|| machine),
        Err(error) => power::give_up(format_args!("{error}")),
    };
    let time = match machine.rtc {
        // SAFETY: the device tree says that the clock is there, and translation is off.
        Some(base) => unsafe { clock::read_goldfish(base) },
        None => 0,
    };
    CLOCK.call_once(|| Clock::new(machine.timebase_frequency, csr::read!("time"), time));
    for note in machine.notes.iter() {
        log::warn!("{note}");
    }
    let blob = blob.map_or(Range::default(), |blob| Range {
        start: blob.as_ptr() as u64,
        end: blob.as_ptr() as u64 + blob.len() as u64,
    });
    let bundle = machine.initrd.unwrap_or_default();
    let own = [host_tables::image(), blob];
    let taken = machine.reserved.as_slice().iter().chain(&own);
    // SAFETY: called once, first; `taken` and the bundle are all that firmware, loader and this image use of the RAM.
    let memory = unsafe { host::initialize(machine.memory.as_slice(), taken, bundle) };
    if memory.is_err() {
        power::give_up(format_args!("this machine has too little memory"));
    }
    let satp = match host_tables::build(machine) {
        Ok(satp) => satp,
        Err(error) => power::give_up(format_args!("host page table: {error}")),
    };
    let local = new_hart(0, hart_id, satp);
    let local = core::ptr::from_ref(local).cast();
    // SAFETY: the table maps the image, its stacks and all of RAM to themselves; `run_guest` never returns.
    unsafe { settle(local, run_guest) }
}

/// # Safety
///
/// `address` points to a flattened device tree, or to readable memory that is none.
unsafe fn device_tree_bytes(address: *const u8) -> Result<&'static [u8], MachineError> {
    const MAGIC: u32 = 0xd00d_feed;
    if address.is_null() || !address.addr().is_multiple_of(4) {
        return Err(MachineError::NotADeviceTree);
    }
    // SAFETY: readable by the caller's promise, aligned as checked.
    let [magic, len] = unsafe { address.cast::<[u32; 2]>().read() };
    if u32::from_be(magic) != MAGIC {
        return Err(MachineError::NotADeviceTree);
    }
    // SAFETY: the second word of a device tree is its length, and nobody writes to it from here on.
    Ok(unsafe { core::slice::from_raw_parts(address, u32::from_be(len) as usize) })
}

fn new_hart(index: usize, id: u64, satp: u64) -> &'static HartLocal {
    let (stack_top, trap_stack_top) = hart_local::stack_tops(index);
    Box::leak(Box::new(HartLocal {
        stack_top,
        trap_stack_top,
        satp,
        index,
        id,
        // SAFETY: the machine has the H extension (`primary` runs in HS-mode), the value is reached through this hart's `tp`
        // only, the trap vector calls `try_fixup`, and firmware delegates or redirects the causes (R25).
        hart: unsafe { Hart::new() },
    }))
}

/// The first hart, with everything in place: finds out what there is to run, starts the other harts, and leads them.
extern "C" fn run_guest() -> ! {
    let machine = MACHINE.get().expect("the boot hart has set it");
    let local = HartLocal::current();
    let clock = CLOCK.get().expect("the boot hart has set it");
    let recipe = match Recipe::new(machine, *clock) {
        Ok(recipe) => recipe,
        Err(error) => power::give_up(format_args!("{error}")),
    };
    GRANT.call_once(|| *recipe.grant());
    for (index, &id) in recipe.host_harts().iter().enumerate().skip(1) {
        start(new_hart(index, id, local.satp), machine.timebase_frequency);
    }
    series::lead(recipe)
}

/// Starts another hart, and returns when it has come.
fn start(local: &'static HartLocal, timebase: u64) {
    let give_up = |why: fmt::Arguments<'_>| -> ! {
        power::give_up(format_args!("hart {} does not start: {why}", local.id))
    };
    STARTING.store(core::ptr::from_ref(local).cast_mut(), Ordering::Release);
    let answer = sbi_rt::hart_start(local.id as usize, _start as *const () as usize, 0);
    if let Err(error) = answer.into_result() {
        give_up(format_args!("{error:?}"));
    }
    let since = csr::read!("time");
    while !STARTING.load(Ordering::Acquire).is_null() {
        if csr::read!("time") - since > timebase.saturating_mul(PATIENCE) {
            give_up(format_args!("nothing of it in {PATIENCE} seconds"));
        }
        core::hint::spin_loop();
    }
}

/// Every other hart, settled by `_start`.
pub(super) extern "C" fn secondary() -> ! {
    let index = HartLocal::current().index;
    let grant = GRANT.get().expect("the boot hart has set it");
    vcpu::probe_machine(grant, index);
    series::follow(index)
}
