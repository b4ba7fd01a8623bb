//! The library's assembly routines by themselves: the registers that each leaves to its caller as they were.
//!
//! The one idea: a copy reaches its routine through compiled code, which may save a register and so hide that the routine lost
//! it; here each routine is called by its name with every register known, through a fault at each of its elements, too.

use crate::deviation::{FIRMWARE, firmware_is_protected};
use crate::harness::{Outcome, Test, act_as_supervisor, cases, check};
use crate::library::probed;
use crate::registers::{self, A0, A1, RA, Returned, T0};
use crate::tables::World;
use crate::tables::bits::{SUPERVISOR, USER};
use crate::{arena, boot, csr, trap};

cases![
    r20_every_copy_and_fill_keeps_the_registers_of_its_caller,
    r20_every_single_access_keeps_the_registers_of_its_caller,
];

/// Whether an instruction of the unit is where a scoped copy begins to take its vector back: `sd a4, …(s2)`, which stands
/// nowhere else there.
pub const fn begins_take_back(instruction: u32) -> bool {
    instruction & 0x01ff_f07f == 0x00e9_3023
}

/// How a fault of a routine is recovered, and where the routine has the record of the guest's exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// By the trap handler; no record.
    Hook,
    /// By a vector; in a frame.
    Frame,
    /// By a vector; in registers.
    Registers,
}

/// What a copy or a fill does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy by elements, from the guest.
    CopyFrom,
    /// The same to the guest.
    CopyTo,
    /// From the guest, between addresses that no element fits.
    MergeFrom,
    /// The same to the guest.
    MergeTo,
    /// A fill by elements.
    Fill,
}

/// A routine: its name and address, how its faults are recovered, and what it is.
pub struct Routine<K> {
    /// Its symbol.
    pub name: &'static str,
    /// Where it begins.
    pub address: usize,
    /// How its faults are recovered.
    pub form: Form,
    /// What it is.
    pub kind: K,
    /// Bytes of its element.
    pub bytes: u64,
}

macro_rules! routines {
    ($($form:ident { $($symbol:ident $kind:expr, $bytes:literal;)* })*) => {{
        unsafe extern "C" {
            $($(
                #[link_name = unit_symbol!($symbol)]
                fn $symbol();
            )*)*
        }
        [$($(Routine {
            name: stringify!($symbol),
            address: $symbol as *const () as usize,
            form: Form::$form,
            kind: $kind,
            bytes: $bytes,
        },)*)*]
    }};
}

/// The copies and fills.
pub fn copies() -> [Routine<Kind>; 24] {
    use Kind::{CopyFrom, CopyTo, Fill, MergeFrom, MergeTo};
    routines! {
        Hook {
            __guest_mem_hook_copy_from_1 CopyFrom, 1;
            __guest_mem_hook_copy_from_2 CopyFrom, 2;
            __guest_mem_hook_copy_from_4 CopyFrom, 4;
            __guest_mem_hook_copy_from_8 CopyFrom, 8;
            __guest_mem_hook_copy_to_1 CopyTo, 1;
            __guest_mem_hook_copy_to_2 CopyTo, 2;
            __guest_mem_hook_copy_to_4 CopyTo, 4;
            __guest_mem_hook_copy_to_8 CopyTo, 8;
            __guest_mem_hook_merge_from MergeFrom, 8;
            __guest_mem_hook_merge_to MergeTo, 8;
            __guest_mem_hook_fill_1 Fill, 1;
            __guest_mem_hook_fill_8 Fill, 8;
        }
        Frame {
            __guest_mem_scoped_copy_from_1 CopyFrom, 1;
            __guest_mem_scoped_copy_from_2 CopyFrom, 2;
            __guest_mem_scoped_copy_from_4 CopyFrom, 4;
            __guest_mem_scoped_copy_from_8 CopyFrom, 8;
            __guest_mem_scoped_copy_to_1 CopyTo, 1;
            __guest_mem_scoped_copy_to_2 CopyTo, 2;
            __guest_mem_scoped_copy_to_4 CopyTo, 4;
            __guest_mem_scoped_copy_to_8 CopyTo, 8;
            __guest_mem_scoped_merge_from MergeFrom, 8;
            __guest_mem_scoped_merge_to MergeTo, 8;
            __guest_mem_scoped_fill_1 Fill, 1;
            __guest_mem_scoped_fill_8 Fill, 8;
        }
    }
}

