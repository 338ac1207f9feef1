use std::sync::LazyLock;
use voxgrain::engine::{CodecSession, Model, Pool, Session};
use voxgrain::map::Map;

/// What every graph finds beside it: the data of the tiny target, so that damaged ones get far.
static DATA: LazyLock<Map> =
    LazyLock::new(|| Map::open(super::root().join("models/tiny/target.onnx.data")).unwrap());

/// The graph is the input.
pub fn run(data: &[u8]) {
    let graph = Map::copy_of(data, "graph");
    let Ok(model) = Model::from_maps("target.onnx", &graph, DATA.clone(), 16) else { return };
    let pool = Pool::new(voxgrain::kernel::best(), 1);
    if let Ok(mut session) = Session::new(&model, &pool) {
        let features = vec![0.0; 3 * model.feature_width()];
        if session.step_with(&[1, 2, 3], &features, 1).is_ok() {
            assert_eq!(session.logits().len(), model.output_columns());
        }
    }
    if let Ok(mut codec) = CodecSession::new(&model, &pool) {
        if let Ok(rows) = codec.push(&[1, 2]) {
            assert_eq!(rows.len(), 2 * model.rows_per_token() * model.output_columns());
        }
    }
}
