//! What is to be computed: a builder over q, k, v and the options, and its calls.

use std::marker::PhantomData;

use dlattn_sys as raw;

use crate::element::{Element, Float};
use crate::error::Result;
use crate::ffi::{self, Descriptor, Exec, Goal, Gradients, Outputs, Problem};
use crate::{Tensor, TensorMut};

/// The order of the dimensions of q, k, v, out and their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// `[batch, tokens, heads, head size]`; packed `[tokens, heads, head size]`.
    #[default]
    Bshd,
    /// `[batch, heads, tokens, head size]`; packed `[heads, tokens, head size]`.
    Bhsd,
}

impl Layout {
    pub(crate) fn code(self) -> i32 {
        match self {
            Layout::Bshd => raw::DLATTN_BSHD,
            Layout::Bhsd => raw::DLATTN_BHSD,
        }
    }
}

/// How much workspace a call uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Bytes at best.
    pub bytes: u64,
    /// With fewer bytes the call is refused.
    pub minimum_bytes: u64,
}

/// A problem: q, k, v and what happens to their scores. Options not set are off.
///
/// Letters: B batch, H query heads, G key/value heads (G divides H; head h reads key/value head h / (H/G)), M queries,
/// N keys, D size of a query/key head, E size of a value head. Tensors have any strides and are never copied. All of a
/// call's checks are the C library's, and an error is its sentence.
#[derive(Clone, Debug)]
pub struct Attention<'a, T: Float> {
    pub(crate) problem: Problem,
    pub(crate) exec: Exec,
    borrow: PhantomData<&'a [T]>,
}

