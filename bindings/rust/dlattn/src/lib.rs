//! Exact attention, forward and backward, on slices, ndarray's arrays and views, and device pointers.
//!
//! ```
//! # #[cfg(feature = "ndarray")] {
//! use dlattn::Attention;
//! use ndarray::Array4;
//!
//! let q = Array4::from_shape_fn((2, 16, 8, 64), |(b, i, h, d)| ((b + 3 * i + 5 * h + 7 * d) as f32).sin());
//! let k = Array4::from_shape_fn((2, 16, 2, 64), |(b, j, g, d)| ((b + 2 * j + 3 * g + d) as f32).cos());
//! let v = k.mapv(|x| x * x);                      // 2 key/value heads serve 8 query heads
//!
//! let attention = Attention::new(&q, &k, &v).causal().window(7, 0);
//! let forward = attention.forward()?;             // out [2, 16, 8, 64], lse [2, 8, 16]
//! let dout = forward.out.mapv(|x| 2.0 * x);       // from your loss
//! let gradients = attention.backward(&forward, &dout)?;
//! assert_eq!(gradients.dk.shape(), k.shape());
//! # }
//! # Ok::<(), dlattn::Error>(())
//! ```
//!
//! Inputs are borrowed, results borrowed mutably, and nothing is copied whatever the strides. Without ndarray, tensors
//! are slices with a shape ([`Tensor::new`]) and strides ([`Tensor::strided`]); memory of a GPU is a pointer
//! ([`Tensor::from_raw_parts`], [`Tensor::from_dlpack`]), and calls on it return when the work is queued on the stream
//! of [`Exec`].
//!
//! ```
//! use dlattn::{Attention, Tensor, TensorMut};
//!
//! let (q, k, v) = ([1.0f32, 0.0], [1.0, 0.0, 0.0, 1.0], [10.0, 20.0]);
//! let mut out = [0.0f32; 1];                      // [batch, tokens, heads, head size]
//! Attention::new(Tensor::new(&q, &[1, 1, 1, 2])?, Tensor::new(&k, &[1, 2, 1, 2])?, Tensor::new(&v, &[1, 2, 1, 1])?)
//!     .scale(0.0)                                 // every key counts the same
//!     .forward_into(TensorMut::new(&mut out, &[1, 1, 1, 1])?, None)?;
//! assert_eq!(out, [15.0]);
//! # Ok::<(), dlattn::Error>(())
//! ```
//!
//! Errors carry the library's sentence:
//!
//! ```
//! # use dlattn::{Attention, ErrorKind, Tensor, TensorMut};
//! let (q, k) = ([0.0f32; 8], [0.0f32; 3]);
//! let k = || Tensor::new(&k, &[1, 1, 3, 1]);
//! let error = Attention::new(Tensor::new(&q, &[1, 1, 8, 1])?, k()?, k()?)
//!     .forward_into(TensorMut::new(&mut [0.0f32; 8], &[1, 1, 8, 1])?, None)
//!     .unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Shape);
//! assert_eq!(error.to_string(), "k has 3 heads, which does not divide q's 8");
//! # Ok::<(), dlattn::Error>(())
//! ```

#![deny(unsafe_code, missing_docs)]

mod attention;
mod cache;
mod element;
mod error;
mod ffi;
#[cfg(feature = "ndarray")]
mod owned;

pub use attention::{Attention, Backward, Layout, Workspace};
pub use cache::{KvAppend, Rotary};
pub use dlattn_sys as sys;
pub use element::{Element, Float};
pub use error::{Error, ErrorKind, Result};
pub use ffi::{Device, Exec, Tensor, TensorMut};
pub use half;
#[cfg(feature = "ndarray")]
pub use ndarray;
#[cfg(feature = "ndarray")]
pub use owned::{merge, Forward, Gradients};

/// Joins (out, lse) of the parts of a problem that was split over its keys:
/// lse = log(sum exp(lse_p)), out = sum exp(lse_p - lse) * out_p.
pub fn merge_into<'b, T: Float, O: Float>(
    parts: &[(Tensor<'_, T>, Tensor<'_, T::Wide>)],
    layout: Layout,
    out: impl Into<TensorMut<'b, O>>,
    lse: Option<TensorMut<'b, T::Wide>>,
    exec: &Exec,
) -> Result<()> {
    let outs: Vec<_> = parts.iter().map(|(out, _)| out.descriptor.clone()).collect();
    let lses: Vec<_> = parts.iter().map(|(_, lse)| lse.descriptor.clone()).collect();
    let merged =
        ffi::Outputs { out: Some(out.into().descriptor), lse: lse.map(|t| t.descriptor), ..Default::default() };
    ffi::merge(&outs, &lses, layout.code(), &merged, exec)
}

/// Process-wide settings (`dlattn.h` lists them); `None` restores the default.
pub fn set_option(name: &str, value: Option<&str>) -> Result<()> {
    ffi::set_option(name, value)
}

/// The version of the C library: 10000 * major + 100 * minor + patch.
pub fn version() -> i32 {
    ffi::version()
}

/// The library and the machine, in words.
pub fn explain() -> String {
    ffi::explain(None, &Exec::default())
}
