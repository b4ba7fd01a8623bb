//! The loop that a hart runs for its vCPU.

use core::arch::asm;

use guest_mem::GuestPrivilege;
use guest_mem::fault::GuestExit;
use guest_mem::guest_physical::Reader;
use guest_mem::guest_virtual::LoadedVcpu;
use guest_mem::hart::Hart as _;
use guest_mem::hart::riscv64::{HandlerHook, Riscv64};
use guest_mem::inject::{GuestTrapState, Injection};
use guest_mem::probe::{MachineProfile, PROBE_BYTES, probe};
use sbi_spec::binary::Error;

use crate::boot::hart_local::HartLocal;
use crate::memory::frames::FRAME;
use crate::memory::host;
use crate::vm::hart_state::{HartState, Start, State, Stopped};
use crate::vm::{Ending, Request, Vm};
use crate::{console, csr, exit, power, report};

use super::context::Context;
use super::firmware_features::FirmwareFeatures;
use super::grant::Grant;
use super::timer::Timer;
use super::waiting::Until;
use super::{reset, stuck};

/// The library's view of this hart.
pub type Hart = Riscv64<HandlerHook>;

/// What a vCPU does after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    Resume,
    /// It stops, until somebody starts it.
    Stop,
    /// It waits for an interrupt, and then goes on.
    Wait,
    /// It is suspended until an interrupt, and then goes on, or starts anew.
    Suspend(Option<Start>),
    /// The guest ends.
    End(Ending),
}

/// A vCPU on its hart.
pub struct Vcpu<'v> {
    /// The guest it is a hart of.
    pub vm: &'v Vm,
    /// Its number.
    pub index: usize,
    /// The library's handle on the guest-physical memory.
    pub reader: Reader<'v>,
    /// Its registers.
    pub context: Context,
    /// What it chose of its hart.
    pub firmware_features: FirmwareFeatures,
    /// Its timers.
    pub timer: Timer,
    /// Whether it gets anywhere.
    pub stuck: stuck::Detector,
}

/// The guest is over.
struct Over;

/// Runs the vCPU `index` of `vm` on this hart, until the guest is over. Then nothing of it is left
/// in the hart that could reach its memory.
pub fn run(vm: &Vm, index: usize) {
    // SAFETY: HS-mode never enables interrupts globally, so these only wake `wfi` and end guest
    // mode.
    unsafe { csr::write!("sie", csr::SSI | csr::STI) };
    let mut vcpu = Vcpu {
        vm,
        index,
        reader: vm.ram.reader(index).expect("each hart takes its own"),
        context: Context::default(),
        firmware_features: FirmwareFeatures::new(vm.grant.granted.choices),
        timer: Timer::new(vm.grant.own_timer(), vm.timebase_frequency, index),
        stuck: stuck::Detector::default(),
    };
    while let Ok(()) = vcpu.live() {}
    vcpu.timer.stop();
    reset::unload(&HartLocal::current().hart);
}

/// Lets the library find out how this hart behaves, before its first guest, which will be given
/// what `grant` says.
pub fn probe_machine(grant: &Grant, index: usize) -> MachineProfile {
    const FRAMES: u64 = (PROBE_BYTES as u64).div_ceil(FRAME);
    let hart = &HartLocal::current().hart;
    let Some(scratch) = host::allocate_zeroed(FRAMES, 16 << 10) else {
        power::give_up(format_args!("no memory for the machine probe"));
    };
    if !grant.is_kept_by_this_hart() {
        power::give_up(format_args!(
            "hart {index} cannot flush its caches, as the first hart can"
        ));
    }
    // What the VS-stage does about A and D bits depends on henvcfg, so the guest's comes first.
    grant.apply(&FirmwareFeatures::new(grant.granted.choices));
    // SAFETY: the frames were just allocated for this, and are reached at their own address. No
    // vCPU is loaded yet.
    let profile = match unsafe { probe(hart, scratch.value() as *mut u64, scratch) } {
        Ok(profile) => profile,
        Err(error) => power::give_up(format_args!("hart {index}: {error}")),
    };
    reset::unload(hart);
    // SAFETY: allocated above in one piece; the probe is over, and nothing remembers how it
    // translated.
    unsafe { host::free(scratch, FRAMES) };
    if index == 0 {
        log::info!(
            "this machine: A/D bits of the VS-stage: {:?}, of the G-stage: {:?}; translations outlive vsatp: {}; hlvx asks for \
             X: {}; hlv obeys SUM: {}; page-table faults are loads: {}; htinst follows the access: {}",
            profile.vs_stage_ad,
            profile.g_stage_ad,
            profile.stale_vsatp,
            profile.hlvx_needs_execute,
            profile.obeys_sum,
            profile.implicit_faults_are_loads,
            profile.htinst_follows_access
        );
    }
    profile
}

