//! From a trap to the access that caused it, and from the access to the guest going on.
//!
//! The one idea: the instruction bytes are not evidence. The guest may rewrite them between its trap and our fetch, so what is
//! decoded counts only if it fits the cause and the address, and a [`TrappedAccess`] can be had in no other way (R58, I11).

use core::fmt;

use super::address::AddressOperands;
use super::decode::decode;
use super::decoded::{AccessForm, Decoded, DecodedAccess, NotEmulatable};
use super::htinst::{Htinst, decode_htinst};
use super::{GuestRegisters, Instruction, Register};
use crate::access::{AccessKind, Width};
use crate::address::{Gpa, Gva, PAGE_SIZE};
use crate::cause::{self, Refuser};
use crate::fault::{Fault, FaultKind, Operation, TrapInfo};
use crate::inject::Injection;

/// A guest's load or store that trapped, to be carried out on its behalf.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the guest goes on only when its access is completed"]
pub enum TrappedAccess {
    /// Read from the device, then [`complete_load`](TrappedLoad::complete_load).
    Load(TrappedLoad),
    /// Write [`store_value`](TrappedStore::store_value) to the device, then
    /// [`complete_store`](TrappedStore::complete_store).
    Store(TrappedStore),
    /// The access lies in two pages, of which the trap names one: give the guest
    /// [`injection`](AcrossPages::injection), or carry out both [`parts`](AcrossPages::parts). Never one of them (I14).
    AcrossPages(AcrossPages),
}

/// Where an access went, for both kinds.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    gva: Gva,
    gpa: Option<Gpa>,
    width: Width,
    len: usize,
}

/// A load that trapped. Not `Clone`: completing it consumes it.
///
/// ```compile_fail,E0382
/// # use guest_mem::instruction::{GuestRegisters, TrappedLoad};
/// fn complete_twice(load: TrappedLoad, registers: &mut impl GuestRegisters) {
///     load.complete_load(registers, 1);
///     load.complete_load(registers, 2);
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct TrappedLoad {
    place: Place,
    rd: Register,
    sign_extend: bool,
}

/// A store that trapped. Not `Clone`: completing it consumes it.
///
/// ```compile_fail,E0382
/// # use guest_mem::instruction::{GuestRegisters, TrappedStore};
/// fn complete_twice(store: TrappedStore, registers: &mut impl GuestRegisters) {
///     store.complete_store(registers);
///     store.complete_store(registers);
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct TrappedStore {
    place: Place,
    rs2: Register,
}

/// A load or a store that begins in one page and ends in the next (R75).
///
/// The trap names one of the two pages. The other may be anything: memory, another device, or nothing.
///
/// ```
/// use guest_mem::fault::GuestExit;
/// use guest_mem::instruction::{Instruction, Register, TrappedAccess, decode_trapped};
/// use guest_mem::probe::MachineProfile;
/// use guest_mem::{Fault, Gpa, GuestPrivilege, Gva, TrapInfo, cause};
/// # use guest_mem::instruction::GuestRegisters;
/// # struct Vcpu { x: [u64; 32], pc: u64 }
/// # impl GuestRegisters for Vcpu {
/// #     fn read(&self, x: Register) -> u64 { self.x[x.index()] }
/// #     fn write(&mut self, x: Register, value: u64) { self.x[x.index()] = value }
/// #     fn pc(&self) -> u64 { self.pc }
/// #     fn set_pc(&mut self, pc: u64) { self.pc = pc }
/// # }
///
/// // `ld a0, 0(a1)` with a1 = 0x5ffc: 4 bytes of memory, then 4 bytes of the device at GVA 0x6000.
/// let mut vcpu = Vcpu { x: [0; 32], pc: 0x8000_0000 };
/// vcpu.x[11] = 0x5ffc;
/// let exit = GuestExit {
///     trap: TrapInfo { scause: cause::LOAD_GUEST_PAGE, stval: 0x6000, htval: 0x1000_0000 >> 2, htinst: 0 },
///     pc: vcpu.pc,
///     privilege: GuestPrivilege::Supervisor,
///     vsatp: 8 << 60 | 0x8_0001,
/// };
/// let fault = Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED);
/// let fetch = || Ok::<_, Fault>(Instruction::from_bits(0x0005_b503));
/// let Ok(TrappedAccess::AcrossPages(access)) = decode_trapped(&fault, &vcpu, fetch) else { panic!() };
/// let [first, second] = access.parts();
/// assert_eq!((first.gva, first.len, first.gpa), (Gva::new(0x5ffc), 4, None));
/// assert_eq!((second.gva, second.len, second.gpa), (Gva::new(0x6000), 4, Some(Gpa::new(0x1000_0000))));
/// // As a hart that does not carry out misaligned accesses.
/// let injection = access.injection();
/// assert_eq!((injection.cause, injection.tval), (cause::LOAD_MISALIGNED, 0x5ffc));
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct AcrossPages {
    whole: Whole,
    /// Where the page that the trap names begins in guest-physical memory, and whether it is the second.
    trapped: Option<Gpa>,
    is_second: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Whole {
    Load(TrappedLoad),
    Store(TrappedStore),
}

/// The part of an access that lies in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessPart {
    /// Where it begins.
    pub gva: Gva,
    /// Its bytes: 1 to 7.
    pub len: usize,
    /// Where it begins in guest-physical memory, if the trap told: of one of the two parts at most.
    pub gpa: Option<Gpa>,
}

