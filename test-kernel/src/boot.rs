//! From the firmware's jump (or, without firmware, `machine`'s) to Rust: stack, zeroed memory, trap vector, and the host's own translation.
//!
//! The one idea: HS runs under its own Sv39 `satp`, since QEMU before 8.2 picks the cause of a VS-stage fault by it (R59).
//! Three gigapages map the devices and RAM where they are; one page more is for code that runs in U-mode.

use core::arch::{asm, global_asm};

use crate::arguments::{Arguments, text_of};
use crate::text::Text;
use crate::{csr, machine, trap};

global_asm!(
    r#"
    .section .text.entry, "ax"
    .globl _start
_start:
    # In: HS-mode with a0 = hart id, a1 = device tree, satp = 0; or M-mode out of reset.
    # Which of the two: HS may not read mhartid, and the trap leads to 1.
    # Other harts of this program begin at __supervisor_entry (`starting`), or here where firmware mistakes them for the first.
    lla     t0, 1f
    csrw    stvec, t0
    csrr    t0, mhartid
    tail    __machine_start
    .balign 4
1:  tail    __supervisor_entry

    .globl __first_start
__first_start:
    # In: HS-mode, a0 = hart id, a1 = device tree, satp = 0; the first hart that firmware lets go.
    lla     t0, __bss_start
    lla     t1, __bss_end
2:  bgeu    t0, t1, __supervisor_start
    sd      zero, 0(t0)
    addi    t0, t0, 8
    j       2b

    .globl __supervisor_start
__supervisor_start:
    # In: HS-mode, a0 = hart id, a1 = device tree or 0, satp = 0, .bss cleared.
    lla     t0, __has_begun
    li      t1, 1
    sw      t1, 0(t0)
    lla     sp, __boot_stack_end
    call    kernel_main
3:  wfi
    j       3b

    .section .stacks, "aw", @nobits
    .balign 4096
    .space 0x20000
__boot_stack_end:
    .section .text
    "#
);

const VALID: u64 = 1;
const READ_WRITE: u64 = 0b110;
const EXECUTE: u64 = 0b1000;
const USER: u64 = 1 << 4;
const GLOBAL_ACCESSED_DIRTY: u64 = 0b1110_0000;

#[repr(C, align(4096))]
struct Table([u64; 512]);

/// The host's root table. Devices, RAM, and the pointer to `USER_TABLES`.
static ROOT: crate::global::Global<Table> = crate::global::Global::with(Table([0; 512]));
/// The two tables below the root's entry for [`USER_CODE`].
static USER_TABLES: crate::global::Global<[Table; 2]> =
    crate::global::Global::with([const { Table([0; 512]) }; 2]);

/// Where a page that U-mode may execute is mapped.
pub const USER_CODE: u64 = 0x2_0000_0000;

/// Where the host maps a page only when it faults: see [`arm_demand_page`].
pub const DEMAND_PAGE: u64 = USER_CODE + 4096;

/// The page that the next host fault at [`DEMAND_PAGE`] maps, or 0.
static DEMAND: crate::global::Global<u64> = crate::global::Global::new(0);

/// Makes the next host fault at [`DEMAND_PAGE`] map the page at `address` there and go on; with 0, unmaps it.
pub fn arm_demand_page(address: u64) {
    set_host_page(1, 0);
    DEMAND.set(address);
}

/// Maps the demanded page if a fault at `address` asks for it.
pub fn serve_demand(address: u64) -> bool {
    let page = DEMAND.get();
    if page == 0 || address & !0xfff != DEMAND_PAGE {
        return false;
    }
    DEMAND.set(0);
    set_host_page(
        1,
        (page >> 12) << 10 | VALID | READ_WRITE | GLOBAL_ACCESSED_DIRTY,
    );
    true
}

/// An address that the host maps nowhere.
pub const UNMAPPED: u64 = 0x3_0000_0000;

/// Fills the host's tables and answers their `satp`.
fn build_tables() -> u64 {
    let root = ROOT.address() as *mut u64;
    let leaf = VALID | READ_WRITE | GLOBAL_ACCESSED_DIRTY;
    let gigapage = |number: u64| number << 28;
    // SAFETY: the tables are statics of 512 entries; translation is not on yet, and nobody else writes them.
    unsafe {
        root.write_volatile(gigapage(0) | leaf);
        root.add(1).write_volatile(gigapage(1) | leaf);
        root.add(2).write_volatile(gigapage(2) | leaf | EXECUTE);
        let tables = USER_TABLES.address() as u64;
        root.add((USER_CODE >> 30) as usize)
            .write_volatile((tables >> 12) << 10 | VALID);
        (tables as *mut u64).write_volatile(((tables + 4096) >> 12) << 10 | VALID);
    }
    8 << 60 | (root as u64) >> 12
}

/// Maps the page at `address` for U-mode at [`USER_CODE`], readable, writable and executable.
pub fn map_user_code(address: u64) {
    let flags = VALID | READ_WRITE | EXECUTE | USER | GLOBAL_ACCESSED_DIRTY;
    set_host_page(0, (address >> 12) << 10 | flags);
}

