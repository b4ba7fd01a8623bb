//! A panic's way out: to the innermost `catch`, or else off.

use core::arch::asm;
use core::panic::PanicInfo;

use crate::console::println;
use crate::global::Global;
use crate::text::Text;
use crate::trap;

/// What the last panic said.
static PANIC: Global<Text> = Global::new(Text::new());

/// What the last panic said, once.
pub fn take() -> Text {
    PANIC.replace(Text::new())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    PANIC.set(Text::format(format_args!("{info}")));
    if !trap::is_caught() {
        println!("panic: {info}");
        sbi_rt::system_reset(sbi_rt::Shutdown, sbi_rt::SystemFailure);
    }
    loop {
        // SAFETY: the trap handler ends the innermost `catch` here.
        unsafe { asm!("ebreak") };
    }
}
