//! Values and gradients against the plain formula in `f64`, for every dtype and the options beside each other.
#![cfg(feature = "ndarray")]

mod common;

use common::{Number, Plain, Random};
use dlattn::half::{bf16, f16};
use dlattn::Attention;
use ndarray::{ArrayD, Axis, Dimension, Ix1, Ix3, Ix4};

fn wide<T: Number, D: Dimension>(array: &ArrayD<T>) -> ndarray::Array<f64, D> {
    array.mapv(Number::wide).into_dimensionality().unwrap()
}

/// One problem: its sizes (B, M, N, H, G, D, E) and options.
struct Case {
    sizes: [usize; 7],
    causal: bool,
    window: Option<(i64, i64)>,
    scale: Option<f64>,
    bias: Option<[usize; 4]>,
    sinks: bool,
}

const PLAIN: Case =
    Case { sizes: [2, 5, 7, 4, 2, 8, 6], causal: false, window: None, scale: None, bias: None, sinks: false };

fn check<T: Number>(case: &Case)
where
    T::Wide: Number,
{
    let mut random = Random(0x9E37_79B9 + case.sizes.iter().sum::<usize>() as u64);
    let [batch, m, n, heads, groups, d, e] = case.sizes;
    let q: ArrayD<T> = random.array(&[batch, m, heads, d]);
    let k: ArrayD<T> = random.array(&[batch, n, groups, d]);
    let v: ArrayD<T> = random.array(&[batch, n, groups, e]);
    let dout: ArrayD<T> = random.array(&[batch, m, heads, e]);
    let dlse: ArrayD<T::Wide> = random.array(&[batch, heads, m]);
    let bias: Option<ArrayD<T>> = case.bias.map(|shape| random.array(&shape));
    let sinks: Option<ArrayD<T>> = if case.sinks { Some(random.array(&[heads])) } else { None };

    let mut attention = Attention::new(&q, &k, &v);
    if case.causal {
        attention = attention.causal();
    }
    if let Some((left, right)) = case.window {
        attention = attention.window(left, right);
    }
    if let Some(scale) = case.scale {
        attention = attention.scale(scale);
    }
    if let Some(bias) = &bias {
        attention = attention.bias(bias);
    }
    if let Some(sinks) = &sinks {
        attention = attention.sinks(sinks);
    }
    let forward = attention.forward().unwrap();
    let found = attention.backward_with_dlse(&forward, &dout, &dlse).unwrap();

    let plain = Plain {
        q: wide(&q),
        k: wide(&k),
        v: wide(&v),
        scale: case.scale,
        causal: case.causal,
        window: case.window,
        bias: bias.as_ref().map(wide::<T, Ix4>),
        sinks: sinks.as_ref().map(wide::<T, Ix1>),
    };
    let expected = plain.results(&wide::<T, Ix4>(&dout), &wide::<T::Wide, Ix3>(&dlse), T::UNIT, T::ROW_UNIT);
    expected.out.check(&forward.out, T::UNIT, "out");
    expected.lse.check(&forward.lse, T::ROW_UNIT, "lse");
    expected.dq.check(&found.dq, T::UNIT, "dq");
    expected.dk.check(&found.dk, T::UNIT, "dk");
    expected.dv.check(&found.dv, T::UNIT, "dv");
    assert_eq!((found.dbias.is_some(), found.dsinks.is_some()), (case.bias.is_some(), case.sinks));
    if let Some(dbias) = &found.dbias {
        expected.dbias.check(dbias, T::UNIT, "dbias");
    }
    if let Some(dsinks) = &found.dsinks {
        expected.dsinks.check(dsinks, T::UNIT, "dsinks");
    }
}

fn check_all<T: Number>()
where
    T::Wide: Number,
{
    check::<T>(&PLAIN);
    check::<T>(&Case { causal: true, ..PLAIN });
    check::<T>(&Case { causal: true, sizes: [1, 9, 4, 2, 1, 16, 16], ..PLAIN }); // rows that see no key
    check::<T>(&Case { window: Some((2, 1)), sizes: [1, 17, 33, 3, 3, 5, 3], ..PLAIN });
    check::<T>(&Case { causal: true, window: Some((3, -1)), sinks: true, ..PLAIN });
    check::<T>(&Case { bias: Some([2, 4, 5, 7]), scale: Some(-0.25), ..PLAIN });
    check::<T>(&Case { bias: Some([1, 4, 1, 7]), causal: true, sinks: true, ..PLAIN }); // dbias sums over B and M
    check::<T>(&Case { sizes: [1, 40, 70, 2, 1, 40, 24], causal: true, ..PLAIN });
}

#[test]
fn float64_matches_the_formula() {
    check_all::<f64>();
}

#[test]
fn float32_matches_the_formula() {
    check_all::<f32>();
}

#[test]
fn float16_matches_the_formula() {
    check_all::<f16>();
}