/// Writes the entry of the page that is `index` pages after [`USER_CODE`].
fn set_host_page(index: usize, entry: u64) {
    let leaf_table = (USER_TABLES.address() as u64 + 4096) as *mut u64;
    // SAFETY: the entry is one of the static leaf table's; the pages that callers map are the arena's, and nothing of the
    // kernel's own lies at these addresses.
    unsafe {
        leaf_table.add(index).write_volatile(entry);
        asm!("sfence.vma");
    }
}

/// Bytes of the arguments that can be put into the image.
const PATCHED: usize = 240;

// `cargo xtask build --arguments` finds the symbol, and how much room there is.
global_asm!(
    r#"
    .section .data.arguments, "aw", @progbits
    .globl guest_mem_arguments
    .type guest_mem_arguments, @object
    .size guest_mem_arguments, {patched}
guest_mem_arguments:
    .space {patched}
    .section .text
    "#,
    patched = const PATCHED,
);

unsafe extern "C" {
    static guest_mem_arguments: [u8; PATCHED];
}

/// `/chosen/bootargs` of the firmware's device tree, or the machine's; or nothing.
///
/// # Safety
///
/// As [`keep_arguments`].
unsafe fn passed_arguments(device_tree: *const u8) -> Text {
    if device_tree.is_null() {
        return Text::new();
    }
    // SAFETY: the caller's.
    let Ok(tree) = (unsafe { dtoolkit::fdt::Fdt::from_raw(device_tree) }) else {
        return Text::new();
    };
    let Some(chosen) = tree.chosen() else {
        return Text::new();
    };
    match chosen.bootargs() {
        Ok(Some(text)) => Text::format(format_args!("{text}")),
        _ => Text::new(),
    }
}

/// `/chosen/bootargs`, as far as it fits.
static ARGUMENTS: crate::global::Global<Text> = crate::global::Global::new(Text::new());

/// Keeps the boot arguments of the device tree for [`asked_for`] and [`argument`].
///
/// # Safety
///
/// `device_tree` is null or a device tree that nothing changes or moves.
pub unsafe fn keep_arguments(device_tree: *const u8) {
    // SAFETY: the caller's.
    ARGUMENTS.set(unsafe { passed_arguments(device_tree) });
}

/// Runs `body` with the boot arguments: those in the image, then those that were passed.
fn with_arguments<R>(body: impl FnOnce(Arguments<'_>) -> R) -> R {
    let passed = ARGUMENTS.get();
    // SAFETY: the symbol's bytes are the image's, and nobody writes them while it runs.
    let patched = unsafe { &guest_mem_arguments };
    body(Arguments([text_of(patched), passed.as_str()]))
}

/// Whether the boot arguments hold the word.
pub fn asked_for(word: &str) -> bool {
    with_arguments(|arguments| arguments.hold(word))
}

/// What follows `key` in the boot argument that begins with it.
pub fn argument(key: &str) -> Option<Text> {
    with_arguments(|arguments| {
        let value = arguments.value(key)?;
        Some(Text::format(format_args!("{value}")))
    })
}

/// Whether the run is to be short enough for a simulator of circuits: see [`Arguments::ask_for_small`].
pub fn is_small() -> bool {
    with_arguments(|arguments| arguments.ask_for_small(machine::is_standalone()))
}

/// Ends the run; where the machine can tell its user, as one that went well or not.
pub fn power_off(went_well: bool) -> ! {
    if went_well {
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::NoReason);
    } else {
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::SystemFailure);
    }
    loop {
        core::hint::spin_loop();
    }
}

/// Sets this hart up: trap vector, translation, and every CSR that the tests rely on.
pub fn set_up() -> u64 {
    let satp = build_tables();
    reset_csrs(satp);
    satp
}

/// Puts every CSR that a test may have touched back to where a test starts.
pub fn reset_csrs(satp: u64) {
    // SAFETY: the vector is the kernel's own entry; the tables map all of the kernel where it is; guest state is nobody's
    // between tests.
    unsafe {
        csr::sstatus::write(0);
        csr::stvec::write(trap::entry());
        csr::sie::write(0);
        csr::sip::write(0);
        csr::satp::write(satp);
        csr::vsatp::write(0);
        csr::hgatp::write(0);
        csr::hstatus::write(2 << 32);
        csr::hedeleg::write(0);
        csr::hideleg::write(0);
        csr::hie::write(0);
        csr::hvip::write(0);
        csr::vsstatus::write(0);
        csr::vstvec::write(0);
        asm!("sfence.vma");
        fence_everything();
    }
}

/// Turns off the translation that this hart acts under, its own and the guest's, and forgets what it cached.
pub fn clear_translation() {
    // SAFETY: the program runs where it is linked with translation off, too.
    unsafe {
        csr::satp::write(0);
        csr::vsatp::write(0);
        csr::hgatp::write(0);
        asm!("sfence.vma");
    }
    fence_everything();
}

/// `hfence.gvma` and `hfence.vvma` of everything: whatever was cached of any guest is gone.
pub fn fence_everything() {
    // SAFETY: fences change no state that a program sees but translations.
    unsafe {
        asm!(
            ".option push",
            ".option arch, +h",
            "hfence.gvma",
            "hfence.vvma",
            ".option pop",
        );
    }
}
