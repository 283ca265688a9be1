//! The cache tests of ForgeLLM's KVCache, and what else a cache promises.

use kvlane::{sys, Cache, Elements, Format, Layer, Rows, Strides};

mod common;
use common::random;

fn f32_layer(n_kv_heads: u32, head_dim: u32) -> Layer {
    Layer { k_format: Format::F32, v_format: Format::F32, ..Layer::new(n_kv_heads, head_dim) }
}

#[test]
fn one_token_of_two_layers() {
    let mut cache = Cache::new(2, &f32_layer(4, 16), 0).unwrap();
    let (k, v) = (vec![1.0; 64], vec![2.0; 64]);
    for layer in 0..2 {
        cache.append(layer, &k, &v).unwrap();
    }
    cache.advance(1).unwrap();
    assert_eq!(cache.len(), 1);
    assert_eq!(cache.n_layers(), 2);
    for layer in 0..2 {
        let info = cache.info(layer).unwrap();
        assert_eq!((info.k_entry_size, info.v_entry_size), (64, 64));
        assert_eq!(cache.read_k(layer).unwrap(), k);
        assert_eq!(cache.read_v(layer).unwrap(), v);
    }
}

#[test]
fn tokens_are_read_back_in_place() {
    let mut cache = Cache::new(1, &f32_layer(2, 8), 0).unwrap();
    for token in 0..5 {
        cache.append(0, &[token as f32; 16], &[token as f32 * 10.0; 16]).unwrap();
        cache.advance(1).unwrap();
    }
    assert_eq!(cache.len(), 5);
    let (k, v) = (cache.read_k(0).unwrap(), cache.read_v(0).unwrap());
    assert_eq!((k.len(), v.len()), (5 * 16, 5 * 16));
    for token in 0..5 {
        assert_eq!(k[token * 16..][..16], [token as f32; 16]);
        assert_eq!(v[token * 16..][..16], [token as f32 * 10.0; 16]);
    }
}

#[test]
fn clear_empties() {
    let mut cache = Cache::new(2, &f32_layer(4, 16), 0).unwrap();
    for layer in 0..2 {
        cache.append(layer, &[1.0; 64], &[1.0; 64]).unwrap();
    }
    cache.advance(1).unwrap();
    assert!(!cache.is_empty());
    cache.clear();
    assert!(cache.is_empty());
    assert_eq!(cache.len(), 0);
    assert!(cache.read_k(0).unwrap().is_empty());
}

#[test]
fn a_cache_with_a_capacity_starts_empty() {
    let cache = Cache::new(16, &f32_layer(8, 64), 2048).unwrap();
    assert!(cache.is_empty());
    assert_eq!((cache.len(), cache.n_layers(), cache.max_tokens()), (0, 16, 2048));
    assert_eq!(cache.info(15).unwrap().k_entry_size, 8 * 64);
}

#[test]
fn pending_tokens_are_in_views_and_not_in_len() {
    let mut cache = Cache::new(1, &f32_layer(1, 4), 0).unwrap();
    cache.append(0, &random(8, 1), &random(8, 2)).unwrap();
    assert_eq!((cache.len(), cache.view(0).unwrap().len()), (0, 2));
    cache.advance(2).unwrap();
    assert_eq!((cache.len(), cache.view(0).unwrap().len()), (2, 2));
    cache.truncate(1).unwrap();
    assert_eq!((cache.len(), cache.view(0).unwrap().len()), (1, 1));
}

#[test]
fn layers_differ_and_copies_are_independent() {
    let layers = [f32_layer(1, 4), Layer { v_head_dim: 3, ..f32_layer(2, 5) }];
    let mut cache = Cache::with_layers(&layers, 64).unwrap();
    cache.append(0, &random(4, 1), &random(4, 2)).unwrap();
    cache.append(1, &random(10, 3), &random(6, 4)).unwrap();
    cache.advance(1).unwrap();
    let copy = cache.copy().unwrap();
    cache.clear();
    assert_eq!((cache.len(), copy.len()), (0, 1));
    assert_eq!(copy.read_v(1).unwrap(), random(6, 4));
    let mut one = [0.0; 10];
    copy.read_k_into(1, 0, 1, &mut one).unwrap();
    assert_eq!(one[..], random(10, 3));
}

