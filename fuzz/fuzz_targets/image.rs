//! What a loader hands to the hypervisor: a bundle, a kernel, a device tree. Reading any of them never panics, and a plan
//! that can be made has everything inside RAM and nothing twice.
//!
//! The first byte of an input says what the rest is.
#![no_main]

use guest_mem::Gpa;
use hypervisor::boot::machine::{MAX_HARTS, Machine};
use hypervisor::image::plan::DEVICE_TREE_ROOM;
use hypervisor::image::{Bundle, Kernel, LoadPlan};
use libfuzzer_sys::fuzz_target;

/// Where the hypervisor puts a guest's RAM.
const RAM_BASE: u64 = 0x8000_0000;

fn plan(file: &[u8], initrd: Option<&[u8]>, ram_base: u64, ram_len: u64) {
    let kernel = match Kernel::parse(file, Gpa::new(ram_base)) {
        Ok(kernel) => kernel,
        Err(error) => return drop(error.to_string()),
    };
    let plan = match LoadPlan::new(&kernel, initrd, Gpa::new(ram_base), ram_len) {
        Ok(plan) => plan,
        Err(error) => return drop(error.to_string()),
    };
    let wide = u128::from;
    let ram = wide(ram_base)..wide(ram_base) + wide(ram_len);
    let tree = plan.device_tree.value();
    let mut ranges = vec![(wide(tree), wide(tree) + wide(DEVICE_TREE_ROOM))];
    for piece in plan.pieces() {
        let start = wide(piece.gpa.value());
        assert!(!piece.content.is_empty());
        ranges.push((start, start + wide(piece.content.len())));
    }
    ranges.sort_unstable();
    for &(start, end) in &ranges {
        assert!(
            ram.start <= start && end <= ram.end.min(1 << 64),
            "{plan:x?}"
        );
    }
    for pair in ranges.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{plan:x?}");
    }
    if let Some(initrd) = &plan.initrd {
        assert!(ranges.contains(&(wide(initrd.start), wide(initrd.end))));
    }
}

fn bundle(bytes: &[u8]) {
    match Bundle::parse(bytes) {
        Ok(bundle) => {
            assert!(bundle.harts != Some(0));
            let memory = bundle.memory.unwrap_or(64 << 20);
            plan(bundle.kernel, bundle.initrd, RAM_BASE, memory);
        }
        Err(error) => drop(error.to_string()),
    }
}

fn device_tree(bytes: &[u8]) {
    for boot_hart in [None, Some(0)] {
        match Machine::from_device_tree(bytes, boot_hart) {
            Ok(machine) => {
                assert!((1..=MAX_HARTS).contains(&machine.harts.as_slice().len()));
                assert!(!machine.memory.as_slice().is_empty());
            }
            Err(error) => drop(error.to_string()),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    match input {
        [b'B', bytes @ ..] => bundle(bytes),
        [b'T', bytes @ ..] => device_tree(bytes),
        [b'K', bytes @ ..] => {
            if let Some((base, rest)) = bytes.split_first_chunk()
                && let Some((len, file)) = rest.split_first_chunk()
            {
                // Half of the file is the initial RAM disk.
                let initrd = &file[file.len() / 2..];
                let (base, len) = (u64::from_le_bytes(*base), u64::from_le_bytes(*len));
                plan(file, Some(initrd), base, len);
            }
        }
        _ => {}
    }
});
