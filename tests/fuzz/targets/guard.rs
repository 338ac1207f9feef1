use prost::Message;
use std::sync::LazyLock;
use tract_onnx::pb;

static SOUND: LazyLock<pb::ModelProto> = LazyLock::new(|| {
    let path = super::root().join("models/tiny/target.onnx");
    pb::ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap()
});

const STANDARD: [&str; 16] = [
    "Add", "Exp", "MatMul", "Concat", "Clip", "Constant", "Slice", "Expand", "Mul", "Max", "Pow",
    "Identity", "Sigmoid", "Reshape", "Sum", "Tile",
];

/// The tiny target's graph, edited as whole nodes: four bytes an edit. Such graphs parse, so that
/// most of them reach the checks and many get through to tract.
pub fn run(data: &[u8]) {
    let mut proto = SOUND.clone();
    let graph = proto.graph.as_mut().unwrap();
    for (at, e) in data.chunks_exact(4).take(24).enumerate() {
        let n = graph.node.len();
        let (i, j) = (usize::from(e[1]) % n, usize::from(e[2]) % n);
        let value = graph.node[j].output.first().cloned().unwrap_or_default();
        match e[0] % 10 {
            0 => graph.node.swap(i, j),
            1 => {
                let k = usize::from(e[3]);
                let inputs = &mut graph.node[i].input;
                if !inputs.is_empty() {
                    let k = k % inputs.len();
                    inputs[k] = value;
                }
            }
            2 => graph.node[i].output = vec![value],
            3 => drop(graph.node.remove(i)),
            4 => {
                let k = usize::from(e[3]);
                let attributes = &mut graph.node[i].attribute;
                if !attributes.is_empty() {
                    let k = k % attributes.len();
                    attributes[k].i =
                        [0, -1, 1, 31, 64, 1 << 20, i64::MAX, i64::MIN][usize::from(e[2]) % 8];
                }
            }
            5 | 6 => {
                let other = graph.node[i].output.first().cloned().unwrap_or_default();
                let one = format!("edit {at}");
                graph.node.push(pb::NodeProto {
                    name: one.clone(),
                    op_type: STANDARD[usize::from(e[3]) % 16].into(),
                    input: if e[3] & 16 == 0 { vec![value] } else { vec![value, other] },
                    output: vec![one],
                    ..Default::default()
                });
            }
            7 => {
                let shape = [1, 64, 65_537, 4096, -1, 0, 1 << 40, 3];
                let dims = vec![shape[usize::from(e[1]) % 8], shape[usize::from(e[2]) % 8]];
                let bytes = dims.iter().product::<i64>().clamp(0, 300_000) as usize * 4;
                graph.initializer.push(pb::TensorProto {
                    name: format!("edit {at}"),
                    data_type: 1,
                    dims,
                    raw_data: vec![e[3]; bytes],
                    ..Default::default()
                });
            }
            8 => {
                let outputs = graph.output.len();
                graph.output[usize::from(e[3]) % outputs].name = value;
            }
            _ => {
                // Between a value and its readers.
                let new = format!("edit {at}");
                for node in &mut graph.node {
                    node.input.iter_mut().filter(|v| **v == value).for_each(|v| v.clone_from(&new));
                }
                graph.node.push(pb::NodeProto {
                    name: new.clone(),
                    op_type: STANDARD[usize::from(e[3]) % 16].into(),
                    input: vec![value],
                    output: vec![new],
                    ..Default::default()
                });
            }
        }
        if graph.node.is_empty() {
            break;
        }
    }
    super::model::run(&proto.encode_to_vec());
}
