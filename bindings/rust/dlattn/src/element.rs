//! Which Rust types are elements of tensors, and what DLPack calls them.

use dlattn_sys::{kDLBfloat, kDLBool, kDLFloat, kDLInt, kDLUInt, DLDataType};
use half::{bf16, f16};

mod sealed {
    pub trait Sealed: Copy + Send + Sync + 'static {
        /// DLPack's code of the type.
        const CODE: i32;
    }
}
pub(crate) use sealed::Sealed;

/// A type of tensor elements: floats (`f16` and `bf16` are the crate half's), integers, `bool`.
pub trait Element: Sealed {}

/// A type that q, k and v can have.
pub trait Float: Element + Default {
    /// The type of log-sum-exps, and of the gradients of bias and sinks: `f32`, and `f64` for `f64`.
    type Wide: Float;
}

pub(crate) fn dtype<T: Element>() -> DLDataType {
    DLDataType { code: T::CODE as u8, bits: 8 * std::mem::size_of::<T>() as u8, lanes: 1 }
}

macro_rules! elements {
    ($($kind:ty: $code:ident,)*) => { $(
        impl Sealed for $kind {
            const CODE: i32 = $code;
        }
        impl Element for $kind {}
    )* };
}

elements! {
    f16: kDLFloat, bf16: kDLBfloat, f32: kDLFloat, f64: kDLFloat, bool: kDLBool,
    i32: kDLInt, i64: kDLInt, u8: kDLUInt, u32: kDLUInt, u64: kDLUInt,
}

impl Float for f16 {
    type Wide = f32;
}
impl Float for bf16 {
    type Wide = f32;
}
impl Float for f32 {
    type Wide = f32;
}
impl Float for f64 {
    type Wide = f64;
}