/// Why there is no [`TrappedAccess`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrappedError {
    /// The trap came from the walk of the guest's page tables, not from the access: there is nothing to emulate. The guest
    /// keeps page tables where no memory is; [`Fault::injection_when_unbacked`] is what its access deserves.
    PageTableAccess(Fault),
    /// A memory access that the library does not emulate.
    NotEmulatable(NotEmulatable),
    /// The bytes at the pc are no access that could have trapped so ([`FaultKind::InstructionChanged`]): another hart of the
    /// guest changed them. Enter the guest again; if the access still traps, it traps again.
    InstructionChanged(Fault),
    /// The instruction could not be fetched: [`Fault::resolution`] says who has to act.
    Fetch(Fault),
    /// The fault is not that of a load or a store of the guest's own.
    NotDataAccess(Fault),
}

/// Finds out which load or store trapped: from `htinst` if it is usable, else from the bytes that `fetch` gets at the trap's
/// pc, with the guest's privilege at the trap. After a misaligned access or an access fault (4 to 7) `htinst` is not believed:
/// firmware may have passed the trap on and left there what another one wrote (R95).
///
/// `fault` is what [`Fault::from_guest_exit`] made of the exit, by any cause of a load (4, 5, 13, 21) or of a store (6, 7, 15,
/// 23). `registers` are the guest's at the exit: they tell where an access begins that lies in two pages (R75). `fetch` is
/// called at most once, and not at all if `htinst` suffices. Its error may be a [`Fault`] or an
/// [`AccessError`](crate::AccessError). Touches no guest memory itself.
///
/// **Trust.** The guest-physical address comes from the hart. The width comes from the instruction, and the guest can have
/// another of the same direction there by now: a device checks that address *and* width lie within it.
///
/// # Errors
///
/// See [`TrappedError`].
///
/// ```
/// use guest_mem::fault::GuestExit;
/// use guest_mem::instruction::{TrappedError, decode_trapped};
/// # use guest_mem::instruction::{GuestRegisters, Register};
/// use guest_mem::probe::MachineProfile;
/// use guest_mem::{Fault, Gpa, GuestPrivilege, TrapInfo, cause};
///
/// # struct Vcpu;
/// # impl GuestRegisters for Vcpu {
/// #     fn read(&self, _: Register) -> u64 { 0 }
/// #     fn write(&mut self, _: Register, _: u64) {}
/// #     fn pc(&self) -> u64 { 0 }
/// #     fn set_pc(&mut self, _: u64) {}
/// # }
/// # let vcpu = Vcpu;
/// // A page table of the guest's lies in a device.
/// let exit = GuestExit {
///     trap: TrapInfo { scause: cause::STORE_GUEST_PAGE, stval: 0x5000, htval: 0x1000_0008 >> 2, htinst: 0x3000 },
///     pc: 0x8000_0000,
///     privilege: GuestPrivilege::Supervisor,
///     vsatp: 8 << 60 | 0x8_0001,
/// };
/// let fault = Fault::from_guest_exit(&exit, &MachineProfile::AS_SPECIFIED);
/// let error = decode_trapped(&fault, &vcpu, || -> Result<_, Fault> { unreachable!() }).unwrap_err();
/// assert_eq!(error, TrappedError::PageTableAccess(fault));
/// assert_eq!(fault.gpa, Some(Gpa::new(0x1000_0008)));
/// assert_eq!(fault.injection_when_unbacked().unwrap().cause, cause::STORE_ACCESS);
/// ```
pub fn decode_trapped<E: Into<Fault>>(
    fault: &Fault,
    registers: &impl GuestRegisters,
    fetch: impl FnOnce() -> Result<Instruction, E>,
) -> Result<TrappedAccess, TrappedError> {
    let (Operation::GuestLoad | Operation::GuestStore, Some(trap)) = (fault.operation, fault.trap)
    else {
        return Err(TrappedError::NotDataAccess(*fault));
    };
    if fault.is_of_page_table() {
        return Err(TrappedError::PageTableAccess(*fault));
    }
    let access = fault.operation.access_kind();
    match htinst_of(&trap) {
        Htinst::Access {
            access: decoded,
            offset,
        } if decoded.access_kind() == access && offset < decoded.width.bytes() as u64 => {
            return Ok(TrappedAccess::new(decoded, fault, offset));
        }
        Htinst::NotEmulatable(refused) if refused.kind.may_fault_as(access) => {
            return Err(TrappedError::NotEmulatable(refused));
        }
        // A value that does not fit the cause is as good as none.
        _ => {}
    }
    let instruction = fetch().map_err(|error| TrappedError::Fetch(error.into()))?;
    match decode(instruction) {
        Decoded::Access(decoded) if decoded.access_kind() == access => {
            let address = AddressOperands::of(instruction).address(registers);
            match offset_of(fault.stval(), address) {
                // Else it is not this instruction that the hart reported.
                offset if offset < decoded.width.bytes() as u64 => {
                    Ok(TrappedAccess::new(decoded, fault, offset))
                }
                _ => Err(TrappedError::InstructionChanged(changed(fault))),
            }
        }
        Decoded::NotEmulatable(refused) if refused.kind.may_fault_as(access) => {
            Err(TrappedError::NotEmulatable(refused))
        }
        _ => Err(TrappedError::InstructionChanged(changed(fault))),
    }
}

