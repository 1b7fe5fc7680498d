"""References: voices are told apart whatever they say, a clip is never its own, and a model hears whom it imitates."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sciffusion.cli import main
from sciffusion.domains.audio import AudioModel, AudioTask, Clip, Clips, DataConfig, load, train
from sciffusion.domains.audio.reference import Others, ReferenceConfig, ReferenceEncoder
from sciffusion.domains.audio.task import AudioTraining, at_speed
from sciffusion.noise import Noise

from .small import MEL, settings, shaken, tones

HEARS = ReferenceConfig(mel=MEL)
CPU = torch.device("cpu")


def listener(size: int = 3) -> ReferenceEncoder:
    g = torch.Generator().manual_seed(0)
    draw = torch.randn(16, size + 1, generator=g, dtype=torch.float64)
    return ReferenceEncoder(HEARS, draw[:, 0], draw[:, 1:])


def configured(**data: object) -> AudioTraining:
    config = settings()
    model = replace(config.model, attributes=("attack",), reference=1)
    given = {"reference": "pitch", "shifts": 1} | data
    return replace(config, model=model, data=DataConfig(**given), reference=HEARS)  # type: ignore[arg-type]


def two_voices(n: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """What is said varies ten times as much as the voice, along other directions."""
    rng = np.random.default_rng(seed)
    voice = np.arange(n) % 3
    x = rng.standard_normal((n, 6)) * np.array([10, 10, 10, 10, 1, 1])
    x[:, 4:] += 4 * np.stack([np.cos(2 * voice), np.sin(2 * voice)], 1)
    return torch.from_numpy(x), np.array([f"v{i}" for i in voice])


def test_discriminants_find_the_voice_and_pass_over_what_is_said() -> None:
    x, voices = two_voices(600, 0)
    encoder = ReferenceEncoder.fit(replace(HEARS, ridge=1e-6), x, voices, 2)
    share = encoder.projection[4:].square().sum() / encoder.projection.square().sum()
    assert float(share) > 0.99
    new, theirs = two_voices(300, 1)
    vectors = encoder.encode(new).numpy()
    torch.testing.assert_close(torch.from_numpy(vectors).square().mean(1), torch.ones(300))
    centres = np.stack([vectors[theirs == f"v{i}"].mean(0) for i in range(3)])
    heard = np.array([f"v{i}" for i in (vectors @ centres.T).argmax(1)])
    assert (heard == theirs).mean() > 0.97


def test_within_a_voice_discriminants_have_unit_covariance() -> None:
    x, voices = two_voices(900, 2)
    encoder = ReferenceEncoder.fit(replace(HEARS, ridge=1e-9), x, voices, 2)
    seen = (x - encoder.mean) @ encoder.projection
    parts = [seen[torch.from_numpy(voices == v)] for v in np.unique(voices)]
    within = torch.stack([torch.cov(p.mT, correction=0) for p in parts]).mean(0)
    torch.testing.assert_close(within, torch.eye(2, dtype=x.dtype), rtol=1e-6, atol=1e-6)
    # the first tells the voices best apart
    between = torch.stack([p.mean(0) for p in parts]).var(0)
    assert float(between[0]) > float(between[1])


def test_no_direction_tells_voices_better_apart_than_the_discriminants() -> None:
    rng = np.random.default_rng(3)
    voices, mix = np.arange(400) % 5, rng.standard_normal((6, 6))
    x = torch.from_numpy(rng.standard_normal((5, 6))[voices] + rng.standard_normal((400, 6)) @ mix)
    encoder = ReferenceEncoder.fit(replace(HEARS, ridge=1e-9), x, voices, 3)
    parts = [x[torch.from_numpy(voices == v)] for v in range(5)]
    within = torch.stack([torch.cov(p.mT, correction=0) for p in parts]).mean(0)
    between = torch.cov(torch.stack([p.mean(0) for p in parts]).mT, correction=0)
    v = encoder.projection
    found = (v.mT @ between @ v).diagonal() / (v.mT @ within @ v).diagonal()
    best = torch.linalg.eigvals(torch.linalg.solve(within, between)).real.sort(descending=True)
    torch.testing.assert_close(found, best.values[:3])


def test_there_are_fewer_discriminants_than_voices() -> None:
    x, voices = two_voices(60, 0)
    with pytest.raises(ValueError, match=r"3 voices have at most 2 .* got model\.reference=3"):
        ReferenceEncoder.fit(HEARS, x, voices, 3)


def test_what_is_heard_depends_neither_on_loudness_rate_nor_silence_around_a_clip() -> None:
    clip = tones(1)[0]
    quiet = Clip(0.1 * clip.samples, clip.rate)
    silent = torch.zeros(1, 320)
    longer = Clip(torch.cat([silent, clip.samples, silent], 1), clip.rate)
    stereo = Clip(clip.samples.repeat(2, 1), clip.rate)
    base, *others = HEARS.heard([clip, quiet, longer, stereo])
    torch.testing.assert_close(others[0], base, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(others[2], base)
    assert float((others[1] - base).abs().max()) < 0.6 * float(
        (HEARS.heard([tones(2)[1]])[0] - base).abs().max()
    )


def test_a_silent_reference_and_none_are_refused() -> None:
    silence = Clip(torch.zeros(1, 100), 800)
    with pytest.raises(ValueError, match="reference 1 is silent"):
        listener()([tones(1)[0], silence])
    with pytest.raises(ValueError, match="at least one clip"):
        listener()([])
    with pytest.raises(ValueError, match="loud must lie in"):
        ReferenceConfig(loud=2.0)


def test_others_are_of_the_same_voice_and_never_the_clip_itself() -> None:
    voices = np.array(["a", "b", "a", "b", "b", "a", "a"])
    one_hot = torch.eye(7)
    others = Others([one_hot, -one_hot], voices)
    rows = np.arange(7)
    seen = torch.zeros(7, 7)
    for key in range(200):
        seen += others.draw(rows, 0, Noise(key)) > 0
    same = torch.from_numpy(voices[:, None] == voices) & ~torch.eye(7).bool()
    assert torch.equal(seen > 0, same)
    # evenly: each of the others about as often
    for i in range(7):
        counts = seen[i][same[i]]
        assert float(counts.max()) < 1.5 * float(counts.min())
    assert bool((others.draw(rows, 1, Noise(0)) <= 0).all())


def test_one_to_three_others_make_a_vector_together() -> None:
    others = Others([torch.eye(30)], np.array(["a"] * 30))
    drawn = torch.cat([others.draw(np.arange(30), 0, Noise(k)) for k in range(20)])
    counts = (drawn > 0).sum(1)
    assert set(counts.tolist()) == {1, 2, 3}
    torch.testing.assert_close(drawn.square().mean(1), torch.ones(len(drawn)))
    share = (counts == 1).float().mean()
    assert abs(float(share) - 1 / 3) < 0.08


def test_a_voice_of_one_clip_has_no_other() -> None:
    with pytest.raises(ValueError, match="'b' has one clip only"):
        Others([torch.eye(3)], np.array(["a", "b", "a"]))


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_faster_clip_is_shorter_and_higher(factor: float) -> None:
    t = torch.arange(800) / 800
    clip = at_speed(Clip(torch.sin(2 * torch.pi * 100 * t)[None], 800), factor)
    n = clip.samples.shape[1]
    assert clip.rate == 800 and abs(n - 800 / factor) <= 1
    peak = torch.fft.rfft(clip.samples[0]).abs().argmax() * 800 / n
    assert abs(float(peak) - 100 * factor) < 1.5


def test_training_hears_another_clip_of_the_same_voice_at_the_same_speed() -> None:
    config = configured(speeds=(1.0, 1.25))
    config = replace(config, model=replace(config.model, reference=3))
    task = AudioTask(config, tones(24))
    assert task.listener is not None and task.others is not None
    voices = task.labels["pitch"]
    # what is heard of the other voice, and of the same one at the other speed, lies apart
    for key in range(6):
        state, cond = task.batch(np.arange(24), key, CPU)
        speed = int(state["mel"].shape[1] < 14)
        centres = {
            (v, s): task.others.vectors[s][torch.from_numpy(voices == v)].mean(0)
            for v in ("low", "high")
            for s in (0, 1)
        }
        for vector, voice in zip(cond["reference"], voices, strict=True):
            if bool(vector.any()):
                near = max(centres, key=lambda k: float(vector @ centres[k]))
                assert near == (voice, speed)


def test_references_are_dropped_by_themselves_and_come_back_for_the_same_key() -> None:
    config = configured()
    config = replace(config, objective=replace(config.objective, drop_each=0.3))
    task, rows = AudioTask(config, tones(300), tones(20, seed=1)), np.arange(300)
    (_, one), (_, two) = task.batch(rows, 1, CPU), task.batch(rows, 1, CPU)
    assert torch.equal(one["reference"], two["reference"])
    dropped = ~one["reference"].any(1)
    assert abs(float(dropped.float().mean()) - 0.3) < 0.08
    assert bool((one["attack"][dropped] < 2).any())
    assert task.validate(task.model(), 0)["loss"] > 0


def test_clips_are_left_out_by_their_labels(tmp_path: Path) -> None:
    clips = tones(12)
    Clips([c.normalised() for c in clips], clips.labels).save(tmp_path / "tone.wav")
    source = str(tmp_path)
    left = DataConfig(source=source, without=("pitch=low", "attack=1")).load()
    assert set(left.labels["pitch"]) == {"high"}
    assert set(left.labels["attack"].astype(str)) == {"0"}
    assert len(DataConfig(source=source).load()) == 12
    with pytest.raises(ValueError, match="without: speaker=theo: labels of the clips: pitch"):
        DataConfig(source=source, without=("speaker=theo",)).load()
    with pytest.raises(ValueError, match="rules such as"):
        DataConfig(without=("theo",))
    with pytest.raises(ValueError, match="speeds must hold positive"):
        DataConfig(speeds=(1.0, 0.0))


def test_a_model_of_references_needs_to_know_which_clips_are_alike() -> None:
    config = configured()
    lacking = replace(config, data=replace(config.data, reference=None))
    with pytest.raises(ValueError, match=r"model\.reference is 1, data\.reference is None"):
        AudioTask(lacking, tones())
    unknown = replace(config, data=replace(config.data, reference="speaker"))
    with pytest.raises(ValueError, match="names 'speaker'; labels of the clips: pitch, attack"):
        AudioTask(unknown, tones())


@pytest.fixture(scope="module")
def imitator() -> AudioModel:
    model = shaken(reference=3)
    return replace(model, listener=listener())


def same(a: Clips, b: Clips) -> bool:
    return all(torch.equal(x.samples, y.samples) for x, y in zip(a, b, strict=True))


def test_a_reference_acts_and_may_be_a_clip_a_file_or_its_vector(
    imitator: AudioModel, tmp_path: Path
) -> None:
    one, two = (clip.normalised() for clip in tones(2))
    file = one.save(tmp_path / "one.wav")
    assert imitator.attributes == ("pitch", "attack", "reference")

    def made(reference: object) -> Clips:
        given = {"pitch": "low", "attack": 0, "reference": reference}
        return imitator.sample(2, given, seconds=0.1, steps=2, progress=False)

    base, vector = made(one), listener()([one])
    assert same(base, made([one, one])) and same(base, made(vector)) and same(base, made(vector[0]))
    assert not same(base, made(two)) and not same(base, made(None))
    # 16 bits of a file
    difference = made(file)[0].samples - base[0].samples
    assert float(difference.abs().max()) < 0.01
    assert same(made(str(file)), made(file))
    mixed = made([one, None])
    assert torch.equal(mixed[0].samples, base[0].samples)
    assert torch.equal(mixed[1].samples, made(None)[1].samples)


def test_several_clips_of_a_voice_make_one_reference(imitator: AudioModel) -> None:
    assert imitator.listener is not None
    clips = tones(4).clips
    vector = imitator.listener.together(clips)
    assert vector.shape == (3,) and abs(float(vector.square().mean()) - 1) < 1e-5
    mean = imitator.listener(clips).mean(0)
    torch.testing.assert_close(vector / vector.norm(), mean / mean.norm())


def test_wrong_references_are_refused(imitator: AudioModel) -> None:
    with pytest.raises(ValueError, match="given holds reference, but this model was trained"):
        shaken().sample(1, {"reference": tones(1)[0]})
    with pytest.raises(ValueError, match="the model has no listener"):
        shaken(reference=3).sample(1, {"reference": tones(1)[0]})
    with pytest.raises(ValueError, match="reference has 2 values for 3 samples"):
        imitator.sample(3, {"reference": tones(2)})
    with pytest.raises(ValueError, match="must be a clip, a file of one, None or a tensor"):
        imitator.sample(1, {"reference": 5})
    with pytest.raises(ValueError, match="reference must have 3 features"):
        imitator.sample(1, {"reference": torch.zeros(1, 4)})
    with pytest.raises(FileNotFoundError, match=r"no file nowhere\.wav"):
        imitator.sample(1, {"reference": "nowhere.wav"})
    with pytest.raises(ValueError, match="makes vectors of 2 numbers, but the network takes 3"):
        replace(imitator, listener=listener(2))


def test_the_listener_is_part_of_the_file_and_of_a_trained_model(tmp_path: Path) -> None:
    config = configured()
    model, _ = train(replace(config, train=replace(config.train, steps=2)), tmp_path, tones())
    assert isinstance(model, AudioModel)
    again = load(tmp_path / "model.safetensors")
    assert isinstance(again, AudioModel)
    assert model.listener is not None and again.listener is not None
    clips = tones(3, seed=5)
    assert torch.equal(model.listener(clips), again.listener(clips))
    assert again.listener.config == HEARS


def test_the_command_line_takes_the_file_of_a_reference(
    imitator: AudioModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = imitator.save(tmp_path / "m.safetensors")
    for i, clip in enumerate(tones(2)):
        clip.normalised().save(tmp_path / f"{i}.wav")

    def said(reference: Path) -> Clip:
        out = tmp_path / "out.wav"
        asked = ["--pitch", "low", "--attack", "0", "--reference", str(reference)]
        made = ["--model", str(model), "--out", str(out), "--steps", "2"]
        assert main(["sample", "audio", *asked, *made]) == 0
        return Clip.read(out)

    one, two = said(tmp_path / "0.wav"), said(tmp_path / "1.wav")
    assert torch.equal(one.samples, said(tmp_path / "0.wav").samples)
    assert one.samples.shape != two.samples.shape or not torch.equal(one.samples, two.samples)
    assert (
        main(["sample", "audio", "--model", str(model), "--out", "x.wav", "--referenz", "y"]) == 2
    )
    assert "Did you mean '--reference'?" in capsys.readouterr().err


def test_text_may_be_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    from sciffusion.domains.audio import asking
    from sciffusion.text import StaticEncoder

    table = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    letters = StaticEncoder(table, lambda text: list(text.encode()), "letters", 200)
    monkeypatch.setattr(asking, "wordllama", lambda: letters)
    model = shaken(text=8)
    assert model.attributes == ("pitch", "attack", "text")
    cond = model.condition({"text": ["low", None, "a high voice"]}, 3)
    assert cond["text_mask"].sum(1).tolist() == [3, 0, 12]
    torch.testing.assert_close(cond["text"][0, :3], letters.encode(["low"])[0][0])
    single = model.condition({"text": "low"}, 2)
    assert single["text_mask"].sum(1).tolist() == [3, 3]
    assert not bool(model.condition({}, 2)["text_mask"].any())
    with pytest.raises(ValueError, match="text must be a text, None or a tensor, got int"):
        model.condition({"text": 5}, 1)
    with pytest.raises(ValueError, match="takes tokens of width 4, not texts"):
        shaken(text=4).condition({"text": "low"}, 1)
