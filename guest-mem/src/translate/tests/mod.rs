//! The walk against a small world: a machine of sparse memory, a G-stage that shifts guest-physical addresses, and a guest
//! that maps one page.

extern crate std;

use core::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use super::builder::{GBuilder, VsBuilder};
use super::entry::{self, A, D, R, U, W, X};
use super::*;
use crate::csr::{GMode, VsMode};

mod entries;
mod policy;
mod rights;
mod space;

/// Guest-physical addresses are machine addresses this much further on.
const OFFSET: u64 = 0x10_0000_0000;
/// Where the guest's tables are.
const VS_TABLES: Gpa = Gpa::new(0x8000_0000);
/// The page of most tests, and where it leads.
const PAGE: Gva = Gva::new(0x12_3456_7000);
const TARGET: Gpa = Gpa::new(0x8123_7000);
const ALL: u64 = R | W | X | U | A | D;

const VS_MODES: [VsMode; 3] = [VsMode::Sv39, VsMode::Sv48, VsMode::Sv57];
const G_MODES: [GMode; 3] = [GMode::Sv39x4, GMode::Sv48x4, GMode::Sv57x4];
const PRIVILEGES: [GuestPrivilege; 2] = [GuestPrivilege::User, GuestPrivilege::Supervisor];
const PURPOSES: [Purpose; 4] = [
    Purpose::Load,
    Purpose::Store,
    Purpose::ExecutableLoad,
    Purpose::Fetch,
];

/// Sparse memory that counts how often each entry is read, and can change one behind the walker's back.
#[derive(Default)]
struct Memory {
    entries: RefCell<BTreeMap<u64, u64>>,
    reads: RefCell<Vec<u64>>,
    writes: RefCell<Vec<u64>>,
    refused: Cell<Option<u64>>,
    /// How many compare-exchanges still find that another hart was faster.
    races: Cell<usize>,
}

impl Memory {
    fn get(&self, at: u64) -> u64 {
        *self.entries.borrow().get(&at).unwrap_or(&0)
    }
    fn set(&self, at: u64, entry: u64) {
        self.entries.borrow_mut().insert(at, entry);
    }
}

impl EntryMemory for &Memory {
    fn read_entry(&self, at: Spa) -> Result<u64, Refused> {
        assert!(at.is_aligned_to(8));
        if self.refused.get() == Some(at.value()) {
            return Err(Refused);
        }
        self.reads.borrow_mut().push(at.value());
        Ok(self.get(at.value()))
    }
    fn compare_exchange_entry(
        &self,
        at: Spa,
        current: u64,
        new: u64,
    ) -> Result<Result<u64, u64>, Refused> {
        if self.races.get() > 0 {
            self.races.set(self.races.get() - 1);
            self.set(at.value(), self.get(at.value()) ^ 1 << 8);
        }
        let found = self.get(at.value());
        if found != current {
            return Ok(Err(found));
        }
        self.writes.borrow_mut().push(at.value());
        self.set(at.value(), new);
        Ok(Ok(current))
    }
}

/// A guest whose [`PAGE`] leads to [`TARGET`], everything allowed.
struct World {
    memory: Memory,
    vs: VsRegime,
    g: GRegime,
    access: Access,
}

fn to_spa(gpa: u64) -> u64 {
    gpa + OFFSET
}

impl World {
    fn new(vs_mode: VsMode, g_mode: GMode) -> Self {
        let to = Spa::new(to_spa(TARGET.value()));
        Self::with_pages(vs_mode, (PAGE, TARGET, 0), g_mode, (TARGET, to, 0))
    }

