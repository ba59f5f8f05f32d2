// A WebSocket that comes back by itself.

const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
const PATIENCE = 10_000; // for the handshake and the first message

// After these close codes, trying the same again at once would end the same way:
// the server has said no, or could not read what this page sent.
const REFUSALS = new Set([1002, 1003, 1007, 1008, 1009, 3000, 3003]);

export class Link {
  #address;
  #listener;
  #socket = null;
  #timer = 0;
  #attempt = 0;
  #started = false;

  // `address` is a function that returns the URL for the next attempt. The listener has
  // `message(value)` and `state(name, details)`; the states are "connecting", "open" once the
  // server has spoken, "waiting" with { until } and "refused" with { code, reason }.
  constructor(address, listener) {
    this.#address = address;
    this.#listener = listener;
    addEventListener("online", () => this.retry());
    addEventListener("offline", () => this.renew());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.retry();
    });
  }

  start() {
    this.#started = true;
    this.retry();
  }

  // Connect now unless that is under way already.
  retry() {
    if (this.#started && !this.#socket) this.#connect();
  }

  // Give up the socket, which may be dead without knowing it, and connect again.
  renew() {
    if (!this.#socket) return;
    this.#drop();
    this.#wait();
  }

  // Hand a message to the socket; false if there is none that is open.
  send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#listener.state("connecting", {});
    const socket = new WebSocket(this.#address());
    this.#socket = socket;
    this.#timer = setTimeout(() => this.renew(), PATIENCE);
    let heard = false;
    socket.onmessage = (event) => {
      if (!heard) {
        heard = true;
        clearTimeout(this.#timer);
        this.#attempt = 0;
        this.#listener.state("open", {});
      }
      this.#listener.message(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      this.#drop();
      if (REFUSALS.has(event.code)) {
        this.#listener.state("refused", { code: event.code, reason: event.reason });
      } else {
        this.#wait(event.reason);
      }
    };
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#socket = null;
  }

  // As long as the server says in its goodbye; else twice as long after each failure. Both are
  // at random, so that the pages of a server that restarts do not all come back at once.
  #wait(reason = "") {
    const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempt);
    const told = /retry-after=([\d.]+)$/.exec(reason);
    const delay = told ? told[1] * 1000 : longest * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#listener.state("waiting", { until: Date.now() + delay });
  }
}
