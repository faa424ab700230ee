//! Forward and backward on a CUDA device, of plain memory from the driver; the CPU's results judge them.
//!
//! `cargo test --test cuda -- --ignored` needs a device and an NVRTC; tests/emulated/run.sh stands in for both.
#![cfg(feature = "ndarray")]

use std::os::raw::{c_int, c_uint, c_void};
use std::ptr;

use dlattn::half::f16;
use dlattn::{Attention, Backward, Device, Element, ErrorKind, Exec, Float, Tensor, TensorMut};
use libloading::Library;
use ndarray::{ArrayD, IxDyn};

/// The driver, a stream, and the functions that these tests call.
struct Gpu {
    driver: Library,
    stream: *mut c_void,
}

/// Calls a function of the driver by its name and type; panics when it reports an error.
macro_rules! driver {
    ($gpu:expr, $name:literal: ($($type:ty),*), $($argument:expr),*) => {{
        // SAFETY: the types are those of cuda.h.
        let call = unsafe { $gpu.driver.get::<unsafe extern "C" fn($($type),*) -> c_int>($name) }.unwrap();
        // SAFETY: as each call below shows.
        let status = unsafe { call($($argument),*) };
        assert_eq!(status, 0, "{}", String::from_utf8_lossy($name));
    }};
}

impl Gpu {
    fn new() -> Self {
        // SAFETY: the driver's initialisers are those that every CUDA program runs.
        let driver = unsafe { Library::new("libcuda.so.1") }.expect("a CUDA driver");
        let mut gpu = Gpu { driver, stream: ptr::null_mut() };
        let mut context: *mut c_void = ptr::null_mut();
        driver!(gpu, b"cuInit": (c_uint), 0);
        driver!(gpu, b"cuDevicePrimaryCtxRetain": (*mut *mut c_void, c_int), &mut context, 0);
        driver!(gpu, b"cuCtxSetCurrent": (*mut c_void), context);
        let mut stream = ptr::null_mut();
        driver!(gpu, b"cuStreamCreate": (*mut *mut c_void, c_uint), &mut stream, 1);
        gpu.stream = stream;
        gpu
    }

    fn wait(&self) {
        driver!(self, b"cuStreamSynchronize": (*mut c_void), self.stream);
    }

    fn allocate(&self, bytes: usize) -> u64 {
        let mut address = 0u64;
        driver!(self, b"cuMemAlloc_v2": (*mut u64, usize), &mut address, bytes.max(16));
        driver!(self, b"cuMemsetD8Async": (u64, u8, usize, *mut c_void), address, 0xff, bytes.max(16), self.stream);
        address
    }

    /// A copy of an array.
    fn put<T: Element>(&self, host: &ArrayD<T>) -> OnGpu<'_, T> {
        let there = self.blank(host.shape());
        let bytes = host.len() * std::mem::size_of::<T>();
        let from = host.as_slice().expect("compact").as_ptr() as *const c_void;
        driver!(self, b"cuMemcpyHtoDAsync_v2": (u64, *const c_void, usize, *mut c_void), there.address, from, bytes, self.stream);
        self.wait();
        there
    }

    /// An array whose bytes are all 0xff, NaN in every type.
    fn blank<T: Element>(&self, shape: &[usize]) -> OnGpu<'_, T> {
        let count: usize = shape.iter().product();
        let address = self.allocate(count * std::mem::size_of::<T>());
        OnGpu { gpu: self, address, shape: shape.to_vec(), kind: std::marker::PhantomData }
    }
}

/// An array on the device.
struct OnGpu<'g, T> {
    gpu: &'g Gpu,
    address: u64,
    shape: Vec<usize>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Element> OnGpu<'_, T> {
    fn strides(&self) -> Vec<isize> {
        (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product::<usize>() as isize).collect()
    }

    fn tensor(&self) -> Tensor<'_, T> {
        // SAFETY: the memory is the device's and lives as long as self.
        unsafe { Tensor::from_raw_parts(self.address as *const T, Device::cuda(0), &self.shape, &self.strides()) }
    }

    fn tensor_mut(&mut self) -> TensorMut<'_, T> {
        // SAFETY: as above, and self is borrowed mutably.
        unsafe { TensorMut::from_raw_parts(self.address as *mut T, Device::cuda(0), &self.shape, &self.strides()) }
    }

    fn get(&self) -> ArrayD<T>
    where
        T: Default,
    {
        let mut host = ArrayD::from_shape_simple_fn(IxDyn(&self.shape), T::default);
        let (to, bytes) = (host.as_mut_ptr() as *mut c_void, host.len() * std::mem::size_of::<T>());
        driver!(self.gpu, b"cuMemcpyDtoHAsync_v2": (*mut c_void, u64, usize, *mut c_void), to, self.address, bytes, self.gpu.stream);
        self.gpu.wait();
        host
    }
}

impl<T> Drop for OnGpu<'_, T> {
    fn drop(&mut self) {
        self.gpu.wait();
        driver!(self.gpu, b"cuMemFree_v2": (u64), self.address);
    }
}

