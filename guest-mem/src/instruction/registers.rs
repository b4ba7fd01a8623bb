//! The guest's general registers, as the completion of an access needs them.

/// The number of a general register: `x0` to `x31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Register(u8);

impl Register {
    /// `x0`, which reads as zero and forgets what is written.
    pub const ZERO: Self = Self(0);

    /// Register `x` of `number`, or `None` above 31.
    ///
    /// ```
    /// use guest_mem::instruction::Register;
    ///
    /// assert_eq!(Register::new(10).map(Register::index), Some(10));
    /// assert_eq!(Register::new(32), None);
    /// ```
    #[inline]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 32 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The five-bit field of `bits` whose lowest bit is `shift`.
    #[inline]
    pub(super) const fn field(bits: u32, shift: u32) -> Self {
        Self((bits >> shift & 0x1f) as u8)
    }

    /// The three-bit field of a compressed instruction, which names `x8` to `x15`.
    #[inline]
    pub(super) const fn compressed_field(bits: u32, shift: u32) -> Self {
        Self((bits >> shift & 0b111) as u8 + 8)
    }

    /// The number, for an array of 32 registers.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The registers of one vCPU that is not running.
///
/// `x0` is the library's business: neither [`read`](Self::read) nor [`write`](Self::write) is ever called for it.
pub trait GuestRegisters {
    /// The value of a general register, never `x0`.
    fn read(&self, register: Register) -> u64;

    /// Sets a general register, never `x0`.
    fn write(&mut self, register: Register, value: u64);

    /// The guest-virtual address at which the guest goes on.
    fn pc(&self) -> u64;

    /// Sets where the guest goes on.
    fn set_pc(&mut self, pc: u64);
}
