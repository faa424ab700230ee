//! Tensors without copies, errors, workspace, explain, options: everything about a call but its values.

use dlattn::half::f16;
use dlattn::{Attention, Backward, Device, ErrorKind, Exec, KvAppend, Rotary, Tensor, TensorMut};

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
}

#[test]
fn slices_with_strides_are_the_same_tensor() {
    let (q, k) = (numbers(2 * 4 * 2 * 8), numbers(2 * 4 * 2 * 8));
    let compact = |data| Tensor::new(data, &[2, 4, 2, 8]).unwrap();
    let mut expected = vec![0f32; q.len()];
    Attention::new(compact(&q), compact(&k), compact(&k))
        .forward_into(TensorMut::new(&mut expected, &[2, 4, 2, 8]).unwrap(), None)
        .unwrap();

    // The same rows backwards in memory, with a gap between the tokens, and the output on every second element.
    let reversed: Vec<f32> = k.chunks(8).rev().flat_map(|row| row.iter().copied().chain([9.0])).collect();
    let offset = reversed.len() - 9;
    let k = || Tensor::strided(&reversed, offset, &[2, 4, 2, 8], &[-72, -18, -9, 1]).unwrap();
    let mut spread = vec![7f32; 2 * q.len()];
    Attention::new(compact(&q), k(), k())
        .forward_into(TensorMut::strided(&mut spread, 0, &[2, 4, 2, 8], &[128, 32, 16, 2]).unwrap(), None)
        .unwrap();
    assert!(spread.iter().step_by(2).zip(&expected).all(|(x, y)| x == y));
    assert!(spread.iter().skip(1).step_by(2).all(|&x| x == 7.0), "gaps are left alone");
}

#[test]
fn tensors_point_into_what_they_borrow() {
    let mut data = numbers(24);
    let start = data.as_ptr();
    let tensor = Tensor::strided(&data, 5, &[2, 3], &[4, -2]).unwrap();
    tensor.with_dlpack(|dlpack| {
        assert_eq!(dlpack.data as *const f32, start.wrapping_add(5));
        assert_eq!((dlpack.ndim, dlpack.byte_offset, dlpack.device.device_type), (2, 0, dlattn::sys::kDLCPU));
        let extents = |pointer| unsafe { std::slice::from_raw_parts(pointer, 2) };
        assert_eq!((extents(dlpack.shape), extents(dlpack.strides)), (&[2i64, 3][..], &[4i64, -2][..]));
        let again = unsafe { Tensor::<f32>::from_dlpack(dlpack) }.unwrap();
        again.with_dlpack(|copy| assert_eq!((copy.data, copy.ndim), (dlpack.data, 2)));
        let error = unsafe { Tensor::<f64>::from_dlpack(dlpack) }.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Dtype);
    });
    TensorMut::new(&mut data, &[24]).unwrap().with_dlpack(|dlpack| assert_eq!(dlpack.data as *const f32, start));
}

#[test]
fn a_slice_must_hold_what_its_tensor_reaches() {
    let data = [0f32; 12];
    for (offset, shape, strides) in [
        (0, [4, 4], [4, 1]),
        (0, [2, 2], [-1, 1]),
        (12, [1, 1], [0, 0]),
        (0, [2, 13], [0, 1]),
        (3, [2, 2], [isize::MAX, 1]),
    ] {
        let error = Tensor::strided(&data, offset, &shape, &strides).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Shape);
        assert!(error.to_string().ends_with("of a slice of 12"), "{}", error);
    }
    assert!(Tensor::strided(&data, 400, &[0, 4], &[4, 1]).is_ok(), "without elements nothing is reached");
    assert_eq!(Tensor::new(&data, &[3, 3]).unwrap_err().to_string(), "shape [3, 3] has 9 elements, the slice 12");
    assert!(Tensor::strided(&data, 0, &[3], &[1, 1]).is_err());
}

#[cfg(feature = "ndarray")]
#[test]
fn views_and_permuted_arrays_are_not_copied() {
    use dlattn::Layout;
    use ndarray::{s, Array4};
    let mut out = Array4::<f32>::zeros((2, 3, 4, 8));
    let q = Array4::from_shape_vec((2, 4, 6, 8), numbers(2 * 4 * 6 * 8)).unwrap(); // [B,H,M,D]
    let permuted = q.view().permuted_axes([0, 2, 1, 3]);
    let view = permuted.slice(s![.., ..;-2, .., ..]);
    Tensor::from(&view).with_dlpack(|dlpack| {
        assert_eq!(dlpack.data as *const f32, view.as_ptr());
        let strides = unsafe { std::slice::from_raw_parts(dlpack.strides, 4) };
        assert_eq!(strides, [192, -16, 48, 1]);
    });
    let copy = view.to_owned();
    Attention::new(view, view, view).forward_into(&mut out, None).unwrap();
    assert_eq!(out, Attention::new(&copy, &copy, &copy).forward().unwrap().out.into_dimensionality().unwrap());

    let head_first = q.slice(s![.., .., ..;-2, ..]);
    let other = Attention::new(head_first, head_first, head_first).layout(Layout::Bhsd).forward().unwrap();
    assert_eq!(other.out.permuted_axes(vec![0, 2, 1, 3]), out.into_dyn());
    assert_eq!(other.lse.shape(), [2, 4, 3]);
}

