//! What interrupt handlers do while the tests access the guest: they access it, too.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use guest_mem::hart::Hart;
use guest_mem::{Gpa, GuestMemory, GuestPrivilege, Gva};

use super::is_scoped;
use super::scene::Scene;
use crate::library::loaded;
use crate::tables::Page;
use crate::{arena, csr, trap};

/// What the handler of an interrupt accesses: a page that the interrupted access does not.
pub struct Aside<'a, H> {
    hart: &'a H,
    gva: u64,
    page: Page,
    /// Whether one of its accesses faults.
    faults: bool,
    rounds: Cell<u64>,
    wrong: Cell<u64>,
}

impl<'a, H: Hart + 'static> Aside<'a, H> {
    /// The page of a scene that its copies leave alone.
    pub fn of(scene: &Scene, hart: &'a H) -> Self {
        Self {
            hart,
            gva: scene.aside.0,
            page: scene.aside.1,
            faults: true,
            rounds: Cell::new(0),
            wrong: Cell::new(0),
        }
    }

    /// As [`of`](Self::of), with a fault or without.
    pub fn faulting(scene: &Scene, hart: &'a H, faults: bool) -> Self {
        Self {
            faults,
            ..Self::of(scene, hart)
        }
    }

    /// What an interrupt handler does: accesses in both spaces, of both privileges, one of which faults. The trap handler
    /// knows of the library meanwhile if this form of recovery asks for it, whatever the interrupted access's asks for.
    pub fn access(aside: *const ()) {
        // SAFETY: `storm::nesting` passes the value it was given, which lives as long as interrupts come.
        let aside = unsafe { &*aside.cast::<Self>() };
        let round = aside.rounds.get() + 1;
        aside.rounds.set(round);
        let hooked = trap::set_hook(!is_scoped::<H>());
        let vcpu = loaded(aside.hart);
        let order = Ordering::Relaxed;
        let gpa = Gpa::new(aside.page.gpa);
        let physical = vcpu.guest_physical();
        let mut right = physical.store(gpa, round, order).is_ok()
            && physical.load(gpa, order) == Ok(round)
            && arena::read(aside.page.spa) == round;
        // The test holds a window of the physical space open itself while vsatp is 0.
        if csr::vsatp::read() != 0 {
            let gva = Gva::new(aside.gva);
            let by_supervisor = vcpu.guest_virtual(GuestPrivilege::Supervisor);
            let by_user = vcpu.guest_virtual(GuestPrivilege::User);
            right &= by_supervisor.load(gva, order) == Ok(round);
            right &= !aside.faults || by_user.load::<u64>(gva, order).is_err();
        }
        trap::set_hook(hooked);
        aside.wrong.set(aside.wrong.get() + u64::from(!right));
    }

    /// Accesses that had another result than they have to have.
    pub fn wrong(&self) -> u64 {
        self.wrong.get()
    }
}
