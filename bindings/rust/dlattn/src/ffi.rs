//! Everything unsafe: tensors that point into borrowed memory, and the calls of the C library.
#![allow(unsafe_code)]

use std::ffi::{c_void, CStr, CString};
use std::marker::PhantomData;
use std::os::raw::c_char;
use std::ptr;

use dlattn_sys as raw;
use raw::{DLDataType, DLDevice, DLTensor};

use crate::element::{dtype, Element};
use crate::error::{Error, Result};

/// What a DLTensor says, with its shape and strides; strides empty: compact. The data is borrowed by whoever holds this.
#[derive(Clone, Debug)]
pub(crate) struct Descriptor {
    data: *mut c_void,
    device: DLDevice,
    dtype: DLDataType,
    byte_offset: u64,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

// SAFETY: a descriptor is only reached through Tensor and TensorMut, which are like `&[T]` and `&mut [T]` of element
// types that are all Send and Sync, or through the tensors' holders.
unsafe impl Send for Descriptor {}
unsafe impl Sync for Descriptor {}

impl Descriptor {
    /// A tensor of which only the shape matters, on the device of `self`.
    pub(crate) fn blank<T: Element>(&self, shape: Vec<i64>) -> Self {
        Self { data: ptr::null_mut(), dtype: dtype::<T>(), byte_offset: 0, shape, strides: vec![], ..self.clone() }
    }

    /// The same tensor without its data and strides.
    pub(crate) fn blank_like(&self) -> Self {
        Self { data: ptr::null_mut(), byte_offset: 0, strides: vec![], ..self.clone() }
    }

    pub(crate) fn shape(&self) -> &[i64] {
        &self.shape
    }

    /// The C struct, which points into `self`.
    fn raw(&self) -> DLTensor {
        DLTensor {
            data: self.data,
            device: self.device,
            ndim: self.shape.len() as i32,
            dtype: self.dtype,
            shape: self.shape.as_ptr() as *mut i64,
            strides: if self.strides.is_empty() { ptr::null_mut() } else { self.strides.as_ptr() as *mut i64 },
            byte_offset: self.byte_offset,
        }
    }
}

/// Where a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    kind: i32,
    id: i32,
}

impl Device {
    /// Ordinary memory.
    pub const CPU: Device = Device { kind: raw::kDLCPU, id: 0 };

    /// The memory of a CUDA device.
    pub const fn cuda(id: i32) -> Self {
        Device { kind: raw::kDLCUDA, id }
    }
}

/// Fails unless every element that shape and strides reach lies in a slice of `length` elements.
fn check_bounds(length: usize, offset: usize, shape: &[usize], strides: &[isize]) -> Result<()> {
    let fail = |text: String| Err(Error::new(raw::DLATTN_ERR_SHAPE, text));
    if shape.len() != strides.len() {
        return fail(format!("a shape of {} extents has {} strides", shape.len(), strides.len()));
    }
    if shape.contains(&0) {
        return Ok(());
    }
    let (mut first, mut last) = (offset as i128, offset as i128);
    for (&extent, &stride) in shape.iter().zip(strides) {
        let reach = (extent as i128 - 1) * stride as i128;
        first += reach.min(0);
        last += reach.max(0);
    }
    if first < 0 || last >= length as i128 {
        return fail(format!(
            "shape {:?} with strides {:?} reaches elements {} to {} of a slice of {}",
            shape, strides, first, last, length
        ));
    }
    Ok(())
}

fn compact(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis].max(1) as isize;
    }
    strides
}

