// The page: opens pictures, draws boxes and skeletons, and asks the server for poses, people and heatmaps.
import {
  boxAt, boxBetween, edgeToView, fitInto, keypointAt, keypointToView, keypointsOf, strokeWidth,
} from "./geometry.js";

const SMALLEST_DRAG = 5; // view pixels; less is a click
const REACH = 12; // view pixels around a keypoint
const BOXES_PER_QUESTION = 8; // so that the first poses show before the last are done
const RIM = "rgba(10, 14, 18, 0.85)";

const element = (id) => document.getElementById(id);
const canvas = element("canvas");
const stage = element("stage");

let about = null;
// The open picture: {key, name, width, height, image, reopen}, where reopen() hands it to the server once more.
let picture = null;
// People are never changed but replaced, so that an answer which comes late finds nobody to belong to:
// {box, boxScore, result, failed, heatmaps}; result is the COCO result, heatmaps a promise.
let people = [];
let chosen = -1; // index of the person shown in the heatmap; -1: nobody
let drag = null; // {from, to} in view pixels
let hovered = null; // {person, keypoint}
let asking = false;
let visit = 0; // counts pictures; an answer to a former one is dropped

// ---- the server

class Sentence extends Error {}

async function answer(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Sentence("The program behind this page does not answer. Is it still running?");
  }
  let content = {};
  try {
    content = await response.json();
  } catch {
    throw new Sentence("The program behind this page gave no readable answer.");
  }
  if (!response.ok) {
    const problem = new Sentence(content.error ?? "The program behind this page refused.");
    problem.isGone = response.status === 410;
    throw problem;
  }
  return content;
}

// An answer about the open picture. The server holds a limited number of pictures: one that had to go is handed in anew.
async function ask(path, question) {
  const subject = picture;
  const send = () => answer(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ picture: subject.key, ...question }),
  });
  try {
    return await send();
  } catch (problem) {
    if (!problem.isGone) throw problem;
    subject.key = (await subject.reopen()).picture;
    return send();
  }
}

function say(text) {
  element("status").textContent = text;
}

function complain(problem) {
  element("problem").textContent = problem instanceof Sentence ? problem.message : problem ? String(problem) : "";
  if (problem) say("");
}

// Does a piece of work that may fail with a sentence; the sentence goes on the page.
async function attempt(work) {
  try {
    await work();
  } catch (problem) {
    complain(problem);
  }
}

// ---- pictures

function openFile(file) {
  return attempt(async () => {
    const limit = about.limits.upload_bytes;
    if (file.size > limit) throw new Sentence(`${file.name}: larger than ${limit / 1e6} MB; make it smaller first`);
    await open(file.name, () => answer("api/pictures", {
      method: "POST",
      headers: { "X-File-Name": encodeURIComponent(file.name), "Content-Type": "application/octet-stream" },
      body: file,
    }));
  });
}

function openExample(number) {
  return attempt(() => open(`example ${number + 1}`, () => answer(`api/examples/${number}`, { method: "POST" }), number));
}

async function open(name, reopen, example = -1) {
  const mine = ++visit;
  complain(null);
  say(`Opening ${name} ...`);
  const opened = await reopen();
  const image = new Image();
  image.src = `api/pictures/${opened.picture}/preview`;
  try {
    await image.decode();
  } catch {
    throw new Sentence(`${name}: the picture could not be shown`);
  }
  if (mine !== visit) return;
  picture = { key: opened.picture, name: opened.name, width: opened.width, height: opened.height, image, reopen };
  people = opened.boxes.map((box) => newPerson(box));
  chosen = people.length ? 0 : -1;
  drag = hovered = null;
  element("examples").querySelectorAll("button").forEach((button, index) => {
    button.setAttribute("aria-pressed", String(index === example));
  });
  stage.classList.add("filled");
  element("invitation").hidden = true;
  say(`${picture.name}, ${picture.width} x ${picture.height} pixels.${people.length ? "" : " Draw a box around a person."}`);
  layOut();
  peopleChanged();
}

// ---- people

function newPerson(box, boxScore = 1) {
  return { box, boxScore, result: null, failed: false, heatmaps: null };
}

function replacePeople(next, nextChosen) {
  people = next;
  chosen = Math.min(nextChosen, people.length - 1);
  complain(null);
  peopleChanged();
}

function peopleChanged() {
  hovered = null;
  listPeople();
  update();
  askForPoses();
}

