//! Calls that allocate their results as ndarray's arrays.

use ndarray::{ArrayD, IxDyn};

use crate::attention::{Attention, Backward, Layout};
use crate::element::Float;
use crate::error::Result;
use crate::ffi::Exec;
use crate::{merge_into, Tensor, TensorMut};

/// What the forward gives.
#[derive(Clone, Debug)]
pub struct Forward<T: Float> {
    /// As q, with the value head's size.
    pub out: ArrayD<T>,
    /// The natural logarithm of each row's sum of exp(score): `[B,H,M]`, packed `[H,T]`.
    pub lse: ArrayD<T::Wide>,
}

/// What the backward gives.
#[derive(Clone, Debug)]
pub struct Gradients<T: Float> {
    /// Of q.
    pub dq: ArrayD<T>,
    /// Of k.
    pub dk: ArrayD<T>,
    /// Of v.
    pub dv: ArrayD<T>,
    /// Of the bias, if there is one; in its shape.
    pub dbias: Option<ArrayD<T::Wide>>,
    /// Of the sinks, if there are any.
    pub dsinks: Option<ArrayD<T::Wide>>,
}

fn array<X: Float>(shape: &[i64]) -> ArrayD<X> {
    let extents: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
    ArrayD::from_elem(IxDyn(&extents), X::default())
}

impl<'a, T: Float> Attention<'a, T> {
    /// Attention and its log-sum-exp, in new arrays on the CPU.
    pub fn forward(&self) -> Result<Forward<T>> {
        let mut result = Forward { out: array(&self.out_shape()), lse: array(&self.lse_shape()) };
        self.forward_into(&mut result.out, Some(TensorMut::from(&mut result.lse)))?;
        Ok(result)
    }

    /// The gradients of q, k, v and of bias and sinks where there are any, from the gradient of out.
    pub fn backward<'b>(&self, forward: &'b Forward<T>, dout: impl Into<Tensor<'b, T>>) -> Result<Gradients<T>> {
        self.all_gradients(Backward::new(&forward.out, &forward.lse, dout))
    }

    /// The same where the loss depends on lse too.
    pub fn backward_with_dlse<'b>(
        &self,
        forward: &'b Forward<T>,
        dout: impl Into<Tensor<'b, T>>,
        dlse: impl Into<Tensor<'b, T::Wide>>,
    ) -> Result<Gradients<T>> {
        self.all_gradients(Backward::new(&forward.out, &forward.lse, dout).dlse(dlse))
    }

    fn all_gradients(&self, backward: Backward<'_, T>) -> Result<Gradients<T>> {
        let p = &self.problem;
        let [dq, dk, dv] = [&p.q, &p.k, &p.v].map(|parent| array(parent.as_ref().expect("new sets it").shape()));
        let [dbias, dsinks] = [&p.bias, &p.sinks].map(|parent| parent.as_ref().map(|parent| array(parent.shape())));
        let mut result = Gradients { dq, dk, dv, dbias, dsinks };
        let mut call = backward.dq(&mut result.dq).dk(&mut result.dk).dv(&mut result.dv);
        if let Some(dbias) = &mut result.dbias {
            call = call.dbias(dbias);
        }
        if let Some(dsinks) = &mut result.dsinks {
            call = call.dsinks(dsinks);
        }
        self.backward_into(call)?;
        Ok(result)
    }
}

/// Joins the results of a problem that was split over its keys. Pass sinks to exactly one part.
pub fn merge<T: Float>(parts: &[Forward<T>], layout: Layout) -> Result<Forward<T>> {
    let shape = |extents: &[usize]| extents.iter().map(|&extent| extent as i64).collect::<Vec<_>>();
    let (out, lse) = parts.first().map_or((vec![], vec![]), |part| (shape(part.out.shape()), shape(part.lse.shape())));
    let mut result = Forward { out: array(&out), lse: array(&lse) };
    let parts: Vec<_> = parts.iter().map(|part| (Tensor::from(&part.out), Tensor::from(&part.lse))).collect();
    merge_into(&parts, layout, &mut result.out, Some(TensorMut::from(&mut result.lse)), &Exec::default())?;
    Ok(result)
}
