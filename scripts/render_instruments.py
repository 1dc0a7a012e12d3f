"""Render the embedded `instruments` data set: ten families, 60 notes each, from two MIT-licensed soundfonts.

    apt-get install fluidsynth fluid-soundfont-gm musescore-general-soundfont
    python scripts/render_instruments.py

The same soundfonts and the same versions of fluidsynth and libsndfile make the same files, byte for byte.
"""

import csv
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

OUT = Path(__file__).resolve().parents[1] / "core" / "datasets" / "data" / "instruments"
SOUNDFONTS = {
    "fluidr3": Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": Path("/usr/share/sounds/sf3/MuseScore_General.sf3"),
}
SR = 16_000  # Hz, as stored
RENDER_SR = 48_000  # Hz: fluidsynth's interpolation aliases, so it runs high and soxr comes down
DURATION = 1.5  # seconds, as stored
HELD_MS = 1100  # milliseconds between note on and note off
SLOT_MS = 4000  # milliseconds from note to note: the longest release has died away
FADE_MS = 30  # milliseconds of fade at the end, against a click
FULL = 0.8  # peak of a note at velocity 127; softer ones in proportion, whatever the soundfont's own balance
QUALITY = 0.65  # libsndfile's compression level: 0 is the best quality, 1 the smallest file
VELOCITIES = (50, 75, 100, 127)
FOLDS = 5
PER_FOLD = 12  # notes of a family in a fold
SEED = 0

# GM program (0-based): name, lowest and highest MIDI note it plausibly plays. Voice lead and choir pad are one singer,
# with a recording an octave: the lead plays the low ones, the pad the high ones, and no recording is in both. Celesta
# and xylophone keep to high pitches, where no note of theirs is nearly the pure tone of another program.
FAMILIES: dict[str, dict[int, tuple[str, int, int]]] = {
    "bass": {
        32: ("acoustic bass", 28, 58),
        33: ("fingered bass", 28, 60),
        34: ("picked bass", 28, 60),
        35: ("fretless bass", 28, 60),
        36: ("slap bass 1", 28, 58),
        37: ("slap bass 2", 28, 58),
        38: ("synth bass 1", 28, 64),
        39: ("synth bass 2", 28, 64),
    },
    "brass": {
        56: ("trumpet", 54, 84),
        57: ("trombone", 40, 72),
        58: ("tuba", 28, 58),
        59: ("muted trumpet", 54, 82),
        60: ("french horn", 38, 74),
        61: ("brass section", 38, 80),
        62: ("synth brass 1", 36, 84),
        63: ("synth brass 2", 36, 84),
    },
    "flute": {
        72: ("piccolo", 74, 96),
        73: ("flute", 60, 92),
        74: ("recorder", 60, 88),
        75: ("pan flute", 55, 88),
        76: ("blown bottle", 48, 84),
        77: ("shakuhachi", 50, 84),
        78: ("whistle", 60, 92),
        79: ("ocarina", 57, 84),
    },
    "guitar": {
        24: ("nylon guitar", 40, 82),
        25: ("steel guitar", 40, 84),
        26: ("jazz guitar", 40, 84),
        27: ("clean guitar", 40, 84),
        28: ("muted guitar", 40, 80),
        29: ("overdriven guitar", 40, 84),
        30: ("distortion guitar", 40, 84),
        31: ("guitar harmonics", 36, 64),
    },
    "keyboard": {
        0: ("grand piano", 28, 96),
        1: ("bright piano", 28, 96),
        2: ("electric grand", 28, 96),
        3: ("honky-tonk piano", 36, 92),
        4: ("electric piano 1", 33, 92),
        5: ("electric piano 2", 33, 92),
        6: ("harpsichord", 36, 88),
        7: ("clavinet", 36, 84),
    },
    "mallet": {
        8: ("celesta", 84, 95),
        9: ("glockenspiel", 67, 96),
        10: ("music box", 60, 92),
        11: ("vibraphone", 53, 89),
        12: ("marimba", 40, 88),
        13: ("xylophone", 72, 99),
        14: ("tubular bells", 55, 79),
        114: ("steel drums", 48, 84),
    },
    "organ": {
        16: ("drawbar organ", 36, 92),
        17: ("percussive organ", 36, 92),
        18: ("rock organ", 36, 92),
        19: ("church organ", 36, 92),
        20: ("reed organ", 36, 88),
    },
    "reed": {
        64: ("soprano sax", 56, 86),
        65: ("alto sax", 49, 80),
        66: ("tenor sax", 44, 76),
        67: ("baritone sax", 36, 70),
        68: ("oboe", 58, 90),
        69: ("english horn", 52, 82),
        70: ("bassoon", 34, 72),
        71: ("clarinet", 50, 90),
    },
    "string": {
        40: ("violin", 55, 96),
        41: ("viola", 48, 86),
        42: ("cello", 36, 78),
        43: ("contrabass", 28, 55),
        44: ("tremolo strings", 36, 90),
        45: ("pizzicato strings", 36, 90),
        48: ("string ensemble 1", 36, 90),
        49: ("string ensemble 2", 36, 90),
    },
    "vocal": {
        52: ("choir aahs", 41, 84),
        53: ("voice oohs", 41, 84),
        54: ("synth voice", 41, 84),
        85: ("voice lead", 43, 60),
        91: ("choir pad", 61, 84),
    },
}

