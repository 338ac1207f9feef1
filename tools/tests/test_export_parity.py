"""What the training stages save, exported, gives what their own modules give (up to 8-bit weights)."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from voxgrain_tools import bundle, codec, export, lm  # noqa: E402
from voxgrain_tools.runtime import Codec, LanguageModel, istft  # noqa: E402


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
        export.Checkpoint.open(folder / f"{name}.safetensors")
        for name in ("target", "draft", "codec_decoder")
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
            torch.tensor(tokens),
            torch.arange(len(tokens)),
            torch.zeros(len(tokens), dtype=torch.long),
            None,
        )
        expected = lm.full_logits(models[which]._head(hidden)).numpy()
    got = LanguageModel(out / facts["file"]).step(tokens)
    assert got.shape == expected.shape
    assert noise(got, expected) < 0.03


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
    from voxgrain_tools import golden, swap

    tokens = np.random.default_rng(1).integers(0, 65536, 50)
    values = codec.values_of(torch.from_numpy(tokens)).numpy()
    assert np.allclose(values, (swap.digits_of(tokens) - 1.5) / 1.5)
    hot = lm.MultiHot(64)(torch.from_numpy(tokens)).float().numpy()
    for token, row in zip(tokens, hot, strict=True):
        assert set(np.flatnonzero(row)) == set(swap.factor_rows(np.asarray(token)).tolist())
    assert golden.TOLERANCE <= 1e-4


def test_stock_matrix_products_are_the_same_model(tmp_path):
    """What --matmul stock writes has the weights of the packed export, in onnxruntime's own
    operator."""
    from voxgrain_tools import tiny

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
    from voxgrain_tools import quantize

    weight = np.random.default_rng(bits).standard_normal((5, 96)).astype(np.float32)
    matrix = quantize.quantise(weight, bits)
    rows, scales = quantize.pack_rows(matrix)
    assert rows.shape == (5, 3, 4 * bits) and scales.dtype == np.float32
    np.testing.assert_array_equal(quantize.dequantise_rows(rows, scales, bits), matrix.dequantise())
