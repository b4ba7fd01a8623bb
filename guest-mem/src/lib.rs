//! Guest-memory access for RISC-V hypervisors.
//!
//! A hypervisor touches its guests' memory all the time: it writes the initial image, reads the buffer a guest names in an
//! SBI call, fetches the instruction that trapped, serves virtqueues, explains a crash. Every such address was chosen by an
//! untrusted guest. This crate does those accesses with the H extension's `hlv`, `hlvx` and `hsv` and through the host's own
//! mapping: `no_std`, without allocation, wide, without needless fences, and every fault comes back as a value.
//!
//! # Finding your way
//!
//! | you want | you use |
//! |---|---|
//! | memory at a guest-virtual address of the vCPU on this hart | [`LoadedVcpu::guest_virtual`] |
//! | several small accesses there for little more than their instructions | [`LoadedVcpu::open_window`] |
//! | the same with atomics, dirty log and demand paging | [`GuestVirtual::with_memory`](guest_virtual::GuestVirtual::with_memory), [`resolving`](guest_virtual::GuestVirtual::resolving) |
//! | memory at a guest-physical address that the host maps | [`guest_physical`] |
//! | memory at a guest-physical address that it does not map | [`LoadedVcpu::guest_physical`] |
//! | the instruction that trapped, decoded, and finished for the guest | [`LoadedVcpu::fetch_instruction`], [`instruction`] |
//! | to know what the guest's page tables say | [`translate`] |
//! | to know what this machine really does | [`probe`](mod@probe) |
//! | to take the library into an existing kernel | `hart::riscv64` (on such a machine), `docs/adopting.md` of the repository |
//! | to test your own guest-memory code on your laptop | [`hart::model`] |
//!
//! All spaces share one vocabulary, [`GuestMemory`]; the five functions under their usual names are in [`copy`].
//!
//! # Example
//!
//! On the software hart, so that it runs anywhere; on a RISC-V machine `hart` is a `hart::riscv64::Riscv64`.
//!
//! ```
//! use guest_mem::hart::model::{ModelGuest, RamArray};
//! use guest_mem::translate::entry::{R, U, W};
//! use guest_mem::{AccessKind, Gpa, GuestMemory, GuestPrivilege, Gva, LoadedVcpu, Resolution, Spa};
//!
//! // A guest that maps one page, and the hart on which it is loaded.
//! let memory = RamArray::<32>::new();
//! let guest = ModelGuest::new(memory.at(Spa::new(0x8_0000_0000)))?;
//! guest.map(Gva::new(0x5000), Gpa::new(0x8000_3000), R | W | U)?;
//! let hart = guest.hart();
//!
//! // SAFETY: the guest's hgatp, vsatp and vsstatus are in the hart, and stay there while `vcpu` exists.
//! let vcpu = unsafe { LoadedVcpu::new(&hart) };
//! let user = vcpu.guest_virtual(GuestPrivilege::User);
//! user.write(Gva::new(0x5ff0), b"sixteen bytes...")?;
//!
//! // The next page is not mapped: the guest's own business. How far it got is exact.
//! let mut buffer = [0; 20];
//! let error = user.read(Gva::new(0x5ff0), &mut buffer).unwrap_err();
//! assert_eq!((error.completed, &buffer[..16]), (16, &b"sixteen bytes..."[..]));
//! assert!(matches!(error.fault.resolution(), Resolution::Inject(exception) if exception.cause == 13));
//!
//! // A page that the hypervisor took away: its own business.
//! guest.unback(Gpa::new(0x8000_3000))?;
//! let error = user.read(Gva::new(0x5008), &mut buffer).unwrap_err();
//! let gpa = Gpa::new(0x8000_3008);
//! assert_eq!(error.fault.resolution(), Resolution::Resolve { gpa, access: AccessKind::Load });
//! assert_eq!(
//!     error.to_string(),
//!     "guest read at GVA 0x5008 at GPA 0x80003008: guest-page fault (G-stage) \
//!      [scause 21 stval 0x5008 htval 0x20000c02 htinst 0x0] (after 0 bytes)",
//! );
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! A guest-virtual access opens an *access window*, for each page if it has more bytes than one: interrupts off, `hstatus.SPVP`
//! as the stated privilege says, nothing else of the host's changed. The copy itself is a routine of one assembly unit. If an instruction of it
//! traps, the exception table of that unit says where it goes on; the host's handler asks it (`try_fixup`), or a vector that
//! the library puts into `stvec` around the routine does. The trap's CSRs are read inside the handler and become a [`Fault`].
//! A guest-physical access finds its slot and goes through the host's mapping, under a read guard that whoever takes memory
//! away waits for.
//!
//! # Safety
//!
//! Two promises carry everything, and both are `unsafe fn`: that the value for a hart is made on that hart in HS-mode, and
//! that a vCPU's CSRs are loaded while its [`LoadedVcpu`] exists ([`LoadedVcpu::new`]). Slots of host memory are the third
//! ([`Slot::linear`](guest_physical::Slot::linear)). Everything that takes a guest's number is safe: an address may be
//! anything, nothing panics, no reference to guest memory is made, and nothing the guest controls bounds a loop alone.
//!
//! # Performance
//!
//! Guest-virtual copies move 8 bytes for three instructions where both addresses allow it; a window costs at most four CSR
//! writes (six for a fetch under SUM, or a guest-physical access under UBE) and no fence on a machine that behaves as specified. Guest-physical copies through slots write no CSR. Interrupts
//! are off for one page's bytes of copying at most.
//!
//! # Features
//!
//! - `fence-guest-accesses` (off): on riscv64, a `fence` between guest accesses and host accesses in the copy routines, in
//!   place of just another instruction, for cores that mis-execute neighbours (R69: CVA6).
//!
//! # The rules
//!
//! R1, I1 and so on in this documentation name the rules of the architecture that a statement rests on: `docs/rules.md`
//! of the repository lists them with their sources, tests and the deviations of machines.
#![no_std]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("guest-mem is for RV64 hypervisors and 64-bit development machines");

pub mod access;
pub mod address;
mod atomic;
pub mod cause;
pub mod copy;
pub mod csr;
pub mod fault;
mod guest_bytes;
pub mod guest_memory;
pub mod guest_physical;
pub mod guest_virtual;
pub mod hart;
pub mod inject;
pub mod instruction;
pub mod probe;
pub mod sync;
pub mod translate;

pub use access::{AccessKind, GuestPrivilege, Width};
pub use address::{Gpa, Gva, Spa};
pub use copy::{
    copy_from_guest, copy_from_guest_va, copy_to_guest, copy_to_guest_va, fetch_guest_instruction,
};
pub use fault::{AccessError, Fault, FaultKind, Operation, Resolution, TrapInfo};
pub use guest_memory::GuestMemory;
pub use guest_virtual::LoadedVcpu;
#[cfg(target_arch = "riscv64")]
pub use hart::riscv64::try_fixup;
pub use sync::sync_instructions;
