//! Guest-memory access for RISC-V hypervisors.
#![no_std]
