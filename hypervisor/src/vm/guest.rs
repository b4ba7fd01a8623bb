//! One guest.

use alloc::string::String;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bitflags::bitflags;
use guest_mem::probe::MachineProfile;
use guest_mem::{Gpa, Width};
use sbi_rt::HartMask;
use spin::Once;

use super::devices::Devices;
use super::fences::{GuestHarts, carry_out};
use super::guest_ram::GuestRam;
use super::hart_state::{HartState, HartStates};
use super::sleeper::Sleeper;
use crate::boot::hart_local::HartLocal;
use crate::boot::machine::MAX_HARTS;
use crate::clock::Clock;
use crate::console;
use crate::csr;
use crate::devices::BusError;
use crate::devices::finisher::Finish;
use crate::memory::host::HostTables;
use crate::sbi::arguments::{FenceRange, HartSet};
use crate::statistics::{Counter, Exits, MemoryUse};
use crate::vcpu::grant::Grant;

/// Lines that are written about what a guest does wrong.
const COMPLAINTS: u64 = 64;

bitflags! {
    /// What one hart wants of another's vCPU.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Request: u8 {
        /// A software interrupt for the guest.
        const SOFTWARE_INTERRUPT = 1 << 0;
        /// The device interrupts of the guest have to be looked at.
        const DEVICE_INTERRUPTS = 1 << 1;
        /// The hart's state or the guest's end has to be looked at.
        const STATE = 1 << 2;
    }
}

/// Why a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It asked for it.
    Shutdown,
    /// It asked for it, because something had failed.
    SystemFailure,
    /// It asked to be started again.
    Reboot,
    /// It can do nothing but fault at its own trap vector.
    LostTrapVector,
    /// All its harts have stopped themselves.
    Stopped,
    /// The machine has no memory left for it.
    OutOfMemory,
    /// It was given a time, which is over.
    TimeLimit,
}

impl Ending {
    /// All of them, in order.
    pub const ALL: [Self; 7] = [
        Self::Shutdown,
        Self::SystemFailure,
        Self::Reboot,
        Self::LostTrapVector,
        Self::Stopped,
        Self::OutOfMemory,
        Self::TimeLimit,
    ];
}

impl From<Finish> for Ending {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::PowerOff => Self::Shutdown,
            Finish::Fail { .. } => Self::SystemFailure,
            Finish::Reset => Self::Reboot,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shutdown",
            Self::SystemFailure => "shutdown after a system failure",
            Self::Reboot => "reboot",
            Self::LostTrapVector => "faults at its own trap vector for ever",
            Self::Stopped => "every hart has stopped",
            Self::OutOfMemory => "the machine is out of memory",
            Self::TimeLimit => "its time is over",
        })
    }
}

/// What the harts of a guest share.
pub struct Vm {
    /// What the guest is called.
    pub name: String,
    /// Its memory.
    pub ram: GuestRam<HostTables>,
    /// What its harts are given.
    pub grant: Grant,
    /// Ticks of `time` in a second.
    pub timebase_frequency: u64,
    /// How the hypervisor used its memory.
    pub memory_use: MemoryUse,
    /// Why it exited.
    pub exits: Exits,
    /// How the machine behaves.
    pub profile: MachineProfile,
    /// How long it may run. Only guests of a series have that; nobody reports on them singly.
    pub time_limit: Option<TimeLimit>,
    /// Whether it may make the hypervisor panic, as its operator wished.
    pub drill: bool,
    devices: Devices,
    complaints: Counter,
    complaint_lines: Counter,
    last_complaint: AtomicU64,
    host_harts: [u64; MAX_HARTS],
    states: HartStates,
    requests: [AtomicU8; MAX_HARTS],
    sleepers: [Sleeper; MAX_HARTS],
    ending: Once<Ending>,
}

impl Vm {
    /// A guest whose hart n runs on the machine's hart `host_harts[n]`.
    pub fn new(
        name: String,
        ram: GuestRam<HostTables>,
        grant: Grant,
        profile: MachineProfile,
        clock: Clock,
        host_harts: &[u64],
    ) -> Result<Self, BusError> {
        let harts = host_harts.len().min(MAX_HARTS);
        let mut ids = [0; MAX_HARTS];
        ids[..harts].copy_from_slice(&host_harts[..harts]);
        Ok(Self {
            name,
            ram,
            grant,
            timebase_frequency: clock.frequency,
            devices: Devices::new(harts, clock)?,
            memory_use: MemoryUse::default(),
            exits: Exits::default(),
            profile,
            time_limit: None,
            drill: false,
            complaints: Counter::new(),
            complaint_lines: Counter::new(),
            last_complaint: AtomicU64::new(0),
            host_harts: ids,
            states: HartStates::new(harts),
            requests: [const { AtomicU8::new(0) }; MAX_HARTS],
            sleepers: [const { Sleeper::new() }; MAX_HARTS],
            ending: Once::new(),
        })
    }

    /// How many harts it has, numbered from 0.
    pub fn harts(&self) -> usize {
        self.states.count()
    }