async function askForPoses() {
  if (asking) return;
  asking = true;
  let seconds = 0;
  let found = 0;
  try {
    for (;;) {
      const waiting = people.filter((person) => !person.result && !person.failed).slice(0, BOXES_PER_QUESTION);
      if (!waiting.length) break;
      const mine = visit;
      say(`Looking for the poses of ${waiting.length} ${waiting.length === 1 ? "person" : "people"} ...`);
      try {
        const { results, seconds: taken } = await ask("api/poses", {
          boxes: waiting.map((person) => person.box),
          box_scores: waiting.map((person) => person.boxScore),
          flip_test: element("flip").checked,
        });
        results.forEach((result, index) => { waiting[index].result = result; });
        seconds += taken;
        found += results.length;
      } catch (problem) {
        waiting.forEach((person) => { person.failed = true; });
        if (mine === visit) complain(problem);
      }
      if (mine !== visit) continue;
      showScores();
      update();
    }
  } finally {
    asking = false;
  }
  if (found && !element("problem").textContent) {
    say(`${found} ${found === 1 ? "pose" : "poses"} in ${seconds < 0.1 ? "less than 0.1" : seconds.toFixed(1)} seconds.`);
  }
}

async function detect() {
  const mine = visit;
  complain(null);
  say("Looking for people ...");
  element("detect").disabled = true;
  await attempt(async () => {
    const found = await ask("api/detect", {});
    if (mine !== visit) return;
    replacePeople(found.boxes.map((box, index) => newPerson(box, found.box_scores[index])), 0);
    if (!found.boxes.length) say("Nobody was found. Draw a box around a person.");
  });
  element("detect").disabled = false;
}

// ---- the list of people: also the way to boxes without a mouse

