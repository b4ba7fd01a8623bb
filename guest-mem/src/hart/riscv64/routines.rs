//! The Rust names of the routines in the access unit, all of one signature.

use core::mem::MaybeUninit;

use crate::access::Width;
use crate::fault::TrapInfo;

/// What a routine answers in a0 and a1.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct SingleResult {
    /// The value of a single load; for a copy or a fill the bytes left, 0 unless a fault ended it.
    pub value: u64,
    /// For a single access: 1 after a fault.
    pub faulted: u64,
}

/// A routine of the access unit: `(host pointer or value, guest address, length, where a fault's trap goes)`.
///
/// # Safety
///
/// The host range is valid for the copy's direction; the access window is open; the addresses are aligned to the routine's
/// element and the length is a multiple of it.
pub type Routine = unsafe extern "C" fn(Argument, u64, Argument, *mut TrapInfo) -> SingleResult;

/// An argument that not every routine has: no instruction is spent on one that is not looked at.
pub type Argument = MaybeUninit<usize>;

/// The copy routines of one form.
#[derive(Debug)]
pub struct CopyRoutines {
    pub from_guest: ToOneSide,
    pub to_guest: ToOneSide,
}

/// The copy routines of one form and direction.
#[derive(Debug)]
pub struct ToOneSide {
    /// By log2 of the element.
    pub elements: [Routine; 4],
    /// For addresses that no double fits together; whole doubles are written.
    pub merge: Routine,
    /// Whether the guest's side is the one that is written.
    pub to_guest: bool,
}

macro_rules! routines {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" {
            $(fn $name(host: Argument, guest: u64, len: Argument, trap: *mut TrapInfo) -> SingleResult;)*
        }
    };
}

routines!(
    __guest_mem_hook_copy_from_1,
    __guest_mem_hook_copy_from_2,
    __guest_mem_hook_copy_from_4,
    __guest_mem_hook_copy_from_8,
    __guest_mem_hook_copy_to_1,
    __guest_mem_hook_copy_to_2,
    __guest_mem_hook_copy_to_4,
    __guest_mem_hook_copy_to_8,
    __guest_mem_scoped_copy_from_1,
    __guest_mem_scoped_copy_from_2,
    __guest_mem_scoped_copy_from_4,
    __guest_mem_scoped_copy_from_8,
    __guest_mem_scoped_copy_to_1,
    __guest_mem_scoped_copy_to_2,
    __guest_mem_scoped_copy_to_4,
    __guest_mem_scoped_copy_to_8,
    __guest_mem_hook_merge_from,
    __guest_mem_hook_merge_to,
    __guest_mem_scoped_merge_from,
    __guest_mem_scoped_merge_to,
    __guest_mem_fill_1,
    __guest_mem_fill_8,
    __guest_mem_load_1,
    __guest_mem_load_2,
    __guest_mem_load_4,
    __guest_mem_load_8,
    __guest_mem_store_1,
    __guest_mem_store_2,
    __guest_mem_store_4,
    __guest_mem_store_8,
    __guest_mem_fetch_2,
);

unsafe extern "C" {
    #[link_name = "__guest_mem_scoped_call"]
    pub fn scoped_call(
        host: Argument,
        guest: u64,
        len: Argument,
        trap: *mut TrapInfo,
        routine: Routine,
    ) -> SingleResult;
}

pub const HOOK_COPIES: CopyRoutines = CopyRoutines {
    from_guest: ToOneSide {
        elements: [
            __guest_mem_hook_copy_from_1,
            __guest_mem_hook_copy_from_2,
            __guest_mem_hook_copy_from_4,
            __guest_mem_hook_copy_from_8,
        ],
        merge: __guest_mem_hook_merge_from,
        to_guest: false,
    },
    to_guest: ToOneSide {
        elements: [
            __guest_mem_hook_copy_to_1,
            __guest_mem_hook_copy_to_2,
            __guest_mem_hook_copy_to_4,
            __guest_mem_hook_copy_to_8,
        ],
        merge: __guest_mem_hook_merge_to,
        to_guest: true,
    },
};

pub const SCOPED_COPIES: CopyRoutines = CopyRoutines {
    from_guest: ToOneSide {
        elements: [
            __guest_mem_scoped_copy_from_1,
            __guest_mem_scoped_copy_from_2,
            __guest_mem_scoped_copy_from_4,
            __guest_mem_scoped_copy_from_8,
        ],
        merge: __guest_mem_scoped_merge_from,
        to_guest: false,
    },
    to_guest: ToOneSide {
        elements: [
            __guest_mem_scoped_copy_to_1,
            __guest_mem_scoped_copy_to_2,
            __guest_mem_scoped_copy_to_4,
            __guest_mem_scoped_copy_to_8,
        ],
        merge: __guest_mem_scoped_merge_to,
        to_guest: true,
    },
};

/// Fills with a byte in every lane of the value, one element a byte.
pub const FILL_1: Routine = __guest_mem_fill_1;
/// Fills with a byte in every lane of the value, one element 8 bytes.
pub const FILL_8: Routine = __guest_mem_fill_8;
/// `hlvx.hu`.
pub const FETCH: Routine = __guest_mem_fetch_2;

/// `hlv` of a width, zero-extended.
#[inline(always)]
pub const fn load(width: Width) -> Routine {
    match width {
        Width::Byte => __guest_mem_load_1,
        Width::Half => __guest_mem_load_2,
        Width::Word => __guest_mem_load_4,
        Width::Double => __guest_mem_load_8,
    }
}

/// `hsv` of a width.
#[inline(always)]
pub const fn store(width: Width) -> Routine {
    match width {
        Width::Byte => __guest_mem_store_1,
        Width::Half => __guest_mem_store_2,
        Width::Word => __guest_mem_store_4,
        Width::Double => __guest_mem_store_8,
    }
}
