// What one conversation, in a room or with a person, has on the screen.

import { avatarOf, make, withLinks } from "./elements.js";

const MOST_ITEMS = 500;
const SAME_BREATH = 5 * 60_000; // messages this close together share one heading

export const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

export class Conversation {
  #seen = new Set();
  #follows = true; // whether the reader was at the end when last scrolling
  unread = 0;
  draft = "";

  // The key is a room's name, or "@" and a person's id; `title` is what people call it.
  constructor(key, title) {
    this.key = key;
    this.room = key.startsWith("@") ? null : key;
    this.person = key.startsWith("@") ? key.slice(1) : null;
    this.log = make("div", "log", this.#intro(title));
    this.log.hidden = true;
    this.log.tabIndex = 0;
    this.log.setAttribute("role", "log");
    this.log.setAttribute("aria-label", `Messages: ${title}`);
    // The keyboard of a phone comes up, a banner appears: the end stays in sight.
    let height = 0;
    this.log.addEventListener("scroll", () => {
      if (this.log.clientHeight === height) this.#follows = this.isAtEnd;
    });
    new ResizeObserver(() => {
      height = this.log.clientHeight;
      if (this.#follows) this.scrollToEnd();
    }).observe(this.log);
  }

  #intro(title) {
    const mark = this.person ? avatarOf({ id: this.person, name: title }) : make("span", "mark", "#");
    mark.setAttribute("aria-hidden", "true");
    const text = this.person
      ? "Only the two of you see this, in all of your open tabs."
      : "You see what is said while you are here. To invite somebody, share the address of this page.";
    return make("div", "intro", mark, make("p", "intro-title", make("bdi", "", title)), make("p", "", text));
  }

  get isAtEnd() {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 80;
  }

  scrollToEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  // Put an item at the end, where it may have been before. Somebody who reads further up is
  // left in peace; then the answer is false.
  place(item) {
    const follow = this.isAtEnd || item.classList.contains("pending");
    const next = item.nextElementSibling;
    if (item.parentElement !== this.log || next) {
      this.log.append(item);
      group(item);
      if (next) group(next);
    }
    while (this.log.children.length > MOST_ITEMS) this.log.children[1].remove();
    if (follow) this.scrollToEnd();
    return follow;
  }

  notice(text, about = {}) {
    const item = make("p", "item notice", text);
    Object.assign(item.dataset, about);
    this.place(item);
  }

  // Somebody is back: if their leaving is the last thing told, it was only a reload.
  forgetLeaving(person) {
    const last = this.log.lastElementChild;
    if (last.dataset.left !== person) return false;
    last.remove();
    return true;
  }

  // Whether this is the first time that this message comes. Its sender sends it again when
  // the connection was lost before the server had confirmed it.
  isNew(sender, ref) {
    const id = `${sender.id} ${ref}`;
    if (this.#seen.has(id)) return false;
    this.#seen.add(id);
    if (this.#seen.size > MOST_ITEMS) this.#seen.delete(this.#seen.values().next().value);
    return true;
  }
}

export function messageItem(sender, text, mine) {
  const now = new Date();
  const time = make("time", "", clock.format(now));
  time.dateTime = now.toISOString();
  const by = make("p", "by", make("bdi", "", mine ? "You" : sender.name), " ", time);
  const bubble = make("p", "bubble", ...withLinks(text));
  bubble.dir = "auto";
  const item = make("div", `item ${mine ? "mine" : "theirs"}`, make("div", "said", by, bubble));
  if (!mine) item.prepend(avatarOf(sender));
  item.dataset.sender = sender.id;
  item.dataset.time = now.getTime();
  return item;
}

// Whether a message goes on under the heading of the one before.
function group(item) {
  const before = item.previousElementSibling;
  const goesOn =
    item.dataset.sender &&
    item.dataset.sender === before?.dataset.sender &&
    item.dataset.time - before.dataset.time < SAME_BREATH;
  item.classList.toggle("goes-on", Boolean(goesOn));
}
