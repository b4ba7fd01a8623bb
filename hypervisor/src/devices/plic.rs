//! A virtual platform-level interrupt controller, as the RISC-V PLIC specification 1.0.0 lays it out. The contexts are numbered
//! as on QEMU's `virt` machine, since some kernels have these numbers wired in: hart n has context 2n for M-mode, which a guest
//! does not have, and context 2n + 1 for S-mode.
//!
//! The one idea: between a device's line and the pending bit stands a *gateway* that lets one request through and then
//! waits for its completion, so that an interrupt in service never becomes pending again behind the handler's back.

use alloc::vec;
use alloc::vec::Vec;

use guest_mem::Width;

use super::Mmio;

/// Bytes of guest-physical address space: the registers of 1024 contexts.
pub const WINDOW: u64 = layout::CONTEXT + 1024 * layout::CONTEXT_STRIDE;

/// Interrupt sources. Source 0 does not exist.
pub const SOURCES: u32 = 32;

/// The highest priority; 0 is "never".
const MAX_PRIORITY: u32 = 7;

/// Offsets of the register blocks and the distance between contexts.
pub mod layout {
    /// A word of priority for each source.
    pub const PRIORITY: u64 = 0;
    /// A bit of pending for each source.
    pub const PENDING: u64 = 0x1000;
    /// A bit of enable for each source, for each context.
    pub const ENABLE: u64 = 0x2000;
    /// Distance between the enable bits of two contexts.
    pub const ENABLE_STRIDE: u64 = 0x80;
    /// Threshold, then claim/complete, for each context.
    pub const CONTEXT: u64 = 0x20_0000;
    /// Distance between two contexts.
    pub const CONTEXT_STRIDE: u64 = 0x1000;
    /// Offset of the threshold inside its context.
    pub const THRESHOLD: u64 = 0;
    /// Offset of claim (read) and complete (write) inside its context.
    pub const CLAIM: u64 = 4;
}

/// The context of a hart's S-mode.
pub const fn supervisor_context(hart: usize) -> usize {
    2 * hart + 1
}

/// The contexts of so many harts.
pub const fn contexts(harts: usize) -> usize {
    2 * harts
}

#[derive(Clone, Copy, Debug, Default)]
struct Context {
    enabled: u32,
    threshold: u32,
}

/// The interrupt controller.
pub struct Plic {
    priority: [u32; SOURCES as usize],
    /// Levels of the input lines.
    level: u32,
    pending: u32,
    /// Claimed and not yet completed: the gateway is shut.
    in_service: u32,
    contexts: Vec<Context>,
}

/// The register that an offset names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Register {
    Priority(usize),
    Pending,
    Enable(usize),
    Threshold(usize),
    Claim(usize),
}

impl Plic {
    /// A controller after reset with so many contexts: nothing enabled, nothing pending.
    pub fn new(contexts: usize) -> Self {
        Self {
            priority: [0; SOURCES as usize],
            level: 0,
            pending: 0,
            in_service: 0,
            contexts: vec![Context::default(); contexts],
        }
    }

    /// Drives the input line of `source`, which is level-triggered. A source that does not exist is ignored.
    ///
    /// A request that has become pending stays so when the line falls: the handler finds out (PLIC specification,
    /// "Interrupt Gateways").
    pub fn set_line(&mut self, source: u32, level: bool) {
        let Some(bit) = source_bit(source) else {
            return;
        };
        if level {
            self.level |= bit;
            self.pending |= bit & !self.in_service;
        } else {
            self.level &= !bit;
        }
    }

    /// Whether the external interrupt of `context` is asserted: some enabled, pending source exceeds its threshold.
    pub fn external_interrupt(&self, context: usize) -> bool {
        let Some(state) = self.contexts.get(context) else {
            return false;
        };
        self.best(state)
            .is_some_and(|source| self.priority[source] > state.threshold)
    }

    /// The pending, enabled source of highest priority; of equals the one with the lowest number.
    fn best(&self, context: &Context) -> Option<usize> {
        let candidates = self.pending & context.enabled;
        let mut best: Option<usize> = None;
        for source in 1..SOURCES as usize {
            let wants = candidates & 1 << source != 0 && self.priority[source] > 0;
            if wants && best.is_none_or(|best| self.priority[source] > self.priority[best]) {
                best = Some(source);
            }
        }
        best
    }

    /// The threshold plays no part here.
    fn claim(&mut self, context: usize) -> u32 {
        let Some(source) = self.best(&self.contexts[context]) else {
            return 0;
        };
        self.pending &= !(1 << source);
        self.in_service |= 1 << source;
        source as u32
    }

