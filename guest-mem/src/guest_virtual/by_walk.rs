//! Guest-virtual accesses by one walk a page in software, and the host's mapping.
//!
//! The one idea: a walk is good for one page and one access, both inside the read guard that [`BackingMemory`] stands for: the
//! host address it found is used at once and forgotten. Who takes translations away (a G-stage unmap, a guest's remote fence)
//! waits for that guard before it acknowledges, as it would wait for a hart's own translations to go.
//!
//! What the walk leads to is used by plain loads and stores only where it is memory like any other. Everything else is the
//! hardware's, where that has such an access: a page whose memory type is not the machine's own (Svpbmt), a device, memory that
//! the host does not map, and every refusal.

use core::ptr::NonNull;

use super::backed::BackedVirtual;
use super::way::{Elsewhere, Reached, Reason};
use crate::access::AccessKind;
use crate::address::{Gpa, Gva, PAGE_SIZE, Piece, last_byte};
use crate::fault::{AccessError, Fault, FaultKind, Operation};
use crate::guest_physical::{BackingMemory, Stretch};
use crate::hart::Hart;
use crate::translate::{
    Access, MemoryType, PlainVsWalk, Purpose, Translation, VsRegime, translate, walk_vs_stage,
};

impl<H: Hart, M: BackingMemory> BackedVirtual<'_, '_, H, M> {
    /// Why `len` bytes of `operation` go by a walk, if they do.
    #[inline]
    pub(super) fn by_walk_if(&self, operation: Operation, len: usize) -> Option<Reason> {
        if self.environment.walk_always {
            Some(Reason::OnlyWay)
        } else if operation.access_kind() == AccessKind::Store && self.memory.is_logging() {
            Some(Reason::Logging)
        } else if len >= self.environment.walk_from {
            Some(Reason::Large)
        } else {
            None
        }
    }

    /// The same for a single access, which is never large.
    #[inline]
    pub(super) fn single_by_walk_if(&self, operation: Operation) -> Option<Reason> {
        self.by_walk_if(operation, 0)
            .filter(|&reason| reason != Reason::Large)
    }

    /// Makes an access page by page: `direct` in memory that the host maps, which cannot fail, and `elsewhere` anywhere else.
    /// Each is given the access's own `state` and the offset and length of the page's piece.
    pub(super) fn by_walk<S>(
        &self,
        operation: Operation,
        reason: Reason,
        (gva, len): (Gva, usize),
        mut state: S,
        direct: impl Fn(&mut S, NonNull<u8>, Gpa, usize, usize),
        elsewhere: impl Fn(&mut S, Elsewhere, usize, usize) -> Result<(), AccessError>,
    ) -> Result<(), AccessError> {
        if len == 0 {
            return Ok(());
        }
        let refuse = |fault: Fault| fault.at_gva(gva).after(0);
        if last_byte(gva.value(), len).is_none() {
            return Err(refuse(Fault::new(operation, FaultKind::OutOfRange)));
        }
        self.vcpu().check_g_stage(operation).map_err(refuse)?;
        let regime = self.regime(operation).map_err(refuse)?;
        let access = self.access(operation, gva);
        let short = Short::new(self.memory, &regime, access);
        let mut done = 0;
        loop {
            if let Some(short) = &short {
                done += short.run(gva, done, len, |host, gpa, offset, len| {
                    direct(&mut state, host, gpa, offset, len);
                });
            }
            if done == len {
                return Ok(());
            }
            let piece = piece(gva, done, len);
            let access = Access {
                gva: piece.address,
                ..access
            };
            let reached = self
                .thoroughly(&regime, operation, reason, access)
                .map_err(|fault| fault.after(done))?;
            match reached {
                Reached::Direct(host, gpa) => direct(&mut state, host, gpa, done, piece.len),
                Reached::Elsewhere(place) => elsewhere(&mut state, place, done, piece.len)
                    .map_err(|error| in_piece(operation, piece, error))?,
            }
            done += piece.len;
            if done == len {
                return Ok(());
            }
        }
    }

    fn access(&self, operation: Operation, gva: Gva) -> Access {
        Access {
            gva,
            purpose: Purpose::of(operation.access_kind()),
            privilege: self.hardware.privilege,
        }
    }

