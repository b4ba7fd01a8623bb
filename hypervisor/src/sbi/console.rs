//! The debug console: guest buffers by guest-physical address, in pieces of bounded size.

use guest_mem::Gpa;
use rustsbi::{Console, Physical, SbiRet};

use super::call::Call;
use crate::console;

/// Bytes moved between guest and console at once.
const PIECE: usize = 256;

/// Bytes served by one call at most. The SBI lets a call do less than it was asked for and say so.
const CALL: usize = 4096;

/// The guest-physical range of a buffer, if it is RAM, or no byte of anything (R85).
fn buffer<P>(call: &Call<'_, '_>, bytes: &Physical<P>) -> Option<Gpa> {
    let gpa = Gpa::new(bytes.phys_addr_lo() as u64);
    let len = bytes.num_bytes() as u64;
    let in_ram = len == 0 || call.vcpu.borrow().vm.ram.contains(gpa, len);
    (bytes.phys_addr_hi() == 0 && in_ram).then_some(gpa)
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
