//! `cargo xtask run`: boots a guest in the hypervisor.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use crate::qemu::session::{self, Console, Ended};
use crate::qemu::{self, Machine};
use crate::size::ByteSize;
use crate::{artifacts, cli, progress};

/// What the hypervisor keeps for itself, beside the guest's memory.
const HYPERVISOR_MEMORY: ByteSize = ByteSize::mebibytes(256);
/// Guest memory where the user names none.
const GUEST_MEMORY: ByteSize = ByteSize::mebibytes(512);
/// Time limit of an unattended run, in seconds.
const TIMEOUT: u64 = 120;

/// The command.
pub fn run(options: &cli::Run) -> anyhow::Result<ExitCode> {
    if options.guest != Path::new("tour") {
        bail!("only the tour guest can be run so far");
    }
    let machine = Machine {
        harts: 2,
        memory: ByteSize(GUEST_MEMORY.0 + HYPERVISOR_MEMORY.0),
        kernel: artifacts::build_hypervisor()?,
        initrd: None,
        append: None,
        bios: options.machine.bios.clone(),
    };
    let qemu = qemu::resolve::resolve(options.machine.qemu.as_deref())?;
    progress::say(&format!("starting QEMU {}", qemu.version));
    let limit = Duration::from_secs(options.machine.timeout.unwrap_or(TIMEOUT));
    let mut reason = None;
    let ended = session::run(
        machine.command(&qemu),
        Console::Unattended,
        Some(limit),
        |line| {
            if let Some(said) = guest_end(line) {
                reason = Some(said.to_owned());
            }
        },
    )?;
    match (ended, reason.as_deref()) {
        (Ended::ByItself, Some("shutdown")) => Ok(ExitCode::SUCCESS),
        (Ended::ByItself, Some(reason)) => bail!("the guest ended by {reason}"),
        (Ended::ByItself, None) => {
            bail!("the machine powered off and the hypervisor did not say why")
        }
        (Ended::Failed, _) => bail!("QEMU failed"),
        (Ended::TimedOut, _) => bail!(
            "no end after {} s: QEMU was ended (`--timeout` sets the limit)",
            limit.as_secs()
        ),
    }
}

/// The reason in the hypervisor's last line, `hypervisor: guest NAME ended: REASON`.
fn guest_end(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("hypervisor: guest ")?;
    rest.split_once(" ended: ")
        .map(|(_, reason)| reason.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hypervisor_says_why_a_guest_ended() {
        assert_eq!(
            guest_end("hypervisor: guest tour ended: shutdown"),
            Some("shutdown")
        );
        assert_eq!(guest_end("hypervisor: guest tour is up"), None);
        assert_eq!(guest_end("guest tour ended: shutdown"), None);
    }
}
