use voxgrain::convert::pack;
use voxgrain::engine::Model;

// The graph is the input; the data file is 64 KiB of zeros. What is written must be damaged
// nowhere that the input was not.
pub fn run(data: &[u8]) {
    let dir = std::env::temp_dir().join(format!("voxgrain-fuzz-pack-{}", std::process::id()));
    let _ = std::fs::create_dir_all(&dir);
    let (path, out) = (dir.join("m.onnx"), dir.join("o.onnx"));
    if std::fs::write(&path, data).is_err()
        || std::fs::write(dir.join("m.onnx.data"), vec![0; 1 << 16]).is_err()
    {
        return;
    }
    let sound = Model::load(&path, 16).is_ok();
    if pack(&path, &out, true, |_, _| ()).is_ok() && sound {
        assert!(Model::load(&out, 16).is_ok());
    }
}