function listPeople() {
  const body = element("people").tBodies[0];
  body.replaceChildren(...people.map((person, index) => {
    const row = document.createElement("tr");
    const choose = document.createElement("input");
    choose.type = "radio";
    choose.name = "person";
    choose.checked = index === chosen;
    choose.setAttribute("aria-label", `Show person ${index + 1}`);
    choose.addEventListener("change", () => choosePerson(index));
    const label = document.createElement("label");
    label.className = "choice";
    label.append(choose, String(index + 1));
    const lengths = ["left", "top", "width", "height"].map((side, position) => {
      const input = document.createElement("input");
      input.type = "number";
      input.step = "any";
      input.value = String(Math.round(person.box[position] * 100) / 100);
      input.setAttribute("aria-label", `Person ${index + 1}, ${side} in pixels`);
      input.addEventListener("change", () => changeBox(index, position, input));
      return input;
    });
    const score = document.createElement("span");
    score.className = "score";
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove person ${index + 1}`);
    remove.addEventListener("click", () => {
      replacePeople(people.filter((_, other) => other !== index), chosen > index ? chosen - 1 : chosen);
      element("add").focus();
    });
    for (const content of [label, ...lengths, score, remove]) {
      const cell = document.createElement("td");
      cell.append(content);
      row.append(cell);
    }
    return row;
  }));
  element("people").hidden = !people.length;
  element("nobody").hidden = people.length > 0;
  showScores();
}

function showScores() {
  [...element("people").tBodies[0].rows].forEach((row, index) => {
    const { result, failed } = people[index];
    row.querySelector(".score").textContent = result ? result.score.toFixed(2) : failed ? "none" : "...";
    row.classList.toggle("chosen", index === chosen);
    row.querySelector("input[type=radio]").checked = index === chosen;
  });
}

function changeBox(index, position, input) {
  const value = input.valueAsNumber;
  if (!Number.isFinite(value) || (position > 1 && value <= 0)) {
    complain(new Sentence("A box needs numbers, and a width and height above 0."));
    input.value = String(people[index].box[position]);
    return;
  }
  const box = people[index].box.map((length, other) => (other === position ? value : length));
  const next = people.map((person, other) => (other === index ? newPerson(box) : person));
  // Only this row changes, so that the focus stays where somebody types.
  people = next;
  complain(null);
  showScores();
  update();
  askForPoses();
}

function choosePerson(index, keypoint = null) {
  chosen = index;
  if (keypoint !== null) element("keypoint").value = String(keypoint);
  showScores();
  update();
}

// ---- drawing

let fit = { scale: 1, left: 0, top: 0 };
let view = { width: 1, height: 1 };

function layOut() {
  const width = Math.max(stage.clientWidth, 1);
  const ratio = picture ? picture.height / picture.width : 0.5;
  const height = Math.round(Math.min(Math.max(width * ratio, 160), Math.max(window.innerHeight * 0.72, 240)));
  const dense = window.devicePixelRatio || 1;
  view = { width, height };
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * dense);
  canvas.height = Math.round(height * dense);
  if (picture) fit = fitInto(width, height, picture.width, picture.height);
  drawSoon();
}

let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / view.width, 0, 0, canvas.height / view.height, 0, 0);
    context.clearRect(0, 0, view.width, view.height);
    if (!picture) return;
    drawPicture(context, fit);
    people.forEach((person, index) => drawBox(context, person.box, fit, index === chosen));
    people.forEach((person) => drawSkeleton(context, person, fit));
    if (drag) {
      const box = boxBetween(drag.from, drag.to, fit, picture.width, picture.height);
      if (box) drawBox(context, box, fit, true);
    }
    markChosenKeypoint(context);
  });
}

function drawPicture(context, { scale, left, top }) {
  context.imageSmoothingEnabled = scale * picture.width < 8 * picture.image.naturalWidth;
  context.drawImage(picture.image, left, top, picture.width * scale, picture.height * scale);
}

function drawBox(context, box, at, isChosen) {
  const [x, y] = edgeToView(box, at);
  const size = [box[2] * at.scale, box[3] * at.scale];
  for (const [colour, width] of [[RIM, isChosen ? 4 : 3], [isChosen ? "#ffd23f" : "#ffffff", isChosen ? 2 : 1]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(isChosen ? [] : [6, 4]);
    context.strokeRect(x, y, ...size);
  }
  context.setLineDash([]);
}

function drawSkeleton(context, person, at) {
  if (!person.result) return;
  const threshold = Number(element("threshold").value);
  const keypoints = keypointsOf(person.result);
  const width = strokeWidth(person.box, at);
  const colour = (index) => `rgb(${about.skeleton.colours[index].join(" ")})`;
  context.lineCap = "round";
  const limbs = about.skeleton.limbs.filter((ends) => ends.every((end) => keypoints[end].score > threshold));
  for (const isRim of [true, false]) {
    for (const [first, second] of limbs) {
      context.strokeStyle = isRim ? RIM : colour(first);
      context.lineWidth = isRim ? width + 2 : width;
      context.beginPath();
      context.moveTo(...keypointToView(keypoints[first].point, at));
      context.lineTo(...keypointToView(keypoints[second].point, at));
      context.stroke();
    }
  }
  keypoints.forEach(({ point, score }, index) => {
    if (!(score > threshold)) return;
    context.beginPath();
    context.arc(...keypointToView(point, at), width * 1.1 + 0.5, 0, 2 * Math.PI);
    context.fillStyle = colour(index);
    context.fill();
    context.strokeStyle = RIM;
    context.lineWidth = 1;
    context.stroke();
  });
}

function markChosenKeypoint(context) {
  const keypoint = chosenKeypoint();
  const result = people[chosen]?.result;
  if (keypoint === null || !result) return;
  const [x, y] = keypointToView(keypointsOf(result)[keypoint].point, fit);
  for (const [colour, width] of [[RIM, 4], ["#ffffff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, strokeWidth(people[chosen].box, fit) * 1.1 + 5, 0, 2 * Math.PI);
    context.stroke();
  }
}

// ---- what is beside the picture

function update() {
  drawSoon();
  const results = people.map((person) => person.result).filter(Boolean);
  element("json").textContent = resultsText(results);
  canvas.setAttribute(
    "aria-label",
    picture ? `${picture.name} with ${people.length} boxes and ${results.length} poses` : "No picture yet",
  );
  for (const id of ["copy", "save-json", "save-picture"]) element(id).disabled = !results.length;
  element("clear").disabled = !people.length;
  for (const id of ["whole", "add"]) element(id).disabled = !picture;
  element("detect").disabled = !picture || !about.can_detect;
  showHeatmap();
}

// COCO results with one line for each entry of a pose, and no more digits than mean something.
function resultsText(results) {
  const short = (value) => (typeof value === "number" ? Number(value.toFixed(3)) : value);
  const lines = results.map((result) => {
    const entries = Object.entries(result).map(([name, value]) => {
      const shown = Array.isArray(value) ? `[${value.map(short).join(", ")}]` : JSON.stringify(short(value));
      return `  ${JSON.stringify(name)}: ${shown}`;
    });
    return ` {\n${entries.join(",\n")}\n }`;
  });
  return lines.length ? `[\n${lines.join(",\n")}\n]` : "[]";
}

// A keypoint's name as people write it.
function readable(keypoint) {
  return about.skeleton.keypoints[keypoint].replaceAll("_", " ");
}

function chosenKeypoint() {
  const value = element("keypoint").value;
  return value === "all" ? null : Number(value);
}

async function imageOf(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  return image;
}

async function heatmapsOf(person) {
  const maps = await ask("api/heatmaps", { box: person.box, flip_test: element("flip").checked });
  const [crop, all, ...layers] = await Promise.all([maps.crop, maps.all_layer, ...maps.layers].map(imageOf));
  return { crop, all, layers, peaks: maps.peaks, keypoints: maps.keypoints_in_crop };
}

async function showHeatmap() {
  const person = people[chosen];
  const target = element("heatmap");
  if (!person?.result) {
    target.width = about.crop.width;
    target.height = about.crop.height;
    target.setAttribute("aria-label", "No heatmap yet");
    element("reading").textContent =
      person && !person.failed ? "Looking ..." : "Choose a person to see where the network looks for a keypoint.";
    return;
  }
  person.heatmaps ??= heatmapsOf(person);
  let maps;
  try {
    maps = await person.heatmaps;
  } catch (problem) {
    if (people[chosen] === person) complain(problem);
    return;
  }
  if (people[chosen] !== person) return;
  const keypoint = chosenKeypoint();
  const enlarged = Math.max(1, Math.ceil(768 / maps.crop.height));
  target.width = maps.crop.width * enlarged;
  target.height = maps.crop.height * enlarged;
  const context = target.getContext("2d");
  context.drawImage(maps.crop, 0, 0, target.width, target.height);
  context.fillStyle = "rgba(0, 0, 0, 0.45)";
  context.fillRect(0, 0, target.width, target.height);
  context.drawImage(keypoint === null ? maps.all : maps.layers[keypoint], 0, 0, target.width, target.height);
  const marked = keypoint === null ? maps.keypoints.map((_, index) => index) : [keypoint];
  for (const index of marked) {
    const [x, y] = maps.keypoints[index].map((value) => (value + 0.5) * enlarged);
    const arm = keypoint === null ? 5 : 14;
    for (const [colour, width] of [["#000000", 6], ["#ffffff", 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - arm, y);
      context.lineTo(x + arm, y);
      context.moveTo(x, y - arm);
      context.lineTo(x, y + arm);
      context.stroke();
    }
  }
  const name = keypoint === null ? "all keypoints" : readable(keypoint);
  target.setAttribute("aria-label", `Heatmap of ${name} over the crop of person ${chosen + 1}`);
  if (keypoint === null) {
    element("reading").textContent = `Person ${chosen + 1}: the highest of all heatmaps; a cross marks each keypoint.`;
  } else {
    const { point } = keypointsOf(person.result)[keypoint];
    element("reading").textContent =
      `Person ${chosen + 1}, ${name}: peak ${maps.peaks[keypoint].toFixed(2)}, ` +
      `at (${point[0].toFixed(1)}, ${point[1].toFixed(1)}) in the picture. Colours are relative to the peak.`;
  }
}

function saveAs(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function baseName() {
  return picture.name.replace(/\.[^.]*$/, "") || "picture";
}

// The picture as the page has it, without boxes.
function savePicture() {
  const paper = document.createElement("canvas");
  paper.width = picture.image.naturalWidth;
  paper.height = picture.image.naturalHeight;
  const whole = { scale: paper.width / picture.width, left: 0, top: 0 };
  const context = paper.getContext("2d");
  context.drawImage(picture.image, 0, 0);
  people.forEach((person) => drawSkeleton(context, person, whole));
  paper.toBlob((content) => saveAs(`${baseName()}_poses.png`, content), "image/png");
}

// ---- the mouse

function pointOf(event) {
  const frame = canvas.getBoundingClientRect();
  return [event.clientX - frame.left, event.clientY - frame.top];
}

canvas.addEventListener("pointerdown", (event) => {
  if (!picture || event.button !== 0 || !event.isPrimary) return;
  drag = { from: pointOf(event), to: pointOf(event) };
  canvas.setPointerCapture(event.pointerId);
});

canvas.addEventListener("pointermove", (event) => {
  if (!picture) return;
  if (drag) {
    drag.to = pointOf(event);
    drawSoon();
    return;
  }
  hovered = keypointUnder(pointOf(event));
  showTip(pointOf(event));
});

canvas.addEventListener("pointerup", (event) => {
  if (!drag) return;
  const { from } = drag;
  const to = pointOf(event);
  drag = null;
  drawSoon();
  if (Math.min(Math.abs(to[0] - from[0]), Math.abs(to[1] - from[1])) >= SMALLEST_DRAG) {
    const box = boxBetween(from, to, fit, picture.width, picture.height);
    if (box) replacePeople([...people, newPerson(box)], people.length);
    return;
  }
  const keypoint = keypointUnder(to);
  const index = keypoint ? keypoint.person : boxAt(to, people.map((person) => person.box), fit);
  if (index >= 0) choosePerson(index, keypoint?.keypoint);
});

canvas.addEventListener("pointercancel", () => {
  drag = null;
  drawSoon();
});

canvas.addEventListener("pointerleave", () => {
  hovered = null;
  showTip(null);
});

function keypointUnder(point) {
  const found = people.map((person) => person.result && keypointsOf(person.result));
  return keypointAt(point, found, fit, Number(element("threshold").value), REACH);
}

function showTip(point) {
  const tip = element("tip");
  tip.hidden = !hovered;
  if (!hovered) return;
  const { score } = keypointsOf(people[hovered.person].result)[hovered.keypoint];
  tip.textContent = `${readable(hovered.keypoint)} ${score.toFixed(2)}`;
  const x = Math.min(point[0] + 14, view.width - tip.offsetWidth - 4);
  const y = Math.max(point[1] - tip.offsetHeight - 8, 4);
  tip.style.transform = `translate(${x}px, ${y}px)`;
}

// ---- everything else that visitors do

function listen() {
  element("file").addEventListener("change", (event) => {
    if (event.target.files.length) openFile(event.target.files[0]);
    event.target.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    window.addEventListener(name, (event) => {
      event.preventDefault();
      stage.classList.add("over");
    });
  }
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("over");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) openFile(file);
    else complain(new Sentence("That was not a file; drop a picture's file, or save the picture first."));
  });
  window.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) openFile(file);
  });
  window.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && drag) {
      drag = null;
      drawSoon();
    }
  });
  new ResizeObserver(layOut).observe(stage);
  element("detect").addEventListener("click", detect);
  element("whole").addEventListener("click", () => {
    replacePeople([newPerson([0, 0, picture.width, picture.height])], 0);
  });
  element("clear").addEventListener("click", () => {
    replacePeople([], -1);
    say("Draw a box around a person.");
  });
  element("add").addEventListener("click", () => {
    const { width, height } = picture;
    const box = [width / 4, height / 4, width / 2, height / 2];
    replacePeople([...people, newPerson(box)], people.length);
    element("people").tBodies[0].lastElementChild.querySelector("input[type=number]").focus();
  });
  element("flip").addEventListener("change", () => {
    replacePeople(people.map((person) => newPerson(person.box, person.boxScore)), chosen);
  });
  element("threshold").addEventListener("input", () => {
    element("threshold-value").textContent = Number(element("threshold").value).toFixed(2);
    drawSoon();
  });
  element("keypoint").addEventListener("change", update);
  element("copy").addEventListener("click", () => attempt(async () => {
    try {
      await navigator.clipboard.writeText(element("json").textContent);
    } catch {
      throw new Sentence("The browser does not allow this page to copy; choose the text and copy it yourself.");
    }
    say("Copied.");
  }));
  element("save-json").addEventListener("click", () => {
    saveAs(`${baseName()}_poses.json`, new Blob([element("json").textContent], { type: "application/json" }));
  });
  element("save-picture").addEventListener("click", savePicture);
}

function showAbout() {
  element("notes").replaceChildren(...about.notes.map((note) => {
    const paragraph = document.createElement("p");
    paragraph.textContent = note;
    return paragraph;
  }));
  element("threshold").value = String(about.score_threshold);
  element("threshold-value").textContent = Number(element("threshold").value).toFixed(2);
  const names = about.skeleton.keypoints.map((_, index) => new Option(readable(index), String(index)));
  element("keypoint").replaceChildren(new Option("all", "all"), ...names);
  element("keypoint").value = "0";
  element("examples").replaceChildren(...about.examples.map((name, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    const image = document.createElement("img");
    image.src = `api/examples/${index}/preview`;
    image.alt = `Example ${index + 1}: ${name}`;
    button.append(image);
    button.addEventListener("click", () => openExample(index));
    return button;
  }));
  if (!about.can_detect) element("detect").hidden = true;
}

attempt(async () => {
  about = await answer("api/about");
  showAbout();
  listen();
  layOut();
  update();
});