    /// Ignored unless `source` is enabled for the context.
    fn complete(&mut self, context: usize, source: u32) {
        let Some(bit) = source_bit(source) else {
            return;
        };
        if self.contexts[context].enabled & bit != 0 {
            self.in_service &= !bit;
            self.pending |= bit & self.level;
        }
    }

    /// The register at `offset`, if it exists. Its context does, too.
    fn register(&self, offset: u64) -> Option<Register> {
        use layout::*;
        let context = |index: u64| {
            let index = usize::try_from(index).ok()?;
            (index < self.contexts.len()).then_some(index)
        };
        match offset {
            PENDING => Some(Register::Pending),
            _ if offset < 4 * u64::from(SOURCES) => Some(Register::Priority((offset / 4) as usize)),
            ENABLE..CONTEXT => {
                let (index, rest) = div_rem(offset - ENABLE, ENABLE_STRIDE);
                (rest == 0).then_some(Register::Enable(context(index)?))
            }
            CONTEXT..WINDOW => {
                let (index, rest) = div_rem(offset - CONTEXT, CONTEXT_STRIDE);
                match rest {
                    THRESHOLD => Some(Register::Threshold(context(index)?)),
                    CLAIM => Some(Register::Claim(context(index)?)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn div_rem(value: u64, by: u64) -> (u64, u64) {
    (value / by, value % by)
}

/// The bit of an existing source in a word of sources.
fn source_bit(source: u32) -> Option<u32> {
    (1..SOURCES).contains(&source).then(|| 1 << source)
}

/// Only aligned 32-bit accesses reach a register; others read as zero and are ignored.
impl Mmio for Plic {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        if width != Width::Word || !offset.is_multiple_of(4) {
            return 0;
        }
        let value = match self.register(offset) {
            Some(Register::Priority(source)) => self.priority[source],
            Some(Register::Pending) => self.pending,
            Some(Register::Enable(context)) => self.contexts[context].enabled,
            Some(Register::Threshold(context)) => self.contexts[context].threshold,
            Some(Register::Claim(context)) => self.claim(context),
            None => 0,
        };
        u64::from(value)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        if width != Width::Word || !offset.is_multiple_of(4) {
            return;
        }
        let value = value as u32;
        match self.register(offset) {
            // WARL: as many bits as MAX_PRIORITY has; source 0 is read-only zero.
            Some(Register::Priority(0) | Register::Pending) | None => {}
            Some(Register::Priority(source)) => self.priority[source] = value & MAX_PRIORITY,
            Some(Register::Enable(context)) => self.contexts[context].enabled = value & !1,
            Some(Register::Threshold(context)) => {
                self.contexts[context].threshold = value & MAX_PRIORITY;
            }
            Some(Register::Claim(context)) => self.complete(context, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::layout::*;
    use super::*;

    fn set(plic: &mut Plic, offset: u64, value: u32) {
        plic.write(offset, Width::Word, u64::from(value));
    }

    fn get(plic: &mut Plic, offset: u64) -> u32 {
        plic.read(offset, Width::Word) as u32
    }

    fn enable(context: u64) -> u64 {
        ENABLE + context * ENABLE_STRIDE
    }

    fn claim_register(context: u64) -> u64 {
        CONTEXT + context * CONTEXT_STRIDE + CLAIM
    }

    fn threshold(context: u64) -> u64 {
        CONTEXT + context * CONTEXT_STRIDE + THRESHOLD
    }

    /// Two contexts; sources 3 and 10 enabled at both with priority 1.
    fn ready() -> Plic {
        let mut plic = Plic::new(2);
        for source in [3, 10] {
            set(&mut plic, 4 * source, 1);
        }
        for context in 0..2 {
            set(&mut plic, enable(context), 1 << 3 | 1 << 10);
        }
        plic
    }

    #[test]
    fn a_line_interrupts_until_it_is_claimed() {
        let mut plic = ready();
        assert!(!plic.external_interrupt(0));
        plic.set_line(10, true);
        assert_eq!(get(&mut plic, PENDING), 1 << 10);
        assert!(plic.external_interrupt(0) && plic.external_interrupt(1));
        assert_eq!(get(&mut plic, claim_register(1)), 10);
        assert!(!plic.external_interrupt(0) && !plic.external_interrupt(1));
        assert_eq!(get(&mut plic, claim_register(0)), 0, "one claim a request");
    }

    #[test]
    fn a_line_still_high_at_completion_is_pending_again() {
        let mut plic = ready();
        plic.set_line(10, true);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
        plic.set_line(10, false);
        plic.set_line(10, true);
        assert_eq!(get(&mut plic, PENDING), 0, "the gateway is shut");
        set(&mut plic, claim_register(0), 10);
        assert_eq!(get(&mut plic, PENDING), 1 << 10);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
        plic.set_line(10, false);
        set(&mut plic, claim_register(0), 10);
        assert!(!plic.external_interrupt(0));
    }

    #[test]
    fn a_request_stays_pending_when_the_line_falls() {
        let mut plic = ready();
        plic.set_line(10, true);
        plic.set_line(10, false);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
        set(&mut plic, claim_register(0), 10);
        assert_eq!(get(&mut plic, claim_register(0)), 0);
    }

    #[test]
    fn the_highest_priority_is_claimed_first_and_of_equals_the_lowest_number() {
        let mut plic = ready();
        plic.set_line(3, true);
        plic.set_line(10, true);
        set(&mut plic, 4 * 10, 2);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
        assert_eq!(get(&mut plic, claim_register(0)), 3);
        for source in [3, 10] {
            set(&mut plic, claim_register(0), source);
        }
        set(&mut plic, 4 * 10, 1);
        assert_eq!(get(&mut plic, claim_register(0)), 3);
    }

    #[test]
    fn the_threshold_masks_the_interrupt_but_not_the_claim() {
        let mut plic = ready();
        plic.set_line(10, true);
        set(&mut plic, threshold(0), 1);
        assert!(!plic.external_interrupt(0), "priority must exceed it");
        assert!(
            plic.external_interrupt(1),
            "a threshold is its context's own"
        );
        set(&mut plic, 4 * 10, 2);
        assert!(plic.external_interrupt(0));
        set(&mut plic, threshold(0), 7);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
    }

    #[test]
    fn priority_zero_and_disabled_sources_never_interrupt() {
        let mut plic = ready();
        plic.set_line(10, true);
        set(&mut plic, 4 * 10, 0);
        assert!(!plic.external_interrupt(0));
        assert_eq!(get(&mut plic, claim_register(0)), 0);
        set(&mut plic, 4 * 10, 1);
        set(&mut plic, enable(0), 0);
        assert!(!plic.external_interrupt(0));
        assert_eq!(get(&mut plic, claim_register(0)), 0);
        assert!(plic.external_interrupt(1));
    }

    #[test]
    fn a_completion_of_a_source_not_enabled_there_is_ignored() {
        let mut plic = ready();
        set(&mut plic, enable(1), 0);
        plic.set_line(10, true);
        assert_eq!(get(&mut plic, claim_register(0)), 10);
        for source in [0, 3, 11, 32, u32::MAX] {
            set(&mut plic, claim_register(0), source);
        }
        set(&mut plic, claim_register(1), 10);
        assert_eq!(get(&mut plic, PENDING), 0);
        set(&mut plic, claim_register(0), 10);
        assert_eq!(get(&mut plic, PENDING), 1 << 10);
    }

    #[test]
    fn registers_read_back_what_is_legal() {
        let mut plic = Plic::new(1);
        for (offset, written, read) in [
            (0, 7, 0),
            (4, u32::MAX, 7),
            (4 * 31, 5, 5),
            (PENDING, u32::MAX, 0),
            (enable(0), u32::MAX, u32::MAX - 1),
            (threshold(0), u32::MAX, 7),
        ] {
            set(&mut plic, offset, written);
            assert_eq!(get(&mut plic, offset), read, "{offset:#x}");
        }
    }

    #[test]
    fn what_does_not_exist_reads_as_zero_and_ignores_writes() {
        let mut plic = ready();
        plic.set_line(10, true);
        let nowhere = [
            4 * u64::from(SOURCES),
            PENDING + 4,
            enable(0) + 4,
            enable(2),
            threshold(0) + 8,
            threshold(2),
            claim_register(2),
            WINDOW - 4,
            WINDOW,
            u64::MAX - 3,
        ];
        for offset in nowhere {
            set(&mut plic, offset, u32::MAX);
            assert_eq!(get(&mut plic, offset), 0, "{offset:#x}");
        }
        for source in [0, 32, u32::MAX] {
            plic.set_line(source, true);
        }
        assert_eq!(get(&mut plic, PENDING), 1 << 10);
        assert!(!plic.external_interrupt(2));
    }

    #[test]
    fn only_aligned_words_reach_a_register() {
        let mut plic = ready();
        plic.set_line(10, true);
        for (offset, width) in [
            (claim_register(0), Width::Byte),
            (claim_register(0), Width::Half),
            (threshold(0), Width::Double),
            (claim_register(0) + 1, Width::Word),
        ] {
            plic.write(offset, width, 10);
            assert_eq!(plic.read(offset, width), 0);
        }
        assert!(plic.external_interrupt(0), "nothing was claimed");
        assert_eq!(get(&mut plic, threshold(0)), 0);
    }
}