    /// A world with the given pages (from, to, level) of either stage.
    fn with_pages(
        vs_mode: VsMode,
        vs_page: (Gva, Gpa, usize),
        g_mode: GMode,
        g_page: (Gpa, Spa, usize),
    ) -> Self {
        let memory = Memory::default();
        let g_tables = Spa::new(0x10_0000)..Spa::new(0x20_0000);
        let vs_tables = VS_TABLES..Gpa::new(VS_TABLES.value() + 0x8000);
        let mut g = GBuilder::new(g_mode, g_tables, memory.machine()).unwrap();
        let to = Spa::new(to_spa(VS_TABLES.value()));
        g.map_pages(VS_TABLES, to, 8, ALL).unwrap();
        g.map(g_page.0, g_page.1, g_page.2, ALL).unwrap();
        let mut vs = VsBuilder::new(vs_mode, vs_tables, memory.guest()).unwrap();
        vs.map(vs_page.0, vs_page.1, vs_page.2, ALL).unwrap();
        let (root, g_root) = (vs.root(), g.root());
        drop((g, vs));
        Self {
            vs: VsRegime {
                mode: vs_mode,
                root,
                ..VsRegime::BARE
            },
            g: GRegime {
                mode: g_mode,
                root: g_root,
                rules: StageRules::BASE,
                mxr: false,
            },
            access: Access::load(vs_page.0, GuestPrivilege::User),
            memory,
        }
    }

    fn tables(&self) -> GTables<&Memory> {
        GTables::new(self.g, &self.memory)
    }

    fn translate(&self) -> Result<Translation<GPage>, Fault> {
        translate(&self.vs, &self.tables(), self.access)
    }

    fn translate_for(
        &self,
        purpose: Purpose,
        privilege: GuestPrivilege,
    ) -> Result<Translation<GPage>, Fault> {
        let access = Access {
            purpose,
            privilege,
            ..self.access
        };
        translate(&self.vs, &self.tables(), access)
    }

    /// The entries that a walk of the page meets, in order, with stage and level.
    fn steps(&self) -> Vec<Step> {
        let trace = WalkTrace::new();
        let tables = self.tables().observed(&trace);
        translate_observed(&self.vs, &tables, self.access, &trace).unwrap();
        assert_eq!(trace.lost(), 0);
        trace.steps().collect()
    }

    /// Where the machine holds the entry of a step.
    fn place(&self, step: &Step) -> u64 {
        match step.stage {
            Stage::Vs => to_spa(step.at),
            Stage::G => step.at,
        }
    }

    /// The machine addresses of the leaf entries of [`PAGE`]: VS-stage, and G-stage of the page itself.
    fn leaves(&self) -> (u64, u64) {
        let steps = self.steps();
        let vs = steps.iter().rfind(|step| step.stage == Stage::Vs).unwrap();
        (self.place(vs), self.place(steps.last().unwrap()))
    }

    /// The machine address of the G-stage leaf under which the guest's leaf entry lies.
    fn leaf_of_table(&self) -> u64 {
        let steps = self.steps();
        let vs = steps.iter().rposition(|step| step.stage == Stage::Vs);
        self.place(&steps[vs.unwrap() - 1])
    }

    fn kind(&self) -> Option<FaultKind> {
        self.translate().err().map(|fault| fault.kind)
    }
}

impl Memory {
    fn machine(
        &self,
    ) -> (
        impl FnMut(Spa) -> Option<u64>,
        impl FnMut(Spa, u64) -> Option<()>,
    ) {
        (
            |at: Spa| Some(self.get(at.value())),
            |at: Spa, entry| {
                self.set(at.value(), entry);
                Some(())
            },
        )
    }
    fn guest(
        &self,
    ) -> (
        impl FnMut(Gpa) -> Option<u64>,
        impl FnMut(Gpa, u64) -> Option<()>,
    ) {
        (
            |at: Gpa| Some(self.get(to_spa(at.value()))),
            |at: Gpa, entry| {
                self.set(to_spa(at.value()), entry);
                Some(())
            },
        )
    }
}

fn guest_page(access: AccessKind) -> FaultKind {
    FaultKind::GuestPage {
        access,
        implicit: false,
    }
}

fn implicit(access: AccessKind) -> FaultKind {
    FaultKind::GuestPage {
        access,
        implicit: true,
    }
}