/// The single accesses; of each, whether it may read a second parcel.
pub fn singles() -> [Routine<bool>; 30] {
    routines! {
        Hook {
            __guest_mem_hook_load_1 false, 1;
            __guest_mem_hook_load_2 false, 2;
            __guest_mem_hook_load_4 false, 4;
            __guest_mem_hook_load_8 false, 8;
            __guest_mem_hook_store_1 false, 1;
            __guest_mem_hook_store_2 false, 2;
            __guest_mem_hook_store_4 false, 4;
            __guest_mem_hook_store_8 false, 8;
            __guest_mem_hook_fetch_parcel false, 2;
            __guest_mem_hook_fetch_instruction true, 2;
        }
        Frame {
            __guest_mem_series_load_1 false, 1;
            __guest_mem_series_load_2 false, 2;
            __guest_mem_series_load_4 false, 4;
            __guest_mem_series_load_8 false, 8;
            __guest_mem_series_store_1 false, 1;
            __guest_mem_series_store_2 false, 2;
            __guest_mem_series_store_4 false, 4;
            __guest_mem_series_store_8 false, 8;
            __guest_mem_series_fetch_parcel false, 2;
            __guest_mem_series_fetch_instruction true, 2;
        }
        Registers {
            __guest_mem_scoped_load_1 false, 1;
            __guest_mem_scoped_load_2 false, 2;
            __guest_mem_scoped_load_4 false, 4;
            __guest_mem_scoped_load_8 false, 8;
            __guest_mem_scoped_store_1 false, 1;
            __guest_mem_scoped_store_2 false, 2;
            __guest_mem_scoped_store_4 false, 4;
            __guest_mem_scoped_store_8 false, 8;
            __guest_mem_scoped_fetch_parcel false, 2;
            __guest_mem_scoped_fetch_instruction true, 2;
        }
    }
}

/// Where the guest's pages are for it.
pub const GVA: u64 = 0x20_0000;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
const A2: usize = 12;
const A3: usize = 13;
/// x18: the frame.
pub const S2: usize = 18;
/// x19: what a series wants.
pub const S3: usize = 19;
const T5: usize = 30;
const T6: usize = 31;

unsafe extern "C" {
    /// What a series keeps in s3, and a copy finds in `stvec`.
    #[link_name = unit_symbol!(__guest_mem_scoped_vector)]
    static __guest_mem_scoped_vector: u8;
}

/// t1 to t6: of no routine's caller.
const TEMPORARY: [usize; 6] = [6, 7, 28, 29, 30, 31];
/// a2 to a7.
const ARGUMENTS: [usize; 6] = [12, 13, 14, 15, 16, 17];

/// The record of the guest's exit: what the trap CSRs hold, in the order of the frame, with more room behind it than any routine
/// has a use for.
pub fn frame() -> [u64; 64] {
    let record = [
        csr::sepc::read(),
        csr::scause::read(),
        csr::stval::read(),
        csr::htval::read(),
        csr::htinst::read(),
        csr::sstatus::read(),
        csr::hstatus::read(),
    ];
    let mut frame = [0; 64];
    frame[..7].copy_from_slice(&record);
    frame
}

/// A loaded guest whose page at `GVA` is there and whose next one is refused by a page fault, or by an access fault: after the
/// one a routine knows the address, after the other it has to find it. Answers a host buffer of a page, too.
fn world(by_protection: bool) -> (World, u64) {
    let (mut world, _) = World::with_page(GVA, SUPERVISOR, USER);
    if by_protection {
        let gpa = crate::tables::RAM + 0x800_0000;
        world.map_g(gpa, FIRMWARE, USER, 0);
        world.map(GVA + PAGE, gpa, SUPERVISOR, 0);
    }
    world.fence();
    act_as_supervisor(true);
    (world, arena::page())
}

/// Runs `body` for both refusals, with the handler that each form relies on.
fn for_each_refusal(mut body: impl FnMut(u64) -> Outcome) -> Outcome {
    // Tells the library that the handler calls it.
    probed::<guest_mem::hart::riscv64::HandlerHook>()?;
    boot::reset_csrs(csr::satp::read());
    for by_protection in [false, true] {
        if by_protection && !firmware_is_protected() {
            continue;
        }
        let (_world, host) = world(by_protection);
        body(host)?;
    }
    Ok(())
}

/// Fails unless every register that is in none of `free` is as it was before.
fn kept(returned: &Returned, what: core::fmt::Arguments<'_>, free: &[&[usize]]) -> Outcome {
    let mut changed = returned.changed();
    if let Some(x) = changed.find(|x| !free.iter().any(|free| free.contains(x))) {
        let now = returned.register(x);
        crate::harness::fail!("{what}: x{x} is {now:#x}");
    }
    Ok(())
}

fn r20_every_copy_and_fill_keeps_the_registers_of_its_caller(t: &mut Test) -> Outcome {
    for_each_refusal(|host| {
        for routine in copies() {
            for elements in [1, 2, 7, 8, 9, 31, 32, 33, 41, 72] {
                let len = elements * routine.bytes;
                // Where the refused page begins, from the start; after the end: nowhere.
                for fault in 0..=elements {
                    copy(t, &routine, host, len, fault * routine.bytes)?;
                }
            }
        }
        Ok(())
    })
}

