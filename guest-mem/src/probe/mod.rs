//! What this machine does where the specification leaves it open, or where machines are known to deviate.
//!
//! The one idea: ask the machine, not its name. ISA strings do not tell who updates A and D bits, and version numbers do
//! not tell whether a write to `vsatp` is seen at once; a scratch guest of a few pages does, in a few dozen accesses.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::access::Width;
use crate::address::{PAGE_SIZE, Spa};
use crate::cause;
use crate::csr::{HSTATUS_SPVP, STATUS_MXR, STATUS_SDT, STATUS_SIE, STATUS_SUM};
use crate::fault::{HTINST_PAGE_TABLE_WRITE, TrapInfo};
#[cfg(target_arch = "riscv64")]
use crate::hart::FenceState;
use crate::hart::{Csr, Hart};
use crate::translate::AdPolicy;
use crate::translate::entry::{A, D, R, U, V, W, X};

/// What [`probe`] found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineProfile {
    /// The machine goes on using a translation after `vsatp` or `hgatp` was written (QEMU before 9.0, R34): accesses fence
    /// when what they run under changes (R35). The probe has told [`Hart::fence_state`] of the value that it was called with.
    pub stale_vsatp: bool,
    /// What the VS-stage does about clear A and D bits of accesses by `hlv` and `hsv`: to be put into the rules of
    /// [`translate`](crate::translate).
    pub vs_stage_ad: AdPolicy,
    /// What the G-stage does about clear A and D bits.
    pub g_stage_ad: AdPolicy,
    /// Refusals of the VS-stage arrive as access faults (QEMU before 8.2 while the host's `satp` is Bare, R59): cause 5 or
    /// 7 then says nothing, and only a walk in software does.
    pub page_faults_as_access_faults: bool,
    /// `hlvx` asks for X, as specified. QEMU before 8.1 asks for R instead (R61).
    pub hlvx_needs_execute: bool,
    /// Accesses as VS-mode obey `vsstatus.SUM`, as specified. QEMU before 8.1 takes it as set, and shares translations between
    /// the privileges besides (R62): there the rights of guest-virtual accesses are known by a walk only
    /// ([`VsEnvironment::walk_always`](crate::guest_virtual::VsEnvironment::walk_always)).
    pub obeys_sum: bool,
    /// A page-table access that the G-stage refuses has the cause of a load (21), also in a store or a fetch (QEMU before 8.1,
    /// R67).
    pub implicit_faults_are_loads: bool,
    /// `htinst` of a page-table access that the G-stage refuses tells the type of the access it was made for, and not whether
    /// the entry was read or updated (QEMU 11.1, R76). Already told to [`Hart::fence_state`].
    pub htinst_follows_access: bool,
}

impl MachineProfile {
    /// A machine as the specification says, which leaves A and D bits to software.
    pub const AS_SPECIFIED: Self = Self {
        stale_vsatp: false,
        vs_stage_ad: AdPolicy::Fault,
        g_stage_ad: AdPolicy::Fault,
        page_faults_as_access_faults: false,
        hlvx_needs_execute: true,
        obeys_sum: true,
        implicit_faults_are_loads: false,
        htinst_follows_access: false,
    };
}

#[cfg(target_arch = "riscv64")]
impl<R: crate::hart::riscv64::Recovery> crate::hart::riscv64::Riscv64<R> {
    /// The hart that runs this code, of a machine that was probed: further values of a hart, or one for each access.
    ///
    /// A profile is `Copy` and can be kept in a `static`.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new). [`probe`] found `profile` on this hart, or on one that is of the same kind.
    pub const unsafe fn with_profile(profile: &MachineProfile) -> Self {
        // SAFETY: the caller makes the promises of `new`, and the probe found this of the hart.
        unsafe {
            Self::with_fences(FenceState::of(
                profile.stale_vsatp,
                profile.htinst_follows_access,
            ))
        }
    }
}

/// Why [`probe`] could not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// The scratch memory is not aligned to 16 KiB, which the root of a G-stage table needs.
    Misaligned,
    /// `hgatp` does not take Sv39x4, or `vsatp` does not take Sv39: what was read back instead.
    ModeRefused {
        /// The value that was read back.
        read_back: u64,
    },
    /// An access of the scratch guest that must succeed trapped.
    Trapped(TrapInfo),
}

impl core::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Misaligned => f.write_str("the probe's scratch memory is not aligned to 16 KiB"),
            Self::ModeRefused { read_back } => {
                write!(f, "Sv39 over Sv39x4 is refused: read back {read_back:#x}")
            }
            Self::Trapped(trap) => write!(f, "an access of the probe trapped: {trap:x?}"),
        }
    }
}

