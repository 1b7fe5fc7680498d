"""Laws of motion: known shifts are found, what only moves is explained, and unsteady flight is seen."""

import pytest
import torch
import torch.nn.functional as F

from sciffusion.domains.video import MovingDigits, digits, flights, flow, warp_error
from sciffusion.domains.video.motion import centres

TEXTURE = F.avg_pool2d(torch.rand(1, 1, 42, 42, generator=torch.Generator().manual_seed(0)), 3, 1)


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 4), (1, 0)])
def test_flow_finds_a_known_shift(shift: tuple[int, int]) -> None:
    before = TEXTURE[..., 4:36, 4:36]
    after = TEXTURE[..., 4 - shift[0] : 36 - shift[0], 4 - shift[1] : 36 - shift[1]]
    inner = flow(before, after)[0, :, 1:-1, 1:-1]
    assert bool((inner == torch.tensor(shift).view(2, 1, 1)).all())


def test_flow_finds_half_a_pixel() -> None:
    fine = F.interpolate(TEXTURE, (79, 79), mode="bilinear", align_corners=True)
    before, after = fine[..., 4:68:2, 4:68:2], fine[..., 3:67:2, 4:68:2]
    inner = flow(before, after)[0, :, 1:-1, 1:-1]
    assert bool((inner == torch.tensor([0.5, 0.0]).view(2, 1, 1)).all())


def test_what_only_moves_is_explained_and_what_appears_is_not() -> None:
    film = torch.zeros(1, 4, 1, 32, 32)
    for t in range(4):
        film[0, t, 0, 8 + t : 16 + t, 8 + 2 * t : 16 + 2 * t] = TEXTURE[0, 0, :8, :8]
    assert float(warp_error(film)) < 1e-12
    noise = torch.rand(1, 4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert float(warp_error(noise)) > 0.4
    assert bool(warp_error(film[:, :1].expand(-1, 3, -1, -1, -1)).isnan())


def test_moving_digits_fly_steadily_and_shaken_ones_do_not() -> None:
    x = MovingDigits(digits()).films(30, seed=2).stack().float() / 255
    found = flights(x)
    assert float(found.jitter.max()) < 0.01
    assert float(found.straight.min()) > 0.9
    shaken = torch.stack([torch.roll(f, 2 * (t % 2), -1) for t, f in enumerate(x.unbind(1))], 1)
    assert float(flights(shaken).straight.mean()) < float(found.straight.mean()) - 0.1
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    assert float(flights(x[:, order]).straight.mean()) < 0.8


def test_speeds_are_those_of_the_motion() -> None:
    x = torch.zeros(1, 8, 1, 32, 32)
    for t in range(8):
        x[0, t, 0, 3 * t + 2, 30 - 2 * t] = 1
    assert flights(x).speed.tolist() == [[3.0, 2.0]]
    assert centres(x)[0, 0].tolist() == [2.0, 30.0]
    assert bool(centres(torch.zeros(1, 1, 1, 4, 4)).isnan().all())


def test_films_that_do_not_fit_are_refused() -> None:
    x = torch.zeros(1, 4, 1, 32, 32)
    with pytest.raises(ValueError, match="five frames or more"):
        flights(x)
    with pytest.raises(ValueError, match="must be grey"):
        centres(x.expand(-1, -1, 3, -1, -1))
    with pytest.raises(ValueError, match="two frames or more"):
        warp_error(x[:, :1])
    with pytest.raises(ValueError, match="of 8 pixels or more"):
        flow(x[0, :, :, :4], x[0, :, :, :4])
