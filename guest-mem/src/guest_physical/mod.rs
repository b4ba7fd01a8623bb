//! The guest-physical space: slots, their backing, and direct access to it.
