//! Hidden states are written row by row and read back.

use pipe_stages::{
    data::{Hidden, HiddenFormat, HiddenType, HiddenWriter, Rows, States},
    gpt2::Activation,
};

fn rows() -> Rows {
    Rows {
        ids: vec!["a".into(), "bcd".into(), "é".into()],
        lengths: vec![3, 900, 0],
        labels: vec![1, 0, 1],
        offsets: vec![0, 3, 4, 4],
    }
}

fn format(dtype: HiddenType) -> HiddenFormat {
    HiddenFormat { blocks: 10, n_embd: 2, activation: Activation::Gelu, dtype }
}

#[test]
fn rows_written_in_any_order_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in [HiddenType::F32, HiddenType::F16] {
        let path = folder.path().join(dtype.to_string());
        let writer = HiddenWriter::create(&path, &rows(), format(dtype)).unwrap();
        writer.write_row(2, &[]).unwrap();
        writer.write_row(1, &[0.5, 65504.0]).unwrap();
        writer.write_row(0, &[1.0, -2.0, 3.0, -4.0, 5.0, -6.0]).unwrap();
        drop(writer);

        let hidden = Hidden::open(&path).unwrap();
        assert_eq!(hidden.rows(), &rows());
        assert_eq!(hidden.format(), format(dtype));
        let states = hidden.states(&[1, 2, 0]).unwrap();
        assert_eq!((states.len(), matches!(states, States::F16(_))), (8, dtype == HiddenType::F16));
        assert_eq!(states.into_f32(), [0.5, 65504.0, 1.0, -2.0, 3.0, -4.0, 5.0, -6.0]);
        assert!(hidden.states(&[2]).unwrap().is_empty());
    }
}

#[test]
fn a_file_cut_short_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hidden");
    HiddenWriter::create(&path, &rows(), format(HiddenType::F16)).unwrap();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let error = Hidden::open(&path).unwrap_err();
    assert!(error.to_string().contains("is no safetensors file"), "{error}");
}
