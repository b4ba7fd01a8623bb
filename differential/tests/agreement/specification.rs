//! Two-stage address translation, straight from the privileged specification: "Virtual Address Translation Process" of the
//! supervisor level, step by step, and "Two-Stage Address Translation" of the hypervisor extension, with Svnapot, Svpbmt,
//! Svadu, Svrsw60t59b, Zicfiss and pointer masking where they come in.
//!
//! The one idea: this file is to be read beside the specification and is as plain as can be. It shares nothing with the
//! library, not even the names of bits.

/// The machine: its registers, and memory from `base` on. There is nothing else.
pub struct Machine {
    pub base: u64,
    pub memory: Vec<u64>,
    pub vsatp: u64,
    pub hgatp: u64,
    pub vsstatus: u64,
    pub sstatus: u64,
    pub spvp: bool,
    pub menvcfg: u64,
    pub henvcfg: u64,
    pub senvcfg: u64,
}

/// The explicit access.
#[derive(Clone, Copy, PartialEq)]
pub enum Access {
    Hlv,
    Hlvx,
    Hsv,
}

/// `scause`, `stval`, `htval`, `htinst`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trap {
    pub scause: u64,
    pub stval: u64,
    pub htval: u64,
    pub htinst: u64,
}

/// Why a stage ends: "page-fault exception", "access-fault exception", in the words of the steps. For the G-stage the first
/// is a guest-page fault.
enum Exception {
    PageFault,
    AccessFault,
    /// A guest-page fault or access fault for the VS-stage's own access to a page-table entry.
    Implicit(Box<Exception>, u64, bool),
}

use Exception::{AccessFault, Implicit, PageFault};

fn bit(value: u64, at: u32) -> bool {
    value >> at & 1 == 1
}

fn field(value: u64, high: u32, low: u32) -> u64 {
    value >> low & (u64::MAX >> (63 - (high - low)))
}

/// What the process needs of one stage.
struct Stage {
    levels: i32,
    /// Bits that the root's index has beyond nine: "widened by 2 bits".
    widened: u32,
    ppn: u64,
    adue: bool,
    pbmte: bool,
    sse: bool,
}

/// What a stage checks at its leaf.
struct Rights {
    load: bool,
    store: bool,
    execute: bool,
    mxr: bool,
    /// "When U=1 is required" for U-mode; S-mode may touch such pages with SUM.
    user: bool,
    sum: bool,
}

impl Machine {
    pub fn word(&self, at: u64) -> Option<u64> {
        let offset = at.checked_sub(self.base)?;
        self.memory.get((offset / 8) as usize).copied()
    }

    fn set_word(&mut self, at: u64, value: u64) -> Option<()> {
        let offset = at.checked_sub(self.base)?;
        *self.memory.get_mut((offset / 8) as usize)? = value;
        Some(())
    }

    /// One `hlv`, `hlvx` or `hsv` of `bytes` bytes; a load is zero-extended.
    pub fn execute(
        &mut self,
        access: Access,
        address: u64,
        bytes: u64,
        value: u64,
    ) -> Result<u64, Trap> {
        let stval = self.pointer_masking(access, address);
        let trap = |exception: Exception, gpa: u64| {
            let store = access == Access::Hsv;
            let (page, access_fault, guest_page) = if store { (15, 7, 23) } else { (13, 5, 21) };
            let of_guest_page = |gpa: u64, htinst: u64| Trap {
                scause: guest_page,
                stval,
                htval: gpa >> 2,
                htinst: if gpa >> 2 == 0 { 0 } else { htinst },
            };
            let plain = |scause| Trap {
                scause,
                stval,
                htval: 0,
                htinst: 0,
            };
            match exception {
                PageFault if gpa == u64::MAX => plain(page),
                PageFault => of_guest_page(gpa, 0),
                AccessFault => plain(access_fault),
                Implicit(inner, entry, write) => match *inner {
                    PageFault => of_guest_page(entry, if write { 0x3020 } else { 0x3000 }),
                    _ => plain(access_fault),
                },
            }
        };
        let gpa = self
            .vs_stage(access, stval)
            .map_err(|exception| trap(exception, u64::MAX))?;
        let rights = Rights {
            load: access == Access::Hlv,
            store: access == Access::Hsv,
            execute: access == Access::Hlvx,
            // sstatus.MXR makes execute-only pages readable at both stages; vsstatus.MXR at the VS-stage only.
            mxr: bit(self.sstatus, 19),
            user: true,
            sum: false,
        };
        let spa = self
            .g_stage(gpa, &rights)
            .map_err(|exception| trap(exception, gpa))?;
        // Physical memory attributes.
        let old = self.word(spa & !7).ok_or_else(|| trap(AccessFault, gpa))?;
        let shift = spa % 8 * 8;
        let mask = u64::MAX >> (64 - 8 * bytes);
        if access == Access::Hsv {
            let new = old & !(mask << shift) | (value & mask) << shift;
            self.set_word(spa & !7, new).expect("it was read");
            return Ok(0);
        }
        Ok(old >> shift & mask)
    }