    /// Where the access leads, by the full walk. What that refuses the hardware is asked about, where it can be: it knows its own
    /// tables best, and a slot may say less than they do. A write loses no log by that: a page of a logging slot that is not
    /// marked is write-protected at the G-stage.
    ///
    /// A and D bits are set last, when nothing but a race can refuse the access any more (R55).
    #[cold]
    #[inline(never)]
    fn thoroughly(
        &self,
        regime: &VsRegime,
        operation: Operation,
        reason: Reason,
        access: Access,
    ) -> Result<Reached, Fault> {
        let hardware = Reached::Elsewhere(Elsewhere::Hardware(access.gva));
        let can_be_asked = reason != Reason::OnlyWay;
        let judged = |fault: Fault| match can_be_asked {
            true => Ok(hardware),
            false => Err(Fault { operation, ..fault }),
        };
        let looked = match self.look(regime, access) {
            Ok(found) => found,
            Err(fault) => return judged(fault),
        };
        // An exchange is the hardware's too, which has none.
        let only_ordinary = can_be_asked || operation == Operation::CompareExchange;
        if only_ordinary && !self.is_ordinary(&looked) {
            return Ok(hardware);
        }
        // Whoever sets the VS-stage's A and D bits: the G-stage's may be the machine's.
        let found = match translate(regime, self.memory, access) {
            Ok(found) => found,
            Err(fault) => return judged(fault),
        };
        Ok(match self.memory.direct(&found.page) {
            Some(host) if is_pma(&found) => Reached::Direct(host, found.gpa),
            // The tables changed since.
            _ if only_ordinary => hardware,
            _ => Reached::Elsewhere(Elsewhere::Memory(found.gpa)),
        })
    }

    /// Where the access would lead, leaving A and D bits alone.
    fn look(&self, regime: &VsRegime, access: Access) -> Result<Translation<M::Page>, Fault> {
        let gva = regime.effective_address(access);
        let access = Access { gva, ..access };
        let (gpa, vs) = walk_vs_stage(&regime.looking(), self.memory, access, &())?;
        match self.memory.look(gpa, access.purpose) {
            Ok(page) => Ok(Translation { gva, gpa, vs, page }),
            Err(kind) => Err(Fault::new(access.purpose.operation(), kind)
                .at_gva(gva)
                .at_gpa(gpa)),
        }
    }

    fn is_ordinary(&self, found: &Translation<M::Page>) -> bool {
        is_pma(found) && self.memory.direct(&found.page).is_some()
    }
}

/// The part of a range from its byte `done` on that lies in one page.
#[inline(always)]
fn piece(gva: Gva, done: usize, len: usize) -> Piece<Gva> {
    let address = Gva::new(gva.value().wrapping_add(done as u64));
    let room = (PAGE_SIZE - address.page_offset()) as usize;
    Piece {
        address,
        offset: done,
        len: room.min(len - done),
    }
}

/// The way of almost every page: plain entries, and ordinary memory.
struct Short<'m, M> {
    memory: &'m M,
    walk: PlainVsWalk,
    purpose: Purpose,
    /// High bits of an address that pointer masking replaces by copies of the next (R14).
    masked_bits: u32,
    stretch: Stretch,
}

impl<'m, M: BackingMemory> Short<'m, M> {
    fn new(memory: &'m M, regime: &VsRegime, access: Access) -> Option<Self> {
        Some(Self {
            memory,
            walk: PlainVsWalk::new(regime, access)?,
            purpose: access.purpose,
            masked_bits: regime.masked_bits(access),
            stretch: memory.stretch().unwrap_or(Stretch::EMPTY),
        })
    }

    /// Hands `part` one page's piece after the other, from byte `done` on, until a page is not to be had this way. Answers the
    /// bytes handed over.
    #[inline(never)]
    fn run(
        &self,
        gva: Gva,
        mut done: usize,
        len: usize,
        mut part: impl FnMut(NonNull<u8>, Gpa, usize, usize),
    ) -> usize {
        let start = done;
        while done < len {
            let piece = piece(gva, done, len);
            let Some((host, gpa)) = self.find(piece.address).or_else(|| self.ask(piece.address))
            else {
                break;
            };
            part(host, gpa, done, piece.len);
            done += piece.len;
        }
        done - start
    }

