//! Each format by files that its own library wrote: `tests/data/checkpoints/`.

use super::*;

fn npy_file(descr: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn numbers(leaf: &Leaf<'_>) -> Vec<f64> {
    let numbers = leaf.data.chunks_exact(leaf.kind.width());
    numbers.filter_map(|bytes| leaf.kind.number(bytes)).collect()
}

#[track_caller]
fn check(bytes: &[u8], expected: &[(&str, &[f64])]) {
    let leaves = read(bytes).unwrap();
    let found: Vec<(&str, Vec<f64>)> =
        leaves.iter().map(|leaf| (leaf.name.as_str(), numbers(leaf))).collect();
    let expected: Vec<(&str, Vec<f64>)> =
        expected.iter().map(|(name, values)| (*name, values.to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn numpy_arrays() {
    let data = [1.5f32.to_le_bytes(), (-2.0f32).to_le_bytes()].concat();
    check(&npy_file("<f4", &data), &[("", &[1.5, -2.0])]);
    let big = [1.5f32.to_be_bytes(), (-2.0f32).to_be_bytes()].concat();
    check(&npy_file(">f4", &big), &[("", &[1.5, -2.0])]);
    check(&npy_file("<f2", &[0x00, 0x3c, 0x01, 0x00]), &[("", &[1.0, 2f64.powi(-24)])]);
}

#[test]
fn a_compressed_npz() {
    let leaves = read(include_bytes!("../../../tests/data/checkpoints/packed.npz")).unwrap();
    let found: Vec<(&str, usize)> =
        leaves.iter().map(|leaf| (leaf.name.as_str(), numbers(leaf).len())).collect();
    assert_eq!(found, [("w", 50), ("big", 2)]);
    assert_eq!(numbers(&leaves[1]), [1.0, -2.0]);
}

/// What `torch.save` writes of a model, an optimizer with momentum, and more.
fn torch_names(bytes: &[u8]) {
    let leaves = read(bytes).unwrap();
    let of = |name: &str| {
        let leaf = leaves.iter().find(|leaf| leaf.name == name);
        numbers(leaf.unwrap_or_else(|| panic!("`{name}` is not among {leaves:#?}")))
    };
    assert_eq!(of("model.0.weight"), [0.5; 4]);
    assert_eq!(of("model.0.bias"), [1.5; 2]);
    assert_eq!(of("model.2.bias"), [3.5]);
    assert_eq!(of("optimizer.state.3.momentum_buffer"), [1.0]);
    assert_eq!(of("optimizer.param_groups.0.momentum"), [0.9]);
    assert_eq!(of("optimizer.param_groups.0.params"), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(of("view"), [2.0, 3.0]);
    assert_eq!(of("half"), [1.0, 2.0]);
    assert_eq!((of("n"), of("lr")), (vec![7.0], vec![0.1, 0.2]));
    let text = leaves.iter().find(|leaf| leaf.name == "config.out_dir").unwrap();
    assert_eq!((text.form, &*text.data), (Form::Text, &b"/tmp/a"[..]));
}

#[test]
fn tensors_have_the_names_of_the_state_dict() {
    torch_names(include_bytes!("../../../tests/data/checkpoints/torch.pt"));
}

#[test]
fn tensors_of_an_older_file_have_them_too() {
    torch_names(include_bytes!("../../../tests/data/checkpoints/torch_old.pt"));
}

#[test]
fn pickles_with_arrays() {
    let second = include_bytes!("../../../tests/data/checkpoints/numpy2.pkl");
    let (w, none): (&[f64], &[f64]) = (&[1.5, 2.5], &[]);
    check(second, &[("w", w), ("big", none), ("t.0", none), ("t.1", none), ("t.2", none)]);
    let fourth = read(include_bytes!("../../../tests/data/checkpoints/numpy.pkl")).unwrap();
    let names: Vec<&str> = fourth.iter().map(|leaf| leaf.name.as_str()).collect();
    assert_eq!(names, ["w", "rng.0", "rng.1", "rng.2", "n", "deep.k"]);
    assert_eq!(numbers(&fourth[2]).len(), 624);
    check(include_bytes!("../../../tests/data/checkpoints/numpy5.pkl"), &[("w", w)]);
}

#[test]
fn safetensors_files() {
    let header = br#"{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"s":{"dtype":"I64","shape":[],"data_offsets":[2,10]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let file = [&length[..], header, &[0x80, 0x3f], &7i64.to_le_bytes()].concat();
    check(&file, &[("w", &[1.0]), ("s", &[7.0])]);
}

#[test]
fn json_files() {
    check(
        br#"{"step": 3, "net": {"w": [[1, 2], [3]]}, "mixed": [1, "a"]}"#,
        &[("step", &[3.0]), ("net.w", &[1.0, 2.0, 3.0]), ("mixed[0]", &[1.0]), ("mixed[1]", &[])],
    );
}

#[test]
fn anything_else_is_no_known_format() {
    for bytes in [&b""[..], b"hello", b"{torn", b"\x93NUMPY", b"PK\x03\x04", &[255; 40]] {
        assert_eq!(read(bytes), None, "{bytes:?}");
    }
}

#[test]
fn what_would_be_compared_in_part_is_compared_as_bytes() {
    let nested = |depth: usize| {
        [&b"\x80\x02"[..], &vec![b']'; depth], &vec![b'a'; depth - 1], b"."].concat()
    };
    assert!(read(&nested(20)).is_some());
    assert_eq!(read(&nested(200)), None);
}

#[test]
fn a_torn_or_damaged_file_is_read_or_not_and_never_stops_us() {
    let whole: [&[u8]; 4] = [
        include_bytes!("../../../tests/data/checkpoints/torch.pt"),
        include_bytes!("../../../tests/data/checkpoints/torch_old.pt"),
        include_bytes!("../../../tests/data/checkpoints/packed.npz"),
        include_bytes!("../../../tests/data/checkpoints/numpy.pkl"),
    ];
    for file in whole {
        for at in 0..file.len() {
            let mut damaged = file.to_vec();
            damaged[at] ^= 0xff;
            read(&damaged);
            read(&file[..at]);
        }
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_too_strange(start in 0usize..6, bytes: Vec<u8>) {
        let starts: [&[u8]; 6] =
            [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{", b"\x80\x02", b"\x80\x02}q\0("];
        read(&[starts[start], &bytes].concat());
    }
}
