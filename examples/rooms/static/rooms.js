// The page: conversations on the screen, the server at the other end of a Link.

import { Conversation, clock, messageItem } from "./conversation.js";
import { closeDrawer } from "./drawers.js";
import { $, avatarOf, count, fill, make } from "./elements.js";
import { Link } from "./link.js";

const HOME = "lobby";
const MOST_ROOMS = 20; // as on the server
const ROOM_NAME = /^[\p{L}\p{N}][\p{L}\p{M}\p{N}_-]{0,31}$/u; // as on the server
const OVERDUE = 10_000; // a message not confirmed for so long means a dead connection

function random(bytes) {
  const values = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(values, (value) => value.toString(16).padStart(2, "0")).join("");
}

// ---- Who I am -----------------------------------------------------------------------------
// All tabs of a browser share localStorage and so are one person; a tab that is somebody else
// keeps that person in its sessionStorage.

const store = sessionStorage.getItem("rooms.key") ? sessionStorage : localStorage;
if (!store.getItem("rooms.key")) store.setItem("rooms.key", random(16));
const me = { id: "", key: store.getItem("rooms.key"), name: store.getItem("rooms.name") ?? "" };

// ---- What there is ------------------------------------------------------------------------

const conversations = new Map(); // by key
const joined = new Set(JSON.parse(sessionStorage.getItem("rooms.joined") ?? "[]")).add(HOME);
const people = new Map(); // of each room joined: id → person
const workers = new Map(); // of each worker: what it says of its rooms, and when it did
const namesSeen = new Map(); // of everybody ever seen, by id
const outbox = new Map(); // what the server has not confirmed yet, by ref
let sizes = {}; // people in each room there is
let ownWorker = ""; // the one that this page is connected to
let settled = 0; // by then all workers have told who is where
let current = null; // the conversation on the screen

function conversation(key) {
  if (!conversations.has(key)) {
    const title = key.startsWith("@") ? nameOf(key.slice(1)) : key;
    const made = new Conversation(key, title);
    made.log.addEventListener("scroll", () => {
      if (made === current && made.isAtEnd) $("to-end").hidden = true;
    });
    $("conversations").append(made.log);
    conversations.set(key, made);
  }
  return conversations.get(key);
}

function titleOf({ room, person }) {
  return room ?? nameOf(person);
}

function nameOf(id) {
  return namesSeen.get(id) ?? "Somebody";
}

function isHere(id) {
  return Array.from(people.values()).some((inRoom) => inRoom.has(id));
}

// ---- Sending: a message stays in the outbox until the server has sent it back --------------

function send(to, text) {
  const ref = random(8);
  const message = to.person
    ? { type: "tell", ref, to: to.person, text }
    : { type: "say", ref, room: to.room, text };
  const item = messageItem(me, text, true);
  item.classList.add("pending");
  outbox.set(ref, { message, to, item, since: Date.now() });
  to.place(item);
  if (welcomed) link.send(message);
}

function sendAgain() {
  for (const entry of outbox.values()) {
    entry.since = Date.now();
    link.send(entry.message);
  }
}

function confirm(ref) {
  const { to, item } = outbox.get(ref);
  outbox.delete(ref);
  item.classList.remove("pending");
  to.place(item); // after all that the server has sent before it, as everyone sees it
}

function fail(ref, why) {
  const { message, to, item } = outbox.get(ref);
  outbox.delete(ref);
  item.classList.replace("pending", "failed");
  const retry = make("button", "link-button", "Send again");
  retry.type = "button";
  retry.onclick = () => {
    item.remove();
    send(to, message.text);
  };
  item.querySelector(".said").append(make("p", "problem", `${why} `, retry));
}

setInterval(() => {
  const overdue = Array.from(outbox.values()).some(({ since }) => Date.now() - since > OVERDUE);
  if (welcomed && overdue) link.renew();
}, 1000);

// ---- Receiving ----------------------------------------------------------------------------

let welcomed = false;
let early = []; // what came before the welcome, without which nobody knows who "you" is
let lostAt = null;
let cameSecond = null; // whether this person was here already when this tab came

const receive = {
  welcome({ you, worker }) {
    me.id = you;
    welcomed = true;
    people.clear();
    workers.clear();
    ownWorker = worker;
    settle();
    if (lostAt) {
      const text = `The connection was lost at ${clock.format(lostAt)}. What was said until now is missing here.`;
      for (const each of conversations.values()) each.notice(text);
      lostAt = null;
    }
    for (const message of early.splice(0)) receive[message.type](message);
    sendAgain();
  },

  rooms({ worker, rooms }) {
    about(worker).sizes = rooms;
    addSizes();
  },

  people({ worker, room, people: list }) {
    if (!joined.has(room)) return;
    for (const person of list) namesSeen.set(person.id, person.name);
    const { lists } = about(worker);
    const isNews = lists.has(room) || Date.now() > settled;
    lists.set(room, list);
    addPeople(room, isNews);
  },

  said({ ref, room, sender, text }) {
    if (joined.has(room)) show(conversation(room), ref, sender, text);
  },

  told({ ref, sender, to, text }) {
    for (const { id, name } of [sender, to]) if (name) namesSeen.set(id, name);
    show(conversation(`@${sender.id === me.id ? to.id : sender.id}`), ref, sender, text);
  },

  undelivered({ ref }) {
    if (outbox.has(ref)) fail(ref, "Not delivered: nobody there.");
  },
};