# Programs that play the same recordings: their preset's sample zones, within the pitches and velocities played here,
# name a common sample. MuseScore General took most of its samples from FluidR3, so a program is one group in both;
# pianos and string ensembles are the exception, recorded anew (Yamaha P200 and Splendid Grand, "Strings" and
# "Basses .. Violins"). Blown bottle is also the attack of voice lead. Every other program is a group by itself.
SHARED: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "000-fluidr3": ((0, 1, 3), ("fluidr3",)),
    "000-musescore": ((0, 1, 3), ("musescore",)),
    "038": ((38, 39), ("fluidr3", "musescore")),
    "044-fluidr3": ((44, 48, 49), ("fluidr3",)),
    "044-musescore": ((44,), ("musescore",)),
    "048-musescore": ((48, 49), ("musescore",)),
    "062": ((62, 63), ("fluidr3", "musescore")),
    "076": ((76, 85), ("fluidr3", "musescore")),
}

# Groups in folds 1 to 5. Groups whose high notes come out as nearly the same pure tone share a fold where they can.
FOLD_GROUPS: dict[str, tuple[str, ...]] = {
    "bass": ("032 037", "038", "033 034", "035", "036"),
    "brass": ("056 061", "062", "059", "057 058", "060"),
    "flute": ("072 077", "073 078", "074 079", "075", "076"),
    "guitar": ("024 029", "025 030", "026 031", "027", "028"),
    "keyboard": ("000-fluidr3", "000-musescore", "002 007", "004", "005 006"),
    "mallet": ("008 013", "011", "010 114", "009 014", "012"),
    "organ": ("016", "017", "018", "019", "020"),
    "reed": ("064 069", "065 070", "066 071", "067", "068"),
    "string": ("040 045", "044-fluidr3", "041 042", "043", "044-musescore 048-musescore"),
    "vocal": ("052", "053", "054", "091", "076"),
}


@dataclass(frozen=True)
class Note:
    """One row of the data set's table."""

    path: str
    label: str
    fold: int
    group: str  # of programs that play the same recordings: the lowest one's number, and the soundfont if but one's
    gm: int  # GM program, 0-based
    program: str
    soundfont: str
    pitch: int  # MIDI note number
    velocity: int


def group_of(program: int, soundfont: str) -> str:
    """Name the group of recordings that a soundfont's program plays."""
    for group, (programs, soundfonts) in SHARED.items():
        if program in programs and soundfont in soundfonts:
            return group
    return f"{program:03d}"


def plan_notes() -> Iterator[Note]:
    """Decide every note: pitches cover a program's range, soundfonts alternate, and a group is in one fold."""
    rng = np.random.default_rng(SEED)
    for family, programs in FAMILIES.items():
        fold_of = {group: fold for fold, groups in enumerate(FOLD_GROUPS[family], 1) for group in groups.split()}
        for first in range(FOLDS):  # five rounds of twelve notes each, of one program or two
            here = list(programs.items())[first::FOLDS]
            for program, (name, low, high) in here:
                n_notes = PER_FOLD // len(here)
                edges = np.linspace(low, high + 1, n_notes + 1).astype(int)
                pitches = [int(rng.integers(start, stop)) for start, stop in zip(edges, edges[1:], strict=False)]
                for i, pitch in enumerate(pitches):
                    soundfont = list(SOUNDFONTS)[(i + program) % len(SOUNDFONTS)]
                    path = f"{family}/{program:03d}-{soundfont}-{pitch:03d}.ogg"
                    group, velocity = group_of(program, soundfont), int(rng.choice(VELOCITIES))
                    yield Note(path, family, fold_of[group], group, program, name, soundfont, pitch, velocity)


