//! The library's operations beyond copies: guest-physical memory by `hlv`, single accesses, and code that is rewritten.

use core::sync::atomic::Ordering;

use guest_mem::hart::Hart;
use guest_mem::{
    FaultKind, Gpa, GuestMemory, GuestPrivilege, Gva, copy_to_guest_va, sync_instructions,
};

use crate::guest::{ECALL, Guest, Mode};
use crate::harness::{Outcome, Test, cases, fail};
use crate::library::{in_both_forms, loaded};
use crate::tables::bits::SUPERVISOR;
use crate::tables::{SAME, two_pages};
use crate::{arena, csr};

cases![
    r12_guest_physical_accesses_go_by_hlv_with_vsatp_bare,
    r17_single_accesses_of_every_width_and_no_exchange_by_hsv,
    r48_rewritten_guest_code_runs_after_sync_instructions,
];

use GuestPrivilege::Supervisor;

fn r12_guest_physical_accesses_go_by_hlv_with_vsatp_bare(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (world, _, by_gpa) = two_pages();
        arena::write(by_gpa + 16, 0x1122_3344_5566_7788);
        let vcpu = loaded(hart);
        let physical = vcpu.guest_physical();
        let found: Result<u64, _> = physical.read_obj(Gpa::new(SAME + 16));
        t.equal("read", found, Ok(0x1122_3344_5566_7788))?;
        t.equal(
            "write",
            physical.write_obj(Gpa::new(SAME + 24), &0x99u64),
            Ok(()),
        )?;
        t.equal("what was written", arena::read(by_gpa + 24), 0x99)?;
        t.equal("fill", physical.fill(Gpa::new(SAME + 32), 0xab, 8), Ok(()))?;
        t.equal(
            "what was filled",
            arena::read(by_gpa + 32),
            0xabab_abab_abab_abab,
        )?;
        t.equal("vsatp", csr::vsatp::read(), world.vsatp)
    }
    in_both_forms!(t, body)
}

fn r17_single_accesses_of_every_width_and_no_exchange_by_hsv(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (_world, by_gva, _) = two_pages();
        arena::write(by_gva.spa, 0x8877_6655_4433_2211);
        let vcpu = loaded(hart);
        let guest = vcpu.guest_virtual(Supervisor);
        let at = |offset| Gva::new(SAME + offset);
        for order in [Ordering::Relaxed, Ordering::Acquire, Ordering::SeqCst] {
            t.equal("u8", guest.load(at(7), order), Ok(0x88u8))?;
            t.equal("u16", guest.load(at(6), order), Ok(0x8877u16))?;
            t.equal("u32", guest.load(at(4), order), Ok(0x8877_6655u32))?;
            t.equal(
                "u64",
                guest.load(at(0), order),
                Ok(0x8877_6655_4433_2211u64),
            )?;
        }
        t.equal(
            "store",
            guest.store(at(8), u64::MAX, Ordering::Release),
            Ok(()),
        )?;
        t.equal("store", guest.store(at(9), 1u8, Ordering::SeqCst), Ok(()))?;
        t.equal(
            "store",
            guest.store(at(12), 2u32, Ordering::Relaxed),
            Ok(()),
        )?;
        t.equal(
            "what was stored",
            arena::read(by_gva.spa + 8),
            0x0000_0002_ffff_01ff,
        )?;
        let misaligned = guest
            .load::<u32>(at(2), Ordering::Relaxed)
            .map_err(|error| error.fault.kind);
        t.equal("misaligned", misaligned, Err(FaultKind::Misaligned))?;
        let exchange = guest.compare_exchange(at(0), 0u64, 1, Ordering::SeqCst);
        let kind = exchange.map_err(|error| error.fault.kind);
        t.equal("compare-exchange", kind, Err(FaultKind::AtomicUnavailable))
    }
    in_both_forms!(t, body)
}

fn r48_rewritten_guest_code_runs_after_sync_instructions(t: &mut Test) -> Outcome {
    fn body<H: Hart>(t: &mut Test, hart: &H) -> Outcome {
        let (mut world, _, _) = two_pages();
        let pc = SAME + 0x1000;
        world.page_at(pc, SUPERVISOR);
        world.fence();
        let mut remote = 0;
        for round in 0..200u32 {
            // `li a0, round`, `ecall`
            let code = [round << 20 | 0x513, ECALL];
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&code[0].to_le_bytes());
            bytes[4..].copy_from_slice(&code[1].to_le_bytes());
            {
                let vcpu = loaded(hart);
                if let Err(error) = copy_to_guest_va(&vcpu, Supervisor, Gva::new(pc), &bytes) {
                    fail!("round {round}: {error}");
                }
                sync_instructions(hart, Gva::new(pc), bytes.len(), |_, _| remote += 1);
            }
            let mut guest = Guest::at(pc);
            let exit = guest.run(Mode::Vs);
            let what = format_args!("round {round}");
            t.equal(what, (exit.info.scause, exit.sepc), (10, pc + 4))?;
            t.equal(what, guest.x[10], round.into())?;
        }
        t.equal("requests to other harts", remote, 200)
    }
    in_both_forms!(t, body)
}
