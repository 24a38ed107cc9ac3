"""Telephone tones (DTMF): a text of keys to sound, and sound back to the keys that were pressed.

Each key is two tones at once, one of four low and one of four high ones. Goertzel's algorithm tells how much of a
tone is in a piece of sound: one bin of a Fourier transform, in a few operations per sample.
"""

from __future__ import annotations

import math
import wave
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
KEYS = ("123A", "456B", "789C", "*0#D")
WINDOW_S = 0.02
LOUD = 0.02
"""The mean power, of at most 1, from which a window is taken for sound."""
PURE = 0.7
"""What part of a window's power the two strongest tones hold, if it is a key and no noise."""


class NotAudio(ValueError):
    """The file is no WAV file that this reads."""


@dataclass(frozen=True)
class Segment:
    """One key, and when it was held, in seconds from the beginning."""

    key: str
    start: float
    end: float


@dataclass(frozen=True)
class Window:
    """A short piece of sound: when it begins and ends, and the key in it, empty for silence and noise."""

    start: float
    end: float
    key: str


def length_s(path: Path) -> float:
    """How long a recording is.

    Raises:
        NotAudio: it is no WAV file with one channel of 16 bits.
    """
    with _opened(path) as recording:
        return recording.getnframes() / recording.getframerate()


def windows(path: Path) -> Iterator[Window]:
    """A recording, window by window; no more than one is in memory.

    Raises:
        NotAudio: it is no WAV file with one channel of 16 bits.
    """
    with _opened(path) as recording:
        rate = recording.getframerate()
        count = int(rate * WINDOW_S)
        position = 0
        while data := recording.readframes(count):
            samples = array("h", data)
            yield Window(position / rate, (position + len(samples)) / rate, key_of(samples, rate))
            position += len(samples)


def segments(found: Iterator[Window]) -> Iterator[Segment]:
    """Windows of the same key one after another are that key, held for so long; one window alone is a click."""
    key, start, end = "", 0.0, 0.0
    for window in found:
        if window.key != key:
            if key and end - start > WINDOW_S * 1.5:
                yield Segment(key, round(start, 3), round(end, 3))
            key, start = window.key, window.start
        end = window.end
    if key and end - start > WINDOW_S * 1.5:
        yield Segment(key, round(start, 3), round(end, 3))


def key_of(samples: Sequence[int], rate: int) -> str:
    """The key that sounds in these samples of 16 bits, empty if none does."""
    power = sum(sample * sample for sample in samples) / (len(samples) * 32768**2)
    if power < LOUD:
        return ""
    low = [goertzel(samples, rate, tone) for tone in LOW]
    high = [goertzel(samples, rate, tone) for tone in HIGH]
    # A tone of amplitude a has the power a*a/2, and Goertzel's result is a*a/4.
    if 2 * (max(low) + max(high)) < PURE * power:
        return ""
    return KEYS[low.index(max(low))][high.index(max(high))]


def goertzel(samples: Sequence[int], rate: int, tone: int) -> float:
    """The power of one tone in the samples, of at most 0.25."""
    factor = 2 * math.cos(2 * math.pi * tone / rate)
    before, last = 0.0, 0.0
    for sample in samples:
        before, last = last, sample + factor * last - before
    power = before * before + last * last - factor * before * last
    return power / (len(samples) * 32768) ** 2


def dial(keys: str, path: Path, *, key_s: float = 0.1, pause_s: float = 0.06, rate: int = 8000) -> Path:
    """Write the sound of keys being pressed; a space is a longer pause."""
    sound = array("h", bytes(2 * int(rate * pause_s)))
    for key in keys:
        if key != " ":
            sound.extend(_tone(key, int(rate * key_s), rate))
        sound.extend(array("h", bytes(2 * int(rate * pause_s))))
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(rate)
        recording.writeframes(sound.tobytes())
    return path


def _tone(key: str, count: int, rate: int) -> Iterator[int]:
    row = next(number for number, keys in enumerate(KEYS) if key in keys)
    low, high = LOW[row], HIGH[KEYS[row].index(key)]
    for n in range(count):
        angle = 2 * math.pi * n / rate
        yield int(14000 * (math.sin(low * angle) + math.sin(high * angle)))


def _opened(path: Path) -> wave.Wave_read:
    try:
        recording = wave.open(str(path), "rb")  # noqa: SIM115 - the caller closes it
    except (wave.Error, EOFError) as error:
        raise NotAudio(f"not a WAV file: {error}") from error
    if (recording.getnchannels(), recording.getsampwidth()) != (1, 2):
        recording.close()
        raise NotAudio("the recording needs one channel of 16 bits: ffmpeg -i IN -ac 1 -c:a pcm_s16le OUT.wav")
    return recording