impl<'v> Vcpu<'v> {
    /// One life: from a start to a stop.
    fn live(&mut self) -> Result<(), Over> {
        let start = self.wait_for_start()?;
        self.reset(start);
        self.state().set(State::Started);
        let mut next = Next::Resume;
        while next != Next::Stop {
            next = self.go_on(next)?;
        }
        reset::mask_interrupts();
        match self.state().stop() {
            Stopped::Last => Err(self.end(Ending::Stopped)),
            Stopped::OthersGoOn => Ok(()),
        }
    }

    fn reset(&mut self, start: Start) {
        self.vm.take_requests(self.index);
        self.timer.set_guest(u64::MAX);
        self.firmware_features = FirmwareFeatures::new(self.vm.grant.granted.choices);
        self.context = self.reset_registers(start);
        self.stuck = stuck::Detector::default();
        self.update_device_interrupts();
    }

    fn reset_registers(&self, start: Start) -> Context {
        let hart = &HartLocal::current().hart;
        let hgatp = self.vm.ram.hgatp();
        let (grant, features) = (&self.vm.grant, &self.firmware_features);
        reset::reset(hart, grant, features, hgatp, self.index, start)
    }

    fn go_on(&mut self, next: Next) -> Result<Next, Over> {
        match next {
            Next::Resume => {
                self.serve_requests();
                self.check_over()?;
                // SAFETY: `reset` put the guest's hgatp into this hart, and the table behind it
                // maps the guest's RAM only.
                unsafe { self.context.enter() };
                Ok(exit::handle(self))
            }
            Next::Wait => {
                self.wait(Until::Interrupt)?;
                Ok(Next::Resume)
            }
            Next::Suspend(start) => {
                self.suspend(start)?;
                Ok(Next::Resume)
            }
            Next::Stop => Ok(Next::Stop),
            Next::End(ending) => Err(self.end(ending)),
        }
    }

    fn check_over(&self) -> Result<(), Over> {
        if self.vm.has_ended() {
            Err(Over)
        } else {
            Ok(())
        }
    }

    /// Ends the guest, by the first hart that comes to it.
    fn end(&mut self, ending: Ending) -> Over {
        if self.vm.end(ending) {
            console::end_of_guest();
            self.vm.request_all(Request::STATE);
            if self.vm.time_limit.is_none() {
                report::end(self, ending);
            }
        }
        Over
    }

