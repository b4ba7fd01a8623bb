//! Making the guest: from a bundle that the loader put into memory, or from the image that is built in.
//!
//! The one idea: everything that is in guest memory before the first instruction is written there by the library, page by
//! page as it is brought in, like any other access. A [`Recipe`] can be followed any number of times, for a series of guests.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use guest_mem::guest_physical::Reader;
use guest_mem::probe::MachineProfile;
use guest_mem::{AccessError, Gpa, GuestMemory, sync_instructions};
use spin::Mutex;

use crate::boot::hart_local::HartLocal;
use crate::boot::machine::{MAX_HARTS, Machine};
use crate::clock::Clock;
use crate::csr;
use crate::device_tree::{DeviceTreeError, GuestMachine};
use crate::devices::{BusError, Wiring};
use crate::entropy::{self, Entropy};
use crate::features;
use crate::image::plan::DEVICE_TREE_ROOM;
use crate::image::{Bundle, BundleError, Content, Kernel, KernelError, LoadPlan, PlanError};
use crate::memory::frames::{FRAME, Range};
use crate::memory::host::{self, HostTables};
use crate::memory::page_table::MapError;
use crate::vcpu::grant::Grant;
use crate::vcpu::{self, DemandPaging};
use crate::vm::Vm;
use crate::vm::guest_ram::{GuestRam, RAM_BASE, RamError};
use crate::vm::hart_state::Start;

/// Guest RAM, unless the bundle says otherwise.
const DEFAULT_MEMORY: u64 = 128 << 20;

/// Harts of the built-in guest.
const TOUR_HARTS: usize = 2;

/// The tour guest's ELF file, or nothing.
static TOUR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tour.elf"));

/// Why there is no guest.
#[derive(Debug)]
pub enum GuestError {
    /// Nothing was given to run.
    NoImage,
    /// The bundle is not one.
    Bundle(BundleError<'static>),
    /// The kernel's format.
    Kernel(KernelError),
    /// Something finds no place in guest RAM.
    Plan(PlanError),
    /// The guest's device tree cannot be made.
    DeviceTree(DeviceTreeError),
    /// The guest's memory cannot be made.
    Ram(RamError),
    /// The devices overlap.
    Devices(BusError),
    /// The image has more bytes than the machine has free.
    TooLarge {
        /// Bytes of the image.
        image: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The image cannot be written: the machine has too little memory.
    Load(AccessError),
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImage => f.write_str(
                "there is no guest: no bundle was passed as initrd, and none was built in",
            ),
            Self::Bundle(error) => write!(f, "{error}"),
            Self::Kernel(error) => write!(f, "guest kernel: {error}"),
            Self::Plan(error) => write!(f, "{error}"),
            Self::DeviceTree(error) => write!(f, "{error}"),
            Self::Ram(error) => write!(f, "guest memory: {error}"),
            Self::Devices(error) => write!(f, "guest devices: {error}"),
            Self::TooLarge { image, free } => write!(
                f,
                "the guest's image has {image} bytes, and {free} bytes of the machine are free"
            ),
            Self::Load(error) => write!(f, "loading the guest: {error}"),
        }
    }
}

/// All that is known of a guest before it is made.
pub struct Recipe {
    machine: &'static Machine,
    clock: Clock,
    entropy: Mutex<Entropy>,
    bundle: Bundle<'static>,
    kernel: Kernel<'static>,
    plan: LoadPlan<'static>,
    grant: Grant,
    profile: MachineProfile,
    memory: u64,
    vmid: u64,
    host_harts: [u64; MAX_HARTS],
    harts: usize,
}