macro_rules! tensor {
    ($(#[$doc:meta])* $name:ident, [$($mutability:tt)*], $pointer:ident, $pointer_type:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<'a, T: Element> {
            pub(crate) descriptor: Descriptor,
            borrow: PhantomData<&'a $($mutability)* [T]>,
        }

        impl<'a, T: Element> $name<'a, T> {
            /// The elements of a slice in row-major order, as many as `shape` has.
            pub fn new(data: &'a $($mutability)* [T], shape: &[usize]) -> Result<Self> {
                let wanted = shape.iter().map(|&extent| extent as u128).product::<u128>();
                if wanted != data.len() as u128 {
                    let text = format!("shape {:?} has {} elements, the slice {}", shape, wanted, data.len());
                    return Err(Error::new(raw::DLATTN_ERR_SHAPE, text));
                }
                Self::strided(data, 0, shape, &compact(shape))
            }

            /// Any elements of a slice: the first one is `data[offset]`, and strides, counted in elements, may be
            /// negative or 0 (an output's may not be 0).
            pub fn strided(data: &'a $($mutability)* [T], offset: usize, shape: &[usize],
                           strides: &[isize]) -> Result<Self> {
                check_bounds(data.len(), offset, shape, strides)?;
                // SAFETY: all elements that shape and strides reach lie in `data`, which is borrowed for 'a; a tensor
                // without elements may point anywhere.
                Ok(unsafe { Self::from_raw_parts(data.$pointer().wrapping_add(offset), Device::CPU, shape, strides) })
            }

            /// Memory that is described by a pointer, on any device.
            ///
            /// # Safety
            ///
            /// Every element that `shape` and `strides` (in elements) reach from `data` must be memory of `device` that
            /// may be used as this borrow says for all of 'a; on a GPU until the work of the calls that were given it
            /// has ended on their stream.
            pub unsafe fn from_raw_parts(data: $pointer_type, device: Device, shape: &[usize],
                                         strides: &[isize]) -> Self {
                assert_eq!(shape.len(), strides.len(), "one stride for each extent");
                let descriptor = Descriptor {
                    data: data as *mut c_void,
                    device: DLDevice { device_type: device.kind, device_id: device.id },
                    dtype: dtype::<T>(),
                    byte_offset: 0,
                    shape: shape.iter().map(|&extent| extent as i64).collect(),
                    strides: strides.iter().map(|&stride| stride as i64).collect(),
                };
                Self { descriptor, borrow: PhantomData }
            }

            /// The tensor that a DLPack struct describes; the struct itself is copied.
            ///
            /// # Safety
            ///
            /// `tensor` must be a valid DLTensor, and its data as [`from_raw_parts`](Self::from_raw_parts) demands.
            pub unsafe fn from_dlpack(tensor: *const DLTensor) -> Result<Self> {
                let (tensor, wanted) = (&*tensor, dtype::<T>());
                let found = tensor.dtype;
                if (found.code, found.bits, found.lanes) != (wanted.code, wanted.bits, wanted.lanes) {
                    let text = format!("the DLPack tensor has {:?}, expected {:?}", found, wanted);
                    return Err(Error::new(raw::DLATTN_ERR_DTYPE, text));
                }
                let extents = |pointer: *const i64| match pointer.is_null() || tensor.ndim <= 0 {
                    true => vec![],
                    false => std::slice::from_raw_parts(pointer, tensor.ndim as usize).to_vec(),
                };
                let descriptor = Descriptor {
                    data: tensor.data,
                    device: tensor.device,
                    dtype: found,
                    byte_offset: tensor.byte_offset,
                    shape: extents(tensor.shape),
                    strides: extents(tensor.strides),
                };
                Ok(Self { descriptor, borrow: PhantomData })
            }

            /// Calls `f` with the DLPack struct of this tensor.
            pub fn with_dlpack<R>(&self, f: impl FnOnce(&DLTensor) -> R) -> R {
                f(&self.descriptor.raw())
            }
        }

        #[cfg(feature = "ndarray")]
        impl<'a, T: Element> $name<'a, T> {
            fn of_array(data: $pointer_type, shape: &[usize], strides: &[isize]) -> Self {
                // SAFETY: the callers hand over what ndarray says of an array that they hold for 'a.
                unsafe { Self::from_raw_parts(data, Device::CPU, shape, strides) }
            }
        }
    };
}

tensor! {
    /// A tensor that is read: elements of type `T` with any strides, borrowed for `'a`.
    Tensor, [], as_ptr, *const T
}
tensor! {
    /// A tensor that is written: elements of type `T` with any strides, borrowed mutably for `'a`.
    TensorMut, [mut], as_mut_ptr, *mut T
}