def midi(notes: list[Note]) -> bytes:
    """Write a standard MIDI file (one track, one tick a millisecond) that plays the notes one after another."""

    def delta(ticks: int) -> bytes:
        digits = [ticks & 0x7F]
        while ticks := ticks >> 7:
            digits.append(ticks & 0x7F | 0x80)
        return bytes(reversed(digits))

    track = delta(0) + b"\xff\x51\x03" + (1_000_000).to_bytes(3, "big")  # a quarter note lasts a second
    for note in notes:
        track += delta(0) + bytes([0xC0, note.gm]) + delta(0) + bytes([0x90, note.pitch, note.velocity])
        track += delta(HELD_MS) + bytes([0x80, note.pitch, 0])
        track += delta(SLOT_MS - HELD_MS) + bytes([0xB0, 120, 0])  # all sound off
    track += delta(0) + b"\xff\x2f\x00"
    header = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + (1000).to_bytes(2, "big")
    return header + b"MTrk" + len(track).to_bytes(4, "big") + track


def render(soundfont: Path, notes: list[Note]) -> list[np.ndarray]:
    """Play the notes with fluidsynth, dry, and return one mono waveform (samples,) at `SR` for each.

    A note's loudness follows its velocity alone: how loud a soundfont made a program tells nothing about the family.
    """
    with tempfile.TemporaryDirectory() as folder:
        score, sound = Path(folder) / "notes.mid", Path(folder) / "notes.wav"
        score.write_bytes(midi(notes))
        command = ["fluidsynth", "-n", "-i", "-q", "-R", "0", "-C", "0", "-r", str(RENDER_SR)]
        command += ["-T", "wav", "-O", "float", "-F", str(sound), str(soundfont), str(score)]
        subprocess.run(command, check=True, capture_output=True)
        played = soundfile.read(sound, dtype="float32", always_2d=True)[0].mean(axis=1)
    slot = RENDER_SR * SLOT_MS // 1000
    length = int(SR * DURATION)
    fade = np.ones(length, dtype=np.float32)
    n_fade = SR * FADE_MS // 1000
    fade[-n_fade:] = np.linspace(1.0, 0.0, n_fade, dtype=np.float32)
    waveforms = []
    for i, note in enumerate(notes):
        y = soxr.resample(played[i * slot : (i + 1) * slot], RENDER_SR, SR)[:length] * fade
        if (peak := np.abs(y).max()) < 1e-4:
            raise SystemExit(f"{note.path}: {soundfont.name} does not play this pitch; narrow the program's range")
        waveforms.append(y * (FULL * note.velocity / 127 / peak))
    return waveforms


def ogg_crc(page: bytes) -> int:
    """Return the checksum of an Ogg page whose own checksum field is zero (RFC 3533: polynomial 0x04c11db7)."""
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def fix_serial(path: Path) -> None:
    """Set the stream's serial number, which libsndfile draws at random, to 1, so that the bytes repeat."""
    old = path.read_bytes()
    new, start = b"", 0
    while start < len(old):
        segments = old[start + 26]
        table_end = start + 27 + segments
        stop = table_end + sum(old[start + 27 : table_end])
        head = old[start : start + 14] + (1).to_bytes(4, "little") + old[start + 18 : start + 22]
        body = old[start + 26 : stop]
        new += head + ogg_crc(head + bytes(4) + body).to_bytes(4, "little") + body
        start = stop
    path.write_bytes(new)


def main() -> None:
    """Render every note and write the audio and the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    notes = list(plan_notes())
    for family in FAMILIES:
        shutil.rmtree(OUT / family, ignore_errors=True)
        (OUT / family).mkdir(parents=True)
    for name, soundfont in SOUNDFONTS.items():
        mine = [note for note in notes if note.soundfont == name]
        for note, y in zip(mine, render(soundfont, mine), strict=True):
            soundfile.write(OUT / note.path, y, SR, format="OGG", subtype="VORBIS", compression_level=QUALITY)
            fix_serial(OUT / note.path)
    with (OUT / "instruments.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(notes[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(note) for note in notes)
    size = sum(path.stat().st_size for path in OUT.rglob("*") if path.is_file())
    logging.info("%d notes, %.2f MB in %s", len(notes), size / 1e6, OUT)


if __name__ == "__main__":
    main()
