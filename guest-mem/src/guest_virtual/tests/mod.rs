//! Guest-virtual and guest-physical accesses through the software hart.

extern crate std;

use core::ops::ControlFlow;
use core::sync::atomic::Ordering;
use std::vec;
use std::vec::Vec;

use super::LoadedVcpu;
use crate::csr::{
    GMode, HSTATUS_SPVP, HSTATUS_VSBE, STATUS_MXR, STATUS_SDT, STATUS_SIE, STATUS_SUM, STATUS_UBE,
    VsMode,
};
use crate::fault::{AccessError, FaultKind, Operation, Resolution};
use crate::hart::model::{
    Machine, Misaligned, ModelGuest, ModelHart, Protection, Quirks, Ram, RamArray, Recovery,
    Register, Translations,
};
use crate::hart::{Csr, Hart};
use crate::inject::Injection;
use crate::translate::entry;
use crate::{AccessKind, Gpa, GuestMemory, GuestPrivilege, Gva, Spa, Width};

mod backed;
mod by_walk;
mod copies;
mod faults;
mod fetch;
mod open;
mod races;
mod refusals;
mod resolving;
mod typed;
mod window;

const RAM_BASE: Spa = Spa::new(0x8_0000_0000);
const RW: u64 = entry::R | entry::W;
const RWU: u64 = RW | entry::U;

/// Four pages at consecutive guest-virtual addresses, scattered in guest-physical memory; the page after them is a hole.
const GVA: Gva = Gva::new(0x10_0000);
const PAGES: [u64; 4] = [3, 1, 7, 2];

fn gpa(page: u64) -> Gpa {
    Gpa::new(ModelGuest::BASE.value() + page * 4096)
}

fn guest(ram: Ram<'_>, bits: u64) -> ModelGuest<'_> {
    let guest = ModelGuest::new(ram).unwrap();
    for (index, page) in PAGES.into_iter().enumerate() {
        guest
            .map(Gva::new(GVA.value() + index as u64 * 4096), gpa(page), bits)
            .unwrap();
        let bytes: Vec<u8> = (0..4096u32)
            .map(|n| (n * 7 + index as u32 * 13) as u8)
            .collect();
        guest.write(gpa(page), &bytes).unwrap();
    }
    guest
}

fn virtual_bytes(guest: &ModelGuest<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 4 * 4096];
    for (index, page) in PAGES.into_iter().enumerate() {
        guest
            .read(gpa(page), &mut bytes[index * 4096..][..4096])
            .unwrap();
    }
    bytes
}

fn load<'h, 'a>(hart: &'h ModelHart<'a>) -> LoadedVcpu<'h, ModelHart<'a>> {
    // SAFETY: the hart has the guest loaded.
    unsafe { LoadedVcpu::new(hart) }
}

const USER: GuestPrivilege = GuestPrivilege::User;
const SUPERVISOR: GuestPrivilege = GuestPrivilege::Supervisor;

const CODE: Gva = Gva::new(0x40_0ffe);

/// `lw a0, 4(a1)` across a page boundary.
fn guest_with_code(ram: Ram<'_>, bits: u64) -> ModelGuest<'_> {
    let guest = guest(ram, RWU);
    for page in 0..2 {
        guest
            .map(
                Gva::new(CODE.page_base().value() + page * 4096),
                gpa(10 + page),
                bits,
            )
            .unwrap();
    }
    let lw = 0x0045_a503u32.to_le_bytes();
    guest.write(Gpa::new(gpa(10).value() + 0xffe), &lw).unwrap();
    guest
        .write(Gpa::new(gpa(10).value() + 0xffc), &0x4501u16.to_le_bytes())
        .unwrap();
    guest
}
