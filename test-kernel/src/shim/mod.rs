//! What the shim without firmware decides, as functions of values: nothing here touches a device or a CSR.
//!
//! The one idea: the simulators that this is for are not where the tests run, so what differs there is tested on any host.
//! `machine` has the instructions.

pub mod harts;
pub mod htif;
pub mod redirect;
pub mod uart;
pub mod waiting;
