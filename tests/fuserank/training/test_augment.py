"""Random sounds, views and gaps: drawn by each row's key alone, of the same shape, and never other colours."""

import pytest
import torch

from fuserank.training.augment import drop_tokens, drop_values, sounds, views
from fuserank.training.noise import keys


def pictures(batch: int = 6, height: int = 20, width: int = 14) -> torch.Tensor:
    return torch.randint(
        0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def seeded(seed: int, rows: int) -> torch.Tensor:
    return keys(torch.arange(rows), seed)


def test_the_seed_decides() -> None:
    pixels = pictures()
    first = views(pixels, seeded(0, 6))
    assert first.shape == pixels.shape
    assert first.dtype == torch.uint8
    assert torch.equal(first, views(pixels, seeded(0, 6)))
    assert not torch.equal(first, views(pixels, seeded(1, 6)))
    before = torch.get_rng_state()
    views(pixels, seeded(0, 6))
    assert torch.equal(before, torch.get_rng_state())  # the global state stays as it was: resuming depends on it


def test_a_picture_of_one_colour_only_changes_its_light() -> None:
    colour = torch.tensor([200, 100, 40], dtype=torch.uint8).view(1, 3, 1, 1).expand(50, 3, 16, 16)
    found = views(colour, seeded(0, 50), light=0.2).float()
    assert found.amax((2, 3)).equal(found.amin((2, 3)))
    light = found[:, :, 0, 0] / torch.tensor([200.0, 100, 40])
    assert ((light - light[:, :1]).abs() < 0.02).all()  # all channels alike: no change of hue
    assert light.min() >= 0.79
    assert light.max() <= 1.21
    assert light.std() > 0.05
    assert torch.equal(views(colour, seeded(0, 50), light=0.0), colour)


def test_the_gentlest_view_is_the_picture_or_its_mirror() -> None:
    ramp = torch.linspace(0, 255, 32).to(torch.uint8).expand(40, 3, 32, 32).contiguous()
    found = views(ramp, seeded(3, 40), smallest=1.0, light=0.0).int()
    straight = (found - ramp.int()).abs().amax((1, 2, 3)) <= 16  # a crop of at most a twentieth
    mirrored = (found - ramp.flip(3).int()).abs().amax((1, 2, 3)) <= 16
    assert (straight ^ mirrored).all()
    assert 8 < int(mirrored.sum()) < 32


@pytest.mark.parametrize("smallest", [0.4, 0.75])
def test_crops_stay_inside_and_above_the_least_side(smallest: float) -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(60, 3, 64, 64).contiguous()
    found = views(ramp, seeded(4, 60), smallest=smallest, light=0.0).float()
    shown = (found[:, 0, 0].amax(1) - found[:, 0, 0].amin(1)) / 63
    assert shown.min() > smallest * 0.9
    assert shown.max() <= 1
    assert shown.std() > 0.05


def test_dropped_tokens() -> None:
    mask = torch.ones(200, 20, dtype=torch.int64)
    mask[:, 15:] = 0
    found = drop_tokens(mask, 0.3, seeded(0, 200))
    assert found.dtype == mask.dtype
    assert (found[:, 0] == 1).all()  # a text never vanishes
    assert (found[:, 15:] == 0).all()  # padding never appears
    assert found[:, 1:15].float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(found, drop_tokens(mask, 0.3, seeded(0, 200)))
    assert not torch.equal(found, drop_tokens(mask, 0.3, seeded(1, 200)))
    assert torch.equal(drop_tokens(mask, 0.0, seeded(0, 200)), mask)
    assert drop_tokens(mask, 1.0, seeded(0, 200)).sum() == 200


def test_dropped_attribute_values() -> None:
    ids = torch.arange(1, 11).repeat(300, 1)
    ids[:, 8:] = 0
    ids[:100, 1:] = 0
    found = drop_values(ids, 0.3, seeded(0, 300))
    assert found.dtype == ids.dtype
    assert torch.equal(found[:100], ids[:100])  # the only one stays
    kept = found[100:, :8] > 0
    assert torch.equal(found[100:, :8][kept], ids[100:, :8][kept])
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.03)
    assert (found[:, 8:] == 0).all()
    assert torch.equal(drop_values(ids[200:], 0.3, seeded(0, 300)[200:]), found[200:])  # by its key, in any batch
    assert torch.equal(drop_values(ids, 0.0, seeded(0, 300)), ids)
    assert torch.equal(drop_values(ids, 1.0, seeded(0, 300)), ids)  # a row never vanishes


def spoken(batch: int = 40) -> torch.Tensor:
    """Tones in bands 7 to 9 of 20 from frame 20 to 39 of 80; silence around them."""
    mel = torch.full((batch, 20, 80), -13.8155)
    mel[:, :, 20:40] = -10.0
    mel[:, 7:10, 20:40] = 0.0
    return mel


def test_sounds_move_in_time_and_pitch_by_their_key() -> None:
    found = sounds(spoken(), seeded(0, 40))
    assert found.shape == (40, 20, 80)
    assert torch.equal(found, sounds(spoken(), seeded(0, 40)))
    assert not torch.equal(found, sounds(spoken(), seeded(1, 40)))
    when, places = found.amax(1) > -5, torch.arange(20.0)
    loud = (found.amax(2) > -5).float()
    tone = (loud * places).sum(1) / loud.sum(1)
    assert 6 <= tone.min() < 7.6 < 8.4 < tone.max() <= 10  # a stretch of an eighth from the lowest band up
    lengths = when.sum(1)
    assert 16 <= lengths.min() < 20 < lengths.max() <= 25
    starts = when.float().argmax(1)
    assert 11 <= starts.min() < 20 < starts.max() <= 29


def test_sounds_get_a_floor_of_noise_where_they_sound() -> None:
    found = sounds(spoken(), seeded(0, 40), stretch=0, shift=0, equaliser=0)
    torch.testing.assert_close(found[:, :, :19], spoken()[:, :, :19])  # silence stays silent
    floor = found[:, 0, 22:38].mean(1)
    assert ((floor > -12.5) & (floor < -3)).all()
    assert floor.max() - floor.min() > 4
    torch.testing.assert_close(found[:, 8, 22:38], torch.zeros(40, 16), atol=0.06, rtol=0)


def test_sounds_pass_through_another_microphone() -> None:
    """A line over the bands between four random points; silence stays silent."""
    found = sounds(spoken(), seeded(0, 40), stretch=0, shift=0, equaliser=2.0)
    torch.testing.assert_close(found[:, :, :19], spoken()[:, :, :19])
    gain = found[:, 7:10, 22:38].mean(2)  # the tone lies at 0 and above the noise
    assert -2.1 < gain.min() < -0.5
    assert 0.5 < gain.max() < 2.1
    assert (gain[:, 1] - (gain[:, 0] + gain[:, 2]) / 2).abs().max() < 0.05  # of one piece there