fn waves<T: Float + From<f16>>(shape: &[usize], step: f64) -> ArrayD<T> {
    let mut at = 0.0;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        at += step;
        T::from(f16::from_f64(f64::sin(at)))
    })
}

/// Both sides compute in float and round each result once; of values of order 1 over some hundred terms.
fn same<T: Copy + Into<f64>>(found: &ArrayD<T>, expected: &ArrayD<T>, unit: f64, what: &str) {
    assert_eq!(found.shape(), expected.shape());
    let most = expected.iter().map(|&x| x.into().abs()).fold(1.0, f64::max);
    for (&x, &y) in found.iter().zip(expected) {
        let (x, y): (f64, f64) = (x.into(), y.into());
        assert!((x - y).abs() <= 8.0 * unit * most, "{what}: {x} on the device, {y} on the CPU");
    }
}

fn compare<T>(unit: f64)
where
    T: Float + Default + Into<f64> + From<f16>,
    T::Wide: Float + Default + Into<f64>,
{
    let gpu = Gpu::new();
    let (q, k, v): (ArrayD<T>, ArrayD<T>, ArrayD<T>) =
        (waves(&[2, 20, 4, 16], 0.7), waves(&[2, 33, 2, 16], 1.1), waves(&[2, 33, 2, 16], 1.9));
    let (sinks, dout) = (waves::<T>(&[4], 0.3), waves::<T>(&[2, 20, 4, 16], 0.9));
    let here = Attention::new(&q, &k, &v).causal().sinks(&sinks);
    let forward = here.forward().unwrap();
    let expected = here.backward(&forward, &dout).unwrap();

    let [q, k, v, sinks, dout] = [&q, &k, &v, &sinks, &dout].map(|host| gpu.put(host));
    // SAFETY: the stream is the device's and outlives the calls.
    let on_stream = unsafe { Exec::new().stream(gpu.stream) };
    let there = Attention::new(q.tensor(), k.tensor(), v.tensor()).causal().sinks(sinks.tensor()).exec(on_stream);
    assert!(there.explain().contains("backend: cuda"), "{}", there.explain());
    let (mut out, mut lse) = (gpu.blank::<T>(&[2, 20, 4, 16]), gpu.blank::<T::Wide>(&[2, 4, 20]));
    assert_eq!(there.forward_workspace().unwrap().minimum_bytes, 0);
    there.forward_into(out.tensor_mut(), Some(lse.tensor_mut())).unwrap();

    let mut found = [&q, &k, &v].map(|input| gpu.blank::<T>(&input.shape));
    let mut dsinks = gpu.blank::<T::Wide>(&sinks.shape);
    let backward = |attention: &Attention<'_, T>, found: &mut [OnGpu<'_, T>; 3], dsinks: &mut OnGpu<'_, T::Wide>| {
        let [dq, dk, dv] = found;
        let results = Backward::new(out.tensor(), lse.tensor(), dout.tensor()).dsinks(dsinks.tensor_mut());
        attention.backward_into(results.dq(dq.tensor_mut()).dk(dk.tensor_mut()).dv(dv.tensor_mut()))
    };
    assert_eq!(backward(&there, &mut found, &mut dsinks).unwrap_err().kind(), ErrorKind::Workspace);
    assert!(found[0].get().iter().all(|&x| x.into().is_nan()), "a refused call writes nothing");
    let bytes = there.backward_workspace().unwrap().bytes;
    let memory = gpu.blank::<u8>(&[bytes as usize]);
    // SAFETY: the memory has so many bytes, and is used by this call alone.
    let there = there.clone().exec(unsafe { on_stream.workspace(memory.address as *mut c_void, bytes) });
    backward(&there, &mut found, &mut dsinks).unwrap();

    same(&out.get(), &forward.out, unit, "out");
    same(&lse.get(), &forward.lse, f64::powi(2.0, -23), "lse");
    same(&found[0].get(), &expected.dq, unit, "dq");
    same(&found[1].get(), &expected.dk, unit, "dk");
    same(&found[2].get(), &expected.dv, unit, "dv");
    same(&dsinks.get(), &expected.dsinks.unwrap(), unit, "dsinks");
}

#[test]
#[ignore = "needs a CUDA device"]
fn values_and_gradients_are_those_of_the_cpu_f32() {
    compare::<f32>(f64::powi(2.0, -20));
}

#[test]
#[ignore = "needs a CUDA device"]
fn values_and_gradients_are_those_of_the_cpu_f16() {
    compare::<f16>(f64::powi(2.0, -11));
}

#[test]
#[ignore = "needs a CUDA device"]
fn a_tensor_on_the_device_and_one_on_the_host_are_refused() {
    let gpu = Gpu::new();
    let host: ArrayD<f32> = waves(&[1, 3, 2, 8], 0.5);
    let there = gpu.put(&host);
    let mut out = gpu.blank::<f32>(&[1, 3, 2, 8]);
    let error = Attention::new(there.tensor(), &host, there.tensor()).forward_into(out.tensor_mut(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Device);
    assert!(error.to_string().starts_with("k is on kDLCPU"), "{error}");
    assert!(out.get().iter().all(|x| x.is_nan()));
}
