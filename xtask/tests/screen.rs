//! What xtask does when it cannot print.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

#[test]
fn a_standard_output_that_is_gone_ends_xtask_in_one_line() {
    let (reader, gone) = io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for output in [Stdio::from(gone), Stdio::from(full)] {
        let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
        xtask.args(["rules", "--check"]).stdout(output);
        let ended = xtask.stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let reason = "xtask: cannot print to standard output: ";
        assert!(said.starts_with(reason), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