impl core::error::Error for ProbeError {}

/// Bytes of scratch memory that [`probe`] needs, aligned to 16 KiB.
pub const PROBE_BYTES: usize = page::COUNT * PAGE_SIZE as usize;

/// Words in a page.
const WORDS: usize = PAGE_SIZE as usize / 8;

/// Pages of the scratch memory. The guest sees page n at guest-physical page n, identity-mapped by 4 KiB entries.
mod page {
    /// The G-stage root takes pages 0 to 3.
    pub const G_MIDDLE: usize = 4;
    pub const G_LEAF: usize = 5;
    pub const VS_ROOT: usize = 6;
    pub const VS_MIDDLE: usize = 7;
    pub const VS_LEAF: usize = 8;
    /// Data at guest-physical page 9; at guest-virtual page 9 there is page 10.
    pub const FIRST: usize = 9;
    pub const SECOND: usize = 10;
    pub const COUNT: usize = 11;
}

/// Every right but U's, and used before.
const ALL: u64 = V | R | W | X | A | D;

const SV39: u64 = 8 << 60;
const FIRST_MARK: u64 = 0x1111_1111_1111_1111;
const SECOND_MARK: u64 = 0x2222_2222_2222_2222;

/// Probes this hart with a scratch guest, tells [`Hart::fence_state`] whether accesses need fences, and answers the rest.
///
/// To be called once on each hart, before its first guest, with `henvcfg` as its guests will have it: what the VS-stage does
/// about A and D bits depends on `henvcfg.ADUE`, and so is to be measured again where guests differ in that. Takes a few
/// dozen accesses; interrupts are off meanwhile. Every CSR is put back and all translations are fenced.
///
/// ```
/// use guest_mem::Spa;
/// use guest_mem::hart::Hart;
/// use guest_mem::hart::model::{Machine, ModelHart, Quirks, RamArray};
/// use guest_mem::probe::probe;
///
/// // A machine such as QEMU before 9.0, and a scratch area that the machine has at the same address.
/// let ram = RamArray::<16>::new();
/// let address = Spa::new(0x8_0000_0000);
/// let ram = ram.at(address);
/// let quirks = Quirks { stale_vsatp: true, ..Quirks::default() };
/// let hart = ModelHart::new(ram, Machine { quirks, ..Machine::new() });
///
/// let scratch = ram.host_ptr(address).unwrap().cast().as_ptr();
/// // SAFETY: nobody else uses the memory, and no vCPU is loaded.
/// let profile = unsafe { probe(&hart, scratch, address) }?;
/// assert!(profile.stale_vsatp && hart.fence_state().may_be_stale());
/// # Ok::<(), guest_mem::probe::ProbeError>(())
/// ```
///
/// # Errors
///
/// [`ProbeError`]; then nothing is known, and [`Hart::fence_state`] is unchanged: a hart that was never probed stays careful.
///
/// # Safety
///
/// `scratch` points to [`PROBE_BYTES`] bytes of memory that is the probe's alone, at machine address `address`, and that
/// the machine's page-table walks may read and write. No vCPU is loaded. The hart recovers from faults.
pub unsafe fn probe<H: Hart>(
    hart: &H,
    scratch: *mut u64,
    address: Spa,
) -> Result<MachineProfile, ProbeError> {
    if !address.is_aligned_to(16 << 10) {
        return Err(ProbeError::Misaligned);
    }
    // SAFETY: the caller gives the memory for the length of the call; the page-table walker's accesses are atomic too.
    let words =
        unsafe { core::slice::from_raw_parts(scratch.cast::<AtomicU64>(), PROBE_BYTES / 8) };
    let scratch = Scratch { words, address };
    scratch.build();
    let before = Before::save(hart);
    let result = Guest { hart, scratch }.measure();
    before.restore(hart);
    let profile = result?;
    hart.fence_state().set_stale_vsatp(profile.stale_vsatp);
    hart.fence_state()
        .set_htinst_follows_access(profile.htinst_follows_access);
    Ok(profile)
}

/// The CSRs that the probe borrows.
struct Before {
    sstatus: u64,
    hstatus: u64,
    vsstatus: u64,
    vsatp: u64,
    hgatp: u64,
}

const STATUS_BORROWED: u64 = STATUS_SIE | STATUS_SDT | STATUS_MXR;