/// What `htinst` says of a data access that raised `trap`. A hart writes it at each trap into HS-mode. The causes that a
/// firmware passes on (R21) it writes as it likes.
const fn htinst_of(trap: &TrapInfo) -> Htinst {
    const PASSED_ON: u32 = cause::bits_of(Refuser::Machine) | cause::bits_of(Refuser::Alignment);
    if cause::bit(trap.scause) & PASSED_ON != 0 {
        return Htinst::Unusable;
    }
    decode_htinst(trap.htinst)
}

/// Bits of an address that pointer masking leaves alone (R14).
const UNMASKED_BITS: u32 = 48;

/// How far behind `address`, where the access begins, the hart reports it.
const fn offset_of(reported: Gva, address: u64) -> u64 {
    let unused = u64::BITS - UNMASKED_BITS;
    reported.value().wrapping_sub(address) << unused >> unused
}

fn changed(fault: &Fault) -> Fault {
    Fault {
        kind: FaultKind::InstructionChanged,
        ..*fault
    }
}

impl TrappedAccess {
    /// `offset` is how far behind its begin the access is reported; less than its width.
    fn new(decoded: DecodedAccess, fault: &Fault, offset: u64) -> Self {
        let reported = fault.stval();
        let gva = Gva::new(reported.value().wrapping_sub(offset));
        let width = decoded.width.bytes() as u64;
        let is_split = gva.page_offset() + width > PAGE_SIZE;
        let place = Place {
            gva,
            // In the same page the distance is that of the guest-virtual addresses.
            gpa: fault
                .gpa
                .filter(|_| !is_split)
                .map(|gpa| Gpa::new(gpa.value().wrapping_sub(offset))),
            width: decoded.width,
            len: decoded.len,
        };
        let whole = match decoded.form {
            AccessForm::Load { rd, sign_extend } => Whole::Load(TrappedLoad {
                place,
                rd,
                sign_extend,
            }),
            AccessForm::Store { rs2 } => Whole::Store(TrappedStore { place, rs2 }),
        };
        if is_split {
            return Self::AcrossPages(AcrossPages {
                whole,
                trapped: fault.gpa.map(Gpa::page_base),
                is_second: reported.page_base() != gva.page_base(),
            });
        }
        whole.into()
    }

    const fn place(&self) -> &Place {
        match self {
            Self::Load(load) => &load.place,
            Self::Store(store) => &store.place,
            Self::AcrossPages(split) => split.place(),
        }
    }
}

impl From<Whole> for TrappedAccess {
    fn from(whole: Whole) -> Self {
        match whole {
            Whole::Load(load) => Self::Load(load),
            Whole::Store(store) => Self::Store(store),
        }
    }
}

impl AcrossPages {
    const fn place(&self) -> &Place {
        match &self.whole {
            Whole::Load(load) => &load.place,
            Whole::Store(store) => &store.place,
        }
    }

    /// Whether it is a load or a store.
    pub const fn access_kind(&self) -> AccessKind {
        match self.whole {
            Whole::Load(_) => AccessKind::Load,
            Whole::Store(_) => AccessKind::Store,
        }
    }

