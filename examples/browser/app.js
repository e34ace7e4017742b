// The page: a file in, its continuation seen, heard and saved.

import { goOn, load } from "./model.js";
import { KEYS, read, seam, seconds, toC, toNotes, toRoll, write } from "./roll.js";

const element = (id) => document.getElementById(id);
const number = (id) => Number(element(id).value);
let model, piece, name, music, context;

function say(text, error = false) {
  element("message").textContent = text;
  element("message").className = error ? "error" : "";
}

/** What the model hears of the file, and how many steps it goes on for. */
function look() {
  const { about } = model;
  const semitones = about.transpose === "C" ? toC(piece, about.profiles) : about.transpose;
  const { first, count } = seam(piece, number("bars"), about.steps_per_quarter);
  return { semitones, first, count, before: toRoll(piece, about, semitones, first) };
}

/** Goes on with the file; also returns what came of it, for programs. */
async function run() {
  const { about } = model;
  const { semitones, first, count, before } = look();
  const began = performance.now();
  const show = (part) => {
    element("progress").value = part;
    return new Promise((resolve) => setTimeout(resolve)); // so that the page is drawn
  };
  const made = await goOn(model, before, count, number("temperature"), number("seed"), show);
  const milliseconds = performance.now() - began;
  const notes = toNotes(made, about, semitones, piece, first);
  const all = [...piece.notes, ...notes];
  music = all.map(({ start, end, pitch, velocity }) =>
    ({ pitch, velocity, start: seconds(start, piece), end: seconds(end, piece) }));
  plot([...before, ...made], first);
  const bytes = write(piece, notes);
  URL.revokeObjectURL(element("save").href);
  element("save").href = URL.createObjectURL(new Blob([bytes], { type: "audio/midi" }));
  element("save").download = name.replace(/(\.midi?)?$/i, " goes on.mid");
  return { before, made, semitones, notes, bytes, milliseconds };
}

function plot(frames, first) {
  const canvas = element("canvas"), width = 6, height = 4;
  [canvas.width, canvas.height] = [width * frames.length, height * KEYS];
  const paint = canvas.getContext("2d");
  frames.forEach((frame, t) => {
    paint.fillStyle = t < first ? "#999" : "#1f77b4";
    for (let key = 0; key < KEYS; key++)
      if (frame[key]) paint.fillRect(t * width, (KEYS - 1 - key) * height, width, height - 1);
  });
  paint.fillStyle = "#d62728";
  paint.fillRect(first * width - 1, 0, 2, canvas.height);
  element("roll").scrollLeft = first * width - element("roll").clientWidth / 2;
}

function play() {
  if (context) {
    context.close();
    context = null;
    element("play").textContent = "Play";
    return;
  }
  context = new AudioContext();
  element("play").textContent = "Stop";
  const begin = context.currentTime + 0.1;
  for (const { pitch, velocity, start, end } of music) {
    const tone = context.createOscillator(), gain = context.createGain();
    tone.type = "triangle";
    tone.frequency.value = 440 * 2 ** ((pitch - 69) / 12);
    const loud = (0.1 * velocity) / 127;
    gain.gain.setValueAtTime(0, begin + start);
    gain.gain.linearRampToValueAtTime(loud, begin + start + 0.01);
    gain.gain.setTargetAtTime(0, begin + end - 0.02, 0.03);
    tone.connect(gain).connect(context.destination);
    tone.start(begin + start);
    tone.stop(begin + end + 0.2);
  }
}

element("file").addEventListener("change", async ({ target: { files: [file] } }) => {
  element("go").disabled = true;
  if (!file) return;
  try {
    piece = read(new Uint8Array(await file.arrayBuffer()));
    name = file.name;
    say(`${name}: ${piece.notes.length} notes.`);
    element("go").disabled = !model;
  } catch (error) {
    say(`${file.name} cannot be read: ${error.message ?? error}`, true);
  }
});
element("go").addEventListener("click", async (event) => {
  event.preventDefault();
  element("go").disabled = true;
  element("progress").hidden = false;
  try {
    const { made, milliseconds } = await run();
    say(`${made.length} steps in ${(milliseconds / 1000).toFixed(1)} s.`);
    element("play").disabled = element("save").hidden = false;
  } catch (error) {
    say(`It did not go on: ${error.message ?? error}`, true);
  }
  element("progress").hidden = true;
  element("go").disabled = false;
});
element("play").addEventListener("click", play);

try {
  model = await load();
  say("Choose a file.");
} catch (error) {
  say(`The model does not load: ${error.message ?? error}`, true);
}
globalThis.page = { look, run, model };