    fn state(&self) -> HartState<'v> {
        self.vm.state(self.index).expect("the vCPU exists")
    }

    /// The guest's registers in this hart, for the library.
    pub fn loaded(&mut self) -> LoadedVcpu<'_, Hart> {
        let hart = &HartLocal::current().hart;
        // SAFETY: a hart runs this vCPU and no other, so its CSRs hold this guest's state whenever
        // the guest does not run. Whatever changes them (`inject`, `reset`, entering the guest)
        // borrows the vCPU mutably, and so does this: there is no second token. No trap handler
        // makes one. The exit's record is in the context, and the G-stage table gives the guest
        // nothing but its own memory.
        unsafe { LoadedVcpu::new(hart) }
    }

    /// [`loaded`](Self::loaded), and the right to the memory that the host maps.
    pub fn loaded_with_reader(&mut self) -> (LoadedVcpu<'_, Hart>, &mut Reader<'v>) {
        let hart = &HartLocal::current().hart;
        // SAFETY: as in `loaded`: nobody else reaches the vCPU while this borrows it.
        let loaded = unsafe { LoadedVcpu::new(hart) };
        (loaded, &mut self.reader)
    }

    /// Gives the guest a firmware feature (FWFT) of this hart.
    ///
    /// # Errors
    ///
    /// See [`FirmwareFeatures::set`].
    pub fn set_firmware_feature(
        &mut self,
        feature: usize,
        value: usize,
        flags: usize,
    ) -> Result<(), Error> {
        self.firmware_features.set(feature, value, flags)?;
        let henvcfg = self
            .firmware_features
            .henvcfg(self.vm.grant.granted.environment);
        // SAFETY: the register governs V=1 only. R30: what was translated under the old value is
        // forgotten.
        unsafe { csr::write!("henvcfg", henvcfg) };
        HartLocal::current().hart.hfence_vvma(None);
        Ok(())
    }

    /// The privilege of the guest code that was interrupted.
    pub fn privilege(&self) -> GuestPrivilege {
        GuestPrivilege::from_exit(self.context.sstatus)
    }

    /// The last exit, for the library.
    pub fn last_exit(&self) -> GuestExit {
        GuestExit {
            trap: self.context.trap,
            pc: self.context.pc,
            privilege: self.privilege(),
            vsatp: csr::read!("vsatp"),
        }
    }

    /// Lets the guest take an exception where it stands.
    pub fn inject(&mut self, injection: Injection) {
        let mut state = GuestTrapState {
            pc: self.context.pc,
            privilege: self.privilege(),
            vsstatus: csr::read!("vsstatus"),
            vstvec: csr::read!("vstvec"),
            vsepc: 0,
            vscause: 0,
            vstval: 0,
        };
        injection.apply(&mut state);
        self.context.pc = state.pc;
        self.context.sstatus |= csr::SSTATUS_SPP;
        // SAFETY: the registers are the guest's, and no `LoadedVcpu` of it exists: this borrows it
        // mutably.
        unsafe {
            csr::write!("vsstatus", state.vsstatus);
            csr::write!("vsepc", state.vsepc);
            csr::write!("vscause", state.vscause);
            csr::write!("vstval", state.vstval);
        }
    }

    /// Does what other harts asked for, and gives it.
    fn serve_requests(&mut self) -> Request {
        // SAFETY: both registers only say what is pending. The request is read after the interrupt
        // is cleared, so that one that comes meanwhile interrupts again.
        unsafe { csr::clear!("sip", csr::SSI) };
        let requests = self.vm.take_requests(self.index);
        if requests.contains(Request::SOFTWARE_INTERRUPT) {
            // SAFETY: the register is the guest's.
            unsafe { csr::set!("hvip", csr::VSSI) };
        }
        if requests.contains(Request::DEVICE_INTERRUPTS) {
            self.update_device_interrupts();
        }
        requests
    }

    /// Shows the guest the state of its external interrupt line.
    fn update_device_interrupts(&self) {
        // SAFETY: the register is the guest's.
        unsafe {
            if self.vm.external_interrupt(self.index) {
                csr::set!("hvip", csr::VSEI);
            } else {
                csr::clear!("hvip", csr::VSEI);
            }
        }
    }

    /// Serves a timer interrupt of the host.
    pub fn timer_interrupt(&mut self) {
        if self.timer.expired() && self.index == 0 && self.vm.poll_console() {
            self.timer.hurry();
        }
    }

    fn wait_for_start(&mut self) -> Result<Start, Over> {
        loop {
            if let Some(start) = self.state().start() {
                return Ok(start);
            }
            self.sleep()?;
        }
    }

    /// Waits in the host. I12: what is asked of this hart from now on, or is pending already, ends
    /// its `wfi`, so no wake-up is lost between a look and the next sleep.
    fn wait(&mut self, until: Until) -> Result<(), Over> {
        let mut arrived = false;
        loop {
            // Not vsip and vsie: QEMU 7.2 does not show a timer interrupt of the guest's own there.
            let (pending, enabled) = (csr::read!("hip"), csr::read!("hie"));
            if until.is_over(pending & csr::VS_INTERRUPTS, enabled, arrived) {
                return Ok(());
            }
            arrived |= self.sleep()?.contains(Request::SOFTWARE_INTERRUPT);
        }
    }

    /// Suspends the hart until an interrupt of the guest's (R72). A suspension that does not retain
    /// registers ends in a reset, which keeps what is pending: the interrupt that woke the hart is
    /// still to be taken.
    fn suspend(&mut self, resume: Option<Start>) -> Result<(), Over> {
        let state = self.state();
        state.set(State::Suspended);
        self.wait(Until::InterruptOrArrival)?;
        if let Some(start) = resume {
            state.set(State::ResumePending);
            let pending = reset::Pending::save(&self.vm.grant);
            self.context = self.reset_registers(start);
            pending.restore(&self.vm.grant);
        }
        state.set(State::Started);
        Ok(())
    }

    /// Waits in the host until something happens, and does what the host has to do about it. Gives
    /// what other harts asked for.
    fn sleep(&mut self) -> Result<Request, Over> {
        self.check_over()?;
        // SAFETY: `wfi` has no effect on memory. What is pending and enabled wakes it also with
        // interrupts off.
        let wait = || unsafe { asm!("wfi", options(nostack)) };
        self.vm.sleep(self.index, wait);
        if csr::read!("sip") & csr::STI != 0 {
            self.timer_interrupt();
            if self.vm.is_past_deadline() {
                return Err(self.end(Ending::TimeLimit));
            }
        }
        Ok(self.serve_requests())
    }
}
