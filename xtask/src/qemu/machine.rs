//! The machine that QEMU is told to be: board, harts, memory, and what is loaded.
//!
//! Without firmware nobody jumps to a program at its address but QEMU's loader, by one device a hart. Boot arguments are in
//! the device tree, which only the board's own reset code passes: for these the program is entered from where that code jumps.

use std::path::PathBuf;
use std::process::Command;

use super::Qemu;
use crate::size::ByteSize;

/// The processor that has the H extension on every QEMU.
pub const CPU: &str = "rv64,h=true";

/// Where the image of every bare-metal program begins.
const ENTRY: u64 = 0x8020_0000;
/// Where the boards' own reset code jumps to.
pub const RESET: u64 = 0x8000_0000;
/// `auipc t0, 0x200` and `jr t0`: from there to the entry. Clobbers t0.
const JUMP: [u32; 2] = [0x0020_0297, 0x0002_8067];

/// The code for a boot ROM's target: a jump to the entry.
pub fn jump() -> [u8; 8] {
    let [first, second] = JUMP.map(u64::from);
    ((second << 32) | first).to_le_bytes()
}

/// A board, and what runs in M-mode on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// QEMU's `virt` under SBI firmware
    Virt,
    /// QEMU's `virt` without firmware: the program starts in M-mode
    VirtM,
    /// QEMU's `spike` (HTIF) without firmware
    Spike,
}

impl Board {
    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virt => "virt",
            Self::VirtM => "virt-m",
            Self::Spike => "spike",
        }
    }

    /// Whether the program starts in M-mode; then QEMU ends with its exit code, too.
    pub const fn is_without_firmware(self) -> bool {
        !matches!(self, Self::Virt)
    }

    /// What QEMU calls it.
    const fn model(self) -> &'static str {
        match self {
            Self::Virt | Self::VirtM => "virt",
            Self::Spike => "spike",
        }
    }
}

/// One virtual machine, about to be started.
pub struct Machine {
    /// The board.
    pub board: Board,
    /// Processor model and features.
    pub cpu: String,
    /// Number of harts.
    pub harts: u32,
    /// Size of RAM.
    pub memory: ByteSize,
    /// The S-mode program that the firmware starts.
    pub kernel: PathBuf,
    /// A file that the firmware's successor finds through `/chosen` in the device tree.
    pub initrd: Option<PathBuf>,
    /// `/chosen/bootargs`.
    pub append: Option<String>,
    /// SBI firmware; `None` is the OpenSBI that comes with QEMU.
    pub bios: Option<PathBuf>,
}

impl Machine {
    /// The command that starts this machine on `qemu`, its console on standard input and output.
    ///
    /// `mon:stdio` gives the terminal to the guest, with Ctrl-C as a plain character and QEMU's own keys behind Ctrl-A.
    pub fn command(&self, qemu: &Qemu) -> Command {
        let mut command = qemu.command();
        command
            .args([
                "-M",
                self.board.model(),
                "-nographic",
                "-no-reboot",
                "-nodefaults",
                "-serial",
                "mon:stdio",
            ])
            .args(["-cpu", &self.cpu])
            .args(["-smp", &self.harts.to_string()])
            .args(["-m", &format!("{}K", self.memory.0.div_ceil(1024))])
            .arg("-kernel")
            .arg(&self.kernel);
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(append) = &self.append {
            command.arg("-append").arg(append);
        }
        if self.board.is_without_firmware() {
            command.args(["-bios", "none"]);
            self.enter_without_firmware(&mut command);
        } else if let Some(bios) = &self.bios {
            command.arg("-bios").arg(bios);
        }
        command
    }

    /// Makes the harts begin at the program's entry.
    fn enter_without_firmware(&self, command: &mut Command) {
        if self.append.is_some() {
            let jump = u64::from_le_bytes(jump());
            let device = format!("loader,addr={RESET:#x},data={jump:#x},data-len=8");
            command.args(["-device", &device]);
        } else {
            for hart in 0..self.harts {
                let device = format!("loader,addr={ENTRY:#x},cpu-num={hart}");
                command.args(["-device", &device]);
            }
        }
    }
}