/// Calls a copy or a fill with these registers, and in the scoped form with the library's vector in `stvec`.
///
/// # Safety
///
/// As [`registers::call`]. In the scoped form s2 is the frame, t5 the kernel's `stvec`, and t6 is 0.
pub unsafe fn call_copy(form: Form, address: usize, given: &[(usize, u64)]) -> Returned {
    if form == Form::Frame {
        // SAFETY: what the vector relies on is in the registers while the routine runs, and nothing else here traps before the
        // kernel's is back.
        unsafe { csr::stvec::write((&raw const __guest_mem_scoped_vector) as u64) };
    }
    // SAFETY: the caller's promise.
    let returned = unsafe { registers::call(address, RA, given) };
    trap::install();
    returned
}

/// One copy of `len` bytes, of which those from `fault` on are refused.
fn copy(t: &Test, routine: &Routine<Kind>, host: u64, len: u64, fault: u64) -> Outcome {
    let (host, fault) = match routine.kind {
        Kind::CopyFrom | Kind::CopyTo | Kind::Fill => (host + 64, fault),
        // The guest's or the host's side is between doubles; what is read around it is there.
        Kind::MergeFrom => (host + 64, if fault == len { len + 11 } else { fault + 3 }),
        Kind::MergeTo => (host + 64 + 5, fault),
    };
    let guest = GVA + PAGE - fault;
    let mut frame = frame();
    let a0 = match routine.kind {
        Kind::Fill => 0x5a5a_5a5a_5a5a_5a5a,
        _ => host,
    };
    let given = [
        (A0, a0),
        (A1, guest),
        (A2, len),
        (S2, (&raw mut frame) as u64),
        (T5, trap::entry()),
        (T6, 0),
    ];
    // SAFETY: an open window onto the test's guest; the host's side is in the arena's page; the addresses and the length are
    // what the routine's element asks for.
    let returned = unsafe { call_copy(routine.form, routine.address, &given) };
    let what = format_args!("{}, {len} bytes, refused from {fault}", routine.name);
    kept(&returned, what, &[&[T0, A0, A1], &TEMPORARY, &ARGUMENTS])?;
    if routine.form == Form::Frame {
        t.equal(what, returned.register(T5), trap::entry())?;
    }
    let left = returned.register(A0);
    if fault >= len {
        return t.equal(what, left, 0);
    }
    match routine.kind {
        Kind::CopyFrom | Kind::CopyTo | Kind::Fill => t.equal(what, left, len - fault),
        Kind::MergeFrom | Kind::MergeTo => {
            check!(
                left >= len - fault && left <= len,
                "{what}: {left} are left"
            );
            Ok(())
        }
    }
}

fn r20_every_single_access_keeps_the_registers_of_its_caller(t: &mut Test) -> Outcome {
    for_each_refusal(|_| {
        for routine in singles() {
            // Refused from the start, or behind it; the second parcel of an instruction.
            for (at, faulted) in [
                (PAGE - 8, 0),
                (PAGE, 1),
                (PAGE - 2, 2 * u64::from(routine.kind)),
            ] {
                if at == PAGE - 2 && !routine.kind {
                    continue;
                }
                single(t, &routine, GVA + at, faulted)?;
            }
        }
        Ok(())
    })
}

/// One single access at `address`, which has to come out as `faulted`.
fn single(t: &Test, routine: &Routine<bool>, address: u64, faulted: u64) -> Outcome {
    let mut frame = frame();
    let [sepc, scause, stval, htval, htinst, sstatus, hstatus, ..] = frame;
    // What the stores leave for the fetches: both low bits are set, so that an instruction there has a second parcel.
    let value = u64::MAX;
    let by_frame = [
        (A0, value),
        (A1, address),
        (S2, (&raw mut frame) as u64),
        (S3, (&raw const __guest_mem_scoped_vector) as u64),
    ];
    let record = [
        (A0, value),
        (A1, address),
        (A2, sepc),
        (A3, scause),
        (14, stval),
        (15, htval),
        (16, htinst),
        (17, sstatus),
        (T5, hstatus),
    ];
    let given = match routine.form {
        Form::Hook => &by_frame[..2],
        Form::Frame => &by_frame[..],
        Form::Registers => &record[..],
    };
    // SAFETY: an open window onto the test's guest.
    let returned = unsafe { registers::call(routine.address, T0, given) };
    let what = format_args!("{} at {address:#x}", routine.name);
    let record: &[usize] = match routine.form {
        Form::Registers => &ARGUMENTS,
        Form::Hook | Form::Frame => &[],
    };
    kept(&returned, what, &[&[T0, A0, A1], &TEMPORARY, record])?;
    t.equal(what, csr::stvec::read(), trap::entry())?;
    t.equal(what, returned.register(A1), faulted)
}
