//! Accesses that page in.

use core::sync::atomic::Ordering;
use std::vec;

use super::*;
use crate::access::AccessKind;
use crate::csr::GMode;
use crate::fault::{Fault, FaultKind};
use crate::guest_memory::GuestMemory;

const BASE: u64 = 0x8000_0000;

#[test]
fn a_write_over_absent_pages_asks_once_for_each_and_goes_on_where_it_stopped() {
    let frames = Frames::new(3);
    let pages = absent(3);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    let mut asked = Vec::new();
    let mut page_in = |fault: &Fault, gpa: Gpa, access: AccessKind| {
        // No guard is held: waiting for all of them ends at once.
        memory.synchronize(|| panic!("a guard is held while the resolver runs"));
        assert_eq!(fault.gpa, Some(gpa));
        asked.push((gpa.value() - BASE, access));
        let index = (gpa.value() - BASE) / PAGE_SIZE;
        // SAFETY: the frames outlive the memory.
        unsafe { pages[index as usize].set(HostPage::Writable(frames.page(index as usize))) };
        Ok(())
    };
    let data: Vec<u8> = (0..0x1234u32).map(|byte| byte as u8 ^ 0x5a).collect();
    let mut reader = memory.reader(0).unwrap();
    reader
        .write_with(Gpa::new(BASE + 0xff0), &data, &mut page_in)
        .unwrap();
    let mut back = vec![0; data.len()];
    reader
        .read_with(Gpa::new(BASE + 0xff0), &mut back, &mut page_in)
        .unwrap();
    assert_eq!(back, data);
    let access = AccessKind::Store;
    assert_eq!(asked, [(0xff0, access), (0x1000, access), (0x2000, access)]);
}

#[test]
fn copy_on_write_takes_two_steps_and_no_third() {
    let frames = Frames::new(2);
    let pages = absent(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let mut steps = 0;
    let mut lazily = |_: &Fault, _: Gpa, _: AccessKind| {
        steps += 1;
        let next = match pages[0].get() {
            HostPage::Absent => HostPage::ReadOnly(frames.page(0)),
            _ => HostPage::Writable(frames.page(1)),
        };
        // SAFETY: the frames outlive the memory.
        unsafe { pages[0].set(next) };
        Ok(())
    };
    let space = reader.resolving(&mut lazily);
    space
        .store(Gpa::new(BASE), 3u16, Ordering::Relaxed)
        .unwrap();
    assert_eq!(
        space.compare_exchange(Gpa::new(BASE), 3u16, 4, Ordering::AcqRel),
        Ok(Ok(3))
    );
    assert_eq!(steps, 2);
}

#[test]
fn a_resolver_that_does_not_help_is_asked_four_times_a_page() {
    let frames = Frames::new(1);
    let pages = absent(2);
    // SAFETY: the frames outlive the memory.
    unsafe { pages[0].set(HostPage::Writable(frames.page(0))) };
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let mut asked = 0;
    let mut useless = |_: &Fault, _: Gpa, _: AccessKind| {
        asked += 1;
        Ok(())
    };
    let error = reader
        .fill_with(Gpa::new(BASE + 0xff8), 1, 16, &mut useless)
        .unwrap_err();
    assert_eq!(
        (error.completed, error.fault.kind),
        (8, FaultKind::Unresolved)
    );
    assert_eq!(error.fault.gpa, Some(Gpa::new(BASE + 0x1000)));
    assert_eq!(asked, 4);
}

#[test]
fn a_resolver_may_give_up_and_is_not_asked_what_it_cannot_help() {
    let pages = absent(1);
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(Gpa::new(BASE), &pages), &mut NoGStage)
        .unwrap();
    let mut reader = memory.reader(0).unwrap();
    let mut asked = 0;
    let mut gives_up = |_: &Fault, _: Gpa, _: AccessKind| {
        asked += 1;
        Err(Unresolvable)
    };
    let error = reader
        .read_with(Gpa::new(BASE), &mut [0], &mut gives_up)
        .unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::Unresolved);
    let error = reader
        .read_with(Gpa::new(BASE + 0x1000), &mut [0], &mut gives_up)
        .unwrap_err();
    assert_eq!(error.fault.kind, FaultKind::NoSlot);
    assert_eq!(asked, 1);
}
