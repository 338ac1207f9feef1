"""Packing, whole models against PyTorch, and the bundle's checksums."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file

from voxgrain_tools.export import bundle, export, onnx_read, quantize
from voxgrain_tools.export.export import Bits, Checkpoint
from voxgrain_tools.export.onnx_functions import DOMAIN
from voxgrain_tools.export.runtime import Codec, LanguageModel, Voice, istft
from voxgrain_tools.fixtures import golden, tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny.make(folder)
    return folder


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(16, 32), (1, 32), (481, 64), (642, 96)])
def test_packing_is_lossless(bits, shape):
    rng = np.random.default_rng(1)
    low, high = (-127, 128) if bits == 8 else (-8, 8)
    matrix = quantize.Quantised(
        rng.integers(low, high, shape).astype(np.int8),
        rng.uniform(0, 1, (shape[0], shape[1] // 32)).astype(np.float16),
        bits,
    )
    packed, scales = quantize.pack(matrix)
    assert packed.nbytes == -(-shape[0] // 16) * 16 * shape[1] * bits // 8
    back = quantize.unpack(packed, scales, shape[0], bits)
    assert (back.values == matrix.values).all() and (back.scales == matrix.scales).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_packed_elements_are_where_the_contract_says(bits):
    rng = np.random.default_rng(2)
    matrix = quantize.quantise(rng.standard_normal((37, 96)).astype(np.float32), bits)
    packed, scales = quantize.pack(matrix)
    for row, column in rng.integers(0, (37, 96), (200, 2)):
        n, r, b, inside = row // 16, row % 16, column // 32, column % 32
        if bits == 8:
            stored = int(packed[n, b, inside // 4, r, inside % 4]) - 128
        else:
            byte = int(packed[n, b, inside % 16 // 4, r, inside % 4])
            stored = (byte >> 4 if inside >= 16 else byte & 15) - 8
        assert stored == matrix.values[row, column]
        assert scales[n, b, r] == matrix.scales[row, b]
    # Missing rows are zero weights with scale zero.
    assert (scales[2, :, 5:] == 0).all()
    zero = 128 if bits == 8 else 8 * 17
    assert (packed[2, :, :, 5:] == zero).all()


def test_eight_bits_do_not_clip_and_round_to_the_nearest():
    rng = np.random.default_rng(3)
    for size in (1e-3, 1, 100):
        weight = (rng.standard_normal((64, 64)) * size).astype(np.float32)
        matrix = quantize.quantise(weight, 8)
        step = np.repeat(matrix.scales.astype(np.float32), 32, axis=1)
        assert (np.abs(matrix.dequantise() - weight) <= step * 0.501).all()


def test_four_bits_beat_the_plain_scale():
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((64, 256)).astype(np.float32)
    error = ((quantize.quantise(weight, 4).dequantise() - weight) ** 2).sum()
    blocks = weight.reshape(64, 8, 32)
    scale = np.abs(blocks).max(2, keepdims=True) / 7
    plain = ((np.rint(blocks / scale) * scale - blocks) ** 2).sum()
    assert error < 0.9 * plain


@pytest.mark.parametrize("bits", [8, 4])
def test_a_block_of_zeros_stays_zero(bits):
    matrix = quantize.quantise(np.zeros((3, 64), np.float32), bits)
    assert (matrix.dequantise() == 0).all()


def test_bits_of_one_matrix():
    bits = Bits.parse("4,down=8", head=8)
    assert [bits.of(n) for n in ("layers.0.down", "head", "layers.11.qkv")] == [8, 8, 4]


def test_int8_rows_of_a_checkpoint_are_dequantised():
    weight = np.array([[1, -2], [3, 4]], np.int8)
    scale = np.array([[0.5], [2]], np.float16)
    checkpoint = Checkpoint({"a.weight": weight, "a.weight_scale": scale})
    assert (checkpoint["a.weight"] == [[0.5, -1], [6, 8]]).all()


def test_files_hold_what_the_engine_expects(made):
    for name in ("target", "draft", "draft_plain", "codec"):
        model = onnx.load(made / f"{name}.onnx", load_external_data=False)
        assert {n.domain for n in model.graph.node} == {DOMAIN}
        names = [n.name for n in model.graph.node]
        assert len(set(names)) == len(names) and all(names)
        assert {n.op_type for n in model.graph.node} == {f.name for f in model.functions}
        for function in model.functions:
            assert {n.domain for n in function.node} == {""}
        end = 0
        for tensor in model.graph.initializer:
            place = {e.key: e.value for e in tensor.external_data}
            assert place["location"] == f"{name}.onnx.data"
            assert int(place["offset"]) % 64 == 0 and int(place["offset"]) >= end
            end = int(place["offset"]) + int(place["length"])
        assert end == (made / f"{name}.onnx.data").stat().st_size


@pytest.mark.parametrize("which", ["target", "draft", "draft_plain"])
def test_cached_steps_agree_with_torch_on_the_whole_sequence(made, which):
    pytest.importorskip("torch")
    path = made / f"{which}.onnx"
    rng = np.random.default_rng(6)
    tokens = [65537, 65540, 65571, 65538, *map(int, rng.integers(0, 65536, 8))]
    model = LanguageModel(path)
    assert model.features == (64 if which == "draft" else 0)
    features = None
    if model.features:
        features = rng.standard_normal((len(tokens), 64)).astype(np.float32)
    part = lambda a, b=None: None if features is None else features[a:b]  # noqa: E731
    model.step(tokens[:5], part(0, 5))
    model.step([1, 2, 3], part(2, 5))
    model.rollback(3)
    rows, hidden = [], []
    for a, b in ((5, 6), (6, len(tokens))):
        rows.append(model.step(tokens[a:b], part(a, b)))
        hidden.append(model.hidden)
    assert model.length == len(tokens)
    expected, states = golden.torch_language_model(path, tokens, features)
    assert golden.relative(np.concatenate(rows), expected[5:]) < 1e-4
    assert golden.relative(np.concatenate(hidden), states[5:]) < 1e-4


def test_inputs_and_outputs_are_in_the_contracts_order(made):
    def names(file):
        graph = onnx.load(made / file, load_external_data=False).graph
        return [i.name for i in graph.input], [o.name for o in graph.output]

    inputs, outputs = names("draft.onnx")
    assert inputs == ["tokens", "features", "past_key_0", "past_value_0"]
    assert outputs == ["logits", "hidden", "present_key_0", "present_value_0"]
    assert names("draft_plain.onnx") == (["tokens", *inputs[2:]], outputs)
    assert names("target.onnx")[1][:3] == ["logits", "hidden", "present_key_0"]
    facts = bundle.read(made)
    assert facts["draft"]["features"] == facts["target"]["hidden"] == 64
    assert "features" not in facts["target"]


def test_a_draft_needs_the_targets_width(tmp_path):
    draft = tiny.language_model(1, layers=1, hidden=32, heads=1, kv_heads=1, ffn=32, features=32)
    target = tiny.language_model(2, layers=1, hidden=64, heads=1, kv_heads=1, ffn=32)
    with pytest.raises(ValueError, match="32 features"):
        export.write(tmp_path, target, draft, tiny.codec(3), name="x")


def test_taps_are_outputs_that_the_draft_asks_for(tmp_path):
    def draft(**config):
        made = tiny.language_model(1, layers=1, hidden=32, heads=1, kv_heads=1, ffn=32, features=96)
        made.config.update(config)
        return made

    target = tiny.language_model(2, layers=3, hidden=32, heads=1, kv_heads=1, ffn=32)
    export.write(tmp_path, target, draft(taps=[1, 3]), tiny.codec(3), name="x")
    graph = onnx.load(tmp_path / "target.onnx", load_external_data=False).graph
    assert [o.name for o in graph.output][:5] == ["logits", "hidden", "tap_1", "tap_2", "present_key_0"]
    assert onnx_read.language_model(tmp_path / "target.onnx")[1]["taps"] == [1, 3]
    again = Checkpoint.of_export(tmp_path / "target.onnx")
    before = (tmp_path / "target.onnx").read_bytes()
    export.write(tmp_path, again, draft(taps=[1, 3]), None, name="x", base=tmp_path)
    assert (tmp_path / "target.onnx").read_bytes() == before
    with pytest.raises(ValueError, match="96 features, the target gives 32"):
        export.write(tmp_path, target, draft(), tiny.codec(3), name="x")
    with pytest.raises(ValueError, match="rising order"):
        export.write(tmp_path, target, draft(taps=[2, 1]), tiny.codec(3), name="x")
    with pytest.raises(ValueError, match="write the target again"):
        export.write(tmp_path, None, draft(taps=[1, 3]), None, name="x", base=tmp_path)


@pytest.mark.parametrize("which", ["target", "draft", "draft_plain"])
def test_an_export_read_back_and_exported_again_is_the_same(made, tmp_path, which):
    checkpoint = Checkpoint.of_export(made / f"{which}.onnx")
    export.language_model(which, checkpoint, tmp_path, Bits(), 512)
    for name in (f"{which}.onnx", f"{which}.onnx.data"):
        assert (tmp_path / name).read_bytes() == (made / name).read_bytes()


def test_onnx_files_are_read_without_the_onnx_package(made):
    weights, file = golden.Weights(made / "draft.onnx"), onnx_read.OnnxFile(made / "draft.onnx")
    assert set(file.nodes) == set(weights.nodes) and "features" in file.inputs
    for name, tensor in file.tensors.items():
        assert np.array_equal(tensor, weights._raw[name])
    for name, node in file.nodes.items():
        for key, value in node["attributes"].items():
            assert value == weights.attribute(name, key)
    tensors, config, _ = onnx_read.language_model(made / "draft.onnx")
    assert config["features"] == 64 and config["nl"] == 1 and config["nh"] == config["nkv"] == 2
    for name in ("layers.0.gate_up.weight", "feature.weight", "final_norm.weight"):
        assert np.array_equal(tensors[name], weights[name].numpy().astype(np.float32))


def test_a_new_draft_in_an_old_bundle(made, tmp_path):
    from voxgrain_tools.__main__ import main

    checkpoint = tiny.language_model(9, layers=2, hidden=64, heads=1, kv_heads=1, ffn=32, features=64)
    tensors = checkpoint._tensors
    save_file(tensors, tmp_path / "new.safetensors", {"config": json.dumps(checkpoint.config)})
    (tmp_path / "facts.json").write_text('{"seed": null, "more": 1}')
    out = tmp_path / "out"
    line = f"x export --base {made} --draft {tmp_path}/new.safetensors --out {out} --training {tmp_path}/facts.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", line.split())
        main()
    old, new = bundle.read(made), bundle.read(out)
    assert bundle.check(out) == [] and new["draft"]["layers"] == 2
    assert new["training"] == {"note": old["training"]["note"], "more": 1}
    assert [new[k] for k in ("name", "target", "codec", "groups", "sampling")] == [
        old[k] for k in ("name", "target", "codec", "groups", "sampling")
    ]
    for name in ("target.onnx", "target.onnx.data", "codec.onnx.data"):
        assert (out / name).read_bytes() == (made / name).read_bytes()


def test_codec_agrees_with_torch_and_is_causal(made):
    pytest.importorskip("torch")
    codec = Codec(made / "codec.onnx")
    tokens = [int(t) for t in np.random.default_rng(7).integers(0, 65536, 12)]
    spectrum = codec.spectrum(tokens)
    expected = golden.torch_spectrum(made / "codec.onnx", tokens)
    assert golden.relative(spectrum, expected) < 1e-4
    sound = istft(spectrum)
    assert len(sound) == 320 * len(tokens)
    assert golden.relative(sound, golden.torch_sound(expected)) < 1e-4
    prefix = codec.decode(tokens[:8])
    settled = 320 * 8 - bundle.LATENCY_SAMPLES
    assert np.allclose(prefix[:settled], sound[:settled], atol=1e-6)
    assert not np.allclose(prefix[settled:], sound[settled : 320 * 8], atol=1e-3)


def test_the_same_seed_makes_the_same_bundle(made, tmp_path):
    tiny.make(tmp_path)
    assert (tmp_path / "bundle.toml").read_text() == (made / "bundle.toml").read_text()
    assert bundle.check(tmp_path) == []


def test_a_damaged_file_is_found(tmp_path):
    tiny.make(tmp_path)
    data = bytearray((tmp_path / "draft.onnx.data").read_bytes())
    data[1000] ^= 1
    (tmp_path / "draft.onnx.data").write_bytes(data)
    (tmp_path / "codec.onnx").unlink()
    assert bundle.check(tmp_path) == ["codec.onnx: missing", "draft.onnx.data: checksum differs"]


def test_strings_survive_the_bundle_file(tmp_path):
    text = 'a "quoted" \\ line\nand another'
    bundle.write(tmp_path, name=text, sections={"codec": {"file": "x"}}, groups=None)
    assert bundle.read(tmp_path)["name"] == text
    assert bundle.read(tmp_path)["vocabulary"] == bundle.VOCABULARY


def test_speakers_begin_with_their_own_symbols(made, tmp_path):
    from voxgrain_tools.__main__ import main

    voice = Voice(made)
    assert voice.prompt("a")[0] == voice.prompt("a", "first")[0] == 65537
    assert voice.prompt("a", "second") == [65539, *voice.prompt("a")[1:]]
    with pytest.raises(SystemExit, match="it has first, second"):
        voice.prompt("a", "third")

    def export_with(*options):
        line = f"x export --base {made} --out {tmp_path / 'out'}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [*line.split(), *options])
            main()
        return bundle.read(tmp_path / "out").get("speakers")

    assert export_with() == tiny.SPEAKERS == bundle.read(made)["speakers"]
    given = ["--speaker", "rms:65539:male, US English: deep", "--speaker", "slt:65537"]
    assert export_with(*given) == [
        {"name": "rms", "begin": 65539, "description": "male, US English: deep"},
        {"name": "slt", "begin": 65537, "description": ""},
    ]
    for bad in ("rms", "rms:begin", "rms:65538", "rms:12", "rms:65541", ":65537", " rms:65537"):
        with pytest.raises(SystemExit):
            export_with("--speaker", bad)
    for pair in (("a:65537", "a:65539"), ("a:65537", "b:65537")):
        with pytest.raises(SystemExit, match="the same"):
            export_with("--speaker", pair[0], "--speaker", pair[1])


def test_a_bundle_without_speakers_has_one():
    facts = {"name": "old", "vocabulary": bundle.VOCABULARY}
    assert bundle.speakers(facts) == [{"name": "old", "begin": 65537, "description": ""}]
    assert bundle.speaker(facts, None)["begin"] == bundle.speaker(facts, "old")["begin"] == 65537


def test_the_reference_is_the_speakers_own_synthesiser(tmp_path):
    from voxgrain_tools.measure import evaluate

    facts = {"name": "x", "speakers": [{"name": n, "begin": b} for n, b in (("slt", 65537), ("rms", 65539))]}
    assert evaluate.flite_voice(facts, None) == "slt" and evaluate.flite_voice(facts, "rms") == "rms"
    assert evaluate.flite_voice({"name": "old", "vocabulary": bundle.VOCABULARY}, None) == "slt"
    # A stand-in that writes what it was told to speak with.
    flite = tmp_path / "synthesiser"
    flite.write_text('#!/bin/sh\nwhile [ "$1" != -o ]; do [ "$1" = -voice ] && v=$2; shift; done\necho "$v" > "$2"\n')
    flite.chmod(0o755)
    for voice in ("slt", "rms"):
        folder = evaluate.flite_folder(tmp_path, voice)
        evaluate.speak_flite(str(flite), ["a", "b"], folder, voice)
        assert (folder / "00001.wav").read_text() == f"{voice}\n"


@pytest.mark.parametrize("folder", sorted(p.parent for p in ROOT.glob("models/*/bundle.toml")))
def test_shipped_bundles_are_whole(folder):
    assert bundle.check(folder) == []
    assert Voice(folder).prompt("ab d")[0] == 65537


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/data/golden/*.bin")))
def test_golden_files_belong_to_the_shipped_bundles(path):
    header, tensors = golden.load(path)
    facts = bundle.read(ROOT / "models" / header["bundle"])
    checksums = {e["path"]: e["sha256"] for e in facts["files"]}
    assert checksums[f"{header['model']}.data"] == header["data_sha256"]
    assert header["onnxruntime_against_torch"] < golden.TOLERANCE
    assert json.dumps(header)
    for value in tensors.values():
        assert np.isfinite(value).all()
