//! Emulated devices: what a guest's loads and stores to trapped guest-physical addresses reach.
