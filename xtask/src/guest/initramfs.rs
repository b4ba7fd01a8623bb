//! The userland of the Linux guest: busybox and an init script, and Debian's programs where they are to run, as an initramfs.

use super::cpio::Archive;
use super::userland::{self, Userland};

/// What the init script does once userspace is up.
pub enum Then {
    /// Start a shell on the console, and power off when it ends.
    Shell,
    /// Run Debian's programs, and power off.
    Programs(Userland),
    /// Power off.
    PowerOff,
}

/// How the first line of userspace begins; the number of harts that are up follows, then `uname`.
const USERSPACE_IS_UP: &str = "guest-mem: userspace is up, harts: ";

const PREPARE: &str = "\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=vt100 PS1='guest:$PWD# '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
";

/// A shell that is a session leader with the console as controlling terminal has job control, and Ctrl-C reaches its
/// children.
const SHELL: &str = "\
dmesg -n 4
echo 'This is a shell in the guest. Ctrl-C is the guest'\\''s; `exit` powers off; Ctrl-A X quits QEMU.'
setsid cttyhack sh
";

/// Makes the initramfs around `busybox`, a static riscv64 program.
pub fn make(busybox: &[u8], then: &Then) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.directory(folder);
    }
    // The kernel opens it for init before init mounts anything.
    archive.character_device("dev/console", 5, 1);
    archive.program("bin/busybox", busybox);
    archive.program("init", init_script(then).as_bytes());
    if let Then::Programs(programs) = then {
        programs.add_to(&mut archive)?;
    }
    Ok(archive.finish())
}

fn init_script(then: &Then) -> String {
    let more = match then {
        Then::Shell => SHELL.to_owned(),
        Then::Programs(_) => userland::init_script(),
        Then::PowerOff => String::new(),
    };
    format!("{PREPARE}echo \"{USERSPACE_IS_UP}$(nproc), $(uname -srm)\"\n{more}poweroff -f\n")
}

/// The number of harts that the first line of userspace tells, if `line` is that line.
pub fn harts_of_first_line(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once(USERSPACE_IS_UP)?;
    rest.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_userspace_tells_the_harts_also_behind_other_output() {
        let line = "[    1.2] x guest-mem: userspace is up, harts: 2, Linux 6.12.107+deb13-riscv64 riscv64";
        assert_eq!(harts_of_first_line(line), Some(2));
        assert_eq!(
            harts_of_first_line("guest-mem: userspace is up, harts: "),
            None
        );
        assert_eq!(harts_of_first_line(&init_script(&Then::PowerOff)), None);
    }

    #[test]
    fn only_the_shell_userland_starts_a_shell_and_both_power_off_at_the_end() {
        for (then, has_shell) in [(Then::Shell, true), (Then::PowerOff, false)] {
            let script = init_script(&then);
            assert_eq!(script.contains("cttyhack sh"), has_shell);
            assert!(script.ends_with("poweroff -f\n"));
        }
    }
}
