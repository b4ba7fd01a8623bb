//! Instructions: any bits, and such as reach what a hypervisor stands for.

use guest_kit::machine::Machine;

use crate::execute::{self, Paging};
use crate::layout::{DEVICES, Layout, PLIC_END, UART};
use crate::random::Random;

/// What to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Diet {
    /// Everything.
    Anything,
    /// Accesses of memory, at devices.
    Devices,
    /// One access of memory at a device, which another hart rewrites.
    Rewritten,
}

const EBREAK: u32 = 0x0010_0073;

const LOAD: u32 = 0x03;
const LOAD_FP: u32 = 0x07;
const MISC_MEM: u32 = 0x0f;
const STORE: u32 = 0x23;
const STORE_FP: u32 = 0x27;
const AMO: u32 = 0x2f;
const OP_VECTOR: u32 = 0x57;
const JALR: u32 = 0x67;
const SYSTEM: u32 = 0x73;

/// Of every extension with state that a hypervisor hides or gives: unprivileged, supervisor, hypervisor, VS, machine.
const CSRS: [u32; 63] = [
    0x001, 0x002, 0x003, 0x008, 0x009, 0x00a, 0x00f, 0x011, 0x015, 0x017, 0xc00, 0xc01, 0xc02,
    0xc03, 0xc1f, 0xc20, 0xc21, 0xc22, 0x100, 0x104, 0x105, 0x106, 0x10a, 0x10c, 0x10d, 0x120,
    0x140, 0x141, 0x142, 0x143, 0x144, 0x14d, 0x14e, 0x150, 0x151, 0x152, 0x15c, 0x180, 0x181,
    0x5a8, 0xda0, 0xdb0, 0x200, 0x204, 0x205, 0x240, 0x24d, 0x250, 0x280, 0x600, 0x602, 0x603,
    0x606, 0x607, 0x60a, 0x60c, 0x643, 0x645, 0x680, 0x300, 0x304, 0x3a0, 0xf14,
];

/// CSRs without which this program cannot come back: sstatus, sie, stvec, satp.
const VITAL: [u32; 4] = [0x100, 0x104, 0x105, 0x180];

/// SYSTEM instructions without operands that matter: ecall, ebreak, sret, mret, mnret, dret, wfi, wrs.nto, wrs.sto, uret,
/// sctrclr, sfence.w.inval, sfence.inval.ir.
const PLAIN: [u32; 13] = [
    0x0000_0073,
    0x0010_0073,
    0x1020_0073,
    0x3020_0073,
    0x7020_0073,
    0x7b20_0073,
    0x1050_0073,
    0x00d0_0073,
    0x01d0_0073,
    0x0020_0073,
    0x1040_0073,
    0x1800_0073,
    0x1810_0073,
];

/// funct7 of fences and of hypervisor loads and stores.
const FENCES: [u32; 17] = [
    0x09, 0x0b, 0x11, 0x13, 0x31, 0x33, 0x51, 0x53, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37,
    0x19,
];

fn with_opcode(random: &mut Random, opcode: u32) -> u32 {
    random.next() as u32 & !0x7f | opcode
}

/// A load or store of any width, with a small offset.
fn access(random: &mut Random) -> u32 {
    let opcode = random.one_of(&[
        LOAD, LOAD, LOAD, STORE, STORE, STORE, LOAD_FP, STORE_FP, AMO,
    ]);
    let bits = with_opcode(random, opcode);
    match opcode {
        LOAD | LOAD_FP => bits & 0x007f_ffff,
        STORE | STORE_FP => bits & 0x01ff_ffff,
        _ => bits,
    }
}

/// A compressed instruction that reaches memory, with what comes after it left open.
fn compressed(random: &mut Random) -> u32 {
    let bits = random.next() as u32;
    let quadrant = random.one_of(&[0, 0, 2]);
    // funct3 from 1 on; all but the first are loads and stores, of Zcb also.
    let funct3 = 1 + random.below(7) as u32;
    bits & 0xffff_1ffc | funct3 << 13 | quadrant
}

fn system(random: &mut Random) -> u32 {
    match random.below(4) {
        0 => random.one_of(&PLAIN),
        1 => {
            let (funct7, funct3) = (random.one_of(&FENCES), random.one_of(&[0, 4]));
            with_opcode(random, SYSTEM) & 0x01ff_8fff | funct7 << 25 | funct3 << 12
        }
        _ => {
            let csr = random.one_of(&CSRS);
            with_opcode(random, SYSTEM) & 0x000f_ffff | csr << 20
        }
    }
}

fn anything(random: &mut Random) -> u32 {
    match random.below(12) {
        0 => random.next() as u32,
        1 => random.next() as u32 | 3,
        2..=5 => system(random),
        6 | 7 => access(random),
        8 => compressed(random),
        9 => with_opcode(random, MISC_MEM),
        10 => with_opcode(random, OP_VECTOR),
        _ => {
            let opcode = random.one_of(&[JALR, 0x6f, 0x63, 0x53, 0x43, 0x33, 0x13, 0x3b, 0x1b]);
            with_opcode(random, opcode)
        }
    }
}

/// Whether it writes a CSR that this program needs to come back.
fn is_fatal(instruction: u32) -> bool {
    let accesses_csr = instruction & 0x7f == SYSTEM && instruction >> 12 & 3 != 0;
    accesses_csr && VITAL.contains(&(instruction >> 20))
}

/// An instruction that reaches memory.
pub fn reaching_memory(random: &mut Random) -> u32 {
    if random.one_in(3) {
        compressed(random)
    } else {
        access(random)
    }
}

/// Executes a few instructions.
pub fn step(
    machine: &Machine,
    layout: &Layout,
    random: &mut Random,
    diet: Diet,
    paging: &Paging,
    reckless: bool,
) {
    let mut words = [EBREAK; 8];
    let len = if diet == Diet::Rewritten { 1 } else { 6 };
    for word in &mut words[..len] {
        *word = match diet {
            Diet::Anything => anything(random),
            Diet::Devices | Diet::Rewritten => reaching_memory(random),
        };
        if is_fatal(*word) && !reckless {
            *word = EBREAK;
        }
    }
    let at_device = diet != Diet::Anything;
    let registers = core::array::from_fn(|_| {
        if at_device && !random.one_in(8) {
            let near = random.below(17);
            let device = random.one_of(&DEVICES);
            random.one_of(&[
                device,
                device + near,
                device - near,
                UART,
                UART + 4,
                PLIC_END - 4,
            ])
        } else {
            register(layout, random, reckless)
        }
    });
    let random_bits = random.next();
    // Where another hart rewrites it, the instruction is where that expects it.
    let at = match diet {
        Diet::Rewritten => 0,
        _ => random.one_of(&[0, 2, 0xff0, 0xff6, 0xffa, 0xffe]),
    };
    // Any other interrupt ends the code as well.
    let interrupts = execute::TIMER | random.one_of(&[0, 0, 0, random_bits]);
    execute::run(machine, layout, &words, at, &registers, paging, interrupts);
}

/// A register that does not, if that can be helped, lead into this program.
fn register(layout: &Layout, random: &mut Random, reckless: bool) -> u64 {
    let value = random.value(layout);
    let image = 0x8020_0000 - 0x1000..layout.tables.start + 0x1000;
    if image.contains(&value) && !reckless {
        layout.tables.end - 8
    } else {
        value
    }
}
