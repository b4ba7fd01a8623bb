//! Typed accesses, objects, strings and chunks.

use super::*;
use crate::hart::model::Protection;

#[test]
fn typed_accesses_are_one_instruction_each() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    space
        .store(GVA, 0x1122_3344_5566_7788_u64, Ordering::SeqCst)
        .unwrap();
    assert_eq!(
        space.load::<u64>(GVA, Ordering::Acquire),
        Ok(0x1122_3344_5566_7788)
    );
    assert_eq!(space.load::<u32>(GVA, Ordering::Relaxed), Ok(0x5566_7788));
    assert_eq!(
        space.load::<u16>(Gva::new(GVA.value() + 6), Ordering::SeqCst),
        Ok(0x1122)
    );
    space.store(GVA, 0xffu8, Ordering::Release).unwrap();
    assert_eq!(space.load::<u8>(GVA, Ordering::Relaxed), Ok(0xff));
    assert_eq!((hart.counts().loads, hart.counts().stores), (4, 2));
    assert_eq!(space.read_obj::<[u16; 2]>(GVA), Ok([0x77ff, 0x5566]));
    space.write_obj(GVA, &0x0102_0304u32).unwrap();
    assert_eq!(space.load::<u8>(GVA, Ordering::Relaxed), Ok(4));
}

#[test]
fn a_string_ends_at_its_nul_and_later_pages_are_not_touched() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    let end = GVA.value() + 4 * 4096;
    let start = Gva::new(end - 6);
    space.write(start, b"guest\0").unwrap();
    let mut buffer = [0xff; 64];
    assert_eq!(space.read_cstr(start, &mut buffer), Ok(Some(5)));
    assert_eq!(&buffer[..5], b"guest");
    assert_eq!(space.read_cstr(start, &mut buffer[..5]), Ok(None));
    space.write(start, b"guest!").unwrap();
    let error = space.read_cstr(start, &mut buffer).unwrap_err();
    assert_eq!((error.completed, error.fault.gva), (6, Some(Gva::new(end))));
}

#[test]
fn a_fault_after_a_strings_nul_does_not_hide_it() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    guest.write(gpa(PAGES[0]), b"name\0").unwrap();
    let hart = guest.hart();
    let start = guest.spa(gpa(PAGES[0])).unwrap().value() + 64;
    hart.protect(Protection {
        range: Spa::new(start)..Spa::new(start + 8),
        read: false,
        write: false,
        execute: false,
    });
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    let mut buffer = [0; 256];
    assert_eq!(space.read_cstr(GVA, &mut buffer), Ok(Some(4)));
    // And one that comes before it is told.
    guest.write(gpa(PAGES[0]), &[b'x'; 64]).unwrap();
    let error = space.read_cstr(GVA, &mut buffer).unwrap_err();
    assert_eq!((error.completed, error.fault.kind), (64, FaultKind::Access));
}

#[test]
fn chunks_cover_the_range_in_order_and_stop_when_told() {
    let memory = RamArray::<64>::new();
    let guest = guest(memory.at(RAM_BASE), RWU);
    let hart = guest.hart();
    let vcpu = load(&hart);
    let space = vcpu.guest_virtual(USER);
    let bytes = virtual_bytes(&guest);
    let start = Gva::new(GVA.value() + 100);
    let mut seen = Vec::new();
    let result = space.for_each_chunk(start, 9000, |offset, chunk| {
        assert_eq!(offset, seen.len());
        assert!(chunk.len() <= crate::guest_memory::CHUNK);
        seen.extend_from_slice(chunk);
        ControlFlow::<()>::Continue(())
    });
    assert_eq!(
        (result, &seen[..]),
        (Ok(ControlFlow::Continue(())), &bytes[100..9100])
    );
    let stopped = space.for_each_chunk(start, 9000, |offset, _| {
        if offset >= 500 {
            ControlFlow::Break(offset)
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(stopped, Ok(ControlFlow::Break(512)));
    // What came before a fault is handed over.
    let mut count = 0;
    let error = space
        .for_each_chunk(Gva::new(GVA.value() + 4 * 4096 - 300), 400, |_, chunk| {
            count += chunk.len();
            ControlFlow::<()>::Continue(())
        })
        .unwrap_err();
    assert_eq!((count, error.completed), (300, 300));
}
