// Everything that the page does: it sends what you draw or drop to the server, and shows how the network classifies it.

const $ = (id) => document.getElementById(id);
const classes = JSON.parse(document.body.dataset.classes);
const draws = document.body.dataset.draws === "true";
const canvas = $("canvas");
const paper = canvas.parentElement;
const SIDE = 280; // pixels per side of the drawing that is sent
const PEN = 1 / 13; // width of a stroke, as a share of the paper: about that of MNIST's digits if the digit fills the paper
const SHOWN = 12; // classes; if there are more, the most likely ones
const SENT_AS_IT_IS = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"];
const MAX_BYTES = 2 ** 20;

// The drawing. Coordinates are shares of the paper's side. A state is never changed, only replaced, so undo is a stack.
let state = { strokes: [], picture: null };
const past = [];

function change(next) {
  past.push(state);
  state = next;
  update();
}

function undo() {
  if (!past.length) return;
  stroke = null;
  state = past.pop();
  update();
}

function clear() {
  stroke = null;
  if (!isEmpty()) change({ strokes: [], picture: null });
}

const isEmpty = () => !state.strokes.length && !state.picture;

function update() {
  $("undo").disabled = !past.length;
  $("clear").disabled = isEmpty();
  paper.classList.toggle("inked", !isEmpty());
  $("problem").textContent = "";
  repaint();
  ask();
}

// Painting.

function drawStrokes(context, side, color) {
  context.lineWidth = PEN * side;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = color;
  for (const points of state.strokes) {
    context.beginPath();
    context.moveTo(points[0][0] * side - 0.01, points[0][1] * side); // a line without length would not be drawn
    for (const [x, y] of points) context.lineTo(x * side, y * side);
    context.stroke();
  }
}

let frame = 0;
function repaint() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const side = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.width = canvas.height = side; // which also wipes it
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    if (state.picture) {
      const { width, height } = state.picture.bitmap;
      const scale = side / Math.max(width, height);
      const [w, h] = [width * scale, height * scale];
      context.imageSmoothingEnabled = scale < 4;
      context.drawImage(state.picture.bitmap, (side - w) / 2, (side - h) / 2, w, h);
    }
    drawStrokes(context, side, style.color);
    if (draws && document.activeElement === canvas && cursor.shown) {
      context.lineWidth = 2 * devicePixelRatio;
      context.strokeStyle = context.fillStyle = style.getPropertyValue("--accent");
      context.beginPath();
      context.arc(cursor.x * side, cursor.y * side, (PEN * side) / 2, 0, 2 * Math.PI);
      context.stroke();
      if (cursor.down) context.fill();
    }
  });
}

// Pen, finger and mouse.

let stroke = null; // the points of the stroke that is being drawn

function begin(x, y) {
  stroke = [[x, y]];
  change({ strokes: [...(state.picture ? [] : state.strokes), stroke], picture: null });
}

function go(x, y) {
  stroke.push([x, y]);
  repaint();
  ask();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

if (draws) {
  let pointer = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button || pointer !== null) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    cursor.shown = cursor.down = false;
    begin(...place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer || !stroke) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const each of events.length ? events : [event]) go(...place(each));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId !== pointer) return;
      pointer = stroke = null;
      ask(); // while the digit was being drawn, no problem was reported
    });
  }
}

// Keyboard: the arrow keys move a pen; the space bar lowers and lifts it.

const cursor = { x: 0.5, y: 0.25, down: false, shown: false };
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function liftOrLower(down) {
  cursor.down = down;
  if (down) begin(cursor.x, cursor.y);
  else stroke = null;
  say(down ? "Pen down" : "Pen up");
  repaint();
}

if (draws) {
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in STEPS) {
      const [dx, dy] = STEPS[event.key];
      const clip = (value) => Math.min(1 - PEN / 2, Math.max(PEN / 2, value));
      cursor.x = clip(cursor.x + dx / 28);
      cursor.y = clip(cursor.y + dy / 28);
      if (cursor.down && stroke) go(cursor.x, cursor.y);
    } else if (event.key === " " || event.key === "Enter") {
      liftOrLower(!cursor.down);
    } else if (event.key === "Escape" && cursor.down) {
      liftOrLower(false);
    } else return;
    cursor.shown = true;
    event.preventDefault();
    repaint();
  });
  canvas.addEventListener("focus", () => {
    cursor.shown = canvas.matches(":focus-visible");
    repaint();
  });
  canvas.addEventListener("blur", () => {
    cursor.down = false;
    stroke = null;
    repaint();
  });
}

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") undo();
  else if (event.key === "Delete" || event.key === "Backspace") clear();
  else return;
  cursor.down = false;
  event.preventDefault();
});
$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);

