//! The G-stage table of the guest, kept in step with the slots by the library's callbacks.

use std::cell::RefCell;

use guest_mem::Gpa;
use guest_mem::guest_physical::StageMirror;
use guest_mem::hart::Hart;
use guest_mem::hart::model::{ModelGuest, ModelHart};

use crate::oracle::{GPA_BASE, Oracle, PAGE, bits};

/// The G-stage table, as slots tell it.
pub struct Stage<'a> {
    pub guest: &'a ModelGuest<'a>,
    pub hart: &'a ModelHart<'a>,
    pub oracle: &'a RefCell<Oracle>,
}

impl Stage<'_> {
    pub fn set(&self, page: usize, rights: u8) {
        let gpa = Gpa::new(GPA_BASE + page as u64 * PAGE);
        if rights == 0 {
            self.guest.unback(gpa).unwrap();
        } else {
            let spa = self.guest.spa(gpa).unwrap();
            self.guest.back(gpa, spa, rights.into()).unwrap();
        }
        self.oracle.borrow_mut().rights[page] = rights;
    }

    fn for_each_page(&self, start: Gpa, len: u64, change: impl Fn(u8) -> u8) {
        let first = ((start.value() - GPA_BASE) / PAGE) as usize;
        for page in first..first + (len / PAGE) as usize {
            let rights = self.oracle.borrow().rights[page];
            self.set(page, change(rights));
        }
    }
}

impl StageMirror for Stage<'_> {
    fn unmap(&mut self, start: Gpa, len: u64) {
        self.for_each_page(start, len, |_| 0);
    }
    fn write_protect(&mut self, start: Gpa, len: u64) {
        self.for_each_page(start, len, |rights| rights & !bits::W);
    }
    fn shoot_down(&mut self) {
        self.hart.hfence_gvma(None);
        self.hart.hfence_vvma(None);
    }
}