impl Recipe {
    /// Finds out what there is to run on the machine, and what it can be given.
    ///
    /// # Errors
    ///
    /// [`GuestError`]; there is nothing to run then.
    pub fn new(machine: &'static Machine, clock: Clock) -> Result<Self, GuestError> {
        let host_harts = machine.harts.as_slice();
        let bundle = bundle(machine)?;
        let kernel = Kernel::parse(bundle.kernel, RAM_BASE).map_err(GuestError::Kernel)?;
        let memory = bundle.memory.unwrap_or(DEFAULT_MEMORY);
        let plan =
            LoadPlan::new(&kernel, bundle.initrd, RAM_BASE, memory).map_err(GuestError::Plan)?;

        let (image, free) = (plan.bytes(), host::free_bytes());
        if image > free {
            return Err(GuestError::TooLarge { image, free });
        }
        let loaded = machine.initrd.filter(|_| bundle.series.is_none());
        if memory > free + loaded.map_or(0, |range| range.len()) {
            log::warn!(
                "the guest has {memory} bytes of RAM, and the machine has {free}: it is ended if it uses too many"
            );
        }

        let wanted = bundle.harts.unwrap_or(1).max(1);
        let harts = wanted.min(host_harts.len()).min(MAX_HARTS);
        if harts < wanted {
            log::warn!("the guest wants {wanted} harts, the machine has {harts}: it gets {harts}");
        }
        let mut ids = [0; MAX_HARTS];
        ids[..harts].copy_from_slice(&host_harts[..harts]);
        let grant = Grant::probe(machine.isa.as_str(), machine.cache_block_bytes)
            .map_err(|error| GuestError::Ram(RamError::Tables(error)))?;
        if machine.rng_seed.as_slice().is_empty() && bundle.series.is_none() {
            log::warn!("no rng-seed from the firmware: the guest's comes from timing alone");
        }
        let entropy = Entropy::new(machine.rng_seed.as_slice(), entropy::timing());
        Ok(Self {
            machine,
            clock,
            entropy: Mutex::new(entropy),
            bundle,
            kernel,
            plan,
            grant,
            profile: vcpu::probe_machine(&grant, 0),
            memory,
            vmid: vmid(),
            host_harts: ids,
            harts,
        })
    }

    /// The machine's harts that run the guest.
    pub fn host_harts(&self) -> &[u64] {
        &self.host_harts[..self.harts]
    }

    /// What the hart of a vCPU is given.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle<'static> {
        &self.bundle
    }

    /// Ticks of `time` in a second.
    pub fn timebase_frequency(&self) -> u64 {
        self.machine.timebase_frequency
    }

    /// Makes free memory of the bundle, after the only guest of this recipe was made; returns the machine's harts that run it.
    pub fn release(self) -> Vec<u64> {
        let (harts, machine) = (Vec::from(self.host_harts()), self.machine);
        // What points into the bundle.
        drop(self);
        if let Some(loaded) = machine.initrd {
            // SAFETY: the boot gave the range as loaded, and this was the only recipe.
            let bytes = unsafe { host::release_loaded(loaded) };
            log::info!("{} KiB of the bundle are free memory again", bytes >> 10);
        }
        harts
    }

    /// Makes the guest and loads it. A `seed` is what it finds as `rng-seed`, 8 bytes, the highest first; without one it finds
    /// random bytes.
    ///
    /// # Errors
    ///
    /// [`GuestError`]; there is nothing to run then.
    pub fn make(&self, seed: Option<u64>) -> Result<Box<Vm>, GuestError> {
        let pages = host::allocate_page_entries((self.memory / FRAME) as usize)
            .ok_or(GuestError::Ram(RamError::Tables(MapError::OutOfMemory)))?;
        // The RAM of a guest of a series goes on in another slot after three quarters: such guests point buffers across the
        // seam (`guests/hostile`).
        let seam = match self.bundle.series {
            Some(_) => pages.len() / 4 * 3,
            None => pages.len(),
        };
        let ram = GuestRam::with_seam(HostTables, pages, self.vmid, seam);
        let ram = ram.map_err(GuestError::Ram)?;
        let vm = Vm::new(
            String::from(self.bundle.name.unwrap_or("guest")),
            ram,
            self.grant,
            self.profile,
            self.clock,
            self.host_harts(),
        )
        .map_err(GuestError::Devices)?;
        let mut vm = Box::new(vm);
        vm.drill = self.bundle.drill;
        let tree = self.device_tree(&vm, seed)?;
        load(&vm, &self.plan, &tree).map_err(GuestError::Load)?;
        if let Some(boot_hart) = vm.state(0) {
            let start = Start {
                address: self.plan.entry.value(),
                opaque: self.plan.device_tree.value(),
            };
            // A hart that was never started always starts.
            let _ = boot_hart.request_start(start);
        }
        Ok(vm)
    }

    /// Says what is about to run.
    pub fn announce(&self) {
        log::info!(
            "guest {}: {:?}, {} KiB at {:#x}, {} hart(s), entry {:#x}",
            self.bundle.name.unwrap_or("guest"),
            self.kernel.format,
            self.memory >> 10,
            RAM_BASE,
            self.harts,
            self.plan.entry
        );
        let extensions = features::guest_extensions(self.machine.isa.as_str(), &self.grant.granted);
        let withheld = features::withheld(self.machine.isa.as_str(), &extensions);
        log::info!("withheld from it: {}", withheld.join(" "));
    }

    /// What the guest is told of its machine: what it was granted, and nothing else.
    fn device_tree(&self, vm: &Vm, seed: Option<u64>) -> Result<Vec<u8>, GuestError> {
        let seed = match seed {
            Some(seed) => seed.to_be_bytes().to_vec(),
            None => self.entropy.lock().seed().to_vec(),
        };
        let machine = self.machine;
        let extensions = features::guest_extensions(machine.isa.as_str(), &vm.grant.granted);
        let block = |name, bytes| if extensions.contains(&name) { bytes } else { 0 };
        GuestMachine {
            memory: RAM_BASE.value()..RAM_BASE.value() + vm.ram.byte_len(),
            harts: vm.harts() as u32,
            isa: &features::isa_string(&extensions),
            mmu_type: machine.mmu.name(),
            timebase_frequency: machine.timebase_frequency,
            cache_management_block: block("zicbom", machine.cache_block_bytes.management),
            cache_zero_block: block("zicboz", machine.cache_block_bytes.zero),
            cache_prefetch_block: block("zicbop", machine.cache_block_bytes.prefetch),
            wiring: Wiring::VIRT,
            command_line: self.bundle.command_line,
            initrd: self.plan.initrd.clone(),
            rng_seed: &seed,
        }
        .to_device_tree(DEVICE_TREE_ROOM)
        .map_err(GuestError::DeviceTree)
    }
}