    /// What is translated: the address after pointer masking, if it is canonical (R49).
    #[inline(always)]
    fn translated(&self, gva: Gva) -> Option<u64> {
        let same_above =
            |address: u64, bits: u32| ((address << bits).cast_signed() >> bits).cast_unsigned();
        let masked = same_above(gva.value(), self.masked_bits);
        (same_above(masked, self.walk.unused_bits()) == masked).then_some(masked)
    }

    /// Where an address leads, if the stretch has all that is needed to know it. `None` says nothing.
    #[inline(always)]
    fn find(&self, gva: Gva) -> Option<(NonNull<u8>, Gpa)> {
        let gpa = self.walk.find(self.translated(gva)?, |at| {
            // SAFETY: `find` asks for aligned entries.
            unsafe { self.stretch.load(Gpa::new(at)) }
        })?;
        let host = self.stretch.place(Gpa::new(gpa), self.purpose)?;
        Some((host, Gpa::new(gpa)))
    }

    /// The same by asking the memory for each entry and for the page.
    #[inline(never)]
    fn ask(&self, gva: Gva) -> Option<(NonNull<u8>, Gpa)> {
        let gpa = self.walk.find(self.translated(gva)?, |at| {
            self.memory.read_entry(Gpa::new(at)).ok()
        })?;
        let page = self.memory.locate(Gpa::new(gpa), self.purpose).ok()?;
        Some((self.memory.direct(&page)?, Gpa::new(gpa)))
    }
}

/// Whether the VS-stage leaves the memory type to the machine (R53). The G-stage's is in what [`BackingMemory`] answers.
fn is_pma<P>(found: &Translation<P>) -> bool {
    found
        .vs
        .is_none_or(|leaf| leaf.memory_type == MemoryType::Pma)
}

/// The error of a piece as one of the whole range.
#[cold]
#[inline(never)]
fn in_piece(operation: Operation, piece: Piece<Gva>, error: AccessError) -> AccessError {
    let gva = Gva::new(piece.address.value() + error.completed as u64);
    let fault = Fault {
        operation,
        ..error.fault
    };
    let fault = match fault.gva {
        Some(_) => fault,
        None => fault.at_gva(gva),
    };
    fault.after(error.completed + piece.offset)
}

/// Bytes that are timed for each size and way.
const TIMED: usize = 64 * 1024;

/// The sizes that [`BackedVirtual::measure_walk_from`] looks at.
const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 2048, 4096];

impl<H: Hart, M: BackingMemory> BackedVirtual<'_, '_, H, M> {
    /// Measures for [`VsEnvironment::walk_from`](super::VsEnvironment::walk_from): reads the 4 KiB page at `page` by the
    /// hardware and by walks, in pieces of several sizes, and answers the size from which on walks are faster; [`usize::MAX`] if
    /// they never are. `now` is a clock in any unit that tells 64 KiB of copying from none.
    ///
    /// For boot time: it copies about 3 MiB.
    ///
    /// # Errors
    ///
    /// That of a read. `page` is rounded down to a page.
    pub fn measure_walk_from(
        &self,
        page: Gva,
        mut now: impl FnMut() -> u64,
    ) -> Result<usize, AccessError> {
        let mut buffer = [0u64; PAGE_SIZE as usize / 8];
        let buffer = zerocopy::IntoBytes::as_mut_bytes(&mut buffer[..]);
        let mut time = |walk_from: usize, size: usize| {
            let space = Self {
                environment: self.environment.with_walk_from(walk_from),
                ..*self
            };
            let mut best = u64::MAX;
            for _ in 0..3 {
                let start = now();
                for _ in 0..TIMED / size {
                    crate::GuestMemory::read(&space, page.page_base(), &mut buffer[..size])?;
                }
                best = best.min(now().wrapping_sub(start));
            }
            Ok(best)
        };
        let mut from = usize::MAX;
        for size in SIZES.into_iter().rev() {
            if time(0, size)? >= time(usize::MAX, size)? {
                break;
            }
            from = size;
        }
        Ok(from)
    }
}