#[cfg(feature = "ndarray")]
mod arrays {
    use super::{Element, Tensor, TensorMut};
    use ndarray::{ArrayBase, ArrayView, ArrayViewMut, Data, DataMut, Dimension};

    impl<'a, T: Element, S: Data<Elem = T>, D: Dimension> From<&'a ArrayBase<S, D>> for Tensor<'a, T> {
        fn from(array: &'a ArrayBase<S, D>) -> Self {
            Self::of_array(array.as_ptr(), array.shape(), array.strides())
        }
    }

    impl<'a, T: Element, D: Dimension> From<ArrayView<'a, T, D>> for Tensor<'a, T> {
        fn from(array: ArrayView<'a, T, D>) -> Self {
            Self::of_array(array.as_ptr(), array.shape(), array.strides())
        }
    }

    impl<'a, T: Element, S: DataMut<Elem = T>, D: Dimension> From<&'a mut ArrayBase<S, D>> for TensorMut<'a, T> {
        fn from(array: &'a mut ArrayBase<S, D>) -> Self {
            Self::of_array(array.as_mut_ptr(), array.shape(), array.strides())
        }
    }

    impl<'a, T: Element, D: Dimension> From<ArrayViewMut<'a, T, D>> for TensorMut<'a, T> {
        fn from(mut array: ArrayViewMut<'a, T, D>) -> Self {
            Self::of_array(array.as_mut_ptr(), array.shape(), array.strides())
        }
    }
}

/// A tensor of a call, or none, as its pointer in a struct. The C library reads the DLTensor of an output and writes what
/// its data points to.
fn address(tensor: &Option<DLTensor>) -> *mut DLTensor {
    tensor.as_ref().map_or(ptr::null_mut(), |tensor| tensor as *const DLTensor as *mut DLTensor)
}

/// A Rust twin of a C struct: its tensors by name, and the plain fields in `$plain`, whose pointers are NULL.
macro_rules! twin {
    ($name:ident, $kind:ident, [$($tensor:ident),*], [$($plain:ident: $zero:expr),*]) => {
        #[derive(Clone, Debug)]
        pub(crate) struct $name {
            $(pub(crate) $tensor: Option<Descriptor>,)*
            pub(crate) plain: raw::$kind,
        }

        // SAFETY: the pointers of `plain` are NULL but during a call, which works on a copy.
        unsafe impl Send for $name {}
        unsafe impl Sync for $name {}

        impl Default for $name {
            fn default() -> Self {
                let plain = raw::$kind {
                    struct_size: std::mem::size_of::<raw::$kind>() as i64,
                    $($tensor: ptr::null_mut(),)*
                    $($plain: $zero,)*
                };
                Self { $($tensor: None,)* plain }
            }
        }

        impl $name {
            /// Calls `f` with the C struct, whose pointers hold during the call.
            fn with<R>(&self, f: impl FnOnce(*const raw::$kind) -> R) -> R {
                $(let $tensor = self.$tensor.as_ref().map(Descriptor::raw);)*
                f(&raw::$kind { $($tensor: address(&$tensor),)* ..self.plain })
            }
        }
    };
}

twin!(Problem, dlattn_attention,
    [q, k, v, bias, mask, alibi_slopes, sinks, q_segments, kv_segments, cu_seqlens_q, cu_seqlens_k, seqlens_q, seqlens_k,
     block_table, q_starts, k_starts, rng_state],
    [max_seqlen_q: 0, max_seqlen_k: 0, window_left: 0, window_right: 0, block_size: 0, block_count: 0, q_start: 0,
     k_start: 0, scale: 0.0, softcap: 0.0, dropout: 0.0, seed: 0, offset: 0, flags: 0, layout: 0]);
