// MIDI files as piano rolls, and back: the rules of keras_gated.datasets.midi.

import { parseMidi, writeMidi } from "midi-file";

export const KEYS = 88;
const LOWEST = 21, DRUMS = 9, OCTAVE = 12;

const modulo = (x, n) => ((x % n) + n) % n;
const sum = (values) => values.reduce((a, b) => a + b, 0);

/** A file: its notes and meters in ticks, and itself, to be written again. */
export function read(bytes) {
  const file = parseMidi(bytes);
  if (!file.header.ticksPerBeat)
    throw new Error("The file counts in seconds, not in quarter notes.");
  const notes = [], meters = [], keys = [], tempi = [], programs = {};
  for (const track of file.tracks) {
    const sounding = new Map();
    let tick = 0;
    for (const event of track) {
      tick += event.deltaTime;
      const { type, channel } = event;
      if (type === "timeSignature") meters.push({ tick, ...event });
      if (type === "keySignature" && Math.abs(event.key) <= 7) keys.push({ tick, ...event });
      if (type === "setTempo") tempi.push({ tick, micro: event.microsecondsPerBeat });
      if (type === "programChange") programs[channel] = event.programNumber;
      if ((type !== "noteOn" && type !== "noteOff") || channel === DRUMS) continue;
      const key = channel * 128 + event.noteNumber;
      if (sounding.has(key)) sounding.get(key).end = tick; // struck again, or released
      sounding.delete(key);
      if (type === "noteOn" && event.velocity > 0) {
        const { noteNumber: pitch, velocity } = event;
        const note = { start: tick, end: null, pitch, velocity, channel };
        sounding.set(key, note);
        notes.push(note);
      }
    }
  }
  const released = notes.filter(({ end }) => end !== null);
  if (!released.length) throw new Error("The file has no notes but those of drums.");
  for (const list of [meters, keys, tempi]) list.sort((a, b) => a.tick - b.tick);
  return { file, notes: released, meters, keys, tempi, programs };
}

/** The line of the grid that is nearest to a tick, halves up, in whole numbers. */
export function line(tick, piece, [steps, quarters]) {
  const ticks = quarters * piece.file.header.ticksPerBeat; // those of `steps` steps
  return Math.floor((2 * tick * steps + ticks) / (2 * ticks));
}

/** The semitones to C major or C minor: as the file says, else by its notes. */
export function toC(piece, profiles) {
  let tonic;
  if (piece.keys.length) {
    const { key, scale } = piece.keys[0];
    tonic = modulo(7 * key + (scale ? 9 : 0), OCTAVE);
  } else {
    const heard = new Array(OCTAVE).fill(0);
    for (const { pitch, start, end } of piece.notes) heard[pitch % OCTAVE] += end - start;
    const scores = profiles.flatMap((profile) => heard.map((_, tonic) => correlation(
      heard, heard.map((_, k) => profile[modulo(k - tonic, OCTAVE)]))));
    tonic = scores.indexOf(Math.max(...scores)) % OCTAVE;
  }
  return tonic <= OCTAVE / 2 ? -tonic : OCTAVE - tonic;
}