#[test]
fn errors_carry_the_sentence_and_nothing_is_written() {
    let (q, k) = (numbers(16), numbers(12));
    let q = || Tensor::new(&q, &[1, 1, 8, 2]).unwrap();
    let k = || Tensor::new(&k, &[1, 2, 3, 2]).unwrap();
    let mut out = [5f32; 16];
    let error =
        Attention::new(q(), k(), k()).forward_into(TensorMut::new(&mut out, &[1, 1, 8, 2]).unwrap(), None).unwrap_err();
    assert_eq!(error.to_string(), "k has 3 heads, which does not divide q's 8");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Shape, dlattn::sys::DLATTN_ERR_SHAPE));
    assert_eq!(out, [5.0; 16]);

    let mut half = [f16::from_f32(5.0); 16];
    let into = TensorMut::new(&mut half, &[1, 1, 8, 2]).unwrap();
    assert_eq!(Attention::new(q(), q(), q()).forward_into(into, None).unwrap_err().kind(), ErrorKind::Dtype);
    let error = Attention::new(q(), q(), q()).softcap(-1.0).explain();
    assert!(error.contains("softcap"), "{}", error);
    assert_eq!(dlattn::set_option("nonsense", None).unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(dlattn::set_option("a\0b", None).unwrap_err().kind(), ErrorKind::Argument);

    let elsewhere = numbers(16); // never read: the call is refused
    let device = unsafe { Tensor::from_raw_parts(elsewhere.as_ptr(), Device::cuda(0), &[1, 1, 8, 2], &[16, 16, 2, 1]) };
    let into = TensorMut::new(&mut out, &[1, 1, 8, 2]).unwrap();
    assert_eq!(Attention::new(q(), q(), device).forward_into(into, None).unwrap_err().kind(), ErrorKind::Device);
}

#[test]
fn the_backward_computes_what_it_has_tensors_for() {
    let (q, shape) = (numbers(2 * 3 * 8), [1, 3, 2, 8]);
    let q = || Tensor::new(&q, &shape).unwrap();
    let attention = Attention::new(q(), q(), q()).causal().exec(Exec::new().num_threads(2));
    let (mut out, mut lse) = ([0f32; 48], [0f32; 6]);
    let rows = TensorMut::new(&mut lse, &[1, 2, 3]).unwrap();
    attention.forward_into(TensorMut::new(&mut out, &shape).unwrap(), Some(rows)).unwrap();
    let saved = || {
        let (out, lse) = (Tensor::new(&out, &shape).unwrap(), Tensor::new(&lse, &[1, 2, 3]).unwrap());
        Backward::new(out, lse, q())
    };
    let (mut all, mut one) = ([[f32::NAN; 48]; 3], [f32::NAN; 48]);
    let [dq, dk, dv] = &mut all;
    fn into(gradient: &mut [f32]) -> TensorMut<'_, f32> {
        TensorMut::new(gradient, &[1, 3, 2, 8]).unwrap()
    }
    attention.backward_into(saved().dq(into(dq)).dk(into(dk)).dv(into(dv))).unwrap();
    attention.backward_into(saved().dk(into(&mut one))).unwrap();
    assert_eq!(all[1], one);
    assert!(all.iter().flatten().all(|x| x.is_finite()));
    let error = attention.backward_into(saved().dbias(into(&mut one))).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("bias")), (ErrorKind::Argument, true));
}

