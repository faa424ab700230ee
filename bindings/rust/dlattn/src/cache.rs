//! What a decoding step does beside attention: new keys and values into a cache, rotary positions.

use std::marker::PhantomData;

use crate::attention::Layout;
use crate::element::{Element, Float};
use crate::error::Result;
use crate::ffi::{self, Cache, Exec, Rotation};
use crate::{Tensor, TensorMut};

/// New keys and values, to be copied behind the tokens of a cache.
///
/// ```
/// # use dlattn::{KvAppend, Tensor, TensorMut};
/// let (mut k_cache, mut v_cache) = ([0f32; 8], [0f32; 8]);        // [batch, capacity, heads, head size]
/// let (new, used) = ([1f32, 2.0], [1i32]);                        // one token, behind the one that is there
/// let k = Tensor::new(&new, &[1, 1, 1, 2])?;
/// let v = Tensor::new(&new, &[1, 1, 1, 2])?;
/// KvAppend::new(k, v, Tensor::new(&used, &[1])?)
///     .append_to(TensorMut::new(&mut k_cache, &[1, 4, 1, 2])?, TensorMut::new(&mut v_cache, &[1, 4, 1, 2])?)?;
/// assert_eq!(k_cache, [0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), dlattn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KvAppend<'a, T: Float> {
    cache: Cache,
    exec: Exec,
    borrow: PhantomData<&'a [T]>,
}

impl<'a, T: Float> KvAppend<'a, T> {
    /// `k_new` `[B,S,G,D]`, `v_new` `[B,S,G,E]`, `seqlens` `[B]` integers: tokens already in the cache. Token s of
    /// sequence b becomes token `seqlens[b] + s`.
    pub fn new<X: Element>(
        k_new: impl Into<Tensor<'a, T>>,
        v_new: impl Into<Tensor<'a, T>>,
        seqlens: impl Into<Tensor<'a, X>>,
    ) -> Self {
        let cache = Cache {
            k_new: Some(k_new.into().descriptor),
            v_new: Some(v_new.into().descriptor),
            seqlens: Some(seqlens.into().descriptor),
            ..Cache::default()
        };
        Self { cache, exec: Exec::default(), borrow: PhantomData }
    }

    /// Integers `[B,pages]`: the caches are pages `[P,page,G,D]`, and these are each sequence's.
    #[must_use]
    pub fn block_table<X: Element>(mut self, table: impl Into<Tensor<'a, X>>) -> Self {
        self.cache.block_table = Some(table.into().descriptor);
        self
    }

    /// Integers `[B]`: the cache row of each sequence; the cache may then have any number of rows.
    #[must_use]
    pub fn batch_index<X: Element>(mut self, index: impl Into<Tensor<'a, X>>) -> Self {
        self.cache.batch_index = Some(index.into().descriptor);
        self
    }

    /// The order of dimensions.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.cache.plain.layout = layout.code();
        self
    }

    /// The stream.
    #[must_use]
    pub fn exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    /// Copies into caches `[B,capacity,G,D]` and `[B,capacity,G,E]`. On the CPU a token without a place is an error.
    pub fn append_to<'b>(
        &self,
        k_cache: impl Into<TensorMut<'b, T>>,
        v_cache: impl Into<TensorMut<'b, T>>,
    ) -> Result<()> {
        let (k_cache, v_cache) = (Some(k_cache.into().descriptor), Some(v_cache.into().descriptor));
        ffi::kv_append(&Cache { k_cache, v_cache, ..self.cache.clone() }, &self.exec)
    }
}

/// Rotary position embedding (Su et al., 2021): pairs of the first R elements of each head are rotated by the angles of
/// their token's position, (x, y) -> (x cos - y sin, x sin + y cos).
#[derive(Clone, Debug)]
pub struct Rotary<'a, X: Float> {
    rotation: Rotation,
    exec: Exec,
    borrow: PhantomData<&'a [X]>,
}

impl<'a, X: Float> Rotary<'a, X> {
    /// `cosines` and `sines` `[positions,R/2]`, of the type of what is rotated or `f32`.
    pub fn new(cosines: impl Into<Tensor<'a, X>>, sines: impl Into<Tensor<'a, X>>) -> Self {
        let [cosines, sines] = [cosines.into(), sines.into()].map(|tensor| Some(tensor.descriptor));
        Self {
            rotation: Rotation { cosines, sines, ..Rotation::default() },
            exec: Exec::default(),
            borrow: PhantomData,
        }
    }

    /// Integers `[B]`: the position of each sequence's first token; zero if not given.
    #[must_use]
    pub fn starts<Y: Element>(mut self, starts: impl Into<Tensor<'a, Y>>) -> Self {
        self.rotation.starts = Some(starts.into().descriptor);
        self
    }

    /// Pairs are (2r, 2r+1) instead of (r, r + R/2).
    #[must_use]
    pub fn interleaved(mut self) -> Self {
        self.rotation.plain.interleaved = 1;
        self
    }

    /// Rotates back, which is the backward.
    #[must_use]
    pub fn inverse(mut self) -> Self {
        self.rotation.plain.inverse = 1;
        self
    }

    /// The order of dimensions.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.rotation.plain.layout = layout.code();
        self
    }

    /// The stream.
    #[must_use]
    pub fn exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    /// Rotates x `[B,S,H,D]` into `out`.
    pub fn rotate_into<'b, T: Float>(
        &self,
        x: impl Into<Tensor<'b, T>>,
        out: impl Into<TensorMut<'b, T>>,
    ) -> Result<()> {
        let (x, out) = (Some(x.into().descriptor), Some(out.into().descriptor));
        ffi::rotary(&Rotation { x, out, ..self.rotation.clone() }, &self.exec)
    }

    /// Rotates x in place.
    pub fn rotate<'b, T: Float>(&self, x: impl Into<TensorMut<'b, T>>) -> Result<()> {
        let out = Some(x.into().descriptor);
        ffi::rotary(&Rotation { x: out.clone(), out, ..self.rotation.clone() }, &self.exec)
    }
}
