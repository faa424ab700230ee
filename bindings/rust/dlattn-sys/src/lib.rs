//! The C API of [dlattn](https://docs.rs/dlattn): exact attention, forward and backward, on DLPack tensors.
//!
//! Declarations only, generated from the C header `dlattn.h`, which is their manual; the crate `dlattn` is the safe
//! interface. The library is found at build time: in the folder that the environment variable `DLATTN_LIB_DIR` names,
//! else by pkg-config, else (feature `bundled`, on by default) it is built from its C sources with CMake and linked
//! into the program.

#![allow(non_camel_case_types, non_upper_case_globals)]

#[rustfmt::skip]
mod raw;

pub use raw::*;