    /// The state of one of its harts.
    pub fn state(&self, index: usize) -> Option<HartState<'_>> {
        self.states.hart(index)
    }

    /// Fences on its harts.
    pub fn fences(&self) -> GuestHarts<'_> {
        GuestHarts {
            ids: &self.host_harts[..self.harts()],
            sleepers: &self.sleepers[..self.harts()],
        }
    }

    /// The guest's `sfence.vma` on some of its harts. When it returns, no hart uses an older
    /// translation: not the hardware, and not a copy by a walk that was under way.
    pub fn remote_sfence(&self, harts: HartSet, range: FenceRange, asid: Option<usize>) {
        self.fences().sfence_vma(harts, range, asid);
        self.ram.wait_for_guards();
    }

    /// Lets hart `index`, which calls this, wait by `wait`, and carries out the fences that were
    /// left to it meanwhile.
    pub fn sleep(&self, index: usize, wait: impl FnOnce()) {
        carry_out(self.sleepers[index].sleep(wait));
    }

    /// Asks something of the vCPU of hart `index`, and interrupts that wherever it is.
    pub fn request(&self, index: usize, request: Request) {
        let (Some(requests), Some(&id)) = (
            self.requests[..self.harts()].get(index),
            self.host_harts.get(index),
        ) else {
            return;
        };
        requests.fetch_or(request.bits(), Ordering::AcqRel);
        if index == HartLocal::current().index {
            // It looks before it enters the guest.
            return;
        }
        sbi_rt::send_ipi(HartMask::from_mask_base(1, id as usize));
    }

    /// Asks something of every hart.
    pub fn request_all(&self, request: Request) {
        for index in 0..self.harts() {
            self.request(index, request);
        }
    }

    /// Tells harts that their external interrupts have changed.
    fn told(&self) -> impl FnOnce(HartSet) {
        |harts| {
            for index in harts.iter() {
                self.request(index, Request::DEVICE_INTERRUPTS);
            }
        }
    }

    /// What was asked of hart `index` since it last looked.
    pub fn take_requests(&self, index: usize) -> Request {
        Request::from_bits_truncate(self.requests[index].swap(0, Ordering::AcqRel))
    }

    /// Says in one line what the guest did wrong at `pc`. What happens at the same place again and
    /// again is said once, and after some lines it is only counted.
    pub fn complain(&self, pc: u64, what: fmt::Arguments<'_>) {
        self.complaints.add_one();
        if self.last_complaint.swap(pc, Ordering::Relaxed) == pc && self.complaints.get() > 1 {
            return;
        }
        self.complaint_lines.add_one();
        match self.complaint_lines.get() {
            ..COMPLAINTS => log::warn!("guest at pc {pc:#x}: {what}"),
            COMPLAINTS => {
                log::warn!("guest at pc {pc:#x}: {what} (what follows is only counted)");
            }
            _ => {}
        }
    }

    /// How often the guest did something wrong.
    pub fn complaints(&self) -> u64 {
        self.complaints.get()
    }

    /// Whether the external interrupt of hart `index` is asserted.
    pub fn external_interrupt(&self, index: usize) -> bool {
        self.devices.external_interrupt(index)
    }

    /// A load of the guest from a device, zero-extended; `None` if no device is there.
    pub fn read_device(&self, gpa: Gpa, width: Width) -> Option<u64> {
        self.devices.read(gpa, width, self.told())
    }

    /// A store of the guest to a device, and how it asks for its end by that; `None` if no device
    /// is there.
    pub fn write_device(&self, gpa: Gpa, width: Width, value: u64) -> Option<Option<Finish>> {
        self.devices.write(gpa, width, value, self.told())
    }

    /// A byte that was typed, for a guest that asks the SBI for it.
    pub fn typed(&self) -> Option<u8> {
        self.devices.typed(console::get, self.told())
    }

    /// Delivers what was typed to the serial port. Answers whether there was anything.
    pub fn poll_console(&self) -> bool {
        self.devices.type_in(console::get, self.told())
    }

    /// Ends the guest; answers whether this hart is the first to do so, and therefore the one to
    /// report it.
    pub fn end(&self, ending: Ending) -> bool {
        let mut first = false;
        self.ending.call_once(|| {
            first = true;
            ending
        });
        first
    }

    /// Why it has ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.get().copied()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ending.is_completed()
    }

    /// Whether its time is over.
    pub fn is_past_deadline(&self) -> bool {
        self.time_limit.as_ref().is_some_and(TimeLimit::is_over)
    }
}

/// The time that a guest of a series has: much of it until its first line is complete, since until
/// then it does nothing on purpose that takes time, and what it has after that counts from there.
#[derive(Debug)]
pub struct TimeLimit {
    ticks: u64,
    deadline: AtomicU64,
    has_spoken: AtomicBool,
}

impl TimeLimit {
    /// How much longer it may take to its first line.
    const BEFORE_FIRST_LINE: u64 = 250;

    /// A limit of `ticks` of `time` after the first line, from now on.
    pub fn new(ticks: u64) -> Self {
        let before = ticks.saturating_mul(Self::BEFORE_FIRST_LINE);
        Self {
            ticks,
            deadline: AtomicU64::new(csr::read!("time").saturating_add(before)),
            has_spoken: AtomicBool::new(false),
        }
    }

    fn is_over(&self) -> bool {
        let now = csr::read!("time");
        let speaks = console::first_line().is_some_and(|line| line.text().is_some());
        if speaks && !self.has_spoken.swap(true, Ordering::Relaxed) {
            let deadline = now.saturating_add(self.ticks);
            self.deadline.store(deadline, Ordering::Relaxed);
        }
        now >= self.deadline.load(Ordering::Relaxed)
    }
}