/// Gives back all that [`Recipe::make`] took.
///
/// # Safety
///
/// The guest is over: no hart runs it, has its memory loaded or remembers how that translates.
pub unsafe fn unmake(vm: Box<Vm>) {
    let Vm { ram, .. } = *vm;
    // SAFETY: by this function's contract; the readers went with the harts.
    unsafe {
        let pages = ram.free();
        host::free_page_entries(pages);
    }
}

fn bundle(machine: &Machine) -> Result<Bundle<'static>, GuestError> {
    match machine.initrd {
        Some(range) => Bundle::parse(loaded_bytes(range)).map_err(GuestError::Bundle),
        None if TOUR.is_empty() => Err(GuestError::NoImage),
        None => Ok(Bundle {
            kernel: TOUR,
            name: Some("tour"),
            harts: Some(TOUR_HARTS),
            ..Bundle::default()
        }),
    }
}

/// What the loader put into memory.
fn loaded_bytes(range: Range) -> &'static [u8] {
    // SAFETY: the device tree says that the bundle is there; its frames are no free memory until `Recipe::release`, which takes
    // all that points there with it. So nobody writes to them, and memory is reached at its own address.
    unsafe { core::slice::from_raw_parts(range.start as *const u8, range.len() as usize) }
}

fn load(vm: &Vm, plan: &LoadPlan<'_>, tree: &[u8]) -> Result<(), AccessError> {
    let mut reader = vm
        .ram
        .reader(GuestRam::<HostTables>::LOADER)
        .expect("the guest is loaded once");
    for piece in plan.pieces() {
        vm.ram.prepare(piece.gpa, piece.content.len());
        match piece.content {
            Content::Bytes(bytes) => write(vm, &mut reader, piece.gpa, bytes)?,
            // RAM is zero until somebody writes to it, but a page may hold the end of the bytes before.
            Content::Zero(len) => zero(vm, &mut reader, piece.gpa, len)?,
        }
        vm.ram.flush(piece.gpa, piece.content.len());
    }
    write(vm, &mut reader, plan.device_tree, tree)?;
    vm.ram.flush(plan.device_tree, tree.len() as u64);
    Ok(())
}

fn write(vm: &Vm, reader: &mut Reader<'_>, gpa: Gpa, bytes: &[u8]) -> Result<(), AccessError> {
    vm.memory_use.physical_writes.add_one();
    reader.write_with(gpa, bytes, &mut DemandPaging(vm))?;
    vm.memory_use.bytes.add(bytes.len() as u64);
    // No other hart has run anything of this guest yet.
    sync_instructions(&HartLocal::current().hart, gpa, bytes.len(), |_, _| {});
    Ok(())
}

/// Clears the rest of the page at `gpa`; the pages after it are zero because nobody has written to them.
fn zero(vm: &Vm, reader: &mut Reader<'_>, gpa: Gpa, len: u64) -> Result<(), AccessError> {
    let rest = (FRAME - gpa.page_offset()).min(len) as usize;
    if gpa.page_offset() == 0 {
        return Ok(());
    }
    let mut resolver = DemandPaging(vm);
    reader.resolving(&mut resolver).fill(gpa, 0, rest)
}

/// A VMID for the guest: 1, or 0 where the machine has no room for one (R41).
fn vmid() -> u64 {
    const VMID: u64 = 0x3fff << 44;
    // SAFETY: no guest runs; the mode stays Bare.
    unsafe { csr::write!("hgatp", VMID) };
    let has_vmids = csr::read!("hgatp") & VMID != 0;
    // SAFETY: as above.
    unsafe { csr::write!("hgatp", 0) };
    u64::from(has_vmids)
}