function correlation(x, y) {
  const center = (values) => values.map((v) => v - sum(values) / values.length);
  const [a, b] = [center(x), center(y)];
  const dot = (p, q) => sum(p.map((v, k) => v * q[k]));
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Frames of zeros and ones; with onsets a second half, of keys that are struck again. */
export function toRoll(piece, about, semitones, steps) {
  const width = about.onsets ? 2 * KEYS : KEYS;
  const roll = Array.from({ length: steps }, () => new Float32Array(width));
  const begins = new Set();
  for (const { start, end, pitch } of piece.notes) {
    const key = pitch + semitones - LOWEST;
    const [first, last] = [start, end].map((t) => line(t, piece, about.steps_per_quarter));
    if (key < 0 || key >= KEYS || last <= first) continue;
    begins.add(first * KEYS + key);
    for (let t = first; t < Math.min(last, steps); t++) roll[t][key] = 1;
  }
  if (about.onsets)
    for (const place of begins) {
      const [t, key] = [Math.floor(place / KEYS), place % KEYS];
      if (t > 0 && t < steps && roll[t - 1][key]) roll[t][KEYS + key] = 1;
    }
  return roll;
}

/** Where music goes on for some bars: the first step at or after a bar line, and steps. */
export function seam(piece, bars, [steps, quarters]) {
  const { ticksPerBeat } = piece.file.header;
  const step = (quarters * ticksPerBeat) / steps;
  // A played note may end an eighth of a quarter after the bar.
  const end = Math.max(...piece.notes.map((note) => note.end)) - ticksPerBeat / 8;
  const usual = { tick: 0, numerator: 4, denominator: 4 };
  const meter = piece.meters.filter(({ tick }) => tick <= Math.max(end, 0)).pop() ?? usual;
  const bar = (4 * ticksPerBeat * meter.numerator) / meter.denominator;
  const begin = meter.tick + Math.max(0, Math.ceil((end - meter.tick) / bar)) * bar;
  const first = Math.ceil(begin / step);
  return { first, count: Math.max(1, Math.floor((begin + bars * bar) / step) - first) };
}

/** Notes of frames that begin at a step. */
export function toNotes(frames, about, semitones, piece, begin) {
  const [steps, quarters] = about.steps_per_quarter;
  const length = (quarters * piece.file.header.ticksPerBeat) / steps;
  const notes = [];
  for (let key = 0; key < KEYS; key++) {
    let first = null;
    for (let t = 0; t <= frames.length; t++) {
      const on = t < frames.length && frames[t][key] > 0;
      const again = on && about.onsets && frames[t][KEYS + key] > 0;
      if (first !== null && (!on || again)) {
        const [start, end] = [first, t].map((x) => Math.round((begin + x) * length));
        notes.push({ start, end, pitch: key + LOWEST - semitones, velocity: 80 });
        first = null;
      }
      if (on && first === null) first = t;
    }
  }
  return notes;
}

/** The file as it was, and a track more. */
export function write(piece, notes) {
  const { file, programs } = piece;
  const count = new Map();
  for (const { channel } of piece.notes) count.set(channel, (count.get(channel) ?? 0) + 1);
  const most = [...count].sort((a, b) => b[1] - a[1])[0][0];
  const free = [...Array(16).keys()].find((c) => c !== DRUMS && !count.has(c)) ?? most;
  const events = notes.flatMap(({ start, end, pitch, velocity }) => [
    { tick: end, type: "noteOff", noteNumber: pitch, velocity: 0, channel: free },
    { tick: start, type: "noteOn", noteNumber: pitch, velocity, channel: free },
  ]);
  const order = { programChange: 0, noteOff: 1, noteOn: 2 };
  events.push({ tick: 0, type: "programChange", programNumber: programs[most] ?? 0, channel: free });
  events.sort((a, b) => a.tick - b.tick || order[a.type] - order[b.type]);
  let now = 0;
  const track = events.map(({ tick, ...event }) => {
    const deltaTime = tick - now;
    now = tick;
    return { deltaTime, ...event };
  });
  track.push({ deltaTime: 0, meta: true, type: "endOfTrack" });
  const tracks = [...file.tracks, track];
  const header = { ...file.header, format: 1, numTracks: tracks.length };
  return new Uint8Array(writeMidi({ header, tracks }));
}

/** Seconds of a tick, by the tempi of the file. */
export function seconds(tick, piece) {
  let [at, before, micro] = [0, 0, 500000];
  for (const change of piece.tempi) {
    if (change.tick >= tick) break;
    at += (change.tick - before) * micro;
    [before, micro] = [change.tick, change.micro];
  }
  return (at + (tick - before) * micro) / (1e6 * piece.file.header.ticksPerBeat);
}
