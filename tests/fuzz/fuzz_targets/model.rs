#![no_main]
use libfuzzer_sys::fuzz_target;
use voxgrain::engine::{Model, Pool, Session};

// The graph is the input; the data file is 64 KiB of zeros.
fuzz_target!(|data: &[u8]| {
    let dir = std::env::temp_dir().join(format!("voxgrain-fuzz-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&dir);
    let path = dir.join("m.onnx");
    if std::fs::write(&path, data).is_err()
        || std::fs::write(dir.join("m.onnx.data"), vec![0; 1 << 16]).is_err()
    {
        return;
    }
    if let Ok(model) = Model::load(&path, 16) {
        let pool = Pool::new(voxgrain::kernel::best(), 1);
        if let Ok(mut session) = Session::new(&model, &pool) {
            let _ = session.step(&[1, 2, 3], 1);
        }
    }
});
