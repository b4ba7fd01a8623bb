//! Accesses that page in.

use super::*;
use crate::guest_physical::{
    GuestPhysicalMemory, HostPage, NoGStage, PhysicalView, Slot, Unresolvable,
};
use crate::guest_virtual::VsEnvironment;
use crate::{AccessKind, Fault};

/// All of a guest's memory but the host's tables is unbacked; what a resolver is asked for comes back.
fn unbacked(guest: &ModelGuest<'_>) {
    for page in 0..guest.len() / 4096 {
        guest.unback(gpa(page)).unwrap();
    }
}

#[test]
fn tables_and_data_are_paged_in_and_the_access_goes_on_where_it_stopped() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let expected = virtual_bytes(&guest);
    let spas: Vec<_> = (0..guest.len() / 4096)
        .map(|page| guest.spa(gpa(page)).unwrap())
        .collect();
    unbacked(&guest);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut asked = Vec::new();
    let mut page_in = |_: &Fault, at: Gpa, access: AccessKind| {
        asked.push((at.page_base(), access));
        let page = (at.value() - ModelGuest::BASE.value()) / 4096;
        let bits = if access == AccessKind::Store {
            RWU
        } else {
            entry::R | entry::U
        };
        guest
            .back(gpa(page), spas[page as usize], bits | entry::A | entry::D)
            .map_err(|_| Unresolvable)
    };
    let mut bytes = vec![0; 9000];
    vcpu.guest_virtual(USER)
        .resolving(&mut page_in)
        .read(Gva::new(GVA.value() + 50), &mut bytes)
        .unwrap();
    assert_eq!(bytes, expected[50..9050]);
    // Three tables, then three pages of data, each once.
    assert_eq!(asked.len(), 6);
    assert!(asked.iter().all(|&(_, access)| access == AccessKind::Load));
    asked.clear();
    // Written, the same pages are asked for once more, and the tables are not.
    let mut page_in = |_: &Fault, at: Gpa, access: AccessKind| {
        asked.push((at.page_base(), access));
        let page = (at.value() - ModelGuest::BASE.value()) / 4096;
        guest
            .back(gpa(page), spas[page as usize], RWU | entry::A | entry::D)
            .map_err(|_| Unresolvable)
    };
    vcpu.guest_virtual(USER)
        .resolving(&mut page_in)
        .fill(GVA, 0x77, 8192)
        .unwrap();
    assert_eq!(
        asked,
        [
            (gpa(PAGES[0]), AccessKind::Store),
            (gpa(PAGES[1]), AccessKind::Store)
        ]
    );
}

#[test]
fn a_resolver_that_does_nothing_is_asked_a_bounded_number_of_times() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    unbacked(&guest);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut asked = 0;
    let mut nothing = |_: &Fault, _: Gpa, _: AccessKind| {
        asked += 1;
        Ok(())
    };
    let error = vcpu
        .guest_virtual(USER)
        .resolving(&mut nothing)
        .read(GVA, &mut [0; 8])
        .unwrap_err();
    assert_eq!(
        (error.completed, error.fault.kind),
        (0, FaultKind::Unresolved)
    );
    assert_eq!(error.fault.resolution(), Resolution::Refuse);
    // Sv39: three tables and the page, four times each.
    assert_eq!(asked, 16);
    let mut refuse = |_: &Fault, _: Gpa, _: AccessKind| Err(Unresolvable);
    let error = vcpu
        .fetch_instruction_with(GVA, USER, &mut refuse)
        .unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Unresolved);
}

#[test]
fn what_the_guest_refuses_is_not_resolved() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut never = |_: &Fault, _: Gpa, _: AccessKind| panic!("asked about the guest's own fault");
    let space = vcpu.guest_virtual(USER).resolving(&mut never);
    let error = space
        .read(Gva::new(GVA.value() + 4 * 4096 - 5), &mut [0; 8])
        .unwrap_err();
    assert_eq!((error.completed, error.fault.kind), (5, FaultKind::Page));
}

#[test]
fn both_halves_of_an_instruction_are_paged_in() {
    let memory = RamArray::<64>::new();
    let guest = guest_with_code(memory.at(RAM_BASE), entry::X | entry::U);
    let spas = [10, 11].map(|page| guest.spa(gpa(page)).unwrap());
    for page in [10, 11] {
        guest.unback(gpa(page)).unwrap();
    }
    let hart = guest.hart();
    let mut asked = Vec::new();
    let mut page_in = |_: &Fault, at: Gpa, access: AccessKind| {
        asked.push((at, access));
        let page = (at.value() - ModelGuest::BASE.value()) / 4096;
        let spa = spas[page as usize - 10];
        guest
            .back(gpa(page), spa, entry::X | entry::U | entry::A)
            .map_err(|_| Unresolvable)
    };
    let fetched = load(&hart)
        .fetch_instruction_with(CODE, USER, &mut page_in)
        .unwrap();
    assert_eq!(fetched.bits(), 0x0045_a503);
    let first = Gpa::new(gpa(10).value() + 0xffe);
    assert_eq!(
        asked,
        [(first, AccessKind::Fetch), (gpa(11), AccessKind::Fetch)]
    );
}

#[test]
fn a_resolver_under_a_guard_is_handed_the_memory_and_fills_the_g_stage_from_it() {
    let array = RamArray::<64>::new();
    let ram = array.at(RAM_BASE);
    let guest = guest(ram, RWU);
    let expected = virtual_bytes(&guest);
    let host = ram.host_ptr(guest.spa(gpa(0)).unwrap()).unwrap();
    let start = guest.spa(gpa(0)).unwrap().value();
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    // SAFETY: the guest's memory is contiguous in `ram`, which outlives `memory` and is accessed as R77 says.
    let slot = unsafe { Slot::linear(gpa(0), guest.len(), host) };
    memory.add(slot, &mut NoGStage).unwrap();
    unbacked(&guest);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let mut reader = memory.reader(0).unwrap();
    let view = reader.guard();
    let mut asked = 0;
    let mut map = |view: &PhysicalView<'_>, _: &Fault, at: Gpa, access: AccessKind| {
        asked += 1;
        let Some(HostPage::Writable(page)) = view.host_page(at, access) else {
            return Err(Unresolvable);
        };
        let spa = start + (page.addr().get() - host.addr().get()) as u64;
        let bits = RWU | entry::A | entry::D;
        guest
            .back(at.page_base(), Spa::new(spa), bits)
            .map_err(|_| Unresolvable)
    };
    let mut bytes = vec![0; 8192];
    vcpu.guest_virtual(USER)
        .with_memory(&view, VsEnvironment::BASE)
        .resolving(&mut map)
        .read(GVA, &mut bytes)
        .unwrap();
    assert_eq!(bytes, expected[..8192]);
    // Three tables and two pages.
    assert_eq!(asked, 5);
}
