//! The guest-virtual space: accesses through the loaded vCPU.
