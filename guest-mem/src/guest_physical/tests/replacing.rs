//! A page that gets another frame: in which order, and what is put back if it cannot.

use super::*;
use crate::access::AccessKind;
use crate::csr::GMode;
use crate::fault::Resolution;
use crate::guest_memory::GuestMemory;

const BASE: Gpa = Gpa::new(0x8000_0000);

type Memory<'m> = GuestPhysicalMemory<'m, 1, 1>;

/// Notes each step, and what the entry and a reader's view said then.
struct Steps<'a> {
    entry: &'a PageEntry,
    reader: Reader<'a>,
    fails: bool,
    taken: Vec<&'static str>,
}

impl Steps<'_> {
    fn take(&mut self, step: &'static str) {
        assert_eq!(self.entry.get(), HostPage::Absent);
        // Whoever comes now asks for the page, and neither injects nor refuses.
        let view = self.reader.guard();
        let fault = view.read(BASE, &mut [0]).unwrap_err().fault;
        let (gpa, access) = (BASE, AccessKind::Load);
        assert_eq!(fault.resolution(), Resolution::Resolve { gpa, access });
        let page = view.host_page(BASE, AccessKind::Store);
        assert_eq!(page, Some(HostPage::Absent));
        self.taken.push(step);
    }
}

impl PageMirror for Steps<'_> {
    type Error = &'static str;

    fn hide(&mut self) {
        self.take("hide");
    }

    fn show(&mut self) -> Result<(), &'static str> {
        self.take("show");
        if self.fails { Err("no table") } else { Ok(()) }
    }
}

/// Replaces a page that says `old` by a writable one.
fn replace(old: HostPage, new: NonNull<u8>, fails: bool) -> (HostPage, Vec<&'static str>) {
    let pages = absent(1);
    let memory = Memory::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(BASE, &pages), &mut NoGStage)
        .unwrap();
    let mut steps = Steps {
        entry: &pages[0],
        reader: memory.reader(0).unwrap(),
        fails,
        taken: Vec::new(),
    };
    // SAFETY: the callers' frames outlive the memory.
    let replaced = unsafe {
        pages[0].set(old);
        memory.replace_page(&pages[0], HostPage::Writable(new), &mut steps)
    };
    assert_eq!(replaced, if fails { Err("no table") } else { Ok(old) });
    (pages[0].get(), steps.taken)
}

#[test]
fn r73_i13_an_entry_is_absent_from_the_fence_to_the_new_frame() {
    let frames = Frames::new(2);
    let old = HostPage::ReadOnly(frames.page(0));
    let (entry, steps) = replace(old, frames.page(1), false);
    assert_eq!(entry, HostPage::Writable(frames.page(1)));
    assert_eq!(steps, ["hide", "show"]);
}

#[test]
fn a_page_that_was_absent_has_nothing_to_hide() {
    let frames = Frames::new(1);
    let (entry, steps) = replace(HostPage::Absent, frames.page(0), false);
    assert_eq!(entry, HostPage::Writable(frames.page(0)));
    assert_eq!(steps, ["show"]);
}

#[test]
fn what_an_entry_said_is_put_back_if_the_frame_cannot_be_shown() {
    let frames = Frames::new(2);
    for old in [HostPage::ReadOnly(frames.page(0)), HostPage::Absent] {
        let (entry, _) = replace(old, frames.page(1), true);
        assert_eq!(entry, old);
    }
}

#[test]
#[should_panic(expected = "taken away before it gets another frame")]
fn a_page_that_may_be_written_is_not_replaced() {
    let frames = Frames::new(2);
    replace(HostPage::Writable(frames.page(0)), frames.page(1), false);
}

#[test]
fn i13_a_page_is_absent_once_more_while_it_is_asked_for() {
    // The longest way to a writable page that a load meets: absent, remembered as absent, read-only, absent on its way to
    // another frame.
    let frames = Frames::new(2);
    let pages = absent(1);
    let memory = Memory::new(GMode::Sv39x4);
    memory
        .add(Slot::paged(BASE, &pages), &mut NoGStage)
        .unwrap();
    let mut asked = 0;
    let mut page_in = |_: &crate::Fault, _, _| {
        asked += 1;
        if asked == 4 {
            // SAFETY: the frames outlive the memory.
            unsafe { pages[0].set(HostPage::Writable(frames.page(1))) };
        }
        Ok(())
    };
    let mut reader = memory.reader(0).unwrap();
    reader.read_with(BASE, &mut [0], &mut page_in).unwrap();
    assert_eq!(asked, 4);
}
