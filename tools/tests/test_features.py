"""The feature draft: its unrolled training against drafting step by step, sampling, and the figures' arithmetic."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from voxgrain_tools.common import BEGINS
from voxgrain_tools.train import features, lm, sampler

CPU = torch.device("cpu")


def documents():
    texts = ["hello there.", "yes.", "what is it?", "one two three."]
    rng = np.random.default_rng(0)
    lengths = np.array([40, 12, 33, 50], np.int32)
    tokens = rng.integers(0, 65536, lengths.sum()).astype(np.uint16)
    return lm.Documents({"texts": texts, "lengths": lengths, "tokens": tokens}, CPU)


def draft_model(layers=1):
    torch.manual_seed(5)
    draft = lm.LanguageModel(dict(features.TOY, nl=layers)).eval()
    with torch.no_grad():
        for parameter in draft.parameters():
            # Norm weights of one and small residual branches would hide a mistake.
            parameter.mul_(1 + 0.3 * torch.randn_like(parameter) if parameter.ndim == 1 else 1.5)
    return draft


class Session:
    """Plain cached inference, one token a call."""

    def __init__(self, draft):
        self.draft, self.cache = draft, [[] for _ in draft.layers]

    def __len__(self):
        return len(self.cache[0])

    def rollback(self, length):
        self.cache = [c[:length] for c in self.cache]

    def step(self, token, feature):
        d, c = self.draft, self.draft.config
        heads, size = c["nh"], c["H"] // c["nh"]
        x = d._embed(torch.tensor([token]))[0] + d.feature.weight @ feature
        cos, sin = lm.rope_table(torch.tensor([len(self)]), size, c["rope_base"])
        for l, cache in zip(d.layers, self.cache):
            attn_norm, qkv, attn_out, mlp_norm, gate_up, down = d.weights(l)
            q, k, v = (qkv @ F.rms_norm(x, x.shape, attn_norm, c["rms_eps"])).reshape(3, heads, size)
            q, k = (lm.rotate(t[None], cos, sin)[0] for t in (q, k))
            cache.append((k, v))
            keys, values = (torch.stack(t, 1) for t in zip(*cache))
            weights = ((keys @ q[:, :, None])[..., 0] * size**-0.5).softmax(1)
            x = x + attn_out @ (weights[:, None] @ values).reshape(-1)
            gate, up = (gate_up @ F.rms_norm(x, x.shape, mlp_norm, c["rms_eps"])).chunk(2)
            x = x + down @ (F.silu(gate) * up)
        return F.rms_norm(x, x.shape, d.final_norm.weight, c["rms_eps"])


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_unrolled_training_equals_drafting_with_rollback(layers):
    data, draft, steps = documents(), draft_model(layers), 4
    packed = data.to_device(data.pack(256, seed=0, row=128))
    tokens, places, numbers, bounds, targets, _ = data.batch(packed, 0)
    hidden = torch.randn(256, 64)
    unroll = features.Unroll(draft, steps, 128)
    outputs = unroll(tokens, places, numbers, bounds, hidden)
    counts = unroll.counts(targets, places)
    compared = 0
    for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist()):
        if b - a < 3 or targets[a:b].max() < 0:
            continue
        session, kept = Session(draft), 0
        for p in range(a, b):
            # The accepted tokens again, with true features; then the drafted ones on the draft's own.
            session.rollback(kept)
            feature = hidden[p - 1] if p > a else torch.zeros(64)
            g = session.step(int(tokens[p]), feature)
            kept = len(session)
            for s in range(steps):
                assert torch.allclose(outputs[s][p + s], g, atol=2e-4), (p - a, s)
                assert bool(counts[s][p + s]) == bool(targets[p] >= 0)
                compared += s > 0
                if p + s + 1 >= b:
                    break
                if s + 1 < steps:
                    g = session.step(int(tokens[p + s + 1]), g)
    assert compared > 300
    # Whatever else a step counts would be a chain across documents.
    assert [int(c.sum()) for c in counts] == [sum(max(0, n + 1 - s) for n in (40, 12, 33, 50)) for s in range(steps)]


@torch.no_grad()
def test_padding_never_makes_the_outputs_infinite():
    data, draft = documents(), draft_model()
    packed = data.to_device(data.pack(512, seed=0, row=256))
    tokens, places, numbers, bounds, _, _ = data.batch(packed, 0)
    for g in features.Unroll(draft, 5, 256)(tokens, places, numbers, bounds, torch.randn(512, 64)):
        assert torch.isfinite(g).all()


def test_a_models_forward_pass_is_the_first_step():
    data, draft = documents(), draft_model()
    packed = data.to_device(data.pack(256, seed=1, row=128))
    tokens, places, numbers, bounds, _, _ = data.batch(packed, 0)
    hidden = torch.randn(256, 64)
    before = torch.where(places[:, None] > 0, hidden.roll(1, 0), 0.0)
    with torch.no_grad():
        whole = draft(tokens, places, numbers, bounds, before)
        (first,) = features.Unroll(draft, 1, 128)(tokens, places, numbers, bounds, hidden)
    assert torch.allclose(whole, first, atol=1e-5)


def test_gradients_flow_through_every_step():
    torch.manual_seed(6)
    data, target = documents(), lm.LanguageModel(lm.TOY_TARGET).eval()
    draft = features.start_from(target, features.TOY)
    assert torch.equal(draft.output_head.factors, target.output_head.factors)
    packed = data.to_device(data.pack(256, seed=0, row=128))
    tokens, places, numbers, bounds, targets, _ = data.batch(packed, 0)
    hidden, marginals, own = features.teach(target, tokens, places, numbers, bounds, CPU)
    unroll = features.Unroll(draft, 3, 128)
    outputs = unroll(tokens, places, numbers, bounds, hidden)
    valid = unroll.counts(targets, places)[2].float()
    loss = lm.kl_part(draft._head(outputs[2]), marginals, valid) - (own * valid).sum() / valid.sum()
    # Against the full softmax.
    with torch.no_grad():
        p = lm.full_logits(target._head(hidden))[valid > 0].log_softmax(1)
        q = lm.full_logits(draft._head(outputs[2]))[valid > 0].log_softmax(1)
    assert abs(loss.item() - float((p.exp() * (p - q)).sum(1).mean())) < 1e-3
    loss.backward()
    for name, parameter in draft.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0, name


def test_codes_drawn_in_halves_have_the_full_softmax():
    torch.manual_seed(7)
    scores = torch.randn(3, 481)
    full = lm.full_logits(scores).log_softmax(1)
    logits, low, cross = sampler.half_logits(scores)
    values = sampler.byte_values(CPU)
    upper = logits.log_softmax(1)
    assert torch.allclose(upper[:, 256], full[:, 65536], atol=1e-5)
    for high in (0, 77, 255):
        lower = sampler.low_logits(low, cross, torch.full((3,), high)).log_softmax(1)
        codes = (values[high] << 8) | values
        assert torch.allclose(upper[:, high, None] + lower, full[:, codes], atol=1e-4)
    drawn = sampler.sample_codes((scores[:1] * 3).expand(20000, -1), values)
    p = lm.full_logits(scores[:1] * 3).softmax(1)[0]
    likely = p.topk(5).indices
    share = (drawn[:, None] == likely).float().mean(0)
    assert ((share - p[likely]).abs() < 5 * (p[likely] / 20000).sqrt() + 1e-3).all()


@torch.no_grad()
def test_batched_sampling_runs_the_model_itself():
    torch.manual_seed(8)
    model, texts = lm.LanguageModel(lm.TOY_TARGET).eval(), ["hello there.", "a b c, what is it?"]
    batch = sampler.Batch(model, texts, [0, 1], 20, CPU)
    batch.start()
    for _ in range(9):
        batch.step(sampler.BUCKET)
    scores = batch.layers(batch.token[:, None], batch.at, sampler.BUCKET)
    for i in range(len(texts)):
        prompt = batch.prompt[i, batch.pad[i] :]
        assert prompt[0] == BEGINS[i]
        x = torch.cat([prompt, batch.out[i, batch.width : batch.width + 10].clamp_max(65535)])
        hidden = model(x, torch.arange(len(x)), torch.zeros(len(x)), None)
        assert torch.allclose(scores[i], model._head(hidden[-1:])[0], atol=1e-3)


def test_sampling_a_corpus_keeps_what_ended():
    torch.manual_seed(9)
    model = lm.LanguageModel(lm.TOY_TARGET).eval()
    with torch.no_grad():
        model.output_head.extra[0] *= 40  # end of speech swings wide, so that samples do end
    texts = ["a.", "one two.", "three four five.", "yes.", "no."]
    data = sampler.sample(model, texts, 60.0, CPU, largest=2, voices=2)
    assert len(data["speakers"]) == len(data["lengths"]) and set(data["speakers"].tolist()) <= {0, 1}
    assert len(data["lengths"]) > 0 and data["lengths"].sum() == len(data["tokens"]) and (data["lengths"] > 0).all()
    assert [texts[i] for i in data["ids"]] == data["texts"]


def test_ball_sums_count_codes_within_a_distance():
    rng = np.random.default_rng(10)
    x = torch.from_numpy(rng.random((2, 65536)).astype(np.float32))
    digits = (np.arange(65536)[:, None] >> (2 * np.arange(8))) & 3
    for radius in (1, 2, 4):
        got = features.ball_sums(x, radius)
        for code in (0, 65535, 12345):
            inside = torch.from_numpy(np.abs(digits - digits[code]).sum(1) <= radius)
            assert torch.allclose(got[:, code], x[:, inside].sum(1), rtol=1e-4)
    laws = features.laws_of(torch.randn(2, 481), features.ball_sizes((1, 2), CPU))
    for law in laws.values():
        assert torch.allclose(law.sum(1), torch.ones(2), atol=1e-4)


def test_a_perfect_draft_is_always_accepted():
    torch.manual_seed(11)
    data, target = documents(), lm.LanguageModel(lm.TOY_TARGET).eval()
    packed = data.to_device(data.pack(256, row=128))
    figures = features.acceptance(target, {"itself": target}, data, packed, CPU, 128, steps=3, limit=20, chunk=8)
    assert figures["starts"] == 20
    for name, values in figures["itself"].items():
        assert np.allclose(values, [2, 3, 4] if name.endswith("round") else 1, atol=1e-3), name


def test_half_of_an_epoch_is_sampled():
    data = documents()
    mixture = features.Mixture(data, 2, 0.5)
    source = mixture.pack(256, 128, 3)[0]
    used = np.isin(np.arange(4), np.unique(np.searchsorted(data.starts, source[source < data.total], "right") - 1))
    assert used[2:].all()