#[test]
fn bfloat16_matches_the_formula() {
    check_all::<bf16>();
}

/// With q = 0 the lse of a row is the logarithm of how many keys it sees, and one-hot values tell which.
#[test]
fn masks_show_exactly_the_keys_they_should() {
    let n = 9;
    let q = ArrayD::<f32>::zeros(vec![1, 5, 1, 4]);
    let k = ArrayD::<f32>::zeros(vec![1, n, 1, 4]);
    let v = ArrayD::from_shape_fn(vec![1, n, 1, n], |at| if at[1] == at[3] { 1f32 } else { 0.0 });
    let mask = ArrayD::from_shape_fn(vec![5, n], |at| (at[0] + at[1]) % 3 != 0);
    type Keep = fn(i64, i64) -> bool;
    let sees: [(Attention<'_, f32>, Keep); 5] = [
        (Attention::new(&q, &k, &v).causal(), |i, j| j <= i + 4),
        (Attention::new(&q, &k, &v).causal().top_left(), |i, j| j <= i),
        (Attention::new(&q, &k, &v).window(2, None), |i, j| j >= i + 4 - 2),
        (Attention::new(&q, &k, &v).block_window(2, 2), |i, j| (i + 4) / 2 - 2 < j / 2 && j / 2 <= (i + 4) / 2),
        (Attention::new(&q, &k, &v).mask(&mask).positions(3, 0).causal(), |i, j| j <= i + 3 && (i + j) % 3 != 0),
    ];
    for (number, (attention, keep)) in sees.iter().enumerate() {
        let found = attention.forward().unwrap();
        for i in 0..5 {
            let count = (0..n as i64).filter(|&j| keep(i, j)).count() as f32;
            let row = found.out.index_axis(Axis(0), 0);
            assert!((found.lse[[0, 0, i as usize]] - count.ln()).abs() <= 2.0 * f32::EPSILON * count.ln().max(1.0));
            for j in 0..n {
                let weight = row[[i as usize, 0, j]];
                assert_eq!(weight > 0.0, keep(i, j as i64), "problem {}, row {}, key {}", number, i, j);
            }
        }
    }
}

#[test]
fn dropout_keeps_what_its_mask_says() {
    let q = ArrayD::<f32>::zeros(vec![1, 6, 2, 4]);
    let v = ArrayD::from_shape_fn(vec![1, 6, 2, 6], |at| if at[1] == at[3] { 1f32 } else { 0.0 });
    let attention = Attention::new(&q, &q, &v).dropout(0.5, 7, 1);
    let mut keep = ArrayD::from_elem(vec![1, 2, 6, 6], false);
    attention.dropout_mask_into(&mut keep).unwrap();
    let out = attention.forward().unwrap().out;
    assert!(keep.iter().any(|&k| k) && keep.iter().any(|&k| !k));
    for (at, &weight) in out.indexed_iter() {
        assert_eq!(weight > 0.0, keep[[0, at[2], at[1], at[3]]]);
    }
}

#[test]
fn parts_merge_into_the_whole() {
    let mut random = Random(11);
    let q: ArrayD<f64> = random.array(&[1, 3, 2, 8]);
    let k: ArrayD<f64> = random.array(&[1, 10, 2, 8]);
    let whole = Attention::new(&q, &k, &k).forward().unwrap();
    let (left, right) = k.view().split_at(Axis(1), 4);
    let parts = [left, right].map(|part| Attention::new(&q, part.clone(), part).forward().unwrap());
    let merged = dlattn::merge(&parts, dlattn::Layout::Bshd).unwrap();
    let off = (&merged.out - &whole.out)
        .iter()
        .chain((&merged.lse - &whole.lse).iter())
        .fold(0.0, |m: f64, x| m.max(x.abs()));
    assert!(off <= 64.0 * f64::EPSILON, "{}", off); // 10 keys of values below 2: a few roundings of the sums
}

#[test]
fn packed_sequences_are_separate_problems() {
    let mut random = Random(12);
    let tokens: ArrayD<f32> = random.array(&[7, 2, 8]);
    let cu = ndarray::arr1(&[0i32, 3, 7]);
    let attention = Attention::new(&tokens, &tokens, &tokens).cu_seqlens_q(&cu).cu_seqlens_k(&cu).max_seqlens(4, 4);
    let packed = attention.forward().unwrap();
    for (from, to) in [(0, 3), (3, 7)] {
        let one = tokens.slice_axis(Axis(0), ndarray::Slice::from(from..to)).insert_axis(Axis(0));
        let alone = Attention::new(one.clone(), one.clone(), one).forward().unwrap();
        for i in from..to {
            let (i, at) = (i as usize, (i - from) as usize);
            assert_eq!(packed.out.index_axis(Axis(0), i), alone.out.index_axis(Axis(0), 0).index_axis(Axis(0), at));
            assert_eq!(packed.lse[[1, i]], alone.lse[[0, 1, at]]);
        }
    }
}