macro_rules! tensors {
    ($($(#[$doc:meta])* $name:ident: $bound:ident,)*) => { $(
        $(#[$doc])*
        #[must_use]
        pub fn $name<X: $bound>(mut self, tensor: impl Into<Tensor<'a, X>>) -> Self {
            self.problem.$name = Some(tensor.into().descriptor);
            self
        }
    )* };
}

impl<'a, T: Float> Attention<'a, T> {
    /// q `[B,M,H,D]`, k `[B,N,G,D]`, v `[B,N,G,E]`, in the order of [`layout`](Self::layout); packed sides have rank 3
    /// (see [`cu_seqlens_q`](Self::cu_seqlens_q)).
    pub fn new(q: impl Into<Tensor<'a, T>>, k: impl Into<Tensor<'a, T>>, v: impl Into<Tensor<'a, T>>) -> Self {
        let [q, k, v] = [q.into(), k.into(), v.into()].map(|tensor| Some(tensor.descriptor));
        Self { problem: Problem { q, k, v, ..Problem::default() }, exec: Exec::default(), borrow: PhantomData }
    }

    fn flag(mut self, bit: i32) -> Self {
        self.problem.plain.flags |= bit as u32;
        self
    }

    /// Query i sees keys up to its own position; by default the last query stands at the last key.
    #[must_use]
    pub fn causal(self) -> Self {
        self.flag(raw::DLATTN_CAUSAL)
    }

    /// Query i has position i, also when M differs from N.
    #[must_use]
    pub fn top_left(self) -> Self {
        self.flag(raw::DLATTN_TOP_LEFT)
    }

    /// Keys from position `i - left` to `i + right`; `None`: unlimited.
    #[must_use]
    pub fn window(mut self, left: impl Into<Option<i64>>, right: impl Into<Option<i64>>) -> Self {
        self.problem.plain.window_left = left.into().unwrap_or(-1);
        self.problem.plain.window_right = right.into().unwrap_or(-1);
        self.flag(raw::DLATTN_WINDOW)
    }

    /// The query's block of `size` keys and the `count - 1` blocks before it.
    #[must_use]
    pub fn block_window(mut self, size: i64, count: i64) -> Self {
        self.problem.plain.block_size = size;
        self.problem.plain.block_count = count;
        self.flag(raw::DLATTN_BLOCK_WINDOW)
    }

    /// Positions of the first query and the first key: a shard, a chunk or a ring step of a larger problem.
    #[must_use]
    pub fn positions(mut self, q_start: i64, k_start: i64) -> Self {
        self.problem.plain.q_start = q_start;
        self.problem.plain.k_start = k_start;
        self.flag(raw::DLATTN_POSITIONS)
    }

    /// Instead of 1/sqrt(D).
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Self {
        self.problem.plain.scale = scale;
        self.flag(raw::DLATTN_SCALE)
    }

    /// `softcap * tanh(score / softcap)`.
    #[must_use]
    pub fn softcap(mut self, softcap: f64) -> Self {
        self.problem.plain.softcap = softcap;
        self
    }

    /// Drops each weight with this probability, by the bits that `dlattn.h` specifies for (seed, offset).
    #[must_use]
    pub fn dropout(mut self, probability: f64, seed: u64, offset: u64) -> Self {
        self.problem.plain.dropout = probability;
        self.problem.plain.seed = seed;
        self.problem.plain.offset = offset;
        self
    }

    /// Upper bounds on the lengths of packed sequences; 0: the number of tokens.
    #[must_use]
    pub fn max_seqlens(mut self, q: i64, k: i64) -> Self {
        self.problem.plain.max_seqlen_q = q;
        self.problem.plain.max_seqlen_k = k;
        self
    }

    /// The order of dimensions.
    #[must_use]
    pub fn layout(mut self, layout: Layout) -> Self {
        self.problem.plain.layout = layout.code();
        self
    }

    /// The same bits in every run; the CPU always gives them.
    #[must_use]
    pub fn deterministic(self) -> Self {
        self.flag(raw::DLATTN_DETERMINISTIC)
    }

    /// CUDA may use TF32 products for `f32`.
    #[must_use]
    pub fn allow_tf32(self) -> Self {
        self.flag(raw::DLATTN_ALLOW_TF32)
    }

    /// Threads, stream and workspace.
    #[must_use]
    pub fn exec(mut self, exec: Exec) -> Self {
        self.exec = exec;
        self
    }

    tensors! {
        /// Added to the scores: rank 1 to 4, right-aligned to `[B,H,M,N]`; an extent of 1 broadcasts. `T` or `f32`.
        bias: Float,
        /// `bool` or `u8`, shapes as bias; nonzero keeps.
        mask: Element,
        /// `[H]` or `[B,H]`: the score loses slope * |i' - j'|.
        alibi_slopes: Float,
        /// `[H]`: one more score per row, which has no value.
        sinks: Float,
        /// Integers `[B,M]`, with [`kv_segments`](Self::kv_segments): a query sees the keys of its segment.
        q_segments: Element,
        /// Integers `[B,N]`.
        kv_segments: Element,
        /// Integers `[B+1]`, rising: q is packed `[tokens,H,D]`.
        cu_seqlens_q: Element,
        /// Integers `[B+1]`: k and v are packed.
        cu_seqlens_k: Element,
        /// Integers `[B]`: the used length of each sequence of q.
        seqlens_q: Element,
        /// Integers `[B]`: of k and v.
        seqlens_k: Element,
        /// Integers `[B,pages]`: k and v are paged.
        block_table: Element,
        /// `[2]` 64-bit integers (seed, offset) or `[4]` `u32`: overrides both.
        rng_state: Element,
    }

    /// Integers `[B]`: positions of each sequence's first query and first key.
    #[must_use]
    pub fn starts<X: Element, Y: Element>(mut self, q: impl Into<Tensor<'a, X>>, k: impl Into<Tensor<'a, Y>>) -> Self {
        self.problem.q_starts = Some(q.into().descriptor);
        self.problem.k_starts = Some(k.into().descriptor);
        self.flag(raw::DLATTN_POSITIONS)
    }

    // ---- calls ------------------------------------------------------------------------------------------------------

    /// Writes out (as q with E; `T` or `f32`) and, if given, lse (`[B,H,M]`, packed `[H,T]`).
    pub fn forward_into<'b, O: Float>(
        &self,
        out: impl Into<TensorMut<'b, O>>,
        lse: Option<TensorMut<'b, T::Wide>>,
    ) -> Result<()> {
        let outputs =
            Outputs { out: Some(out.into().descriptor), lse: lse.map(|t| t.descriptor), ..Outputs::default() };
        ffi::forward(&self.problem, &outputs, &self.exec)
    }

    /// Writes the gradients that `backward` has tensors for.
    pub fn backward_into(&self, backward: Backward<'_, T>) -> Result<()> {
        ffi::backward(&self.problem, &backward.gradients, &self.exec)
    }

    /// Writes which scores dropout keeps: `keep` is `[B,H,M,N]`, `bool` or `u8`.
    pub fn dropout_mask_into<'b, X: Element>(&self, keep: impl Into<TensorMut<'b, X>>) -> Result<()> {
        ffi::dropout_mask(&self.problem, &keep.into().descriptor, &self.exec)
    }

    /// Workspace of the forward.
    pub fn forward_workspace(&self) -> Result<Workspace> {
        let (bytes, minimum_bytes) = ffi::workspace(&self.problem, Goal::Forward(&self.outputs()), &self.exec)?;
        Ok(Workspace { bytes, minimum_bytes })
    }

    /// Workspace of a backward that computes every gradient there is.
    pub fn backward_workspace(&self) -> Result<Workspace> {
        let (bytes, minimum_bytes) = ffi::workspace(&self.problem, Goal::Backward(&self.gradients()), &self.exec)?;
        Ok(Workspace { bytes, minimum_bytes })
    }

    /// Makes the first forward as fast as the next: compiles and loads kernels, starts threads.
    pub fn prepare_forward(&self) -> Result<()> {
        ffi::prepare(&self.problem, Goal::Forward(&self.outputs()), &self.exec)
    }

    /// The same for the backward.
    pub fn prepare_backward(&self) -> Result<()> {
        ffi::prepare(&self.problem, Goal::Backward(&self.gradients()), &self.exec)
    }

    /// What the forward would do, in words: the problem as understood, the kernel chosen, and each backend's reason for
    /// refusing. The text is the same whether the call would be accepted or not.
    pub fn explain(&self) -> String {
        ffi::explain(Some((&self.problem, Goal::Forward(&self.outputs()))), &self.exec)
    }

    /// What the backward would do.
    pub fn explain_backward(&self) -> String {
        ffi::explain(Some((&self.problem, Goal::Backward(&self.gradients()))), &self.exec)
    }

    // ---- shapes of results ------------------------------------------------------------------------------------------

    pub(crate) fn q(&self) -> &Descriptor {
        self.problem.q.as_ref().expect("new sets it")
    }

    /// That of q, with the value head's size.
    pub(crate) fn out_shape(&self) -> Vec<i64> {
        let mut shape = self.q().shape().to_vec();
        let v = self.problem.v.as_ref().expect("new sets it");
        if let (Some(last), Some(size)) = (shape.last_mut(), v.shape().last()) {
            *last = *size;
        }
        shape
    }

    /// `[B,H,M]`, packed `[H,T]`: that of q in layout BHSD, without D.
    pub(crate) fn lse_shape(&self) -> Vec<i64> {
        let mut shape = self.q().shape().to_vec();
        shape.pop();
        let rank = shape.len();
        if self.problem.plain.layout == raw::DLATTN_BSHD && rank >= 2 {
            shape.swap(rank - 1, rank - 2);
        }
        shape
    }

    /// The forward's results without data, for queries.
    fn outputs(&self) -> Outputs {
        Outputs {
            out: Some(self.q().blank::<T>(self.out_shape())),
            lse: Some(self.q().blank::<T::Wide>(self.lse_shape())),
            ..Outputs::default()
        }
    }

    /// Everything that the backward can give, without data.
    fn gradients(&self) -> Gradients {
        let Outputs { out, lse, .. } = self.outputs();
        let like = |parent: &Option<Descriptor>| parent.as_ref().map(|p| p.blank_like());
        let p = &self.problem;
        Gradients {
            dout: out.clone(),
            out,
            lse,
            dq: like(&p.q),
            dk: like(&p.k),
            dv: like(&p.v),
            dbias: like(&p.bias),
            dsinks: like(&p.sinks),
            ..Gradients::default()
        }
    }
}

