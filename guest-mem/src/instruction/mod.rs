//! The instruction that trapped: fetch, decode, completion.