impl Before {
    fn save<H: Hart>(hart: &H) -> Self {
        // SAFETY: `restore` puts back what changes.
        unsafe {
            Self {
                sstatus: hart.clear_csr_bits(Csr::Sstatus, STATUS_BORROWED),
                hstatus: hart.set_csr_bits(Csr::Hstatus, HSTATUS_SPVP),
                vsstatus: hart.clear_csr_bits(Csr::Vsstatus, STATUS_SUM | STATUS_MXR),
                vsatp: hart.swap_csr(Csr::Vsatp, 0),
                hgatp: hart.read_csr(Csr::Hgatp),
            }
        }
    }

    fn restore<H: Hart>(self, hart: &H) {
        // SAFETY: these are the values that `save` found. `vsatp` is 0 while `hgatp` changes (R32).
        unsafe {
            hart.swap_csr(Csr::Vsatp, 0);
            hart.swap_csr(Csr::Hgatp, self.hgatp);
            hart.swap_csr(Csr::Vsatp, self.vsatp);
            hart.swap_csr(Csr::Vsstatus, self.vsstatus);
            if self.hstatus & HSTATUS_SPVP == 0 {
                hart.clear_csr_bits(Csr::Hstatus, HSTATUS_SPVP);
            }
        }
        hart.hfence_gvma(None);
        hart.hfence_vvma(None);
        // SAFETY: as above; interrupts come last.
        unsafe {
            hart.set_csr_bits(Csr::Sstatus, self.sstatus & STATUS_BORROWED);
        }
    }
}

struct Scratch<'s> {
    words: &'s [AtomicU64],
    address: Spa,
}

impl Scratch<'_> {
    fn word(&self, page: usize, index: usize) -> &AtomicU64 {
        &self.words[page * WORDS + index]
    }

    /// The entry that leads the G-stage to a page of the scratch memory.
    fn g_entry(&self, page: usize, flags: u64) -> u64 {
        (self.address.page_number() + page as u64) << 10 | flags
    }

    fn build(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
        let set = |page: usize, index: usize, value: u64| {
            self.word(page, index).store(value, Ordering::Relaxed)
        };
        set(0, 0, self.g_entry(page::G_MIDDLE, V));
        set(page::G_MIDDLE, 0, self.g_entry(page::G_LEAF, V));
        for guest_page in 0..page::COUNT {
            set(page::G_LEAF, guest_page, self.g_entry(guest_page, ALL | U));
        }
        let vs_entry = |page: usize, flags: u64| (page as u64) << 10 | flags;
        set(page::VS_ROOT, 0, vs_entry(page::VS_MIDDLE, V));
        set(page::VS_MIDDLE, 0, vs_entry(page::VS_LEAF, V));
        set(page::VS_LEAF, page::FIRST, vs_entry(page::SECOND, ALL));
        set(page::FIRST, 0, FIRST_MARK);
        set(page::SECOND, 0, SECOND_MARK);
    }
}

/// The scratch guest on this hart.
struct Guest<'p, H: Hart> {
    hart: &'p H,
    scratch: Scratch<'p>,
}

/// The address that is probed: its guest-virtual page leads to [`page::SECOND`], its guest-physical one is
/// [`page::FIRST`].
const PROBED: u64 = page::FIRST as u64 * PAGE_SIZE;