/// What the backward reads and writes. Gradients without a tensor are not computed.
#[derive(Clone, Debug)]
pub struct Backward<'b, T: Float> {
    gradients: Gradients,
    borrow: PhantomData<&'b mut [T]>,
}

impl<'b, T: Float> Backward<'b, T> {
    /// out and lse of the forward, and the gradient of out.
    pub fn new<O: Float>(
        out: impl Into<Tensor<'b, O>>,
        lse: impl Into<Tensor<'b, T::Wide>>,
        dout: impl Into<Tensor<'b, T>>,
    ) -> Self {
        let gradients = Gradients {
            out: Some(out.into().descriptor),
            lse: Some(lse.into().descriptor),
            dout: Some(dout.into().descriptor),
            ..Gradients::default()
        };
        Self { gradients, borrow: PhantomData }
    }

    /// The gradient of lse; zero if not given.
    #[must_use]
    pub fn dlse(mut self, dlse: impl Into<Tensor<'b, T::Wide>>) -> Self {
        self.gradients.dlse = Some(dlse.into().descriptor);
        self
    }
}

macro_rules! gradients {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl<'b, T: Float> Backward<'b, T> { $(
            $(#[$doc])*
            #[must_use]
            pub fn $name<O: Float>(mut self, tensor: impl Into<TensorMut<'b, O>>) -> Self {
                self.gradients.$name = Some(tensor.into().descriptor);
                self
            }
        )* }
    };
}

gradients! {
    /// Takes the gradient of q: `T` or `f32`.
    dq,
    /// Takes the gradient of k.
    dk,
    /// Takes the gradient of v.
    dv,
    /// Takes the gradient of the bias, in its shape, summed over what was broadcast.
    dbias,
    /// Takes the gradient of the sinks.
    dsinks,
}