twin!(
    Cache,
    dlattn_cache,
    [k_new, v_new, seqlens, block_table, batch_index, k_cache, v_cache],
    [layout: 0, reserved0: 0]
);
twin!(
    Rotation,
    dlattn_rotation,
    [x, cosines, sines, starts, out],
    [layout: 0, interleaved: 0, inverse: 0, reserved0: 0]
);
twin!(Outputs, dlattn_outputs, [out, lse], []);
twin!(Gradients, dlattn_gradients, [out, lse, dout, dlse, dq, dk, dv, dbias, dsinks], []);

/// How to run: threads on the CPU, stream and workspace on a GPU. The default serves every call on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Exec(raw::dlattn_exec);

// SAFETY: stream and workspace are the caller's word, given in unsafe functions; nothing here dereferences them.
unsafe impl Send for Exec {}
unsafe impl Sync for Exec {}

impl Default for Exec {
    fn default() -> Self {
        Exec(raw::dlattn_exec {
            struct_size: std::mem::size_of::<raw::dlattn_exec>() as i64,
            stream: ptr::null_mut(),
            workspace: ptr::null_mut(),
            workspace_bytes: 0,
            message: ptr::null_mut(),
            message_bytes: 0,
            num_threads: 0,
            reserved0: 0,
        })
    }
}

impl Exec {
    /// All defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// CPU threads; 0: the environment's `DLATTN_NUM_THREADS`, else what the machine allows.
    #[must_use]
    pub fn num_threads(mut self, count: i32) -> Self {
        self.0.num_threads = count;
        self
    }

    /// The CUDA stream that the work is queued on; the default is the legacy default stream.
    ///
    /// # Safety
    ///
    /// `stream` must be a CUDA stream of the tensors' device that outlives the calls.
    #[must_use]
    pub unsafe fn stream(mut self, stream: *mut c_void) -> Self {
        self.0.stream = stream;
        self
    }

    /// Memory for the call, 16-byte aligned; how much: [`Attention::backward_workspace`](crate::Attention).
    ///
    /// # Safety
    ///
    /// `workspace` must be `bytes` of memory on the tensors' device that nothing else uses until the call has ended.
    #[must_use]
    pub unsafe fn workspace(mut self, workspace: *mut c_void, bytes: u64) -> Self {
        self.0.workspace = workspace;
        self.0.workspace_bytes = bytes;
        self
    }
}

/// The text of a C string that the library owns.
fn text(pointer: *const c_char) -> String {
    // SAFETY: the library returns NUL-terminated texts that stay valid until this thread's next call.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn check(status: i32) -> Result<()> {
    match status {
        raw::DLATTN_OK => Ok(()),
        // SAFETY: no arguments; the sentence is that of this thread's last call.
        code => Err(Error::new(code, text(unsafe { raw::dlattn_last_error() }))),
    }
}

// SAFETY of the calls below: each twin hands over a struct with valid pointers to DLTensors, whose data is borrowed as
// Tensor and TensorMut demand (or NULL, where the header allows it); the library checks everything else.

pub(crate) fn forward(problem: &Problem, outputs: &Outputs, exec: &Exec) -> Result<()> {
    check(problem.with(|p| outputs.with(|o| unsafe { raw::dlattn_forward(p, o, &exec.0) })))
}

pub(crate) fn backward(problem: &Problem, gradients: &Gradients, exec: &Exec) -> Result<()> {
    check(problem.with(|p| gradients.with(|g| unsafe { raw::dlattn_backward(p, g, &exec.0) })))
}

pub(crate) fn dropout_mask(problem: &Problem, keep: &Descriptor, exec: &Exec) -> Result<()> {
    let mut keep = keep.raw();
    check(problem.with(|p| unsafe { raw::dlattn_dropout_mask(p, &mut keep, &exec.0) }))
}

pub(crate) fn kv_append(cache: &Cache, exec: &Exec) -> Result<()> {
    check(cache.with(|c| unsafe { raw::dlattn_kv_append(c, &exec.0) }))
}

pub(crate) fn rotary(rotation: &Rotation, exec: &Exec) -> Result<()> {
    check(rotation.with(|r| unsafe { raw::dlattn_rotary(r, &exec.0) }))
}

