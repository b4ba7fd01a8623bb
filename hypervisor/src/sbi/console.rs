//! The debug console: guest buffers by guest-physical address, in pieces of bounded size.

use guest_mem::Gpa;
use rustsbi::{Console, Physical, SbiRet};

use super::arguments::buffer_at;
use super::call::Call;
use crate::console;

/// Bytes moved between guest and console at once.
const PIECE: usize = 256;

/// Bytes served by one call at most. The SBI lets a call do less than it was asked for and say so.
const CALL: usize = 4096;

/// Where a buffer is, if the call may name it.
fn buffer<P>(call: &Call<'_, '_>, bytes: &Physical<P>) -> Option<Gpa> {
    let (low, high) = (bytes.phys_addr_lo(), bytes.phys_addr_hi());
    buffer_at(bytes.num_bytes(), low, high, |gpa, len| {
        call.vcpu.borrow().vm.ram.contains(gpa, len)
    })
}

impl Console for Call<'_, '_> {
    fn write(&self, bytes: Physical<&[u8]>) -> SbiRet {
        let Some(gpa) = buffer(self, &bytes) else {
            return SbiRet::invalid_param();
        };
        let len = bytes.num_bytes().min(CALL);
        let mut vcpu = self.vcpu.borrow_mut();
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < len {
            let part = &mut piece[..PIECE.min(len - done)];
            let from = Gpa::new(gpa.value() + done as u64);
            if vcpu.read_physical(from, part).is_err() {
                return SbiRet::failed();
            }
            console::put_guest(part);
            done += part.len();
        }
        SbiRet::success(done)
    }

    fn read(&self, bytes: Physical<&mut [u8]>) -> SbiRet {
        let Some(gpa) = buffer(self, &bytes) else {
            return SbiRet::invalid_param();
        };
        let mut piece = [0; PIECE];
        let len = bytes.num_bytes().min(PIECE);
        let mut count = 0;
        for byte in &mut piece[..len] {
            let Some(typed) = self.vcpu.borrow().vm.typed() else {
                break;
            };
            *byte = typed;
            count += 1;
        }
        if count == 0 {
            return SbiRet::success(0);
        }
        match self.vcpu.borrow_mut().write_physical(gpa, &piece[..count]) {
            Ok(()) => SbiRet::success(count),
            Err(_) => SbiRet::failed(),
        }
    }

    fn write_byte(&self, byte: u8) -> SbiRet {
        console::put_guest(&[byte]);
        SbiRet::success(0)
    }
}
