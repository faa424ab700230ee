//! Attention as the header's formulas, in `f64` loops, with a bound on what rounding may do to each result.
//!
//! The bound is the standard one (Higham, Accuracy and Stability, 2002, section 3.1): a sum of n terms with unit
//! roundoff u is off by at most n*u times the sum of the terms' absolute values, and exp turns an absolute error of the
//! score into a relative error of p. So each bound is u * (operations on the path) * (1 + largest |score|) * (the formula
//! with absolute values) plus one rounding; twice that, since for `f64` this reference is no better than the library.

use dlattn::half::{bf16, f16};
use ndarray::{Array1, Array3, Array4, ArrayD, Dimension, IxDyn};

/// A type that the tests run with.
pub trait Number: dlattn::Float {
    const UNIT: f64; // of the type: p and ds may be rounded to it
    const ROW_UNIT: f64; // of the sums
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
}

macro_rules! numbers {
    ($($kind:ty, $unit:expr, $row:expr, $of:expr;)*) => { $(
        impl Number for $kind {
            const UNIT: f64 = 1.0 / (1u64 << $unit) as f64;
            const ROW_UNIT: f64 = 1.0 / (1u64 << $row) as f64;
            fn of(x: f64) -> Self {
                $of(x)
            }
            fn wide(self) -> f64 {
                self.into()
            }
        }
    )* };
}

numbers! {
    f64, 53, 53, |x| x;
    f32, 24, 24, |x| x as f32;
    f16, 11, 24, f16::from_f64;
    bf16, 8, 24, bf16::from_f64;
}

/// Equally distributed in [-1, 1): xorshift64*, from a printed seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    pub fn array<T: Number>(&mut self, shape: &[usize]) -> ArrayD<T> {
        ArrayD::from_shape_simple_fn(IxDyn(shape), || T::of(2.0 * self.next()))
    }
}

/// One padded problem in BSHD, as `f64`, with the options the tests vary.
#[derive(Clone, Default)]
pub struct Plain {
    pub q: Array4<f64>,
    pub k: Array4<f64>,
    pub v: Array4<f64>,
    pub scale: Option<f64>,
    pub causal: bool,
    pub window: Option<(i64, i64)>,
    pub bias: Option<Array4<f64>>,
    pub sinks: Option<Array1<f64>>,
}

/// Values with their bounds.
pub struct Bounded<D: Dimension> {
    pub value: ndarray::Array<f64, D>,
    pub bound: ndarray::Array<f64, D>,
}

impl<D: Dimension> Bounded<D> {
    fn zeros<S: ndarray::ShapeBuilder<Dim = D> + Clone>(shape: S) -> Self {
        Bounded { value: ndarray::Array::zeros(shape.clone()), bound: ndarray::Array::zeros(shape) }
    }

    fn add<I: ndarray::NdIndex<D> + Clone>(&mut self, at: I, value: f64, bound: f64) {
        self.value[at.clone()] += value;
        self.bound[at] += bound;
    }

    /// |found - value| <= 2 * (bound + one rounding) everywhere, infinities equal.
    pub fn check<T: Number>(&self, found: &ArrayD<T>, unit: f64, name: &str) {
        assert_eq!(found.shape(), self.value.shape(), "{}", name);
        for ((at, found), (value, bound)) in found.indexed_iter().zip(self.value.iter().zip(self.bound.iter())) {
            let (found, allowed) = (found.wide(), 2.0 * (bound + unit * value.abs()) + f64::from(f32::MIN_POSITIVE));
            let allowed = if T::UNIT == f16::UNIT { allowed + 2f64.powi(-25) } else { allowed };
            assert!(
                found == *value || (found - value).abs() <= allowed,
                "{}{:?}: {}, expected {} within {}",
                name,
                at.slice(),
                found,
                value,
                allowed
            );
        }
    }
}

pub struct Results {
    pub out: Bounded<ndarray::Ix4>,
    pub lse: Bounded<ndarray::Ix3>,
    pub dq: Bounded<ndarray::Ix4>,
    pub dk: Bounded<ndarray::Ix4>,
    pub dv: Bounded<ndarray::Ix4>,
    pub dbias: Bounded<ndarray::Ix4>,
    pub dsinks: Bounded<ndarray::Ix1>,
}

impl Plain {
    fn sees(&self, i: usize, j: usize) -> bool {
        let (m, n) = (self.q.shape()[1] as i64, self.k.shape()[1] as i64);
        let (i, j) = (i as i64 + n - m, j as i64);
        let (left, right) = self.window.unwrap_or((-1, -1));
        (!self.causal || j <= i) && (left < 0 || j >= i - left) && (right < 0 || j <= i + right)
    }

