//! One mutant: the library or the hypervisor with one thing wrong that a person could get wrong.
//!
//! The one idea: an edit names a text that occurs once in its file, so that a change of that place is noticed here, by a
//! test, and not by a mutant that silently is none.

/// Which tests a mutant has to be caught by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    /// The library's tests on this machine.
    OnHost,
    /// The library's tests of what harts share, in every order (`cargo xtask loom`): what is broken shows in few of them.
    InEveryOrder,
    /// The check of the linked test kernel, or the test kernel under firmware: what is broken exists on the target only.
    OnTarget,
    /// The test kernel without firmware: what is broken shows where M-mode protects a few bytes, or lets an interrupt come at
    /// one instruction.
    Standalone,
    /// Guests of the hypervisor: hostile ones, and the one that tries ISA extensions. What is broken is the hypervisor.
    ByGuests,
}

impl Caught {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::OnHost,
        Self::InEveryOrder,
        Self::OnTarget,
        Self::Standalone,
        Self::ByGuests,
    ];

    /// Whether a RISC-V machine takes part.
    pub const fn needs_machine(self) -> bool {
        matches!(self, Self::OnTarget | Self::Standalone | Self::ByGuests)
    }
}

/// What is replaced by what in a file. Each text occurs once.
pub type Edits = &'static [(&'static str, &'static str)];

/// One broken copy of the library, or of the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What is wrong.
    pub name: &'static str,
    /// The file, below [`Mutant::folder`].
    pub file: &'static str,
    /// What is changed in it.
    pub edits: Edits,
    /// Which tests see it.
    pub caught: Caught,
}

impl Mutant {
    const fn new(name: &'static str, file: &'static str, edits: Edits, caught: Caught) -> Self {
        Self {
            name,
            file,
            edits,
            caught,
        }
    }

    /// Where its file is.
    pub const fn folder(&self) -> &'static str {
        match self.caught {
            Caught::ByGuests => "hypervisor/src",
            _ => "guest-mem/src",
        }
    }
}

/// One that the library's tests on this machine notice.
pub const fn on_host(name: &'static str, file: &'static str, edits: Edits) -> Mutant {
    Mutant::new(name, file, edits, Caught::OnHost)
}

/// One that shows in few orders of what harts do.
pub const fn in_every_order(name: &'static str, file: &'static str, edits: Edits) -> Mutant {
    Mutant::new(name, file, edits, Caught::InEveryOrder)
}

/// One that exists on the target only.
pub const fn on_target(name: &'static str, file: &'static str, edits: Edits) -> Mutant {
    Mutant::new(name, file, edits, Caught::OnTarget)
}

/// One that shows without firmware only.
pub const fn standalone(name: &'static str, file: &'static str, edits: Edits) -> Mutant {
    Mutant::new(name, file, edits, Caught::Standalone)
}

/// One that guests of the hypervisor notice.
pub const fn by_guests(name: &'static str, file: &'static str, edits: Edits) -> Mutant {
    Mutant::new(name, file, edits, Caught::ByGuests)
}