// Pictures.

async function take(file) {
  try {
    const bitmap = await createImageBitmap(file);
    const blob = SENT_AS_IT_IS.includes(file.type) && file.size <= MAX_BYTES ? file : await shrink(bitmap);
    stroke = null;
    change({ strokes: [], picture: { bitmap, blob } });
  } catch {
    $("problem").textContent = `${file.name} is not a picture that this browser can read.`;
  }
}

function shrink(bitmap) {
  const scale = Math.min(1, 1024 / Math.max(bitmap.width, bitmap.height));
  const small = document.createElement("canvas");
  small.width = Math.max(1, Math.round(bitmap.width * scale));
  small.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = small.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, small.width, small.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, small.width, small.height);
  return new Promise((done) => small.toBlob(done, "image/jpeg", 0.95));
}

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = ""; // so that you can choose the same file again
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    paper.classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

// Asking the network: one question at a time; the next one is about the newest state.

let isAsking = false;
let isChanged = false;

async function ask() {
  isChanged = true;
  if (isAsking) return;
  isAsking = true;
  $("bars").setAttribute("aria-busy", "true");
  while (isChanged) {
    isChanged = false;
    const asked = isEmpty() ? null : await question(state.picture ? "picture" : "drawing");
    if (!isChanged || asked) show(isEmpty() ? null : asked);
  }
  isAsking = false;
  $("bars").setAttribute("aria-busy", "false");
}

function drawing() {
  const sent = document.createElement("canvas");
  sent.width = sent.height = SIDE;
  const context = sent.getContext("2d");
  context.fillRect(0, 0, SIDE, SIDE); // in black
  drawStrokes(context, SIDE, "#fff");
  return new Promise((done) => sent.toBlob(done, "image/png"));
}

async function question(kind) {
  try {
    const body = state.picture ? state.picture.blob : await drawing();
    const response = await fetch(`page/${kind}`, { method: "POST", body, headers: { "content-type": body.type } });
    const answer = await response.json();
    if (response.ok) {
      $("problem").textContent = "";
      return answer;
    }
    if (!stroke) $("problem").textContent = answer.error;
  } catch {
    $("problem").textContent = "The server does not answer.";
  }
  return null;
}

// Showing what it says.

const percent = (share) => (share > 0.999 ? ">99.9%" : `${(100 * share).toFixed(1)}%`);
const rows = classes.slice(0, SHOWN).map((label) => {
  const row = document.createElement("li");
  row.innerHTML = '<span class="label"></span><span class="track"><span class="fill"></span></span><span class="value"></span>';
  row.firstChild.textContent = label;
  $("bars").append(row);
  return row;
});

function show(answer) {
  const shares = answer ? answer.probabilities : classes.map(() => 0);
  const order = shares.map((_, index) => index).sort((a, b) => shares[b] - shares[a]);
  const best = order[0];
  rows.forEach((row, place) => {
    const index = classes.length > SHOWN ? order[place] : place;
    row.className = answer && index === best ? "best" : "";
    row.children[0].textContent = row.children[0].title = classes[index];
    row.children[1].firstChild.style.transform = `translateX(${100 * shares[index] - 100}%)`;
    row.children[2].textContent = answer ? percent(shares[index]) : "";
  });
  $("best").textContent = answer ? classes[best] : "";
  $("best").className = answer && classes[best].length > 3 ? "long" : "";
  $("sure").textContent = answer ? percent(shares[best]) : "Nothing to read yet";
  $("seen").hidden = !answer;
  if (answer) {
    $("seen").src = `data:image/png;base64,${answer.seen}`;
    $("seen").alt = `${classes[best]}, as the network sees it`;
    const [first, second] = order.map((index) => `${classes[index]}, ${percent(shares[index])}`);
    say(`Reads ${first}; then ${second}`, 700);
  } else say("", 0);
}

// For screen readers: speaks the last message once the drawing has stopped.
let speaking = 0;
function say(words, delay = 0) {
  clearTimeout(speaking);
  speaking = setTimeout(() => ($("spoken").textContent = words), delay);
}

new ResizeObserver(repaint).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
show(null);