impl<H: Hart> Guest<'_, H> {
    fn vsatp(&self) -> u64 {
        SV39 | page::VS_ROOT as u64
    }

    fn fence(&self) {
        self.hart.hfence_gvma(None);
        self.hart.hfence_vvma(None);
    }

    fn write(&self, csr: Csr, value: u64) {
        // SAFETY: the probe saved these CSRs and puts them back.
        unsafe { self.hart.swap_csr(csr, value) };
    }

    fn load(&self) -> Result<u64, TrapInfo> {
        // SAFETY: interrupts are off and the G-stage shows the scratch memory only.
        unsafe { self.hart.load_guest(PROBED, Width::Double) }
    }

    fn store(&self) -> Result<(), TrapInfo> {
        // SAFETY: as in `load`.
        unsafe { self.hart.store_guest(PROBED, Width::Double, SECOND_MARK) }
    }

    fn measure(&self) -> Result<MachineProfile, ProbeError> {
        let hgatp = SV39 | self.scratch.address.page_number();
        for (csr, value) in [(Csr::Hgatp, hgatp), (Csr::Vsatp, self.vsatp())] {
            self.write(csr, value);
            let read_back = self.hart.read_csr(csr);
            if read_back != value {
                return Err(ProbeError::ModeRefused { read_back });
            }
        }
        self.fence();
        let stale_vsatp = self.stale_vsatp()?;
        self.write(Csr::Vsatp, self.vsatp());
        self.fence();
        let implicit = self.refused_table_of_a_store();
        Ok(MachineProfile {
            stale_vsatp,
            implicit_faults_are_loads: implicit.scause == cause::LOAD_GUEST_PAGE,
            htinst_follows_access: implicit.htinst == HTINST_PAGE_TABLE_WRITE,
            vs_stage_ad: self.ad_policy(page::VS_LEAF, page::FIRST)?,
            g_stage_ad: self.ad_policy(page::G_LEAF, page::SECOND)?,
            page_faults_as_access_faults: self.page_faults_as_access_faults()?,
            hlvx_needs_execute: self.hlvx_needs_execute()?,
            obeys_sum: self.obeys_sum(),
        })
    }

    /// Loads at the same number under Sv39, Bare, Sv39 without a fence: each must see its own page (R28, R34).
    fn stale_vsatp(&self) -> Result<bool, ProbeError> {
        let mut stale = false;
        for (vsatp, mark) in [
            (self.vsatp(), SECOND_MARK),
            (0, FIRST_MARK),
            (self.vsatp(), SECOND_MARK),
        ] {
            self.write(Csr::Vsatp, vsatp);
            stale |= self.load().map_err(ProbeError::Trapped)? != mark;
        }
        Ok(stale)
    }

    /// Runs `access` with flags of one leaf entry flipped, and puts the entry back.
    fn with_leaf<T>(
        &self,
        table: usize,
        index: usize,
        flip: u64,
        access: impl FnOnce() -> Result<T, TrapInfo>,
    ) -> (Result<T, TrapInfo>, u64) {
        let entry = self.scratch.word(table, index);
        let old = entry.load(Ordering::Relaxed);
        entry.store(old ^ flip, Ordering::SeqCst);
        self.fence();
        let result = access();
        let after = entry.load(Ordering::SeqCst);
        entry.store(old, Ordering::SeqCst);
        self.fence();
        (result, after)
    }

    fn ad_policy(&self, table: usize, index: usize) -> Result<AdPolicy, ProbeError> {
        let (result, after) = self.with_leaf(table, index, A | D, || self.store());
        match result {
            Ok(()) if after & D != 0 => Ok(AdPolicy::Update),
            Ok(()) => Ok(AdPolicy::Ignore),
            Err(trap) if expected_store_fault(&trap) => Ok(AdPolicy::Fault),
            Err(trap) => Err(ProbeError::Trapped(trap)),
        }
    }

    fn page_faults_as_access_faults(&self) -> Result<bool, ProbeError> {
        let (result, _) = self.with_leaf(page::VS_LEAF, page::FIRST, V, || self.load());
        match result {
            Err(trap) if trap.scause == cause::LOAD_ACCESS => Ok(true),
            Err(trap) if trap.scause == cause::LOAD_PAGE => Ok(false),
            Err(trap) => Err(ProbeError::Trapped(trap)),
            Ok(_) => Err(ProbeError::Trapped(TrapInfo::default())),
        }
    }

    fn hlvx_needs_execute(&self) -> Result<bool, ProbeError> {
        let (result, _) = self.with_leaf(page::VS_LEAF, page::FIRST, X, || {
            // SAFETY: as in `load`.
            unsafe { self.hart.fetch_parcel(PROBED) }
        });
        Ok(result.is_err())
    }

    /// Stores where the G-stage has no page for the page table: the walk's read is refused. All zeroes if it is not.
    fn refused_table_of_a_store(&self) -> TrapInfo {
        let (result, _) = self.with_leaf(page::G_LEAF, page::VS_LEAF, V, || self.store());
        result.err().unwrap_or_default()
    }

    /// Loads as VS-mode, with SUM clear, from a user page.
    fn obeys_sum(&self) -> bool {
        let (result, _) = self.with_leaf(page::VS_LEAF, page::FIRST, U, || self.load());
        result.is_err()
    }
}

/// Whether a store to a page with D clear faulted as a stage that leaves A and D to software faults. Cause 7 is a page
/// fault on machines that [deviate](MachineProfile::page_faults_as_access_faults).
fn expected_store_fault(trap: &TrapInfo) -> bool {
    [
        cause::STORE_PAGE,
        cause::STORE_GUEST_PAGE,
        cause::STORE_ACCESS,
    ]
    .contains(&trap.scause)
}

#[cfg(test)]
mod tests;