function show(where, ref, sender, text) {
  if (!where.isNew(sender, ref)) return;
  if (outbox.has(ref)) {
    confirm(ref);
    return;
  }
  const seen = where.place(messageItem(sender, text, sender.id === me.id));
  if (where === current && !seen) $("to-end").hidden = false;
  if (sender.id !== me.id && (where !== current || document.hidden)) where.unread += 1;
}

// ---- What several workers say, added up ---------------------------------------------------

const AGAIN = 2000; // as on the server: so often a worker tells, if there are several
const SILENT = 3 * AGAIN; // one that has not told for so long has gone

function settle() {
  settled = Date.now() + 2 * AGAIN;
}

function about(worker) {
  if (!workers.has(worker)) workers.set(worker, { lists: new Map(), sizes: {}, heard: 0 });
  return Object.assign(workers.get(worker), { heard: Date.now() });
}

function addSizes() {
  sizes = {};
  for (const worker of workers.values()) {
    for (const [room, here] of Object.entries(worker.sizes)) sizes[room] = (sizes[room] ?? 0) + here;
  }
}

function addPeople(room, isNews) {
  const before = people.get(room);
  const now = new Map();
  for (const { lists } of workers.values()) {
    for (const person of lists.get(room) ?? []) {
      const tabs = person.tabs + (now.get(person.id)?.tabs ?? 0);
      now.set(person.id, { ...person, tabs });
    }
  }
  people.set(room, now);
  if (now.has(me.id)) {
    me.name = now.get(me.id).name;
    cameSecond ??= now.get(me.id).tabs > 1;
  }
  if (before && isNews) tellChanges(conversation(room), before, now);
}

setInterval(() => {
  for (const [name, { heard, lists }] of workers) {
    if (name === ownWorker || Date.now() - heard < SILENT) continue;
    workers.delete(name);
    for (const room of lists.keys()) if (joined.has(room)) addPeople(room, true);
    addSizes();
    render();
  }
}, 1000);

function tellChanges(where, before, now) {
  for (const [id, { name }] of now) {
    const old = before.get(id)?.name;
    if (old === undefined) {
      if (!where.forgetLeaving(id)) where.notice(`${name} joined`);
    } else if (old !== name) {
      where.notice(id === me.id ? `You are now ${name}` : `${old} is now ${name}`);
    }
  }
  for (const [id, { name }] of before) {
    if (!now.has(id)) where.notice(`${name} left`, { left: id });
  }
}

// ---- The connection -----------------------------------------------------------------------

let retryAt = 0;
let wasOpen = false;

