"""Codes with a rate, targets with rounded matrices, drafts with taps that train towards acceptance."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from voxgrain_tools.export.quantize import quantise
from voxgrain_tools.train import codec, codec_train, features, lm

CPU = torch.device("cpu")


def test_the_prior_hears_only_what_came_before():
    torch.manual_seed(0)
    prior = codec_train.Prior(codec.TOY).eval()
    values = codec.values_of(torch.randint(0, 65536, (1, 12)))
    changed = values.clone()
    changed[:, 7] = -changed[:, 7]
    before, after = prior(values, values)[0], prior(changed, changed)[0]
    assert torch.equal(before[:7], after[:7])
    assert bool((before[7:] != after[7:]).all())


def test_a_priors_nats_at_the_digits_are_a_law():
    """The intervals of the four levels cover the line, so that their masses sum to one (but for the floor)."""
    torch.manual_seed(1)
    prior = codec_train.Prior(dict(codec.TOY, fsq_digits=1)).eval()
    levels = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    past = torch.zeros(4, 1, 1)
    mass = torch.exp(-prior(past, levels[:, None, None])).sum()
    assert float(mass) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3])
def test_the_rate_reaches_the_encoder_in_its_strength_and_the_prior_always(rate):
    trainer = codec_train.Trainer.__new__(codec_train.Trainer)
    torch.manual_seed(2)
    trainer.device, trainer.rate, trainer.prior = CPU, rate, codec_train.Prior(codec.TOY)
    gradients = []
    for strength in (rate, codec_train.Prior.WEIGHT):
        trainer.rate = strength
        z = torch.linspace(-1, 1, 160).reshape(1, 20, 8).requires_grad_()
        torch.manual_seed(3)
        trainer.prior.zero_grad()
        trainer.price(z).backward()
        gradients.append((z.grad, trainer.prior.out.weight.grad.clone()))
    (mine, own), (unit, unit_own) = gradients
    assert torch.allclose(mine, unit * rate / codec_train.Prior.WEIGHT, atol=1e-6)
    assert torch.equal(own, unit_own) and float(own.abs().sum()) > 0


@pytest.mark.parametrize(("bits", "slack"), [(8, 1.01), (4, 1.05)])
def test_rounding_in_training_is_nearly_the_exports(bits, slack):
    weight = torch.randn(32, 96, generator=torch.Generator().manual_seed(4))
    mine = lm.rounded(weight, bits)
    theirs = torch.from_numpy(quantise(weight.numpy(), bits).dequantise())
    assert float((mine - weight).square().mean()) <= slack * float((theirs - weight).square().mean())
    weight.requires_grad_()
    lm.rounded(weight, bits).sum().backward()
    assert torch.equal(weight.grad, torch.ones_like(weight))


def test_a_model_rounded_for_good_is_one_that_rounds_as_it_goes():
    torch.manual_seed(5)
    model = lm.LanguageModel(lm.TOY_TARGET).eval()
    tokens, places = torch.randint(0, 65536, (16,)), torch.arange(16)
    numbers, bounds = torch.zeros(16, dtype=torch.long), torch.tensor([0, 16], dtype=torch.int32)
    with torch.no_grad():
        model.bits = 4
        going = model.scores(model(tokens, places, numbers, bounds))
        model.bits = 0
        assert not torch.allclose(going, model.scores(model(tokens, places, numbers, bounds)), atol=1e-3)
        model.round_to(4)
        good = model.scores(model(tokens, places, numbers, bounds))
    assert torch.allclose(going, good, atol=1e-5)


def test_taps_stand_before_the_hidden_states():
    torch.manual_seed(6)
    model = lm.LanguageModel(dict(lm.TOY_TARGET, nl=3)).eval()
    tokens, places = torch.randint(0, 65536, (16,)), torch.arange(16)
    rest = (tokens, places, torch.zeros(16, dtype=torch.long), torch.tensor([0, 16], dtype=torch.int32))
    with torch.no_grad():
        hidden, states = model(*rest), model(*rest, taps=(1, 3))
        assert states.shape == (16, 3 * 64) and torch.equal(states[:, -64:], hidden)
        # The last tap is the residual stream that the final norm reads.
        normed = torch.nn.functional.rms_norm(states[:, 64:128], (64,), model.final_norm.weight, 1e-5)
        assert torch.allclose(normed, hidden, atol=1e-6)


def test_a_widened_draft_is_the_same_until_it_learns(tmp_path):
    torch.manual_seed(7)
    path = str(tmp_path / "draft.safetensors")
    lm.LanguageModel(features.TOY).save(path)
    plain, wide = lm.load_lm(path), features.widened(path, dict(features.TOY, features=192, taps=[1, 2]))
    tokens, places = torch.randint(0, 65536, (16,)), torch.arange(16)
    rest = (tokens, places, torch.zeros(16, dtype=torch.long), torch.tensor([0, 16], dtype=torch.int32))
    states = torch.randn(16, 192)
    with torch.no_grad():
        a = features.Unroll(plain, 3, 16)(*rest, states[:, -64:])
        b = features.Unroll(wide.eval(), 3, 16)(*rest, states)
    assert wide.taps == (1, 2) and all(torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))
    lm.LanguageModel(dict(features.TOY, features=192, taps=[1, 2])).save(path)
    with pytest.raises(ValueError, match="not changed"):
        features.widened(path, dict(features.TOY, features=128, taps=[1]))


def test_overlaps_are_what_rejection_sampling_accepts():
    torch.manual_seed(8)
    theirs, mine = torch.randn(3, 481), torch.randn(3, 481).requires_grad_()
    loss, accepted = features.overlaps(theirs, mine)
    p, q = (lm.full_logits(s).double().softmax(1) for s in (theirs, mine.detach()))
    assert np.allclose(accepted.detach(), torch.minimum(p, q).sum(1), atol=1e-5)
    assert np.allclose(loss.detach(), -torch.minimum(p, q).sum(1).log(), atol=1e-4)
    _, whole = features.overlaps(theirs, theirs)
    assert np.allclose(whole, 1, atol=1e-5)
    sizes = features.ball_sizes((1,), CPU)[1]
    grouped, _ = features.overlaps(theirs, mine, sizes)
    assert bool((grouped < loss).all()), "groups of neighbours overlap more than tokens do"
    step = torch.autograd.grad(loss.sum(), mine)[0]
    better, _ = features.overlaps(theirs, mine.detach() - 0.01 * step / step.norm())
    assert bool(better.sum() < loss.sum())