    /// "Pointer masking": hlvx is exempt, and so is everything while MXR is in effect.
    fn pointer_masking(&self, access: Access, address: u64) -> u64 {
        let envcfg = if self.spvp {
            self.henvcfg
        } else {
            self.senvcfg
        };
        let pmlen = match field(envcfg, 33, 32) {
            0b10 => 7,
            0b11 => 16,
            _ => return address,
        };
        if access == Access::Hlvx || bit(self.sstatus, 19) || bit(self.vsstatus, 19) {
            return address;
        }
        let shifted = address << pmlen;
        match field(self.vsatp, 63, 60) {
            // No translation at the VS-stage: "zero-extended". Otherwise "sign-extended".
            0 => shifted >> pmlen,
            _ => ((shifted as i64) >> pmlen) as u64,
        }
    }

    fn vs_stage(&mut self, access: Access, va: u64) -> Result<u64, Exception> {
        let levels = match field(self.vsatp, 63, 60) {
            0 => return Ok(va),
            8 => 3,
            9 => 4,
            10 => 5,
            _ => unreachable!(),
        };
        // "bits 63-39 must all be equal to bit 38, or else a page-fault exception will occur", and so on.
        let top = 12 + 9 * levels as u32 - 1;
        let above = field(va, 63, top);
        if above != 0 && above != u64::MAX >> top {
            return Err(PageFault);
        }
        let stage = Stage {
            levels,
            widened: 0,
            ppn: field(self.vsatp, 43, 0),
            // "If menvcfg.ADUE (PBMTE) is zero, henvcfg.ADUE (PBMTE) is read-only zero."
            adue: bit(self.henvcfg & self.menvcfg, 61),
            pbmte: bit(self.henvcfg & self.menvcfg, 62),
            // "When menvcfg.SSE is zero, ... henvcfg.SSE ... is read-only zero."
            sse: bit(self.henvcfg & self.menvcfg, 3),
        };
        let rights = Rights {
            load: access == Access::Hlv,
            store: access == Access::Hsv,
            execute: access == Access::Hlvx,
            mxr: bit(self.vsstatus, 19) || bit(self.sstatus, 19),
            user: !self.spvp,
            sum: bit(self.vsstatus, 18),
        };
        self.process(&stage, va, &rights, true)
    }

    fn g_stage(&mut self, gpa: u64, rights: &Rights) -> Result<u64, Exception> {
        let levels = match field(self.hgatp, 63, 60) {
            8 => 3,
            9 => 4,
            10 => 5,
            _ => unreachable!(),
        };
        // "address bits 63:41 (50, 59) must all be zeros, or else a guest-page-fault exception occurs".
        let top = 12 + 9 * levels as u32 + 2;
        if field(gpa, 63, top) != 0 {
            return Err(PageFault);
        }
        let stage = Stage {
            levels,
            widened: 2,
            ppn: field(self.hgatp, 43, 0),
            adue: bit(self.menvcfg, 61),
            pbmte: bit(self.menvcfg, 62),
            sse: false,
        };
        self.process(&stage, gpa, rights, false)
    }

