//! What can be injected: which copy, in which space, through which layer, and what refuses it.

use crate::deviation::Deviation;

/// Which copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// From the guest.
    Read,
    /// To the guest.
    Write,
    /// A byte to the guest.
    Fill,
}

/// The address space of the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Guest-virtual.
    Virtual,
    /// Guest-physical, by `hlv` and `hsv`.
    Physical,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// `GuestMemory`: a window a page.
    Windows,
    /// `Hart`: one copy across the page's end, inside a window that the test holds open.
    Hart,
}

/// What refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The VS-stage has no second page.
    Page,
    /// The VS-stage's second page is read-only.
    ReadOnlyPage,
    /// The G-stage has no second page.
    GuestPage,
    /// The G-stage's second page is read-only.
    ReadOnlyGuestPage,
    /// The G-stage lacks the table that the VS-stage has the second page in.
    Table,
    /// Physical memory protection, of 4 bytes at this offset of the first page.
    Protection(u64),
    /// Nothing: the copy goes through.
    Nothing,
}

/// Which fault is injected into what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What is called.
    pub layer: Layer,
    /// Which copy.
    pub operation: Operation,
    /// Which space.
    pub space: Space,
    /// What refuses.
    pub refusal: Refusal,
}

impl Setting {
    /// Whether there is such a fault: a load does not mind what is read-only, a guest-physical address has no VS-stage.
    pub fn exists(&self) -> bool {
        let store = self.operation != Operation::Read;
        let is_virtual = self.space == Space::Virtual;
        match self.refusal {
            Refusal::Page | Refusal::Table => is_virtual,
            Refusal::ReadOnlyPage => store && is_virtual,
            Refusal::ReadOnlyGuestPage => store,
            Refusal::GuestPage | Refusal::Protection(_) | Refusal::Nothing => true,
        }
    }

    /// The cause by the specification, and the one that a deviation makes of it.
    pub fn causes(&self) -> (u64, Option<(Deviation, u64)>) {
        let store = match self.operation {
            Operation::Read => 0,
            Operation::Write | Operation::Fill => 2,
        };
        match self.refusal {
            Refusal::Page | Refusal::ReadOnlyPage => (13 + store, None),
            Refusal::GuestPage | Refusal::ReadOnlyGuestPage => (21 + store, None),
            Refusal::Table => (21 + store, Some((Deviation::ImplicitIsLoad, 21))),
            Refusal::Protection(_) => {
                let as_guest_page = (Deviation::ProtectionIsGuestPage, 21 + store);
                (5 + store, Some(as_guest_page))
            }
            Refusal::Nothing => (0, None),
        }
    }
}
