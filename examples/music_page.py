"""A page of candidates side by side: the roll, a player. One file, no network."""

import base64
import html
from pathlib import Path
from typing import NamedTuple

KEY_HEIGHT, SECOND_WIDTH = 4, 24
"""Pixels."""
COLORS = [
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#8c564b",
    "#e377c2",
    "#17becf",
]
PALE = 0.35
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 1.5rem; color: #222; }}
main {{
  display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(28rem, 100%), 1fr));
}}
section {{ min-width: 0; }}
h2 {{ font-size: 1rem; margin: 0 0 .3rem; }}
.roll {{ overflow-x: auto; border: 1px solid #ccc; background: #fff; }}
svg {{ display: block; cursor: pointer; }}
audio {{ width: 100%; margin-top: .4rem; }}
.voices {{ display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin-top: .4rem; }}
</style>
<h1>{title}</h1>
<p>{about}</p>
<main>
{candidates}
</main>
<script>
for (const section of document.querySelectorAll("section")) {{
  const audio = section.querySelector("audio"), svg = section.querySelector("svg");
  const cursor = svg.querySelector(".cursor"), roll = section.querySelector(".roll");
  const begin = Number(section.dataset.begin), width = {width};
  const follow = () => {{
    const x = audio.currentTime * width;
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    if (x < roll.scrollLeft || x > roll.scrollLeft + roll.clientWidth - 20)
      roll.scrollLeft = x - roll.clientWidth / 3;
    if (!audio.paused) requestAnimationFrame(follow);
  }};
  audio.addEventListener("play", () => {{
    for (const other of document.querySelectorAll("audio"))
      if (other !== audio) other.pause();
    follow();
  }});
  audio.addEventListener("seeked", follow);
  svg.addEventListener("click", (event) => {{
    audio.currentTime = (event.clientX - svg.getBoundingClientRect().left) / width;
  }});
  section.querySelector("button").addEventListener("click", () => {{
    audio.currentTime = Math.max(0, begin - 4);
    audio.play();
  }});
  roll.scrollLeft = begin * width - roll.clientWidth / 3;
}}
</script>
</html>
"""
SECTION = """<section data-begin="{begin}">
<h2>{title}</h2>
<div class="roll"><svg width="{width}" height="{height}">
{octaves}
{notes}
<line x1="{seam}" x2="{seam}" y1="0" y2="{height}" stroke="#d62728"/>
<line class="cursor" x1="0" x2="0" y1="0" y2="{height}" stroke="#000"/>
</svg></div>
<audio controls preload="metadata" src="data:audio/mpeg;base64,{sound}"></audio>
<button>from four seconds before the new notes</button>
<div class="voices">{voices}</div>
</section>"""


class Note(NamedTuple):
    """A note of the page."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""
    pitch: int
    """The MIDI pitch."""
    voice: int
    """The number of its voice."""
    new: bool
    """Whether it is the model's."""


class Candidate(NamedTuple):
    """What the page shows of a candidate."""

    title: str
    """A line above it."""
    notes: list[Note]
    """Its notes."""
    voices: list[str]
    """The names of the voices."""
    begin: float
    """Where the new notes begin, in seconds."""
    sound: bytes
    """An MP3 file."""


def write(path: Path, title: str, about: str, candidates: list[Candidate]) -> None:
    """Writes the page.

    Args:
        path: The file to write.
        title: Its title.
        about: A sentence below.
        candidates: What it shows, in this order.
    """
    page = PAGE.format(
        title=html.escape(title),
        about=html.escape(about),
        candidates="\n".join(map(_section, candidates)),
        width=SECOND_WIDTH,
    )
    path.write_text(page, encoding="utf-8")


def _section(candidate: Candidate) -> str:
    pitches = [note.pitch for note in candidate.notes] or [60]
    highest, lowest = max(pitches) + 2, min(pitches) - 2
    seconds = max((note.end for note in candidate.notes), default=0) + 1

    def color(voice: int) -> str:
        return COLORS[voice % len(COLORS)]

    notes = "\n".join(
        f'<rect x="{SECOND_WIDTH * note.start:.1f}" '
        f'y="{KEY_HEIGHT * (highest - note.pitch)}" '
        f'width="{max(1.0, SECOND_WIDTH * (note.end - note.start) - 0.5):.1f}" '
        f'height="{KEY_HEIGHT}" fill="{color(note.voice)}" '
        f'opacity="{1 if note.new else PALE}"/>'
        for note in candidate.notes
    )
    width, height = round(SECOND_WIDTH * seconds), KEY_HEIGHT * (highest - lowest)
    octaves = "\n".join(
        f'<line x2="{width}" y1="{y}" y2="{y}" stroke="#eee"/>'
        for pitch in range(lowest, highest)
        if pitch % 12 == 0
        for y in [KEY_HEIGHT * (highest - pitch + 1)]
    )
    voices = "\n".join(
        f'<span style="color: {color(n)}">{html.escape(name)}</span>'
        for n, name in enumerate(candidate.voices)
    )
    return SECTION.format(
        begin=round(candidate.begin, 3),
        title=html.escape(candidate.title),
        width=width,
        height=height,
        octaves=octaves,
        notes=notes,
        seam=round(SECOND_WIDTH * candidate.begin, 1),
        sound=base64.b64encode(candidate.sound).decode(),
        voices=voices,
    )
