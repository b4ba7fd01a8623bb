//! Copies of every size and shape, by every path.

use guest_mem::csr::GMode;
use guest_mem::guest_physical::{GuestPhysicalMemory, NoGStage, PhysicalView};
use guest_mem::guest_virtual::{BackedVirtual, VsEnvironment};
use guest_mem::hart::riscv64::{HandlerHook, Recovery, Riscv64, ScopedStvec};
use guest_mem::{AccessError, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu};
use test_kernel::library::loaded;

use crate::measure::{Bench, Name};
use crate::memory::Guest;
use crate::{baseline, limit};

const SIZES: [usize; 11] = [1, 2, 4, 8, 16, 64, 256, 1024, 4096, 65536, 1 << 20];

/// Those of a small run, and from where on the byte loop is too slow for it.
const SMALL_SIZES: [usize; 3] = [8, 64, 4096];
const LARGE: usize = 4096;

/// The smallest copies that are measured by a walk.
const WALKED_FROM: usize = 64;

/// How the guest's bytes and the host's lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Both at multiples of 8.
    Aligned,
    /// The guest's at a multiple of 8, the host's one further.
    Misaligned,
    /// Half of the bytes on the guest's next page, the host's aligned alike.
    Crossing,
}

impl Shape {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Aligned, "aligned"),
        (Self::Misaligned, "misaligned"),
        (Self::Crossing, "crossing"),
    ];

    /// Offsets into guest memory and into the host's buffer, if the size has this shape.
    fn offsets(self, size: usize) -> Option<(u64, usize)> {
        match self {
            Self::Aligned => Some((0, 0)),
            Self::Misaligned => Some((0, 1)),
            Self::Crossing => {
                let at = 4096 - size / 2;
                (2..=4096).contains(&size).then_some((at as u64, at % 8))
            }
        }
    }
}

/// The right to use a hart of each form. Nothing is fenced: what is measured are accesses of a conforming machine.
pub fn harts() -> (Riscv64<HandlerHook>, Riscv64<ScopedStvec>) {
    // SAFETY: HS-mode with the H extension; the trap handler calls `try_fixup`; everything is mapped.
    unsafe { (Riscv64::new_conforming(), Riscv64::new_conforming()) }
}

/// Counts an access as done, or ends the run.
#[inline(always)]
pub fn done<T>(result: Result<T, AccessError>) -> T {
    #[cold]
    #[inline(never)]
    fn fail(error: &AccessError) -> ! {
        panic!("{error}")
    }
    match result {
        Ok(value) => value,
        Err(error) => fail(&error),
    }
}

/// The host's buffer.
pub fn bytes<'b>(buffer: *mut u8, len: usize) -> &'b mut [u8] {
    // SAFETY: the bench's own buffer, which nobody else uses during a call.
    unsafe { core::slice::from_raw_parts_mut(buffer, len) }
}

type Vcpu<'h, R> = LoadedVcpu<'h, Riscv64<R>>;

fn gva_read<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    let space = vcpu.guest_virtual(GuestPrivilege::Supervisor);
    done(space.read(Gva::new(at), bytes(buffer, len)));
    0
}

fn gva_write<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    let space = vcpu.guest_virtual(GuestPrivilege::Supervisor);
    done(space.write(Gva::new(at), bytes(buffer, len)));
    0
}

fn gpa_read<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(vcpu.guest_physical().read(Gpa::new(at), bytes(buffer, len)));
    0
}

fn gpa_write<R: Recovery>(vcpu: &Vcpu<'_, R>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(
        vcpu.guest_physical()
            .write(Gpa::new(at), bytes(buffer, len)),
    );
    0
}

fn direct_read(view: &PhysicalView<'_>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(view.read(Gpa::new(at), bytes(buffer, len)));
    0
}

fn direct_write(view: &PhysicalView<'_>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(view.write(Gpa::new(at), bytes(buffer, len)));
    0
}

fn direct_fill(view: &PhysicalView<'_>, at: u64, _: *mut u8, len: usize) -> u64 {
    done(view.fill(Gpa::new(at), 0x5a, len));
    0
}