/// What a query is about: the forward or the backward.
pub(crate) enum Goal<'a> {
    Forward(&'a Outputs),
    Backward(&'a Gradients),
}

impl Goal<'_> {
    fn with<R>(&self, f: impl FnOnce(*const raw::dlattn_outputs, *const raw::dlattn_gradients) -> R) -> R {
        match self {
            Goal::Forward(outputs) => outputs.with(|o| f(o, ptr::null())),
            Goal::Backward(gradients) => gradients.with(|g| f(ptr::null(), g)),
        }
    }
}

pub(crate) fn workspace(problem: &Problem, goal: Goal<'_>, exec: &Exec) -> Result<(u64, u64)> {
    let (mut best, mut least) = (0, 0);
    check(problem.with(|p| match goal {
        Goal::Forward(o) => o.with(|o| unsafe { raw::dlattn_forward_workspace(p, o, &exec.0, &mut best, &mut least) }),
        Goal::Backward(g) => {
            g.with(|g| unsafe { raw::dlattn_backward_workspace(p, g, &exec.0, &mut best, &mut least) })
        }
    }))?;
    Ok((best, least))
}

pub(crate) fn prepare(problem: &Problem, goal: Goal<'_>, exec: &Exec) -> Result<()> {
    check(problem.with(|p| goal.with(|o, g| unsafe { raw::dlattn_prepare(p, o, g, &exec.0) })))
}

/// What a call would do, whether it would be accepted or not; without a problem: the library and the machine.
pub(crate) fn explain(problem: Option<(&Problem, Goal<'_>)>, exec: &Exec) -> String {
    let mut buffer = vec![0u8; 1 << 14];
    loop {
        let (start, size) = (buffer.as_mut_ptr() as *mut c_char, buffer.len() as i64);
        // SAFETY: as above, and the buffer has `size` bytes. The status repeats what the text says.
        match &problem {
            None => unsafe { raw::dlattn_explain(ptr::null(), ptr::null(), ptr::null(), &exec.0, start, size) },
            Some((problem, goal)) => {
                problem.with(|p| goal.with(|o, g| unsafe { raw::dlattn_explain(p, o, g, &exec.0, start, size) }))
            }
        };
        let length = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
        if length + 1 < buffer.len() {
            buffer.truncate(length);
            return String::from_utf8_lossy(&buffer).into_owned();
        }
        buffer = vec![0; 2 * buffer.len()]; // the text was cut
    }
}

pub(crate) fn merge(
    outs: &[Descriptor],
    lses: &[Descriptor],
    layout: i32,
    merged: &Outputs,
    exec: &Exec,
) -> Result<()> {
    assert_eq!(outs.len(), lses.len());
    let tensors = |parts: &[Descriptor]| parts.iter().map(Descriptor::raw).collect::<Vec<_>>();
    let (outs, lses) = (tensors(outs), tensors(lses));
    let pointers = |parts: &[DLTensor]| parts.iter().map(|part| part as *const DLTensor).collect::<Vec<_>>();
    let (out_pointers, lse_pointers) = (pointers(&outs), pointers(&lses));
    let parts = raw::dlattn_parts {
        struct_size: std::mem::size_of::<raw::dlattn_parts>() as i64,
        out: out_pointers.as_ptr(),
        lse: lse_pointers.as_ptr(),
        count: outs.len() as i64,
        layout,
        reserved0: 0,
    };
    check(merged.with(|m| unsafe { raw::dlattn_merge(&parts, m, &exec.0) }))
}

pub(crate) fn set_option(name: &str, value: Option<&str>) -> Result<()> {
    let c_text = |text: &str| {
        CString::new(text).map_err(|_| Error::new(raw::DLATTN_ERR_ARGUMENT, format!("{:?} has a NUL in it", text)))
    };
    let (name, value) = (c_text(name)?, value.map(c_text).transpose()?);
    check(unsafe { raw::dlattn_set_option(name.as_ptr(), value.as_ref().map_or(ptr::null(), |value| value.as_ptr())) })
}

pub(crate) fn version() -> i32 {
    unsafe { raw::dlattn_version() }
}
