//! Guest images: what a bundle holds, and which bytes go to which guest-physical address.
