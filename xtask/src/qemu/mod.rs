//! QEMU: which one to use ([`resolve`]), the machine it is told to be ([`Machine`]) and one run of it ([`session`]).

mod machine;
mod package;
pub mod resolve;
pub mod session;

pub use machine::{Board, CPU, Machine, RESET, jump};
pub use resolve::Qemu;
