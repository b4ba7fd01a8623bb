//! The end: turning the machine off.

use core::fmt;

use sbi_rt::{NoReason, Shutdown, SystemFailure};

use crate::console;

/// Turns the machine off after a run.
pub fn off() -> ! {
    sbi_rt::system_reset(Shutdown, NoReason);
    stop()
}

/// Says why the hypervisor cannot go on, and turns the machine off.
pub fn give_up(why: fmt::Arguments<'_>) -> ! {
    console::last_words(why);
    halt()
}

/// Turns the machine off without a word.
pub fn halt() -> ! {
    sbi_rt::system_reset(Shutdown, SystemFailure);
    stop()
}

/// For firmware that cannot reset the system.
fn stop() -> ! {
    #[expect(
        deprecated,
        reason = "what is left when the reset extension has failed"
    )]
    sbi_rt::legacy::shutdown()
}