const link = new Link(
  () => {
    // Relative to this page, so that it works on any host, over TLS and below a prefix.
    const url = new URL("ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    me.name = store.getItem("rooms.name"); // another tab may have changed it
    url.searchParams.set("key", me.key);
    url.searchParams.set("name", me.name);
    for (const room of joined) url.searchParams.append("room", room);
    return url;
  },
  {
    message(message) {
      if (welcomed || message.type === "welcome") receive[message.type](message);
      else early.push(message);
      render();
    },

    state(state, { until = 0, code, reason }) {
      if (state === "open") {
        wasOpen = true;
      } else {
        if (welcomed) lostAt = new Date();
        welcomed = false;
        early = [];
      }
      retryAt = until;
      if (state === "refused") {
        for (const ref of outbox.keys()) fail(ref, "Not sent.");
        tellState("refused", "Refused", "The server ended the connection.", reason || `Code ${code}.`);
      } else if (state === "open") {
        tellState("open", "Online");
      } else if (wasOpen || until) {
        tellState("offline", "Offline", wasOpen ? "Connection lost." : "No connection.", "Trying again…");
      } else {
        tellState("connecting", "Connecting…");
      }
      countDown();
      render();
    },
  },
);

function tellState(state, text, problem = "", details = "") {
  $("state").dataset.state = state;
  if ($("state-text").textContent !== text) $("state-text").textContent = text;
  $("offline").hidden = !problem;
  $("offline-title").textContent = problem;
  $("offline-text").textContent = details;
}

function countDown() {
  if (!retryAt) return;
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  $("offline-text").textContent = seconds > 0 ? `Trying again in ${seconds} s.` : "Trying again…";
}
setInterval(countDown, 500);
$("retry").onclick = () => link.retry();

// ---- Rooms --------------------------------------------------------------------------------

function normalise(name) {
  return name.toWellFormed().trim().toLowerCase().replace(/\s+/g, "-").normalize("NFC");
}

function rememberRooms() {
  sessionStorage.setItem("rooms.joined", JSON.stringify([...joined]));
}

function enter(room) {
  if (joined.has(room)) return true;
  if (joined.size >= MOST_ROOMS) {
    current?.notice(`You are in ${MOST_ROOMS} rooms, which is the most: leave one first.`);
    return false;
  }
  joined.add(room);
  settle();
  rememberRooms();
  if (welcomed) link.send({ type: "enter", room });
  return true;
}

function leave({ key, room, log }) {
  joined.delete(room);
  rememberRooms();
  people.delete(room);
  for (const { lists } of workers.values()) lists.delete(room);
  for (const [ref, { to }] of outbox) {
    if (to.key === key) outbox.delete(ref);
  }
  conversations.delete(key);
  log.remove();
  current = null;
  if (welcomed) link.send({ type: "leave", room });
  go(HOME);
}

// The part of the address after "#" says which conversation is on the screen.
function go(key) {
  location.hash = encodeURIComponent(key);
  follow();
}

function follow() {
  let key = decodeURIComponent(location.hash.slice(1));
  if (key.startsWith("@")) {
    if (!namesSeen.has(key.slice(1))) key = HOME;
  } else {
    key = normalise(key);
    if (!ROOM_NAME.test(key) || !enter(key)) key = current?.key ?? HOME;
  }
  const next = conversation(key);
  closeDrawer();
  if (next === current) return;
  if (current) {
    current.draft = $("text").value;
    current.log.hidden = true;
  }
  current = next;
  current.log.hidden = false;
  current.scrollToEnd();
  $("to-end").hidden = true;
  $("text").value = current.draft;
  fitText();
  render();
  if (matchMedia("(pointer: fine)").matches) $("text").focus();
}
addEventListener("hashchange", follow);

$("leave-room").onclick = () => leave(current);
$("new-room-name").oninput = () => ($("new-room-problem").textContent = "");
$("new-room").onsubmit = (event) => {
  event.preventDefault();
  const room = normalise($("new-room-name").value);
  const fine = ROOM_NAME.test(room);
  $("new-room-problem").textContent = fine ? "" : "Letters and digits, please, with - or _ between them.";
  if (fine) {
    $("new-room-name").value = "";
    go(room);
  }
};

// ---- Drawing ------------------------------------------------------------------------------

function render() {
  if (!current) return;
  if (!document.hidden) current.unread = 0;
  drawRooms();
  drawPrivate();
  drawUnread();
  const here = drawPeople();

  $("title").textContent = titleOf(current);
  $("title").classList.toggle("room-title", current.room !== null);
  $("subtitle").textContent = subtitle(here);
  $("leave-room").hidden = !current.room || current.room === HOME;
  $("text").placeholder = `Write ${current.room ? "in" : "to"} ${titleOf(current)}`;
  const offline = $("state").dataset.state === "offline";
  $("composer-note").textContent = offline ? "What you write now is sent when the connection is back, to whoever is back by then." : "";

  $("my-name").textContent = me.name;
  $("my-scope").textContent = store === sessionStorage ? "in this tab only" : "";
  $("my-avatar").replaceWith(Object.assign(avatarOf(me), { id: "my-avatar" }));
  const tabs = Math.max(0, ...Array.from(people.values(), (inRoom) => inRoom.get(me.id)?.tabs ?? 0));
  $("same-person-name").textContent = me.name;
  $("same-person").hidden = !(cameSecond && tabs > 1 && store === localStorage);
}

function subtitle(here) {
  if (!welcomed) return "Not connected";
  if (current.person) return isHere(current.person) ? "Private" : "Private, not here now";
  return here === 1 ? "Only you are here" : `${here} people here`;
}

function drawRooms() {
  const rooms = [...new Set([...Object.keys(sizes), ...joined])];
  fill(
    $("rooms"),
    rooms.map((key) => ({ key, quiet: !joined.has(key), here: sizes[key] ?? 0 })),
    ({ key }) => {
      const mark = make("span", "hash", "#");
      mark.setAttribute("aria-hidden", "true");
      return entryItem(key, mark);
    },
    drawEntry,
  );
}

function drawPrivate() {
  const dialogues = [...conversations.values()].filter(({ person }) => person);
  $("private").hidden = !dialogues.length;
  fill(
    $("private-list"),
    dialogues.map(({ key, person }) => ({ key, quiet: !isHere(person), here: 0 })),
    ({ key }) => entryItem(key, avatarOf({ id: key.slice(1), name: nameOf(key.slice(1)) })),
    drawEntry,
  );
}

function entryItem(key, mark) {
  const button = make("button", "entry", mark, make("bdi", "entry-name"), make("span", "badge"), make("span", "count"));
  button.type = "button";
  button.onclick = () => go(key);
  return make("li", "", button);
}

function drawEntry(item, { key, quiet, here }) {
  const button = item.firstElementChild;
  button.classList.toggle("quiet", quiet);
  button.setAttribute("aria-current", current.key === key);
  button.querySelector(".entry-name").textContent = key.startsWith("@") ? nameOf(key.slice(1)) : key;
  count(button.querySelector(".badge"), conversations.get(key)?.unread ?? 0, "unread");
  count(button.querySelector(".count"), here, here === 1 ? "person" : "people");
}

function drawUnread() {
  const unread = [...conversations.values()].reduce((sum, { unread }) => sum + unread, 0);
  count($("unread-elsewhere"), unread - current.unread, "unread");
  document.title = `${unread ? `(${unread}) ` : ""}${titleOf(current)} · Rooms`;
}

function drawPeople() {
  const inRoom = current.person
    ? [{ id: current.person, name: nameOf(current.person), tabs: 1 }].filter(({ id }) => isHere(id))
    : [...(people.get(current.room)?.values() ?? [])];
  const here = inRoom.sort((a, b) => (b.id === me.id) - (a.id === me.id) || a.name.localeCompare(b.name));
  const twins = new Set(here.map(({ name }) => name).filter((name, i, names) => names.indexOf(name) !== i));
  $("people").classList.toggle("stale", !welcomed);
  fill(
    $("people"),
    here.map((person) => ({ key: `${person.id} ${person.name}`, ...person })),
    personItem,
    (item, { id, name, tabs }) => {
      const note = id === me.id ? ["you", tabs > 1 ? `, in ${tabs} tabs` : ""].join("") : "";
      item.querySelector("small").textContent = note || (twins.has(name) ? `#${id.slice(0, 4)}` : "");
    },
  );
  return here.length;
}

function personItem(person) {
  const mine = person.id === me.id;
  const row = make(mine ? "div" : "button", "entry", avatarOf(person), make("bdi", "entry-name", person.name), make("small", ""));
  if (!mine) {
    row.type = "button";
    row.title = `Write to ${person.name} in private`;
    row.append($("write-icon").content.cloneNode(true));
    row.onclick = () => go(`@${person.id}`);
  }
  return make("li", "", row);
}

// ---- The box to write in ------------------------------------------------------------------

function fitText() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`; // the border
}

$("text").oninput = fitText;
$("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
};
$("composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.toWellFormed().trim();
  if (text) send(current, text);
  $("text").value = "";
  fitText();
  $("text").focus();
};
$("to-end").onclick = () => {
  current.scrollToEnd();
  $("text").focus();
};
document.addEventListener("visibilitychange", render);

// ---- Names --------------------------------------------------------------------------------

function askName(someoneElse = false) {
  const first = !me.name;
  const heading = someoneElse ? "Who will you be here?" : "Change your name";
  $("name-heading").textContent = first ? "What should people call you?" : heading;
  $("name-text").textContent = first ? "Others see it beside your messages. You can change it at any time." : "";
  $("name").value = someoneElse ? "" : me.name;
  $("other-person").hidden = first || store === sessionStorage;
  $("only-this-tab").checked = someoneElse;
  $("cancel-name").hidden = first;
  $("save-name").textContent = first ? "Start chatting" : "Save";
  $("name-dialog").showModal();
  $("name").select();
}

$("name-dialog").oncancel = (event) => {
  if (!me.name) event.preventDefault();
};
$("cancel-name").onclick = () => $("name-dialog").close();
$("change-name").onclick = () => askName();
$("be-someone-else").onclick = () => askName(true);
$("dismiss-hint").onclick = () => {
  cameSecond = false;
  render();
};
$("name").oninput = () => $("name").setCustomValidity("");
$("name-form").onsubmit = (event) => {
  const name = $("name").value.toWellFormed().replace(/\p{Cc}/gu, " ").trim();
  if (!name) {
    event.preventDefault();
    $("name").setCustomValidity("Please write a name.");
    $("name").reportValidity();
    return;
  }
  const first = !me.name;
  const other = $("only-this-tab").checked;
  if (other) sessionStorage.setItem("rooms.key", random(16));
  (other ? sessionStorage : store).setItem("rooms.name", name);
  if (other) {
    location.reload();
    return;
  }
  me.name = name;
  if (first) link.start();
  else if (welcomed) link.send({ type: "rename", name });
  render();
};

follow();
if (me.name) link.start();
else askName();