    /// Reads an entry: the G-stage's from memory, the VS-stage's through the G-stage.
    fn read_entry(&mut self, at: u64, of_vs: bool) -> Result<u64, Exception> {
        if !of_vs {
            return self.word(at).ok_or(AccessFault);
        }
        // "implicit accesses ... as if for load", checked as for U-mode; MXR is for explicit loads.
        let rights = Rights {
            load: true,
            store: false,
            execute: false,
            mxr: false,
            user: true,
            sum: false,
        };
        let implicit = |exception| Implicit(Box::new(exception), at, false);
        let spa = self.g_stage(at, &rights).map_err(implicit)?;
        self.word(spa)
            .ok_or(Implicit(Box::new(AccessFault), at, false))
    }

    fn write_entry(&mut self, at: u64, value: u64, of_vs: bool) -> Result<(), Exception> {
        if !of_vs {
            return self.set_word(at, value).ok_or(AccessFault);
        }
        let rights = Rights {
            load: false,
            store: true,
            execute: false,
            mxr: false,
            user: true,
            sum: false,
        };
        let implicit = |exception| Implicit(Box::new(exception), at, true);
        let spa = self.g_stage(at, &rights).map_err(implicit)?;
        self.set_word(spa, value)
            .ok_or(Implicit(Box::new(AccessFault), at, true))
    }

    /// The virtual address translation process, by its step numbers.
    fn process(
        &mut self,
        stage: &Stage,
        va: u64,
        rights: &Rights,
        of_vs: bool,
    ) -> Result<u64, Exception> {
        // 1.
        let mut a = stage.ppn << 12;
        let mut i = stage.levels - 1;
        loop {
            // 2.
            let low = 12 + 9 * i as u32;
            let widened = if i == stage.levels - 1 {
                stage.widened
            } else {
                0
            };
            let at = a + field(va, low + 8 + widened, low) * 8;
            let pte = self.read_entry(at, of_vs)?;
            let (v, r, w, x, u) = (
                bit(pte, 0),
                bit(pte, 1),
                bit(pte, 2),
                bit(pte, 3),
                bit(pte, 4),
            );
            // 3.
            if !v {
                return Err(PageFault);
            }
            let shadow_stack = stage.sse && !x && w && !r;
            if !r && w && !shadow_stack {
                return Err(PageFault);
            }
            // Svrsw60t59b frees bits 60:59.
            if field(pte, 58, 54) != 0 {
                return Err(PageFault);
            }
            let pbmt = field(pte, 62, 61);
            if pbmt == 3 || pbmt != 0 && !stage.pbmte {
                return Err(PageFault);
            }
            // 4.
            if !r && !x && !shadow_stack {
                // "For non-leaf PTEs, the D, A, and U bits are reserved", and so are N and PBMT.
                if bit(pte, 7) || bit(pte, 6) || u || bit(pte, 63) || pbmt != 0 {
                    return Err(PageFault);
                }
                i -= 1;
                if i < 0 {
                    return Err(PageFault);
                }
                a = field(pte, 53, 10) << 12;
                continue;
            }
            // 5., and Svnapot's encodings.
            let mut ppn = field(pte, 53, 10);
            if i > 0 && field(ppn, 9 * i as u32 - 1, 0) != 0 {
                return Err(PageFault);
            }
            if bit(pte, 63) {
                if i != 0 || field(ppn, 3, 0) != 0b1000 {
                    return Err(PageFault);
                }
                ppn = ppn & !0xf | field(va, 15, 12);
            }
            // 6.
            if rights.user && !u || !rights.user && u && !rights.sum {
                return Err(PageFault);
            }
            // 7.
            if shadow_stack && rights.store {
                return Err(AccessFault);
            }
            // 8.
            let readable = r || shadow_stack || rights.mxr && x;
            if rights.load && !readable || rights.store && !w || rights.execute && !x {
                return Err(PageFault);
            }
            // 9.
            if !bit(pte, 6) || rights.store && !bit(pte, 7) {
                if !stage.adue {
                    return Err(PageFault);
                }
                let dirty = if rights.store { 1 << 7 } else { 0 };
                self.write_entry(at, pte | 1 << 6 | dirty, of_vs)?;
            }
            // 10.
            let offset = low;
            let base = ppn << 12;
            return Ok(if i > 0 {
                base & !((1 << offset) - 1) | va & ((1 << offset) - 1)
            } else {
                base | va & 0xfff
            });
        }
    }
}
