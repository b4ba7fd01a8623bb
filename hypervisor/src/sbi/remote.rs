//! Extensions that act on other harts: inter-processor interrupts and remote fences.

use rustsbi::{Fence, HartMask, Ipi, SbiRet};

use super::arguments::{FenceRange, HartSet};
use super::call::Call;
use crate::vm::{Request, Vm};

impl Call<'_, '_> {
    fn vm(&self) -> &Vm {
        self.vcpu.borrow().vm
    }

    fn hart_set(&self, mask: HartMask) -> Option<HartSet> {
        let (mask, base) = mask.into_inner();
        HartSet::from_mask(mask, base, self.vm().harts())
    }

    fn sfence(&self, mask: HartMask, start: usize, size: usize, asid: Option<usize>) -> SbiRet {
        let Some(harts) = self.hart_set(mask) else {
            return SbiRet::invalid_param();
        };
        let Some(range) = FenceRange::new(start, size) else {
            return SbiRet::invalid_address();
        };
        self.vm().remote_sfence(harts, range, asid);
        SbiRet::success(0)
    }
}

impl Ipi for Call<'_, '_> {
    fn send_ipi(&self, mask: HartMask) -> SbiRet {
        let Some(harts) = self.hart_set(mask) else {
            return SbiRet::invalid_param();
        };
        let vm = self.vm();
        for index in harts.iter() {
            vm.request(index, Request::SOFTWARE_INTERRUPT);
        }
        SbiRet::success(0)
    }
}

impl Fence for Call<'_, '_> {
    fn remote_fence_i(&self, mask: HartMask) -> SbiRet {
        let Some(harts) = self.hart_set(mask) else {
            return SbiRet::invalid_param();
        };
        self.vm().fences().fence_i(harts);
        SbiRet::success(0)
    }

    fn remote_sfence_vma(&self, mask: HartMask, start: usize, size: usize) -> SbiRet {
        self.sfence(mask, start, size, None)
    }

    fn remote_sfence_vma_asid(
        &self,
        mask: HartMask,
        start: usize,
        size: usize,
        asid: usize,
    ) -> SbiRet {
        self.sfence(mask, start, size, Some(asid))
    }
}
