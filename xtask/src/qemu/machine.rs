//! The machine that QEMU is told to be: board, harts, memory, and what is loaded.

use std::path::PathBuf;
use std::process::Command;

use super::Qemu;
use crate::size::ByteSize;

/// The processor that has the H extension on every QEMU.
pub const CPU: &str = "rv64,h=true";

/// One virtual machine, about to be started.
pub struct Machine {
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
                "virt",
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
        if let Some(bios) = &self.bios {
            command.arg("-bios").arg(bios);
        }
        command
    }
}
