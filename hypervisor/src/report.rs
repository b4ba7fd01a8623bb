//! What is said when a run ends: how the guest died, if it did, what its memory did, and last how it ended.

use guest_mem::cause;
use guest_mem::translate::{Access, Purpose, WalkTrace};
use guest_mem::{GuestPrivilege, Gva};

use crate::csr;
use crate::memory::host;
use crate::vcpu::Vcpu;
use crate::vm::{Ending, Vm};

/// Reports on a guest that has ended. Its other harts may not have noticed yet.
pub fn end(vcpu: &mut Vcpu<'_>, ending: Ending) {
    if !matches!(ending, Ending::Shutdown | Ending::Reboot) {
        obituary(vcpu);
    }
    summary(vcpu.vm);
}

/// The hypervisor's last line of a guest: how it ended. No hart runs it any more.
pub fn closing_line(vm: &Vm) {
    if let Some(ending) = vm.ending() {
        log::info!("guest {} ended: {ending}", vm.name);
    }
}

/// Where the guest stood, the instruction there, and how its last fault's address translates.
fn obituary(vcpu: &mut Vcpu<'_>) {
    let (pc, privilege) = (Gva::new(vcpu.context.pc), vcpu.privilege());
    let mode = match privilege {
        GuestPrivilege::Supervisor => "VS",
        GuestPrivilege::User => "VU",
    };
    log::info!("guest hart {} was at pc {pc:#x} in {mode}-mode", vcpu.index);
    match vcpu.fetch() {
        Ok(instruction) => log::info!("  instruction there: {instruction}"),
        Err(fault) => log::info!("  no instruction there: {fault}"),
    }
    let trap = vcpu.context.trap;
    log::info!(
        "  last exit: cause {:#x}, address {:#x}; last exception of its own: cause {:#x} at {:#x}, address {:#x}",
        trap.scause,
        trap.stval,
        csr::read!("vscause"),
        csr::read!("vsepc"),
        csr::read!("vstval")
    );
    for (row, values) in vcpu.context.x.chunks(4).enumerate() {
        log::info!(
            "  x{:<2} {:016x} {:016x} {:016x} {:016x}",
            row * 4,
            values[0],
            values[1],
            values[2],
            values[3]
        );
    }
    walk(vcpu, Access::fetch(pc, privilege));
    if let Some(access) = faulting_access(vcpu, privilege) {
        walk(vcpu, access);
    }
}

/// The access whose fault the guest saw or caused last, if it was not the fetch at its pc.
fn faulting_access(vcpu: &Vcpu<'_>, privilege: GuestPrivilege) -> Option<Access> {
    let trap = vcpu.context.trap;
    let of = |scause, address| {
        let purpose = match scause {
            cause::LOAD_PAGE | cause::LOAD_GUEST_PAGE | cause::LOAD_ACCESS => Purpose::Load,
            cause::STORE_PAGE | cause::STORE_GUEST_PAGE | cause::STORE_ACCESS => Purpose::Store,
            cause::INSTRUCTION_PAGE | cause::INSTRUCTION_GUEST_PAGE | cause::INSTRUCTION_ACCESS => {
                Purpose::Fetch
            }
            _ => return None,
        };
        Some(Access {
            gva: Gva::new(address),
            purpose,
            privilege,
        })
    };
    of(trap.scause, trap.stval)
        .or_else(|| of(csr::read!("vscause"), csr::read!("vstval")))
        .filter(|access| access.purpose != Purpose::Fetch || access.gva.value() != vcpu.context.pc)
}

fn walk(vcpu: &Vcpu<'_>, access: Access) {
    let trace = WalkTrace::new();
    let result = vcpu.walk(access, &trace);
    log::info!(
        "  walk of GVA {:#x} for a {:?}:",
        access.gva,
        access.purpose
    );
    for step in trace.steps() {
        log::info!("    {step}");
    }
    match result {
        Ok(found) => log::info!(
            "    leads to GPA {:#x}, SPA {:#x}",
            found.gpa,
            found.page.spa
        ),
        Err(fault) => log::info!("    {fault}"),
    }
}

/// What guest memory did in this run.
fn summary(vm: &Vm) {
    let (used, pages, exits) = (&vm.memory_use, &vm.ram.page_ins, &vm.exits);
    log::info!("guest memory in this run, all of it through guest-mem:");
    log::info!(
        "  accesses: {} reads and {} writes by guest-physical address, {} reads by guest-virtual address, {} instruction \
         fetches, {} device accesses",
        used.physical_reads.get(),
        used.physical_writes.get(),
        used.virtual_reads.get(),
        used.fetches.get(),
        used.device_accesses.get()
    );
    log::info!(
        "  {} bytes moved; their faults: {} resolved by bringing a page in, {} given to the guest, {} refused",
        used.bytes.get(),
        used.resolved.get(),
        used.injected.get(),
        used.refused.get()
    );
    log::info!(
        "  pages brought in: {} as zero page, {} as frames ({} of them in place of the zero page), {} blocks of 2 MiB, {} made \
         executable; {} faults found their page ready",
        pages.zero.get(),
        pages.frames.get(),
        pages.replaced.get(),
        pages.blocks.get(),
        pages.executable.get(),
        pages.spurious.get()
    );
    let guest_page_faults: u64 = [
        cause::INSTRUCTION_GUEST_PAGE,
        cause::LOAD_GUEST_PAGE,
        cause::STORE_GUEST_PAGE,
    ]
    .into_iter()
    .map(|cause| exits.exceptions(cause as usize))
    .sum();
    log::info!(
        "  exits: {} SBI calls, {guest_page_faults} guest-page faults ({} of them accesses to devices), {} virtual instructions, {} illegal instructions, {} \
         interrupts; {} things done wrong by the guest",
        exits.exceptions(10),
        used.device_accesses.get(),
        exits.exceptions(cause::VIRTUAL_INSTRUCTION as usize),
        exits.exceptions(cause::ILLEGAL_INSTRUCTION as usize),
        exits.interrupts(),
        vm.complaints()
    );
    log::info!(
        "  {} KiB of {} KiB guest RAM have frames; {} KiB of the machine are free",
        pages.frames.get() * 4 + pages.blocks.get() * 2048,
        vm.ram.byte_len() >> 10,
        host::free_bytes() >> 10
    );
}