/// Looks for the end of a string that does not end within `len` bytes.
fn direct_scan(view: &PhysicalView<'_>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    let end = done(view.read_cstr(Gpa::new(at), bytes(buffer, len)));
    end.map_or(0, |end| end as u64)
}

type Walked<'w, R> = BackedVirtual<'w, 'w, Riscv64<R>, PhysicalView<'w>>;

fn walk_read(space: &Walked<'_, HandlerHook>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(space.read(Gva::new(at), bytes(buffer, len)));
    0
}

fn walk_write(space: &Walked<'_, HandlerHook>, at: u64, buffer: *mut u8, len: usize) -> u64 {
    done(space.write(Gva::new(at), bytes(buffer, len)));
    0
}

/// Measures them.
pub fn run(bench: &Bench, guest: &Guest) {
    let (hook, scoped) = harts();
    let memory = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    memory
        .add(guest.slot(guest.gpa, guest.len), &mut NoGStage)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut reader = memory.reader(0).unwrap_or_else(|error| panic!("{error}"));
    let view = reader.guard();

    // The environment's rules do not matter: every entry is plain.
    let environment = VsEnvironment::BASE.with_walk_from(0);
    let ram = GuestPhysicalMemory::<1, 1>::new(GMode::Sv39x4);
    ram.add(guest.ram(), &mut NoGStage)
        .unwrap_or_else(|error| panic!("{error}"));
    let mut ram_reader = ram.reader(0).unwrap_or_else(|error| panic!("{error}"));
    let ram_view = ram_reader.guard();

    let small = bench.is_small();
    let sizes: &[usize] = if small { &SMALL_SIZES } else { &SIZES };
    for size in [64, 4096] {
        let row = |name, operation| {
            let name = Name::plain(name, "gpa-direct", size);
            bench.row(name, operation, &view, guest.gpa, guest.buffer, size);
        };
        row("fill", direct_fill);
        row("scan", direct_scan);
    }

    for (shape, shape_name) in Shape::ALL {
        for &size in sizes {
            // Printing takes most of a small run's cycles: one row of what differs little.
            if small && shape != Shape::Aligned && (shape == Shape::Crossing || size < LARGE) {
                continue;
            }
            let Some((offset, host)) = shape.offsets(size) else {
                continue;
            };
            let (gva, gpa, spa) = (guest.gva + offset, guest.gpa + offset, guest.spa + offset);
            let buffer = guest.buffer.wrapping_add(host);
            let name = |operation, path| Name {
                operation,
                path,
                size,
                shape: shape_name,
            };
            macro_rules! both {
                ($path:literal, $read:expr, $write:expr, $environment:expr, $at:expr) => {
                    bench.row(name("read", $path), $read, $environment, $at, buffer, size);
                    bench.row(
                        name("write", $path),
                        $write,
                        $environment,
                        $at,
                        buffer,
                        size,
                    );
                };
            }
            if !small || size < LARGE {
                use baseline::{gpa_read, gpa_write, gva_read, gva_write};
                both!("baseline-gva", gva_read, gva_write, &(), gva);
                both!("baseline-gpa", gpa_read, gpa_write, &(), gpa);
            }
            // One token at a time: each row makes its own.
            both!("gva-hook", gva_read, gva_write, &loaded(&hook), gva);
            both!("gva-scoped", gva_read, gva_write, &loaded(&scoped), gva);
            both!("gpa-hlv-hook", gpa_read, gpa_write, &loaded(&hook), gpa);
            both!("gpa-hlv-scoped", gpa_read, gpa_write, &loaded(&scoped), gpa);
            both!("gpa-direct", direct_read, direct_write, &view, gpa);
            if size >= WALKED_FROM {
                let vcpu = loaded(&hook);
                let walked = vcpu
                    .guest_virtual(GuestPrivilege::Supervisor)
                    .with_memory(&ram_view, environment);
                both!("gva-walk", walk_read, walk_write, &walked, gva);
            }
            both!("limit", limit::read, limit::write, &(), spa);
        }
    }
}
