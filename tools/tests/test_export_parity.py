"""What the training stages save, exported, gives what their own modules give (up to 8-bit weights)."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from voxgrain_tools.export import bundle, export
from voxgrain_tools.export.runtime import Codec, LanguageModel, istft
from voxgrain_tools.train import codec, features, lm


def noise(got, expected):
    """Root mean square of the difference over that of the expected values."""
    return float(np.sqrt(((got - expected) ** 2).mean() / (expected**2).mean()))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints")
    models = {
        "target": lm.LanguageModel(lm.TOY_TARGET).eval(),
        "draft": lm.LanguageModel(lm.TOY_DRAFT).eval(),
        "codec": codec.Codec(codec.TOY).eval(),
    }
    for name in ("target", "draft"):
        with torch.no_grad():
            for parameter in models[name].parameters():
                # Norm weights of one and small residual branches would hide a mistake.
                parameter.mul_(1 + 0.3 * torch.randn_like(parameter) if parameter.ndim == 1 else 2)
        models[name].save(str(folder / f"{name}.safetensors"))
    models["codec"].save(str(folder))
    out = folder / "bundle"
    checkpoints = [
        export.Checkpoint.open(folder / f"{name}.safetensors") for name in ("target", "draft", "codec_decoder")
    ]
    export.write(out, *checkpoints, name="toy")
    return out, models


@pytest.mark.parametrize("which", ["target", "draft"])
def test_language_model(exported, which):
    out, models = exported
    facts = bundle.read(out)[which]
    tokens = [65537, 65541, 65570, 65538, 5, 65535, 1234, 40000]
    with torch.no_grad():
        hidden = models[which](
            torch.tensor(tokens), torch.arange(len(tokens)), torch.zeros(len(tokens), dtype=torch.long), None
        )
        expected = lm.full_logits(models[which]._head(hidden)).numpy()
    got = LanguageModel(out / facts["file"]).step(tokens)
    assert got.shape == expected.shape
    assert noise(got, expected) < 0.03


@torch.no_grad()
def test_an_exported_feature_draft_drafts_as_it_was_unrolled(tmp_path):
    torch.manual_seed(1)
    target = lm.LanguageModel(lm.TOY_TARGET).eval()
    draft = lm.LanguageModel(features.TOY).eval()
    for model in (target, draft):
        for parameter in model.parameters():
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter) if parameter.ndim == 1 else 2)
    for name, model in (("target", target), ("draft", draft)):
        model.save(str(tmp_path / f"{name}.safetensors"))
        checkpoint = export.Checkpoint.open(tmp_path / f"{name}.safetensors")
        export.language_model(name, checkpoint, tmp_path, export.Bits(), 512)
    # Read back, both are exactly what the exported files compute.
    target, draft = (lm.lm_from_bundle(str(tmp_path), name) for name in ("target", "draft"))
    tokens = [65537, 65541, 65570, 65538, 5, 65535, 1234, 40000, 77, 9000]
    n, steps = len(tokens), 4
    x, places, zeros = torch.tensor(tokens), torch.arange(n), torch.zeros(n, dtype=torch.long)
    hidden = target(x, places, zeros, None)
    unrolled = features.Unroll(draft, steps, n)(x, places, zeros, None, hidden)

    engine_target, engine = (LanguageModel(tmp_path / f"{m}.onnx") for m in ("target", "draft"))
    engine_target.step(tokens)
    assert np.allclose(engine_target.hidden, hidden.numpy(), atol=1e-3)
    before = np.concatenate([np.zeros((1, 64), np.float32), engine_target.hidden[:-1]])
    for p in range(n):
        # The accepted token with its true feature, then a chain on the draft's own.
        logits = engine.step(tokens[p : p + 1], before[p : p + 1])
        for s in range(min(steps, n - p)):
            assert np.allclose(engine.hidden[-1], unrolled[s][p + s].numpy(), atol=2e-3)
            expected = lm.full_logits(draft._head(unrolled[s][p + s][None])).numpy()
            assert np.allclose(logits[-1:], expected, atol=2e-2)
            if p + s + 1 < n:
                logits = engine.step(tokens[p + s + 1 : p + s + 2], engine.hidden[-1:])
        engine.rollback(engine.length - p - 1)


def test_codec_decoder(exported):
    out, models = exported
    tokens = np.random.default_rng(0).integers(0, 65536, 30)
    assert bundle.read(out)["codec"]["latency_samples"] == 240
    decoder = Codec(out / "codec.onnx")
    with torch.no_grad():
        values = codec.values_of(torch.from_numpy(tokens)[None])
        spectrum = models["codec"].decoder(values)
        sound = codec.sound(spectrum)[0].numpy()
    assert noise(decoder.spectrum(tokens), spectrum[0].numpy()) < 0.03
    assert np.allclose(istft(spectrum[0].numpy()), sound, atol=1e-5)


def test_fsq_and_factor_rows_mean_the_same_on_both_sides():
    from voxgrain_tools.fixtures import golden

    tokens = np.random.default_rng(1).integers(0, 65536, 50)
    values = codec.values_of(torch.from_numpy(tokens)).numpy()
    digits = tokens[:, None] >> (2 * np.arange(8)) & 3
    assert np.allclose(values, (digits - 1.5) / 1.5)
    hot = lm.MultiHot(64)(torch.from_numpy(tokens)).float().numpy()
    pairs = [(a, b) for a in range(8) for b in range(a + 1, 8)]
    for d, row in zip(digits, hot, strict=True):
        rows = {4 * i + d[i] for i in range(8)}
        rows |= {32 + 16 * p + 4 * d[a] + d[b] for p, (a, b) in enumerate(pairs)}
        assert set(np.flatnonzero(row)) == rows
    assert golden.TOLERANCE <= 1e-4


def test_stock_matrix_products_are_the_same_model(tmp_path):
    """What --matmul stock writes has the weights of the packed export, in onnxruntime's own
    operator."""
    from voxgrain_tools.fixtures import tiny

    checkpoints = tiny.language_model(5, 1, 64, 2, 1, 88), tiny.codec(6)
    for matmul in export.MATMULS:
        out = tmp_path / matmul
        out.mkdir()
        bits = export.Bits(4, {"head": 8})
        export.language_model("target", checkpoints[0], out, bits, 64, matmul)
        export.codec_decoder(checkpoints[1], out, export.Bits(8), matmul)
    tokens = [65537, 65541, 65538, 5, 1234]
    packed, stock = (LanguageModel(tmp_path / m / "target.onnx") for m in export.MATMULS)
    for part in (tokens[:3], tokens[3:]):
        np.testing.assert_allclose(stock.step(part), packed.step(part), rtol=0, atol=1e-4)
    packed, stock = (Codec(tmp_path / m / "codec.onnx") for m in export.MATMULS)
    expected = packed.spectrum(tokens[3:])
    np.testing.assert_allclose(stock.spectrum(tokens[3:]), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_give_back_the_same_weights(bits):
    from voxgrain_tools.export import quantize

    weight = np.random.default_rng(bits).standard_normal((5, 96)).astype(np.float32)
    matrix = quantize.quantise(weight, bits)
    rows, scales = quantize.pack_rows(matrix)
    assert rows.shape == (5, 3, 4 * bits) and scales.dtype == np.float32
    np.testing.assert_array_equal(quantize.dequantise_rows(rows, scales, bits), matrix.dequantise())
    back = quantize.unpack_rows(rows, scales, bits)
    np.testing.assert_array_equal(back.values, matrix.values)
    np.testing.assert_array_equal(back.scales, matrix.scales)
    scales[0, 0] = np.nextafter(scales[0, 0], np.float32(1))
    with pytest.raises(ValueError, match="exactly"):
        quantize.unpack_rows(rows, scales, bits)


def test_a_stock_export_read_back_is_the_packed_one(tmp_path):
    """Both forms of a feature draft hold the same integers: each can be written from the other."""
    from voxgrain_tools.fixtures import tiny

    draft = tiny.language_model(5, 1, 64, 2, 1, 88, features=64)
    bits = export.Bits(4, {"head": 8})
    files = {}
    for name, checkpoint, matmul in (("packed", draft, "packed"), ("stock", draft, "stock"), ("back", None, "packed")):
        out = tmp_path / name
        out.mkdir()
        checkpoint = checkpoint or export.Checkpoint.of_export(tmp_path / "stock/draft.onnx")
        assert export.language_model("draft", checkpoint, out, bits, 64, matmul)["features"] == 64
        files[name] = [(out / f"draft.onnx{end}").read_bytes() for end in ("", ".data")]
    assert files["back"] == files["packed"] != files["stock"]
    packed, stock = (LanguageModel(tmp_path / m / "draft.onnx") for m in ("packed", "stock"))
    features = np.random.default_rng(7).standard_normal((3, 64)).astype(np.float32)
    for model in (packed, stock):
        model.logits = model.step([65537, 5, 1234], features)
    np.testing.assert_allclose(stock.logits, packed.logits, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stock.hidden, packed.hidden, rtol=0, atol=1e-4)