    /// The parts in the first and in the second page.
    pub const fn parts(&self) -> [AccessPart; 2] {
        let place = self.place();
        let first_len = PAGE_SIZE - place.gva.page_offset();
        let (first_gpa, second_gpa) = match self.trapped {
            Some(page) if self.is_second => (None, Some(page)),
            Some(page) => (Some(Gpa::new(page.value() | place.gva.page_offset())), None),
            None => (None, None),
        };
        [
            AccessPart {
                gva: place.gva,
                len: first_len as usize,
                gpa: first_gpa,
            },
            AccessPart {
                gva: Gva::new(place.gva.value().wrapping_add(first_len)),
                len: place.width.bytes() - first_len as usize,
                gpa: second_gpa,
            },
        ]
    }

    /// The exception of a hart that does not carry out misaligned accesses (4 or 6), at the address where the access begins:
    /// the guest may make it by smaller ones. Nothing has happened to memory or to a device.
    pub const fn injection(&self) -> Injection {
        Injection::misaligned(self.access_kind(), self.place().gva)
    }

    /// The access as a whole, to be completed when *both* parts have been carried out. Its [`gpa`](TrappedAccess::gpa) is
    /// `None`.
    pub fn into_whole(self) -> TrappedAccess {
        self.whole.into()
    }
}

macro_rules! place_accessors {
    ($($access:ty),*) => {$(
        impl $access {
            /// The guest-virtual address of its first byte.
            pub const fn gva(&self) -> Gva {
                self.place().gva
            }

            /// How many bytes the access moves.
            pub const fn width(&self) -> Width {
                self.place().width
            }

            /// The length of its instruction in bytes, by which the pc advances: 2 or 4.
            pub const fn instruction_len(&self) -> usize {
                self.place().len
            }
        }
    )*};
}

place_accessors!(TrappedAccess, TrappedLoad, TrappedStore, AcrossPages);

macro_rules! gpa_accessors {
    ($($access:ty),*) => {$(
        impl $access {
            /// The guest-physical address of its first byte: `Some` if the hart reported it, and all of the access is in that
            /// page. Else it takes a software walk of [`gva`](Self::gva), or of each part.
            pub const fn gpa(&self) -> Option<Gpa> {
                self.place().gpa
            }
        }
    )*};
}

gpa_accessors!(TrappedAccess, TrappedLoad, TrappedStore);

impl TrappedLoad {
    const fn place(&self) -> &Place {
        &self.place
    }

    /// The destination. `x0` forgets the value.
    pub const fn register(&self) -> Register {
        self.rd
    }

    /// Whether the value is extended by its sign, else by zeros.
    pub const fn is_sign_extended(&self) -> bool {
        self.sign_extend
    }

    /// Ends the load with the value that the device answered, in its low bits: extends it, writes the destination (`x0`
    /// stays zero), and advances the pc past the instruction.
    pub fn complete_load(self, registers: &mut impl GuestRegisters, value: u64) {
        if self.rd != Register::ZERO {
            let value = match (self.place.width, self.sign_extend) {
                (Width::Byte, true) => value as i8 as u64,
                (Width::Half, true) => value as i16 as u64,
                (Width::Word, true) => value as i32 as u64,
                (width, _) => value & width.mask(),
            };
            registers.write(self.rd, value);
        }
        self.place.advance(registers);
    }
}

impl TrappedStore {
    const fn place(&self) -> &Place {
        &self.place
    }

    /// The source.
    pub const fn register(&self) -> Register {
        self.rs2
    }

    /// The value for the device: the source register's low bits, the rest zero.
    pub fn store_value(&self, registers: &impl GuestRegisters) -> u64 {
        if self.rs2 == Register::ZERO {
            return 0;
        }
        registers.read(self.rs2) & self.place.width.mask()
    }

    /// Ends the store: advances the pc past the instruction.
    pub fn complete_store(self, registers: &mut impl GuestRegisters) {
        self.place.advance(registers);
    }
}

impl Place {
    /// The pc wraps at the top of the address space, as the hart's own does.
    fn advance(&self, registers: &mut impl GuestRegisters) {
        let pc = registers.pc().wrapping_add(self.len as u64);
        registers.set_pc(pc);
    }
}

impl fmt::Display for TrappedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageTableAccess(fault) => {
                let doing = match fault.kind {
                    FaultKind::GuestPage {
                        access: AccessKind::Store,
                        ..
                    } => "update",
                    _ => "read",
                };
                write!(f, "{doing} of a guest page-table entry")?;
                match fault.gpa {
                    Some(gpa) => write!(f, " at GPA {gpa:#x}"),
                    None => Ok(()),
                }
            }
            Self::NotEmulatable(refused) => refused.fmt(f),
            Self::InstructionChanged(fault) | Self::Fetch(fault) => fault.fmt(f),
            Self::NotDataAccess(fault) => {
                write!(f, "{fault} is not that of a load or a store of the guest's")
            }
        }
    }
}

impl core::error::Error for TrappedError {}