    /// out and lse, and the gradients for `dout` and `dlse`. `unit` and `row_unit` are those of the dtype.
    pub fn results(&self, dout: &Array4<f64>, dlse: &Array3<f64>, unit: f64, row_unit: f64) -> Results {
        let ([batch, m, heads, d], [_, n, groups, e]) = (four(&self.q), four(&self.v));
        let scale = self.scale.unwrap_or(1.0 / (d as f64).sqrt());
        let bias_shape = self.bias.as_ref().map_or([1; 4], four);
        let mut r = Results {
            out: Bounded::zeros((batch, m, heads, e)),
            lse: Bounded::zeros((batch, heads, m)),
            dq: Bounded::zeros((batch, m, heads, d)),
            dk: Bounded::zeros((batch, n, groups, d)),
            dv: Bounded::zeros((batch, n, groups, e)),
            dbias: Bounded::zeros((bias_shape[0], bias_shape[1], bias_shape[2], bias_shape[3])),
            dsinks: Bounded::zeros(heads),
        };
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..m {
                    let g = h / (heads / groups);
                    let mut scores = vec![f64::NEG_INFINITY; n];
                    let mut largest = 0f64; // |score|, all its terms taken absolutely
                    for j in (0..n).filter(|&j| self.sees(i, j)) {
                        let products = || (0..d).map(|x| self.q[[b, i, h, x]] * self.k[[b, j, g, x]]);
                        let term = self.bias.as_ref().map_or(0.0, |bias| bias[clip([b, h, i, j], bias_shape)]);
                        scores[j] = scale * products().sum::<f64>() + term;
                        largest = largest.max(scale.abs() * products().map(f64::abs).sum::<f64>() + term.abs());
                    }
                    let sink = self.sinks.as_ref().map_or(f64::NEG_INFINITY, |sinks| sinks[h]);
                    let top = scores.iter().copied().fold(sink, f64::max);
                    if top == f64::NEG_INFINITY {
                        r.lse.value[[b, h, i]] = top;
                        continue;
                    }
                    let total = scores.iter().map(|s| (s - top).exp()).sum::<f64>() + (sink - top).exp();
                    let lse = top + total.ln();
                    let p: Vec<f64> = scores.iter().map(|s| (s - lse).exp()).collect();
                    let forward = row_unit * (d + n + 16) as f64 * (1.0 + largest);
                    r.lse.add([b, h, i], lse, forward + row_unit * lse.abs());
                    // delta is made from the rounded out, so the bound of out goes into that of delta
                    let (mut delta, mut delta_size) = (-dlse[[b, h, i]], dlse[[b, h, i]].abs());
                    let mut delta_bound = 0.0;
                    for x in 0..e {
                        let terms = || (0..n).map(|j| p[j] * self.v[[b, j, g, x]]);
                        let (value, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                        r.out.add([b, i, h, x], value, (forward + 2.0 * unit) * size);
                        delta += dout[[b, i, h, x]] * value;
                        delta_size += (dout[[b, i, h, x]] * value).abs();
                        delta_bound += dout[[b, i, h, x]].abs() * (forward + 4.0 * unit) * size;
                    }
                    let backward = row_unit * (2 * d + 2 * e + n + 16) as f64 * (1.0 + largest + lse.abs())
                        + 4.0 * unit
                        + row_unit * (n + m * heads * batch) as f64;
                    let weight = (sink - lse).exp();
                    r.dsinks.add(h, -weight * delta, weight * (delta_size * backward + delta_bound));
                    for (j, &p) in p.iter().enumerate() {
                        let terms = || (0..e).map(|x| dout[[b, i, h, x]] * self.v[[b, j, g, x]]);
                        let dp_size = terms().map(f64::abs).sum::<f64>();
                        let ds = p * (terms().sum::<f64>() - delta);
                        let ds_bound = p * ((dp_size + delta_size) * backward + delta_bound);
                        r.dbias.add(clip([b, h, i, j], bias_shape), ds, ds_bound);
                        for x in 0..d {
                            let (q, k) = (scale * self.q[[b, i, h, x]], scale * self.k[[b, j, g, x]]);
                            r.dq.add([b, i, h, x], ds * k, ds_bound * k.abs());
                            r.dk.add([b, j, g, x], ds * q, ds_bound * q.abs());
                        }
                        for x in 0..e {
                            let dout = dout[[b, i, h, x]];
                            r.dv.add([b, j, g, x], p * dout, p * backward * dout.abs());
                        }
                    }
                }
            }
        }
        r
    }
}

fn four(array: &Array4<f64>) -> [usize; 4] {
    let shape = array.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

/// An index into a tensor whose extents of 1 broadcast.
fn clip(at: [usize; 4], shape: [usize; 4]) -> [usize; 4] {
    [0, 1, 2, 3].map(|axis| at[axis].min(shape[axis] - 1))
}