#[test]
fn queries_need_no_data() {
    let blank =
        |shape| unsafe { Tensor::from_raw_parts(std::ptr::null::<f32>(), Device::CPU, shape, &[8192, 128, 64, 1]) };
    let (q, k) = (blank(&[2, 64, 2, 64]), blank(&[2, 64, 2, 64]));
    let v = blank(&[2, 64, 2, 64]);
    let attention = Attention::new(q, k, v).causal();
    let (forward, backward) = (attention.forward_workspace().unwrap(), attention.backward_workspace().unwrap());
    assert!(forward.minimum_bytes <= forward.bytes && backward.minimum_bytes <= backward.bytes && backward.bytes > 0);
    attention.prepare_forward().unwrap();
    attention.prepare_backward().unwrap();
    assert!(attention.explain().contains("backend"), "{}", attention.explain());
    assert!(attention.explain_backward().contains("backend"), "{}", attention.explain_backward());
    assert!(dlattn::explain().contains("cpu"));
    use dlattn::sys::{DLATTN_VERSION_MAJOR as MAJOR, DLATTN_VERSION_MINOR as MINOR, DLATTN_VERSION_PATCH as PATCH};
    assert_eq!(dlattn::version(), 10000 * MAJOR + 100 * MINOR + PATCH);
    assert_eq!(env!("CARGO_PKG_VERSION"), format!("{}.{}.{}", MAJOR, MINOR, PATCH), "Cargo.toml and dlattn.h");
}

#[test]
fn problems_and_errors_travel_between_threads() {
    let data = numbers(48);
    let q = || Tensor::new(&data, &[1, 3, 2, 8]).unwrap();
    let attention = Attention::new(q(), q(), q());
    let run = || {
        let mut out = vec![0f32; 48];
        attention.forward_into(TensorMut::new(&mut out, &[1, 3, 2, 8])?, None)?;
        Ok::<_, dlattn::Error>(out)
    };
    let outs: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect()
    });
    assert!(outs.iter().all(|out| out == &outs[0]));
}

#[test]
fn a_cache_takes_new_tokens_where_they_belong() {
    let (k, v, used) = (numbers(2 * 3 * 4), numbers(2 * 3 * 2), [1i64, 4]);
    let (mut keys, mut values) = (vec![0f32; 3 * 8 * 4], vec![0f32; 3 * 8 * 2]);
    let rows = [2i32, 0];
    let append = KvAppend::new(
        Tensor::new(&k, &[2, 3, 1, 4]).unwrap(),
        Tensor::new(&v, &[2, 3, 1, 2]).unwrap(),
        Tensor::new(&used, &[2]).unwrap(),
    );
    let mut to = |append: &KvAppend<'_, f32>| {
        let keys = TensorMut::new(&mut keys, &[3, 8, 1, 4]).unwrap();
        append.append_to(keys, TensorMut::new(&mut values, &[3, 8, 1, 2]).unwrap())
    };
    assert_eq!(to(&append).unwrap_err().kind(), ErrorKind::Shape, "two sequences, three rows");
    to(&append.batch_index(Tensor::new(&rows, &[2]).unwrap())).unwrap();
    for (sequence, row) in rows.iter().enumerate() {
        for token in 0..8 {
            let from = token as i64 - used[sequence];
            let at = 4 * (8 * *row as usize + token);
            let expected =
                if (0..3).contains(&from) { &k[4 * (3 * sequence + from as usize)..][..4] } else { &[0.0; 4] };
            assert_eq!(&keys[at..at + 4], expected);
        }
    }
    assert!(keys[32..64].iter().chain(&values[16..32]).all(|&x| x == 0.0), "row 1 is nobody's");
    assert_eq!(values[2 * (8 * 2 + 1)..][..6], v[..6]);
}

#[test]
fn rotary_turns_pairs_and_turns_them_back() {
    let (x, angles) = (numbers(2 * 3 * 6), numbers(8 * 2));
    let (cosines, sines): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let starts = [0i32, 5];
    let rotary = Rotary::new(Tensor::new(&cosines, &[8, 2]).unwrap(), Tensor::new(&sines, &[8, 2]).unwrap())
        .starts(Tensor::new(&starts, &[2]).unwrap());
    let shape = [2, 3, 1, 6];
    let mut out = vec![0f32; x.len()];
    rotary.rotate_into(Tensor::new(&x, &shape).unwrap(), TensorMut::new(&mut out, &shape).unwrap()).unwrap();
    for (row, (x, out)) in x.chunks(6).zip(out.chunks(6)).enumerate() {
        let position = starts[row / 3] as usize + row % 3;
        for r in 0..2 {
            let (c, s) = (cosines[2 * position + r], sines[2 * position + r]);
            // two products and a sum of numbers of at most 1
            assert!((out[r] - (x[r] * c - x[r + 2] * s)).abs() <= 4.0 * f32::EPSILON);
            assert!((out[r + 2] - (x[r] * s + x[r + 2] * c)).abs() <= 4.0 * f32::EPSILON);
        }
        assert_eq!(x[4..], out[4..]);
    }
    rotary.inverse().rotate(TensorMut::new(&mut out, &shape).unwrap()).unwrap();
    assert!(out.iter().zip(&x).all(|(out, x)| (out - x).abs() <= 8.0 * f32::EPSILON));
}