#[test]
fn rows_of_any_layout_and_format() {
    // Two tokens of two heads: k in f16 with a gap between heads, v in bf16, heads before tokens.
    let mut cache = Cache::new(1, &f32_layer(2, 2), 0).unwrap();
    let f16 = |n: u16| 0x3c00 + n; // 1 + n / 1024
    let k = [f16(0), f16(1), 0, f16(2), f16(3), 0, f16(4), f16(5), 0, f16(6), f16(7)];
    let v = [0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0x4100]; // 1, 2, ..., 8
    let rows = Rows {
        n_tokens: 2,
        k: Elements::F16(&k),
        v: Elements::Bf16(&v),
        k_strides: Strides { token: 6, head: 3 },
        v_strides: Strides { token: 2, head: 4 },
    };
    cache.append_rows(0, &rows).unwrap();
    let expected: Vec<_> = (0..8).map(|n| 1.0 + n as f32 / 1024.0).collect();
    assert_eq!(cache.read_k(0).unwrap(), expected);
    assert_eq!(cache.read_v(0).unwrap(), [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);

    let too_short = Rows { k: Elements::F16(&k[..10]), ..rows };
    let error = cache.append_rows(0, &too_short).unwrap_err();
    assert_eq!(error.status(), sys::KVL_ERROR_LENGTH);
    assert!(error.to_string().contains("k has 10 elements; it must have at least 11"), "{error}");
}

#[test]
fn a_key_offset_is_added_back() {
    let layer = Layer { k_format: Format::Q8, k_offset: vec![100.0; 8], ..f32_layer(2, 4) };
    let mut cache = Cache::new(1, &layer, 0).unwrap();
    drop(layer); // the cache has a copy of the offset
    cache.append(0, &[100.5; 8], &[0.0; 8]).unwrap();
    assert!(cache.read_k(0).unwrap().iter().all(|k| (k - 100.5).abs() < 0.01));
}

#[test]
fn errors_name_the_argument() {
    let mut cache = Cache::new(2, &f32_layer(4, 16), 3).unwrap();
    let rows = |n| vec![1.0; n];
    let check = |result: kvlane::Result<()>, status, text: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.status(), status, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    };
    check(cache.append(2, &rows(64), &rows(64)), sys::KVL_ERROR_LAYER, "layer is 2");
    check(cache.append(0, &rows(63), &rows(64)), sys::KVL_ERROR_LENGTH, "k_len is 63");
    check(cache.append(0, &rows(64), &rows(65)), sys::KVL_ERROR_LENGTH, "v_len is 65");
    check(cache.append(0, &[], &[]), sys::KVL_ERROR_RANGE, "n_tokens is 0");
    check(
        cache.append(0, &rows(4 * 64), &rows(4 * 64)),
        sys::KVL_ERROR_CAPACITY,
        "n_tokens is 4; the cache holds 0 of at most 3",
    );
    check(cache.advance(1), sys::KVL_ERROR_LAYER_MISSING, "layer");
    cache.append(0, &rows(64), &rows(64)).unwrap();
    check(cache.append(0, &rows(64), &rows(64)), sys::KVL_ERROR_APPEND_TWICE, "layer");
    check(cache.truncate(1), sys::KVL_ERROR_LENGTH, "len is 1");
    check(cache.read_k_into(0, 0, 1, &mut [0.0; 63]), sys::KVL_ERROR_LENGTH, "out_len is 63");
    check(
        cache.read_k_into(0, 1, 1, &mut [0.0; 64]),
        sys::KVL_ERROR_RANGE,
        "n_tokens is 1; it must be from 0 to 0",
    );
    check(cache.read_k_into(0, usize::MAX, 1, &mut [0.0; 64]), sys::KVL_ERROR_RANGE, "first");
    let wrong_offset = Layer { k_format: Format::Q8, k_offset: vec![0.0; 7], ..f32_layer(2, 4) };
    check(
        Cache::new(1, &wrong_offset, 0).map(drop),
        sys::KVL_ERROR_LENGTH,
        "k_offset has 7 elements; it must have 8",
    );
    check(Cache::new(0, &f32_layer(1, 1), 0).map(drop), sys::KVL_ERROR_RANGE, "n_layers is 0");
}

#[test]
fn formats_have_names() {
    for format in [Format::F32, Format::F16, Format::Bf16, Format::Q8, Format::Q4] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert_eq!(Format::Bf16.to_string(), "bf16");
    assert_eq!("f64".parse::<Format>().unwrap_err().status(), sys::KVL_ERROR_FORMAT);
    assert_eq!("f16\0".parse::<Format>().unwrap_err().status(), sys::KVL_ERROR_FORMAT);
}
